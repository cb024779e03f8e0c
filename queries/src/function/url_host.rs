//! `url_host`: the host of a URL.

use std::sync::Arc;

use arrow::array::{AsArray, StringViewArray};
use arrow::datatypes::DataType;

use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "url_host",
    summary: "the host of a URL in lower case (names beyond ASCII in Punycode), null where there is none",
    arguments: "(text)",
    returns: "text",
    example: ("url_host('https://user@WWW.Example.org:8080/a?b')", "www.example.org"),
    build: || {
        Plain::udf("url_host", vec![vec![DataType::Utf8View]], DataType::Utf8View, |arguments| {
            let hosts = arguments[0].as_string_view().iter().map(|text| host(text?));
            Ok(Arc::new(hosts.collect::<StringViewArray>()))
        })
    },
};

fn host(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    url.host_str().filter(|host| !host.is_empty()).map(str::to_owned)
}
