//! Whose memory it is, in the words of people: command lines, units, pods, and sums by them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::kernels::Kernels;
use crate::make;
use crate::scenario::{Ctx, Scenario};
use crate::scenarios::shmem::kit::{by_bpf, page};
use crate::sys;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "whose_memory",
    claim: "Processes are told apart by pod, unit, command line and limit, and sums by them add up, also as metrics",
    needs: &[],
    kernels: Kernels::Every,
    ways: Way::BOTH,
    run: whose_memory,
}];

const UID: &str = "11111111-2222-3333-4444-555555555555";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UNIT: &str = "viewer.service";

/// Makes three memfds of that many pages each, with numbered names.
fn frames(pages: u64) -> anyhow::Result<Vec<std::os::fd::OwnedFd>> {
    let name = |nth| format!("frame_{}_{nth}", std::process::id());
    (0..3).map(|nth| make::memfd(name(nth).as_bytes(), pages, pages)).collect()
}

/// Puts a process into a cgroup, which is made.
fn move_to(cgroup: &str, pid: u32) -> anyhow::Result<()> {
    let folder = format!("/sys/fs/cgroup/{cgroup}");
    fs::create_dir_all(&folder).context("making a cgroup")?;
    fs::write(format!("{folder}/cgroup.procs"), pid.to_string()).context("moving a process")
}

fn lsbuf(arguments: &[&str]) -> anyhow::Result<Answer> {
    Answer::from(Command::new(LSBUF).args(arguments).args(["--json", "--kind", "memfd"]))
}

/// A camera in a pod and a viewer in a unit share a pool of 6 pages. The camera has 3 frames of 2
/// pages besides, the viewer 3 of 4 pages.
fn whose_memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut camera = Actor::start(b"camera", |stage| {
        let (pool, own) = (make::memfd(b"pool", 6, 6)?, frames(2)?);
        sys::send_any(&from, &[pool.as_fd()])?;
        let held = own.iter().chain([&pool]).map(Held::by_file).collect::<anyhow::Result<Vec<_>>>()?;
        stage.pause(&held)
    })?;
    let mut viewer = Actor::start(b"viewer", |stage| {
        let (pool, own) = (sys::receive_any(&to)?, frames(4)?);
        let held = own.iter().chain(&pool).map(Held::by_file).collect::<anyhow::Result<Vec<_>>>()?;
        stage.pause(&held)
    })?;
    let (of_camera, of_viewer) = (camera.paused()?, viewer.paused()?);
    move_to(&format!("kubepods/burstable/pod{UID}/{ID}"), camera.pid)?;
    move_to(&format!("system.slice/{UNIT}"), viewer.pid)?;
    let folder = format!("/var/log/pods/shop_web-0_{UID}");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all("/var/log/pods/no\npod_\x1b_x")?;
    fs::create_dir_all("/var/log/containers")?;
    fs::write(format!("/var/log/containers/web-0_shop_nginx-{ID}.log"), "")?;
    describes(ctx, camera.pid, viewer.pid)?;
    let charged = |held: &[Held]| held.iter().map(|one| one.charged).sum::<u64>();
    ctx.check_eq("the camera's memory", 12 * page(), charged(&of_camera))?;
    ctx.check_eq("the viewer's memory", 18 * page(), charged(&of_viewer))?;
    let group = |cost: u64, pss: u64, uss: u64| {
        let uss = by_bpf(ctx, uss * page());
        format!(
            "4 buffers, {} pss {} uss {uss} shared {}, 4 fds of 1",
            cost * page(),
            pss * page(),
            6 * page()
        )
    };
    let (of_camera, of_viewer) = (group(12, 9, 6), group(18, 15, 12));
    for (by, camera, viewer) in [
        ("command", "camera", "viewer"),
        ("pod", "shop/web-0", "(none)"),
        ("unit", "(none)", UNIT),
        ("workload", "shop/web-0/nginx", UNIT),
    ] {
        let answer = lsbuf(&["sum", "--by", by])?;
        ctx.check_eq(format!("{by}: {camera}"), &of_camera, group_line(&answer, camera))?;
        ctx.check_eq(format!("{by}: {viewer}"), &of_viewer, group_line(&answer, viewer))?;
        let expected = format!("7 buffers, {}, {} counted again", 24 * page(), 6 * page());
        ctx.check_eq(format!("{by}: sum"), expected, sum_line(&answer))?;
    }
    let answer = lsbuf(&["sum", "--by", "name"])?;
    let uss = by_bpf(ctx, 18 * page());
    let expected = format!("6 buffers, {} pss {} uss {uss} shared 0, 6 fds of 2", 18 * page(), 18 * page());
    ctx.check_eq("frames by name", expected, group_line(&answer, "frame_#_#"))?;
    let expected = format!("7 buffers, {}, 0 counted again", 24 * page());
    ctx.check_eq("sum by name", expected, sum_line(&answer))?;
    measures(ctx)
}

