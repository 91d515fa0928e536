//! Users and their rights: what each right opens, that the answer says what is missing, and that
//! following doctor's advice makes it complete.
//!
//! [`ROWS`] lists what each right was seen to open in the kernels; `--checks` prints it as
//! measured. Advice is proven by following it. The test grants the capabilities and makes the mount
//! that doctor names, until doctor names none. Then it leaves each of them out in turn, and the
//! answer must be partial.

use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Context, bail};
use dmabuf::share;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::CapabilitySet as Caps;

use super::holding::{SIZE, compare_in, holder_by_fd_and_mapping, mapper_of_one};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth};
use crate::caller::{Caller, DEBUGFS, MachineView};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rights_table",
        claim: "Each right opens what the kernel ties to it, and the answer says whether it is complete",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Auto, Way::Procfs],
        run: rights_table,
    },
    Scenario {
        name: "advice_applied",
        claim: "Doctor's advice makes the answer complete, and without any part of it the answer is partial",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::FdinfoByPtrace, Need::MapsByPerfmon]),
        ways: &[Way::Procfs],
        run: advice_applied,
    },
    Scenario {
        name: "advice_about_mounts",
        claim: "Doctor's advice is right where debugfs is not mounted, and where procfs hides processes",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::FdinfoByPtrace, Need::MapsByPerfmon]),
        ways: &[Way::Procfs],
        run: advice_about_mounts,
    },
    Scenario {
        name: "advice_for_mapped_buffers",
        claim: "If a buffer is only mapped, doctor also names the right that proves the mapping",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::OneOfEach(&[Need::FdinfoByPtrace, Need::MapsByPerfmon]),
        ways: &[Way::Procfs],
        run: advice_for_mapped_buffers,
    },
    Scenario {
        name: "advice_in_containers",
        claim: "In a container doctor names the pid namespace, the user namespace and the mount that keep the answer partial",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::FdinfoByPtrace, Need::MapsByPerfmon]),
        ways: &[Way::Procfs],
        run: advice_in_containers,
    },
    Scenario {
        name: "through_fdinfo",
        claim: "CAP_SYS_PTRACE alone gives the whole account: names, O_PATH fds and mappings, and reading changes no count",
        needs: &[Need::FdinfoByPtrace],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Procfs],
        run: through_fdinfo,
    },
    Scenario {
        name: "perfmon_alone",
        claim: "A mapping that CAP_PERFMON shows but nothing proves is in a note, and in no figure",
        needs: &[Need::MapsByPerfmon, Need::MappedIdentity],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Procfs],
        run: perfmon_alone,
    },
    Scenario {
        name: "asked_for_the_unreadable",
        claim: "Asking for a process that cannot be read prints one line that says so",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Procfs],
        run: asked_for_the_unreadable,
    },
];

/// The kernels on which something can be seen.
#[derive(Clone, Copy)]
enum SeenOn {
    Always,
    Never,
    With(Need),
}

impl SeenOn {
    fn here(self) -> bool {
        match self {
            SeenOn::Always => true,
            SeenOn::Never => false,
            SeenOn::With(need) => need.probe(),
        }
    }
}

/// What a caller sees of root's process and of the kernel's list. The answer is complete if the
/// caller sees all of that, and the whole machine.
struct RightsRow {
    caller: Caller,
    fds: SeenOn,
    maps: SeenOn,
    list: bool,
    whole_machine: SeenOn,
}

const USER: Caller = Caller::USER;
const BOTH: Caps = Caps::SYS_PTRACE.union(Caps::DAC_READ_SEARCH);

const fn row(caller: Caller, fds: SeenOn, maps: SeenOn, list: bool) -> RightsRow {
    RightsRow { caller, fds, maps, list, whole_machine: SeenOn::Always }
}

const fn in_part(row: RightsRow) -> RightsRow {
    RightsRow { whole_machine: SeenOn::Never, ..row }
}

