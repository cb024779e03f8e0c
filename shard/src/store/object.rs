//! Objects of a store, for callers that wait: a thread of its own does the waiting for the network.
//!
//! A place in a store is a path that begins with the store's scheme: `s3://bucket/prefix/key`. Credentials, region and
//! endpoint come from the environment, as the store's own tools read them; none of them is kept or printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig,
};
use tokio::runtime::{Handle, Runtime};

use crate::{Error, Result};

/// How places in a store begin.
const SCHEMES: [&str; 9] =
    ["s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://", "http://", "https://", MEMORY];
/// A store of this process alone, for tests.
const MEMORY: &str = "memory://";
/// Tries of one request, the first one not counted.
const RETRIES_MAX: usize = 6;
/// How long a request is tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The first pause between two tries; later ones are up to three times as long, at most [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// Tries of a conditional write whose outcome is not known.
const CREATE_TRIES_MAX: u32 = 5;
/// Bytes of one request for a part of an object, and of one part of an upload.
const PART_BYTES: u64 = 8 << 20;
/// Parts that are on their way at once.
const PARTS_AHEAD: usize = 4;

/// Whether `path` is in an object store.
pub(super) fn is_object(path: &Path) -> bool {
    path.to_str().is_some_and(|text| SCHEMES.iter().any(|scheme| text.starts_with(scheme)))
}

/// An object, or what the names of several begin with.
#[derive(Clone, Debug)]
pub(super) struct Object {
    client: Arc<dyn ObjectStore>,
    handle: Handle,
    /// `s3://bucket`.
    root: String,
    key: Key,
}

impl Object {
    /// Names the object at `path`, `None` where that is a file; nothing is asked of the store.
    pub(super) fn at(path: &Path) -> Result<Option<Self>> {
        if !is_object(path) {
            return Ok(None);
        }
        let text = path.to_str().unwrap_or_default();
        let (root, key) = split(text);
        let key = Key::parse(&key).map_err(|error| Error::Store {
            action: "use",
            url: text.to_owned(),
            why: error.to_string(),
            hint: "write it as `s3://bucket/folder/name`",
        })?;
        let (client, handle) = client(&root)?;
        Ok(Some(Self { client, handle, root, key }))
    }

    /// `s3://bucket/key`.
    pub(super) fn url(&self) -> String {
        format!("{}/{}", self.root, self.key)
    }

    /// The bucket and the client that reaches it, for engines that read by themselves.
    pub(super) fn root(&self) -> (String, Arc<dyn ObjectStore>) {
        (self.root.clone(), Arc::clone(&self.client))
    }

