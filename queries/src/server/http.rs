//! Questions over HTTP, and what else the server answers there.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::prelude::DataFrame;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::guard::{self, Peer};
use super::service::{Question, Service, Size, Turn, code};
use super::token::Asker;
use super::{Server, dashboard, openapi};
use crate::limit::{Bounded, Sink, least_bytes, of_engine, too_many_bytes};
use crate::output::{Format, Rows};
use crate::{Error, Result};

const ROWS: HeaderName = HeaderName::from_static("x-gristmill-rows");
const SECONDS: HeaderName = HeaderName::from_static("x-gristmill-seconds");
/// When a client that was told to come back should.
const RETRY_SECONDS: &str = "2";
/// Pieces that an answer is sent in: the memory of it is given back behind the last.
const PIECE_BYTES: usize = 256 * 1024;

/// Returns everything that is answered over HTTP.
pub(super) fn routes(server: Arc<Server>, flight: Router) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/query", post(query).get(query))
        .route("/login", post(guard::login))
        .merge(dashboard::routes())
        .fallback(nothing_here)
        .with_state(Arc::clone(&server))
        .merge(flight)
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard::let_in))
}

async fn nothing_here() -> Response {
    problem(StatusCode::NOT_FOUND, "not_found", "there is nothing here", Some("see /openapi.json"))
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let text = server.service.meter.text(server.service.now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AnswerFormat {
    /// An object of columns and rows.
    #[default]
    Json,
    /// A row per line.
    Ndjson,
    /// A header and rows.
    Csv,
    /// A stream of Arrow IPC.
    Arrow,
}

impl AnswerFormat {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Json, "json", "application/json"),
        (Self::Ndjson, "ndjson", "application/x-ndjson"),
        (Self::Csv, "csv", "text/csv"),
        (Self::Arrow, "arrow", "application/vnd.apache.arrow.stream"),
    ];

    fn content_type(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(format, _, _)| *format == self);
        found.expect("every format is in the list").2
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, own, _)| *own == name).map(|(format, _, _)| format)
    }

    /// The first format of `accept` that is known.
    fn accepted(accept: &str) -> Option<Self> {
        let types = accept.split(',').map(|it| it.split(';').next().unwrap_or_default().trim());
        types.into_iter().find_map(|wanted| {
            let found = Self::ALL.into_iter().find(|(_, _, own)| *own == wanted);
            found.map(|(format, _, _)| format)
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    format: Option<AnswerFormat>,
}

/// `GET /query?sql=…&format=csv`, or `POST /query` with an object of the same keys or with the statement itself.
async fn query(
    State(server): State<Arc<Server>>,
    Extension(asker): Extension<Asker>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    RawQuery(parameters): RawQuery,
    body: Bytes,
) -> Response {
    let began = Instant::now();
    let asked = match asked(&headers, parameters.as_deref(), &body) {
        Ok(asked) => asked,
        Err(error) => return refuse(&error),
    };
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = asked.format.or_else(|| AnswerFormat::accepted(accepted?)).unwrap_or_default();
    let peer = peer.map(|Extension(Peer(address))| address);
    let question = Question { asker, peer, protocol: "http", sql: asked.sql, parameters: None };
    let service = Arc::clone(&server.service);
    let started = server
        .service
        .start(question, move |frame, turn| write_answer(service, frame, turn, format));
    let answer = match started.finish().await {
        Ok(answer) => answer,
        Err(error) => return refuse(&error),
    };
    let seconds = format!("{:.6}", began.elapsed().as_secs_f64());
    (
        [
            (CONTENT_TYPE, format.content_type().to_owned()),
            (CONTENT_LENGTH, answer.bytes.len().to_string()),
            (CACHE_CONTROL, "no-store".to_owned()),
            (ROWS, answer.rows.to_string()),
            (SECONDS, seconds),
        ],
        answer.into_body(),
    )
        .into_response()
}

fn asked(headers: &HeaderMap, parameters: Option<&str>, body: &Bytes) -> Result<Asked> {
    let wrong = |message: String| {
        Error::Job {
        place: "question".to_owned(),
        message,
        hint: Some(
            "send {\"sql\": \"select 1\", \"format\": \"json\"}; formats are json, ndjson, csv and arrow"
                .to_owned(),
        ),
    }
    };
    let mut asked = Asked::default();
    for (name, value) in url::form_urlencoded::parse(parameters.unwrap_or_default().as_bytes()) {
        match &*name {
            "sql" => asked.sql = value.into_owned(),
            "format" => {
                let format = AnswerFormat::named(&value);
                asked.format =
                    Some(format.ok_or_else(|| wrong(format!("unknown format `{value}`")))?);
            }
            _ => return Err(wrong(format!("unknown parameter `{name}`"))),
        }
    }
    if body.is_empty() {
        return Ok(asked);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.unwrap_or_default().starts_with("application/json") {
        let sent: Asked = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
        return Ok(Asked { format: sent.format.or(asked.format), sql: sent.sql });
    }
    let sql = std::str::from_utf8(body).map_err(|error| wrong(error.to_string()))?;
    Ok(Asked { sql: sql.to_owned(), ..asked })
}

/// The bytes of an answer, and the memory that they are counted in.
struct Answer {
    bytes: Bytes,
    rows: u64,
    reserved: MemoryReservation,
}

impl Answer {
    fn into_body(self) -> Body {
        let Self { bytes, reserved, .. } = self;
        let pieces = futures::stream::unfold((bytes, reserved), |(mut rest, reserved)| async {
            let next = rest.split_to(rest.len().min(PIECE_BYTES));
            (!next.is_empty()).then(|| (Ok::<_, std::convert::Infallible>(next), (rest, reserved)))
        });
        Body::from_stream(pieces)
    }
}

async fn write_answer(
    service: Arc<Service>,
    frame: DataFrame,
    turn: Turn,
    format: AnswerFormat,
) -> Result<(Answer, Size)> {
    let max = turn.limits.bytes;
    let reserved = MemoryConsumer::new("answer").register(&service.engine.memory_pool);
    let stream = frame.execute_stream().await.map_err(of_engine)?;
    let mut writer = Writer::new(format, &stream.schema(), max)?;
    let mut rows = Bounded::new(stream, turn.limits, turn.end);
    while let Some(batch) = rows.next().await? {
        // Before it is written: a batch of a few rows can be as long as memory.
        if least_bytes(batch.columns(), max) > max {
            return Err(too_many_bytes(max));
        }
        writer.write(&batch)?;
        reserved.try_resize(writer.len()).map_err(of_engine)?;
        tokio::task::yield_now().await;
    }
    let (bytes, rows) = writer.finish()?;
    let size = Size { rows, bytes: bytes.len() as u64 };
    Ok((Answer { bytes: Bytes::from(bytes), rows, reserved }, size))
}

/// Writes the batches of an answer in one of the formats.
struct Writer {
    /// Columns, for the object around JSON rows.
    head: Option<Vec<u8>>,
    kind: WriterKind,
}

enum WriterKind {
    Text { rows: Rows, sink: Sink },
    Arrow { stream: Box<arrow_ipc::writer::StreamWriter<Sink>>, rows: u64 },
}

impl Writer {
    fn new(format: AnswerFormat, schema: &arrow::datatypes::SchemaRef, max: u64) -> Result<Self> {
        let text = match format {
            AnswerFormat::Arrow => {
                let stream = arrow_ipc::writer::StreamWriter::try_new(Sink::new(max), schema)?;
                let stream = Box::new(stream);
                return Ok(Self { head: None, kind: WriterKind::Arrow { stream, rows: 0 } });
            }
            AnswerFormat::Json => Format::Json,
            AnswerFormat::Ndjson => Format::Ndjson,
            AnswerFormat::Csv => Format::Csv,
        };
        let columns: Vec<_> = crate::output::distinct_names(schema)
            .fields()
            .iter()
            .map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() }))
            .collect();
        let head = (format == AnswerFormat::Json)
            .then(|| format!("{{\"columns\":{},\"rows\":", json!(columns)).into_bytes());
        let rows = Rows::new(text, None, schema);
        Ok(Self { head, kind: WriterKind::Text { rows, sink: Sink::new(max) } })
    }

    fn len(&self) -> usize {
        match &self.kind {
            WriterKind::Text { sink, .. } => sink.len(),
            WriterKind::Arrow { stream, .. } => stream.get_ref().len(),
        }
    }

    fn write(&mut self, batch: &arrow::record_batch::RecordBatch) -> Result<()> {
        match &mut self.kind {
            WriterKind::Text { rows, sink } => {
                let written = rows.write(batch, sink).map(drop);
                sink.checked(written)
            }
            WriterKind::Arrow { stream, rows } => {
                *rows += batch.num_rows() as u64;
                let written = stream.write(batch).map_err(Error::from);
                stream.get_ref().checked(written)
            }
        }
    }

    fn finish(self) -> Result<(Vec<u8>, u64)> {
        match self.kind {
            WriterKind::Text { rows, mut sink } => {
                let n = rows.finish(&mut sink);
                let n = sink.checked(n)?;
                let bytes = match self.head {
                    None => sink.into_bytes(),
                    Some(mut whole) => {
                        whole.extend(sink.into_bytes());
                        whole.extend(format!(",\"n_rows\":{n}}}\n").into_bytes());
                        whole
                    }
                };
                Ok((bytes, n))
            }
            WriterKind::Arrow { mut stream, rows } => {
                let finished = stream.finish().map_err(Error::from);
                stream.get_ref().checked(finished)?;
                Ok((stream.into_inner()?.into_bytes(), rows))
            }
        }
    }
}

