//! Decides what is proven: whether what a buffer's count leaves over is exact, and whether one more
//! reading could mend what is not.
//!
//! # The proof
//!
//! Let a reading find some references of a buffer, and let the kernel have counted `n` more. That number
//! is wrong if a reference which counted belongs to a process and was not found, or if one that was found
//! had gone by then. Each of these needs a cause *during the reading*:
//!
//! - a task moved, closed, received or mapped a reference while it was read: it ran
//!   ([`Witness::ran`]);
//! - a task was inside a call that keeps references in no table, a fork for one. If the call had ended
//!   by the end of the reading, the task ran; else it is seen in it ([`Witness::in_call`]);
//! - a task had given up its tables and not yet released them ([`Witness::exiting`]);
//! - a process was started after the processes were listed ([`Witness::processes_changed`]).
//!
//! So a reading that has none of these is exact. Where the count leaves nothing over, only the holders that
//! were found can be the cause: a sum that reaches the count is only wrong if one of them has let go.
//! A message has no holder: where one was found, anybody that ran can be the cause.
//!
//! On a busy machine something runs at any time. Then several readings must find the same references and
//! the same count, and no process may have run in every one of them: whoever hid a reference from all
//! readings ran in all of them.
//!
//! # Limits
//!
//! The proof does not cover these cases. Nothing tells them apart from a reference of the kernel's.
//!
//! - Several readings that different processes made wrong by the same number: one hid its reference from
//!   the first, then it changed hands or went, and another process hid one from the second. This cannot
//!   happen in a single reading in which nothing ran.
//! - By procfs, an address space that several processes share (CLONE_VM): one that showed no mapping of the
//!   buffer is not known to share it, and may map and unmap it while the others sleep.
//! - A message that an io_uring's worker waits to send, and one whose receiver sleeps in the middle of
//!   taking fds out of it (its buffer is a page that somebody else fills).
//! - References that a call takes for itself as it sleeps (poll, an ioctl that waits for a fence) count as
//!   the kernel's, as whatever else the kernel keeps.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::assemble::assemble;
use super::reading::{Assembled, Effort, Reading, Seen, Witness};
use crate::model::{Buffer, BufferId, Kind, Pid, Residual, Why};

/// How long a scan may go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// So many readings are made if they are needed, however long they take.
    pub(super) readings: u32,
    /// A few more are made within this time.
    pub(super) time: Duration,
}

impl Limits {
    /// Readings beyond [`Limits::readings`].
    const MORE: u32 = 5;
}

/// What comes after a reading.
#[derive(Debug)]
pub(super) enum Step {
    /// Another reading, after a pause of that length: what disturbed this one may be over by then.
    Again(Effort, Duration),
    /// The answer.
    Done(Box<Settled>),
}

/// The answer, with what its reader must know.
#[derive(Debug)]
pub(super) struct Settled {
    /// Ordered by identity.
    pub(super) buffers: Vec<Buffer>,
    pub(super) seen: Seen,
    /// Processes that ran in every reading, as far as residuals are no more than estimates because of them.
    pub(super) ran: BTreeSet<Pid>,
    /// Processes that were inside a call.
    pub(super) in_call: BTreeSet<Pid>,
    /// Whoever may hold buffers of kinds that have no list and do not show; `None`: nobody.
    pub(super) may_miss: Option<BTreeSet<Pid>>,
}

/// What the readings so far prove.
#[derive(Debug)]
pub(super) struct Settling {
    limits: Limits,
    begun: Instant,
    taken: u32,
    effort: Effort,
    evidence: HashMap<BufferId, Evidence>,
    /// Which buffers the last reading found, in one number.
    found: Option<u64>,
    /// Who changed mappings, or was inside a call, in every reading that found just these and whose processes stayed the same;
    /// `None`: there was none.
    remapped: Option<BTreeSet<Pid>>,
    hasher: RandomState,
}

/// What is known of one buffer.
#[derive(Clone, Debug)]
struct Evidence {
    /// Its references, its count and what is left over, in one number.
    account: u64,
    /// Who ran in every reading that found just these; `None`: each of them was disturbed otherwise.
    suspects: Option<Rc<BTreeSet<Pid>>>,
}

/// What one reading alone says of a residual.
enum ReadingVerdict {
    /// Nothing that other readings prove can change it.
    Fixed(Residual),
    /// Nobody can have made it wrong.
    Proved(u64),
    /// These may have made it wrong.
    Suspects(u64, Rc<BTreeSet<Pid>>),
    /// Something else disturbed it.
    Disturbed(u64, Why),
}

impl ReadingVerdict {
    fn of(
        one: &Assembled,
        seen: &Seen,
        witness: &Witness,
        ran: Option<&Rc<BTreeSet<Pid>>>,
    ) -> ReadingVerdict {
        match left_over(one, seen) {
            Err(residual) => ReadingVerdict::Fixed(residual),
            Ok(number) => match suspects(one, number, witness, ran) {
                Ok(Some(suspects)) => ReadingVerdict::Suspects(number, suspects),
                Ok(None) => ReadingVerdict::Proved(number),
                Err(why) => ReadingVerdict::Disturbed(number, why),
            },
        }
    }

