//! Compares lsbuf's answer about a paused world with the truth about it.
//!
//! Every holder with its slots, addresses and offsets, every size and allocation, and every sum of
//! references must equal those of the plain reading, whatever lsbuf's source is. The true residual
//! is known too: the world says how many fds it left in messages, and nothing else keeps a buffer.
//! An exact answer must give that residual. Only a source that cannot know it may give an estimate,
//! or no number.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::making::DevIno;
use super::reading::{FdSlots, MappedRange, Memory, MemoryKey, PlainReading, ProcessRefs};
use super::source::ComparedSource;
use crate::answer::Answer;

/// The truth about one world: the plain reading, and the fds in messages.
#[derive(Debug)]
pub(super) struct WorldTruth {
    reading: PlainReading,
    /// How many fds of each object are in messages.
    flights: BTreeMap<MemoryKey, u64>,
}

/// The parts of one source's answer that are compared with another source's: names, and figures of
/// processes.
#[derive(Debug, Default)]
pub(super) struct ComparedParts {
    names: BTreeMap<MemoryKey, String>,
    charges: BTreeMap<u64, [Option<u64>; 4]>,
}

impl WorldTruth {
    /// The truth from a plain reading, and from the fds that the world left in messages.
    pub(super) fn new(reading: PlainReading, flights: &BTreeMap<DevIno, u64>) -> WorldTruth {
        let key = |(dev, ino): DevIno| match reading.key(dev, ino, b"/") {
            Some(key) => key,
            None => MemoryKey::DmaBuf(ino),
        };
        let flights = flights.iter().map(|(&inode, &fds)| (key(inode), fds)).collect();
        WorldTruth { reading, flights }
    }

    /// How many objects the world has.
    pub(super) fn len(&self) -> usize {
        self.reading.objects.len()
    }

    /// What is wrong with an answer, and its parts that are compared with another source's. The
    /// answer's estimates are counted by their reasons.
    pub(super) fn judge(
        &self,
        answer: &Answer,
        source: ComparedSource,
        reasons: &mut BTreeMap<String, u64>,
    ) -> (Vec<String>, ComparedParts) {
        let (mut wrong, mut said, mut seen) = (Vec::new(), ComparedParts::default(), BTreeSet::new());
        let complete = answer.0["scan"]["complete"] == true;
        if !complete && (source.counts || self.flights.is_empty()) {
            wrong.push(format!("the answer is partial: {}", answer.0["scan"]["notes"]));
        }
        for b in answer.list("buffers") {
            let Some(key) = self.key(b).filter(|key| !self.reading.is_outside_only(key)) else { continue };
            if !seen.insert(key.clone()) {
                wrong.push(format!("{key:?} is listed twice"));
            }
            if let Some(name) = b["name"].as_str() {
                said.names.insert(key.clone(), name.to_owned());
            }
            if let Some(reason) = b["estimate_reason"].as_str() {
                *reasons.entry(reason.to_owned()).or_default() += 1;
            }
            wrong.extend(self.buffer(&key, b, source));
        }
        for (key, object) in &self.reading.objects {
            if !seen.contains(key) && !self.reading.is_outside_only(key) {
                wrong.push(format!("{key:?} is missing: {object:?}"));
            }
        }
        for key in self.flights.keys() {
            let shown = seen.contains(key) || self.reading.objects.contains_key(key);
            if !shown && (complete || source.counts) {
                wrong.push(format!(
                    "{key:?} is in messages alone and missing, but the answer is called complete"
                ));
            }
        }
        for p in answer.list("processes") {
            let figures = ["rss", "pss", "mapped_pss", "uss"].map(|figure| p[figure].as_u64());
            said.charges.insert(p["pid"].as_u64().unwrap_or(0), figures);
        }
        (wrong, said)
    }

    /// The object of a row, if the plain reading covers it.
    fn key(&self, b: &Value) -> Option<MemoryKey> {
        let ino = b["ino"].as_u64()?;
        match b["kind"].as_str()? {
            "dmabuf" => Some(MemoryKey::DmaBuf(ino)),
            "sysv" => Some(MemoryKey::Segment(ino)),
            _ => {
                let dev = b["dev"].as_str()?;
                self.reading.looks_at(dev).then(|| MemoryKey::File(dev.to_owned(), ino))
            }
        }
    }

