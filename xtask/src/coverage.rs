//! Which runs of scenarios a kernel gets when all kernels get all scenarios.
//!
//! A scenario says on which kernels its claim must be tried ([`lsbuf_guest::kernels`]). Here that
//! is applied to the table. What a kernel lacks is not left out: it is sent to the guest like
//! everything else and comes back as a skip, so that the table's `lacks` stay proven.

use lsbuf_guest::need::Need;
use lsbuf_guest::scenario::Run;

use crate::fetch::Bootable;
use crate::verdict::Selected;

/// What one kernel gets of some runs.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    left_out: Vec<bool>,
    able: usize,
}

/// What each of `kernels` gets of `runs`, oldest kernel first: every run, or if `thin` only those
/// that a scenario's claim needs there.
pub(crate) fn shares(runs: &[Run], kernels: &[Bootable], thin: bool) -> Vec<Share> {
    let lacks: Vec<&[Need]> =
        kernels.iter().map(|kernel| kernel.lacks.as_deref().unwrap_or_default()).collect();
    share(runs, &lacks, thin)
}

fn share(runs: &[Run], lacks: &[&[Need]], thin: bool) -> Vec<Share> {
    let mut shares = vec![Share { left_out: Vec::new(), able: 0 }; lacks.len()];
    for &run in runs {
        let chosen = run.kernels(lacks);
        for (place, (share, lacks)) in shares.iter_mut().zip(lacks).enumerate() {
            let able = !run.needs().any(|need| lacks.contains(&need));
            let left_out = thin && able && !chosen.contains(&place);
            share.left_out.push(left_out);
            share.able += usize::from(able && !left_out);
        }
    }
    shares
}

impl Share {
    /// How many of the runs the kernel gets and has what they need: a measure of how long it takes.
    pub(crate) fn able(&self) -> usize {
        self.able
    }

    /// The names of the runs that the guest is to do.
    pub(crate) fn names(&self, runs: &[Run]) -> Vec<String> {
        let wanted = runs.iter().zip(&self.left_out).filter(|(_, left_out)| !**left_out);
        wanted.map(|(run, _)| run.to_string()).collect()
    }

    /// What the report of the guest is compared with.
    pub(crate) fn selected(&self, runs: &[Run]) -> Vec<Selected> {
        let one = |(run, &left_out): (&Run, &bool)| Selected {
            name: run.to_string(),
            needs: run.needs().collect(),
            left_out,
        };
        runs.iter().zip(&self.left_out).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use lsbuf_guest::{scenario, suite};

    use super::*;
    use crate::arch::Arch;
    use crate::kernels::{self, Kernel};

    /// The default kernels and all runs.
    fn table() -> (Vec<Kernel>, Vec<Run>) {
        let kernels = kernels::select(Arch::default(), &[], false).unwrap();
        (kernels, scenario::runs(&suite::select(&[]).unwrap()))
    }

    /// Check that each run is tried on the oldest and on the newest kernel that has what it needs:
    /// on two at least where two have it, and else on the one that has it.
    #[test]
    fn at_least_two() {
        let (kernels, runs) = table();
        let lacks: Vec<&[Need]> = kernels.iter().map(|kernel| &kernel.lacks[..]).collect();
        let shares = share(&runs, &lacks, true);
        for (index, run) in runs.iter().enumerate() {
            let has = |place: &usize| !run.needs().any(|need| lacks[*place].contains(&need));
            let able: Vec<usize> = (0..kernels.len()).filter(has).collect();
            let tried: Vec<usize> =
                able.iter().copied().filter(|&place| !shares[place].left_out[index]).collect();
            assert!(tried.len() >= able.len().min(2), "{run}: {tried:?}");
            assert!(!able.is_empty(), "{run} needs what no kernel has");
            assert_eq!((tried.first(), tried.last()), (able.first(), able.last()), "{run}");
        }
    }

    /// Check that what a kernel lacks is sent to the guest, to come back as a skip, and that it is
    /// not counted as work.
    #[test]
    fn lacks_are_no_choice() {
        let (_, runs) = table();
        let run = runs.iter().copied().find(|run| run.to_string() == "dup (bpf)").unwrap();
        let shares = share(&[run], &[&[Need::Iterators], &[]], true);
        assert_eq!(shares.iter().map(|share| share.left_out[0]).collect::<Vec<_>>(), [false, false]);
        assert_eq!(shares.iter().map(Share::able).collect::<Vec<_>>(), [0, 1]);
    }

    /// Check that nothing is left out where a choice was made by hand, and that names and
    /// expectations agree.
    #[test]
    fn whole_or_thin() {
        let (kernels, runs) = table();
        let lacks: Vec<&[Need]> = kernels.iter().map(|kernel| &kernel.lacks[..]).collect();
        let whole = share(&runs, &lacks, false);
        assert!(whole.iter().all(|share| share.names(&runs).len() == runs.len()));
        let thin = share(&runs, &lacks, true);
        assert!(thin.iter().any(|share| share.names(&runs).len() < runs.len()));
        for share in &thin {
            let selected = share.selected(&runs).into_iter().filter(|run| !run.left_out).map(|run| run.name);
            assert_eq!(share.names(&runs), selected.collect::<Vec<_>>());
        }
    }
}
