//! Licences of files and of the repositories or packages that they lie in, as SPDX expressions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use spdx::detection::TextData;
use spdx::{Expression, LicenseId, ParseMode};

/// Lines in which a file says what it is.
const HEAD_LINES: usize = 60;
/// Bytes of a licence file or a manifest, at most: the longest licences have 35 kB.
pub(in crate::source) const BYTES_MAX: u64 = 256 << 10;
/// Likeness of a text and a licence from which on it is that licence; askalono's own limit.
const CONFIDENCE: f32 = 0.9;

/// Licences that a file is searched for, at most: each further one takes as long as the first.
const LICENSES_MAX: usize = 4;

/// The texts of all SPDX licences by name, as n-grams; built when the first licence file is met.
///
/// Of names with one text the first stays, so that the answer does not depend on an order: `GPL-3.0-or-later` is what a header
/// says, not the licence.
static TEXTS: LazyLock<Vec<(&str, TextData)>> = LazyLock::new(|| {
    let is_current = |name: &str| spdx::license_id(name).is_some_and(|id| !id.is_deprecated());
    let texts = spdx::text::LICENSE_TEXTS
        .iter()
        .filter(|(name, _)| is_current(name) && !name.ends_with("-or-later"));
    texts.map(|(name, text)| (*name, TextData::from(*text).without_text())).collect()
});

/// Returns the expression after `SPDX-License-Identifier:`.
pub(super) fn tag(text: &str) -> Option<&str> {
    const TAG: &str = "SPDX-License-Identifier:";
    let line = text.lines().take(HEAD_LINES).find(|line| line.contains(TAG))?;
    let value = line.split_once(TAG)?.1.trim();
    let value = value.trim_end_matches(|c: char| "*/-># \t\"'".contains(c)).trim_start();
    let is_expression = |c: char| c.is_ascii_alphanumeric() || "-.+() :".contains(c);
    (!value.is_empty() && value.chars().all(is_expression)).then_some(value)
}

/// Whether the file at `path` is a licence, or a manifest that names one.
pub(in crate::source) fn is_license_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    MANIFESTS.contains(&name) || is_license_text(name)
}

/// Manifests of packages that name their licence.
const MANIFESTS: [&str; 6] =
    ["Cargo.toml", "package.json", "pyproject.toml", "composer.json", "PKG-INFO", "METADATA"];

fn is_license_text(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = name
        .strip_suffix(".txt")
        .or_else(|| name.strip_suffix(".md"))
        .or_else(|| name.strip_suffix(".rst"));
    let stem = stem.unwrap_or(&name);
    ["license", "licence", "copying", "unlicense"].iter().any(|word| {
        let rest = stem.strip_prefix(word).or_else(|| stem.strip_suffix(word));
        // `LICENSE-MIT`, `COPYING.LESSER`, `MIT-LICENSE`; not `licensing.py` or `license.rs`.
        rest.is_some_and(|rest| {
            let is_code = [".rs", ".py", ".js", ".ts", ".go", ".c", ".h", ".java", ".rb", ".html"];
            (rest.is_empty() || rest.starts_with(['-', '.', '_']) || rest.ends_with(['-', '_']))
                && !is_code.iter().any(|end| name.ends_with(end))
        })
    })
}

/// Returns the licence that a licence file or a manifest states.
fn read(path: &str, bytes: &[u8]) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let text = String::from_utf8_lossy(bytes);
    if !MANIFESTS.contains(&name) {
        return detect(&text);
    }
    let stated = match name {
        "Cargo.toml" => toml_value(&text, "package"),
        "pyproject.toml" => toml_value(&text, "project"),
        "package.json" | "composer.json" => json_value(&text),
        _ => header_value(&text),
    };
    canonical(&stated?)
}

fn toml_value(text: &str, table: &str) -> Option<String> {
    let manifest: toml::Table = text.parse().ok()?;
    match manifest.get(table)?.get("license")? {
        toml::Value::String(license) => Some(license.clone()),
        other => Some(other.get("text")?.as_str()?.to_owned()),
    }
}

fn json_value(text: &str) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(text).ok()?;
    let license = &manifest["license"];
    // Old packages have an object, PHP's a list of which one may choose.
    let any = |list: &Vec<serde_json::Value>| {
        list.iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join(" OR ")
    };
    let text = license.as_str().or_else(|| license["type"].as_str()).map(str::to_owned);
    text.or_else(|| license.as_array().map(any))
}

