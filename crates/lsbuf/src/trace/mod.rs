//! Events of shared buffers as they happen: made, passed on, mapped, attached, renamed, freed.
//!
//! A [`Trace`] loads programs into the kernel and reads what they write. They go when it is
//! dropped. It needs the rights that loading BPF iterators needs (root, or CAP_BPF and
//! CAP_PERFMON).
//!
//! Events come in the order in which their programs asked for room. What was lost is told where it
//! was lost, as an [`Item`] of its own, and summed up in [`Trace::losses`].
//!
//! Limits: see [`Event`] for what a trace cannot see. Pids are those of the first pid namespace.
//! The kernel keeps 48 calls of a program and 24 of its own. Of a stack that is unwound by tables
//! ([`Settings::unwind`]) 32 KiB are copied, and 128 calls are told.

mod balance;
mod known;
mod unwind;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::getpid;
use rustix::time::ClockId;

pub use self::balance::{Balance, BalanceRow, BalanceSum};
use self::known::KnownBuffers;
use self::unwind::{Copied, CopiedStacks};
use crate::error::{Error, ErrorKind};
use crate::kernel::bpf::Unavailable;
pub use crate::kernel::bpf::tracing::Stacks;
use crate::kernel::bpf::tracing::{RawEvent, RawStacks, TraceSettings, Tracer};
use crate::kernel::clock;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Actor, Bytes, Event, Happening, KernelFrame, Label, Pid, Stack, Unwind};
use crate::stacks::{self, Nameless, StackNames};

/// How long to wait for one read of a file of a program whose calls get names.
const DEADLINE: Duration = Duration::from_secs(2);

/// How often it is asked what the kernel has skipped: each time takes a system call for each
/// program.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Of how many processes the cgroup is kept, and how many stacks with names.
const MOST_CGROUPS: usize = 10_000;
const MOST_STACKS: usize = 50_000;

/// What a trace is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Which events have stacks.
    pub stacks: Stacks,
    /// How the calls in programs are found. With [`Unwind::Dwarf`] an event with a stack takes
    /// 35 KiB of room, and not 3. Needs the feature `symbols`.
    pub unwind: Unwind,
    /// Only what the processes of a command do ([`Trace::spawn`]), and what happens to buffers that
    /// they have made.
    pub only_command: bool,
    /// How much memory events may take until they are read. It is rounded up to a power of two.
    pub room: Bytes,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            stacks: Stacks::None,
            unwind: Unwind::FramePointers,
            only_command: false,
            room: Bytes(8 << 20),
        }
    }
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LossCause {
    /// Events for which there was no room, because they came faster than they were read.
    Room,
    /// Processes of the command, or buffers that they made, for which there was no room in a map.
    /// Their events are missing.
    Map,
    /// Events, at most, that the kernel has not shown, because all copies of a program were
    /// interrupted.
    Skipped,
    /// Stacks of programs that the kernel could not read.
    Stack,
    /// Stacks that were to be unwound by tables, and were not: the process had exited or executed
    /// another program, or has registers that are not understood. They have the calls by frame
    /// pointers.
    Unwind,
    /// Records that could not be understood.
    Record,
}

impl LossCause {
    /// All of them.
    pub const ALL: [LossCause; 6] = [
        LossCause::Room,
        LossCause::Map,
        LossCause::Skipped,
        LossCause::Stack,
        LossCause::Unwind,
        LossCause::Record,
    ];

    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            LossCause::Room => "room",
            LossCause::Map => "map",
            LossCause::Skipped => "skipped",
            LossCause::Stack => "stack",
            LossCause::Unwind => "unwind",
            LossCause::Record => "record",
        }
    }

    /// What was lost, in words.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            LossCause::Room => "events lost: they came faster than they were read",
            LossCause::Map => "processes or buffers of the command without room: their events are missing",
            LossCause::Skipped => "events, at most, not shown by the kernel: its programs were interrupted",
            LossCause::Stack => "stacks of programs that the kernel could not read",
            LossCause::Unwind => "stacks by frame pointers alone: the process or its program had gone",
            LossCause::Record => "records that could not be understood",
        }
    }
}

