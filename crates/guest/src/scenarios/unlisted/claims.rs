//! What an answer claims about a buffer, compared with what is true of the buffer all the time.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::answer::Answer;
use crate::scenario::Ctx;

/// What is true of a buffer all the time that lsbuf is run.
#[derive(Debug)]
pub(super) struct Fact {
    /// The buffer's kind in lsbuf's JSON.
    pub(super) kind: &'static str,
    /// The buffer's inode number.
    pub(super) ino: u64,
    /// The smallest number of references that it ever has.
    pub(super) references: u64,
    /// The processes that hold it all the time.
    pub(super) holders: Vec<u32>,
}

/// What the answers said about the buffer.
#[derive(Debug, Default)]
struct ClaimCounts {
    exact: usize,
    estimates: usize,
    unknown: usize,
    partial: usize,
    /// False claims, and how often each was made.
    wrong: BTreeMap<String, usize>,
}

impl ClaimCounts {
    fn claim(&mut self, what: String) {
        *self.wrong.entry(what).or_default() += 1;
    }
}

impl Fact {
    /// Runs lsbuf for the buffer's kind `times` times, and compares what is claimed.
    pub(super) fn ask(&self, ctx: &mut Ctx, what: &str, times: usize) -> anyhow::Result<()> {
        let mut said = ClaimCounts::default();
        for _ in 0..times {
            self.add(&mut said, &Answer::ask(&["--kind", self.kind])?);
        }
        let ClaimCounts { exact, estimates, unknown, partial, wrong } = said;
        let told = format!(
            "{what}: {exact} exact accounts, {estimates} estimates, {unknown} without a count, {partial} partial answers without it"
        );
        ctx.check_eq(told, times, exact + estimates + unknown + partial + wrong.values().sum::<usize>())?;
        let wrong: Vec<String> =
            wrong.iter().map(|(claim, times)| format!("{times} times {claim}")).collect();
        ctx.check_eq(format!("{what}: false claims"), "", wrong.join("; "))
    }

    fn add(&self, said: &mut ClaimCounts, answer: &Answer) {
        let scan = &answer.0["scan"];
        let explained = scan["notes"].as_array().is_some_and(|notes| !notes.is_empty());
        let named = |b: &&Value| b["kind"] == self.kind && b["ino"] == self.ino;
        let Some(buffer) = answer.list("buffers").iter().find(named) else {
            if scan["complete"] == false && explained {
                said.partial += 1;
            } else {
                said.claim(format!("no row, complete {}, notes {}", scan["complete"], scan["notes"]));
            }
            return;
        };
        let (count, kernel) = (buffer["count"].as_u64(), buffer["refs"]["kernel"].as_u64());
        let claimed = buffer["estimate"] == false && count.is_some() && kernel.is_some();
        let holds = |pid: u32| {
            let holders = buffer["holders"].as_array().into_iter().flatten();
            holders.clone().any(|holder| holder["pid"] == pid)
        };
        let missing: Vec<u32> = self.holders.iter().copied().filter(|&pid| !holds(pid)).collect();
        let lacks_references = claimed && (kernel > Some(0) || count < Some(self.references));
        // An answer that says in any form that there may be more does not claim that this is all.
        let certain = claimed || (buffer["estimate"] == false && scan["complete"] == true && !explained);
        if lacks_references || (certain && !missing.is_empty()) {
            let (refs, pids) = (&buffer["refs"], format!("{missing:?}"));
            said.claim(format!("count {} = {refs}, without {pids}", buffer["count"]));
        } else if claimed {
            said.exact += 1;
        } else if buffer["estimate"] == true {
            said.estimates += 1;
        } else {
            said.unknown += 1;
        }
    }
}
