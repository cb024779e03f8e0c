//! Rows of a query as text: tables for eyes, JSON and CSV for programs.
//!
//! Ids and other bytes are lower-case hexadecimal in every format.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::writer::{EncoderOptions, JsonArray, LineDelimited, WriterBuilder, make_encoder};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::{Error, Result};

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns; long values are cut where the terminal ends, and whole in a pipe.
    #[default]
    Table,
    /// One array of objects.
    Json,
    /// A header, then comma-separated values; lists and structs are JSON.
    Csv,
    /// One object per line.
    Ndjson,
}

/// Rows of a table that decide the widths of its columns; longer values in later rows stick out.
const TABLE_ROWS_MEASURED: usize = 1000;
/// Columns of a terminal below which values are not cut any further.
const COLUMN_WIDTH_MIN: usize = 8;

/// Returns the width that tables are cut to: the terminal's, nothing where standard output is none.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(terminal_size::terminal_size).flatten().map(|(width, _)| width.0.into())
}

/// Writes batches of one query to `out`.
#[derive(Debug)]
pub struct Rows {
    format: Format,
    width: Option<usize>,
    schema: SchemaRef,
    /// Rows whose widths are not yet decided.
    measured: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    n_rows: u64,
}

impl Rows {
    /// Begins the rows of `schema`; a table is cut to `width` columns of the terminal.
    #[must_use]
    pub fn new(format: Format, width: Option<usize>, schema: &SchemaRef) -> Self {
        let schema = distinct_names(schema);
        Self { format, width, schema, measured: Vec::new(), widths: None, n_rows: 0 }
    }

