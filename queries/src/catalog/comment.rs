//! What the columns of the datasets mean, for `DESCRIBE`.

use shard::schema::DatasetKind;

/// Returns what `column` of the table called `table` means; nothing for columns that steps add, and other tables.
pub(crate) fn comment(table: &str, column: &str) -> Option<&'static str> {
    let table = table.rsplit('.').next().unwrap_or(table).trim_matches('"');
    let (name, _) = table.split_once('@').unwrap_or((table, ""));
    let kind = DatasetKind::ALL.into_iter().find(|kind| kind.name() == name)?;
    shard::format::column(kind, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_schemas_are_no_part_of_a_name() {
        assert_eq!(comment("\"documents@3\"", "text"), Some("the text after all steps"));
        assert_eq!(comment("web.\"documents@3\"", "text"), Some("the text after all steps"));
        assert_eq!(comment("manifests", "text"), None);
    }
}
