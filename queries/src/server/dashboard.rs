//! The dashboard: one page whose script asks `/query` and nothing else. It is in the binary and needs no other server.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::Server;

const PAGE: &str = include_str!("dashboard/index.html");
const SCRIPT: &str = include_str!("dashboard/app.js");
const STYLE: &str = include_str!("dashboard/style.css");

/// Nothing is loaded from, or sent to, anywhere else; text of documents cannot run.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// The form of the login page has its style in itself.
const LOGIN_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Server>> {
    let file = |content_type: &'static str, text: &'static str| {
        get(move || async move { answer(StatusCode::OK, content_type, POLICY, text.to_owned()) })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/app.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/style.css", file("text/css; charset=utf-8", STYLE))
        .route("/signals.json", get(signals))
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    policy: &'static str,
    text: String,
) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-cache"),
    ];
    (status, headers, text).into_response()
}

/// What every filter measures, for the page's thresholds.
async fn signals() -> Response {
    let signals = ingest::filter::KINDS.iter().flat_map(|kind| {
        let verdict = crate::function::verdict_name(kind);
        kind.signals.iter().filter(|signal| signal.data_type.is_numeric()).map(move |signal| {
            json!({
                "filter": kind.name,
                "signal": signal.name,
                "summary": signal.summary,
                "sql": format!("{verdict}(text)['{}']", signal.name),
            })
        })
    });
    let text = json!(signals.collect::<Vec<_>>()).to_string();
    answer(StatusCode::OK, "application/json", POLICY, text)
}

/// Whether a person asks for the page.
pub(super) fn is_page(request: &Request) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    request.method() == Method::GET && request.uri().path() == "/" && accept.contains("text/html")
}

/// The form that asks for a token.
pub(super) fn login_page(message: Option<&'static str>) -> Response {
    let message = message.unwrap_or("This server answers whoever has a token.");
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Gristmill: token</title><style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;\
         max-width:24rem;margin:4rem auto;padding:0 1rem}}input,button{{font:inherit;padding:.4rem .6rem}}</style>\
         <main><h1>Gristmill</h1><p>{message}</p><form method=post action=/login>\
         <p><label for=token>Token</label><br><input id=token name=token type=password autocomplete=current-password required autofocus>\
         <button>Enter</button></p></form></main></html>"
    );
    answer(StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", LOGIN_POLICY, page)
}
