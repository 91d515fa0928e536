//! The command lines of column REMOVE, executed by a shell as they are printed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::listed::segments::{KeptNamespaces, maker};
use super::sysv::namespace;
use crate::actor::{Actor, Held};
use crate::answer::LSBUF;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{page_size, task};

/// A bind mount that keeps a namespace. A shell must not look into the name.
const KEPT: &str = "/tmp/kept's $(ipc)";

/// How many segments the IPC namespace has that this file belongs to.
fn segments_in(namespace: &str) -> anyhow::Result<u64> {
    let mut visitor = Actor::start(b"visitor", |stage| {
        let file = File::open(namespace).with_context(|| format!("opening {namespace}"))?;
        let kind = Some(LinkNameSpaceType::InterProcessCommunication);
        move_into_link_name_space(file.as_fd(), kind).context("entering a namespace")?;
        let rows = fs::read_to_string("/proc/sysvipc/shm")?.lines().skip(1).count();
        stage.pause(&[Held { size: rows as u64, ..Held::default() }])
    })?;
    Ok(visitor.paused_with_one()?.size)
}

/// The namespace and the command line of each row that lsbuf prints, in order of the command lines.
fn printed() -> anyhow::Result<Vec<(String, String)>> {
    let output = Command::new(LSBUF).args(["--kind", "sysv", "--unheld", "-o", "+IPC,REMOVE"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    // Without segments it prints nothing.
    let Some(heading) = lines.next() else { return Ok(Vec::new()) };
    let column = |name: &str| heading.find(name).with_context(|| format!("no {name} in {heading}"));
    let remove = column("REMOVE")?;
    let cells = |line: &str| {
        let (before, command) = line.split_at_checked(remove)?;
        Some((before.split_ascii_whitespace().next_back()?.to_owned(), command.trim_end().to_owned()))
    };
    let mut rows: Vec<_> = lines.filter_map(cells).filter(|(_, command)| command.contains("ipcrm")).collect();
    rows.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(rows)
}

pub(super) fn by_command(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWIPC)?;
    let own = Segment::create(0, 3)?;
    let in_use = Segment::create(0, 2)?;
    let region = in_use.attach()?;
    shm::touch(region, page_size())?;
    let living = maker(1)?;
    let mut kept = KeptNamespaces::new();
    let kept_number = kept.keep(maker(2)?, KEPT)?;
    let numbered = [namespace(std::process::id())?, namespace(living.pid)?, kept_number];
    let [number_of_own, number_of_living, number_of_kept] = numbered.map(|number| number.to_string());
    let expected = [
        (number_of_own, format!("ipcrm -m {}", own.id())),
        (number_of_kept, r"nsenter '--ipc=/tmp/kept'\''s $(ipc)' ipcrm -m 4321".to_owned()),
        (number_of_living, format!("nsenter -t {} -i ipcrm -m 4321", living.pid)),
    ];
    let rows = printed()?;
    ctx.check_eq("namespaces and command lines", format!("{expected:?}"), format!("{rows:?}"))?;
    let places = ["/proc/self/ns/ipc".to_owned(), format!("/proc/{}/ns/ipc", living.pid), KEPT.to_owned()];
    let count = || places.iter().map(|place| segments_in(place)).collect::<anyhow::Result<Vec<u64>>>();
    ctx.check_eq("segments of the three namespaces before", "[2, 1, 1]", format!("{:?}", count()?))?;
    for (_, line) in &rows {
        let output = Command::new("/bin/sh").args(["-c", line]).output().context("running a shell")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{line:?}: {errors}");
    }
    // What a process has attached stays.
    ctx.check_eq("segments afterwards", "[1, 0, 0]", format!("{:?}", count()?))?;
    ctx.check_eq("segments that lsbuf lists afterwards", "[]", format!("{:?}", printed()?))?;
    shm::detach(region)
}
