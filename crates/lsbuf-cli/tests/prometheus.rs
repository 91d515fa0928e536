//! A real Prometheus scrapes two servers on recorded trees, and answers what the dashboard asks.
//!
//! It is run by `cargo xtask engines`, which sees to it that there is a Prometheus.
#![cfg(feature = "serve")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use kit::{Tree, lsbuf, shmem_tree};
use serde_json::Value;

/// A process that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// The result of a query.
fn query(port: u16, text: &str) -> Vec<Value> {
    let mut encoded = String::new();
    text.bytes().for_each(|byte| write!(encoded, "%{byte:02x}").unwrap());
    let answer =
        get(port, &format!("/api/v1/query?query={encoded}")).unwrap_or_else(|| panic!("refused: {text}"));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["status"], "success", "{text}");
    answer["data"]["result"].as_array().unwrap().clone()
}

/// The value of a query that has one sample.
fn value(port: u16, text: &str) -> f64 {
    let found = query(port, text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found[0]["value"][1].as_str().unwrap().parse().unwrap()
}

/// Waits until something is so.
fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(200));
    }
}

/// A compositor and a camera share two dma-bufs, and a driver alone has one.
fn dmabuf_tree() -> Tree {
    let mut tree = Tree::new();
    for (pid, name) in [(12, &b"camera"[..]), (13, b"compositor")] {
        tree.process(pid, name);
        let limits = b"Max open files            1024                 4096                 files     \n";
        tree.write(&format!("proc/{pid}/limits"), limits);
        for ino in [7, 8] {
            tree.dmabuf_fd(pid, ino, u64::from(ino), b"frame", 1 << 20, 3);
        }
    }
    for (ino, count) in [(7, 3), (8, 3), (9, 1)] {
        tree.listed(ino, b"frame", 1 << 20, count, &[]);
    }
    tree.write_list();
    tree
}

fn serve(tree: &Tree) -> (Running, u16) {
    let port = free_port();
    let mut command = Command::new(cargo_bin("lsbuf"));
    command.args(["serve", "--min-interval", "0s", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--proc-root").arg(tree.path("proc")).arg("--sys-root").arg(tree.path("sys"));
    let server = Running(command.stderr(Stdio::null()).spawn().unwrap());
    wait("lsbuf serve does not answer", || get(port, "/healthz").is_some());
    (server, port)
}

fn prometheus(folder: &Path, targets: &[u16]) -> (Running, u16) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/prometheus/lsbuf.rules.yml");
    let targets: Vec<String> = targets.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\nscrape_configs:\n  \
         - {{job_name: lsbuf, static_configs: [{{targets: [{}]}}]}}\n",
        rules.display(),
        targets.join(", ")
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let port = free_port();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait("prometheus is not ready", || get(port, "/-/ready").is_some());
    (running, port)
}

/// The sum of what the buffers of a tree cost, from `lsbuf -J`.
fn cost(tree: &Tree) -> u64 {
    let document: Value = serde_json::from_str(&lsbuf(tree, &["-J"]).stdout).unwrap();
    let of = |buffer: &Value| {
        if buffer["kind"] == "dmabuf" { buffer["size"].as_u64() } else { buffer["charged"].as_u64() }
    };
    document["buffers"].as_array().unwrap().iter().filter_map(of).sum()
}

/// The queries of the dashboard, with all machines chosen, and the panel's title.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(include_str!("../../../dist/grafana/lsbuf.json")).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap().replace("$instance", ".*");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// Check that Prometheus has what both servers have, that its rules are evaluated, and that it
/// answers every query of the dashboard; with samples where these machines have any.
#[test]
#[ignore = "run by xtask, which has Prometheus"]
fn scraped() {
    let folder = tempfile::tempdir().unwrap();
    let (buffers, shmem) = (dmabuf_tree(), shmem_tree());
    let ((_first, first), (_second, second)) = (serve(&buffers), serve(&shmem));
    let (_prometheus, port) = prometheus(folder.path(), &[first, second]);
    wait("not scraped", || query(port, "lsbuf_build_info").len() == 2);
    assert_eq!(value(port, "sum(up)"), 2.0);
    let costs = cost(&buffers) + cost(&shmem);
    assert_eq!(value(port, "sum(lsbuf_cost_bytes)"), costs as f64);
    assert_eq!(value(port, "sum(lsbuf_dmabufs)"), 3.0);
    assert_eq!(value(port, r#"sum(lsbuf_workload_pss_bytes{kind="dmabuf"})"#), f64::from(2 << 20));
    wait("rules are not evaluated", || !query(port, "exporter:lsbuf_dmabuf_size_bytes:sum").is_empty());
    // Recorded trees have no account of Shmem, and no flight recorder. A rate takes two samples.
    let cannot_have = ["lsbuf_shmem", "lsbuf_tmpfs", "lsbuf_births", "lsbuf_deaths"];
    for (title, text) in panels() {
        let found = query(port, &text);
        let may_be_empty = cannot_have.iter().any(|name| text.contains(name));
        assert!(may_be_empty || !found.is_empty(), "{title}: {text}");
    }
    let health = get(port, "/api/v1/rules").unwrap();
    assert!(!health.contains(r#""health":"err""#), "{health}");
}
