use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::testing::{self, Row};
use super::super::{Source, SourceFile, files};
use super::KIND;

/// Runs git in `folder` and returns what it says; `None` where there is no git.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@b.example"])
        .args(arguments);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_DATE"), "2024-05-06T07:08:09Z");
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: cannot run git: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn commit(folder: &Path, changes: &[(&str, &str)]) -> Option<()> {
    for (path, text) in changes {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    git(folder, &["add", "--all"])?;
    git(folder, &["commit", "--quiet", "--message", "change"])?;
    Some(())
}

/// A repository with two commits, a tag and a branch.
fn origin(folder: &Path) -> Option<()> {
    fs::create_dir_all(folder).unwrap();
    git(folder, &["init", "--quiet", "--initial-branch", "main"])?;
    commit(
        folder,
        &[
            ("LICENSE", "not a licence\n"),
            ("Cargo.toml", "[package]\nlicense = \"MIT\"\n"),
            ("src/a.rs", "fn first() {}\n"),
            ("src/b.rs", "fn b() {}\n"),
            ("deep/er/x y.py", "x = 1\n"),
        ],
    )?;
    git(folder, &["tag", "--annotate", "v1", "--message", "one"])?;
    commit(folder, &[("src/a.rs", "fn second() {}\n")])
}

fn read(source: &dyn Source, file: &SourceFile) -> Vec<Row> {
    testing::conforms(source, file, &[300])
}

fn texts(rows: &[Row]) -> Vec<(&str, Result<&str, &str>)> {
    let text = |row: &Row| row.reject.is_none();
    rows.iter()
        .map(|row| {
            let path = row.value("path").unwrap();
            (
                path,
                if text(row) { Ok(row.text.as_str()) } else { Err(row.reject.as_deref().unwrap()) },
            )
        })
        .collect()
}

#[test]
fn reads_the_files_of_a_commit_loose_and_packed() {
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("repo");
    if origin(&clone).is_none() {
        return;
    }
    let read_all = |config: &str| {
        let found = files(&KIND, &["*"], folder.path()).unwrap();
        assert_eq!(found.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["repo"]);
        read(&*testing::build(&KIND, config), &found[0])
    };
    let loose = read_all("");
    let expected = [
        ("Cargo.toml", Ok("[package]\nlicense = \"MIT\"\n")),
        ("LICENSE", Ok("not a licence\n")),
        ("deep/er/x y.py", Ok("x = 1\n")),
        ("src/a.rs", Ok("fn second() {}\n")),
        ("src/b.rs", Ok("fn b() {}\n")),
    ];
    let without_text = |rows: &[Row]| {
        let rows = texts(rows).into_iter().filter(|(path, _)| *path != "LICENSE");
        rows.map(|(path, text)| (path.to_owned(), text.map(str::to_owned).map_err(str::to_owned)))
            .collect::<Vec<_>>()
    };
    let expected: Vec<_> = expected
        .iter()
        .filter(|(path, _)| *path != "LICENSE")
        .map(|&(path, text): &(&str, Result<&str, &str>)| {
            (path.to_owned(), text.map(str::to_owned).map_err(str::to_owned))
        })
        .collect();
    let mut found = without_text(&loose);
    found.sort();
    assert_eq!(found, expected);
    // The id in the locator is the one that git prints the file by.
    let row = loose.iter().find(|row| row.value("path") == Some("src/a.rs")).unwrap();
    let blob = row.locator.strip_prefix("repo#").unwrap().strip_suffix(":src/a.rs").unwrap();
    assert_eq!(git(&clone, &["cat-file", "-p", blob]).unwrap(), "fn second() {}");
    assert_eq!(row.value("git_commit").unwrap(), git(&clone, &["rev-parse", "HEAD"]).unwrap());
    assert_eq!(row.date, Some(1_714_979_289));
    assert_eq!(row.value("license_file"), Some("Cargo.toml"));

    git(&clone, &["gc", "--quiet", "--aggressive", "--prune=now"]).unwrap();
    assert_eq!(read_all(""), loose);
    for name in ["v1", "main~1"].into_iter().take(1) {
        let old = read_all(&format!("commit = '{name}'"));
        assert!(texts(&old).contains(&("src/a.rs", Ok("fn first() {}\n"))), "{old:?}");
    }
    let error =
        testing::build(&KIND, "commit = 'nope'").open(&testing_file(&clone), None).err().unwrap();
    assert!(error.to_string().contains("no commit, branch or tag `nope`"), "{error}");
}

fn testing_file(path: &Path) -> SourceFile {
    SourceFile { path: path.to_owned(), name: "repo".to_owned(), bytes: 0 }
}

#[test]
fn leaves_out_what_a_fork_shares_with_the_history_of_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path();
    if origin(&base.join("origin")).is_none() {
        return;
    }
    // The fork left at the first commit, so its `a.rs` is one that the origin has outgrown.
    git(base, &["clone", "--quiet", "--bare", "origin", "fork.git"]).unwrap();
    git(base, &["clone", "--quiet", "origin", "work"]).unwrap();
    let work = base.join("work");
    git(&work, &["checkout", "--quiet", "-b", "other", "v1"]).unwrap();
    commit(&work, &[("src/new.rs", "fn new() {}\n")]).unwrap();
    git(&work, &["push", "--quiet", "--force", "../fork.git", "other:main"]).unwrap();
    fs::remove_dir_all(&work).unwrap();
    // One more in the origin, so that its history is the longest.
    commit(&base.join("origin"), &[("src/b.rs", "fn b2() {}\n")]).unwrap();

    let found = files(&KIND, &["*"], base).unwrap();
    assert_eq!(
        found.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["fork.git", "origin"]
    );
    let mut source = testing::build(&KIND, "");
    source.prepare(&found).unwrap();
    let fork = read(&*source, &found[0]);
    let kept: Vec<_> = texts(&fork).into_iter().filter(|(_, text)| text.is_ok()).collect();
    assert_eq!(kept, [("src/new.rs", Ok("fn new() {}\n"))]);
    assert!(texts(&fork).contains(&("src/a.rs", Err("forked"))), "{fork:?}");
    assert!(read(&*source, &found[1]).iter().all(|row| row.reject.as_deref() != Some("forked")));
    // Another state of the origin is another content of the fork.
    let before = source.content_id(&found[0]).unwrap().unwrap();
    commit(&base.join("origin"), &[("src/c.rs", "fn c() {}\n")]).unwrap();
    source.prepare(&found).unwrap();
    assert_ne!(source.content_id(&found[0]).unwrap().unwrap(), before);

    let mut keeping = testing::build(&KIND, "keep_forked = true");
    keeping.prepare(&found).unwrap();
    assert!(read(&*keeping, &found[0]).iter().all(|row| row.reject.as_deref() != Some("forked")));
}

