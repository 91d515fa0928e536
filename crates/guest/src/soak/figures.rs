//! The figures that each process should have, computed by code that shares nothing with lsbuf.
//!
//! It computes RSS, PSS, USS and the totals from the truth and from an answer, in the same way, to
//! compare them with what lsbuf printed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::world::SoakWorld;
use crate::answer::Answer;

/// One process's part of a buffer.
#[derive(Clone, Copy, Debug, Default)]
struct HolderPart {
    fds: u64,
    maps: u64,
    mapped: u64,
}

/// What the end of a buffer's only holder would free of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freed {
    All,
    Nothing,
    /// Nothing, or it is unknown.
    NothingOrUnknown,
    Unknown,
}

/// A buffer, reduced to what the figures depend on.
#[derive(Debug)]
struct Piece {
    size: u64,
    parts: BTreeMap<u32, HolderPart>,
    freed: Freed,
    /// Whether something besides the references may own the memory, as far as lsbuf can know: a
    /// memfd or another udmabuf with the same pages, an object of the driver.
    may_be_shared: bool,
}

/// Whether a process has a buffer by `O_PATH` fds alone. If all do, nothing tells its exporter.
fn is_by_path(hold: &super::journal::Hold) -> bool {
    hold.fds.is_empty() && hold.maps.is_empty()
}

/// Whether the memory of that exporter's buffers may have another owner than their references.
fn may_be_shared(exporter: &str) -> bool {
    ["udmabuf", crate::make::DRM].contains(&exporter)
}

/// All buffers, in a form in which the truth and an answer can be computed in the same way.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Piece>);

#[derive(Clone, Debug, Default)]
struct Charge {
    rss: u64,
    pss: u64,
    /// The least value. Rounding may add up to a byte for each mapped buffer.
    mapped_pss: u64,
    mapped_buffers: u64,
    uss: u64,
    uss_may_be_unknown: bool,
    uss_is_unknown: bool,
    buffers: u64,
    fds: u64,
    maps: u64,
}

impl Pieces {
    /// The buffers of the truth, without `hidden`, which the answer cannot know. An answer without
    /// counts of memfds (`counted` is false) cannot say what the end of a memfd's holder frees.
    pub(super) fn of_world(world: &SoakWorld, counted: bool, hidden: &BTreeSet<u64>) -> Pieces {
        let piece = |ino: u64| {
            let part = |(pid, hold): (u32, &super::journal::Hold)| {
                let mapped = hold.maps.iter().map(|(start, end, _)| (end - start) as u64).sum();
                let fds = (hold.fds.len() + hold.opaths.len()) as u64;
                (pid, HolderPart { fds, maps: hold.maps.len() as u64, mapped })
            };
            Piece {
                size: world.made.get(&ino).map_or(0, |made| made.size),
                parts: world.holders(ino).map(part).collect(),
                freed: match world.unseen(ino).total() {
                    _ if !counted && world.is_memfd(ino) => Freed::Unknown,
                    0 => Freed::All,
                    _ => Freed::Nothing,
                },
                may_be_shared: world.made.get(&ino).is_some_and(|made| may_be_shared(&made.exporter))
                    || !world.is_memfd(ino) && world.holders(ino).all(|(_, hold)| is_by_path(hold)),
            }
        };
        Pieces(world.alive().difference(hidden).copied().map(piece).collect())
    }

    /// The buffers of an answer; `None` if the cost of one is unknown.
    pub(super) fn of_answer(answer: &Answer) -> Option<Pieces> {
        let piece = |b: &Value| {
            let parts = b["holders"].as_array().into_iter().flatten().filter_map(|holder| {
                let len = |key: &str| holder[key].as_array().map_or(0, Vec::len) as u64;
                let maps = holder["maps"].as_array().into_iter().flatten();
                let mapped = maps.filter_map(|m| Some(address(&m["end"])? - address(&m["start"])?)).sum();
                let part = HolderPart { fds: len("fds") + len("opaths"), maps: len("maps"), mapped };
                Some((u32::try_from(holder["pid"].as_u64()?).ok()?, part))
            });
            let estimate = b["estimate"] == Value::Bool(true);
            let known = |key: &str| b["refs"][key].as_u64().unwrap_or(0);
            let elsewhere = known("in_flight") + known("io_uring") + known("exe");
            let freed = match b["refs"]["kernel"].as_u64().map(|kernel| kernel + elsewhere) {
                Some(0) if !estimate => Freed::All,
                Some(1..) if !estimate => Freed::Nothing,
                Some(1..) => Freed::NothingOrUnknown,
                Some(0) | None => Freed::Unknown,
            };
            let may_be_shared = b["kind"] == "dmabuf" && b["exporter"].as_str().is_none_or(may_be_shared);
            Some(Piece { size: cost(b)?, parts: parts.collect(), freed, may_be_shared })
        };
        answer.list("buffers").iter().map(piece).collect::<Option<_>>().map(Pieces)
    }

