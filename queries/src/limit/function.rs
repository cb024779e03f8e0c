//! Functions that make long values out of short arguments, refused before they do: no pool counts the memory of a single value.
//!
//! `repeat('a', 2000000000)` is folded while a statement is planned, where neither the memory pool nor the clock is asked.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{DFSchema, Result as EngineResult, resources_datafusion_err};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Returns about how many bytes a call gives; the arguments are of one length.
type Estimate = fn(&[ArrayRef]) -> EngineResult<f64>;

/// Functions whose result may be far longer than their arguments.
const GROWING: &[(&str, Estimate)] = &[
    ("array_repeat", |arguments| times(&arguments[0], &arguments[1])),
    ("array_resize", |arguments| Ok(8.0 * total(&arguments[1])?)),
    ("concat", |arguments| Ok(arguments.iter().map(bytes).sum())),
    ("concat_ws", |arguments| {
        let n = arguments.len() as f64;
        Ok(arguments.iter().map(bytes).sum::<f64>() + n * arguments.first().map_or(0.0, bytes))
    }),
    ("generate_series", series),
    ("lpad", padded),
    ("ngrams", |arguments| times(&arguments[0], &arguments[1])),
    ("range", series),
    ("regexp_replace", |arguments| replaced(&arguments[0], &arguments[2])),
    ("repeat", |arguments| times(&arguments[0], &arguments[1])),
    ("replace", |arguments| replaced(&arguments[0], &arguments[2])),
    ("rpad", padded),
];

