//! Source code: a file of a folder, or of a package's archive, is a document.

mod archive;
mod generated;
mod language;
mod license;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::text::WholeFile;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, charset, config, raw};
use crate::Result;

use archive::Archive;
pub(super) use license::{BYTES_MAX as LICENSE_BYTES_MAX, Licenses, is_license_file};
use license::{FolderLicenses, Stated};

pub(super) const KIND: SourceKind = SourceKind {
    name: "code",
    summary: "folders of source code and packages (tar, crate, wheel, npm, zip), a document per file, with language and licence",
    source: "GitHub Linguist 9; SPDX licence list and expressions; permissive as The Stack (Kocetkov et al. 2022)",
    document_kind: "code",
    patterns: &["*"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Code {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("code", table)?,
            licenses: FolderLicenses::default(),
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    #[serde(flatten)]
    rules: Rules,
    /// Bytes of a package's files together, at most, inflated.
    package_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { rules: Rules::default(), package_bytes_max: 1 << 30 }
    }
}

/// Which files are documents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rules {
    /// Bytes of a file, at most. The Stack (Kocetkov et al. 2022) takes files under 1 MB.
    pub(super) file_bytes_max: u64,
    /// Whether files whose language is not known are documents too.
    keep_unknown: bool,
    /// Whether files that a program wrote are documents too.
    keep_generated: bool,
    /// Whether copies of other people's code are documents too, as far as their path tells.
    keep_vendored: bool,
    /// Whether only files under a permissive licence are documents.
    permissive_only: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            file_bytes_max: 1 << 20,
            keep_unknown: false,
            keep_generated: false,
            keep_vendored: false,
            permissive_only: false,
        }
    }
}

/// A file of a repository or package.
pub(super) struct Module<'a> {
    /// Where it lies, from the root of what it belongs to.
    pub(super) path: &'a str,
    pub(super) locator: &'a str,
    pub(super) bytes: &'a [u8],
    /// The licence that holds where it lies.
    pub(super) license: Option<&'a Stated>,
    pub(super) date: Option<i64>,
    pub(super) metadata: &'a [(&'a str, &'a str)],
}

impl Rules {
    /// Adds the file to `rows`, as a document or with the reason why it is none.
    pub(super) fn push(&self, module: &Module<'_>, rows: &mut BatchBuilder) {
        let is_binary = is_binary(module.bytes);
        let (text, charset) = charset::decode(if is_binary { b"" } else { module.bytes }, None);
        let language = if is_binary { None } else { language::language(module.path, &text) };
        let own = license::tag(&text);
        let license = own.or(module.license.map(|stated| stated.expression.as_str()));
        let mut metadata = vec![("path", module.path), ("charset", charset)];
        metadata.extend(language.map(|language| ("code_language", language)));
        let stated = module.license.filter(|_| own.is_none());
        metadata.extend(stated.map(|stated| ("license_file", stated.path.as_str())));
        metadata.extend(module.metadata);
        let record = Record {
            locator: module.locator,
            bytes_raw: module.bytes.len() as u64,
            date: module.date,
            metadata: &metadata,
            license,
            ..Record::default()
        };
        let reason = if is_binary {
            Some("binary")
        } else if text.trim().is_empty() {
            Some("no_text")
        } else if language.is_none() && !self.keep_unknown {
            Some("unknown_language")
        } else {
            self.judge(module.path, language, license, &text)
        };
        match reason {
            Some(reason) => rows.reject(&record, reason),
            None => rows.push(&record, &text),
        }
    }

    fn judge(
        &self,
        path: &str,
        language: Option<&str>,
        license: Option<&str>,
        text: &str,
    ) -> Option<&'static str> {
        if !self.keep_vendored && generated::is_vendored(path) {
            return Some("vendored");
        }
        if !self.keep_generated
            && let Some(reason) = generated::written_by_a_program(path, language, text)
        {
            return Some(reason);
        }
        match license {
            _ if !self.permissive_only => None,
            None => Some("no_license"),
            Some(license) => (!license::is_permissive(license)).then_some("license_not_permissive"),
        }
    }
}

/// Whether a file is no text: it has a zero byte and is not UTF-16 with its mark.
fn is_binary(bytes: &[u8]) -> bool {
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    !is_utf16 && memchr::memchr(0, bytes).is_some()
}

#[derive(Clone, Debug)]
struct Code {
    name: String,
    kind: String,
    config: Config,
    licenses: FolderLicenses,
}

impl Source for Code {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let rows = BatchBuilder::new(&self.name, &self.kind);
        if archive::is_archive(&file.name) {
            let config = self.config.clone();
            let archive = Archive::open(file, range, config.rules, config.package_bytes_max)?;
            return Ok(batch::stream(rows, archive));
        }
        let reader = WholeFile::open(file, range, self.config.rules.file_bytes_max)?;
        let file =
            Loose { reader, rules: self.config.rules.clone(), licenses: self.licenses.clone() };
        Ok(batch::stream(rows, file))
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        match place {
            Some(place) => archive::raw(file, place, bytes),
            None => raw::stored(file).map(Some),
        }
    }
}