/// The answer to a question that has none.
pub(super) fn refuse(error: &Error) -> Response {
    let code = code(error);
    let status = match code {
        "refused" => StatusCode::FORBIDDEN,
        "queue" => StatusCode::TOO_MANY_REQUESTS,
        "statement" | "memory" | "time" | "rows" | "bytes" => StatusCode::UNPROCESSABLE_ENTITY,
        "internal" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let text = error.to_string();
    let (message, hint) = match text.split_once("\nhint: ") {
        Some((message, hint)) => (message, Some(hint)),
        None => (text.as_str(), None),
    };
    if status.is_server_error() {
        tracing::error!(message, "could not answer");
    }
    let mut response = problem(status, code, message, hint);
    if status == StatusCode::TOO_MANY_REQUESTS {
        let seconds = axum::http::HeaderValue::from_static(RETRY_SECONDS);
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

/// An error as every route gives it.
pub(super) fn problem(
    status: StatusCode,
    code: &str,
    message: &str,
    hint: Option<&str>,
) -> Response {
    let body = json!({ "error": { "code": code, "message": message, "hint": hint } });
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// How long a stopping server waits for the questions that run.
pub(super) fn patience(limits: crate::limit::QuestionLimits) -> Duration {
    limits.time + Duration::from_secs(1)
}
