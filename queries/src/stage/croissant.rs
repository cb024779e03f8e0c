//! What a version holds, in the vocabulary of Croissant (MLCommons), as `croissant.json` beside the card.

use serde_json::{Map, Value, json};
use shard::dataset::Snapshot;
use shard::manifest::Column;

/// The file's name.
pub(super) const NAME: &str = "croissant.json";
/// What the description conforms to.
const CONFORMS_TO: &str = "http://mlcommons.org/croissant/1.0";
/// Names of the vocabulary that mean the same with its own prefix.
const TERMS: [&str; 26] = [
    "column",
    "dataType",
    "equivalentProperty",
    "extract",
    "field",
    "fileObject",
    "fileProperty",
    "fileSet",
    "format",
    "includes",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
];

/// Returns the description of a version, as JSON; it says nothing that the manifest does not.
pub(super) fn describe(snapshot: &Snapshot) -> Vec<u8> {
    let manifest = &snapshot.manifest;
    let kind = manifest.kind.name();
    let paths: Vec<&str> = manifest.shards.iter().map(|shard| shard.path.as_str()).collect();
    let fields: Vec<Value> =
        manifest.schema.iter().filter_map(|column| field(kind, column)).collect();
    let description = json!({
        "@context": context(),
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": kind,
        "description": format!(
            "Version {} of a dataset of {kind}, written by Gristmill: {} rows in {} shards. Manifest {}.",
            snapshot.version,
            manifest.n_rows(),
            paths.len(),
            snapshot.manifest_hash
        ),
        // Their patterns of a version have three parts.
        "version": format!("{}.0.0", snapshot.version),
        "distribution": [{
            "@type": "cr:FileSet",
            "@id": "shards",
            "name": "shards",
            "encodingFormat": "application/x-parquet",
            "includes": paths,
        }],
        "recordSet": [{ "@type": "cr:RecordSet", "@id": kind, "name": kind, "field": fields }],
    });
    let mut bytes = serde_json::to_vec_pretty(&description).expect("its keys are text");
    bytes.push(b'\n');
    bytes
}

fn context() -> Value {
    let mut context = Map::new();
    context.insert("@language".into(), "en".into());
    context.insert("@vocab".into(), "https://schema.org/".into());
    context.insert("sc".into(), "https://schema.org/".into());
    context.insert("cr".into(), "http://mlcommons.org/croissant/".into());
    context.insert("rai".into(), "http://mlcommons.org/croissant/RAI/".into());
    context.insert("dct".into(), "http://purl.org/dc/terms/".into());
    context.insert("conformsTo".into(), "dct:conformsTo".into());
    context.insert("citeAs".into(), "cr:citeAs".into());
    for term in TERMS {
        let value = match term {
            "dataType" => json!({ "@id": "cr:dataType", "@type": "@vocab" }),
            term => format!("cr:{term}").into(),
        };
        context.insert(term.into(), value);
    }
    context.insert("data".into(), json!({ "@id": "cr:data", "@type": "@json" }));
    context.insert("examples".into(), json!({ "@id": "cr:examples", "@type": "@json" }));
    Value::Object(context)
}

/// A column as a field; `None` for maps, which the vocabulary does not have.
fn field(kind: &str, column: &Column) -> Option<Value> {
    let Column { name, data_type, .. } = column;
    let list = data_type.strip_prefix("List(").and_then(|rest| rest.strip_suffix(')'));
    let item = list.unwrap_or(data_type);
    let data_type = match item.trim_start_matches("non-null ") {
        "Utf8" | "Utf8View" => "sc:Text",
        bytes if bytes.starts_with("FixedSizeBinary") => "sc:Text",
        "Boolean" => "sc:Boolean",
        "UInt32" => "cr:UInt32",
        "UInt64" => "cr:UInt64",
        "Float32" | "Float64" => "sc:Float",
        date if date.starts_with("Timestamp") => "sc:Date",
        "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" => "sc:Integer",
        _ => return None,
    };
    let mut field = json!({
        "@type": "cr:Field",
        "@id": format!("{kind}/{name}"),
        "name": name,
        "dataType": data_type,
        "source": { "fileSet": { "@id": "shards" }, "extract": { "column": name } },
    });
    if list.is_some() {
        field["repeated"] = true.into();
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_types_of_the_vocabulary_and_maps_are_left_out() {
        let of = |data_type: &str| {
            let data_type = data_type.to_owned();
            let column = Column { name: "x".to_owned(), data_type, nullable: false };
            field("tokens", &column)
        };
        let tokens = of("List(non-null UInt32)").unwrap();
        assert_eq!((&tokens["dataType"], &tokens["repeated"]), (&json!("cr:UInt32"), &json!(true)));
        let text = of("Utf8View").unwrap();
        assert_eq!((&text["dataType"], &text["@id"]), (&json!("sc:Text"), &json!("tokens/x")));
        assert_eq!(of("Timestamp(ms, \"UTC\")").unwrap()["dataType"], "sc:Date");
        assert_eq!(of("Map(\"entries\": Struct(keys: non-null Utf8))"), None);
    }
}
