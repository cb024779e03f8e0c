//! A filter of a job as a function of SQL.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use ingest::filter::{Filter, FilterKind, Verdicts};

use super::settings::{self, Built};
use super::{engine, over_text, text_and_settings};
use crate::Result;
use crate::session::Files;

/// Returns the functions of a filter, see [the table](super).
pub(super) fn functions(kind: &'static FilterKind, files: Files) -> Result<Vec<ScalarUDF>> {
    let built = Arc::new(Built::new(kind.build, files)?);
    let function = |name: String, output| {
        let signature = text_and_settings();
        let built = Arc::clone(&built);
        ScalarUDF::new_from_impl(FilterFunction { name, kind, output, signature, built })
    };
    Ok(match own_signal(kind) {
        Some(signal) => vec![
            function(kind.name.to_owned(), Output::Signal(signal)),
            function(verdict_name(kind), Output::Verdict),
        ],
        None => vec![function(kind.name.to_owned(), Output::Verdict)],
    })
}

/// The name of the function that gives the struct.
pub(crate) fn verdict_name(kind: &FilterKind) -> String {
    match own_signal(kind) {
        Some(_) => format!("{}_verdict", kind.name),
        None => kind.name.to_owned(),
    }
}

/// The signal that is called like the filter.
pub(super) fn own_signal(kind: &FilterKind) -> Option<usize> {
    kind.signals.iter().position(|signal| signal.name == kind.name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Output {
    /// A struct of `reason` and every signal.
    Verdict,
    /// The signal at this place alone.
    Signal(usize),
}

#[derive(Debug)]
struct FilterFunction {
    name: String,
    kind: &'static FilterKind,
    output: Output,
    signature: Signature,
    built: Arc<Built<dyn Filter>>,
}

impl PartialEq for FilterFunction {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.output) == (&other.name, other.output)
    }
}

impl Eq for FilterFunction {}

impl Hash for FilterFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.output).hash(state);
    }
}

impl ScalarUDFImpl for FilterFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> EngineResult<DataType> {
        Ok(match self.output {
            Output::Verdict => DataType::Struct(verdict_fields(self.kind)),
            Output::Signal(signal) => self.kind.signals[signal].data_type.clone(),
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> EngineResult<FieldRef> {
        // Builds the filter once more than needed so that wrong settings fail before any row is read.
        let settings = settings::planned(&self.name, &arguments)?;
        self.built.get(&self.name, settings).map_err(engine)?;
        Ok(Arc::new(Field::new(&self.name, self.return_type(&[])?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let settings = settings::given(&self.name, &arguments.args)?;
        let filter = self.built.get(&self.name, settings).map_err(engine)?;
        over_text(&arguments.args[0], |documents| {
            let verdicts = filter.judge(documents)?;
            match self.output {
                Output::Verdict => verdict(self.kind, verdicts),
                Output::Signal(signal) => Ok(Arc::clone(&verdicts.signals[signal])),
            }
        })
    }
}

/// `reason`, then every signal.
fn verdict_fields(kind: &FilterKind) -> Fields {
    let signals =
        kind.signals.iter().map(|signal| Field::new(signal.name, signal.data_type.clone(), true));
    [Field::new("reason", DataType::Utf8, true)].into_iter().chain(signals).collect()
}

fn verdict(kind: &FilterKind, verdicts: Verdicts) -> Result<ArrayRef> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(verdicts.reasons)];
    columns.extend(verdicts.signals);
    Ok(Arc::new(StructArray::try_new(verdict_fields(kind), columns, None)?))
}
