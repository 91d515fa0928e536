//! Scans by procfs: a round reads the kernel's list, walks every process, and reads the list again.

use crate::error::{Error, ErrorKind};
use crate::kernel::bufinfo::List;
use crate::kernel::devices;
use crate::kernel::elsewhere::Elsewhere;
use crate::kernel::pending;
use crate::kernel::procmap::{Filter, Queries};
use crate::kernel::root::{Births, ProcRoot};
use crate::kernel::shmem::Filesystems;
use crate::model::{Buffer, Coverage, Dev, Kind, Note, Source};

use super::forks::Watch;
use super::kthreads::KernelThreads;
use super::patience::Patience;
use super::settle::{self, Round};
use super::shared::Shared;
use super::space::Reader;
use super::walk::{Halt, Start, Walk};
use super::{Found, Listing, Mappings, Options, contradiction, join, read_list, shmem};

/// What is remembered from scan to scan.
#[derive(Debug)]
pub(super) struct Procfs {
    queries: Option<Queries>,
    kernel_threads: KernelThreads,
    /// Whether this kernel counts fds in connections that nobody has accepted, once that was tried.
    pending_counted: Option<bool>,
    /// The dma-buf filesystem's device, once it is known: it is the same for the whole boot.
    dev: Option<Dev>,
    /// As [`Procfs::filesystems`].
    filesystems: Option<Filesystems>,
}

/// A list, and how many processes had been started just before and just after it was read.
#[derive(Debug)]
struct Listed {
    births: (Option<Births>, Option<Births>),
    list: Listing,
}

/// What a scan works with.
struct Scan<'s> {
    procfs: &'s mut Procfs,
    root: &'s ProcRoot,
    options: &'s Options,
    patience: Option<&'s Patience>,
}

impl Procfs {
    /// Looks at what the procfs can do.
    ///
    /// # Errors
    /// If it has no PROCMAP_QUERY while that alone is asked for.
    pub(super) fn new(root: &ProcRoot, options: &Options) -> Result<Procfs, Error> {
        let queries = match Queries::probe(root) {
            Err(e) if options.sources.mappings == Mappings::Procmap => {
                return Err(Error::io(e, "PROCMAP_QUERY cannot be asked".to_owned()));
            }
            // The text of maps has the same answer.
            queries => queries.unwrap_or(None),
        };
        if options.sources.mappings == Mappings::Procmap && queries.is_none() {
            let text = format!("{} has no PROCMAP_QUERY (Linux 6.11 and later)", root.path().display());
            return Err(Error::new(ErrorKind::NoSource, text));
        }
        let kernel_threads = KernelThreads::new(queries);
        let filesystems = options.kinds.has_shmem().then(|| Filesystems::of(root));
        Ok(Procfs { queries, kernel_threads, pending_counted: None, dev: None, filesystems })
    }

    /// The shmem family's own filesystems, if they are looked for.
    pub(super) fn filesystems(&self) -> Option<&Filesystems> {
        self.filesystems.as_ref()
    }

    /// Whether the kernel answers queries for mappings.
    pub(super) fn can_query(&self) -> bool {
        self.queries.is_some()
    }

    /// Scans, with `patience` no longer than that lasts, and not at all without the kernel's list, which such an answer lacks.
    ///
    /// # Errors
    /// If the processes cannot be listed, or it is not worth it.
    pub(super) fn scan(
        &mut self,
        root: &ProcRoot,
        options: &Options,
        patience: Option<&Patience>,
    ) -> Result<Found, Halt> {
        Scan { procfs: self, root, options, patience }.run()
    }
}