/// A file on disk.
struct Loose {
    reader: WholeFile,
    rules: Rules,
    licenses: FolderLicenses,
}

impl Rows for Loose {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(read) = self.reader.read()? else { return Ok(false) };
        let SourceFile { path, name, .. } = &self.reader.file;
        let bytes = match read {
            Err(bytes_raw) => {
                let record = Record { locator: name, bytes_raw, ..Record::default() };
                rows.reject(&record, "too_large");
                return Ok(true);
            }
            Ok(bytes) => bytes,
        };
        // The first folder is the one that the job names: `vendor` there is what the user asked for.
        let inside = name.split_once('/').map_or(name.as_str(), |(_, inside)| inside);
        let license = self.licenses.of(path, name.matches('/').count());
        let module = Module {
            path: inside,
            locator: name,
            bytes: &bytes,
            license: license.as_ref(),
            date: None,
            metadata: &[],
        };
        self.rules.push(&module, rows);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing;
    use super::KIND;

    fn check(name: &str, bytes: &[u8], expected: Result<&str, &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let rows = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &[7]);
        assert_eq!(rows.len(), 1, "{name}");
        let found = match &rows[0].reject {
            None => Ok(rows[0].value("code_language").unwrap()),
            Some(reason) => Err(reason.as_str()),
        };
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn tells_languages_by_name_content_and_interpreter() {
        check("main.rs", b"fn main() {}", Ok("Rust"));
        check("Makefile", b"all:\n", Ok("Makefile"));
        check("a.py", b"x = 1", Ok("Python"));
        check("tool", b"#!/usr/bin/env python3\nx = 1", Ok("Python"));
        check("tool", b"#!/bin/sh -e\nx=1", Ok("Shell"));
        check("a.h", b"#include <iostream>\nclass A {};\n", Ok("C++"));
        check("a.h", b"int f(void);\n", Ok("C"));
        check("a.m", b"#import <Foundation/Foundation.h>\n@interface A\n@end\n", Ok("Objective-C"));
        check("a.pl", b"use strict;\nmy $x = 1;\n", Ok("Perl"));
        check("a.pl", b":- use_module(library(lists)).\nf(X) :- g(X).\n", Ok("Prolog"));
        check("b.txt", b"# vim: ft=ruby\nputs 1\n", Ok("Ruby"));
        check("notes.qqq", b"hello", Err("unknown_language"));
    }

    #[test]
    fn rejects_what_nobody_wrote() {
        check("a.c", b"int x;\0", Err("binary"));
        check("a.c", b" \n", Err("no_text"));
        check("a.go", b"// Code generated by protoc. DO NOT EDIT.\npackage x", Err("generated"));
        check("Cargo.lock", b"version = 4\n", Err("generated"));
        check("x_pb2.py", b"import y\n", Err("generated"));
        check("a.min.js", b"var x", Err("vendored"));
        check("jquery.js", b"var x = 1;\n", Err("vendored"));
        check("b.js", "var x=1;".repeat(200).as_bytes(), Err("minified"));
        check("a.c", &vec![b'x'; (1 << 20) + 1], Err("too_large"));
    }