/// What was lost until now, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses([u64; LossCause::ALL.len()]);

impl Losses {
    /// How much was lost for that cause.
    #[must_use]
    pub fn of(&self, cause: LossCause) -> u64 {
        self.0[cause as usize]
    }

    /// What was lost, with how much.
    pub fn all(&self) -> impl Iterator<Item = (LossCause, u64)> {
        LossCause::ALL.into_iter().map(|cause| (cause, self.of(cause))).filter(|(_, lost)| *lost > 0)
    }

    /// Notes that so much more was lost, at this place among the items.
    fn add(&mut self, cause: LossCause, lost: u64, items: &mut Vec<Item>) {
        self.0[cause as usize] += lost;
        if lost > 0 {
            items.push(Item::Lost(cause, lost));
        }
    }

    /// Notes how much was lost in all, which may be older than what is known.
    fn raise(&mut self, cause: LossCause, total: u64, items: &mut Vec<Item>) {
        self.add(cause, total.saturating_sub(self.of(cause)), items);
    }
}

/// What a trace yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// Something happened.
    Event(Box<Event>),
    /// Something was lost here, and how much.
    Lost(LossCause, u64),
}

/// A running trace.
#[derive(Debug)]
pub struct Trace {
    tracer: Tracer,
    known: KnownBuffers,
    names: StackNames,
    unwinder: CopiedStacks,
    /// Names of addresses in the kernel.
    kernel_names: HashMap<u64, Vec<u8>>,
    /// Stacks with names, by process and calls without names.
    stacks: HashMap<(Pid, Duration, Stack), Arc<Stack>>,
    root: Arc<ProcRoot>,
    cgroups: HashMap<(Pid, Duration), Option<Label>>,
    /// The wall clock at boot, by the clocks when the trace began.
    boot: SystemTime,
    losses: Losses,
    asked: Instant,
}