/// Reads the metadata of a Python package. Source: PyPA, core metadata 2.4.
fn header_value(text: &str) -> Option<String> {
    let head = text.split("\n\n").next()?;
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let stated = value("License-Expression:").or_else(|| value("License:")).unwrap_or_default();
    if canonical(stated).is_some() {
        return Some(stated.to_owned());
    }
    const CLASSIFIERS: [(&str, &str); 9] = [
        ("MIT License", "MIT"),
        ("Apache Software License", "Apache-2.0"),
        ("BSD License", "BSD-3-Clause"),
        ("ISC License (ISCL)", "ISC"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
        ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
        ("Python Software Foundation License", "PSF-2.0"),
    ];
    let named = head.lines().filter_map(|line| {
        let name = line.strip_prefix("Classifier: License ::")?.rsplit("::").next()?.trim();
        CLASSIFIERS.iter().find(|(classifier, _)| *classifier == name).map(|(_, id)| *id)
    });
    let named: Vec<&str> = named.collect();
    (!named.is_empty()).then(|| named.join(" AND "))
}

/// Returns an expression as SPDX writes it, when it is one: `Apache 2` and `MIT/Apache-2.0` are taken for what they mean.
fn canonical(stated: &str) -> Option<String> {
    let parsed = Expression::parse_mode(stated, ParseMode::LAX).ok()?;
    let strict = Expression::canonicalize(stated).ok().flatten();
    Some(strict.unwrap_or_else(|| parsed.to_string()))
}

/// Returns the licence whose text this is; of a file that holds several, all of them.
///
/// The likeness is that of askalono: Dice's coefficient of the pairs of words.
fn detect(text: &str) -> Option<String> {
    if let Some(id) = notice(text) {
        return Some(id);
    }
    let mut rest = TextData::from(text);
    let mut found = BTreeSet::new();
    while found.len() < LICENSES_MAX {
        let Some((name, data, score)) = nearest(&rest) else { break };
        if score >= CONFIDENCE {
            found.insert(name);
            break;
        }
        // Lines before and after that make it less like the licence are taken away.
        let (part, score) = rest.optimize_bounds(data);
        if score < CONFIDENCE || !found.insert(name) {
            break;
        }
        rest = part.white_out();
    }
    (!found.is_empty()).then(|| found.into_iter().collect::<Vec<_>>().join(" AND "))
}

/// Returns the licence that a notice points to, where that is all that a file has: of SPDX's texts it is like another one's.
fn notice(text: &str) -> Option<String> {
    /// Bytes of the notices that the Apache and GNU licences ask for, and then some.
    const BYTES: usize = 2000;
    const FAMILIES: [(&str, &str, &str); 3] = [
        ("gnu affero general public license", "AGPL", "3.0"),
        ("gnu lesser general public license", "LGPL", "2.1"),
        ("gnu general public license", "GPL", "2.0"),
    ];
    if text.len() > BYTES {
        return None;
    }
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    if flat.contains("licensed under the apache license, version 2.0") {
        return Some("Apache-2.0".to_owned());
    }
    let is_notice =
        flat.contains("redistribute it and/or modify") && flat.contains("under the terms of the");
    let (_, family, oldest) =
        FAMILIES.iter().find(|(name, _, _)| is_notice && flat.contains(name))?;
    let versions = [("version 3", "3.0"), ("version 2.1", "2.1"), ("version 2", "2.0")];
    let version =
        versions.iter().find(|(words, _)| flat.contains(words)).map_or(*oldest, |(_, it)| it);
    let later = if flat.contains("any later version") { "or-later" } else { "only" };
    let id = format!("{family}-{version}-{later}");
    spdx::license_id(&id).map(|id| id.name.to_owned())
}

/// The licence that a text is most like, the first of several.
fn nearest(text: &TextData) -> Option<(&'static str, &'static TextData, f32)> {
    let mut best: Option<(&str, &TextData, f32)> = None;
    for (name, data) in TEXTS.iter() {
        let score = data.match_score(text);
        if best.is_none_or(|(_, _, before)| score > before) {
            best = Some((name, data, score));
        }
    }
    best
}

/// Whether what is under `expression` may be used, changed and passed on by anybody who names its author.
///
/// Of alternatives one has to allow it, of a conjunction each. A licence does when it is approved by the OSI or the FSF, or gives up all
/// rights, and asks for nothing more: no copyleft, no ban on trade or on changes.
pub(super) fn is_permissive(expression: &str) -> bool {
    let Ok(expression) = Expression::parse_mode(expression, ParseMode::LAX) else { return false };
    expression.evaluate(|requirement| requirement.license.id().is_some_and(allows_all))
}

fn allows_all(id: LicenseId) -> bool {
    const OTHERS: [&str; 6] =
        ["CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "Unlicense", "blessing", "WTFPL"];
    // What the crate's list of copyleft leaves out, and bans on trade and on changes.
    const OBLIGING: [&str; 20] = [
        "-NC",
        "-ND",
        "-SA",
        "APSL",
        "CDDL",
        "CECILL",
        "CPAL",
        "CPL-",
        "EPL",
        "EUPL",
        "IPL-",
        "LPL",
        "MS-RL",
        "NPL",
        "OSL",
        "QPL",
        "RPL",
        "RPSL",
        "SPL-",
        "Sleepycat",
    ];
    let is_free = id.is_osi_approved() || id.is_fsf_free_libre() || OTHERS.contains(&id.name);
    is_free && !id.is_copyleft() && !OBLIGING.iter().any(|mark| id.name.contains(mark))
}

/// A licence and the file that states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct Stated {
    pub(super) expression: String,
    pub(super) path: String,
}

/// Licences of a repository or package, by the folder that each of them holds for.
#[derive(Debug, Default)]
pub(in crate::source) struct Licenses {
    folders: HashMap<String, Folder>,
}

#[derive(Debug, Default)]
struct Folder {
    manifest: Option<Stated>,
    /// Expressions by path.
    texts: BTreeMap<String, String>,
}

impl Folder {
    fn add(&mut self, path: &str, expression: String) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if MANIFESTS.contains(&name) {
            self.manifest = Some(Stated { expression, path: path.to_owned() });
        } else {
            self.texts.insert(path.to_owned(), expression);
        }
    }

    /// The manifest's word, else all licences that lie there: which of them may be chosen is not said.
    fn stated(&self) -> Option<Stated> {
        if let Some(stated) = &self.manifest {
            return Some(stated.clone());
        }
        let mut expressions: Vec<&str> = self.texts.values().map(String::as_str).collect();
        expressions.dedup();
        let path = self.texts.keys().next()?.clone();
        Some(Stated { expression: expressions.join(" AND "), path })
    }
}