    #[test]
    fn finds_the_licence_of_the_folder_a_file_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repo");
        fs::create_dir_all(root.join("src/gpl")).unwrap();
        fs::write(root.join("package.json"), r#"{"license": "MIT"}"#).unwrap();
        fs::write(root.join("src/gpl/package.json"), r#"{"license": "GPL-3.0-only"}"#).unwrap();
        fs::write(root.join("src/a.js"), "let a = 1;\n").unwrap();
        fs::write(root.join("src/gpl/b.js"), "let b = 1;\n").unwrap();
        fs::write(root.join("src/gpl/c.js"), "// SPDX-License-Identifier: ISC\nlet c = 1;\n")
            .unwrap();
        let files = super::super::files(&KIND, &["repo/src/**/*.js"], folder.path()).unwrap();
        let source = testing::build(&KIND, "permissive_only = true");
        let rows: Vec<_> =
            files.iter().flat_map(|file| testing::read(&*source, file, None)).collect();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                (row.value("path").unwrap(), row.value("license_file"), row.reject.as_deref())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("src/a.js", Some("package.json"), None),
                ("src/gpl/b.js", Some("package.json"), Some("license_not_permissive")),
                ("src/gpl/c.js", None, None),
            ]
        );
    }

    fn package(name: &str, bytes: &[u8], config: &str) -> Vec<testing::Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (source, file) = (testing::build(&KIND, config), testing::file(&path));
        let rows = testing::conforms(&*source, &file, &[900]);
        for row in rows.iter().filter(|row| row.reject.is_none()) {
            assert_eq!(testing::raw(&*source, &file, row).unwrap(), row.text.as_bytes(), "{name}");
        }
        rows
    }

    #[test]
    fn reads_packages_with_the_licence_of_their_manifest() {
        let manifest = b"[package]\nname = \"p\"\nlicense = \"MIT OR Apache-2.0\"\n";
        let files: [(&str, &[u8]); 4] = [
            ("p-1.0/src/lib.rs", b"pub fn f() {}\n"),
            ("p-1.0/logo.png", b"\x89PNG\0"),
            ("p-1.0/vendor/z.c", b"int z;\n"),
            ("p-1.0/Cargo.toml", manifest),
        ];
        let tar = testing::tar(&files);
        let zip = zip_file(&files);
        for (name, bytes) in
            [("p.crate", testing::gzip(&tar)), ("p.tar", tar.clone()), ("p.zip", zip)]
        {
            let rows = package(name, &bytes, "permissive_only = true");
            let found: Vec<_> = rows
                .iter()
                .map(|row| (row.value("path").unwrap(), row.reject.as_deref(), row.text.as_bytes()))
                .collect();
            let expected: [(&str, Option<&str>, &[u8]); 4] = [
                (files[0].0, None, files[0].1),
                (files[1].0, Some("binary"), b""),
                (files[2].0, Some("vendored"), b""),
                (files[3].0, None, files[3].1),
            ];
            assert_eq!(found, expected, "{name}");
            assert_eq!(rows[0].value("license_file"), Some("p-1.0/Cargo.toml"), "{name}");
        }
        // The offset is that of the content in the inflated archive.
        let rows = package("p.crate", &testing::gzip(&tar), "");
        assert_eq!(rows[0].locator, "p.crate#512");
        assert_eq!(&tar[512..512 + files[0].1.len()], files[0].1);
    }

    #[test]
    fn keeps_what_stands_before_damage() {
        let tar = testing::tar(&[("a.py", b"a = 1\n"), ("b.py", b"b = 2\n")]);
        for (bytes, reason) in [
            (&tar[..1200], "truncated_file"),
            (&[&tar[..1024], &[b'x'; 512]].concat()[..], "bad_tar"),
        ] {
            let rows = package("p.tar", bytes, "");
            assert_eq!((rows[0].text.as_str(), rows.len()), ("a = 1\n", 2));
            assert_eq!(rows[1].reject.as_deref(), Some(reason));
            assert_eq!(
                rows[1].locator,
                if reason == "bad_tar" { "p.tar#1536" } else { "p.tar#1200" }
            );
        }
        let rows = package("p.zip", b"PK\x03\x04 and no more", "");
        assert_eq!(rows[0].reject.as_deref(), Some("bad_zip"));
        let rows = package("p.tar", &tar, "package_bytes_max = 6");
        assert_eq!(rows.last().unwrap().reject.as_deref(), Some("too_large"));
    }

    #[test]
    fn reads_hostile_archives_without_harm() {
        let Some(mut cases) = testing::hostile("tar/") else { return };
        cases.extend(
            testing::hostile("epub/")
                .unwrap()
                .into_iter()
                .filter(|case| case.name.ends_with(".zip")),
        );
        let source = testing::build(&KIND, "package_bytes_max = 100_000_000");
        for case in &cases {
            let rows = testing::read(&*source, &testing::file(&case.path), None);
            let texts: String = rows.iter().map(|row| row.text.as_str()).collect();
            let rejects: Vec<_> = rows.iter().filter_map(|row| row.reject.as_deref()).collect();
            let expected = case.text("expect").unwrap();
            eprintln!(
                "{}: {expected}: {} texts, {rejects:?}",
                case.name,
                rows.len() - rejects.len()
            );
            assert!(!texts.contains("root:"), "{}", case.name);
            match expected.as_str() {
                "good_kept_nothing_outside" | "refuse_or_skip_big_member" => {
                    // The good file is empty in these archives, and a name that leads outside is only a name.
                    let is_there = |row: &testing::Row| row.value("path") == Some("ok/good.txt");
                    assert!(rows.iter().any(is_there), "{}: {rows:?}", case.name);
                }
                // An error is named, and nothing of the bad entry comes out.
                _ => assert!(!rejects.is_empty(), "{}: {expected}", case.name),
            }
        }
        eprintln!("judged {} archives", cases.len());
    }

    fn zip_file(files: &[(&str, &[u8])]) -> Vec<u8> {
        use std::io::Write as _;
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in files {
            let options = zip::write::SimpleFileOptions::default();
            let options = options.compression_method(zip::CompressionMethod::Stored);
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }
}