/// Compares metrics with the same figures, and the parts of `Shmem` with the kernel's total.
fn measures(ctx: &mut Ctx) -> anyhow::Result<()> {
    let output = Command::new(LSBUF).arg("metrics").output().context("running lsbuf")?;
    let text = String::from_utf8(output.stdout)?;
    let of = |series: &str| -> Vec<(&str, i64)> {
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        let samples = samples.filter(|(named, _)| named.split('{').next() == Some(series));
        samples.filter_map(|(named, figure)| Some((named, figure.parse().ok()?))).collect()
    };
    let pods = r#"namespace="shop",pod="web-0",container="nginx",unit="""#;
    let unit = format!(r#"namespace="",pod="",container="",unit="{UNIT}""#);
    for (labels, pss) in [(pods, 9), (unit.as_str(), 15)] {
        let series = format!(r#"lsbuf_workload_pss_bytes{{{labels},kind="memfd"}}"#);
        let found = of("lsbuf_workload_pss_bytes").into_iter().find(|(named, _)| *named == series);
        ctx.check_eq(&series, (pss * page()).to_string(), found.map_or("?".into(), |(_, n)| n.to_string()))?;
    }
    let parts: i64 = of("lsbuf_shmem_bytes").iter().map(|(_, part)| part).sum();
    let total: i64 = of("lsbuf_shmem_total_bytes").iter().map(|(_, total)| total).sum();
    ctx.check(format!("Shmem is {total}, of which parts are {parts}"), total > 0 && parts == total)?;
    ctx.check_eq("complete", 1, of("lsbuf_scan_complete").first().map_or(-1, |(_, is)| *is))
}

/// Compares what is told of each process with its own `/proc`.
fn describes(ctx: &mut Ctx, camera: u32, viewer: u32) -> anyhow::Result<()> {
    let answer = lsbuf(&["ps", "--details"])?;
    let pod = serde_json::json!({ "uid": UID, "namespace": "shop", "name": "web-0", "container": "nginx" });
    let workloads = [
        (camera, serde_json::json!({ "unit": null, "container": ID, "pod": pod })),
        (viewer, serde_json::json!({ "unit": UNIT, "container": null, "pod": null })),
    ];
    for (pid, workload) in workloads {
        let details = &answer.process(pid)?["details"];
        ctx.check_eq(format!("workload of {pid}"), workload, &details["workload"])?;
        let line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let words: Vec<String> = line
            .strip_suffix(b"\0")
            .unwrap_or(&line)
            .split(|&b| b == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        ctx.check_eq(format!("command line of {pid}"), serde_json::json!(words), &details["args"])?;
        let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
        ctx.check_eq(format!("program of {pid}"), exe.display(), details["exe"].as_str().unwrap_or("?"))?;
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let limit = limit.and_then(|rest| rest.split_whitespace().next()).unwrap_or("?");
        ctx.check_eq(format!("limit of {pid}"), limit, &details["fd_limit"])?;
    }
    Ok(())
}

/// The figures of a group in a line.
fn group_line(answer: &Answer, key: &str) -> String {
    let is_it = |group: &&Value| match group["group"].as_str() {
        Some("none") => key == "(none)",
        _ => group["key"] == key,
    };
    let Some(group) = answer.list("groups").iter().find(is_it) else { return "no such group".into() };
    let figure = |name: &str| group[name].to_string();
    format!(
        "{} buffers, {} pss {} uss {} shared {}, {} fds of {}",
        figure("buffers"),
        figure("cost"),
        figure("pss"),
        figure("uss"),
        figure("shared"),
        figure("fds"),
        figure("processes"),
    )
}

fn sum_line(answer: &Answer) -> String {
    let sum = &answer.0["sum"];
    format!("{} buffers, {}, {} counted again", sum["buffers"], sum["cost"], sum["counted_again"])
}