    fn charges(&self) -> BTreeMap<u32, Charge> {
        let mut charges: BTreeMap<u32, Charge> = BTreeMap::new();
        for piece in &self.0 {
            let holders = piece.parts.len() as u64;
            let mapped: u64 = piece.parts.values().map(|part| part.mapped).sum();
            for (nth, (&pid, part)) in piece.parts.iter().enumerate() {
                let charge = charges.entry(pid).or_default();
                charge.rss += piece.size;
                // Odd bytes go to the lowest pids.
                charge.pss += (piece.size + holders - 1 - nth as u64) / holders;
                if part.mapped > 0 {
                    let share = u128::from(piece.size) * u128::from(part.mapped) / u128::from(mapped);
                    // The share is at most the size, so it fits.
                    charge.mapped_pss += share as u64;
                    charge.mapped_buffers += 1;
                }
                if holders == 1 {
                    charge.uss += if piece.freed == Freed::All { piece.size } else { 0 };
                    charge.uss_may_be_unknown |= piece.freed == Freed::NothingOrUnknown;
                    charge.uss_may_be_unknown |= piece.freed == Freed::All && piece.may_be_shared;
                    charge.uss_is_unknown |= piece.freed == Freed::Unknown;
                }
                charge.buffers += 1;
                charge.fds += part.fds;
                charge.maps += part.maps;
            }
        }
        charges
    }

    /// The processes of an answer whose figures are wrong, and why.
    pub(super) fn wrong(&self, answer: &Answer) -> Vec<String> {
        let charges = self.charges();
        let mut wrong = Vec::new();
        for (pid, charge) in &charges {
            match answer.process(*pid) {
                Ok(printed) => {
                    wrong.extend(charge.differs(printed).map(|how| format!("process {pid}: {how}")))
                }
                Err(_) => wrong.push(format!("process {pid} is missing; it should be charged {charge:?}")),
            }
        }
        let listed = answer.list("processes").iter().filter_map(|p| p["pid"].as_u64());
        let stray = listed.filter(|&pid| !u32::try_from(pid).is_ok_and(|pid| charges.contains_key(&pid)));
        wrong.extend(stray.map(|pid| format!("process {pid} is listed and holds nothing")));
        let mapped: u64 =
            self.0.iter().filter(|p| p.parts.values().any(|part| part.mapped > 0)).map(|p| p.size).sum();
        let printed: u64 = answer.list("processes").iter().filter_map(|p| p["mapped_pss"].as_u64()).sum();
        if mapped != printed {
            wrong.push(format!(
                "mapped buffers have {mapped} bytes, the processes' mapped_pss sum up to {printed}"
            ));
        }
        wrong
    }

    /// What the totals of sizes should be: all, held, kernel-only, Σ RSS.
    pub(super) fn sums(&self) -> [u64; 4] {
        let sum = |keep: fn(&&Piece) -> bool| self.0.iter().filter(keep).map(|piece| piece.size).sum::<u64>();
        let rss = self.0.iter().map(|piece| piece.size * piece.parts.len() as u64).sum();
        [sum(|_| true), sum(|p| !p.parts.is_empty()), sum(|p| p.parts.is_empty()), rss]
    }

    /// How many buffers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Charge {
    fn differs(&self, printed: &Value) -> Option<String> {
        let number = |key: &str| printed[key].as_u64();
        let plain = [
            ("rss", self.rss),
            ("pss", self.pss),
            ("buffers", self.buffers),
            ("fds", self.fds),
            ("maps", self.maps),
        ];
        if let Some((key, value)) = plain.iter().find(|(key, value)| number(key) != Some(*value)) {
            return Some(format!("{key} should be {value}: {printed}"));
        }
        let least = self.mapped_pss;
        if !number("mapped_pss").is_some_and(|pss| (least..=least + self.mapped_buffers).contains(&pss)) {
            return Some(format!("mapped_pss should be {least}, rounded up for some buffers: {printed}"));
        }
        let uss_fits = match number("uss") {
            Some(uss) => uss == self.uss && !self.uss_is_unknown,
            None => self.uss_is_unknown || self.uss_may_be_unknown,
        };
        (!uss_fits).then(|| format!("uss does not fit {self:?}: {printed}"))
    }
}

/// An address as the JSON has it.
pub(super) fn address(text: &Value) -> Option<u64> {
    u64::from_str_radix(text.as_str()?.strip_prefix("0x")?, 16).ok()
}
/// What a buffer of the answer costs: its allocated bytes where they are known, else its size. A
/// memfd that has just been made may have a size and no allocated bytes.
pub(super) fn cost(b: &Value) -> Option<u64> {
    b["charged"].as_u64().or_else(|| b["size"].as_u64())
}
