//! The soak test: players change a random world, lsbuf scans it again and again, and every answer
//! is judged.
//!
//! It finds what no chosen scenario finds: wrong answers while references move. Players (module
//! `player`) make, share, move, map, split, rename and drop dma-bufs and memfds; they fork, exec
//! and exit. A seed decides every step. In a batch the players run freely while lsbuf scans. Then
//! all of them stop and report what they hold. The answers of the batch are judged by the journal
//! that the players wrote, and an answer about the paused world by its exact state. Module `judge`
//! has the claims. Other processes that hold nothing start and end all the time. The batches use
//! BPF iterators, where the kernel has them, and procfs in turn.
//!
//! A plan may have the world recorded while it runs; module `recorded` judges each sample, too.
//!
//! Limits: a seed repeats each player's choices, but not how the steps of different players
//! interleave. To repeat a failure, run its seed for a while. No thread has its own fd table here,
//! no fd is a fixed file of an io_uring, and lsbuf runs as root.

mod children;
mod exec;
mod figures;
mod history;
mod journal;
mod judge;
mod lists;
mod names;
mod play;
mod player;
pub(crate) mod random;
mod recorded;
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

use self::history::History;
use self::journal::PlayerReport;
use self::journal::{Entry, Journal, now};
use self::judge::TimedAnswer;
pub use self::lists::run_lists;
pub use self::names::{CHAIN_MODE, LISTS_MODE, PLAYER_MODE};
use self::player::{Exporters, Inbox, Orders, Player, raw};
use self::random::Random;
use self::recorded::{PAUSE, Recorded};
pub use self::tally::SoakTally;
use self::world::SoakWorld;
use crate::answer::{Answer, LSBUF};
use crate::make;
use crate::need::Need;
use crate::sys;
use crate::way::Way;

const SEATS: usize = 10;
/// How many answers of one batch are kept, which bounds the memory.
const SCANS: usize = 48;

/// What `soak` is to do.
#[derive(Clone, Copy, Debug)]
pub struct SoakPlan {
    /// How long it runs.
    pub time: Duration,
    /// The seed, which decides every step.
    pub seed: u64,
    /// Whether `lsbuf record` runs beside it, and its samples are judged, too.
    pub is_recorded: bool,
}

