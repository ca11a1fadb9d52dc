//! The server as clients meet it: over TCP, byte by byte.

use crossbeam::channel::Receiver;
use cyclotron_net::{Limits, Request, Response, Server, ServerConfig, serve};
use cyclotron_wire::{ApiVersion, Route};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

const ID: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

fn start(limits: Limits) -> (Server, Receiver<Request>) {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ServerConfig { metrics: Some(local), limits, ..ServerConfig::new(local) };
    serve(config, Arc::new(|| "pages 1\n".to_owned())).expect("the server starts")
}

/// Answers every request with its own body until the server is gone.
fn echo(requests: Receiver<Request>) -> thread::JoinHandle<Vec<Route>> {
    thread::spawn(move || {
        let mut routes = Vec::new();
        for Request { route, body, reply } in requests {
            routes.push(route);
            reply.send(Response::cbor(200, body));
        }
        routes
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut byte).expect("an answer in time");
        assert_eq!(read, 1, "closed after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).expect("headers are text");
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|s| s.parse().ok()).expect("a status");
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    Answer { status, headers, body }
}

fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // The server may refuse and close before it has read everything.
    drop(stream.write_all(request));
    read_answer(&mut stream)
}

fn post(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

fn call_path() -> String {
    format!("/api/v3/canister/{ID}/call")
}

/// A server that answers as it is asked to, and its end at the end of the test.
fn with_echo(limits: Limits, test: impl FnOnce(SocketAddr, &Server)) {
    let (server, requests) = start(limits);
    let reader = echo(requests);
    test(server.api_address(), &server);
    server.shutdown();
    reader.join().expect("the reader ends with the server");
}

#[test]
fn bodies_go_in_and_answers_come_out() {
    let (server, requests) = start(Limits::default());
    let reader = echo(requests);
    let mut stream = connect(server.api_address());
    for length in [0, 1, 1_000, 2 << 20] {
        let body = vec![0xa5; length];
        // The same connection is used for all of them.
        stream.write_all(&post(&call_path(), "application/cbor", &body)).expect("sent");
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, answer.body.len()), (200, length));
        assert_eq!(answer.body, body);
        assert_eq!(answer.header("content-type"), Some("application/cbor"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    stream.write_all(&get("/api/v2/status?x=1")).expect("sent");
    assert_eq!(read_answer(&mut stream).status, 200);
    drop(stream);
    server.shutdown();
    let routes = reader.join().expect("the reader ends");
    assert_eq!(routes.len(), 5);
    assert!(matches!(routes[0], Route::Call(ApiVersion::V3, _)));
    assert_eq!(routes[4], Route::Status);
}

#[test]
fn chunked_bodies_arrive_whole() {
    with_echo(Limits::default(), |address, _| {
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\ntransfer-encoding: chunked\r\n\r\n",
            call_path()
        );
        let answer = exchange(address, &[head.as_bytes(), b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"].concat());
        assert_eq!((answer.status, &answer.body[..]), (200, &b"abcde"[..]));
    });
}

#[test]
fn wrong_methods_paths_and_types_are_refused_without_the_queue() {
    let (server, requests) = start(Limits::default());
    let address = server.api_address();
    let cases = [
        (get("/"), 404),
        (get("/metrics"), 404),
        (get("/api/v2/statusx"), 404),
        (get(&call_path()), 405),
        (post("/api/v2/status", "application/cbor", b""), 405),
        (b"DELETE /api/v2/status HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405),
        (b"BREW /api/v2/status HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405),
        (post("/api/v2/canister/nonsense/call", "application/cbor", b""), 400),
        (post(&call_path(), "application/json", b"{}"), 400),
        (post(&call_path(), "", b""), 400),
        (format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", call_path()).into_bytes(), 400),
        (b"nonsense\r\n\r\n".to_vec(), 400),
    ];
    for (request, status) in cases {
        let answer = exchange(address, &request);
        assert_eq!(answer.status, status, "{:?}", String::from_utf8_lossy(&request));
    }
    assert_eq!(exchange(address, &get(&call_path())).header("allow"), Some("POST"));
    assert!(requests.is_empty());
    server.shutdown();
}

#[test]
fn the_content_type_may_have_parameters_and_any_case() {
    with_echo(Limits::default(), |address, _| {
        for content_type in ["application/cbor", "Application/CBOR", "application/cbor; charset=utf-8"] {
            assert_eq!(exchange(address, &post(&call_path(), content_type, b"x")).status, 200);
        }
    });
}

#[test]
fn browsers_may_ask_first() {
    with_echo(Limits::default(), |address, _| {
        let request = format!(
            "OPTIONS {} HTTP/1.1\r\nhost: x\r\norigin: https://example.com\r\n\
             access-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n\r\n",
            call_path()
        );
        let answer = exchange(address, request.as_bytes());
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
        assert!(answer.header("access-control-allow-headers").is_some_and(|names| names.contains("content-type")));
    });
}

#[test]
fn bodies_over_the_limit_are_refused_however_they_come() {
    let limits = Limits { body_bytes_max: 100, ..Limits::default() };
    with_echo(limits, |address, server| {
        assert_eq!(exchange(address, &post(&call_path(), "application/cbor", &[0; 100])).status, 200);
        assert_eq!(exchange(address, &post(&call_path(), "application/cbor", &[0; 101])).status, 413);
        let head = |more: &str| {
            format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n{more}\r\n\r\n", call_path())
        };
        // Announced only, never sent.
        assert_eq!(exchange(address, head("content-length: 5000000000").as_bytes()).status, 413);
        let chunks =
            [head("transfer-encoding: chunked").as_bytes(), b"65\r\n", &[b'x'; 101], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(exchange(address, &chunks).status, 413);
        assert_eq!(server.counters().refused.load(Relaxed), 3);
    });
}

#[test]
fn headers_over_the_limits_are_refused() {
    with_echo(Limits::default(), |address, _| {
        let many: String = (0..100).map(|index| format!("x-{index}: y\r\n")).collect();
        let answer = exchange(address, format!("GET /api/v2/status HTTP/1.1\r\n{many}\r\n").as_bytes());
        assert_eq!(answer.status, 431);
        let long = format!("GET /api/v2/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(32 << 10));
        assert_eq!(exchange(address, long.as_bytes()).status, 431);
        let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(1 << 10));
        assert_eq!(exchange(address, path.as_bytes()).status, 404);
    });
}

#[test]
fn a_full_queue_is_told_at_once_and_empties_again() {
    let limits = Limits { queue_max: 2, ..Limits::default() };
    let (server, requests) = start(limits);
    let address = server.api_address();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(&post(&call_path(), "application/cbor", b"x")).expect("sent");
            stream
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while requests.len() < 2 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    let answer = exchange(address, &post(&call_path(), "application/cbor", b"x"));
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let reader = echo(requests);
    for mut stream in waiting {
        assert_eq!(read_answer(&mut stream).status, 200);
    }
    assert_eq!(exchange(address, &post(&call_path(), "application/cbor", b"x")).status, 200);
    server.shutdown();
    reader.join().expect("the reader ends");
}

#[test]
fn the_budget_of_bytes_is_taken_and_given_back() {
    let limits = Limits { body_bytes_total_max: 1_000, ..Limits::default() };
    let (server, requests) = start(limits);
    let address = server.api_address();
    let mut first = connect(address);
    first.write_all(&post(&call_path(), "application/cbor", &[0; 900])).expect("sent");
    let held = requests.recv_timeout(Duration::from_secs(10)).expect("queued");
    let answer = exchange(address, &post(&call_path(), "application/cbor", &[0; 200]));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    held.reply.send(Response::empty(202));
    assert_eq!(read_answer(&mut first).status, 202);
    let reader = echo(requests);
    assert_eq!(exchange(address, &post(&call_path(), "application/cbor", &[0; 200])).status, 200);
    server.shutdown();
    reader.join().expect("the reader ends");
}

#[test]
fn slow_clients_are_cut_off() {
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    with_echo(limits, |address, _| {
        // Headers that never end, and a connection that says nothing.
        for sent in ["GET /api/v2/status HTTP/1.1\r\nx: y\r\n", ""] {
            let mut stream = connect(address);
            stream.write_all(sent.as_bytes()).expect("sent");
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest));
            assert!(!rest.starts_with(b"HTTP/1.1 200"));
        }
        // A kept connection that falls silent.
        let mut stream = connect(address);
        stream.write_all(&get("/api/v2/status")).expect("sent");
        assert_eq!(read_answer(&mut stream).status, 200);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("closed, not timed out");
        // A body that never ends.
        let mut stream = connect(address);
        let request = post(&call_path(), "application/cbor", &[0; 100]);
        stream.write_all(&request[..request.len() - 1]).expect("sent");
        assert_eq!(read_answer(&mut stream).status, 408);
    });
}

#[test]
fn an_answer_that_its_client_does_not_take_is_cut_off_and_gives_its_bytes_back() {
    // More than the kernel keeps for a connection.
    const LARGE: usize = 32 << 20;
    let limits = Limits {
        answer_bytes_total_max: LARGE + 1_000,
        write_timeout: Duration::from_millis(500),
        connections_max: 2,
        ..Limits::default()
    };
    let (server, requests) = start(limits);
    let address = server.api_address();
    let reader = thread::spawn(move || {
        for Request { route, reply, .. } in requests {
            reply.send(Response::cbor(200, vec![0; if route == Route::Status { 2_000 } else { LARGE }]));
        }
    });
    let mut deaf = connect(address);
    deaf.write_all(&post(&call_path(), "application/cbor", b"x")).expect("sent");
    // Its first bytes tell that the whole answer is on its way.
    deaf.read_exact(&mut [0; 100]).expect("an answer");
    let answer = exchange(address, &get("/api/v2/status"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "the bytes are taken");
    let deadline = Instant::now() + Duration::from_secs(10);
    while exchange(address, &get("/api/v2/status")).status != 200 {
        assert!(Instant::now() < deadline, "the bytes come back");
        thread::sleep(Duration::from_millis(20));
    }
    let mut rest = Vec::new();
    drop(deaf.read_to_end(&mut rest));
    assert!(rest.len() < LARGE, "the connection was closed in the middle of its answer");
    server.shutdown();
    reader.join().expect("the reader ends");
}

#[test]
fn a_client_that_takes_its_answer_slowly_gets_it_whole() {
    let limits = Limits { write_timeout: Duration::from_millis(1_500), ..Limits::default() };
    let (server, requests) = start(limits);
    let mut slow = connect(server.api_address());
    slow.write_all(&get("/api/v2/status")).expect("sent");
    let length = 16 << 20;
    requests.recv().expect("queued").reply.send(Response::cbor(200, vec![1; length]));
    // Two seconds in all: longer than the timeout, which is for each part.
    let mut found = 0;
    let mut part = vec![0; 1 << 20];
    while found < length {
        found += slow.read(&mut part).expect("more of the answer");
        thread::sleep(Duration::from_millis(2_000 / 16));
    }
    server.shutdown();
}

#[test]
fn every_answer_of_the_queues_reader_that_asks_for_patience_says_how_much() {
    let (server, requests) = start(Limits::default());
    let address = server.api_address();
    for status in [429, 503] {
        let mut stream = connect(address);
        stream.write_all(&get("/api/v2/status")).expect("sent");
        requests.recv().expect("queued").reply.send(Response::text(status, "later"));
        let answer = read_answer(&mut stream);
        assert_eq!((answer.status, answer.header("retry-after")), (status, Some("1")));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    server.shutdown();
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    with_echo(limits, |address, server| {
        let mut open: Vec<_> = (0..2).map(|_| connect(address)).collect();
        for stream in &mut open {
            stream.write_all(&get("/api/v2/status")).expect("sent");
            assert_eq!(read_answer(stream).status, 200);
        }
        let mut third = connect(address);
        let answer = read_answer(&mut third);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "a page may see why");
        assert_eq!(server.counters().connections_refused.load(Relaxed), 1);
        drop(open);
        let deadline = Instant::now() + Duration::from_secs(10);
        while exchange(address, &get("/api/v2/status")).status != 200 {
            assert!(Instant::now() < deadline, "places come back");
        }
    });
}

#[test]
fn a_request_that_nobody_answers_ends_in_time() {
    let limits = Limits { reply_timeout: Duration::from_millis(100), ..Limits::default() };
    let (server, requests) = start(limits);
    let address = server.api_address();
    assert_eq!(exchange(address, &get("/api/v2/status")).status, 504);
    let late = requests.recv_timeout(Duration::from_secs(10)).expect("queued");
    assert!(late.reply.is_abandoned());
    late.reply.send(Response::empty(200));
    // One that is dropped, and all after the reader is gone.
    let dropper = thread::spawn(move || drop(requests.recv()));
    let answer = exchange(address, &get("/api/v2/status"));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    dropper.join().expect("ends");
    assert_eq!(exchange(address, &get("/api/v2/status")).status, 503);
    server.shutdown();
}

#[test]
fn a_client_that_leaves_is_noticed() {
    let (server, requests) = start(Limits::default());
    let mut stream = connect(server.api_address());
    stream.write_all(&get("/api/v2/status")).expect("sent");
    let request = requests.recv_timeout(Duration::from_secs(10)).expect("queued");
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !request.reply.is_abandoned() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
    server.shutdown();
}

#[test]
fn shutdown_lets_requests_under_way_finish() {
    let (server, requests) = start(Limits::default());
    let address = server.api_address();
    let mut busy = connect(address);
    busy.write_all(&post(&call_path(), "application/cbor", b"x")).expect("sent");
    let request = requests.recv_timeout(Duration::from_secs(10)).expect("queued");
    let _idle = connect(address);
    let answerer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        request.reply.send(Response::empty(202));
        requests.recv().expect_err("the queue ends with the server");
    });
    let begun = Instant::now();
    server.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(read_answer(&mut busy).status, 202);
    answerer.join().expect("ends");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn metrics_have_their_own_address() {
    let (server, _requests) = start(Limits::default());
    let address = server.metrics_address().expect("asked for");
    let answer = exchange(address, &get("/metrics"));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"pages 1\n"[..]));
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert_eq!(exchange(address, &get("/api/v2/status")).status, 404);
    assert_eq!(exchange(address, &post("/metrics", "text/plain", b"")).status, 405);
    server.shutdown();
}

#[test]
fn an_address_in_use_is_an_error() {
    let (server, _requests) = start(Limits::default());
    let error = serve(ServerConfig::new(server.api_address()), Arc::new(String::new)).expect_err("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