impl Licenses {
    /// Takes note of the file at `path`, if it is a licence or a manifest that names one.
    pub(in crate::source) fn add(&mut self, path: &str, bytes: &[u8]) {
        if let Some(expression) = read(path, bytes) {
            self.folders.entry(scope(path).to_owned()).or_default().add(path, expression);
        }
    }

    /// The licence that holds for the file at `path`: that of the nearest folder that states one.
    pub(in crate::source) fn of(&self, path: &str) -> Option<Stated> {
        let mut folder = parent(path);
        loop {
            if let Some(stated) = self.folders.get(folder).and_then(Folder::stated) {
                return Some(stated);
            }
            if folder.is_empty() {
                return None;
            }
            folder = parent(folder);
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The folder that a licence holds for: that of the file, or of the package whose metadata it lies in.
fn scope(path: &str) -> &str {
    let mut folder = parent(path);
    loop {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        let is_metadata = name.ends_with(".dist-info")
            || name.ends_with(".egg-info")
            || matches!(name, "licenses" | "LICENSES" | "META-INF");
        if !is_metadata {
            return folder;
        }
        folder = parent(folder);
    }
}

/// Licences of folders on disk, each looked for once.
#[derive(Clone, Debug, Default)]
pub(super) struct FolderLicenses {
    known: Arc<Mutex<HashMap<PathBuf, Option<Stated>>>>,
}

impl FolderLicenses {
    /// The licence that holds for the file at `path`, which lies `depth` folders below the one that the job names.
    pub(super) fn of(&self, path: &Path, depth: usize) -> Option<Stated> {
        let folders = path.ancestors().skip(1).take(depth.max(1));
        for folder in folders {
            let mut known = self.known.lock().expect("nobody panics with the lock");
            let stated = known.entry(folder.to_owned()).or_insert_with(|| look(folder));
            // A repository ends where its history lies.
            if stated.is_some() || folder.join(".git").symlink_metadata().is_ok() {
                return stated.clone();
            }
        }
        None
    }
}

/// Reads the licences and manifests of a folder; what cannot be read states nothing.
fn look(folder: &Path) -> Option<Stated> {
    let mut found = Folder::default();
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_license_file(&name) || !entry.path().is_file() {
            continue;
        }
        let mut bytes = Vec::new();
        let read =
            File::open(entry.path()).map(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        if let (Ok(Ok(_)), Some(expression)) = (read, self::read(&name, &bytes)) {
            found.add(&name, expression);
        }
    }
    found.stated()
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::{Licenses, canonical, detect, is_license_file, is_permissive, tag};

    #[test]
    fn reads_the_licence_a_file_names() {
        for (line, expected) in [
            ("// SPDX-License-Identifier: Apache-2.0 OR MIT", Some("Apache-2.0 OR MIT")),
            ("/* SPDX-License-Identifier: GPL-2.0 */", Some("GPL-2.0")),
            ("# SPDX-License-Identifier:", None),
            ("no licence", None),
        ] {
            assert_eq!(tag(line), expected, "{line}");
        }
    }

    #[test]
    fn tells_licence_files_by_their_names() {
        for name in [
            "LICENSE",
            "a/COPYING.LESSER",
            "LICENSE-MIT",
            "licence.md",
            "MIT-LICENSE.txt",
            "UNLICENSE",
        ] {
            assert!(is_license_file(name), "{name}");
        }
        for name in ["license.rs", "licensing.txt", "src/LICENSES.py", "licenses/x"] {
            assert!(!is_license_file(name), "{name}");
        }
    }

    #[test]
    fn permits_what_asks_for_no_more_than_a_name() {
        for (expression, expected) in [
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT/Apache-2.0", true),
            ("MPL-2.0", false),
            ("LGPL-2.1-or-later", false),
            ("CC-BY-SA-4.0", false),
            ("CC-BY-NC-4.0", false),
            ("CC0-1.0", true),
            ("LicenseRef-Proprietary", false),
            ("EPL-2.0", false),
            ("CDDL-1.0", false),
            ("BSD-3-Clause", true),
            ("Zlib", true),
            ("AGPL-3.0-only", false),
            ("all rights reserved", false),
        ] {
            assert_eq!(is_permissive(expression), expected, "{expression}");
        }
    }

    #[test]
    fn takes_the_nearest_statement_and_the_manifest_before_the_text() {
        let mut licenses = Licenses::default();
        licenses.add("p/Cargo.toml", b"[package]\nlicense = \"MIT/Apache-2.0\"\n");
        licenses.add("p/vendor/package.json", br#"{"license": {"type": "ISC"}}"#);
        licenses.add(
            "w.dist-info/METADATA",
            b"Name: w\nClassifier: License :: OSI Approved :: MIT License\n\nLicense: no",
        );
        let of = |path: &str| licenses.of(path).map(|stated| stated.expression);
        assert_eq!(of("p/src/a.rs").as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(of("p/vendor/x/a.js").as_deref(), Some("ISC"));
        assert_eq!(of("w/a.py").as_deref(), Some("MIT"));
        assert_eq!(canonical("see LICENSE"), None);
    }

    /// Texts whose first lines say how much of them is a licence, and which: `100%`, `MIT 0,$`.
    #[test]
    fn finds_the_licences_of_googles_licensecheck() {
        let Some(folder) = testing::data("code") else { return };
        let (mut n, mut n_right, mut n_none, mut wrong) = (0, 0, 0, Vec::new());
        for (name, text) in testing::untar(&folder.join("licensecheck-testdata.tar.gz")) {
            let Some((head, body)) = text.split_once("\n\n") else { continue };
            let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with('#')).collect();
            // Texts that are one licence of SPDX and nothing else.
            let ["100%", stated] = lines.as_slice() else { continue };
            let Some(id) = stated.strip_suffix(" 0,$").and_then(spdx::license_id) else { continue };
            n += 1;
            match detect(body) {
                Some(found) if same(&found, id.name) => n_right += 1,
                Some(found) => wrong.push(format!("{name}: {} for {}", found, id.name)),
                None => n_none += 1,
            }
        }
        eprintln!(
            "{n} texts: {n_right} right, {n_none} not found, {} other: {wrong:#?}",
            wrong.len()
        );
        assert!(n > 300, "{n}");
        assert!(n_right * 10 >= n * 8, "{n_right} of {n}");
    }

    /// Whether two names are one text: `GPL-2.0-only` and `GPL-2.0-or-later` are.
    fn same(found: &str, expected: &str) -> bool {
        let base = |name: &str| name.replace("-only", "").replace("-or-later", "").replace('+', "");
        base(found) == base(expected)
    }
}
