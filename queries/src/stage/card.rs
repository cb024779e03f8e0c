//! The dataset card and its Croissant description: `README.md` in the layout of the Hugging Face hub, so that `datasets` opens the newest version's shards.

use std::collections::BTreeMap;
use std::fmt::Write;

use shard::dataset::Snapshot;
use shard::store;

use super::croissant;
use crate::Result;

/// Writes the card of a version; it says nothing that the manifest does not.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn write(snapshot: &Snapshot) -> Result<()> {
    store::replace(&snapshot.path.join(croissant::NAME), &croissant::describe(snapshot))?;
    Ok(store::replace(&snapshot.path.join("README.md"), card(snapshot).as_bytes())?)
}

fn card(snapshot: &Snapshot) -> String {
    let manifest = &snapshot.manifest;
    let mut splits = BTreeMap::<&str, Vec<&str>>::new();
    for shard in &manifest.shards {
        splits.entry(&shard.split).or_default().push(&shard.path);
    }
    let mut card = String::from("---\nconfigs:\n- config_name: default\n  data_files:\n");
    for (split, paths) in &splits {
        card.push_str(&format!("  - split: {split}\n    path:\n"));
        for path in paths {
            card.push_str(&format!("    - {path}\n"));
        }
    }
    card.push_str("---\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        card.write_fmt(text).expect("writing to a string cannot fail");
        card.push('\n');
    };
    line(format_args!("\n# {}\n", manifest.kind));
    line(format_args!(
        "Version {}, written by Gristmill: {} rows in {} shards. Manifest `{}`.",
        snapshot.version,
        manifest.n_rows(),
        manifest.shards.len(),
        snapshot.manifest_hash
    ));
    for split in splits.keys() {
        let n_tokens = manifest.n_tokens(split, None);
        if n_tokens > 0 {
            line(format_args!("Split `{split}` has {n_tokens} tokens."));
        }
    }
    let counts = &manifest.counts;
    if !counts.dropped.is_empty() {
        line(format_args!("\n{} rows came in, {} stayed:\n", counts.n_in, counts.n_kept));
        line(format_args!("| reason | rows |\n|---|---|"));
        for (reason, n) in &counts.dropped {
            line(format_args!("| {reason} | {n} |"));
        }
    }
    if !manifest.sources.is_empty() {
        let mut sources = BTreeMap::<&str, (u64, u64)>::new();
        for read in &manifest.sources {
            let source = sources.entry(&read.source).or_default();
            source.0 += 1;
            source.1 += read.bytes;
        }
        line(format_args!("\n| source | files | bytes |\n|---|---|---|"));
        for (name, (files, bytes)) in sources {
            line(format_args!("| {name} | {files} | {bytes} |"));
        }
    }
    for parent in &manifest.parents {
        line(format_args!(
            "\nMade from version {} of `{}`, manifest `{}`.",
            parent.version, parent.dataset, parent.manifest
        ));
    }
    card
}
