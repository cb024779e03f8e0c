//! What must hold of the repository itself: the crate graph, the lists of kinds, names, links.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const MEMBERS: [&str; 6] = ["shard", "ingest", "dedup", "queries", "trainer", "tests"];

#[test]
fn crates_depend_downwards_only() {
    let allowed = BTreeMap::from([
        ("shard", vec![]),
        ("ingest", vec!["shard"]),
        ("dedup", vec!["shard"]),
        ("queries", vec!["shard", "ingest", "dedup"]),
        ("trainer", vec!["shard", "ingest"]),
        ("tests", vec!["shard", "ingest", "dedup", "queries", "trainer"]),
    ]);
    let metadata = metadata();
    let names: BTreeSet<&str> = members(&metadata).map(name).collect();
    assert_eq!(names, MEMBERS.into_iter().collect(), "members of the workspace");
    for package in members(&metadata) {
        for dependency in dependencies(package).map(name).filter(|name| MEMBERS.contains(name)) {
            assert!(
                allowed[name(package)].contains(&dependency),
                "`{}` must not depend on `{dependency}`",
                name(package)
            );
        }
    }
}

#[test]
fn only_queries_links_datafusion_and_only_trainer_links_libtorch() {
    let metadata = metadata();
    for (heavy, home, others) in [
        ("datafusion", "queries", ["shard", "ingest", "dedup", "trainer"]),
        ("tch", "trainer", ["shard", "ingest", "dedup", "queries"]),
        ("torch-sys", "trainer", ["shard", "ingest", "dedup", "queries"]),
    ] {
        assert!(linked(&metadata, home).contains(heavy), "`{home}` links `{heavy}`");
        for other in others {
            assert!(!linked(&metadata, other).contains(heavy), "`{other}` must not link `{heavy}`");
        }
    }
}

#[test]
fn http_client_comes_only_with_the_crawl() {
    let metadata = metadata();
    for package in members(&metadata) {
        for dependency in dependencies(package).filter(|it| name(it) == "reqwest") {
            assert_eq!(name(package), "ingest", "only `ingest` asks for `reqwest`");
            assert_eq!(dependency["optional"], true, "`reqwest` is optional in `ingest`");
        }
        if name(package) == "ingest" {
            for (feature, enables) in package["features"].as_object().unwrap() {
                let enables_client = enables.as_array().unwrap().contains(&"dep:reqwest".into());
                assert!(!enables_client || feature == "crawl", "`{feature}` brings `reqwest`");
            }
        }
        for dependency in dependencies(package).filter(|it| name(it) == "ingest") {
            if name(package) == "trainer" {
                assert_eq!(
                    dependency["uses_default_features"], false,
                    "trainer: ingest's features"
                );
                assert_eq!(
                    dependency["features"],
                    serde_json::json!([]),
                    "trainer: ingest's features"
                );
            }
        }
    }
}

#[test]
fn every_member_takes_the_workspace_lints() {
    for member in MEMBERS {
        let manifest = read(&root().join(member).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{member}/Cargo.toml");
    }
}

#[test]
fn sockets_are_opened_only_by_the_crawl_and_the_servers() {
    for (path, text) in rust_files() {
        let is_data_crate =
            ["shard/src", "dedup/src", "ingest/src"].iter().any(|it| path.starts_with(it));
        if is_data_crate && !path.starts_with("ingest/src/crawl") {
            for needle in ["TcpListener", "TcpStream", "UdpSocket"] {
                assert!(!text.contains(needle), "{}: {needle}", path.display());
            }
        }
    }
}

#[test]
fn files_are_named_by_their_noun() {
    let banned = ["utils", "util", "common", "helpers", "helper", "misc", "manager"];
    for (path, _) in rust_files() {
        for part in path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")) {
            assert!(!banned.contains(&part), "{}: name it by what it holds", path.display());
        }
    }
}

#[test]
fn unsafe_code_lives_only_beside_libtorch() {
    let forms = ["{", "fn ", "impl ", "extern ", "trait "];
    let attribute = concat!("#[", "unsafe(");
    for (path, text) in rust_files() {
        if path.starts_with("trainer/src/torch") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let has_block = forms.iter().any(|form| code.contains(&format!("{} {form}", "unsafe")));
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(!has_block && !code.contains(attribute), "{place}: {line}");
        }
    }
}

#[test]
fn nothing_is_ignored_or_left_to_do() {
    let needles = [
        concat!("#[", "ignore"),
        concat!("to", "do!("),
        concat!("unimplemen", "ted!("),
        concat!("#[", "allow("),
    ];
    for (path, text) in rust_files() {
        for needle in needles {
            assert!(!text.contains(needle), "{}: {needle}", path.display());
        }
    }
}

