//! On which kernels a scenario runs.
//!
//! Every scenario on every kernel takes twice as long, and most of that time shows the same code of
//! lsbuf the same situation again. So each scenario says how many kernels its claim needs.
//! [`Kernels::Every`] is always right, and a new scenario starts with it. It gets fewer kernels if
//! its claim is about lsbuf, and the releases between them cannot make a difference.
//!
//! Only kernels that have what a scenario needs are counted, so its oldest kernel may be newer than
//! the oldest of the table.
//!
//! Limit: this is for the run of all scenarios on all kernels. A scenario or a kernel that is named
//! on the command line runs whole.

use crate::need::Need;
use crate::way::Way;

/// On which kernels a scenario must run, of those that have what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// All. The claim is about what the kernel does, counts, permits or prints.
    Every,
    /// All where lsbuf may ask BPF iterators: their programs read structures of the kernel, which
    /// change from release to release. By procfs alone the oldest and the newest: the kernel keeps
    /// its text as it is and only adds to it, so these two see it without and with each addition.
    /// On every kernel `kernel_contract` tries that text, and `worlds_at_rest` compares the answers
    /// made from it.
    EveryByBpf,
    /// The oldest and the newest. The claim is about code of lsbuf that does not know which kernel
    /// it runs on (formats, arguments, escaping, how readings are compared), or another scenario
    /// tries the same on every kernel: `rights_table` hides processes, `short_soak` moves
    /// references, hands them on, and starts programs.
    OldestAndNewest,
    /// The newest, and the oldest of each combination of these needs. The claim is about what lsbuf
    /// does where the kernel has one of them and lacks another.
    OneOfEach(&'static [Need]),
}

impl Kernels {
    /// The name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Every => "every kernel",
            Kernels::EveryByBpf => "every kernel; by procfs the oldest and the newest",
            Kernels::OldestAndNewest => "the oldest and the newest kernel",
            Kernels::OneOfEach(_) => "the newest kernel and the oldest of each combination of needs",
        }
    }
}

/// The places of the kernels on which a run must run that has these needs and that way. Each kernel
/// is given by what it lacks, the oldest first.
pub fn chosen(which: Kernels, needs: &[Need], way: Option<Way>, kernels: &[&[Need]]) -> Vec<usize> {
    let able: Vec<(usize, &[Need])> = kernels
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, lacks)| !needs.iter().any(|need| lacks.contains(need)))
        .collect();
    let by: &[Need] = match which {
        Kernels::EveryByBpf if way == Some(Way::Procfs) => &[],
        Kernels::Every | Kernels::EveryByBpf => return able.iter().map(|(place, _)| *place).collect(),
        Kernels::OldestAndNewest => &[],
        Kernels::OneOfEach(needs) => needs,
    };
    let combination = |lacks: &[Need]| -> Vec<bool> { by.iter().map(|need| lacks.contains(need)).collect() };
    let mut seen = Vec::new();
    let mut chosen = Vec::new();
    for &(place, lacks) in &able {
        let combination = combination(lacks);
        let newest = able.last().is_some_and(|(last, _)| *last == place);
        if newest || !seen.contains(&combination) {
            chosen.push(place);
        }
        seen.push(combination);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places of four kernels, which lack fuse and swap, swap, fuse, nothing.
    fn places(kernels: Kernels, needs: &'static [Need], way: Option<Way>) -> Vec<usize> {
        let table: [&[Need]; 4] = [&[Need::Fuse, Need::Swap], &[Need::Swap], &[Need::Fuse], &[]];
        chosen(kernels, needs, way, &table)
    }

    /// Check that every kernel means those that have what is needed.
    #[test]
    fn every() {
        assert_eq!(places(Kernels::Every, &[], None), [0, 1, 2, 3]);
        assert_eq!(places(Kernels::Every, &[Need::Fuse], None), [1, 3]);
    }

    /// Check that oldest and newest are those of the able kernels, that one able kernel is enough,
    /// and none is none.
    #[test]
    fn oldest_and_newest() {
        let places = |needs| places(Kernels::OldestAndNewest, needs, None);
        assert_eq!(places(&[]), [0, 3]);
        assert_eq!(places(&[Need::Fuse]), [1, 3]);
        assert_eq!(places(&[Need::Fuse, Need::Swap]), [3]);
        assert_eq!(chosen(Kernels::OldestAndNewest, &[], None, &[]), [0; 0]);
    }

    /// Check that the way decides where it should.
    #[test]
    fn by_way() {
        for way in [Way::Bpf, Way::Auto] {
            assert_eq!(places(Kernels::EveryByBpf, &[], Some(way)), [0, 1, 2, 3]);
        }
        assert_eq!(places(Kernels::EveryByBpf, &[], Some(Way::Procfs)), [0, 3]);
        assert_eq!(places(Kernels::OldestAndNewest, &[], Some(Way::Bpf)), [0, 3]);
    }

    /// Check that each combination is met, and the newest kernel too.
    #[test]
    fn combinations() {
        assert_eq!(places(Kernels::OneOfEach(&[Need::Swap]), &[], None), [0, 2, 3]);
        assert_eq!(places(Kernels::OneOfEach(&[Need::Swap, Need::Fuse]), &[], None), [0, 1, 2, 3]);
        assert_eq!(places(Kernels::OneOfEach(&[Need::Heap]), &[], None), [0, 3]);
    }
}
