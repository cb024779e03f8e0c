//! Functions of SQL: one per filter and modifier of a job, and a few of our own, one file each.
//!
//! | in a job | in SQL |
//! |---|---|
//! | filter `name` | `name(text)`: a struct of `reason` and the signals; null reason where the document would stay |
//! | filter with a signal of its own name | `name(text)`: that signal alone; `name_verdict(text)`: the struct |
//! | modifier `name` | `name(text)`: the new text; null where the document would be dropped |
//!
//! All take the keys of the job's step as a literal second argument: `gopher_quality(text, 'min_words = 20')`.
//! A null text gives null. Every function is a pure function of its arguments.

mod bm25;
mod bm25_stats;
mod contains_any;
mod cosine;
mod diff;
mod filter;
mod hex;
mod histogram;
pub(crate) mod id_of;
mod jaccard;
mod minhash;
mod modifier;
mod ngrams;
mod quantiles;
mod reference;
mod sample_key;
mod settings;
mod token_count;
mod url_host;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{filter as keep, is_not_null, take};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Result as EngineResult, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    Accumulator, AccumulatorFactoryFunction, AggregateUDF, ColumnarValue, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility, create_udaf,
};
use datafusion::prelude::SessionContext;

use crate::session::Files;
use crate::{Error, Result};

pub(crate) use filter::verdict_name;
pub use reference::reference;
pub(crate) use settings::parse as parse_settings;

/// What is registered of a function that is no filter and no modifier.
#[derive(Clone, Copy, Debug)]
pub struct FunctionKind {
    /// Its name in SQL.
    pub name: &'static str,
    /// What it gives, in one line.
    pub summary: &'static str,
    /// Its arguments as the reference shows them.
    pub arguments: &'static str,
    /// The type of its result as the reference shows it.
    pub returns: &'static str,
    /// A call, and what it gives when cast to text.
    pub example: (&'static str, &'static str),
    /// Builds it.
    pub build: fn() -> Function,
}

/// A function for the engine.
#[derive(Debug)]
pub enum Function {
    /// A value for each row.
    Scalar(ScalarUDF),
    /// One value for many rows.
    Aggregate(AggregateUDF),
}

impl From<ScalarUDF> for Function {
    fn from(function: ScalarUDF) -> Self {
        Self::Scalar(function)
    }
}

impl From<AggregateUDF> for Function {
    fn from(function: AggregateUDF) -> Self {
        Self::Aggregate(function)
    }
}

/// Every function of our own, sorted by name. Adding one is a file here and a line in this list.
pub const KINDS: &[FunctionKind] = &[
    bm25::KIND,
    bm25_stats::KIND,
    contains_any::KIND,
    cosine::KIND,
    diff::KIND,
    hex::KIND,
    histogram::KIND,
    id_of::KIND,
    jaccard::KIND,
    minhash::KIND,
    ngrams::KIND,
    quantiles::KIND,
    sample_key::KIND,
    token_count::KIND,
    url_host::KIND,
];

/// Makes every function of this module callable in `ctx`.
///
/// # Errors
/// When a filter or modifier cannot be built from its own defaults.
pub fn register(ctx: &SessionContext) -> Result<()> {
    let files = Files::of(ctx);
    for kind in KINDS {
        // The only one that names a file.
        if files == Files::Any || kind.name != token_count::KIND.name {
            match (kind.build)() {
                Function::Scalar(function) => ctx.register_udf(function),
                Function::Aggregate(function) => ctx.register_udaf(function),
            }
        }
    }
    for kind in ingest::filter::KINDS {
        filter::functions(kind, files)?.into_iter().for_each(|function| ctx.register_udf(function));
    }
    for kind in ingest::modifier::KINDS {
        ctx.register_udf(modifier::function(kind, files)?);
    }
    Ok(())
}

/// A function that needs no state: a body over the arguments.
struct Plain {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    body: fn(&[ArrayRef]) -> EngineResult<ArrayRef>,
}

impl Plain {
    /// Takes any of these lists of argument types.
    fn udf(
        name: &'static str,
        arguments: Vec<Vec<DataType>>,
        returns: DataType,
        body: fn(&[ArrayRef]) -> EngineResult<ArrayRef>,
    ) -> Function {
        let signature = one_of(arguments);
        ScalarUDF::new_from_impl(Self { name, signature, returns, body }).into()
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Plain {}

impl Hash for Plain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Plain {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let is_constant =
            arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        constant_or_array(is_constant, (self.body)(&arrays)?)
    }
}

/// An aggregate without settings: an accumulator, and the types of its arguments, its result and its state.
fn aggregate<A: Accumulator + Default + 'static>(
    name: &str,
    arguments: Vec<DataType>,
    returns: DataType,
    state: Vec<DataType>,
) -> Function {
    let accumulator: AccumulatorFactoryFunction = Arc::new(|_| Ok(Box::<A>::default()));
    let (returns, state) = (Arc::new(returns), Arc::new(state));
    create_udaf(name, arguments, returns, Volatility::Immutable, accumulator, state).into()
}

fn one_of(arguments: Vec<Vec<DataType>>) -> Signature {
    let types = arguments.into_iter().map(TypeSignature::Exact).collect();
    Signature::one_of(types, Volatility::Immutable)
}

/// The signature of steps: a text, and a literal with the step's settings.
fn text_and_settings() -> Signature {
    one_of(vec![vec![DataType::Utf8View], vec![DataType::Utf8View, DataType::Utf8]])
}

/// Returns what a call gives: one value for arguments that were all literals.
pub(crate) fn constant_or_array(is_constant: bool, array: ArrayRef) -> EngineResult<ColumnarValue> {
    Ok(match is_constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}

/// Gives `body` the texts that are not null as a batch of the column `text`, and puts nulls back into what it returns.
fn over_text(
    texts: &ColumnarValue,
    body: impl Fn(&RecordBatch) -> Result<ArrayRef>,
) -> EngineResult<ColumnarValue> {
    let (is_constant, texts) = match texts {
        ColumnarValue::Scalar(text) => (true, text.to_array_of_size(1)?),
        ColumnarValue::Array(texts) => (false, Arc::clone(texts)),
    };
    let result = match texts.null_count() {
        0 => body(&text_batch(Arc::clone(&texts))?)?,
        _ => {
            let present = body(&text_batch(keep(&texts, &is_not_null(&texts)?)?)?)?;
            let mut next = 0..;
            let places: UInt32Array = (0..texts.len())
                .map(|row| if texts.is_valid(row) { next.next() } else { None })
                .collect();
            take(&present, &places, None)?
        }
    };
    constant_or_array(is_constant, result)
}

fn text_batch(texts: ArrayRef) -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("text", DataType::Utf8View, false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![texts])?)
}

/// Lifts an error of any of our crates into the engine's.
fn engine(error: impl Into<Error>) -> DataFusionError {
    DataFusionError::from(error.into())
}

#[cfg(test)]
mod tests;
