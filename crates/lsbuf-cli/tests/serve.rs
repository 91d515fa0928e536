//! `lsbuf serve` over real sockets, on a recorded tree: what it answers, whom it refuses, and that
//! no client can harm another.
#![cfg(feature = "serve")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use kit::{Tree, lsbuf, shmem_tree};
use rustix::process::{Pid, Signal, kill_process};

/// A server on a port that the kernel chooses.
struct Server {
    child: Child,
    address: SocketAddr,
    /// It is what is served.
    tree: Tree,
}

fn command(tree: &Tree, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin("lsbuf"));
    command.arg("serve").args(args).arg("--proc-root").arg(tree.path("proc"));
    command.arg("--sys-root").arg(tree.path("sys")).stderr(Stdio::piped());
    command
}

/// The first line that a server prints on stderr; the rest is read so that it never waits.
fn first_line(child: &mut Child) -> String {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    line
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let tree = shmem_tree();
        let mut child = command(&tree, &[&["--listen", "127.0.0.1:0"], args].concat()).spawn().unwrap();
        let line = first_line(&mut child);
        let address =
            line.trim().strip_prefix("lsbuf: serving http://").and_then(|rest| rest.strip_suffix('/'));
        Server { child, address: address.unwrap_or_else(|| panic!("{line}")).parse().unwrap(), tree }
    }

    /// Sends bytes and reads all that comes back.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // It may have refused the rest already.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        let host = self.address;
        Answer::of(&self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes()))
    }

    /// Memory that it has taken at most, in KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, headers: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

/// The samples of metrics that are the same in each scan.
fn samples(text: &str) -> Vec<&str> {
    let differ = ["#", "lsbuf_scan_duration", "lsbuf_last_scan", "lsbuf_scans_total"];
    text.lines().filter(|line| !differ.iter().any(|start| line.starts_with(start))).collect()
}

/// Check that metrics are those of `lsbuf metrics`, in the form that the scraper asks for.
#[test]
fn metrics() {
    let server = Server::start(&["--min-interval", "0s"]);
    let answer = server.get("/metrics", "");
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("content-type: text/plain; version=0.0.4"), "{}", answer.headers);
    let run = lsbuf(&server.tree, &["metrics"]);
    assert_eq!(samples(&answer.body), samples(&run.stdout));
    assert!(answer.body.contains("\nlsbuf_scans_total{result=\"answered\"} 1\n"), "{}", answer.body);
    let answer =
        server.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(answer.headers.contains("content-type: application/openmetrics-text"), "{}", answer.headers);
    assert!(
        answer.body.ends_with("# EOF\n")
            && answer.body.contains("\nlsbuf_scans_total{result=\"answered\"} 2\n")
    );
}

/// Check that the documents are those of `lsbuf -J` and of one buffer.
#[test]
fn documents() {
    let server = Server::start(&[]);
    let buffers = |text: &str| -> Vec<(String, u64)> {
        let document: serde_json::Value = serde_json::from_str(text).unwrap();
        let buffers = document["buffers"].as_array().unwrap().iter();
        let mut ids: Vec<_> =
            buffers.map(|b| (b["kind"].as_str().unwrap().to_owned(), b["ino"].as_u64().unwrap())).collect();
        ids.sort();
        ids
    };
    let all = buffers(&server.get("/snapshot.json", "").body);
    assert_eq!(all, buffers(&lsbuf(&server.tree, &["-J"]).stdout));
    let one = server.get("/buffer/memfd:7", "");
    assert_eq!((one.status, buffers(&one.body)), (200, vec![("memfd".to_owned(), 7)]));
    assert_eq!(server.get("/buffer/memfd:8", "").status, 404);
}

/// Check that the page for people has no data, and may load them from this server alone.
#[test]
fn page() {
    let server = Server::start(&[]);
    let answer = server.get("/", "");
    assert!(answer.headers.contains("content-type: text/html"), "{}", answer.headers);
    let policy = answer.headers.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(answer.body.starts_with("<!DOCTYPE html>") && !answer.body.contains("compositor"));
}

