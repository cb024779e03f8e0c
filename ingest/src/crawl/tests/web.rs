//! A web on one machine: any number of hosts behind one server, with names and a clock of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::super::environment::{Clock, Environment, Names};
use super::super::worker;
use super::{CancelFlag, CrawlConfig, CrawlSummary};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) host: String,
    pub(super) path: String,
    /// How often this path of this host was asked for before.
    pub(super) n_before: usize,
    /// On the crawl's clock, since the web was made.
    pub(super) at: Duration,
}

/// What is sent for a request.
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    /// Whether the connection then ends.
    pub(super) is_last: bool,
}

impl From<String> for Reply {
    fn from(answer: String) -> Self {
        Self { bytes: answer.into_bytes(), is_last: false }
    }
}

type Respond = dyn Fn(&Request) -> Reply + Send + Sync;

#[derive(Clone)]
pub(super) struct Web {
    pub(super) environment: Environment,
    seen: Arc<Mutex<Vec<Request>>>,
    started: Instant,
    respond: Arc<Respond>,
    /// By host, registered domain and `all`: how many requests are open, and were at most.
    open: Arc<Mutex<BTreeMap<String, (usize, usize)>>>,
}

impl Web {
    /// Every name leads to this machine, and time runs ahead while no request is open.
    pub(super) fn new(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let clock = Clock::Simulated(Arc::new(AtomicU64::new(0)));
        let names = Names::Fixed(Arc::new(|_| vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]));
        Self {
            started: clock.now(),
            environment: Environment { clock, names },
            seen: Arc::default(),
            respond: Arc::new(respond),
            open: Arc::default(),
        }
    }

    /// Serves on a port of its own.
    pub(super) fn listen(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let web = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let web = web.clone();
                thread::spawn(move || web.answer(stream.unwrap()));
            }
        });
        port
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(request)) = lines.next() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let mut host = String::new();
            for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                if let Some(value) = line.strip_prefix("host: ") {
                    value.split(':').next().unwrap().clone_into(&mut host);
                }
            }
            let request = self.see(host, path);
            let keys = Self::keys(&request.host);
            for key in &keys {
                let mut open = self.open.lock().unwrap();
                let (n, most) = open.entry(key.clone()).or_default();
                *n += 1;
                *most = (*most).max(*n);
            }
            let reply = (self.respond)(&request);
            // The answer may be read, and the next request be on its way, before this thread goes on.
            for key in &keys {
                self.open.lock().unwrap().get_mut(key).unwrap().0 -= 1;
            }
            if stream.write_all(&reply.bytes).is_err() || reply.is_last {
                return;
            }
        }
    }

    fn see(&self, host: String, path: String) -> Request {
        let mut seen = self.seen.lock().unwrap();
        let at = self.environment.clock.now() - self.started;
        let is_same = |other: &&Request| other.host == host && other.path == path;
        let n_before = seen.iter().filter(is_same).count();
        let request = Request { host, path, n_before, at };
        seen.push(request.clone());
        request
    }

    /// What counts open requests to `host` together.
    fn keys(host: &str) -> BTreeSet<String> {
        [host, worker::registered_domain(host), "all"].map(str::to_owned).into()
    }

    /// Crawls this web.
    pub(super) fn crawl(&self, config: &CrawlConfig) -> CrawlSummary {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let stop = CancelFlag::new();
        let done = worker::crawl(config, &self.environment, |_| {}, &stop);
        runtime.unwrap().block_on(done).unwrap()
    }

    /// What was asked for so far, host by host, in order.
    pub(super) fn seen(&self) -> BTreeMap<String, Vec<Request>> {
        let mut hosts = BTreeMap::<String, Vec<Request>>::new();
        for request in self.seen.lock().unwrap().iter() {
            hosts.entry(request.host.clone()).or_default().push(request.clone());
        }
        hosts
    }

    /// How many requests to a host, a registered domain or `all` were open at a time, at most.
    pub(super) fn open_max(&self, key: &str) -> usize {
        self.open.lock().unwrap()[key].1
    }
}
