//! The steps of one reading, in the order of each source, and the [`Reading`] that results.
//!
//! In the model, the activity of all tasks is read in one step before the reading and in one after
//! it. A source reads one task after the other. But what a task does before the source first reads
//! its activity, or after it has read it last, can only make it count as having run; so the single
//! step is the harder case. For the same reason the model reads the last pid at the latest moment
//! before the references, and at the earliest after them.
//!
//! Limits: by the BPF iterators, the model reads once who owns each table and address space, after
//! the fds. The source reads this twice, before the fds and at the end. For other limits see
//! [`super`].

use super::world::{EXE, SLOTS, Stage, TABLES, TASKS, World};
use crate::kernel::activity::{Activity, Doing, Ran};
use crate::model::{Buffer, BufferId, Dev, Fd, Inode, Kind, MapRef, Pid, Tid};
use crate::scan::reading::{
    Counted, FdRef, Interference, Mapping, Object, Reading, ReadingCoverage, RunningProgram,
};
use crate::scan::tasks;

/// The inode number of the buffer.
pub(super) const BUFFER: Inode = Inode(7);

/// Which source reads, and in what order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// procfs: the list with the counts; of each process its mappings and then its fds; the list
    /// again.
    Procfs,
    /// BPF iterators, dma-bufs: fds, tasks, the buffer's count, its mappings, and its count again.
    Iterators,
    /// BPF iterators, shared memory: fds, tasks, the mappings of each process; with each a count.
    Shmem,
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    Begin,
    /// The first count, and the processes.
    List,
    /// An entry of a process's table; after the last one, the socket's queue.
    Slot(u8, u8),
    /// An address of a process's address space.
    Place(u8, u8),
    Tasks,
    Count,
    /// The buffer's own tree of mappings, which has the mappings of all address spaces in it.
    Tree(u8, u8),
    CountAgain,
    End,
}

/// What was found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scan {
    pub(super) at: At,
    /// The processes before the reading.
    before: u8,
    /// procfs: the listed processes that are still to be visited, and those that were.
    todo: u8,
    visited: u8,
    /// For each process: the entries that were found, and in which table.
    slots: [u8; TASKS],
    table: [u8; TASKS],
    program: [u8; TASKS],
    /// For each address space (by procfs: for each process), the addresses at which the buffer was
    /// found.
    places: [u8; TABLES],
    /// For each process, its address space.
    space: [u8; TASKS],
    queue: u8,
    count: Option<u8>,
    stable: bool,
    exiting: bool,
    moved: bool,
    gone: bool,
    processes_started: bool,
}

/// The result of a reading: what [`reading`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    scan: Scan,
    thorough: bool,
    calls: bool,
    processes_started: bool,
    ran: u8,
    after: u8,
    /// What each process is doing after the reading: 0 nothing, 1 in a call that keeps references,
    /// 2 exiting, 3 running.
    doing: [u8; TASKS],
    /// Which tables and address spaces procfs finds to be one, each given as the lowest process;
    /// `TASKS`: comparing failed.
    same: [[u8; TASKS]; 2],
}

/// How the scan is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) order: Order,
    pub(super) socket: usize,
    /// Whether a task that was preempted inside a call shows as running.
    pub(super) preempted_runs: bool,
}

impl Scan {
    pub(super) fn new() -> Scan {
        Scan {
            at: At::Begin,
            before: 0,
            todo: 0,
            visited: 0,
            slots: [0; TASKS],
            table: [0; TASKS],
            program: [0; TASKS],
            places: [0; TABLES],
            space: [0; TASKS],
            queue: 0,
            count: None,
            stable: true,
            exiting: false,
            moved: false,
            gone: false,
            processes_started: false,
        }
    }

    fn counted(&mut self, count: u8) {
        self.stable &= self.count.is_none_or(|before| before == count);
        self.count = Some(count);
    }