/// Check that it scans once for all who ask within the interval.
#[test]
fn one_scan_for_all() {
    let server = Server::start(&["--min-interval", "1h"]);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..50).map(|_| scope.spawn(|| server.get("/metrics", "").body)).collect();
        for asked in asking {
            assert!(asked.join().unwrap().contains("\nlsbuf_scans_total{result=\"answered\"} 1\n"));
        }
    });
}

/// Check that other hosts' names, pages of other sites, other methods and other paths are refused,
/// and that no answer can be framed or kept.
#[test]
fn refused() {
    let server = Server::start(&["--allow-host", "node7"]);
    let host = server.address;
    for (what, request, status) in [
        ("another name", "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 403),
        ("an allowed name", "GET /metrics HTTP/1.1\r\nHost: node7:9747\r\n\r\n".to_owned(), 200),
        ("no host", "GET /metrics HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n"), 400),
        ("no host in HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("POST", format!("POST /metrics HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx"), 405),
        ("up", format!("GET /../../etc/passwd HTTP/1.1\r\nHost: {host}\r\n\r\n"), 404),
        ("escaped", format!("GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: {host}\r\n\r\n"), 404),
        (
            "another origin",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\n\r\n"),
            403,
        ),
        ("its own origin", format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n"), 200),
        (
            "another site",
            format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: cross-site\r\n\r\n"),
            403,
        ),
        ("broken", "\0\r\n\r\n".to_owned(), 400),
    ] {
        let answer = Answer::of(&server.send(request.as_bytes()));
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if answer.status != 400 {
            for header in ["x-frame-options: deny", "cache-control: no-store", "frame-ancestors 'none'"] {
                assert!(answer.headers.contains(header), "{what}: {header}");
            }
            assert!(!answer.headers.contains("access-control-allow-origin"), "{what}");
        }
    }
    let head = Answer::of(&server.send(format!("HEAD /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

/// Check that a head of a request without end is refused, and takes no memory.
#[test]
fn endless_head() {
    let server = Server::start(&[]);
    let before = server.peak();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ");
    let mut sent = 0;
    while sent < 100 << 20 && stream.write_all(&[b'x'; 1 << 16]).is_ok() {
        sent += 1 << 16;
    }
    assert!(sent < 100 << 20, "all of it was taken");
    assert!(server.peak() < before + 4096, "{} KiB, before {before}", server.peak());
    assert_eq!(server.get("/healthz", "").status, 200);
}

/// Check that thousands of clients that say nothing, or say it slowly, keep nobody out, and that
/// each is closed in the end.
#[test]
fn slow_clients() {
    let server = Server::start(&[]);
    let mut slow = Vec::new();
    for nth in 0..600 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        if nth % 2 == 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nX-");
        }
        slow.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(server.get("/metrics", "").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut last = slow.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    let _ = last.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(20), "it was not closed");
    assert!(server.peak() < 100 << 10, "{} KiB", server.peak());
}

/// Check that a signal ends it well, also while clients are connected.
#[test]
fn ends() {
    let server = Server::start(&[]);
    let _silent = TcpStream::connect(server.address).unwrap();
    assert_eq!(server.get("/healthz", "").status, 200);
    let begun = Instant::now();
    assert_eq!(server.end(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// Check that it answers on a Unix socket, whatever host is named.
#[test]
fn unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lsbuf.sock");
    let tree = shmem_tree();
    let mut child = command(&tree, &["--listen", &format!("unix:{}", path.display())]).spawn().unwrap();
    assert_eq!(first_line(&mut child), format!("lsbuf: serving unix:{}\n", path.display()));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: any\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!((Answer::of(&text).status, Answer::of(&text).body.as_str()), (200, "ok\n"));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Check that mistakes have one line: an address that is none, that others can reach, or that is
/// taken.
#[test]
fn mistakes() {
    let server = Server::start(&[]);
    let taken = server.address.to_string();
    for (listen, status, says) in [
        ("127.0.0.1", 2, "valid: ADDRESS:PORT"),
        ("0.0.0.0:0", 1, "add --allow-remote"),
        (taken.as_str(), 1, "cannot listen on"),
        ("unix:/nonexistent/x", 1, "cannot listen on /nonexistent/x"),
    ] {
        let output = command(&server.tree, &["--listen", listen]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{listen}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.contains(says)).count(), 1, "{listen}: {stderr}");
    }
}
