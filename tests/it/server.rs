//! `gristmill serve sql`: what it refuses, what it stops, what it answers, and that it is still there afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::mill::Mill;

const JOB: &str = r#"
name = "served"
output = "corpus"
keep_text = true

[[source]]
kind = "jsonl"
path = "*.jsonl"

[[step]]
use = "length"
min_words = 3

[dedup]
methods = ["exact"]

[shard]
tokenizer = "train:bpe:300"
"#;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A corpus of `n` documents, every tenth a copy of the one before, and one that is too short.
fn corpus(n: usize) -> Mill {
    let mill = Mill::new();
    let mut lines = Vec::new();
    for number in 0..n {
        let text =
            format!("This is the text of page {} of {n}.", number - usize::from(number % 10 == 9));
        writeln!(lines, "{}", json!({ "text": text, "url": format!("http://a.test/{number}") }))
            .unwrap();
    }
    writeln!(lines, "{}", json!({ "text": "short", "url": "http://a.test/short" })).unwrap();
    mill.write("pages.jsonl", lines);
    mill.write("job.toml", JOB);
    mill.mill(&["--no-train"]);
    mill
}

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    fn start(mill: &Mill, arguments: &[&str]) -> Self {
        Self::start_with(mill, arguments, &[])
    }

    fn start_with(mill: &Mill, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let all = [&["serve", "sql", "--listen", "127.0.0.1:0", "--quiet"], arguments].concat();
        let mut command = mill.command(&all);
        command.envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").expect("it prints its address").to_owned();
        Self { child, address }
    }

    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// Asks with further header lines, each ending with a line end.
    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = if headers.contains("host:") {
            String::new()
        } else {
            format!("host: {}\r\n", self.address)
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses by the head may close before it has read the body.
        drop(stream.write_all(body));
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::read(&bytes)
    }

    fn ask(&self, sql: &str) -> Answer {
        self.request("POST", "/query", "content-type: text/plain\r\n", sql.as_bytes())
    }

    fn rows(&self, sql: &str) -> Value {
        let answer = self.ask(sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.json()["rows"].clone()
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    /// Waits at most a second until nothing runs.
    fn assert_idle(&self) {
        let end = Instant::now() + Duration::from_secs(1);
        while self.metric("gristmill_running") > 0 {
            assert!(Instant::now() < end, "{}", self.get("/metrics").text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn resident_bytes(&self) -> u64 {
        let pages = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head[9..12].parse().unwrap();
        let mut body = bytes[end + 4..].to_vec();
        if head.contains("transfer-encoding: chunked") {
            let mut rest = &body[..];
            let mut whole = Vec::new();
            loop {
                let line = rest.windows(2).position(|it| it == b"\r\n").unwrap();
                let n =
                    usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
                whole.extend(&rest[line + 2..line + 2 + n]);
                rest = &rest[line + 4 + n..];
                if n == 0 {
                    break;
                }
            }
            body = whole;
        }
        Self { status, head, body }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn hostile() -> Option<Vec<(String, String)>> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join("conformance/hostile/sql/hostile.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: there is no `{}`", path.display());
        return None;
    };
    let statements = text.lines().map(|line| {
        let read: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| read[key].as_str().unwrap().to_owned();
        (text("expect"), text("sql"))
    });
    Some(statements.collect())
}

#[test]
fn hostile_statements_change_nothing_and_end_nothing() {
    let Some(statements) = hostile() else { return };
    let mill = corpus(2000);
    let before = mill.files("corpus");
    let server = Server::start(&mill, &["corpus", "--max-seconds", "4"]);
    let limit = Duration::from_secs(5);
    let mut counts = std::collections::BTreeMap::new();
    let mut waits = Vec::new();
    for (expected, sql) in &statements {
        let shown = &sql[..sql.floor_char_boundary(80)];
        let start = Instant::now();
        let answer = thread::scope(|scope| {
            let asked = scope.spawn(|| server.ask(sql));
            while !asked.is_finished() {
                let start = Instant::now();
                assert_eq!(server.ask("select 1").status, 200);
                waits.push(start.elapsed());
                thread::sleep(Duration::from_millis(30));
            }
            asked.join().unwrap()
        });
        let took = start.elapsed();
        assert!(took < limit, "{shown}: {took:?}");
        match expected.as_str() {
            "refuse" => assert!((400..500).contains(&answer.status), "{shown}: {answer:?}"),
            "stopped_by_time_or_memory_limit_server_lives" => {
                println!("{:?} {} {shown}", took, answer.status);
                // A fast enough engine answers a few of them, and `string_agg` wants a literal between texts.
                assert!(matches!(answer.status, 200 | 400 | 422), "{shown}: {answer:?}");
            }
            _ => assert!(answer.status < 500, "{shown}: {answer:?}"),
        }
        *counts.entry(expected.clone()).or_insert(0) += 1;
        let resident = server.resident_bytes();
        assert!(resident < (512 + 256) << 20, "{shown}: {resident} bytes");
    }
    server.assert_idle();
    waits.sort();
    println!(
        "{counts:?}; select 1 beside them: p50 {:?}, p99 {:?} of {}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits.len()
    );
    assert_eq!(mill.files("corpus"), before, "the corpus has changed");
    assert!(!Path::new("/tmp/rel_evil.parquet").try_exists().unwrap());
    assert_eq!(server.rows("select count(*) as n from documents"), json!([{ "n": 2000 }]));
}

#[test]
fn questions_to_a_server_name_no_files() {
    let mill = corpus(20);
    mill.write("secret.txt", "secret");
    let server = Server::start(&mill, &["corpus"]);
    for sql in [
        "select * from text('secret.txt')",
        "select * from jsonl('pages.jsonl')",
        "select token_count('a', 'corpus/tokens/tokenizer.json')",
        "select language_verdict(text, 'model = \"secret.txt\"') from documents",
        "select bad_words('a', 'list = \"secret.txt\"')",
        "select toxicity('a', 'list = \"secret.txt\"')",
        "select classifier('a', 'model = \"secret.txt\"')",
        "select * from trained_on('../secret', 1, 2)",
        "select * from trained_on('/etc', 1, 2)",
    ] {
        let answer = server.ask(sql);
        assert!((400..500).contains(&answer.status), "{sql}: {answer:?}");
        assert!(!answer.text().contains("cannot read"), "{sql}: it was opened: {}", answer.text());
    }
}

#[test]
fn answers_come_in_four_formats_and_mistakes_with_their_place() {
    let mill = corpus(20);
    let server = Server::start(&mill, &["corpus", "--audit", "audit.jsonl"]);
    let sql = "select%20url%2C%20char_length(text)%20as%20n%20from%20documents%20order%20by%20n%2C%20url%20limit%202";
    let csv = server.get(&format!("/query?sql={sql}&format=csv"));
    assert_eq!(csv.text(), "url,n\nhttp://a.test/0,33\nhttp://a.test/1,33\n");
    assert!(
        csv.head.contains("content-type: text/csv") && csv.head.contains("x-gristmill-rows: 2")
    );
    let lines = server.get(&format!("/query?sql={sql}&format=ndjson")).text();
    assert_eq!(lines.lines().next().unwrap(), "{\"url\":\"http://a.test/0\",\"n\":33}");
    let answer = server.get(&format!("/query?sql={sql}")).json();
    assert_eq!(
        answer["columns"],
        json!([{ "name": "url", "type": "Utf8View" }, { "name": "n", "type": "Int32" }])
    );
    assert_eq!((&answer["rows"][1]["n"], &answer["n_rows"]), (&json!(33), &json!(2)));
    let body = json!({ "sql": "select 7 as n", "format": "arrow" }).to_string();
    let stream =
        server.request("POST", "/query", "content-type: application/json\r\n", body.as_bytes());
    let batches: Vec<_> = arrow_ipc::reader::StreamReader::try_new(&stream.body[..], None)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().values(), &[7]);
    let empty = server.ask("select id from documents where 1 = 0").json();
    assert_eq!(
        empty,
        json!({ "columns": [{ "name": "id", "type": "FixedSizeBinary(16)" }], "rows": [], "n_rows": 0 })
    );

    let mistake = server.ask("select txt from documents");
    assert_eq!((mistake.status, mistake.code().as_str()), (400, "sql"));
    assert!(
        mistake.text().contains("column 8") && mistake.text().contains("text"),
        "{}",
        mistake.text()
    );
    assert_eq!(server.ask("select 1; select 2").status, 400);
    assert_eq!(server.get("/query?sql=select%201&format=xml").status, 400);
    assert_eq!(
        server
            .request("POST", "/query", "content-type: application/json\r\n", b"{\"sq\": 1}")
            .status,
        400
    );
    assert_eq!(server.get("/nothing").status, 404);

    let description = server.get("/openapi.json").json();
    for path in description["paths"].as_object().unwrap().keys() {
        assert_ne!(server.get(path).status, 404, "{path} is described");
    }
    assert_eq!(server.metric("gristmill_running"), 0);
    let log = fs::read_to_string(mill.path("audit.jsonl")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["outcome"], &first["rows"], &first["asker"]),
        (&json!("ok"), &json!(2), &json!("anyone"))
    );
    assert!(first["sql"].as_str().unwrap().starts_with("select url"));
}

#[test]
fn every_limit_is_named_with_how_to_raise_it() {
    let mill = corpus(100);
    let limits = ["--max-rows", "50", "--max-bytes", "64KiB", "--max-seconds", "1"];
    let server = Server::start(&mill, &[&["corpus"], &limits[..]].concat());
    for (sql, code, hint) in [
        ("select * from documents", "rows", "--max-rows"),
        ("select repeat('abcdefgh', 6000) as t from documents limit 3", "bytes", "--max-bytes"),
        ("select count(*) from generate_series(1, 1000000000000)", "time", "--max-seconds"),
        ("select repeat('a', 2000000000)", "memory", "--memory"),
    ] {
        let answer = server.ask(sql);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, code),
            "{sql}: {}",
            answer.text()
        );
        assert!(answer.text().contains(hint), "{}", answer.text());
    }
    let deep = format!("select 1{}", "+1".repeat(5000));
    assert_eq!(server.ask(&deep).code(), "statement");
}

