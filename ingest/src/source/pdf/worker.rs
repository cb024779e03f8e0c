//! The process that PDFium runs in, from both sides: it reads requests as lines of JSON and answers with lines of JSON.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pdfium_render::prelude::{
    PdfDocument, PdfDocumentMetadataTagType, PdfPage, Pdfium, PdfiumError, PdfiumInternalError,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Names the library where the job does not.
const LIBRARY: &str = "GRISTMILL_PDFIUM";
/// How often memory and time of a process are looked at.
const LOOK_MS: u64 = 20;
/// Bytes of a page of memory, as `/proc` counts.
const MEMORY_PAGE: u64 = 4096;

/// A file to read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) path: PathBuf,
    pub(super) pages_max: u32,
    pub(super) seconds_max: u64,
    pub(super) memory_max: u64,
}

/// What a line of an answer says.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Page(Page),
    Done(About),
    Refused(String),
    /// The process cannot work at all.
    Unusable(String),
}

/// The lines of a page, in the order in which the file draws them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) width: f32,
    pub(super) height: f32,
    pub(super) lines: Vec<Line>,
}

/// A run of text on one base line; points, from the lower left corner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) left: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
    pub(super) top: f32,
}

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) pages: usize,
    pub(super) title: Option<String>,
    pub(super) author: Option<String>,
    pub(super) producer: Option<String>,
    pub(super) date: Option<String>,
}

pub(super) enum Answer {
    Pages(Vec<Page>, About),
    Refused(String),
}

/// Processes that wait for the next file.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    library: String,
    idle: Arc<Mutex<Vec<Worker>>>,
}

impl Pool {
    pub(super) fn new(library: &str) -> Self {
        Self { library: library.to_owned(), idle: Arc::default() }
    }

    /// Has a file read, within its limits.
    ///
    /// # Errors
    /// When no process can be started, or it finds no PDFium.
    pub(super) fn ask(&self, request: &Request) -> Result<Answer> {
        let idle = self.idle.lock().expect("nobody panics with the lock").pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => Worker::start(&self.library)?,
        };
        let (answer, is_alive) = worker.ask(request)?;
        if is_alive {
            self.idle.lock().expect("nobody panics with the lock").push(worker);
        }
        Ok(answer)
    }
}

#[derive(Debug)]
struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// What runs [`serve`]: this program, with the verb that its command line has for it.
#[cfg(not(test))]
fn command() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("pdf-worker");
    Ok(command)
}

/// What runs [`serve`]: a test of this very program that does.
#[cfg(test)]
fn command() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "source::pdf::tests::serves_as_the_worker", "--nocapture"]);
    command.env("GRISTMILL_PDF_WORKER_TEST", "1");
    Ok(command)
}

impl Worker {
    fn start(library: &str) -> Result<Self> {
        let start = || -> io::Result<Self> {
            let mut command = command()?;
            if !library.is_empty() {
                command.env(LIBRARY, library);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn()?;
            let (input, output) = (child.stdin.take(), child.stdout.take());
            let (input, output) = input.zip(output).expect("both are pipes");
            let (sender, lines) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
            Ok(Self { child, input, lines })
        };
        start().map_err(Error::io("start a process of", Path::new("gristmill pdf-worker")))
    }

    /// Returns the answer, and whether the process can be asked again.
    fn ask(&mut self, request: &Request) -> Result<(Answer, bool)> {
        let refused = |reason: &str| Ok((Answer::Refused(reason.to_owned()), false));
        let line = serde_json::to_string(request).expect("a path and numbers");
        // A process that is gone is told by its silence below.
        drop(writeln!(self.input, "{line}").and_then(|()| self.input.flush()));
        let deadline = Instant::now() + Duration::from_secs(request.seconds_max);
        let mut pages = Vec::new();
        loop {
            let line = match self.lines.recv_timeout(Duration::from_millis(LOOK_MS)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return refused("reader_crashed"),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return refused("too_slow");
                }
                Err(RecvTimeoutError::Timeout) if self.memory() > request.memory_max => {
                    return refused("too_much_memory");
                }
                Err(RecvTimeoutError::Timeout) => continue,
            };
            // Whatever else the program prints is not for us.
            let Ok(reply) = serde_json::from_str::<Reply>(&line) else { continue };
            match reply {
                Reply::Page(page) => pages.push(page),
                Reply::Done(about) => return Ok((Answer::Pages(pages, about), true)),
                Reply::Refused(reason) => return Ok((Answer::Refused(reason), true)),
                Reply::Unusable(why) => {
                    return Err(Error::Config { name: "pdf".to_owned(), message: why });
                }
            }
        }
    }

