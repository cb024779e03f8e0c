//! Lets requests in: by token, and on loopback without one by the name that they were sent to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

use super::tls::TlsListener;
use super::token::{self, Denied};
use super::{Server, dashboard, http};

/// The address of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Passes a request on with its [`Asker`](super::token::Asker), or says why not. Only `/healthz` asks nothing.
pub(super) async fn let_in(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>().copied() {
        request.extensions_mut().insert(peer);
    }
    let path = request.uri().path();
    if path == "/healthz" || (path == "/login" && !server.tokens.is_empty()) {
        return next.run(request).await;
    }
    if server.tokens.is_empty() && !is_own_name(&server, &request) {
        // A page of another site whose name was made to lead here.
        return http::problem(
            StatusCode::FORBIDDEN,
            "refused",
            "this server answers to its own address only",
            Some("use http://127.0.0.1, or start it with a token"),
        );
    }
    match server.tokens.asker(request.headers()) {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(denied) => {
            server.service.meter.denied();
            deny(&request, denied)
        }
    }
}

/// Whether the request names an address, `localhost`, or nothing.
fn is_own_name(server: &Server, request: &Request) -> bool {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let Some(host) = request.uri().authority().map(|it| it.as_str()).or(header) else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = name.parse().ok();
    name == "localhost" || address.is_some_and(|it| it.is_loopback() || it == server.address.ip())
}

fn deny(request: &Request, denied: Denied) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    if content_type.unwrap_or_default().starts_with("application/grpc") {
        return tonic::Status::unauthenticated(denied.message()).into_http();
    }
    if dashboard::is_page(request) {
        return dashboard::login_page((denied != Denied::Missing).then(|| denied.message()));
    }
    let mut response =
        http::problem(StatusCode::UNAUTHORIZED, "unauthorized", denied.message(), None);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
    response
}

/// `POST /login` of the dashboard's form: leaves the token in a cookie that no script can read.
pub(super) async fn login(State(server): State<Arc<Server>>, body: Bytes) -> Response {
    let sent = url::form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    let token = sent.map(|(_, token)| token.trim().to_owned()).unwrap_or_default();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let headers =
        HeaderMap::from_iter(bearer.ok().map(|it| (axum::http::header::AUTHORIZATION, it)));
    match server.tokens.asker(&headers) {
        Err(denied) => {
            server.service.meter.denied();
            dashboard::login_page(Some(denied.message()))
        }
        Ok(_) => match token::cookie(&token, server.is_secure) {
            None => dashboard::login_page(Some("this token cannot be kept in a cookie")),
            Some(cookie) => {
                let home = HeaderValue::from_static("/");
                (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, home)]).into_response()
            }
        },
    }
}
