//! Names for the calls in a program: which file, which function, and where in its source.
//!
//! A stack has build ids and offsets ([`CodePlace`]). For each build id the file is looked for in
//! the process that made the buffer, and then in others ([`find`]). The parts of it that have
//! symbols are copied ([`copy`]), and a process of its own reads them ([`child`]), which asks the
//! crate blazesym ([`name`]). What was found is kept ([`cache`]).
//!
//! A return address is the place after the call, and may be the first byte of the next function. So
//! the byte before it is looked up.
//!
//! Limits: a place of which the kernel could not read the build id has only an address. The process
//! may have executed another program or unmapped a library since, and nothing tells whether it has.
//! So an address gets no name. A file that was not found in a process is not looked for there
//! again.

mod answer;
pub(crate) mod cache;
pub(in crate::kernel) mod child;
pub(in crate::kernel) mod copy;
pub(crate) mod elf;
pub(in crate::kernel) mod find;
#[cfg(test)]
mod hostile_tests;
mod name;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub(crate) use self::cache::Maker;
use self::cache::{Named, Names, Place};
use self::child::Question;
use self::find::Module;
use super::guard::{self, Stuck};
use super::root::ProcRoot;
use crate::model::{BuildId, CodePlace, Pid, Stack};

/// How many processes are searched for the files of one stack, besides the maker.
const MOST_OTHERS: usize = 8;

/// How many times the deadline of one wait all of them may take, of one call of
/// [`Symbolizer::resolve`].
const ALL: u32 = 8;

/// The most places without a name, and files that are not in a process, that are kept in memory.
const MOST_KEPT: usize = 200_000;

/// A stack that is to have names.
#[derive(Debug)]
pub(crate) struct Request<'s> {
    pub(crate) stack: &'s mut Stack,
    /// Who made the buffer.
    pub(crate) maker: Maker,
    /// Other processes that may execute the same files: those that have the buffer.
    pub(crate) others: &'s [Pid],
}

/// What could not be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Processes that were not searched to the end, because a read did not return.
    pub(crate) stuck: Vec<Pid>,
    /// There was no time for all.
    pub(crate) late: bool,
}

/// Finds names, and keeps those that it has found.
#[derive(Debug)]
pub(crate) struct Symbolizer {
    root: Arc<ProcRoot>,
    deadline: Duration,
    cache: Option<PathBuf>,
    /// Whether the cache is read already. It is read at the first stack.
    is_read: bool,
    names: Names,
    /// Whether there are names that the cache in the file does not have.
    is_new: bool,
    /// Places that were looked up in their file and have no function, with the name of the file.
    nameless: HashMap<Place, Named>,
    /// Files that were looked for in a process and not found.
    not_there: HashSet<(BuildId, Pid)>,
}

/// What is asked for the stacks of one maker: which other processes may have the files, and which
/// places.
#[derive(Default)]
struct Wanted {
    others: BTreeSet<Pid>,
    places: BTreeMap<BuildId, BTreeSet<u64>>,
}

impl Symbolizer {
    /// A symbolizer for the processes of this procfs. `deadline`: how long to wait for one read of
    /// a file. `cache`: a folder for names that outlive their processes.
    pub(crate) fn new(root: Arc<ProcRoot>, deadline: Duration, cache: Option<&Path>) -> Symbolizer {
        Symbolizer {
            root,
            deadline,
            cache: cache.map(Path::to_owned),
            is_read: false,
            names: Names::default(),
            is_new: false,
            nameless: HashMap::new(),
            not_there: HashSet::new(),
        }
    }

