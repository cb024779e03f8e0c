//! A worker as its coordinator reaches it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use super::wire::{About, Line, SILENCE, UnitRequest};
use crate::stage::unit::StagedFile;

/// Time to reach a worker.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a worker did not do what it was asked for.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// It cannot be reached, or stopped in the middle: it is asked again later.
    Lost(String),
    /// It will not, however often it is asked.
    Refused(String),
    /// It does not know the stage: it was started anew.
    Forgotten,
    /// It tried, and could not.
    Failed(String),
}

/// A worker.
pub(super) struct Remote {
    pub(super) url: Url,
    pub(super) tls: Option<TlsConnector>,
    pub(super) token: Option<String>,
}

impl Remote {
    /// What the worker is.
    pub(super) async fn about(&self) -> Result<About, Trouble> {
        let answer = self.ask("GET", "/v1/worker", Bytes::new()).await?;
        let bytes = timeout(SILENCE, answer.into_body().collect()).await;
        let bytes = bytes.map_err(|_| silent())?.map_err(|error| lost(&error))?.to_bytes();
        serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::Refused(format!("it is no worker: {error}")))
    }

    /// Makes the worker ready for the units of a stage.
    pub(super) async fn open(&self, stage: &str, body: Bytes) -> Result<(), Trouble> {
        let answer = self.ask("PUT", &format!("/v1/stages/{stage}"), body).await?;
        last_line(answer).await.map(drop)
    }

    /// Runs a unit; returns its output and files.
    pub(super) async fn run(
        &self,
        stage: &str,
        index: usize,
        unit: Value,
    ) -> Result<(Value, Vec<StagedFile>), Trouble> {
        let body = json!(UnitRequest { index, unit }).to_string();
        let answer = self.ask("POST", &format!("/v1/stages/{stage}/units"), body.into()).await?;
        last_line(answer).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Trouble> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, format!("{host}:{port}"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| lost(&error))?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let reached = timeout(CONNECT, TcpStream::connect((name, port))).await;
        let stream = reached.map_err(|_| silent())?.map_err(|error| lost(&error))?;
        stream.set_nodelay(true).map_err(|error| lost(&error))?;
        let answer = match &self.tls {
            None => {
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
                tokio::spawn(connection);
                timeout(SILENCE, sender.send_request(request)).await
            }
            Some(tls) => {
                let server = ServerName::try_from(name.to_owned()).map_err(|error| lost(&error))?;
                let agreed = timeout(CONNECT, tls.connect(server, stream)).await;
                // Keys that do not fit will not fit later.
                let refused = |error: std::io::Error| match error.kind() {
                    std::io::ErrorKind::InvalidData => Trouble::Refused(error.to_string()),
                    _ => lost(&error),
                };
                let stream = agreed.map_err(|_| silent())?.map_err(refused)?;
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
                tokio::spawn(connection);
                timeout(SILENCE, sender.send_request(request)).await
            }
        };
        let answer = answer.map_err(|_| silent())?.map_err(|error| lost(&error))?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => Err(Trouble::Forgotten),
            status => {
                let said = answer.into_body().collect().await.map_err(|error| lost(&error))?;
                let said = String::from_utf8_lossy(&said.to_bytes()).trim().to_owned();
                Err(match status.is_client_error() {
                    true => Trouble::Refused(format!("{said} ({status})")),
                    false => Trouble::Lost(format!("{said} ({status})")),
                })
            }
        }
    }
}

/// Reads an answer to its end.
async fn last_line(answer: Response<Incoming>) -> Result<(Value, Vec<StagedFile>), Trouble> {
    let mut body = answer.into_body();
    let mut text = Vec::new();
    loop {
        let frame = timeout(SILENCE, body.frame()).await.map_err(|_| silent())?;
        match frame {
            Some(frame) => {
                let frame = frame.map_err(|error| lost(&error))?;
                text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            }
            None => return Err(Trouble::Lost("its answer ended in the middle".to_owned())),
        }
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Line::Working) => {}
                Ok(Line::Done { output, files }) => return Ok((output, files)),
                Ok(Line::Failed { message }) => return Err(Trouble::Failed(message)),
                Err(error) => return Err(lost(&error)),
            }
        }
    }
}

fn silent() -> Trouble {
    Trouble::Lost("it does not answer".to_owned())
}

fn lost(error: &dyn std::error::Error) -> Trouble {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        said = format!("{said}: {inner}");
        source = inner.source();
    }
    Trouble::Lost(said)
}