/// This follows from `proc_fdinfo_permission`, from `mm_access` with `perfmon_capable`, and from
/// the modes of directories. Each row was tried by hand.
const ROWS: &[RightsRow] = {
    use SeenOn::{Always, Never, With};
    &[
        row(Caller::ROOT, Always, Always, true),
        row(USER, Never, Never, false),
        row(USER.with(Caps::SYS_PTRACE), With(Need::FdinfoByPtrace), Always, false),
        row(USER.with(Caps::PERFMON), Never, With(Need::MapsByPerfmon), false),
        row(USER.with(Caps::DAC_READ_SEARCH), Never, Never, true),
        row(USER.with(Caps::DAC_OVERRIDE), Never, Never, true),
        row(USER.with(Caps::CHECKPOINT_RESTORE), Never, Never, false),
        row(USER.with(Caps::PERFMON.union(Caps::DAC_READ_SEARCH)), Never, With(Need::MapsByPerfmon), true),
        row(USER.with(BOTH), Always, Always, true),
        row(USER.with(BOTH.union(Caps::CHECKPOINT_RESTORE)), Always, Always, true),
        // Root's own files need no right. Reading root's processes needs one.
        row(Caller::ROOT.with(Caps::empty()), Never, Never, true),
        // Without a right to enter directories, another user's process can be read only through
        // fdinfo.
        RightsRow {
            whole_machine: With(Need::FdinfoByPtrace),
            ..row(Caller::ROOT.with(Caps::SYS_PTRACE), Always, Always, true)
        },
        row(Caller::ROOT.seeing(MachineView::NoDebugfs), Always, Always, false),
        in_part(row(USER.seeing(MachineView::Hidden), Never, Never, false)),
        row(USER.with(BOTH).seeing(MachineView::Hidden), Always, Always, true),
        in_part(row(Caller::ROOT.seeing(MachineView::Container), Never, Never, true)),
        in_part(row(Caller::ROOT.seeing(MachineView::Rootless), Never, Never, true)),
        in_part(row(Caller::ROOT.seeing(MachineView::RootlessNoDebugfs), Never, Never, false)),
        row(Caller::ROOT.seeing(MachineView::UserNamespace), Never, Never, true),
    ]
};

fn ask(caller: Caller) -> anyhow::Result<Answer> {
    Answer::from(caller.command(LSBUF)?.arg("--json"))
}

/// A process of the user that holds a buffer by an fd. It shows the user which filesystem is that
/// of dma-bufs.
fn users() -> anyhow::Result<Actor> {
    Actor::start(b"users", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(USER.uid)?;
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        stage.pause(&[Held::by(&buf)?])
    })
}

fn rights_table(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (mut roots, mut users) = (holder_by_fd_and_mapping()?, users()?);
    let held = roots.paused_with_one()?;
    users.paused()?;
    for RightsRow { caller, fds, maps, list, whole_machine } in ROWS {
        let (fds, maps) = (fds.here(), maps.here());
        // Root without debugfs has the iterator's list instead, if BPF iterators are used.
        let by_iterators = ctx.way.is_bpf() && *caller == Caller::ROOT.seeing(MachineView::NoDebugfs);
        let list = *list || by_iterators && Need::BufferIterator.probe();
        let complete = fds && maps && list && whole_machine.here();
        let number = |seen: bool, all: usize| if seen { all } else { 0 };
        let expected = format!(
            "fds {}, maps {}, kernel list {list}, complete {complete}",
            number(fds, held.fds.len()),
            number(maps, held.maps.len()),
        );
        ctx.check_eq(caller.to_string(), expected, seen(&ask(*caller)?, &held))?;
    }
    Ok(())
}

/// What an answer shows of one holder, in the form of the table.
fn seen(answer: &Answer, held: &Held) -> String {
    let scan = &answer.0["scan"];
    let holder = answer.list("buffers").iter().filter(|b| b["ino"] == held.ino).find_map(|b| {
        let holders = b["holders"].as_array()?;
        holders.iter().find(|h| h["pid"] == held.pid)
    });
    let number = |key: &str| holder.and_then(|h| h[key].as_array()).map_or(0, Vec::len);
    let sources = scan["sources"].as_array();
    let list = sources.is_some_and(|sources| sources.iter().any(|s| s == "bufinfo" || s == "bpf:dmabuf"));
    format!(
        "fds {}, maps {}, kernel list {list}, complete {}",
        number("fds"),
        number("maps"),
        scan["complete"]
    )
}

/// One step that doctor advises to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AdviceStep {
    Grant(Caps),
    Mount,
}