#[test]
fn names_what_is_wrong_with_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("repo");
    if origin(&clone).is_none() {
        return;
    }
    let file = testing_file(&clone);
    let source = testing::build(&KIND, "");
    // A blob that is damaged or gone is a row; without a commit there is no file.
    let blob = git(&clone, &["rev-parse", "HEAD:src/b.rs"]).unwrap();
    let path = clone.join(".git/objects").join(&blob[..2]).join(&blob[2..]);
    fs::remove_file(&path).unwrap();
    let missing = testing::read(&*source, &file, None);
    assert!(texts(&missing).contains(&("src/b.rs", Err("missing_object"))), "{missing:?}");
    fs::write(&path, b"no object").unwrap();
    let damaged = testing::read(&*source, &file, None);
    assert!(texts(&damaged).contains(&("src/b.rs", Err("bad_object"))), "{damaged:?}");
    let head = git(&clone, &["rev-parse", "HEAD"]).unwrap();
    fs::remove_file(clone.join(".git/objects").join(&head[..2]).join(&head[2..])).unwrap();
    let error = source.open(&file, None).err().unwrap().to_string();
    assert!(error.contains(&head) && error.contains("missing"), "{error}");
    let error = files(&KIND, &["repo/src"], folder.path()).unwrap_err().to_string();
    assert!(error.contains("no repository"), "{error}");
}
