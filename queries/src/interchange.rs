//! `gristmill export` and `gristmill import`: datasets of tokens in the files of other libraries.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use shard::{Dataset, export, import};

use crate::command::print_json;
use crate::job::Bytes;
use crate::progress::Talk;
use crate::stage::card;
use crate::{Error, Result};

/// What is exported, and to what.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// A dataset of tokens.
    dataset: PathBuf,
    /// One of `gristmill list exports`: litdata, mds, megatron, nanogpt, tfrecord, webdataset.
    #[arg(long)]
    format: String,
    /// The folder that is made.
    #[arg(long)]
    output: PathBuf,
    /// A version of the dataset [default: the newest].
    #[arg(long)]
    dataset_version: Option<u64>,
    /// Tokens per sample: documents are put one behind the other and cut; without it, a sample is a document.
    #[arg(long)]
    seq_len: Option<usize>,
    /// Where formats of many files begin the next one.
    #[arg(long, default_value = "64MiB")]
    file_size: String,
}

/// What is imported, and as what.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// A file, or a folder of one or more splits.
    path: PathBuf,
    /// One of `gristmill list imports`: mds, megatron, nanogpt.
    #[arg(long)]
    format: String,
    /// The tokenizer that made the tokens, such as `tokenizer.json`.
    #[arg(long)]
    tokenizer: PathBuf,
    /// The folder of the dataset that is made.
    #[arg(long)]
    output: PathBuf,
    /// Bytes per token of files that do not say: 2 or 4 [default: 2].
    #[arg(long)]
    token_bytes: Option<usize>,
}

pub(crate) fn export(arguments: &ExportArguments, talk: Talk, is_json: bool) -> Result<ExitCode> {
    let file_bytes: Bytes = arguments.file_size.parse().map_err(|message| Error::Job {
        place: "--file-size".to_owned(),
        message,
        hint: None,
    })?;
    let config = export::Config {
        format: arguments.format.clone(),
        seq_len: arguments.seq_len,
        file_bytes: file_bytes.0,
    };
    let snapshot = Dataset::at(&arguments.dataset).open(arguments.dataset_version)?;
    let exported = export::export(&snapshot, &config, &arguments.output)?;
    for split in &exported.splits {
        talk.say(format!(
            "{:>12}  {} samples, {} tokens of type {} in {} files; {} tokens left out",
            split.split,
            split.samples,
            split.tokens,
            exported.token_type,
            split.files.len(),
            split.tokens_left_out
        ));
    }
    talk.say(format!("version {} is in {}", exported.version, arguments.output.display()));
    if is_json {
        return print_json(&exported);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn import(arguments: &ImportArguments, talk: Talk, is_json: bool) -> Result<ExitCode> {
    let config = import::Config {
        format: arguments.format.clone(),
        tokenizer: arguments.tokenizer.clone(),
        token_bytes: arguments.token_bytes,
    };
    let dataset = Dataset::at(&arguments.output);
    let snapshot = import::import(&arguments.path, &config, &dataset)?;
    card::write(&snapshot)?;
    let manifest = &snapshot.manifest;
    talk.say(format!(
        "{} documents, {} tokens in {} shards are in {}",
        manifest.n_rows(),
        manifest.shards.iter().map(shard::manifest::Shard::n_tokens).sum::<u64>(),
        manifest.shards.len(),
        arguments.output.display()
    ));
    if is_json {
        return print_json(&serde_json::json!({
            "dataset": arguments.output,
            "version": snapshot.version,
            "manifest_hash": snapshot.manifest_hash,
            "counts": manifest.counts,
        }));
    }
    Ok(ExitCode::SUCCESS)
}