/// The mode: `soak SECONDS SEED`.
///
/// # Errors
///
/// The arguments are not numbers, or the world cannot be made or continued.
pub fn run_mode(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [seconds, seed] = arguments else { anyhow::bail!("usage: soak SECONDS SEED") };
    let plan =
        SoakPlan { time: Duration::from_secs(seconds.parse()?), seed: seed.parse()?, is_recorded: false };
    let tally = run(plan, |line| println!("{line}"))?;
    Ok(if tally.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The mode of a player that has called exec.
///
/// # Errors
///
/// The error that ended the player.
pub fn run_player(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [baton] = arguments else { anyhow::bail!("usage: {PLAYER_MODE} BATON") };
    Player::resume(baton)?;
    Ok(ExitCode::SUCCESS)
}

/// The mode of a child that executes its program again and again: `soak-chain TIMES BEGAN`.
///
/// # Errors
///
/// The kernel refuses, or the journal cannot be written.
pub fn run_chain(arguments: &[String]) -> anyhow::Result<ExitCode> {
    children::chain(arguments)
}

/// Runs the soak test. It passes each line of its output to `say`.
///
/// # Errors
///
/// The world cannot be made or continued. A mistake of lsbuf is no error: it is counted.
pub fn run(plan: SoakPlan, mut say: impl FnMut(&str)) -> anyhow::Result<SoakTally> {
    let begun = Instant::now();
    let mut tally = SoakTally::new(plan.seed)?;
    tally.beside_recorder = plan.is_recorded;
    let noise = noise()?;
    let mut conductor = Conductor::new(plan, raw(noise)?)?;
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

/// Starts a process that starts about twenty others a second. They live for some milliseconds and
/// hold nothing.
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

/// The conductor's side of a player.
#[derive(Debug)]
struct Seat {
    pid: u32,
    control: BufReader<UnixStream>,
}

#[derive(Debug)]
struct Conductor {
    exporters: Exporters,
    inboxes: Vec<Inbox>,
    /// `None` if the player has ended.
    seats: Vec<Option<Seat>>,
    journal: Journal,
    random: Random,
    world: SoakWorld,
    batches: u64,
    /// The sources that lsbuf is told to use, in turn.
    ways: &'static [Way],
    /// Whether players send messages in the next batch.
    mail: bool,
    /// The process that starts others, which is stopped while the paused world is scanned.
    noise: Pid,
    recorded: Option<Recorded>,
    /// When the world was paused last.
    paused_at: u64,
}

impl Conductor {
    fn new(plan: SoakPlan, noise: Pid) -> anyhow::Result<Conductor> {
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
            exporters: Exporters { heap, udmabuf, vgem, vgem_shows },
            inboxes: (0..SEATS).map(inbox).collect::<rustix::io::Result<_>>().context("making inboxes")?,
            seats: (0..SEATS).map(|_| None).collect(),
            journal,
            random: Random::new(plan.seed),
            world: SoakWorld::default(),
            batches: 0,
            ways: if Need::Iterators.probe() { Way::BOTH } else { &[Way::Procfs] },
            mail: false,
            noise,
            recorded: plan.is_recorded.then(Recorded::start).transpose()?,
            paused_at: now(),
        })
    }

    /// Runs one batch and the pause after it.
    fn batch(&mut self, tally: &mut SoakTally, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        self.batches += 1;
        (tally.batch, tally.way) = (self.batches, self.way());
        // Batches with short sleeps have the most races. Batches with long sleeps have the most
        // buffers that no step changes during a scan.
        let (sleep, most) = [(0, 500), (500, 500), (5_000, 300), (30_000, 100)][self.random.index(4)];
        // The first batches are short, so that a short soak has several.
        let most = if self.batches <= 12 { most / 4 } else { most };
        let steps = u32::try_from(20 + self.random.below(most))?;
        let mail = self.mail;
        let scans = self.play(|seed| Orders { seed, steps, sleep, mail, drain: false }, true)?;
        let history = self.pause(tally)?;
        // Output keeps process 1 busy, so nothing is printed until the scan is over.
        let answer = self.look()?;
        tally.judged_running(&history, &scans, say);
        tally.judged_paused(&self.world, &answer, say);
        self.tell(history);
        // While references are in messages, hardly any residual is exact, so half of the batches
        // end without messages.
        self.mail = self.random.one_in(2);
        if !self.mail {
            self.play(|seed| Orders { seed, steps: 0, sleep: 0, mail: false, drain: true }, false)?;
            let history = self.pause(tally)?;
            ensure!(self.world.in_flight() == 0, "messages are left after a drain");
            let answer = self.look()?;
            tally.judged_paused(&self.world, &answer, say);
            self.tell(history);
        }
        match &mut self.recorded {
            Some(recorded) => recorded.judge(tally, say),
            None => Ok(()),
        }
    }

    /// Keeps what happened, if it was recorded.
    fn tell(&mut self, history: History) {
        if let Some(recorded) = &mut self.recorded {
            recorded.tell(history, self.paused_at);
        }
    }

    /// The source that lsbuf is told to use in this batch.
    fn way(&self) -> Way {
        let nth = self.batches as usize % self.ways.len();
        self.ways.get(nth).copied().unwrap_or(Way::Procfs)
    }

    /// The command that asks lsbuf for JSON.
    fn lsbuf(&self) -> Command {
        let mut command = Command::new(LSBUF);
        self.way().choose(command.args(["--json", "--kind", "dmabuf,memfd"]));
        command
    }

    /// Gives orders to every player, and scans until all have carried them out.
    fn play(&mut self, orders: impl Fn(u64) -> Orders, scan: bool) -> anyhow::Result<Vec<TimedAnswer>> {
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
        let scan = |(began, ended, output)| Ok(TimedAnswer { began, ended, answer: Answer::of(&output)? });
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

    /// Runs the player, in a forked child.
    fn be_player(&self, seat: usize, control: Option<UnixStream>) -> anyhow::Result<()> {
        let control = control.context("no socket")?;
        // Ten players leave little of two processors to a scan. With this priority a scan gets most
        // of one.
        setpriority_process(None, 8).context("lowering the priority")?;
        let inboxes = self
            .inboxes
            .iter()
            .map(|inbox| Ok(Inbox { to: inbox.to.try_clone()?, from: inbox.from.try_clone()? }));
        let inboxes = inboxes.collect::<std::io::Result<_>>()?;
        Player::new(seat, self.exporters, control, inboxes)?.play()
    }

    /// Takes all reports, reaps the players that have ended, and updates the world.
    fn pause(&mut self, tally: &mut SoakTally) -> anyhow::Result<History> {
        let mut report = PlayerReport::new();
        for seat in &mut self.seats {
            let Some(player) = seat else { continue };
            let mut line = String::new();
            // If a player is killed while a message to it is unread, the connection is reset.
            let read = player.control.read_line(&mut line).unwrap_or(0);
            if read > 0 {
                let said: PlayerReport = serde_json::from_str(&line).context("understanding a player")?;
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
        self.paused_at = now();
        let records = self.journal.take()?;
        tally.happened(&records);
        let history = History::of(std::mem::take(&mut self.world), records);
        self.world = history.start.at(&history.records, u64::MAX);
        self.world.prune();
        if let Some(difference) = self.world.differs(&report) {
            anyhow::bail!(
                "the players' reports contradict the journal in batch {}: {difference}",
                self.batches
            );
        }
        Ok(history)
    }

    /// Scans the world while it is paused.
    fn look(&mut self) -> anyhow::Result<Answer> {
        kill_process(self.noise, Signal::STOP).context("holding the noise")?;
        let answer = Answer::from(&mut self.lsbuf())?;
        if let Some(recorded) = &mut self.recorded {
            // While another lsbuf runs, or the last of the noise ends, the recorder can only
            // estimate.
            std::thread::sleep(PAUSE / 2);
            let quiet = now();
            std::thread::sleep(PAUSE);
            recorded.paused(quiet, &self.world);
        }
        kill_process(self.noise, Signal::CONT).context("letting the noise go on")?;
        Ok(answer)
    }

    /// Ends every player.
    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(recorded) = self.recorded.take() {
            recorded.end()?;
        }
        for seat in self.seats.drain(..).flatten() {
            kill_process(raw(seat.pid)?, Signal::KILL).context("ending a player")?;
            waitpid(Some(raw(seat.pid)?), WaitOptions::empty()).context("reaping a player")?;
        }
        Ok(())
    }
}