impl Trace {
    /// Begins a trace.
    ///
    /// # Errors
    /// If the caller lacks a right, or if the kernel can show no event.
    pub fn start(settings: Settings) -> Result<Trace, Error> {
        let copy_stacks = settings.unwind == Unwind::Dwarf;
        if copy_stacks && !cfg!(feature = "symbols") {
            let why = "cannot unwind by tables: lsbuf was built without the feature symbols";
            return Err(Error::new(ErrorKind::NoSource, why.to_owned()));
        }
        let page = rustix::param::page_size() as u64;
        let room = settings.room.0.clamp(page, 1 << 30).next_power_of_two();
        let root = Arc::new(ProcRoot::open(Path::new("/proc"))?);
        if !root.has_first_pids() {
            return Err(cannot_start(&Unavailable::OtherPids));
        }
        let started = Tracer::start(
            Path::new("/sys"),
            TraceSettings {
                stacks: settings.stacks,
                copy_stacks,
                only_family: settings.only_command,
                ring: u32::try_from(room).unwrap_or(1 << 30),
            },
        );
        let tracer = started.map_err(|why| cannot_start(&why))?;
        let after_boot = Duration::from_nanos(clock::now(ClockId::Boottime));
        let wall = SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::now(ClockId::Realtime));
        Ok(Trace {
            tracer,
            known: KnownBuffers::default(),
            names: StackNames::new(&root, DEADLINE),
            unwinder: CopiedStacks::new(&root, DEADLINE),
            kernel_names: HashMap::new(),
            stacks: HashMap::new(),
            root,
            cgroups: HashMap::new(),
            boot: wall - after_boot,
            losses: Losses::default(),
            asked: Instant::now(),
        })
    }

    /// What the trace does not see on this kernel, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.tracer.left_out().iter().map(|(what, why)| (*what, why.to_string()))
    }

    /// Starts a command whose processes are traced: it, and those that they start. Nothing else may
    /// start a process of this one meanwhile.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        let cannot = |errno: Errno| Error::io(errno, "the command cannot be traced".to_owned());
        // What this process starts now is the command.
        self.tracer.adopt(own()).map_err(cannot)?;
        let child = command.spawn();
        self.tracer.disown(own()).map_err(cannot)?;
        child.map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            Error::io(error, format!("cannot start {program}"))
        })
    }

    /// Waits until something has happened, but not longer than this, and returns all that has. A
    /// signal ends the waiting, too.
    ///
    /// # Errors
    /// If the kernel's buffer cannot be read.
    pub fn next(&mut self, longest: Duration) -> Result<Vec<Item>, Error> {
        let cannot = |errno: Errno| Error::io(errno, "cannot read the events".to_owned());
        self.tracer.wait(longest).map_err(cannot)?;
        let mut items = Vec::new();
        let mut taken: Vec<(usize, UnnamedStack)> = Vec::new();
        let (losses, known, boot) = (&mut self.losses, &mut self.known, self.boot);
        let own = own();
        let unread = self.tracer.read(|raw| {
            losses.raise(LossCause::Room, raw.lost, &mut items);
            // What this process does is none of the machine's.
            if raw.by.pid == own {
                return;
            }
            if let Some(stacks) = &raw.stacks {
                let unnamed = UnnamedStack::of(&raw, stacks);
                losses.add(LossCause::Stack, unnamed.failed.into(), &mut items);
                taken.push((items.len(), unnamed));
            }
            items.push(Item::Event(Box::new(event_of(raw, known, boot))));
        });
        let unread = unread.map_err(cannot)?;
        self.losses.add(LossCause::Record, unread, &mut items);
        let not_unwound = self.unwinder.unwind(taken.iter_mut().map(|(_, one)| one));
        self.losses.add(LossCause::Unwind, not_unwound, &mut items);
        self.name_stacks(&mut items, taken).map_err(cannot)?;
        if self.asked.elapsed() >= ASK_EVERY {
            self.ask_losses(&mut items).map_err(cannot)?;
        }
        Ok(items)
    }

    /// Reads what is still there, and what was lost until now.
    ///
    /// # Errors
    /// As for [`Trace::next`].
    pub fn finish(&mut self) -> Result<Vec<Item>, Error> {
        let mut items = self.next(Duration::ZERO)?;
        let cannot = |errno: Errno| Error::io(errno, "cannot read what was lost".to_owned());
        self.ask_losses(&mut items).map_err(cannot)?;
        Ok(items)
    }

    /// The cgroup of the process that caused an event, as it is now. `None`: it has exited.
    pub fn cgroup(&mut self, by: &Actor) -> Option<Label> {
        let of = (by.pid, by.started);
        if let Some(known) = self.cgroups.get(&of) {
            return known.clone();
        }
        if self.cgroups.len() >= MOST_CGROUPS {
            self.cgroups.clear();
        }
        let read = ProcessDir::open(&self.root, by.pid).ok().and_then(|process| process.cgroup());
        let path = read.map(|(path, _)| path);
        self.cgroups.insert(of, path.clone());
        path
    }

    /// What was lost until now.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    fn ask_losses(&mut self, items: &mut Vec<Item>) -> Result<(), Errno> {
        let lost = self.tracer.losses()?;
        self.asked = Instant::now();
        // The count of an event that was read may be newer.
        self.losses.raise(LossCause::Room, lost.ring, items);
        self.losses.raise(LossCause::Map, lost.map, items);
        self.losses.raise(LossCause::Skipped, lost.skipped, items);
        Ok(())
    }

    /// Gives these events their stacks, with names.
    fn name_stacks(&mut self, items: &mut [Item], taken: Vec<(usize, UnnamedStack)>) -> Result<(), Errno> {
        if taken.is_empty() {
            return Ok(());
        }
        let new: HashSet<u64> = taken
            .iter()
            .flat_map(|(_, stack)| &stack.kernel)
            .filter(|address| !self.kernel_names.contains_key(address))
            .copied()
            .collect();
        let new: Vec<u64> = new.into_iter().collect();
        let names = self.tracer.name(&new)?;
        self.kernel_names.extend(new.into_iter().zip(names));
        let mut wanted: HashMap<(Pid, Duration, Stack), Vec<usize>> = HashMap::new();
        for (nth, mut one) in taken {
            one.stack.kernel = self.kernel_frames(&one.kernel);
            let key = (one.pid, one.started, one.stack);
            match self.stacks.get(&key) {
                Some(stack) => give(items, nth, stack),
                None => wanted.entry(key).or_default().push(nth),
            }
        }
        let mut nameless: Vec<Nameless> = wanted
            .keys()
            .map(|(pid, started, stack)| Nameless {
                stack: stack.clone(),
                maker: (*pid, *started),
                others: Vec::new(),
            })
            .collect();
        self.names.find(&mut nameless);
        if self.stacks.len() + nameless.len() > MOST_STACKS {
            self.stacks.clear();
        }
        for ((key, events), mut named) in wanted.into_iter().zip(nameless) {
            named.stack.judge_end();
            let stack = Arc::new(named.stack);
            events.iter().for_each(|&nth| give(items, nth, &stack));
            self.stacks.insert(key, stack);
        }
        Ok(())
    }

    /// The calls at these addresses in the kernel.
    fn kernel_frames(&self, addresses: &[u64]) -> Vec<KernelFrame> {
        let lines = addresses.iter().filter_map(|address| self.kernel_names.get(address).map(Vec::as_slice));
        stacks::kernel_frames(&lines.collect::<Vec<_>>().join(&b'\n'))
    }
}