    /// Whether no other reading is needed.
    fn is_final(&self) -> bool {
        match self {
            ReadingVerdict::Fixed(residual) => residual.is_exact(),
            ReadingVerdict::Proved(_) => true,
            ReadingVerdict::Suspects(..) | ReadingVerdict::Disturbed(..) => false,
        }
    }
}

impl Settling {
    /// Nothing was read yet.
    pub(super) fn new(limits: Limits) -> Settling {
        Settling {
            limits,
            begun: Instant::now(),
            taken: 0,
            effort: Effort::default(),
            evidence: HashMap::new(),
            found: None,
            remapped: None,
            hasher: RandomState::new(),
        }
    }

    /// What the first reading looks at.
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// Takes a reading: decides every residual, and whether another reading could mend one.
    pub(super) fn take(&mut self, mut reading: Reading) -> Step {
        self.taken += 1;
        let mut assembled = assemble(&mut reading);
        let Reading { witness, coverage: seen, .. } = reading;
        let mut outcome = Settled {
            buffers: Vec::new(),
            seen,
            ran: BTreeSet::new(),
            in_call: witness.in_call.clone().unwrap_or_default(),
            may_miss: None,
        };
        let (mut again, mut thorough, mut calls) = (false, false, false);
        if !outcome.seen.listed {
            (outcome.may_miss, again) = self.may_miss(&assembled, &witness);
        }
        let ran = witness.ran.clone().map(Rc::new);
        let verdicts: Vec<ReadingVerdict> = assembled
            .iter()
            .map(|one| ReadingVerdict::of(one, &outcome.seen, &witness, ran.as_ref()))
            .collect();
        // What this reading proves is only worth keeping where another one follows or came before.
        let alone = self.evidence.is_empty() && verdicts.iter().all(ReadingVerdict::is_final);
        for (one, verdict) in assembled.iter_mut().zip(verdicts) {
            let (residual, suspects) = self.residual(one, verdict, alone);
            again |= residual.why().is_some_and(|why| is_mendable(one, why, &outcome.seen));
            // What was passed over may be what is left over, or hidden by a count that moved.
            thorough |= outcome.seen.passed_over && residual != Residual::Exact(0);
            calls |= residual.number() > Some(0) && witness.in_call.is_none();
            outcome.ran.extend(suspects.iter().flat_map(|suspects| suspects.iter()));
            if residual == Residual::Exact(0) && one.buffer.id.kind == Kind::DmaBuf {
                // A sum that reaches the count leaves no room for another reference.
                for kept in [&mut one.buffer.in_flight, &mut one.buffer.io_uring, &mut one.buffer.exe] {
                    *kept = kept.or(Some(0));
                }
            }
            one.buffer.residual = residual;
        }
        outcome.buffers = assembled.into_iter().map(|one| one.buffer).collect();
        self.effort.thorough |= thorough;
        self.effort.calls |= calls;
        let more = self.taken < self.limits.readings
            || self.limits.readings > 1
                && self.taken < self.limits.readings.saturating_add(Limits::MORE)
                && self.begun.elapsed() < self.limits.time;
        if (again || thorough) && more {
            Step::Again(self.effort, self.pause())
        } else {
            Step::Done(Box::new(outcome))
        }
    }

    /// The first readings follow at once; then whoever comes, goes or works gets some time.
    fn pause(&self) -> Duration {
        const STEP: Duration = Duration::from_millis(4);
        const LONGEST: Duration = Duration::from_millis(20);
        (STEP * self.taken.saturating_sub(1)).min(LONGEST)
    }

    /// What is left over of one buffer by this reading and those before, unless it stands `alone`; and who may be the cause
    /// where that is not proven for their sake.
    fn residual(
        &mut self,
        one: &Assembled,
        verdict: ReadingVerdict,
        alone: bool,
    ) -> (Residual, Option<Rc<BTreeSet<Pid>>>) {
        let (number, now) = match verdict {
            ReadingVerdict::Fixed(residual) => return (residual, None),
            ReadingVerdict::Proved(number) if alone => return (Residual::Exact(number), None),
            ReadingVerdict::Proved(number) => (number, Ok(Rc::default())),
            ReadingVerdict::Suspects(number, suspects) => (number, Ok(suspects)),
            ReadingVerdict::Disturbed(number, why) => (number, Err(why)),
        };
        let account = self.hasher.hash_one((&one.buffer.holders, one.buffer.count, number));
        let evidence = self.evidence.entry(one.buffer.id).or_insert(Evidence { account, suspects: None });
        if evidence.account != account {
            *evidence = Evidence { account, suspects: None };
        }
        let disturbed = match now {
            Ok(suspects) => {
                evidence.suspects = Some(match evidence.suspects.take() {
                    Some(before) => Rc::new(&*before & &*suspects),
                    None => suspects,
                });
                Why::Ran
            }
            Err(why) => why,
        };
        match &evidence.suspects {
            Some(suspects) if suspects.is_empty() => (Residual::Exact(number), None),
            Some(suspects) => (Residual::Estimate(number, Why::Ran), Some(Rc::clone(suspects))),
            None => (Residual::Estimate(number, disturbed), None),
        }
    }