    /// Makes the next step; returns the facts if it was the last one.
    pub(super) fn step(
        &mut self,
        world: &mut World,
        how: &How,
        thorough: bool,
        calls: bool,
    ) -> Option<Facts> {
        match self.at {
            At::Begin => {
                world.tasks.iter_mut().for_each(|task| task.ran = false);
                world.processes_started = false;
                self.before = world.listed();
                self.at = At::List;
                if how.order != Order::Procfs {
                    self.at = At::Slot(first(self.before), 0);
                }
            }
            At::List => {
                world.processes_started = false;
                self.counted(world.count());
                self.gone = world.count() == 0;
                self.todo = world.listed();
                self.visit(world);
            }
            At::Place(task, place) => self.place(world, how, usize::from(task), place),
            At::Slot(task, slot) => self.slot(world, how, usize::from(task), slot),
            At::Tasks => {
                self.tasks(world);
                self.at = match how.order {
                    Order::Shmem => At::Place(first(world.listed()), 0),
                    _ => At::Count,
                };
            }
            At::Count => {
                self.counted(world.count());
                self.gone = world.count() == 0;
                self.at = At::Tree(0, 0);
            }
            At::Tree(space, place) => {
                let bit = 1 << place;
                self.places[usize::from(space)] |= world.spaces[usize::from(space)] & bit;
                // Address spaces without a mapping of the buffer are not in the tree.
                self.at = match (space, place) {
                    (space, 0) if world.spaces[usize::from(space)] & 3 != 0 => At::Tree(space, 1),
                    (space, _) if usize::from(space) + 1 < TABLES => {
                        let next =
                            (space + 1..TABLES as u8).find(|&at| world.spaces[usize::from(at)] & 3 != 0);
                        next.map_or(At::CountAgain, |at| At::Tree(at, 0))
                    }
                    _ => At::CountAgain,
                };
            }
            At::CountAgain => {
                self.counted(world.count());
                self.gone |= world.count() == 0;
                self.processes_started = world.processes_started;
                self.at = At::End;
            }
            At::End => return Some(self.end(world, how, thorough, calls)),
        }
        None
    }

    /// procfs: goes to the next process; those that were started meanwhile come last.
    fn visit(&mut self, world: &World) {
        if self.todo == 0 {
            self.todo = world.listed() & !self.visited;
        }
        if self.todo == 0 {
            self.at = At::CountAgain;
            return;
        }
        let next = self.todo.trailing_zeros() as usize;
        self.todo &= !(1 << next);
        self.visited |= 1 << next;
        self.revisit(world, next);
    }

    fn revisit(&mut self, world: &World, task: usize) {
        (self.slots[task], self.places[task]) = (0, 0);
        (self.space[task], self.table[task]) = (world.tasks[task].space, world.tasks[task].table);
        if world.listed() & 1 << task == 0 {
            return self.visit(world);
        }
        self.at = At::Place(task as u8, 0);
        if self.space[task] == 0 {
            self.exiting = true;
            self.at = At::Slot(task as u8, 0);
        }
    }

    fn place(&mut self, world: &World, how: &How, task: usize, place: u8) {
        let bit = 1 << place;
        let found = world.places(task) & bit;
        if how.order == Order::Procfs {
            self.places[task] |= found;
        } else if let (space @ 1.., 1..) = (usize::from(world.tasks[task].space), found) {
            self.counted(world.count());
            self.moved |= self.space[task] != world.tasks[task].space;
            self.places[space - 1] |= found;
        }
        self.at = match (how.order, place) {
            (_, 0) => At::Place(task as u8, 1),
            (Order::Procfs, _) => At::Slot(task as u8, 0),
            _ => match after(world.listed(), task) {
                Some(next) => At::Place(next, 0),
                None => At::End,
            },
        };
    }

    fn slot(&mut self, world: &World, how: &How, task: usize, slot: u8) {
        if slot < SLOTS && world.slots(task) & 1 << slot > 0 {
            self.slots[task] |= 1 << slot;
            (self.table[task], self.program[task]) = (world.tasks[task].table, world.tasks[task].program);
            self.counted(world.count());
        }
        if slot == SLOTS {
            self.queue = world.queue;
        }
        let last = if task == how.socket { SLOTS } else { SLOTS - 1 };
        if slot < last {
            self.at = At::Slot(task as u8, slot + 1);
            return;
        }
        if how.order != Order::Procfs {
            self.at = after(world.listed(), task).map_or(At::Tasks, |next| At::Slot(next, 0));
            return;
        }
        let now = world.tasks[task];
        if now.stage == Stage::Gone {
            // It cannot be identified any more, and what it held was released.
            (self.slots[task], self.places[task]) = (0, 0);
        } else if self.space[task] != 0
            && now.space != self.space[task]
            && self.slots[task] | self.places[task] != 0
        {
            return self.revisit(world, task);
        }
        self.visit(world);
    }

