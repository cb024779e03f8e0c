use std::fs;

use super::super::testing;
use super::KIND;

/// The process that the other tests read files in; run by itself it has nothing to do.
#[test]
fn serves_as_the_worker() {
    if std::env::var_os("GRISTMILL_PDF_WORKER_TEST").is_some() {
        super::pdf_worker().unwrap();
    }
}

/// Whether PDFium is there; prints why not.
fn has_pdfium() -> bool {
    let is_named = std::env::var_os("GRISTMILL_PDFIUM").is_some();
    if !is_named {
        eprintln!("skipped: no PDFium, run `scripts/setup-pdfium.sh` and set GRISTMILL_PDFIUM");
    }
    is_named
}

fn read(name: &str, bytes: &[u8], config: &str) -> testing::Row {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut rows =
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[500]);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

/// A file with a page of text, written by hand. Its offsets are wrong, which readers mend.
fn hello(text: &str) -> Vec<u8> {
    let content = format!("BT /F1 12 Tf 72 720 Td ({text}) Tj ET");
    format!(
        "%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n\
         2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
         3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj\n\
         4 0 obj<</Length {}>>stream\n{content}\nendstream endobj\n\
         5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n\
         6 0 obj<</Title(A title)/CreationDate(D:20240506070809Z)>>endobj\n\
         trailer<</Root 1 0 R/Info 6 0 R/Size 7>>\n%%EOF\n",
        content.len()
    )
    .into_bytes()
}

#[test]
fn reads_text_and_what_a_file_says_of_itself() {
    if !has_pdfium() {
        return;
    }
    let row = read("a.pdf", &hello("Hello, world."), "");
    assert_eq!((row.text.as_str(), row.reject.as_deref()), ("Hello, world.", None));
    assert_eq!((row.value("title"), row.value("pages")), (Some("A title"), Some("1")));
    assert_eq!(row.date, Some(1_714_953_600));
}

#[test]
fn a_file_that_cannot_be_read_is_one_row() {
    if !has_pdfium() {
        return;
    }
    for (bytes, config, reason) in [
        (b"no pdf at all".to_vec(), "", "bad_pdf"),
        (hello("")[..200].to_vec(), "", "bad_pdf"),
        (hello(" "), "", "no_text"),
        (hello("x"), "file_bytes_max = 10", "too_large"),
        (hello("x"), "pages_max = 0", "too_many_pages"),
    ] {
        let row = read("a.pdf", &bytes, config);
        assert_eq!(row.reject.as_deref(), Some(reason), "{config}");
    }
}

#[test]
fn says_what_to_do_where_there_is_no_pdfium() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pdf");
    fs::write(&path, hello("x")).unwrap();
    let source = testing::build(&KIND, "library = '/nowhere/libpdfium.so'");
    let error = source.open(&testing::file(&path), None).unwrap().next().unwrap().unwrap_err();
    let error = error.to_string();
    assert!(error.contains("/nowhere/libpdfium.so") && error.contains("hint"), "{error}");
}

#[test]
fn agrees_with_grobid_on_two_papers() {
    let Some(folder) = testing::data("papers/s2orc-doc2json/pdf") else { return };
    if !has_pdfium() {
        return;
    }
    let source = testing::build(&KIND, "");
    for name in ["2020.acl-main.207", "N18-3011"] {
        let rows =
            testing::read(&*source, &testing::file(&folder.join(format!("{name}.pdf"))), None);
        let json = fs::read(folder.join(format!("{name}.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let parse = &json["pdf_parse"];
        let paragraphs: Vec<&str> = ["abstract", "body_text"]
            .iter()
            .flat_map(|part| parse[part].as_array().unwrap())
            .map(|paragraph| paragraph["text"].as_str().unwrap())
            .collect();
        let text = &rows[0].text;
        // GROBID leaves out references, tables and captions: what it has is to be found here.
        let recall = testing::shingle_recall(text, &paragraphs.join("\n\n"), 4);
        let references = text.rfind("References").unwrap_or(text.len());
        let f1 = testing::word_f1(&text[..references], &paragraphs.join("\n\n"));
        eprintln!(
            "{name}: {recall:.3} of GROBID's runs of four words, word F1 before the references {f1:.3}"
        );
        if let Some(output) = std::env::var_os("GRISTMILL_PDF_TEXT") {
            fs::write(std::path::Path::new(&output).join(format!("{name}.txt")), text).unwrap();
        }
        assert!(recall > 0.85, "{name}: {recall}");
        assert!(f1 > 0.85, "{name}: {f1}");
    }
}