#[test]
fn nobody_gets_in_without_a_token() {
    let mill = corpus(20);
    let hash = |token: &str| shard::manifest::hash(token.as_bytes());
    let other = "another token of forty bytes or so......";
    let expired = "an expired token of forty bytes or so...";
    let file = format!(
        "[[token]]\nname = 'other'\nblake3 = '{}'\ncorpora = ['b']\n[[token]]\nname = 'old'\nblake3 = '{}'\nexpires = 2020-01-01T00:00:00Z\n",
        hash(other),
        hash(expired)
    );
    mill.write("tokens.toml", file);
    let arguments = ["a=corpus", "b=corpus", "--tokens", "tokens.toml", "--audit", "audit.jsonl"];
    let server = Server::start_with(&mill, &arguments, &[("GRISTMILL_TOKEN", TOKEN)]);
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    for path in [
        "/",
        "/query",
        "/query?sql=select%201",
        "/metrics",
        "/openapi.json",
        "/app.js",
        "/signals.json",
        "/nothing",
    ] {
        for headers in [
            String::new(),
            bearer("wrong token"),
            bearer(expired),
            "cookie: gristmill_token=x\r\n".to_owned(),
        ] {
            let answer = server.request("GET", path, &headers, b"");
            assert_eq!(answer.status, 401, "{path} {headers}");
        }
    }
    assert_eq!(server.get("/healthz").status, 200);
    let right =
        server.request("POST", "/query", &bearer(TOKEN), b"select count(*) as n from b.documents");
    assert_eq!(right.json()["rows"], json!([{ "n": 20 }]));
    // Its tables are those of `b` alone.
    let sees = |sql: &str| server.request("POST", "/query", &bearer(other), sql.as_bytes()).status;
    assert_eq!(
        (sees("select 1 from b.documents limit 1"), sees("select 1 from a.documents limit 1")),
        (200, 400)
    );
    let page = server.request("GET", "/", "accept: text/html\r\n", b"");
    assert!(page.status == 401 && page.text().contains("action=/login"), "{page:?}");
    let login = server.request("POST", "/login", "", format!("token={TOKEN}").as_bytes());
    assert!(login.status == 303 && login.head.contains("httponly"), "{login:?}");
    let cookie = format!("cookie: gristmill_token={TOKEN}\r\n");
    assert_eq!(server.request("GET", "/", &cookie, b"").status, 200);
    let log = fs::read_to_string(mill.path("audit.jsonl")).unwrap();
    assert!(log.contains("\"asker\":\"other\"") && !log.contains(TOKEN) && !log.contains(other));

    let refused = mill.run(&["serve", "sql", "corpus", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("GRISTMILL_TOKEN"), "{why}");
}

#[test]
fn without_a_token_only_its_own_address_is_answered() {
    let mill = corpus(20);
    let server = Server::start(&mill, &["corpus"]);
    let asked = |host: &str| {
        server.request("POST", "/query", &format!("host: {host}\r\n"), b"select 1").status
    };
    assert_eq!((asked("localhost:80"), asked("127.0.0.1"), asked("[::1]:1")), (200, 200, 200));
    assert_eq!((asked("evil.test"), asked("localhost.evil.test:80")), (403, 403));
}

#[test]
fn a_client_that_leaves_takes_its_question_along() {
    let mill = corpus(200);
    let server = Server::start(&mill, &["corpus"]);
    for sql in [
        "select count(*) from generate_series(1, 1000000000000)",
        // Statistics alone would answer a count.
        "select sum(a.bytes_raw * b.bytes_raw + c.bytes_raw * d.bytes_raw) \
         from documents a, documents b, documents c, documents d",
    ] {
        let mut streams: Vec<TcpStream> = (0..3).map(|_| server.send("POST /query", sql)).collect();
        let end = Instant::now() + Duration::from_secs(10);
        while server.metric("gristmill_running") < 3 {
            assert!(Instant::now() < end, "they do not begin: {sql}");
            thread::sleep(Duration::from_millis(10));
        }
        streams.clear();
        server.assert_idle();
    }
    let text = server.get("/metrics").text();
    assert!(
        text.contains("gristmill_questions_total{protocol=\"http\",outcome=\"cancelled\"} 6"),
        "{text}"
    );
}

#[test]
fn a_stopping_server_answers_what_it_was_asked() {
    let mill = corpus(20);
    let mut server = Server::start(&mill, &["corpus", "--max-seconds", "2"]);
    let mut asked =
        server.send("POST /query", "select count(*) from generate_series(1, 1000000000000)");
    while server.metric("gristmill_running") == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    let id = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut bytes = Vec::new();
    asked.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::read(&bytes).code(), "time");
    let start = Instant::now();
    while server.child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(5), "it does not stop");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(server.child.wait().unwrap().success());
    // Only for the drop of `server`: the process is gone.
    server = Server::start(&mill, &["corpus"]);
    assert_eq!(server.get("/healthz").text(), "ok\n");
}