    /// Writes `batch`. `false` means that nobody reads any more: go on no further.
    ///
    /// # Errors
    /// When `out` refuses, except for a closed pipe.
    pub fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<bool> {
        let mut text = Vec::new();
        let batch = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            batch.columns().to_vec(),
            &arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        )?;
        match self.format {
            Format::Table => self.table_rows(&batch, &mut text)?,
            Format::Json => self.json_rows(&batch, &mut text)?,
            Format::Ndjson => {
                let mut writer = json().build::<_, LineDelimited>(&mut text);
                writer.write(&batch)?;
                writer.finish()?;
            }
            Format::Csv => {
                let batch = flat(&batch)?;
                let header = self.n_rows == 0;
                csv::WriterBuilder::new().with_header(header).build(&mut text).write(&batch)?;
            }
        }
        self.n_rows += batch.num_rows() as u64;
        send(&text, out)
    }

    /// Writes what is left, and what makes the whole valid; returns the number of rows.
    ///
    /// # Errors
    /// When `out` refuses, except for a closed pipe.
    pub fn finish(mut self, out: &mut dyn Write) -> Result<u64> {
        let mut text = Vec::new();
        match self.format {
            Format::Table => self.decide_widths(&mut text)?,
            Format::Json if self.n_rows == 0 => text.extend(b"[]\n"),
            Format::Json => text.extend(b"\n]\n"),
            Format::Csv if self.n_rows == 0 => {
                let empty = flat(&RecordBatch::new_empty(Arc::clone(&self.schema)))?;
                csv::WriterBuilder::new().with_header(true).build(&mut text).write(&empty)?;
            }
            Format::Csv | Format::Ndjson => {}
        }
        if send(&text, out)? {
            match out.flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(refused(error));
                }
                _ => {}
            }
        }
        Ok(self.n_rows)
    }

    /// Writes objects between the brackets of the one array.
    fn json_rows(&self, batch: &RecordBatch, text: &mut Vec<u8>) -> Result<()> {
        let mut writer = json().build::<_, JsonArray>(Vec::new());
        writer.write(batch)?;
        writer.finish()?;
        let array = writer.into_inner();
        let objects = array.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(objects) = objects.filter(|objects| !objects.is_empty()) {
            text.extend(if self.n_rows == 0 { &b"[\n"[..] } else { b",\n" });
            text.extend(objects);
        }
        Ok(())
    }

    fn table_rows(&mut self, batch: &RecordBatch, text: &mut Vec<u8>) -> Result<()> {
        let mut rows = cells(batch)?;
        match &self.widths {
            Some(widths) => write_rows(&rows, widths, self.width.is_some(), &self.schema, text),
            None => {
                self.measured.append(&mut rows);
                if self.measured.len() >= TABLE_ROWS_MEASURED {
                    self.decide_widths(text)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the header and the rows that were held back.
    fn decide_widths(&mut self, text: &mut Vec<u8>) -> Result<()> {
        if self.widths.is_some() {
            return Ok(());
        }
        let names: Vec<String> =
            self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut widths: Vec<usize> = names.iter().map(|name| width_of(name)).collect();
        for row in &self.measured {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(cell));
            }
        }
        if let Some(terminal) = self.width {
            shrink(&mut widths, terminal);
        }
        let is_cut = self.width.is_some();
        write_rows(&[names], &widths, is_cut, &self.schema, text);
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        text.extend(format!("{}\n", lines.join("─┼─")).as_bytes());
        write_rows(&std::mem::take(&mut self.measured), &widths, is_cut, &self.schema, text);
        self.widths = Some(widths);
        Ok(())
    }
}

fn json() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

fn send(text: &[u8], out: &mut dyn Write) -> Result<bool> {
    match out.write_all(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: io::Error) -> Error {
    shard::Error::io("write", "standard output")(error).into()
}

/// Two columns of one name, as joins give them, get numbers: an object has each key once.
pub(crate) fn distinct_names(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in schema.fields() {
        let is_taken = |name: &str| fields.iter().any(|other| other.name() == name);
        let mut names = (2..).map(|n| format!("{}_{n}", field.name()));
        let name = match is_taken(field.name()) {
            true => names.find(|name| !is_taken(name)).expect("numbers do not end"),
            false => field.name().clone(),
        };
        fields.push(Arc::new(field.as_ref().clone().with_name(name).with_nullable(true)));
    }
    Arc::new(Schema::new(fields))
}

/// The batch with lists, structs and maps as JSON text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(Arc::new(StringArray::from(nested(field, column)?)));
        } else {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Each value as JSON; nothing for null.
fn nested(field: &FieldRef, column: &ArrayRef) -> Result<Vec<Option<String>>> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column, &options)?;
    Ok((0..column.len())
        .map(|row| {
            column.is_valid(row).then(|| {
                let mut json = Vec::new();
                encoder.encode(row, &mut json);
                String::from_utf8(json).expect("JSON is UTF-8")
            })
        })
        .collect())
}

/// The cells of every row, on one line each.
fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let mut rows = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            let values = nested(field, column)?;
            rows.iter_mut()
                .zip(values)
                .for_each(|(row, value)| row.push(value.unwrap_or_default()));
        } else {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            for (place, row) in rows.iter_mut().enumerate() {
                row.push(one_line(&formatter.value(place).try_to_string()?));
            }
        }
    }
    Ok(rows)
}

/// Line breaks and other control characters would break the table, or the terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push('⏎'),
            '\t' => line.push(' '),
            c if c.is_control() => line.push('\u{fffd}'),
            c => line.push(c),
        }
    }
    line
}

/// Takes from the widest columns until the table fits.
fn shrink(widths: &mut [usize], terminal: usize) {
    let separators = 3 * widths.len().saturating_sub(1);
    let mut excess = (widths.iter().sum::<usize>() + separators).saturating_sub(terminal);
    while excess > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|width| **width > COLUMN_WIDTH_MIN)
        else {
            return;
        };
        *widest -= 1;
        excess -= 1;
    }
}