    /// Bytes of memory that the process takes, 0 where the system does not say.
    fn memory(&self) -> u64 {
        let read = fs::read_to_string(format!("/proc/{}/statm", self.child.id()));
        let pages = read.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * MEMORY_PAGE
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads requests from standard input and answers on standard output until the input ends: the process that PDF files are read in.
///
/// # Errors
/// When standard output is closed.
pub fn serve() -> io::Result<()> {
    let mut output = io::stdout().lock();
    // Whatever stands on this line is not ours.
    writeln!(output)?;
    let pdfium = library();
    for line in io::stdin().lock().lines() {
        let Ok(request) = serde_json::from_str::<Request>(&line?) else { continue };
        let mut reply = |reply: &Reply| -> io::Result<()> {
            writeln!(output, "{}", serde_json::to_string(reply).expect("text and numbers"))?;
            output.flush()
        };
        let pdfium = match &pdfium {
            Ok(pdfium) => pdfium,
            Err(why) => {
                reply(&Reply::Unusable(why.clone()))?;
                continue;
            }
        };
        // Whoever asked may be gone: nobody would end a file that takes for ever.
        let (done, watch) = mpsc::channel::<()>();
        let limit = Duration::from_secs(request.seconds_max + 5);
        thread::spawn(move || {
            if watch.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                std::process::abort();
            }
        });
        match read(pdfium, &request, &mut reply)? {
            Ok(about) => reply(&Reply::Done(about))?,
            Err(reason) => reply(&Reply::Refused(reason.to_owned()))?,
        }
        drop(done);
    }
    Ok(())
}

/// Loads PDFium, or says where it was looked for.
fn library() -> std::result::Result<Pdfium, String> {
    let name = Pdfium::pdfium_platform_library_name();
    let named = std::env::var_os(LIBRARY).map(PathBuf::from);
    let is_named = named.is_some();
    let beside =
        std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(&name)));
    let candidates: Vec<PathBuf> = match named {
        Some(path) => vec![path],
        None => beside.into_iter().filter(|path| path.is_file()).collect(),
    };
    let mut tried = Vec::new();
    for path in candidates {
        match Pdfium::bind_to_library(&path) {
            Ok(bindings) => return Ok(Pdfium::new(bindings)),
            Err(error) => tried.push(format!("`{}`: {error}", path.display())),
        }
    }
    if !is_named {
        match Pdfium::bind_to_system_library() {
            Ok(bindings) => return Ok(Pdfium::new(bindings)),
            Err(error) => tried.push(format!("the system's `{}`: {error}", name.to_string_lossy())),
        }
    }
    Err(format!(
        "PDF files are read by PDFium, which cannot be loaded ({})\nhint: `scripts/setup-pdfium.sh` fetches it; or set `library` of the source, or {LIBRARY}, to the path of `{}`",
        tried.join("; "),
        name.to_string_lossy()
    ))
}

type Send<'a> = dyn FnMut(&Reply) -> io::Result<()> + 'a;

fn read(
    pdfium: &Pdfium,
    request: &Request,
    reply: &mut Send<'_>,
) -> io::Result<std::result::Result<About, &'static str>> {
    let Ok(bytes) = fs::read(&request.path) else { return Ok(Err("unreadable")) };
    #[cfg(test)]
    tests::misbehave(&bytes);
    let document = match pdfium.load_pdf_from_byte_slice(&bytes, None) {
        Ok(document) => document,
        Err(PdfiumError::PdfiumLibraryInternalError(
            PdfiumInternalError::PasswordError | PdfiumInternalError::SecurityError,
        )) => return Ok(Err("encrypted")),
        Err(_) => return Ok(Err("bad_pdf")),
    };
    let n_pages = usize::try_from(document.pages().len()).unwrap_or(0);
    if n_pages > request.pages_max as usize {
        return Ok(Err("too_many_pages"));
    }
    let mut n_bad = 0;
    for index in 0..document.pages().len() {
        // A page that cannot be read is not the end of the others.
        let Ok(page) = document.pages().get(index) else {
            n_bad += 1;
            continue;
        };
        reply(&Reply::Page(lines(&page)))?;
    }
    Ok(if n_bad > 0 && n_bad == n_pages { Err("bad_pdf") } else { Ok(about(&document, n_pages)) })
}

