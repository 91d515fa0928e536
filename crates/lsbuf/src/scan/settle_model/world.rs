//! A model of the kernel that is small enough to be searched: three processes, one buffer, and
//! every step that adds, removes or moves a reference to it.
//!
//! A system call is more than one step if the kernel keeps a reference in no table between them. A
//! task may sleep between any two of its steps for as long as the search likes.
//!
//! Limits: see [`super`].

/// How many processes there can be in all.
pub(super) const TASKS: usize = 3;
/// How many fd tables, and how many address spaces, there can be at a time.
pub(super) const TABLES: usize = 5;
/// How many entries a table has, and how many addresses an address space.
pub(super) const SLOTS: u8 = 2;
/// The bit in [`World::spaces`] which says that a program runs from the buffer.
pub(super) const EXE: u8 = 1 << SLOTS;
/// The most references of the kernel itself, and the most messages.
const MOST: u8 = 1;

/// What a task is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// It does not exist yet.
    #[default]
    Never,
    /// Its parent is still inside fork. It has its table and space, and is not listed.
    Born,
    /// It runs its program, or sleeps in a call that keeps no references.
    Runs,
    /// Inside fork: the child has its fd table.
    ForkedTable,
    /// Inside fork: the child has its address space too.
    ForkedSpace,
    /// Inside fork: the child has its pid.
    ForkedPid,
    /// Inside close: the entry is empty, and the reference is not yet released.
    Closing,
    /// Inside sendmsg: it has a reference that is not yet in the queue.
    Sending,
    /// Inside recvmsg: it has a reference that is no longer in the queue.
    Receiving,
    /// Inside exec: the program is open.
    Opened,
    /// Inside exec: the new address space is in place, and the old one is not yet released.
    Replaced,
    /// Exiting: the address space is given up, and not yet released.
    GaveSpace,
    /// Exiting: the address space is released.
    NoSpace,
    /// Exiting: the fd table is given up, and not yet released.
    GaveTable,
    /// It has exited.
    Gone,
}

/// One process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Task {
    pub(super) stage: Stage,
    /// Its table and its address space, counted from 1; 0: none.
    pub(super) table: u8,
    pub(super) space: u8,
    /// The table or address space that it has given up and not yet released.
    given_up: u8,
    /// References that it keeps in no table while it is inside a call.
    pub(super) held_in_call: u8,
    /// The child that its fork is making.
    child: u8,
    /// Whether it made a step since its activity was read first.
    pub(super) ran: bool,
    /// How often it has replaced its program.
    pub(super) program: u8,
}

/// Which steps are allowed: fewer kinds let a search go deeper.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steps {
    /// dup and close, with a moment inside close.
    pub(super) fds: bool,
    /// mmap, mremap, munmap.
    pub(super) maps: bool,
    /// Send and receive.
    pub(super) messages: bool,
    /// fork.
    pub(super) forks: bool,
    /// clone with CLONE_FILES or CLONE_VM; only with `forks`.
    pub(super) clones: bool,
    pub(super) execs: bool,
    /// exec of the buffer.
    pub(super) programs: bool,
    pub(super) exits: bool,
    /// The kernel takes and drops a reference of its own.
    pub(super) kernel: bool,
    /// A task makes an fd from the kernel's reference, as from a GEM handle.
    pub(super) exports: bool,
    /// pidfd_getfd.
    pub(super) steals: bool,
    /// The process that has the socket; it cannot exit.
    pub(super) socket: usize,
}

/// Takes a possible step: its name and the change that it makes.
type Then<'t> = dyn FnMut(&'static str, &dyn Fn(&mut World)) + 't;

/// The state of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) tasks: [Task; TASKS],
    /// For each table, the entries that refer to the buffer.
    pub(super) tables: [u8; TABLES],
    /// For each address space, the addresses at which the buffer is mapped, and [`EXE`].
    pub(super) spaces: [u8; TABLES],
    pub(super) queue: u8,
    pub(super) kernel: u8,
    /// Whether a pid was given out since the last pid was read.
    pub(super) processes_started: bool,
}

impl World {
    /// Processes that run their programs, each with a table and an address space of its own.
    /// `tasks` has the entries and addresses of each that refer to the buffer, as bits.
    pub(super) fn new(tasks: &[(u8, u8)]) -> World {
        let mut world = World::default();
        for (at, &(slots, places)) in tasks.iter().enumerate() {
            let own = at as u8 + 1;
            world.tasks[at] = Task { stage: Stage::Runs, table: own, space: own, ..Task::default() };
            (world.tables[at], world.spaces[at]) = (slots, places);
        }
        world
    }