#[test]
fn no_file_knows_a_home_folder() {
    let needles = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let mut judged = 0;
    for path in files(&root(), &|_| true) {
        // The demo's input is other people's text.
        if path.starts_with("examples/demo/site") || path.starts_with("examples/demo/books") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        judged += 1;
        for (number, line) in text.lines().enumerate() {
            for needle in needles {
                let found = line.find(needle).filter(|&at| {
                    !line[..at]
                        .ends_with(|last: char| last.is_alphanumeric() || ".-_*}>".contains(last))
                });
                assert!(found.is_none(), "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
    println!("judged {judged} files");
    assert!(judged > 50, "{judged} files");
}

#[test]
fn sources_are_listed_once_and_sorted() {
    check_kinds("ingest/src/source");
}

#[test]
fn filters_are_listed_once_and_sorted() {
    check_kinds("ingest/src/filter");
}

#[test]
fn modifiers_are_listed_once_and_sorted() {
    check_kinds("ingest/src/modifier");
}

#[test]
fn sql_functions_are_listed_once_and_sorted() {
    check_kinds("queries/src/function");
}

#[test]
fn formats_of_other_libraries_are_listed_once_and_sorted() {
    check_kinds("shard/src/export");
    check_kinds("shard/src/import");
}

#[test]
fn models_are_listed_once_and_sorted() {
    check_kinds("trainer/src/model");
}

#[test]
fn objectives_are_listed_once_and_sorted() {
    check_kinds("trainer/src/objective");
}

/// Compares the files of `folder` with the modules and kinds that its `mod.rs` lists: every file is a module,
/// every file that has a `KIND` is in `KINDS`, and both lists are sorted.
fn check_kinds(folder: &str) {
    let folder = root().join(folder);
    let list = read(&folder.join("mod.rs"));
    let mut files = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.join("mod.rs").is_file() {
            files.insert(stem);
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "rs") && stem != "mod" {
            if read(&path).lines().any(|line| line.contains(" const KIND: ")) {
                kinds.insert(stem.clone());
            }
            files.insert(stem);
        }
    }
    let modules: Vec<String> = list
        .lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ")
        })
        .filter_map(|rest| rest.split_once(';').map(|(module, _)| module.to_owned()))
        .collect();
    let listed: Vec<String> = after(&list, "const KINDS:")
        .split_once("];")
        .map(|(entries, _)| entries)
        .unwrap_or_else(|| panic!("{}: KINDS is no list", folder.display()))
        .split(['[', ',', '&', ' ', '\n'])
        .filter_map(|entry| entry.strip_suffix("::KIND").map(str::to_owned))
        .collect();
    let of_kinds: Vec<String> = modules.iter().filter(|it| kinds.contains(*it)).cloned().collect();
    let place = folder.display();
    assert_eq!(modules.iter().cloned().collect::<BTreeSet<_>>(), files, "modules in {place}");
    assert_eq!(listed, kinds.into_iter().collect::<Vec<_>>(), "KINDS in {place}");
    assert_eq!(of_kinds, listed, "order of the modules in {place}");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let pages = files(&root(), &|path| path.extension().is_some_and(|it| it == "md"));
    let mut linked = BTreeSet::new();
    for page in pages.iter().filter(|page| !page.starts_with("examples/demo/site")) {
        let text = read(&root().join(page));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = root().join(page.parent().unwrap()).join(target);
            let path = path.canonicalize().unwrap_or_else(|error| {
                panic!("{}: link to `{target}`: {error}", page.display());
            });
            linked.insert(path);
        }
    }
    for page in pages.iter().filter(|page| page.starts_with("docs")) {
        let path = root().join(page).canonicalize().unwrap();
        assert!(linked.contains(&path), "no page links to {}", page.display());
    }
}

/// Returns cargo's own view of the workspace, for the machine that runs the test.
fn metadata() -> Value {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", env!("GRISTMILL_TARGET")])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let members = metadata["workspace_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(move |package| members.contains(&package["id"]))
}

fn dependencies(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().unwrap().iter()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap()
}

/// Returns the names of all packages that end up in the library or binary of `member`.
fn linked(metadata: &Value, member: &str) -> BTreeSet<String> {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), name(package)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start = members(metadata).find(|package| name(package) == member).unwrap();
    let mut open = vec![start["id"].as_str().unwrap()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                open.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn after<'a>(text: &'a str, needle: &str) -> &'a str {
    text.split_once(needle).unwrap_or_else(|| panic!("no `{needle}`")).1
}

/// Returns every Rust file of the workspace, relative to its root, with its text.
fn rust_files() -> Vec<(PathBuf, String)> {
    files(&root(), &|path| path.extension().is_some_and(|extension| extension == "rs"))
        .into_iter()
        .map(|path| {
            let text = read(&root().join(&path));
            (path, text)
        })
        .collect()
}

/// Returns the files below `folder` that `wanted` accepts, sorted, relative to it, without what git ignores.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let ignored: BTreeSet<String> = read(&folder.join(".gitignore"))
        .lines()
        .map(|line| line.trim_matches('/').to_owned())
        .chain([".git".to_owned()])
        .collect();
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(folder).unwrap().to_owned();
            if ignored.contains(relative.to_str().unwrap()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if wanted(&relative) {
                found.push(relative);
            }
        }
    }
    found.sort();
    found
}