    /// The key inside the bucket.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Reads all of it; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let read = self.wait(async move { client.get(&key).await?.bytes().await });
        self.found("read", read.map(|bytes| bytes.to_vec()))
    }

    /// Reads the bytes of `range`.
    pub(super) fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>> {
        answer(&self.ask(range)).map_err(|error| self.failed("read", error))
    }

    /// Its size and what tells its content from others'; `None` where there is none.
    pub(super) fn head(&self) -> Result<Option<ObjectMeta>> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let head = self.wait(async move { client.head(&key).await });
        self.found("look at", head)
    }

    /// Reads its `bytes` bytes in order, several parts ahead, and hands them to `take`.
    pub(super) fn stream(
        &self,
        bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut ranges = (0..bytes.div_ceil(PART_BYTES))
            .map(|part| part * PART_BYTES..bytes.min((part + 1) * PART_BYTES));
        let mut coming = std::collections::VecDeque::new();
        loop {
            while coming.len() < PARTS_AHEAD
                && let Some(range) = ranges.next()
            {
                coming.push_back((range.clone(), self.ask(range)));
            }
            let Some((range, part)) = coming.pop_front() else { return Ok(()) };
            let part = answer(&part).map_err(|error| self.failed("read", error))?;
            let wanted = range.end - range.start;
            if part.len() as u64 != wanted {
                return Err(Error::Corrupt {
                    what: format!("`{}`", self.url()),
                    why: format!("bytes {range:?} are {}, not {wanted}", part.len()),
                    hint: "it was replaced while it was read: try again".to_owned(),
                });
            }
            take(&part)?;
        }
    }

    /// Writes `bytes`, replacing what is there.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        self.check_writable("write")?;
        let (client, key, payload) =
            (Arc::clone(&self.client), self.key.clone(), PutPayload::from(bytes.to_vec()));
        let written = self.wait(async move { client.put(&key, payload).await });
        written.map(drop).map_err(|error| self.failed("write", error))
    }

    /// Writes `bytes` unless something is there; returns whether these bytes are there now.
    ///
    /// A connection may be lost after the store has taken the bytes, and the next try be told that they are there: so
    /// what is there is read and compared before another writer is blamed.
    pub(super) fn create(&self, bytes: &[u8]) -> Result<bool> {
        self.check_writable("create")?;
        let mut tries = 0;
        loop {
            let error = match self.create_once(bytes) {
                Ok(()) => return Ok(true),
                Err(error) => error,
            };
            tries += 1;
            match &error {
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::Generic { .. } => match self.read() {
                    Ok(Some(found)) => return Ok(found == bytes),
                    Ok(None) if tries < CREATE_TRIES_MAX => {
                        std::thread::sleep(BACKOFF * 2_u32.pow(tries - 1));
                    }
                    // Of two refusals, the first says what was wanted.
                    _ => return Err(self.failed("create", error)),
                },
                _ => return Err(self.failed("create", error)),
            }
        }
    }

    fn create_once(&self, bytes: &[u8]) -> object_store::Result<()> {
        let (client, key, payload) =
            (Arc::clone(&self.client), self.key.clone(), PutPayload::from(bytes.to_vec()));
        self.wait(
            async move { client.put_opts(&key, payload, PutMode::Create.into()).await.map(drop) },
        )
    }

    /// Asks once per bucket and process whether the store refuses to replace what [`Object::create`] finds.
    ///
    /// A store that ignores the condition would let two writers commit the same version.
    pub(super) fn check_conditional(&self) -> Result<()> {
        static CHECKED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);
        let checked = || CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
        if checked().contains(&self.root) {
            return Ok(());
        }
        self.check_writable("commit to")?;
        let first = self.create_once(b"first");
        if let Err(error) = first
            && !matches!(error, object_store::Error::AlreadyExists { .. })
        {
            return Err(self.failed("commit to", error));
        }
        let second = self.create_once(b"second");
        self.remove()?;
        match second {
            Err(object_store::Error::AlreadyExists { .. }) => {
                checked().insert(self.root.clone());
                Ok(())
            }
            Err(error) => Err(self.failed("commit to", error)),
            Ok(()) => Err(Error::Store {
                action: "commit to",
                url: self.root.clone(),
                why: "it replaces an object that `If-None-Match: *` asks it to keep".to_owned(),
                hint: "use a store with conditional writes: without them, a version of one writer could vanish",
            }),
        }
    }

    /// Writes the bytes of `file`, in parts where they are many.
    pub(super) fn upload(&self, file: &mut File, bytes: u64) -> Result<()> {
        self.check_writable("write")?;
        let unread = |error| Error::io("read", "the file to be uploaded")(error);
        let mut part = |n: u64| -> Result<Vec<u8>> {
            let mut part = vec![0; usize::try_from(n).expect("a part is in memory")];
            file.read_exact(&mut part).map_err(unread)?;
            Ok(part)
        };
        if bytes <= 2 * PART_BYTES {
            return self.write(&part(bytes)?);
        }
        let failed = |error| self.failed("write", error);
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let mut upload =
            self.wait(async move { client.put_multipart(&key).await }).map_err(failed)?;
        let mut sent = std::collections::VecDeque::new();
        let mut left = bytes;
        let outcome = loop {
            if left == 0 || sent.len() == PARTS_AHEAD {
                let Some(oldest) = sent.pop_front() else { break Ok(()) };
                if let Err(error) = answer(&oldest) {
                    break Err(failed(error));
                }
                continue;
            }
            let n = left.min(PART_BYTES);
            match part(n) {
                Ok(part) => sent.push_back(self.start(upload.put_part(PutPayload::from(part)))),
                Err(error) => break Err(error),
            }
            left -= n;
        };
        if let Err(error) = outcome {
            // What was sent is not an object yet; a store that cannot be told so forgets it by its own rules.
            drop(self.wait(async move { upload.abort().await }));
            return Err(error);
        }
        self.wait(async move { upload.complete().await }).map(drop).map_err(failed)
    }

    /// Removes it; one that is not there is as good.
    pub(super) fn remove(&self) -> Result<()> {
        self.check_writable("remove")?;
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let removed = self.wait(async move { client.delete(&key).await });
        self.found("remove", removed).map(drop)
    }

    /// Names right below it, sorted, with the sizes of objects; of folders, `None`.
    pub(super) fn list(&self) -> Result<Vec<(String, Option<u64>)>> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let listed = self.wait(async move { client.list_with_delimiter(Some(&key)).await });
        let listed = listed.map_err(|error| self.failed("list", error))?;
        let name = |key: &Key| key.filename().unwrap_or_default().to_owned();
        let folders = listed.common_prefixes.iter().map(|prefix| (name(prefix), None));
        let objects = listed.objects.iter().map(|it| (name(&it.location), Some(it.size)));
        let mut names: Vec<_> = folders.chain(objects).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Every object below it, at any depth, by its key relative to this one, sorted.
    pub(super) fn list_all(&self) -> Result<Vec<(String, u64)>> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let prefix = key.clone();
        let listed: object_store::Result<Vec<ObjectMeta>> =
            self.wait(async move { client.list(Some(&key)).try_collect().await });
        let listed = listed.map_err(|error| self.failed("list", error))?;
        let mut names: Vec<_> = listed
            .iter()
            .filter_map(|it| {
                let below: Vec<_> = it.location.prefix_match(&prefix)?.collect();
                let below: Vec<&str> = below.iter().map(AsRef::as_ref).collect();
                Some((below.join("/"), it.size))
            })
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn ask(&self, range: Range<u64>) -> Receiver<object_store::Result<Vec<u8>>> {
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        self.start(async move { Ok(client.get_range(&key, range).await?.to_vec()) })
    }

    /// Runs `future` on the thread of the network.
    fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Receiver<T> {
        let (sender, receiver) = sync_channel(1);
        self.handle.spawn(async move {
            // Nobody waits any more when the caller gave up after another part failed.
            drop(sender.send(future.await));
        });
        receiver
    }

    fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        answer(&self.start(future))
    }

    fn found<T>(&self, action: &'static str, result: object_store::Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ object_store::Error::NotFound { .. }) if !is_bucket_missing(&error) => {
                Ok(None)
            }
            Err(error) => Err(self.failed(action, error)),
        }
    }

    fn check_writable(&self, action: &'static str) -> Result<()> {
        match self.root.starts_with("http") {
            false => Ok(()),
            true => Err(Error::Store {
                action,
                url: self.url(),
                why: "`http` and `https` are read only".to_owned(),
                hint: "write to a folder, or to `s3://`, `gs://` or `az://`",
            }),
        }
    }

    fn failed(&self, action: &'static str, error: object_store::Error) -> Error {
        let why = one_line(&error);
        // Of a listing, the store's answer is known by its text alone.
        let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
        let hint = match &error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => CREDENTIALS,
            _ if says(&["NoSuchBucket"]) => "create the bucket, or check its name",
            _ if says(&["credential", "403 Forbidden", "401 Unauthorized"]) => CREDENTIALS,
            _ => {
                "check the endpoint and the network, then run again: what is finished is kept, no object is half written"
            }
        };
        Error::Store { action, url: self.url(), why, hint }
    }
}