    /// What the kernel counts.
    pub(super) fn count(&self) -> u8 {
        let kept = self.tables.iter().chain(&self.spaces).map(|bits| bits.count_ones() as u8).sum::<u8>();
        kept + self.queue + self.kernel + self.tasks.iter().map(|task| task.held_in_call).sum::<u8>()
    }

    /// Processes that are listed.
    pub(super) fn listed(&self) -> u8 {
        let listed = |at: &usize| !matches!(self.tasks[*at].stage, Stage::Never | Stage::Born | Stage::Gone);
        (0..TASKS).filter(listed).map(|at| 1 << at).sum()
    }

    pub(super) fn slots(&self, task: usize) -> u8 {
        match self.tasks[task].table {
            0 => 0,
            table => self.tables[usize::from(table) - 1],
        }
    }

    pub(super) fn places(&self, task: usize) -> u8 {
        match self.tasks[task].space {
            0 => 0,
            space => self.spaces[usize::from(space) - 1],
        }
    }

    fn has_table(&self, table: u8) -> bool {
        self.tasks.iter().any(|task| task.table == table)
    }

    fn has_space(&self, space: u8) -> bool {
        self.tasks.iter().any(|task| task.space == space)
    }

    /// A table that no task has and that holds nothing.
    fn free_table(&self) -> u8 {
        let dropped = |at| self.tasks.iter().any(|t| t.stage == Stage::GaveTable && t.given_up == at);
        let free = |at: &u8| !self.has_table(*at) && !dropped(*at) && self.tables[usize::from(*at) - 1] == 0;
        (1..=TABLES as u8).find(free).unwrap()
    }

    fn free_space(&self) -> u8 {
        let dropped = |at| self.tasks.iter().any(|t| t.stage != Stage::GaveTable && t.given_up == at);
        let free = |at: &u8| !self.has_space(*at) && !dropped(*at) && self.spaces[usize::from(*at) - 1] == 0;
        (1..=TABLES as u8).find(free).unwrap()
    }