fn about(document: &PdfDocument<'_>, pages: usize) -> About {
    let value = |tag| {
        let value = document.metadata().get(tag)?.value().trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    About {
        pages,
        title: value(PdfDocumentMetadataTagType::Title),
        author: value(PdfDocumentMetadataTagType::Author),
        producer: value(PdfDocumentMetadataTagType::Producer),
        date: value(PdfDocumentMetadataTagType::CreationDate),
    }
}

/// Cuts the letters of a page into lines: where PDFium puts a line break, and at gaps wider than a word's.
fn lines(page: &PdfPage<'_>) -> Page {
    /// Height of a letter that a gap within a line has at most: justified text stretches spaces to one and a half.
    const GAP: f32 = 1.8;
    let (width, height) = (page.width().value, page.height().value);
    let mut found = Page { width, height, lines: Vec::new() };
    let Ok(text) = page.text() else { return found };
    let mut line = Line::default();
    let mut end = |line: &mut Line| {
        let mut line = std::mem::take(line);
        line.text.truncate(line.text.trim_end().len());
        if !line.text.is_empty() {
            found.lines.push(line);
        }
    };
    for letter in text.chars().iter() {
        let Some(unicode) = letter.unicode_char() else { continue };
        if matches!(unicode, '\r' | '\n') {
            end(&mut line);
            continue;
        }
        // PDFium's mark of a hyphen at the end of a line.
        let unicode = if matches!(unicode, '\u{2}' | '\u{fffe}') { '-' } else { unicode };
        if unicode.is_control() {
            continue;
        }
        let bounds = letter.loose_bounds().ok();
        let bounds =
            bounds.map(|b| (b.left().value, b.right().value, b.bottom().value, b.top().value));
        let Some((left, right, bottom, top)) = bounds.filter(|b| b.1 > b.0) else {
            // A space that PDFium put in has no place.
            if unicode == ' ' && !line.text.is_empty() {
                line.text.push(' ');
            }
            continue;
        };
        let is_far = left - line.right > GAP * (line.top - line.bottom);
        // Behind a hyphen PDFium goes on in the next line.
        let overlap = top.min(line.top) - bottom.max(line.bottom);
        let is_below = unicode != ' ' && overlap < 0.3 * (top - bottom);
        if !line.text.is_empty() && (is_far || is_below) {
            end(&mut line);
        }
        if line.text.is_empty() {
            if unicode == ' ' {
                continue;
            }
            line = Line { text: String::new(), left, right, bottom, top };
        } else if unicode != ' ' {
            line.left = line.left.min(left);
            line.right = line.right.max(right);
            line.bottom = line.bottom.min(bottom);
            line.top = line.top.max(top);
        }
        line.text.push(unicode);
    }
    end(&mut line);
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Answer, Pool, Request};

    /// Does what a file may make a reader do.
    pub(super) fn misbehave(bytes: &[u8]) {
        match bytes {
            b"%PDF crash" => std::process::abort(),
            b"%PDF hang" => std::thread::sleep(std::time::Duration::from_secs(60)),
            b"%PDF grow" => {
                let mut held = Vec::new();
                loop {
                    held.push(vec![1_u8; 16 << 20]);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            _ => {}
        }
    }

    fn refusal(pool: &Pool, folder: &Path, bytes: &[u8]) -> String {
        let path = folder.join("a.pdf");
        fs::write(&path, bytes).unwrap();
        let seconds_max = if bytes == b"%PDF hang" { 1 } else { 50 };
        let request = Request { path, pages_max: 10, seconds_max, memory_max: 512 << 20 };
        match pool.ask(&request).unwrap() {
            Answer::Refused(reason) => reason,
            Answer::Pages(pages, _) => panic!("{} pages", pages.len()),
        }
    }

    #[test]
    fn a_file_that_ends_its_reader_costs_that_file_only() {
        if std::env::var_os(super::LIBRARY).is_none() {
            eprintln!(
                "skipped: no PDFium, run `scripts/setup-pdfium.sh` and set {}",
                super::LIBRARY
            );
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::new("");
        for (bytes, reason) in [
            ("%PDF crash", "reader_crashed"),
            ("no PDF", "bad_pdf"),
            ("%PDF hang", "too_slow"),
            ("%PDF grow", "too_much_memory"),
            ("no PDF", "bad_pdf"),
        ] {
            assert_eq!(refusal(&pool, folder.path(), bytes.as_bytes()), reason, "{bytes}");
        }
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
    }
}