impl Scan<'_> {
    fn run(&mut self) -> Result<Found, Halt> {
        if self.patience.is_some_and(Patience::is_over) {
            return Err(Halt::NotWorthIt);
        }
        let mut before = self.kernel_list();
        if self.patience.is_some() && before.list.is_err() {
            return Err(Halt::NotWorthIt);
        }
        let mut earlier = Vec::new();
        let mut watch = Watch::new(self.root);
        let (mut round, mut calm, mut all) = (0, false, false);
        loop {
            round += 1;
            // Only a list tells the count of each buffer, and only a count that a reference is missing.
            all |= round >= self.options.rounds || !before.list.as_ref().is_ok_and(List::agrees);
            let thorough = all;
            // No count tells that a private mapping of shmem is missing.
            let whole = thorough || self.procfs.filesystems.is_some();
            let reader = self.reader(if whole { Filter::All } else { Filter::Shared });
            if let Some(patience) = self.patience {
                patience.begin();
            }
            let walk = self.walk(reader, thorough, before.list.as_ref().ok())?;
            let after = self.kernel_list();
            calm |= !walk.restless
                && walk.exiting == 0
                && before.births.0.is_some()
                && before.births.0 == after.births.1;
            let shared = Shared::of(&walk, self.root);
            let mut buffers = join::join(&walk, &shared, before.list.as_ref().ok(), after.list.as_ref().ok());
            let mut coverage = self.coverage(&walk, reader, &after.list);
            if coverage.saw_every_process() && buffers.iter().any(settle::has_rest) {
                coverage.notes.extend(settle::disturbances(walk.exiting, calm));
            }
            let only_shared = reader == Reader::Query(Filter::Shared);
            let missed = !thorough
                && (!after.list.as_ref().is_ok_and(List::agrees) || buffers.iter().any(settle::may_lack));
            all |= missed;
            let holders = settle::holders_of_rests(&buffers);
            let settled =
                settle::settle(&mut buffers, &earlier, &coverage, |suspects| watch.forking(suspects))
                    && !missed;
            if settled || round >= self.options.rounds {
                self.add_shmem(&walk, &shared, &mut buffers, &mut coverage);
                let processes = walk.holders_of(&buffers);
                let sys = self.options.sys_root.as_deref();
                let devices = walk.devices(|node| devices::name(sys?, node));
                return Ok(Found { coverage, buffers, processes, devices });
            }
            earlier.push(Round { buffers, only_shared });
            watch.pause(holders);
            // The list that the next walk begins with belongs to its time.
            before = self.kernel_list();
        }
    }

    /// Adds what the walk found of the shmem family; leaves dma-bufs only if they are wanted.
    fn add_shmem(&self, walk: &Walk, shared: &Shared, buffers: &mut Vec<Buffer>, coverage: &mut Coverage) {
        let kinds = self.options.kinds;
        buffers.retain(|buffer| kinds.has(buffer.id.kind));
        let Some(family) = &walk.family else { return };
        coverage.notes.extend(shmem::notes(walk, family, kinds));
        let mut found = shmem::join(walk, family, shared);
        if kinds.has(Kind::Sysv) {
            shmem::add_segments(&mut found, &family.namespaces, self.root, coverage);
        }
        let unsized_ = found.iter().filter(|b| b.size.is_none()).count() as u64;
        coverage.notes.extend((unsized_ > 0).then_some(Note::Unsized { buffers: unsized_ }));
        let uncounted = found.iter().filter(|b| b.count.is_none()).count() as u64;
        coverage.notes.extend((uncounted > 0).then_some(Note::Uncounted { buffers: uncounted }));
        buffers.append(&mut found);
    }

    /// How address spaces are read, if those mappings are looked for.
    fn reader(&self, filter: Filter) -> Reader {
        match (self.options.sources.mappings, self.procfs.queries) {
            (Mappings::Procfs | Mappings::Procmap, Some(_)) => Reader::Query(filter),
            (Mappings::Procfs | Mappings::Procmap, None) | (Mappings::Maps, _) => Reader::Text,
            (Mappings::MapFiles, _) => Reader::Links,
        }
    }

    /// One round's walk. Only a `thorough` one looks for references that are in no fd table and no address space.
    fn walk(&mut self, reader: Reader, thorough: bool, listed: Option<&List>) -> Result<Walk, Halt> {
        let start = Start {
            root: self.root,
            reader,
            queries: self.procfs.queries,
            dev: self.procfs.dev,
            patience: self.patience,
            // Where the list shows no buffer at all, no account can lack anything.
            look_elsewhere: self.procfs.filesystems.is_some()
                || thorough && listed.is_none_or(|list| !list.buffers.is_empty()),
            family: self.procfs.filesystems.as_ref().map(|filesystems| (filesystems, self.options.kinds)),
        };
        let mut walk = Walk::of(&start, &mut self.procfs.kernel_threads)?;
        self.procfs.dev = walk.proof.dev();
        if let Some(elsewhere) = walk.elsewhere.as_mut().filter(|_| self.root.is_live()) {
            let counted = *self.procfs.pending_counted.get_or_insert_with(|| pending::are_counted(self.root));
            elsewhere.unknown |= !counted && pending::are_there(self.root);
        }
        if listed.is_none() {
            walk.recheck(self.root);
        }
        Ok(walk)
    }

    fn kernel_list(&mut self) -> Listed {
        let begin = self.root.births();
        let list = read_list(self.options);
        Listed { births: (begin, self.root.births()), list }
    }

    fn coverage(&self, walk: &Walk, reader: Reader, list: &Listing) -> Coverage {
        let mut sources = vec![Source::Fd, Source::Fdinfo, reader.source()];
        let mut notes = walk.notes();
        if !self.root.shows_kernel_threads() {
            notes.push(Note::NotWholeMachine);
        }
        match list {
            Ok(list) => {
                sources.push(Source::Bufinfo);
                notes.extend(contradiction(list));
            }
            Err(_) if !self.options.kinds.has(Kind::DmaBuf) => {}
            Err(why) => notes.push(Note::NoKernelList { why: why.clone() }),
        }
        let kept = walk.elsewhere.as_ref().map(Elsewhere::kept);
        let unreadable = walk.unreadable.clone();
        Coverage { sources, processes: walk.counts, unreadable, notes, kept, ..Coverage::default() }
    }
}