    /// Adds a reading's witness of what may be missing where nothing lists the buffers; and whether another reading may clear
    /// those who are left: not if the same are left as before this one, who change their mappings all the time.
    fn may_miss(&mut self, assembled: &[Assembled], witness: &Witness) -> (Option<BTreeSet<Pid>>, bool) {
        let ids: Vec<BufferId> = assembled.iter().map(|one| one.buffer.id).collect();
        let found = self.hasher.hash_one(ids);
        if self.found.replace(found).is_some_and(|before| before != found) {
            // Another reading's proof is about what that one found.
            self.remapped = None;
        }
        let disturbed = witness.processes_changed || witness.exiting || witness.ran.is_none();
        // Whose calls could not be asked is said to be unreadable already.
        let in_call = witness.in_call.clone().unwrap_or_default();
        let now = (!disturbed).then(|| &witness.remapped | &in_call);
        let left = match (&self.remapped, now) {
            (Some(before), Some(now)) => Some(before & &now),
            (None, Some(now)) => Some(now),
            (_, None) => None,
        };
        let is_stuck = left.is_some() && left == self.remapped;
        self.remapped = left.or(self.remapped.take());
        match &self.remapped {
            Some(always) if always.is_empty() => (None, false),
            Some(always) => (Some(always.clone()), !is_stuck),
            None => (Some(BTreeSet::new()), true),
        }
    }
}

/// What the count leaves over, if nothing but the time of the reading can make it wrong; else all that can be said.
fn left_over(one: &Assembled, seen: &Seen) -> Result<u64, Residual> {
    let Assembled { buffer, counted, uncompared } = one;
    let Some(count) = buffer.count else { return Err(Residual::Unknown(Why::NotCounted)) };
    let Some(number) = count.checked_sub(buffer.found()) else {
        return Err(Residual::Unknown(Why::Overcounted));
    };
    let kept_is_known = buffer.in_flight.is_some() && buffer.io_uring.is_some();
    let why = [
        (number > 0 && seen.gaps.hide_references(), Why::Unread),
        (*uncompared, Why::Uncompared),
        (counted.more_files > 0, Why::MoreFiles),
        (!counted.held_still, Why::CountMoved),
        (number > 0 && (seen.passed_over || !kept_is_known), Why::MaybeInFlight),
    ];
    match why.into_iter().find(|(applies, _)| *applies) {
        Some((_, why)) => Err(Residual::Estimate(number, why)),
        None => Ok(number),
    }
}

/// Who may have made a reading wrong about what is left over of a buffer; `None`: nobody. Or what else disturbed it.
fn suspects(
    one: &Assembled,
    number: u64,
    witness: &Witness,
    ran: Option<&Rc<BTreeSet<Pid>>>,
) -> Result<Option<Rc<BTreeSet<Pid>>>, Why> {
    let Some(ran) = ran else { return Err(Why::NotWatched) };
    let whoever = || (!ran.is_empty()).then(|| Rc::clone(ran));
    if number == 0 {
        let is_kept = [one.buffer.in_flight, one.buffer.io_uring].into_iter().flatten().any(|kept| kept > 0);
        if is_kept {
            // Whoever ran may have sent a message and taken it back.
            return Ok(whoever());
        }
        let holders = one.buffer.holders.iter().map(|holder| holder.pid);
        let ran: BTreeSet<Pid> = holders.filter(|pid| ran.contains(pid)).collect();
        return Ok((!ran.is_empty()).then(|| Rc::new(ran)));
    }
    match &witness.in_call {
        None => Err(Why::NotWatched),
        Some(_) if witness.moved => Err(Why::Moved),
        Some(in_call) if !in_call.is_empty() || witness.exiting => Err(Why::InCall),
        Some(_) if witness.processes_changed => Err(Why::ProcessesChanged),
        Some(_) => Ok(whoever()),
    }
}

/// Whether another reading could give a better answer.
fn is_mendable(one: &Assembled, why: Why, seen: &Seen) -> bool {
    match why {
        Why::NotCounted | Why::Unread => false,
        Why::Uncompared | Why::MaybeInFlight => seen.passed_over,
        // A segment's attachments are read once in a reading.
        Why::CountMoved => one.buffer.id.kind != Kind::Sysv,
        Why::Overcounted
        | Why::MoreFiles
        | Why::Moved
        | Why::InCall
        | Why::ProcessesChanged
        | Why::Ran
        | Why::NotWatched => true,
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "settle_model/mod.rs"]
mod model;