    fn buffer(
        &self,
        key: &MemoryKey,
        b: &Value,
        ComparedSource { counts, detailed, .. }: ComparedSource,
    ) -> Vec<String> {
        let in_flight = self.flights.get(key).copied().unwrap_or(0);
        let nothing = Memory::default();
        let object = self.reading.objects.get(key).unwrap_or(&nothing);
        let mut wrong = Vec::new();
        if object.parts.is_empty() && in_flight == 0 && !matches!(key, MemoryKey::Segment(_)) {
            wrong.push(format!("{key:?} is held by no process: {b}"));
        }
        let printed = parts(b);
        if printed != comparable(&object.parts, b, detailed) {
            wrong.push(format!(
                "holders of {key:?}\n  truth   {:?}\n  printed {printed:?}\n  {b}",
                object.parts
            ));
        }
        let known = self.reading.objects.contains_key(key);
        if known && b["size"] != object.size {
            wrong.push(format!("{key:?} has {} bytes: {b}", object.size));
        }
        if known && !b["charged"].is_null() && b["charged"] != object.charged {
            wrong.push(format!("{key:?} is charged {} bytes: {b}", object.charged));
        }
        let (refs, truth) = (&b["refs"], object.refs());
        for (name, figure) in [("fd", truth.fd), ("map", truth.map), ("opath", truth.opath)] {
            if refs[name] != figure {
                wrong.push(format!("{key:?} has {figure} {name}: {b}"));
            }
        }
        if !refs["private_map"].is_null() && refs["private_map"] != truth.private {
            wrong.push(format!("{key:?} has {} private mappings: {b}", truth.private));
        }
        wrong.extend(wrong_residual(
            key,
            b,
            counts,
            truth.fd + truth.map,
            in_flight,
            self.flights.is_empty(),
        ));
        wrong
    }
}

/// What is wrong with a row's residual, if processes have `found` references and messages have
/// `in_flight`. `quiet` says that no fd of the world is in a message.
fn wrong_residual(
    key: &MemoryKey,
    b: &Value,
    counts: bool,
    found: u64,
    in_flight: u64,
    quiet: bool,
) -> Option<String> {
    let refs = &b["refs"];
    let told =
        format!("{key:?} has {found} references in processes, {in_flight} in messages, no others: {b}");
    let counts = counts || !matches!(key, MemoryKey::File(..));
    if b["estimate"] == false && !refs["kernel"].is_null() {
        // A segment's count does not include the fds in messages, and procfs does not tell which
        // buffers are in messages.
        let untold = matches!(key, MemoryKey::Segment(_)) && !quiet && refs["in_flight"].is_null();
        let counted = if untold { 0 } else { in_flight };
        let right =
            refs["kernel"] == 0 && (untold || refs["in_flight"] == counted) && b["count"] == found + counted;
        return (!right).then_some(told);
    }
    let reason = b["estimate_reason"].as_str().unwrap_or_default();
    let allowed = match reason {
        "not-counted" => !counts && refs["kernel"].is_null() && b["count"].is_null(),
        "maybe-in-flight" => !quiet && refs["in_flight"].is_null() && refs["kernel"] == in_flight,
        _ => false,
    };
    (!allowed).then(|| format!("an estimate of a paused world ({reason}): {told}"))
}

/// The holders, as printed.
fn parts(b: &Value) -> BTreeMap<u32, ProcessRefs> {
    let holders = b["holders"].as_array().into_iter().flatten();
    let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let part = |holder: &Value| {
        let threads = holder["threads"].as_array().into_iter().flatten();
        let part = ProcessRefs {
            own: slots(holder),
            maps: holder["maps"].as_array().into_iter().flatten().map(map).collect(),
            threads: threads.filter_map(|thread| Some((number(&thread["tid"])?, slots(thread)))).collect(),
            fd_table_of: number(&holder["fd_table_of"]),
            address_space_of: number(&holder["address_space_of"]),
        };
        Some((number(&holder["pid"])?, part))
    };
    holders.filter_map(part).collect()
}

fn slots(table: &Value) -> FdSlots {
    let numbers = |key: &str| {
        let numbers = table[key].as_array().into_iter().flatten().filter_map(Value::as_u64);
        numbers.filter_map(|n| u32::try_from(n).ok()).collect()
    };
    FdSlots { fds: numbers("fds"), opaths: numbers("opaths") }
}

/// A mapping, as printed. An offset that is not printed becomes the largest number.
fn map(m: &Value) -> MappedRange {
    let address = |key: &str| {
        let text = m[key].as_str().and_then(|text| text.strip_prefix("0x")).unwrap_or_default();
        u64::from_str_radix(text, 16).unwrap_or(0)
    };
    let private = m["perms"].as_str().is_some_and(|perms| perms.contains('p'));
    (address("start"), address("end"), m["offset"].as_u64().unwrap_or(u64::MAX), private)
}