fn give(items: &mut [Item], nth: usize, stack: &Arc<Stack>) {
    if let Some(Item::Event(event)) = items.get_mut(nth) {
        event.stack = Some(Arc::clone(stack));
    }
}

/// A stack as it was recorded.
struct UnnamedStack {
    pid: Pid,
    started: Duration,
    /// Without the calls in the kernel.
    stack: Stack,
    kernel: Vec<u64>,
    /// The kernel could not read the calls in the program, though there were some.
    failed: bool,
    /// For finding them in another way. Taken when that is done.
    copied: Option<Copied>,
}

impl UnnamedStack {
    fn of(raw: &RawEvent<'_>, stacks: &RawStacks<'_>) -> UnnamedStack {
        let bytes = stacks.user.as_ref().map(|stack| stack.bytes()).map_err(|errno| *errno);
        let by = &raw.by;
        let failed = bytes.is_err() && !by.kernel && !by.exiting;
        let mut stack = stacks::without_frames(by.kernel, bytes);
        if let Ok(user) = &stacks.user {
            stack.user = stacks::user_frames(user);
        }
        let has_some = !by.kernel && !by.exiting;
        let copied = stacks.copied.as_ref().filter(|_| has_some).map(unwind::copied);
        // With a copy, only the last way that fails is a loss.
        let failed = failed && copied.is_none();
        let kernel = stacks.kernel.clone();
        UnnamedStack { pid: by.pid, started: by.started, stack, kernel, failed, copied }
    }
}

fn event_of(raw: RawEvent<'_>, known: &mut KnownBuffers, boot: SystemTime) -> Event {
    let after_boot = Duration::from_nanos(raw.at);
    let buffer = known.describe(raw.object, raw.what == Happening::Freed);
    Event { after_boot, at: boot + after_boot, what: raw.what, buffer, by: raw.by, stack: None }
}

/// This process.
fn own() -> Pid {
    Pid(getpid().as_raw_nonzero().get().cast_unsigned())
}

fn cannot_start(why: &Unavailable) -> Error {
    let kind = match why {
        Unavailable::Refused(Errno::PERM | Errno::ACCESS) => ErrorKind::PermissionDenied,
        _ => ErrorKind::NoSource,
    };
    let advice = match kind {
        ErrorKind::PermissionDenied => {
            "; run it as root, or with CAP_BPF and CAP_PERFMON. Where the kernel is locked down, or refuses \
             programs at its functions, nobody can"
        }
        _ => "",
    };
    Error::new(kind, format!("cannot trace: {why}{advice}"))
}