/// Replaces the functions of `ctx` that may give very long values by ones that refuse more than `max` bytes for a batch.
///
/// # Errors
/// When the engine refuses a function.
pub(crate) fn bound(ctx: &SessionContext, max: u64) -> EngineResult<()> {
    let functions = ctx.state().scalar_functions().clone();
    for &(name, estimate) in GROWING {
        if let Some(inner) = functions.get(name) {
            let inner = Arc::clone(inner);
            ctx.register_udf(ScalarUDF::new_from_impl(Bound { inner, estimate, max }));
        }
    }
    let concat = functions.get("concat").map(|_| Arc::new(concat_operator(max)));
    if let Some(concat) = concat {
        let state = ctx.state_ref();
        let mut state = state.write();
        state.register_expr_planner(Arc::new(ConcatPlanner { concat }))?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn bytes(array: &ArrayRef) -> f64 {
    match array.data_type() {
        DataType::Utf8View => array.as_string_view().lengths().map(f64::from).sum(),
        DataType::Utf8 => {
            let ends = array.as_string::<i32>().value_offsets();
            f64::from(ends[ends.len() - 1] - ends[0])
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(usize::MAX) as f64,
    }
}

/// The arguments as numbers; nulls count nothing.
fn numbers(array: &ArrayRef) -> EngineResult<Vec<f64>> {
    let numbers = cast(array, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>();
    Ok(numbers.iter().map(|number| number.unwrap_or(0.0).max(0.0)).collect())
}

fn total(array: &ArrayRef) -> EngineResult<f64> {
    Ok(numbers(array)?.into_iter().sum())
}

/// Every value as often as it says beside it.
fn times(values: &ArrayRef, counts: &ArrayRef) -> EngineResult<f64> {
    let lengths = lengths(values);
    Ok(numbers(counts)?.iter().zip(lengths).map(|(n, length)| n * (length + 1.0)).sum())
}

/// Bytes of each value.
fn lengths(values: &ArrayRef) -> Vec<f64> {
    (0..values.len()).map(|row| bytes(&values.slice(row, 1))).collect()
}

/// The number of characters is given, each is at most four bytes long.
fn padded(arguments: &[ArrayRef]) -> EngineResult<f64> {
    Ok(4.0 * total(&arguments[1])?)
}

/// A replacement may stand for every byte of the text.
fn replaced(texts: &ArrayRef, replacements: &ArrayRef) -> EngineResult<f64> {
    let pairs = lengths(texts).into_iter().zip(lengths(replacements));
    Ok(pairs.map(|(text, replacement)| text + (text + 1.0) * replacement).sum())
}

/// From, to and step; one argument alone is the end. Steps of dates are not known here: days.
fn series(arguments: &[ArrayRef]) -> EngineResult<f64> {
    let number = |array: &ArrayRef| -> EngineResult<Option<Vec<f64>>> {
        let is_number = array.data_type().is_numeric();
        is_number
            .then(|| {
                Ok(cast(array, &DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .iter()
                    .map(|it| it.unwrap_or(0.0))
                    .collect())
            })
            .transpose()
    };
    let [first, rest @ ..] = arguments else { return Ok(0.0) };
    let Some(first) = number(first)? else { return Ok(0.0) };
    let Some(last) = rest.first().map(&number).transpose()?.flatten() else {
        return Ok(first.iter().map(|n| 8.0 * n.max(0.0)).sum());
    };
    let steps = rest.get(1).map(&number).transpose()?.flatten();
    let mut sum = 0.0;
    for (row, (from, to)) in first.iter().zip(&last).enumerate() {
        let step = steps.as_ref().map_or(1.0, |steps| steps[row]).abs().max(1.0);
        sum += 8.0 * (to - from).abs() / step;
    }
    Ok(sum)
}

/// A function of the engine with a limit on what it gives.
#[derive(Debug)]
struct Bound {
    inner: Arc<ScalarUDF>,
    estimate: Estimate,
    max: u64,
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        (&self.inner, self.max) == (&other.inner, other.max)
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> EngineResult<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> EngineResult<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn simplify(
        &self,
        arguments: Vec<Expr>,
        context: &SimplifyContext,
    ) -> EngineResult<ExprSimplifyResult> {
        // `concat` would fold its literals here, before anything is counted.
        let is_literal = arguments.iter().any(|argument| matches!(argument, Expr::Literal(..)));
        match is_literal {
            true => Ok(ExprSimplifyResult::Original(arguments)),
            false => self.inner.simplify(arguments, context),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let is_constant =
            arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let n = if is_constant { 1 } else { arguments.number_rows };
        let arrays: Vec<ArrayRef> =
            arguments.args.iter().map(|value| value.to_array(n)).collect::<EngineResult<_>>()?;
        check(self.name(), (self.estimate)(&arrays)?, self.max)?;
        self.inner.invoke_with_args(arguments)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn check(name: &str, estimate: f64, max: u64) -> EngineResult<()> {
    if estimate > max as f64 {
        return Err(resources_datafusion_err!(
            "`{name}` would give about {estimate:.0} bytes at once, values of a batch may have {max}"
        ));
    }
    Ok(())
}

/// Makes `||` between texts a function that can be bounded.
#[derive(Debug)]
struct ConcatPlanner {
    concat: Arc<ScalarUDF>,
}

impl ExprPlanner for ConcatPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> EngineResult<PlannerResult<RawBinaryExpr>> {
        let is_text = |expr: &Expr| {
            let known = expr.get_type(schema);
            matches!(known, Ok(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8))
        };
        if expr.op != BinaryOperator::StringConcat || !is_text(&expr.left) || !is_text(&expr.right)
        {
            return Ok(PlannerResult::Original(expr));
        }
        Ok(PlannerResult::Planned(self.concat.call(vec![expr.left, expr.right])))
    }
}

fn concat_operator(max: u64) -> ScalarUDF {
    let signature =
        Signature::exact(vec![DataType::Utf8View, DataType::Utf8View], Volatility::Immutable);
    ScalarUDF::new_from_impl(ConcatOperator { signature, max })
}

/// `||`: null where either side is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ConcatOperator {
    signature: Signature,
    max: u64,
}

impl ScalarUDFImpl for ConcatOperator {
    fn name(&self) -> &'static str {
        "concat_operator"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, arguments: &[Expr]) -> EngineResult<String> {
        let names = arguments.iter().map(|argument| argument.schema_name().to_string());
        Ok(names.collect::<Vec<_>>().join(" || "))
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let is_constant =
            arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let n = if is_constant { 1 } else { arguments.number_rows };
        let (left, right) = (arguments.args[0].to_array(n)?, arguments.args[1].to_array(n)?);
        check("||", bytes(&left) + bytes(&right), self.max)?;
        let mut texts = StringViewBuilder::with_capacity(n);
        let mut text = String::new();
        for pair in left.as_string_view().iter().zip(right.as_string_view()) {
            match pair {
                (Some(left), Some(right)) => {
                    text.clear();
                    text.push_str(left);
                    text.push_str(right);
                    texts.append_value(&text);
                }
                _ => texts.append_null(),
            }
        }
        crate::function::constant_or_array(is_constant, Arc::new(texts.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn value(sql: &str) -> EngineResult<String> {
        let ctx = SessionContext::new();
        bound(&ctx, 1 << 20)?;
        let batches = ctx.sql(&format!("select {sql} as v")).await?.collect().await?;
        let column = cast(batches[0].column(0), &DataType::Utf8)?;
        let texts = column.as_string::<i32>();
        Ok(if texts.is_null(0) { "null".to_owned() } else { texts.value(0).to_owned() })
    }

    async fn check_refused(sql: &str) {
        let error = value(sql).await.unwrap_err();
        let root = error.find_root().to_string();
        assert!(root.contains("values of a batch may have 1048576"), "{sql}: {root}");
    }

    #[tokio::test]
    async fn long_values_are_refused_before_they_are_made() {
        check_refused("repeat('a', 2000000000)").await;
        check_refused("lpad('x', 2147483647, 'y')").await;
        check_refused("rpad('x', 2147483647)").await;
        check_refused("make_array(repeat('a', 1000000000), repeat('a', 1000000000))").await;
        check_refused("replace(repeat('a', 100000), 'a', repeat('b', 1000))").await;
        check_refused("regexp_replace(repeat('a', 100000), 'a', repeat('b', 1000), 'g')").await;
        check_refused("array_repeat('a', 1000000000)").await;
        check_refused("generate_series(1, 1000000000000)").await;
        check_refused("range(1000000000000)").await;
        check_refused("concat(repeat('a', 600000), repeat('a', 600000))").await;
        check_refused("repeat('a', 600000) || repeat('a', 600000)").await;
    }

    #[tokio::test]
    async fn short_values_are_what_they_were() {
        for (sql, expected) in [
            ("repeat('ab', 3)", "ababab"),
            ("lpad('x', 3, 'y')", "yyx"),
            ("replace('aba', 'a', 'xx')", "xxbxx"),
            ("concat('a', null, 'b')", "ab"),
            ("'a' || 'b' || 'c'", "abc"),
            ("'a' || cast(null as varchar)", "null"),
            ("1 || 'b'", "1b"),
            ("array_to_string(range(3), ',')", "0,1,2"),
            ("array_to_string(generate_series(10, 1, -4), ',')", "10,6,2"),
            ("array_to_string([1] || [2], ',')", "1,2"),
        ] {
            assert_eq!(value(sql).await.unwrap(), expected, "{sql}");
        }
    }
}
