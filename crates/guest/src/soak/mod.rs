//! The soak: a random world in which lsbuf scans again and again, and every answer is judged.
//!
//! Players (in `player`) make, share, move, map, split, rename and lose dma-bufs and memfds, fork, exec and die, as a seed says. In a batch
//! they run freely while lsbuf scans; then all of them stop and say what they hold, and the answers of the batch are judged
//! by the journal that they wrote, and answers about the world at rest by what it is. `judge` has the claims. Besides,
//! processes that hold nothing start and end all the time. lsbuf asks by BPF iterators, where the kernel has them, and by procfs
//! in turns, batch by batch.
//!
//! A seed repeats each player's choices, but not how the players' steps fall between each other: a failure is repeated by
//! running its seed for a while, not at once. Limits: no thread has an fd table of its own here, no fd is a fixed file of
//! io_uring, and lsbuf runs as root.

mod children;
mod exec;
mod figures;
mod journal;
mod judge;
mod names;
mod past;
mod play;
mod player;
pub(crate) mod random;
mod steps;
mod tally;
mod world;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, setpriority_process, wait, waitpid};

use self::journal::Report;
use self::journal::{Entry, Journal, now};
use self::judge::Scan;
pub use self::names::{CHAIN_MODE, PLAYER_MODE};
use self::past::Past;
use self::player::{Inbox, Kinds, Orders, Player, raw};
use self::random::Random;
pub use self::tally::Tally;
use self::world::World;
use crate::answer::{Answer, LSBUF};
use crate::make;
use crate::need::Need;
use crate::sys;
use crate::way::Way;

const SEATS: usize = 10;
/// Answers of one batch that are kept, which bounds memory.
const SCANS: usize = 48;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// For how long.
    pub time: Duration,
    /// What decides every step.
    pub seed: u64,
}

