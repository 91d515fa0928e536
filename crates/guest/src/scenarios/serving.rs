//! `lsbuf serve`, run as its unit runs it: by a user without any right, who is a member of the
//! group that iterators are pinned for.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::actor::{Actor, Held};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::scenarios::holding::SIZE;
use crate::scenarios::probes::{GROUP, by_user_in, install, lsbuf};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "serve_for_a_group",
    claim: "A server without any right serves the buffers of the whole machine from pinned iterators, and ends at a signal",
    needs: &[Need::Iterators],
    kernels: Kernels::OldestAndNewest,
    ways: &[],
    run: for_a_group,
}];

const FOLDER: &str = "/tmp/served";

/// The body of the answer to a request.
fn get(path: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(format!("{FOLDER}/socket")).context("connecting")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

fn for_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx)?;
    std::fs::create_dir_all(FOLDER)?;
    std::fs::set_permissions(FOLDER, PermissionsExt::from_mode(0o777))?;
    let mut maker = Actor::start(b"maker", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let made = maker.paused_with_one()?;
    let mut server = by_user_in(GROUP, &["serve", "--listen", &format!("unix:{FOLDER}/socket")]);
    let mut server = server.stderr(Stdio::piped()).spawn().context("running lsbuf serve")?;
    let mut line = String::new();
    BufReader::new(server.stderr.take().context("no stderr")?).read_line(&mut line)?;
    ctx.check_eq("it serves", format!("lsbuf: serving unix:{FOLDER}/socket"), line.trim_end())?;
    let metrics = get("/metrics")?;
    // Without that iterator only root can read the kernel's own list.
    let complete = u8::from(Need::BufferIterator.probe());
    let exporter = make::plain_exporter();
    for series in [
        r#"lsbuf_buffers{kind="dmabuf",state="held"} 1"#.to_owned(),
        format!(r#"lsbuf_dmabuf_size_bytes{{exporter="{exporter}",state="held"}} {SIZE}"#),
        format!("lsbuf_scan_complete {complete}"),
    ] {
        ctx.check_eq(&series, true, metrics.lines().any(|line| line == series))?;
    }
    let document: serde_json::Value = serde_json::from_str(&get(&format!("/buffer/dmabuf:{}", made.ino))?)?;
    let holders = document["buffers"][0]["holders"].as_array().cloned().unwrap_or_default();
    let pids: Vec<Option<u64>> = holders.iter().map(|holder| holder["pid"].as_u64()).collect();
    ctx.check_eq("holders", format!("{:?}", [Some(u64::from(maker.pid))]), format!("{pids:?}"))?;
    kill_process(Pid::from_child(&server), Signal::TERM)?;
    ctx.check_eq("its end", "Some(0)", format!("{:?}", server.wait()?.code()))?;
    let removed = lsbuf(&["probes", "remove"]).status()?;
    ctx.check_eq("the pins are removed", true, removed.success())
}
