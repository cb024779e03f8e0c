//! `gristmill`: batch jobs, crawls and SQL over a corpus.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use queries::command::{Arguments, execute};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(limits) = arguments.job_limits() {
        queries::allocator::settle(limits);
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            let text = error.to_string();
            let (message, hint) = text
                .split_once("\nhint: ")
                .map_or((text.as_str(), None), |(message, hint)| (message, Some(hint)));
            let mut diagnostic = miette::MietteDiagnostic::new(message);
            if let Some(hint) = hint {
                diagnostic = diagnostic.with_help(hint);
            }
            // Where stderr is closed there is nobody to tell; the exit code says it, too.
            drop(write!(std::io::stderr(), "{:?}", miette::Report::new(diagnostic)));
            match error {
                queries::Error::Interrupted => ExitCode::from(130),
                _ => ExitCode::from(2),
            }
        }
    }
}