#[test]
fn new_versions_are_seen_and_corpora_are_joined() {
    let mill = corpus(20);
    let server = Server::start(&mill, &["one=corpus", "two=corpus"]);
    let joined = "select count(*) as n from one.documents a join two.documents b on a.id = b.id";
    assert_eq!(server.rows(joined), json!([{ "n": 20 }]));
    mill.write(
        "more.jsonl",
        format!(
            "{}\n",
            json!({ "text": "One more page of five words.", "url": "http://a.test/more" })
        ),
    );
    mill.mill(&["--no-train"]);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(server.rows("select count(*) as n from documents"), json!([{ "n": 21 }]));
    assert_eq!(server.rows("select count(*) as n from \"documents@1\""), json!([{ "n": 20 }]));
    assert_eq!(server.rows(joined), json!([{ "n": 21 }]));
}

async fn flight(server: &Server) -> FlightSqlServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    FlightSqlServiceClient::new(endpoint.connect().await.unwrap())
}

async fn first_number(
    client: &mut FlightSqlServiceClient<Channel>,
    info: arrow_flight::FlightInfo,
) -> i64 {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test]
async fn flight_sql_answers_prepares_lists_and_refuses() {
    let mill = corpus(30);
    let server =
        Server::start_with(&mill, &["corpus", "--max-rows", "1000"], &[("GRISTMILL_TOKEN", TOKEN)]);
    let mut client = flight(&server).await;
    let error = client.execute("select 1".to_owned(), None).await.unwrap_err().to_string();
    assert!(error.contains("token is missing"), "{error}");
    client.handshake("ann", TOKEN).await.unwrap();
    let info =
        client.execute("select count(*) as n from documents".to_owned(), None).await.unwrap();
    assert_eq!(first_number(&mut client, info).await, 30);

    let mut prepared = client
        .prepare("select count(*) from documents where url = ?".to_owned(), None)
        .await
        .unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 1);
    let url = arrow::array::StringArray::from(vec!["http://a.test/7"]);
    let batch =
        arrow::record_batch::RecordBatch::try_from_iter([("url", std::sync::Arc::new(url) as _)])
            .unwrap();
    prepared.set_parameters(batch).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(first_number(&mut client, info).await, 1);

    let tables = client
        .get_tables(arrow_flight::sql::CommandGetTables {
            include_schema: true,
            ..Default::default()
        })
        .await
        .unwrap();
    let ticket = tables.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    let names = batches[0].column_by_name("table_name").unwrap().as_string::<i32>();
    assert!(names.iter().any(|name| name == Some("documents@1")));

    for (sql, expected) in
        [("copy documents to 'x.csv'", "refused"), ("select txt from documents", "column 8")]
    {
        let error = client.execute(sql.to_owned(), None).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
    let info =
        client.execute("select * from generate_series(1, 100000)".to_owned(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows = match client.do_get(ticket).await {
        Ok(stream) => stream.try_collect::<Vec<_>>().await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(rows.contains("more than 1000 rows"), "{rows}");
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let mill = corpus(500);
    let server = Server::start(&mill, &["corpus"]);
    let end = Instant::now() + Duration::from_secs(5);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..64)
                .map(|client| {
                    let server = &server;
                    scope.spawn(move || {
                        let mut times = Vec::new();
                        while Instant::now() < end {
                            if client % 8 == 7 {
                                // Leaves before it has its answer.
                                drop(server.send(
                                    "POST /query",
                                    "select a.id from documents a, documents b",
                                ));
                                continue;
                            }
                            let start = Instant::now();
                            let answer = server
                                .ask("select source, count(*) as n from documents group by source");
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            times.push(start.elapsed());
                        }
                        times
                    })
                })
                .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    times.sort();
    println!(
        "{} answers, p50 {:?}, p99 {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    server.assert_idle();
    let text = server.get("/metrics").text();
    assert!(
        !text.contains("outcome=\"internal\"") && !text.contains("outcome=\"queue\""),
        "{text}"
    );
}