/// The mode: `soak SECONDS SEED`.
///
/// # Errors
///
/// The arguments are no numbers, or the world cannot be made or kept going.
pub fn run_mode(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [seconds, seed] = arguments else { anyhow::bail!("usage: soak SECONDS SEED") };
    let plan = Plan { time: Duration::from_secs(seconds.parse()?), seed: seed.parse()? };
    let tally = run(plan, |line| println!("{line}"))?;
    Ok(if tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The mode of players that have called exec.
///
/// # Errors
///
/// What the player met.
pub fn run_player(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [baton] = arguments else { anyhow::bail!("usage: {PLAYER_MODE} BATON") };
    Player::resume(baton)?;
    Ok(ExitCode::SUCCESS)
}

/// The mode of a child that keeps running its program again: `soak-chain TIMES BEGAN`.
///
/// # Errors
///
/// The kernel refuses, or the journal cannot be written.
pub fn run_chain(arguments: &[String]) -> anyhow::Result<ExitCode> {
    children::chain(arguments)
}

/// Runs the soak and says what it has to say line by line.
///
/// # Errors
///
/// The world cannot be made or kept going. What lsbuf does wrong is counted instead.
pub fn run(plan: Plan, mut say: impl FnMut(&str)) -> anyhow::Result<Tally> {
    let begun = Instant::now();
    let mut tally = Tally::new(plan.seed)?;
    let noise = noise()?;
    let mut conductor = Conductor::new(plan.seed, raw(noise)?)?;
    while begun.elapsed() < plan.time {
        conductor.batch(&mut tally, &mut say)?;
        tally.minute(begun.elapsed(), &mut say)?;
    }
    conductor.end()?;
    kill_process(raw(noise)?, Signal::KILL).context("ending the noise")?;
    waitpid(Some(raw(noise)?), WaitOptions::empty()).context("reaping the noise")?;
    tally.summary(begun.elapsed(), &mut say)?;
    Ok(tally)
}

/// A process that starts some twenty others a second, which live for some milliseconds and hold nothing.
fn noise() -> anyhow::Result<u32> {
    sys::fork(|| {
        let mut random = Random::new(1);
        loop {
            let life = Duration::from_micros(random.below(60_000));
            let started = sys::fork(|| {
                std::thread::sleep(life);
                0
            });
            if started.is_err() {
                return 1;
            }
            std::thread::sleep(Duration::from_micros(30_000 + random.below(30_000)));
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        }
    })
}

/// A player as the conductor sees it.
#[derive(Debug)]
struct Seat {
    pid: u32,
    control: BufReader<UnixStream>,
}

#[derive(Debug)]
struct Conductor {
    kinds: Kinds,
    inboxes: Vec<Inbox>,
    /// A seat is empty where the player has ended.
    seats: Vec<Option<Seat>>,
    journal: Journal,
    random: Random,
    world: World,
    batches: u64,
    /// How lsbuf is asked, in turns.
    ways: &'static [Way],
    /// Whether players send in the next batch.
    mail: bool,
    /// The process that makes noise, which is held while the world stands still.
    noise: Pid,
}

impl Conductor {
    fn new(seed: u64, noise: Pid) -> anyhow::Result<Conductor> {
        let (heap, udmabuf, vgem) = (Need::Heap.probe(), Need::Udmabuf.probe(), Need::Vgem.probe());
        let vgem_shows = vgem && {
            let device = make::vgem()?;
            let dumb = device.create_dumb(make::at_least(sys::page())?)?;
            make::shows_when_mapped(&dumb.handle.export()?)?
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let inbox = |_| {
            let (to, from) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            Ok(Inbox { to, from })
        };
        let mut journal = Journal::open()?;
        journal.take()?;
        Ok(Conductor {
            kinds: Kinds { heap, udmabuf, vgem, vgem_shows },
            inboxes: (0..SEATS).map(inbox).collect::<rustix::io::Result<_>>().context("making inboxes")?,
            seats: (0..SEATS).map(|_| None).collect(),
            journal,
            random: Random::new(seed),
            world: World::default(),
            batches: 0,
            ways: if Need::Iterators.probe() { Way::BOTH } else { &[Way::Procfs] },
            mail: false,
            noise,
        })
    }

    /// One batch and the pause after it.
    fn batch(&mut self, tally: &mut Tally, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        self.batches += 1;
        (tally.batch, tally.way) = (self.batches, self.way());
        // Frantic batches have the most races, calm ones the most buffers that nobody touches during a scan.
        let (rest, most) = [(0, 500), (500, 500), (5_000, 300), (30_000, 100)][self.random.index(4)];
        // Short ones first, so that a short soak has several.
        let most = if self.batches <= 12 { most / 4 } else { most };
        let steps = u32::try_from(20 + self.random.below(most))?;
        let mail = self.mail;
        let scans = self.play(|seed| Orders { seed, steps, rest, mail, drain: false }, true)?;
        let past = self.pause(tally)?;
        // What is said keeps process 1 busy, so it is said when nothing is looked at.
        let answer = self.look()?;
        tally.judged_running(&past, &scans, say);
        tally.judged_paused(&self.world, &answer, say);
        // Where a message waits, hardly any rest is exact, so half of the batches have none.
        self.mail = self.random.one_in(2);
        if !self.mail {
            self.play(|seed| Orders { seed, steps: 0, rest: 0, mail: false, drain: true }, false)?;
            self.pause(tally)?;
            ensure!(self.world.in_flight() == 0, "messages are left after a drain");
            let answer = self.look()?;
            tally.judged_paused(&self.world, &answer, say);
        }
        Ok(())
    }

    /// How lsbuf is asked in this batch.
    fn way(&self) -> Way {
        let nth = self.batches as usize % self.ways.len();
        self.ways.get(nth).copied().unwrap_or(Way::Procfs)
    }

    /// lsbuf, to be asked for JSON.
    fn lsbuf(&self) -> Command {
        let mut command = Command::new(LSBUF);
        self.way().choose(command.args(["--json", "--kind", "dmabuf,memfd"]));
        command
    }

    /// Gives orders to every player and scans until all have followed them.
    fn play(&mut self, orders: impl Fn(u64) -> Orders, scan: bool) -> anyhow::Result<Vec<Scan>> {
        let mut waiting = Vec::new();
        for seat in 0..SEATS {
            if self.seats[seat].is_none() {
                self.seats[seat] = Some(self.start(seat)?);
            }
            let mut line = serde_json::to_string(&orders(self.random.next()))?;
            line.push('\n');
            if let Some(seat) = &mut self.seats[seat] {
                seat.control.get_mut().write_all(line.as_bytes()).context("giving orders")?;
            }
            waiting.push(seat);
        }
        let mut outputs: Vec<(u64, u64, Output)> = Vec::new();
        while !waiting.is_empty() {
            if scan && outputs.len() < SCANS {
                let began = now();
                let output = self.lsbuf().output().context("running lsbuf")?;
                outputs.push((began, now(), output));
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut left = Vec::new();
            for seat in waiting {
                if !self.has_spoken(seat)? {
                    left.push(seat);
                }
            }
            waiting = left;
        }
        let scan = |(began, ended, output)| Ok(Scan { began, ended, answer: Answer::of(&output)? });
        outputs.into_iter().map(scan).collect()
    }

    /// Whether a player has reported or ended.
    fn has_spoken(&self, seat: usize) -> anyhow::Result<bool> {
        let Some(seat) = &self.seats[seat] else { return Ok(true) };
        let mut fds = [PollFd::new(seat.control.get_ref(), PollFlags::IN)];
        Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("polling a player")? > 0)
    }

    fn start(&self, seat: usize) -> anyhow::Result<Seat> {
        let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
        let mut theirs = Some(theirs);
        let pid = sys::fork(|| match self.be_player(seat, theirs.take()) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("player {seat}: {error:#}");
                1
            }
        })?;
        Ok(Seat { pid, control: BufReader::new(ours) })
    }

    /// In a forked child.
    fn be_player(&self, seat: usize, control: Option<UnixStream>) -> anyhow::Result<()> {
        let control = control.context("no socket")?;
        // Ten players leave a scan little of two processors; with this it gets most of one.
        setpriority_process(None, 8).context("lowering the priority")?;
        let inboxes = self
            .inboxes
            .iter()
            .map(|inbox| Ok(Inbox { to: inbox.to.try_clone()?, from: inbox.from.try_clone()? }));
        let inboxes = inboxes.collect::<std::io::Result<_>>()?;
        Player::new(seat, self.kinds, control, inboxes)?.play()
    }

    /// Takes all reports, buries who has ended, and brings the world up to date.
    fn pause(&mut self, tally: &mut Tally) -> anyhow::Result<Past> {
        let mut report = Report::new();
        for seat in &mut self.seats {
            let Some(player) = seat else { continue };
            let mut line = String::new();
            // A player that was killed while a message to it waited resets the connection.
            let read = player.control.read_line(&mut line).unwrap_or(0);
            if read > 0 {
                let said: Report = serde_json::from_str(&line).context("understanding a player")?;
                report.extend(said);
                continue;
            }
            let (began, pid) = (now(), player.pid);
            let ended = waitpid(Some(raw(pid)?), WaitOptions::empty()).context("reaping a player")?;
            let fine = ended.is_some_and(|(_, status)| {
                status.exit_status() == Some(0) || status.terminating_signal() == Some(Signal::KILL.as_raw())
            });
            ensure!(fine, "player {pid} failed: {ended:?}");
            self.journal.note(began, vec![Entry::Gone { pid }])?;
            *seat = None;
        }
        let records = self.journal.take()?;
        tally.happened(&records);
        let past = Past::of(std::mem::take(&mut self.world), records);
        self.world = past.start.at(&past.records, u64::MAX);
        self.world.prune();
        if let Some(difference) = self.world.differs(&report) {
            anyhow::bail!("the soak's own books are wrong in batch {}: {difference}", self.batches);
        }
        Ok(past)
    }

    /// Scans the world while it stands still.
    fn look(&self) -> anyhow::Result<Answer> {
        kill_process(self.noise, Signal::STOP).context("holding the noise")?;
        let answer = Answer::from(&mut self.lsbuf())?;
        kill_process(self.noise, Signal::CONT).context("letting the noise go on")?;
        Ok(answer)
    }

    /// Ends every player: without orders, they go.
    fn end(&mut self) -> anyhow::Result<()> {
        for seat in self.seats.drain(..).flatten() {
            kill_process(raw(seat.pid)?, Signal::KILL).context("ending a player")?;
            waitpid(Some(raw(seat.pid)?), WaitOptions::empty()).context("reaping a player")?;
        }
        Ok(())
    }
}
