//! The settings of a step as the literal second argument of its function, and the steps built from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::{Result as EngineResult, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs};

use crate::session::{Files, no_file};
use crate::{Error, Result};

/// Distinct settings that are kept built per function; a query rarely has more than one.
const N_BUILT_MAX: usize = 64;

/// Steps by the settings they were built from.
#[derive(Debug)]
pub(super) struct Built<T: ?Sized> {
    files: Files,
    build: fn(&toml::Table) -> ingest::Result<Box<T>>,
    steps: Mutex<BTreeMap<String, Arc<T>>>,
}

impl<T: ?Sized> Built<T> {
    /// Builds the step of the default settings at once, so that a broken default is found at start.
    pub(super) fn new(
        build: fn(&toml::Table) -> ingest::Result<Box<T>>,
        files: Files,
    ) -> Result<Self> {
        let built = Self { files, build, steps: Mutex::default() };
        built.get("step", "")?;
        Ok(built)
    }

    /// Returns the step of `settings`; `name` is the function's, for errors.
    pub(super) fn get(&self, name: &str, settings: &str) -> Result<Arc<T>> {
        // A panic while building leaves the map as it was.
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = steps.get(settings) {
            return Ok(Arc::clone(step));
        }
        let table = parse(name, settings)?;
        if self.files == Files::Corpus {
            let step = name.trim_end_matches("_verdict");
            let (_, named) = ingest::filter::resolve_files(step, &table, |path| path.into());
            if !named.is_empty() {
                return Err(no_file(&format!("`{name}` with these settings")));
            }
        }
        let step: Arc<T> = Arc::from((self.build)(&table)?);
        if steps.len() == N_BUILT_MAX {
            steps.clear();
        }
        steps.insert(settings.to_owned(), Arc::clone(&step));
        Ok(step)
    }
}

/// Reads settings as TOML: lines, or pairs between commas; `=>` may stand for `=`.
pub(crate) fn parse(name: &str, settings: &str) -> Result<toml::Table> {
    let lines = |text: &str| text.parse::<toml::Table>();
    let pairs = |text: &str| {
        let mut table = lines(&format!("settings = {{{text}}}"))?;
        match table.remove("settings") {
            Some(toml::Value::Table(settings)) => Ok(settings),
            _ => lines(text),
        }
    };
    let arrows = settings.replace("=>", "=");
    lines(settings)
        .or_else(|error| {
            let retried = pairs(settings).or_else(|_| lines(&arrows)).or_else(|_| pairs(&arrows));
            retried.map_err(|_| error)
        })
        .map_err(|error| Error::Job {
            place: format!("settings of `{name}`"),
            message: format!("cannot read `{settings}`: {}", error.message()),
            hint: Some("write them as in a job: 'key = 1, other = \"text\"'".to_owned()),
        })
}

/// Returns the literal settings that a call is planned with; the second argument must be a literal.
pub(super) fn planned<'a>(name: &str, arguments: &'a ReturnFieldArgs<'_>) -> EngineResult<&'a str> {
    match arguments.scalar_arguments.get(1) {
        None => Ok(""),
        Some(Some(settings)) => Ok(literal(settings)),
        Some(None) => plan_err!("`{name}` takes its settings as a literal, not as a column"),
    }
}

/// Returns the literal settings of a running call.
pub(super) fn given<'a>(name: &str, arguments: &'a [ColumnarValue]) -> EngineResult<&'a str> {
    match arguments.get(1) {
        None => Ok(""),
        Some(ColumnarValue::Scalar(settings)) => Ok(literal(settings)),
        Some(ColumnarValue::Array(_)) => {
            plan_err!("`{name}` takes its settings as a literal, not as a column")
        }
    }
}

fn literal(settings: &ScalarValue) -> &str {
    settings.try_as_str().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(settings: &str, expected: &str) {
        assert_eq!(parse("f", settings).unwrap(), expected.parse().unwrap(), "{settings}");
    }

    #[test]
    fn settings_are_lines_or_pairs_with_either_sign() {
        check("", "");
        check("a = 1\nb = 'x'", "a = 1\nb = 'x'");
        check("a = 1, b = 'x => y'", "a = 1\nb = 'x => y'");
        check("profile => 'datatrove', n => 2", "profile = 'datatrove'\nn = 2");
        check("keep => ['en', 'de']", "keep = ['en', 'de']");
    }

    #[test]
    fn names_the_function_whose_settings_are_broken() {
        let error = parse("f", "a = ").unwrap_err().to_string();
        assert!(error.contains("settings of `f`") && error.contains("`a = `"), "{error}");
    }
}