const CREDENTIALS: &str = "set the store's variables: for `s3://` AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for another server than Amazon's";

/// The error and what is behind it, without the lines of an XML answer.
fn one_line(error: &object_store::Error) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_bucket_missing(error: &object_store::Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

fn answer<T>(receiver: &Receiver<T>) -> T {
    receiver.recv().expect("requests do not panic, and their thread does not end")
}

/// Splits `s3://bucket/a/./b/../c` into `s3://bucket` and `a/c`.
fn split(text: &str) -> (String, String) {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (host, key) = match text[start..].find('/') {
        Some(at) => text.split_at(start + at),
        None => (text, ""),
    };
    let mut parts = Vec::new();
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (host.to_owned(), parts.join("/"))
}

/// The thread of the network and the clients that use it, of one process: a fork has neither.
#[derive(Debug)]
struct Network {
    process: u32,
    /// Never dropped: its threads serve until the process ends.
    runtime: &'static Runtime,
    clients: BTreeMap<String, Arc<dyn ObjectStore>>,
}

static NETWORK: Mutex<Option<Network>> = Mutex::new(None);

fn client(root: &str) -> Result<(Arc<dyn ObjectStore>, Handle)> {
    let mut network = NETWORK.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if network.as_ref().is_none_or(|network| network.process != process) {
        *network = Some(Network::start(process)?);
    }
    let network = network.as_mut().expect("set above");
    let handle = network.runtime.handle().clone();
    if let Some(client) = network.clients.get(root) {
        return Ok((Arc::clone(client), handle));
    }
    let client = build(root, &handle).map_err(|error| Error::Store {
        action: "use",
        url: root.to_owned(),
        why: one_line(&error),
        hint: CREDENTIALS,
    })?;
    network.clients.insert(root.to_owned(), Arc::clone(&client));
    Ok((client, handle))
}

impl Network {
    fn start(process: u32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(Error::io("start", "the thread of object stores"))?;
        Ok(Self { process, runtime: Box::leak(Box::new(runtime)), clients: BTreeMap::new() })
    }
}

fn build(root: &str, handle: &Handle) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF, max_backoff: BACKOFF_MAX, base: 3.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    };
    let connector = SpawnedReqwestConnector::new(handle.clone());
    let url = format!("{root}/");
    let scheme = root.split_once("://").map_or("", |(scheme, _)| scheme);
    Ok(match scheme {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.with_http_connector(connector).build()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.with_http_connector(connector).build()?)
        }
        "az" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
            Arc::new(builder.with_http_connector(connector).build()?)
        }
        "memory" => Arc::new(object_store::memory::InMemory::new()),
        _ => {
            let options = ClientOptions::new().with_allow_http(true);
            let builder = HttpBuilder::new().with_url(url).with_retry(retry);
            let builder = builder.with_client_options(options);
            Arc::new(builder.with_http_connector(connector).build()?)
        }
    })
}

#[cfg(test)]
mod tests;
