//! Crawls over TLS, where the server chooses between HTTP/2 and HTTP/1.1.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{config, crawl, documents, page, site};
use crate::crawl::CrawlConfig;

type Respond = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A server on loopback whose certificate only `certificates` vouches for.
struct Served {
    url: String,
    folder: tempfile::TempDir,
    certificates: PathBuf,
    n_connections: Arc<AtomicUsize>,
    /// Serves as long as this is there.
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(
        protocol: &'static str,
        respond: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let folder = tempfile::tempdir().unwrap();
        let certificates = folder.path().join("own.pem");
        std::fs::write(&certificates, own.cert.pem()).unwrap();

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let n_connections = Arc::<AtomicUsize>::default();
        let (seen, respond, acceptor) = (
            Arc::clone(&n_connections),
            Arc::new(respond) as Respond,
            TlsAcceptor::from(Arc::new(tls)),
        );
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(answer(acceptor.clone(), stream, protocol, Arc::clone(&respond)));
            }
        });
        Self { url, folder, certificates, n_connections, _runtime: runtime }
    }

    fn config(&self) -> CrawlConfig {
        let config = config(&self.url, &self.folder.path().join("raw"));
        CrawlConfig { certificates: Some(self.certificates.clone()), per_host: 4, ..config }
    }
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, protocol: &str, respond: Respond) {
    // The other side may not trust this one.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    if protocol == "http/1.1" {
        return answer_http1(stream, &respond).await;
    }
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut to))) = connection.accept().await {
        let text = respond(request.uri().path());
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = http::Response::builder().status(status);
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            response = response.header(name, value);
        }
        let mut stream = to.send_response(response.body(()).unwrap(), false).unwrap();
        // One that the client had enough of is closed.
        drop(stream.send_data(body.to_owned().into(), true));
    }
}

async fn answer_http1(stream: TlsStream<TcpStream>, respond: &Respond) {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    let mut path = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
        if let Some(target) = line.strip_prefix("GET ") {
            target.split(' ').next().unwrap().clone_into(&mut path);
        }
        if line == "\r\n" {
            stream.write_all(respond(&path).as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        line.clear();
    }
}

/// The records of the first segment of a crawl, inflated.
fn segment(summary: &super::CrawlSummary) -> String {
    let mut text = Vec::new();
    let file = std::fs::File::open(&summary.segments[0]).unwrap();
    let mut inflated = flate2::read::MultiGzDecoder::new(file);
    std::io::Read::read_to_end(&mut inflated, &mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_server_chooses_its_protocol_and_the_archive_says_which() {
    for (protocol, field) in [("h2", "WARC-Protocol: h2\r\n"), ("http/1.1", "")] {
        let served = Served::new(protocol, site(30));
        let summary = crawl(&served.config());
        assert!(summary.is_complete);
        assert_eq!(summary.progress.fetched, 31, "{protocol}");
        assert_eq!(documents(&summary).len(), 31, "{protocol}");
        let text = segment(&summary);
        let n_responses = text.matches("WARC-Type: response\r\n").count();
        assert_eq!(text.matches("\r\nHTTP/1.1 ").count(), n_responses, "{protocol}");
        let n_fields = text.matches("WARC-Protocol").count();
        assert_eq!(n_fields, if field.is_empty() { 0 } else { n_responses }, "{protocol}");
        if protocol == "h2" {
            assert!(text.contains(field));
            // Requests share it.
            assert_eq!(served.n_connections.load(Ordering::SeqCst), 1);
        }
    }
}

#[test]
fn a_body_that_is_too_long_is_cut_and_its_stream_closed() {
    let long = "x".repeat(300_000);
    let served = Served::new("h2", move |path| match path {
        "/" => page("<a href=/long>l</a><a href=/short>s</a>"),
        "/long" => page(&long),
        "/short" => page("short"),
        _ => super::empty("404 Not Found", ""),
    });
    let summary = crawl(&CrawlConfig { max_body_bytes: 1000, per_host: 1, ..served.config() });
    assert_eq!(summary.progress.fetched, 3);
    assert_eq!(segment(&summary).matches("WARC-Truncated: length\r\n").count(), 1);
    assert_eq!(served.n_connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_certificate_that_nobody_vouches_for_gives_no_page() {
    let served = Served::new("h2", site(3));
    let summary = crawl(&CrawlConfig { certificates: None, max_tries: 1, ..served.config() });
    assert_eq!(summary.progress.fetched, 0);
    assert_eq!(summary.progress.errors.values().sum::<u64>(), 1, "{:?}", summary.progress.errors);
}

#[test]
fn a_file_without_a_certificate_is_refused_by_name() {
    let served = Served::new("h2", site(3));
    let path = served.folder.path().join("empty.pem");
    std::fs::write(&path, "no certificate").unwrap();
    let config = CrawlConfig { certificates: Some(path.clone()), ..served.config() };
    let error = crate::crawl::run(&config, |_| {}, super::CancelFlag::new()).unwrap_err();
    let expected = format!("`{}` has no certificate in PEM", path.display());
    assert!(error.to_string().contains(&expected), "{error}");
}
