//! The socket for operators: what it takes, how long it waits, who may use it.
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

use cyclotron_net::local::{LocalSocket, ask};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

const BYTES_MAX: usize = 5_000;
const WAIT: Duration = Duration::from_secs(30);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("cyclotron-{name}-{}", std::process::id()))
}

fn echo(path: &std::path::Path) -> LocalSocket {
    LocalSocket::serve(path, BYTES_MAX, |request| [&b"heard "[..], request].concat()).unwrap()
}

#[test]
fn a_request_ends_with_the_connection_or_a_line_and_is_cut_beyond_its_limit() {
    let path = path("requests");
    let socket = echo(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&path, b"this", 100, WAIT).unwrap(), b"heard this");
    assert_eq!(ask(&path, b"", 100, WAIT).unwrap(), b"heard ");
    assert_eq!(ask(&path, b"this\nand that", 100, WAIT).unwrap(), b"heard this");
    assert_eq!(ask(&path, b"this", 3, WAIT).unwrap(), b"hear", "one byte more, so that it is noticed");
    let long = ask(&path, &vec![7; BYTES_MAX], BYTES_MAX * 2, WAIT).unwrap();
    assert_eq!(long.len(), 6 + BYTES_MAX);
    let longer = ask(&path, &vec![7; BYTES_MAX * 100], BYTES_MAX * 2, WAIT).unwrap();
    assert_eq!(longer.len(), 6 + BYTES_MAX + 1, "what is beyond the limit is not looked at");
    // Who waits for a line without closing gets an answer too.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"a line\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "heard a line");
    drop(socket);
    assert_eq!(ask(&path, b"this", 100, WAIT).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn who_says_nothing_holds_others_up_for_a_while_only() {
    let path = path("silent");
    let _socket = echo(&path);
    // As many as are served at a time.
    let silent = [(); 4].map(|()| UnixStream::connect(&path).unwrap());
    let began = Instant::now();
    assert_eq!(ask(&path, b"this", 100, WAIT).unwrap(), b"heard this");
    assert!(began.elapsed() < WAIT / 2, "each is given five seconds");
    drop(silent);
}

#[test]
fn an_answer_that_takes_long_holds_nobody_up() {
    let path = path("slow");
    let (go_on, waits) = sync_channel::<()>(0);
    let waits = Mutex::new(waits);
    let _socket = LocalSocket::serve(&path, BYTES_MAX, move |request| {
        if request == b"slow" {
            waits.lock().unwrap().recv().unwrap();
        }
        request.to_vec()
    })
    .unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&path, b"slow", 100, WAIT).unwrap());
        assert_eq!(ask(&path, b"this", 100, WAIT).unwrap(), b"this");
        assert!(!slow.is_finished());
        go_on.send(()).unwrap();
        assert_eq!(slow.join().unwrap(), b"slow");
    });
}

#[test]
fn a_socket_that_was_left_is_replaced_and_a_long_path_is_refused() {
    let path = path("left");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(ask(&path, b"this", 100, WAIT).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let _socket = echo(&path);
    assert_eq!(ask(&path, b"this", 100, WAIT).unwrap(), b"heard this");
    let long = path.with_file_name("a".repeat(120));
    let refused = LocalSocket::serve(&long, 10, <[u8]>::to_vec).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}