/// The true holders without what lsbuf need not print: the offsets of DRM's dma-bufs, and offsets
/// and protections if the source has no such details.
fn comparable(parts: &BTreeMap<u32, ProcessRefs>, b: &Value, detailed: bool) -> BTreeMap<u32, ProcessRefs> {
    let mut parts = parts.clone();
    if b["exporter"] == crate::make::DRM || !detailed {
        for part in parts.values_mut() {
            let map = |&(start, end, _, private): &MappedRange| (start, end, u64::MAX, private && detailed);
            part.maps = part.maps.iter().map(map).collect();
        }
    }
    parts
}

/// Where two sources contradict each other.
pub(super) fn differences(one: &ComparedParts, other: &ComparedParts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, name) in &one.names {
        if let Some(second) = other.names.get(key).filter(|second| *second != name) {
            wrong.push(format!("{key:?} has two names, {name:?} and {second:?}"));
        }
    }
    for (pid, figures) in &one.charges {
        let Some(others) = other.charges.get(pid) else { continue };
        let differ = |(a, b): (&Option<u64>, &Option<u64>)| a.zip(*b).is_some_and(|(a, b)| a != b);
        if figures.iter().zip(others).any(differ) {
            wrong.push(format!("process {pid}: rss, pss, mapped_pss, uss {figures:?} and {others:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row of a memfd that one fd holds and one message.
    fn row(count: Value, in_flight: Value, kernel: Value, reason: Value) -> Value {
        let estimate = !reason.is_null() && !kernel.is_null();
        json!({
            "kind": "memfd", "dev": "0:1", "ino": 7, "count": count, "estimate": estimate, "estimate_reason": reason,
            "refs": {"in_flight": in_flight, "kernel": kernel},
        })
    }

    /// Check that a residual must be true if it is exact, may be unknown if the source does not
    /// count, may be an estimate if the source does not see messages, and nothing else.
    #[test]
    fn residuals() {
        let wrong = |b: Value, counts: bool, quiet: bool| {
            wrong_residual(&MemoryKey::File("0:1".into(), 7), &b, counts, 1, 1, quiet).is_some()
        };
        let unknown = || row(Value::Null, Value::Null, Value::Null, json!("not-counted"));
        let open = || row(json!(2), Value::Null, json!(1), json!("maybe-in-flight"));
        assert!(!wrong(row(json!(2), json!(1), json!(0), Value::Null), true, false));
        assert!(wrong(row(json!(1), json!(0), json!(0), Value::Null), true, false));
        assert!(!wrong(unknown(), false, false) && wrong(unknown(), true, false));
        assert!(!wrong(open(), false, false) && wrong(open(), false, true));
        assert!(wrong(row(json!(2), json!(1), json!(0), json!("processes-ran")), true, false));
    }

    /// Check that holders are read as printed, and that only details that the source has are
    /// compared.
    #[test]
    fn holders() {
        let b = json!({"holders": [{
            "pid": 9, "fds": [3, 5], "opaths": [4], "fd_table_of": 8, "address_space_of": null,
            "maps": [{"start": "0x1000", "end": "0x3000", "offset": 4096, "perms": "rw-p"}],
            "threads": [{"tid": 10, "fds": [6], "opaths": []}],
        }]});
        let slots = |fds: &[u32], opaths: &[u32]| FdSlots {
            fds: fds.iter().copied().collect(),
            opaths: opaths.iter().copied().collect(),
        };
        let part = ProcessRefs {
            own: slots(&[3, 5], &[4]),
            maps: [(0x1000, 0x3000, 4096, true)].into(),
            threads: [(10, slots(&[6], &[]))].into(),
            fd_table_of: Some(8),
            address_space_of: None,
        };
        let parts_ = BTreeMap::from([(9, part)]);
        assert_eq!(parts(&b), parts_);
        assert_eq!(comparable(&parts_, &b, true), parts_);
        assert!(comparable(&parts_, &b, false)[&9].maps.contains(&(0x1000, 0x3000, u64::MAX, false)));
    }

    /// Check that one source may know more than another, but that they may not contradict each
    /// other.
    #[test]
    fn contradictions() {
        let said = |name: &str, uss: Option<u64>| ComparedParts {
            names: [(MemoryKey::DmaBuf(7), name.to_owned())].into(),
            charges: [(9, [Some(1), Some(1), None, uss])].into(),
        };
        assert!(differences(&said("a", Some(4)), &said("a", None)).is_empty());
        assert_eq!(differences(&said("a", Some(4)), &said("b", Some(5))).len(), 2);
    }
}