fn write_rows(
    rows: &[Vec<String>],
    widths: &[usize],
    is_cut: bool,
    schema: &SchemaRef,
    text: &mut Vec<u8>,
) {
    for row in rows {
        let mut line = String::new();
        for (place, (cell, &width)) in row.iter().zip(widths).enumerate() {
            if place > 0 {
                line.push_str(" │ ");
            }
            let cell = if is_cut { cut(cell, width) } else { cell.clone() };
            let blanks = " ".repeat(width.saturating_sub(width_of(&cell)));
            let is_number = schema.field(place).data_type().is_numeric();
            let (before, after) =
                if is_number { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
            line.push_str(before);
            line.push_str(&cell);
            line.push_str(after);
        }
        text.extend(line.trim_end().as_bytes());
        text.push(b'\n');
    }
}

/// The cell in at most `width` columns of the terminal.
fn cut(cell: &str, width: usize) -> String {
    if width_of(cell) <= width {
        return cell.to_owned();
    }
    let mut used = 1;
    let mut head = String::new();
    for c in cell.chars() {
        used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used > width {
            break;
        }
        head.push(c);
    }
    head.push('…');
    head
}

fn width_of(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, StringViewArray,
    };
    use arrow::datatypes::Int32Type;
    use serde_json::{Value, json};

    use super::*;

    fn batch() -> RecordBatch {
        let ids = FixedSizeBinaryArray::try_from_iter([[0xab, 1], [0, 255]].iter()).unwrap();
        let texts = StringViewArray::from(vec![Some("a, \"b\"\nc"), None]);
        let numbers = Float64Array::from(vec![0.5, f64::NAN]);
        let lists =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(ids)),
            ("text", Arc::new(texts)),
            ("text", Arc::new(numbers)),
            ("list", Arc::new(lists)),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
            .collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn written(format: Format, width: Option<usize>, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(format, width, &batch().schema());
        for batch in batches {
            assert!(rows.write(batch, &mut out).unwrap());
        }
        rows.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_valid_over_batches_with_hexadecimal_ids_and_distinct_keys() {
        let first = json!({"id": "ab01", "text": "a, \"b\"\nc", "text_2": 0.5, "list": [1, null]});
        let second = json!({"id": "00ff", "text": null, "text_2": null, "list": null});
        let read: Value = serde_json::from_str(&written(
            Format::Json,
            None,
            &[batch(), batch().slice(0, 0), batch()],
        ))
        .unwrap();
        assert_eq!(read, json!([first, second, first, second]));
        let lines = written(Format::Ndjson, None, &[batch()]);
        let read: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [first, second]);
    }

    #[test]
    fn no_rows_are_an_empty_array_and_a_lone_header() {
        assert_eq!(written(Format::Json, None, &[]), "[]\n");
        assert_eq!(written(Format::Json, None, &[batch().slice(0, 0)]), "[]\n");
        assert_eq!(written(Format::Ndjson, None, &[]), "");
        assert_eq!(written(Format::Csv, None, &[]), "id,text,text_2,list\n");
        assert_eq!(
            written(Format::Table, None, &[]),
            "id │ text │ text_2 │ list\n───┼──────┼────────┼─────\n"
        );
    }

    #[test]
    fn csv_quotes_and_spells_lists_as_json() {
        assert_eq!(
            written(Format::Csv, None, &[batch()]),
            "id,text,text_2,list\nab01,\"a, \"\"b\"\"\nc\",0.5,\"[1,null]\"\n00ff,,NaN,\n"
        );
    }

    #[test]
    fn tables_are_cut_to_the_terminal_and_whole_in_a_pipe() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["0123456789abcdef"; 2]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7, 1000]));
        let batch = RecordBatch::try_from_iter([("t", text), ("n", number)]).unwrap();
        let show = |width| {
            let mut out = Vec::new();
            let mut rows = Rows::new(Format::Table, width, &batch.schema());
            rows.write(&batch, &mut out).unwrap();
            assert_eq!(rows.finish(&mut out).unwrap(), 2);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            show(Some(17)),
            "t          │    n\n───────────┼─────\n012345678… │    7\n012345678… │ 1000\n"
        );
        assert!(show(None).contains("0123456789abcdef │ 1000\n"));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(cut("日本語です", 6), "日本…");
        assert_eq!(cut("日本", 4), "日本");
    }

    #[test]
    fn a_closed_pipe_ends_without_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut rows = Rows::new(Format::Ndjson, None, &batch().schema());
        assert!(!rows.write(&batch(), &mut Closed).unwrap());
        rows.finish(&mut Closed).unwrap();
    }
}