impl AdviceStep {
    fn apply(self, caller: Caller) -> Caller {
        match self {
            AdviceStep::Grant(capability) => caller.with(caller.capabilities.union(capability)),
            AdviceStep::Mount => caller.seeing(MachineView::Remounted),
        }
    }
}

fn doctor(caller: Caller) -> anyhow::Result<String> {
    let output = caller.command(LSBUF)?.arg("doctor").output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The steps in a report of doctor.
fn steps(report: &str) -> anyhow::Result<Vec<AdviceStep>> {
    let mut steps = Vec::new();
    for advice in report.lines().filter_map(|line| line.trim().strip_prefix("to do: ")) {
        let before = steps.len();
        if advice.ends_with(&format!("mount -t debugfs none {DEBUGFS}")) {
            steps.push(AdviceStep::Mount);
        }
        for word in advice.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if let Some(name) = word.strip_prefix("CAP_") {
                steps.push(AdviceStep::Grant(
                    Caps::from_name(name).with_context(|| format!("no such capability: {word}"))?,
                ));
            }
        }
        if steps.len() == before {
            bail!("nothing that can be done: {advice:?}");
        }
    }
    let mut distinct = Vec::new();
    steps.into_iter().for_each(|step| {
        if !distinct.contains(&step) {
            distinct.push(step)
        }
    });
    Ok(distinct)
}

/// Follows doctor's advice until there is none. Checks that it was enough, and that no step was
/// superfluous.
fn follow(ctx: &mut Ctx, first: Caller, truth: &Truth) -> anyhow::Result<()> {
    let (mut caller, mut taken) = (first, Vec::new());
    loop {
        let new = steps(&doctor(caller)?)?;
        if new.is_empty() {
            break;
        }
        for step in new {
            let had = step.apply(caller) == caller;
            ctx.check_eq(format!("{first}: {step:?} was had already"), false, had)?;
            if had {
                return Ok(());
            }
            caller = step.apply(caller);
            taken.push(step);
        }
    }
    let answer = ask(caller)?;
    ctx.check_eq(format!("{first}: complete with {taken:?}"), true, &answer.0["scan"]["complete"])?;
    compare_in(ctx, &answer, truth)?;
    let strict = caller.command(LSBUF)?.args(["doctor", "--strict"]).output()?;
    ctx.check_eq("doctor's exit status with --strict", 0, strict.status.code().unwrap_or(-1))?;
    for left_out in &taken {
        let caller =
            taken.iter().filter(|step| *step != left_out).fold(first, |caller, step| step.apply(caller));
        let complete = &ask(caller)?.0["scan"]["complete"];
        ctx.check_eq(format!("{first}: complete without {left_out:?}"), false, complete)?;
    }
    Ok(())
}

fn follow_each(ctx: &mut Ctx, callers: &[Caller]) -> anyhow::Result<()> {
    let (mut roots, mut users) = (holder_by_fd_and_mapping()?, users()?);
    let truth = Truth::held(make::plain_exporter(), vec![roots.paused_with_one()?]);
    users.paused()?;
    callers.iter().try_for_each(|&caller| follow(ctx, caller, &truth))
}

fn advice_applied(ctx: &mut Ctx) -> anyhow::Result<()> {
    let some = [
        Caller::ROOT,
        USER,
        USER.with(Caps::SYS_PTRACE),
        USER.with(Caps::PERFMON),
        USER.with(Caps::DAC_READ_SEARCH),
        Caller::ROOT.with(Caps::empty()),
        Caller::ROOT.with(Caps::DAC_OVERRIDE),
    ];
    follow_each(ctx, &some)
}

fn advice_about_mounts(ctx: &mut Ctx) -> anyhow::Result<()> {
    let some = [
        Caller::ROOT.seeing(MachineView::NoDebugfs),
        USER.seeing(MachineView::NoDebugfs),
        USER.seeing(MachineView::Hidden),
    ];
    follow_each(ctx, &some)
}

fn advice_for_mapped_buffers(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = mapper_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    for caller in [Caller::ROOT, USER, USER.with(BOTH)] {
        follow(ctx, caller, &truth)?;
    }
    Ok(())
}