    /// Reads the iterator over tasks, which reports the owners of each table and address space.
    fn tasks(&mut self, world: &World) {
        for (at, task) in world.tasks.iter().enumerate() {
            let listed = world.listed() & 1 << at > 0;
            self.space[at] = if listed { task.space } else { 0 };
            self.exiting |= matches!(task.stage, Stage::GaveSpace | Stage::NoSpace | Stage::GaveTable);
            if self.slots[at] > 0 && (!listed || task.program != self.program[at]) {
                self.moved = true;
                self.slots[at] = 0;
            }
            if listed && self.space[at] > 0 && world.places(at) & EXE > 0 {
                self.places[usize::from(self.space[at]) - 1] |= EXE;
            }
        }
    }

    fn end(&mut self, world: &World, how: &How, thorough: bool, calls: bool) -> Facts {
        let doing = |at: usize| match world.tasks[at].stage {
            Stage::ForkedTable | Stage::ForkedSpace | Stage::ForkedPid => 1,
            Stage::Sending | Stage::Opened | Stage::Replaced => 1,
            // procfs shows a task that was killed and is exiting as in no call.
            Stage::GaveSpace | Stage::NoSpace | Stage::GaveTable if how.order != Order::Procfs => 2,
            Stage::Closing if how.preempted_runs => 3,
            _ => 0,
        };
        let same = |of: &dyn Fn(usize) -> (u32, u8)| {
            let one = |at: usize| {
                let (shown, now) = of(at);
                let mut alike = (0..at).filter(|&other| shown > 0 && of(other).0 == shown);
                if alike.clone().any(|other| now == 0 || of(other).1 == 0) {
                    return TASKS as u8;
                }
                alike.find(|&other| of(other).1 == now).unwrap_or(at) as u8
            };
            [0, 1, 2].map(one)
        };
        let tables = same(&|at| (self.slots[at].into(), world.tasks[at].table));
        let spaces = same(&|at| (self.places[at].into(), world.tasks[at].space));
        let after = world.listed();
        Facts {
            scan: *self,
            thorough,
            calls,
            processes_started: if how.order == Order::Procfs {
                self.processes_started
            } else {
                world.processes_started
            },
            ran: (0..TASKS).filter(|&at| world.tasks[at].ran).map(|at| 1 << at).sum(),
            after,
            doing: [0, 1, 2].map(doing),
            same: if how.order == Order::Procfs { [tables, spaces] } else { [[0; TASKS]; 2] },
        }
    }

    /// A bit for each process of which something else was found than it has.
    pub(super) fn misread(&self, world: &World, order: Order) -> u8 {
        let wrong = |at: usize| {
            let space = usize::from(world.tasks[at].space);
            let found = match order {
                Order::Procfs => self.places[at],
                _ if space == 0 => 0,
                _ => self.places[space - 1],
            };
            let world_task = world.tasks[at];
            let exiting = matches!(world_task.stage, Stage::GaveSpace | Stage::GaveTable | Stage::Replaced);
            world_task.held_in_call > 0
                || exiting
                || self.slots[at] != world.slots(at)
                || found != world.places(at)
        };
        (0..TASKS).filter(|&at| wrong(at)).map(|at| 1 << at).sum()
    }
}

fn first(listed: u8) -> u8 {
    listed.trailing_zeros() as u8
}

fn after(listed: u8, task: usize) -> Option<u8> {
    (task + 1..TASKS).find(|&at| listed & 1 << at > 0).map(|at| at as u8)
}

/// The reading that a source would make of these facts.
pub(super) fn reading(facts: &Facts, order: Order) -> Reading {
    let scan = &facts.scan;
    let mut reading = Reading::default();
    let kind = if order == Order::Shmem { Kind::Memfd } else { Kind::DmaBuf };
    let pid = |at: usize| Pid(at as u32 + 1);
    let mut buffer = Buffer::new(BufferId::new(kind, Some(Dev { major: 0, minor: 9 }), BUFFER));
    let thorough = order != Order::Procfs || facts.thorough;
    buffer.count = scan.count.map(u64::from);
    buffer.in_flight = match order {
        // fdinfo of a socket counts the fds in its queue, but does not tell which buffers they
        // refer to.
        Order::Procfs => (thorough && scan.queue == 0).then_some(0),
        _ => Some(scan.queue.into()),
    };
    buffer.io_uring = thorough.then_some(0);
    buffer.exe = Some(0);
    let found = scan.slots.iter().chain(&scan.places).any(|&bits| bits > 0);
    let shown = order != Order::Shmem && !scan.gone || found || scan.queue > 0;
    if !shown {
        return with_interference(reading, facts);
    }
    let counted = Counted { stable: scan.stable && scan.count.is_some() && !scan.gone, pinned: false };
    reading.objects.push(Object { buffer, counted });
    let mut tables: Vec<u8> = Vec::new();
    for at in (0..TASKS).filter(|&at| scan.slots[at] > 0) {
        // procfs knows that tables are one by comparing processes, the iterators by the tables'
        // ids.
        let id = match (order, facts.same[0][at]) {
            (Order::Procfs, same) if usize::from(same) == TASKS => {
                reading.uncompared.extend((0..TASKS).filter(|&a| scan.slots[a] == scan.slots[at]).map(pid));
                at as u8
            }
            (Order::Procfs, same) => same,
            _ => scan.table[at],
        };
        let table = tables.iter().position(|&known| known == id).unwrap_or(tables.len());
        if table == tables.len() {
            tables.push(id);
            reading.tables.push(Vec::new());
        }
        reading.tables[table].push((pid(at), None));
        for slot in (0..SLOTS).filter(|slot| scan.slots[at] & 1 << slot > 0) {
            reading.fds.push(FdRef { object: 0, table, fd: Fd(slot.into()), path_only: false });
        }
    }
    add_spaces(&mut reading, facts, order);
    with_interference(reading, facts)
}

