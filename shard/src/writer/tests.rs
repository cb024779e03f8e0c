use std::fs::File;

use arrow::array::{BinaryArray, StringViewArray};
use arrow::datatypes::Field;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::dataset::tests::batch;
use crate::schema::DatasetKind;

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

fn write(cuts: &[usize], rows: &[(u128, Vec<u32>)]) -> Shard {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let schema = DatasetKind::Tokens.schema();
    let mut writer = ShardWriter::create(&dataset, "train-00000", "train", &schema).unwrap();
    let whole = batch(rows);
    let mut at = 0;
    for cut in cuts.iter().copied().chain([rows.len()]) {
        let end = cut.clamp(at, rows.len());
        writer.write(&whole.slice(at, end - at)).unwrap();
        at = end;
    }
    writer.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bytes_do_not_depend_on_how_rows_are_cut_into_batches(
        mut cuts in prop::collection::vec(0..3000_usize, 0..12),
        n in 0..3000_usize,
    ) {
        cuts.sort_unstable();
        let rows: Vec<_> = (0..n)
            .map(|i| (i as u128, vec![u32::try_from(i).unwrap(); i % 7]))
            .collect();
        prop_assert_eq!(write(&cuts, &rows), write(&[], &rows));
    }
}

#[test]
fn a_row_group_closes_at_its_limit_and_counts_its_tokens() {
    let rows: Vec<_> = (0..210_000_u128).map(|id| (id, vec![1; 2])).collect();
    let shard = write(&[], &rows);
    // A group closes with the first chunk of 1,024 rows that reaches 100,000: 98 chunks.
    let sizes: Vec<_> = shard.row_groups.iter().map(|group| group.rows).collect();
    assert_eq!(sizes, [100_352, 100_352, 9_296]);
    let first: Vec<_> = shard.row_groups.iter().map(|group| group.first_token).collect();
    assert_eq!(first, [0, 200_704, 401_408]);
    assert_eq!(shard.n_tokens(), 420_000);
}

#[test]
fn tokens_are_numbered_per_split() {
    let shard = |split: &str, n_tokens: &[u64]| Shard {
        path: String::new(),
        split: split.to_owned(),
        partition: None,
        rows: 0,
        bytes: 0,
        blake3: String::new(),
        row_groups: n_tokens
            .iter()
            .map(|n| RowGroup { rows: 1, n_tokens: *n, first_token: 99 })
            .collect(),
    };
    let mut shards = [shard("train", &[5, 6]), shard("validation", &[7]), shard("train", &[1, 2])];
    number_tokens(&mut shards);
    let first: Vec<_> =
        shards.iter().flat_map(|s| &s.row_groups).map(|group| group.first_token).collect();
    assert_eq!(first, [0, 5, 0, 11, 12]);
}

#[test]
fn views_are_stored_as_plain_strings() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, true)]));
    let long = "a text that is longer than what a view holds inline ".repeat(50);
    let texts = StringViewArray::from(vec![Some("kurz"), None, Some(long.as_str()), Some("")]);
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).unwrap();
    let mut writer = ShardWriter::create(&dataset, "a", "train", &schema).unwrap();
    writer.write(&rows).unwrap();
    let shard = writer.finish().unwrap();
    let path = folder.path().join(&shard.path);
    assert_eq!(store::hash_file(&path).unwrap(), shard.blake3);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), shard.bytes);
    let back = read(&path);
    assert_eq!(back[0].schema().field(0).data_type(), &DataType::Utf8);
    let back: Vec<_> = back[0].column(0).as_string::<i32>().iter().collect();
    assert_eq!(back, [Some("kurz"), None, Some(long.as_str()), Some("")]);
}

#[test]
fn a_column_of_another_type_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::at(folder.path());
    let stored: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::UInt32, false)]));
    let given: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Binary, false)]));
    let values = BinaryArray::from(vec![b"x".as_slice()]);
    let rows = RecordBatch::try_new(given, vec![Arc::new(values)]).unwrap();
    let mut writer = ShardWriter::create(&dataset, "a", "train", &stored).unwrap();
    let result = writer.write(&rows).and_then(|()| writer.finish());
    assert!(matches!(result, Err(Error::Arrow { .. })));
}