fn advice_in_containers(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut roots = holder_by_fd_and_mapping()?;
    roots.paused()?;
    for (view, names) in [
        (MachineView::Container, &["first pid namespace"][..]),
        (MachineView::Rootless, &["first pid namespace"]),
        (MachineView::UserNamespace, &["first user namespace, as root or with CAP_SYS_PTRACE:"]),
        (
            MachineView::RootlessNoDebugfs,
            &["first pid namespace", "outside this user namespace: mount -t debugfs none /sys/kernel/debug"],
        ),
    ] {
        let caller = Caller::ROOT.seeing(view);
        let report = doctor(caller)?;
        let advice: Vec<&str> = report.lines().filter(|line| line.contains("to do: ")).collect();
        ctx.check_eq(format!("{caller}: pieces of advice"), names.len(), advice.len())?;
        for (name, advice) in names.iter().zip(advice) {
            ctx.check(format!("{caller}: {name:?} in {:?}", advice.trim()), advice.contains(name))?;
        }
        ctx.check(format!("{caller}: partial"), report.contains("Answers are partial here"))?;
    }
    Ok(())
}

fn through_fdinfo(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NAME: &str = "a\nsize:\t1\nname:\tb\n";
    let caller = USER.with(Caps::SYS_PTRACE);
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"roots", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        buf.set_name(NAME)?;
        let path = sys::open_path(&buf)?;
        let mut held = Held::by(&buf)?.and_opath(&path);
        if Need::MappedIdentity.probe() {
            held = held.and_map(sys::map(&buf, 0, usize::try_from(SIZE)?)?, 0);
        }
        stage.pause(&[held.clone()])?;
        // The message has another buffer, so that this one's account stays as it was.
        let (other, _) = make::plain(SIZE)?;
        share::send(&from, &[&other], b"1")?;
        stage.pause(&[held, Held::by(&other)?])
    })?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]).named(NAME);
    for _ in 0..3 {
        let answer = ask(caller)?;
        compare_in(ctx, &answer, &truth)?;
        let scan = &answer.0["scan"];
        ctx.check_eq("unreadable processes", 0, &scan["processes"]["unreadable"])?;
        // Only the kernel's list is missing.
        let notes: Vec<&str> =
            scan["notes"].as_array().into_iter().flatten().filter_map(|n| n.as_str()).collect();
        ctx.check_eq("notes", 1, notes.len())?;
        ctx.check(
            "the kernel's list is missing",
            notes.iter().all(|n| n.contains("own list could not be read")),
        )?;
    }
    actor.go_on()?;
    let [_, other] = <[Held; 2]>::try_from(actor.paused()?).map_err(|_| anyhow::anyhow!("two buffers"))?;
    let answer = ask(caller)?;
    compare_in(ctx, &answer, &truth)?;
    // The receiving socket's fdinfo counts the message. lsbuf reads it too, so it knows that a
    // message may hold the residual.
    ctx.check_eq("references of what was sent", 2, &answer.buffer(other.ino)?["count"])?;
    let said = answer.0["scan"]["notes"].to_string();
    ctx.check("the message is found", said.contains("carry 1 fd"))
}

fn perfmon_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut roots = holder_by_fd_and_mapping()?;
    let held = roots.paused_with_one()?;
    let answer = ask(USER.with(Caps::PERFMON))?;
    ctx.check_eq("buffers", 0, answer.list("buffers").len())?;
    ctx.check_eq("complete", false, &answer.0["scan"]["complete"])?;
    let said = answer.0["scan"]["notes"].to_string();
    let unproven = format!("{} reference named like a dma-buf could not be proven", held.maps.len());
    ctx.check("the mapping is said", said.contains(&unproven))?;
    ctx.check("so is the missing list", said.contains("own list could not be read"))
}

fn asked_for_the_unreadable(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (mut roots, mut users) = (holder_by_fd_and_mapping()?, users()?);
    roots.paused()?;
    users.paused()?;
    for (actor, expected) in [(&roots, 1), (&users, 0)] {
        let mut command: Command = USER.command(LSBUF)?;
        let said = command.args(["-p", &actor.pid.to_string()]).output()?;
        let said = String::from_utf8(said.stderr)?;
        let line = format!("lsbuf: process {} cannot be read here", actor.pid);
        let lines = said.lines().filter(|said| said.starts_with(&line)).count();
        ctx.check_eq("lines about the process", expected, lines)?;
    }
    Ok(())
}