fn add_spaces(reading: &mut Reading, facts: &Facts, order: Order) {
    let scan = &facts.scan;
    let pid = |at: usize| Pid(at as u32 + 1);
    // The addresses found in each address space, and its owners.
    let mut spaces: Vec<(u8, Vec<Pid>)> = Vec::new();
    if order == Order::Procfs {
        for at in (0..TASKS).filter(|&at| scan.places[at] > 0) {
            let same = usize::from(facts.same[1][at]);
            if same == TASKS {
                reading.uncompared.extend((0..TASKS).filter(|&a| scan.places[a] == scan.places[at]).map(pid));
            }
            match spaces.iter_mut().find(|(_, owners)| same < at && owners.contains(&pid(same))) {
                Some((_, owners)) => owners.push(pid(at)),
                None => spaces.push((scan.places[at], vec![pid(at)])),
            }
        }
    } else {
        for (space, &places) in scan.places.iter().enumerate().filter(|(_, places)| **places > 0) {
            let owner = |at: &usize| usize::from(scan.space[*at]) == space + 1;
            let owners: Vec<Pid> = (0..TASKS).filter(owner).map(pid).collect();
            if owners.is_empty() {
                // It belongs to a child that is not listed yet, or was given up.
                reading.interference.moved = true;
            } else {
                spaces.push((places, owners));
            }
        }
    }
    for (space, (places, owners)) in spaces.into_iter().enumerate() {
        for place in (0..SLOTS).filter(|place| places & 1 << place > 0) {
            let start = 0x1000 * (u64::from(place) + 1);
            let map = MapRef { start, end: start + 0x1000, offset: Some(0), perms: None };
            reading.maps.push(Mapping { object: 0, space, map });
        }
        if places & EXE > 0 {
            reading.programs.push(RunningProgram { object: 0, space });
        }
        reading.spaces.push(owners);
    }
}

/// Adds what could have disturbed the reading, as the sources find it.
fn with_interference(mut reading: Reading, facts: &Facts) -> Reading {
    let scan = &facts.scan;
    let look = |listed: u8, second: bool| -> Vec<Activity> {
        let task = |at: usize| {
            let doing = match facts.doing[at] {
                _ if !second || !facts.calls => Doing::Unknown,
                1 => Doing::Call(libc::SYS_execve as i32),
                2 => Doing::Exiting,
                3 => Doing::Running,
                _ => Doing::Nothing,
            };
            let runtime = u64::from(second && facts.ran & 1 << at > 0);
            let ran = Ran { runtime, turns: 0 };
            Activity { pid: Pid(at as u32 + 1), tid: Tid(at as u32 + 1), ran, doing }
        };
        (0..TASKS).filter(|at| listed & 1 << at > 0).map(task).collect()
    };
    let changes = tasks::compare(look(scan.before, false), look(facts.after, true), &[]);
    reading.interference = Interference {
        remapped: changes.ran.clone(),
        ran: Some(changes.ran),
        in_call: (facts.calls && changes.calls_known).then_some(changes.in_call),
        exiting: scan.exiting,
        processes_changed: changes.started || facts.processes_started,
        moved: scan.moved || reading.interference.moved,
    };
    reading.coverage =
        ReadingCoverage { listed: true, passed_over: !facts.thorough, ..ReadingCoverage::default() };
    reading
}