    /// Fills in the files and functions of all calls for which they can be found. Of a recording
    /// nothing is looked up: the processes here are others.
    pub(crate) fn resolve(&mut self, requests: &mut [Request<'_>]) -> Gaps {
        if !self.is_read {
            self.is_read = true;
            self.names = self.cache.as_deref().and_then(Names::read).unwrap_or_default();
        }
        if self.nameless.len() + self.not_there.len() > MOST_KEPT {
            self.nameless.clear();
            self.not_there.clear();
        }
        let gaps = if self.root.is_live() { self.look_up(requests) } else { Gaps::default() };
        for Request { stack, maker, .. } in requests {
            for frame in &mut stack.user {
                if let CodePlace::File { build_id, offset } = frame.place
                    && let Some(named) = self.known(&Place { build_id, offset, maker: Some(*maker) })
                {
                    frame.module = Some(named.module.clone());
                    frame.functions.clone_from(&named.functions);
                }
            }
        }
        gaps
    }

    /// Writes the names to the cache, if there are new ones.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`: the folder is not this user's, or others may write to it.
    pub(crate) fn save(&mut self) -> Result<(), Errno> {
        match &self.cache {
            Some(folder) if self.is_new => {
                self.names.write(folder)?;
                self.is_new = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is known of a place of a maker. What a file of root says goes first.
    fn known(&self, place: &Place) -> Option<&Named> {
        let places = [Place { maker: None, ..*place }, *place];
        places.iter().find_map(|place| self.names.get(place).or_else(|| self.nameless.get(place)))
    }

    fn wanted(&self, requests: &[Request<'_>]) -> BTreeMap<Maker, Wanted> {
        let mut wanted: BTreeMap<Maker, Wanted> = BTreeMap::new();
        for Request { stack, maker, others } in requests {
            for frame in &stack.user {
                if let CodePlace::File { build_id, offset } = frame.place
                    && self.known(&Place { build_id, offset, maker: Some(*maker) }).is_none()
                {
                    let wanted = wanted.entry(*maker).or_default();
                    wanted.places.entry(build_id).or_default().insert(offset);
                    wanted.others.extend(others.iter().take(MOST_OTHERS));
                }
            }
        }
        wanted
    }

    fn look_up(&mut self, requests: &[Request<'_>]) -> Gaps {
        let mut gaps = Gaps::default();
        let end = Instant::now() + self.deadline.saturating_mul(ALL);
        for (maker, mut asked) in self.wanted(requests) {
            let others = asked.others.iter().filter(|&&pid| pid != maker.0).take(MOST_OTHERS);
            let others = others.map(|&pid| (pid, None));
            for (pid, started) in [(maker.0, Some(maker.1))].into_iter().chain(others) {
                // The stacks of another maker may have had the same calls.
                asked.places.retain(|&build_id, offsets| {
                    let place = |offset| Place { build_id, offset, maker: Some(maker) };
                    offsets.retain(|&offset| self.known(&place(offset)).is_none());
                    !offsets.is_empty()
                });
                let ids = asked.places.keys().filter(|&&id| !self.not_there.contains(&(id, pid)));
                let ids: BTreeSet<BuildId> = ids.copied().collect();
                if ids.is_empty() || gaps.stuck.contains(&pid) {
                    continue;
                }
                if Instant::now() >= end {
                    gaps.late = true;
                    return gaps;
                }
                let (root, searched) = (Arc::clone(&self.root), ids.clone());
                match guard::guarded(self.deadline, move || find::find(&root, pid, started, searched)) {
                    Err(Stuck { .. }) => gaps.stuck.push(pid),
                    Ok(found) => {
                        let is_found = |id: &BuildId| found.value.iter().any(|module| module.build_id == *id);
                        self.not_there.extend(ids.into_iter().filter(|id| !is_found(id)).map(|id| (id, pid)));
                        self.name(found.value, maker, &asked.places);
                    }
                }
            }
        }
        gaps
    }

    /// Asks for the functions in these files.
    fn name(&mut self, modules: Vec<Module>, maker: Maker, asked: &BTreeMap<BuildId, BTreeSet<u64>>) {
        let (mut places, mut questions, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for module in modules {
            let offsets: Vec<u64> = asked.get(&module.build_id).into_iter().flatten().copied().collect();
            let address = |&offset: &u64| module.elf.address_of(offset.checked_sub(1)?);
            // No symbol is at the last address.
            let addresses = offsets.iter().map(|offset| address(offset).unwrap_or(u64::MAX)).collect();
            let maker = (!module.is_roots).then_some(maker);
            places.push(offsets.into_iter().map(move |offset| Place {
                build_id: module.build_id,
                offset,
                maker,
            }));
            names.push(module.name);
            questions.push(Question { copies: module.copies, addresses });
        }
        if questions.is_empty() {
            return;
        }
        let limit = self.deadline;
        // The child is made in a helper; nothing in there is killed by the deadline of that.
        let Ok(answers) = guard::guarded(limit, move || child::ask(&questions, limit)) else { return };
        for ((places, module), answers) in places.into_iter().zip(names).zip(answers.value) {
            for (place, functions) in places.zip(answers) {
                let named = Named { module: module.clone(), functions };
                if named.functions.is_empty() {
                    self.nameless.insert(place, named);
                } else {
                    self.names.insert(place, named);
                    self.is_new = true;
                }
            }
        }
    }
}