    /// Every possible step, with the state that follows.
    pub(super) fn next(&self, steps: &Steps, found: &mut Vec<(&'static str, usize, World)>) {
        if steps.kernel {
            if self.kernel < MOST && self.count() > 0 {
                found.push(("the kernel takes", TASKS, World { kernel: self.kernel + 1, ..*self }));
            }
            if self.kernel > 0 {
                found.push(("the kernel drops", TASKS, World { kernel: self.kernel - 1, ..*self }));
            }
        }
        for at in 0..TASKS {
            let mut then = |what, change: &dyn Fn(&mut World)| {
                let mut world = *self;
                world.tasks[at].ran = true;
                change(&mut world);
                found.push((what, at, world));
            };
            match self.tasks[at].stage {
                Stage::Never | Stage::Born | Stage::Gone => {}
                Stage::Runs => self.begin(at, steps, &mut then),
                _ => self.go_on(at, &mut then),
            }
        }
    }

    /// The steps that a task can begin while it runs its program.
    fn begin(&self, at: usize, steps: &Steps, then: &mut Then<'_>) {
        let task = self.tasks[at];
        let (table, space) = (usize::from(task.table) - 1, usize::from(task.space) - 1);
        let (slots, places) = (self.slots(at), self.places(at));
        let has_fd = slots > 0;
        for bit in [1, 2] {
            let (fd, map) = (slots & bit > 0, places & bit > 0);
            let may_get = steps.fds && has_fd || steps.exports && self.kernel > 0;
            if !fd && may_get {
                then("gets an fd", &|world| world.tables[table] |= bit);
            }
            let others = (0..TASKS).filter(|&other| other != at);
            if !fd && !may_get && steps.steals && others.clone().any(|other| self.slots(other) > 0) {
                then("takes another's fd", &|world| world.tables[table] |= bit);
            }
            if fd && (steps.fds || steps.messages) {
                then("closes", &|world| {
                    world.tables[table] &= !bit;
                    world.tasks[at].held_in_call = 1;
                    world.tasks[at].stage = Stage::Closing;
                });
            }
            if !map && steps.maps && (has_fd || places & 3 > 0) {
                then("maps", &|world| world.spaces[space] |= bit);
            }
            if map && steps.maps {
                then("unmaps", &|world| world.spaces[space] &= !bit);
            }
        }
        if steps.messages && has_fd && self.queue < MOST {
            then("sends", &|world| {
                world.tasks[at].held_in_call = 1;
                world.tasks[at].stage = Stage::Sending;
            });
        }
        if steps.messages && self.queue > 0 && slots != 3 {
            then("receives", &|world| {
                world.queue -= 1;
                world.tasks[at].held_in_call = 1;
                world.tasks[at].stage = Stage::Receiving;
            });
        }
        let child = self.tasks.iter().position(|task| task.stage == Stage::Never);
        if let (true, Some(child)) = (steps.forks, child) {
            let mut fork = |what, shares_table, shares_space| {
                then(what, &|world| {
                    let table = if shares_table { task.table } else { world.free_table() };
                    let space = if shares_space { task.space } else { 0 };
                    world.tables[usize::from(table) - 1] |= slots;
                    world.tasks[child] = Task { stage: Stage::Born, table, space, ..Task::default() };
                    world.tasks[at].stage = Stage::ForkedTable;
                    world.tasks[at].child = child as u8;
                });
            };
            fork("forks", false, false);
            if steps.clones {
                fork("clones with its fd table", true, false);
                fork("clones with its address space", false, true);
            }
        }
        if steps.execs {
            then("begins to exec", &|world| world.tasks[at].stage = Stage::Opened);
            if has_fd && steps.programs {
                then("begins to exec the buffer", &|world| {
                    world.tasks[at].held_in_call = 1;
                    world.tasks[at].stage = Stage::Opened;
                });
            }
        }
        if steps.exits && at != steps.socket {
            then("gives up its space", &|world| {
                world.tasks[at].space = 0;
                world.tasks[at].given_up = if world.has_space(task.space) { 0 } else { task.space };
                world.tasks[at].stage = Stage::GaveSpace;
            });
        }
    }

    /// The next step of a task inside a call.
    fn go_on(&self, at: usize, then: &mut Then<'_>) {
        let task = self.tasks[at];
        let child = usize::from(task.child);
        match task.stage {
            Stage::ForkedTable => then("copies its space", &|world| {
                if world.tasks[child].space == 0 {
                    let space = world.free_space();
                    world.spaces[usize::from(space) - 1] = self.places(at);
                    world.tasks[child].space = space;
                }
                world.tasks[at].stage = Stage::ForkedSpace;
            }),
            Stage::ForkedSpace => then("gives the child a pid", &|world| {
                world.processes_started = true;
                world.tasks[at].stage = Stage::ForkedPid;
            }),
            Stage::ForkedPid => then("lists the child", &|world| {
                world.tasks[child].stage = Stage::Runs;
                world.tasks[child].ran = true;
                world.tasks[at].child = 0;
                world.tasks[at].stage = Stage::Runs;
            }),
            Stage::Closing => then("has closed", &|world| {
                world.tasks[at].held_in_call = 0;
                world.tasks[at].stage = Stage::Runs;
            }),
            Stage::Sending => then("has sent", &|world| {
                world.tasks[at].held_in_call = 0;
                world.queue += 1;
                world.tasks[at].stage = Stage::Runs;
            }),
            Stage::Receiving => then("has received", &|world| {
                // If the table is full by now, the reference is released instead.
                if let (table @ 1.., Some(bit)) =
                    (usize::from(task.table), [1, 2].into_iter().find(|bit| self.slots(at) & bit == 0))
                {
                    world.tables[table - 1] |= bit;
                }
                world.tasks[at].held_in_call = 0;
                world.tasks[at].stage = Stage::Runs;
            }),
            Stage::Opened => then("replaces its program", &|world| {
                let space = world.free_space();
                world.spaces[usize::from(space) - 1] = EXE * task.held_in_call;
                world.tasks[at].held_in_call = 0;
                world.tasks[at].space = space;
                world.tasks[at].program += 1;
                world.tasks[at].given_up = if world.has_space(task.space) { 0 } else { task.space };
                world.tasks[at].stage = Stage::Replaced;
            }),
            Stage::Replaced => then("has execed", &|world| {
                world.release_space(at);
                world.tasks[at].stage = Stage::Runs;
            }),
            Stage::GaveSpace => then("releases its space", &|world| {
                world.release_space(at);
                world.tasks[at].stage = Stage::NoSpace;
            }),
            Stage::NoSpace => then("gives up its table", &|world| {
                world.tasks[at].table = 0;
                world.tasks[at].given_up = if world.has_table(task.table) { 0 } else { task.table };
                world.tasks[at].stage = Stage::GaveTable;
            }),
            Stage::GaveTable => then("ends", &|world| {
                if let table @ 1.. = usize::from(task.given_up) {
                    world.tables[table - 1] = 0;
                }
                world.tasks[at] = Task { stage: Stage::Gone, ran: true, ..Task::default() };
            }),
            Stage::Never | Stage::Born | Stage::Runs | Stage::Gone => {}
        }
    }

    fn release_space(&mut self, at: usize) {
        if let space @ 1.. = usize::from(self.tasks[at].given_up) {
            self.spaces[space - 1] = 0;
        }
        self.tasks[at].given_up = 0;
    }
}
