//! Tests the proof of [`settle`](super) on a small model of the kernel: tries every interleaving of
//! the kernel's steps with those of a scan, and lets the real `Settling` decide each reading.
//!
//! Tests on a real kernel hit only some interleavings. Here none is left out, up to the stated
//! lengths.
//!
//! # What is claimed
//!
//! The *truth* at a moment is how many references the kernel itself has: all counted ones, less
//! those in fd tables, address spaces and messages, and less those that a task has taken inside
//! fork, close, sendmsg, recvmsg, exec or exit. `Exact(n)` is true
//!
//! - if a reading proves it alone (none of its suspects ran): when the truth was `n` at some moment
//!   of that reading, and of each other such reading with the same account;
//! - if several readings prove it together: when the truth was `n` at some moment from the begin of
//!   the first of them to the end of the last.
//!
//! Any other `Exact` is wrong, and the search ends with the path to it. Two cases are limits of the
//! proof, and are counted:
//!
//! - *several*: no reading proves it alone, and no process was misread in each of them;
//! - *asleep*: a receiver slept through a whole reading while it held the missing references.
//!
//! # What is searched
//!
//! A search begins with a world, allows some kinds of steps, and follows every path with up to a
//! number of them (the *budget*), taken before, between and after any two steps of the scan. Each
//! state is visited once, and is known by a 64-bit hash. The tests print how many states there
//! were.
//!
//! # Limits: what the model leaves out
//!
//! - A task that was preempted inside close is taken to show as running, as it does by procfs. By
//!   the BPF iterators it does not, and the test `each_kind_of_interference_matters` shows what
//!   follows.
//! - Threads: each task is a process of its own; some share a table or an address space.
//! - A second buffer: each buffer is decided by itself, and another one only causes more readings.
//! - Sockets that are in a message or are closed with messages in them, io_uring, `O_PATH`,
//!   segments.
//! - Pids that are reused, processes that cannot be read, more than one kernel reference or message
//!   at a time.
//! - A walk over a buffer's tree of mappings that is led astray when the tree changes. That the
//!   tree changes between two steps of the walk is in the model.

mod scan;
mod search;
mod world;

use scan::{How, Order};
use search::{Found, Search};
use world::{Steps, World};

const ORDERS: [Order; 3] = [Order::Procfs, Order::Iterators, Order::Shmem];

/// Every kind of step.
const ALL: Steps = Steps {
    fds: true,
    maps: true,
    messages: true,
    forks: true,
    clones: true,
    execs: true,
    programs: true,
    exits: true,
    kernel: true,
    exports: true,
    steals: true,
    socket: 0,
};

const MOVES: Steps = Steps { fds: true, maps: true, ..NONE };
const FORKS: Steps = Steps { maps: true, forks: true, exits: true, ..NONE };
const CLONES: Steps = Steps { forks: true, clones: true, exits: true, execs: true, programs: true, ..NONE };
const EXECS: Steps = Steps { execs: true, programs: true, exits: true, fds: true, ..NONE };
const MESSAGES: Steps = Steps { messages: true, ..NONE };
const EXPORTS: Steps = Steps { messages: true, exports: true, ..NONE };
const NONE: Steps = Steps {
    fds: false,
    maps: false,
    messages: false,
    forks: false,
    clones: false,
    execs: false,
    programs: false,
    exits: false,
    kernel: false,
    exports: false,
    steals: false,
    socket: 0,
};

/// A search by this source. No program runs from a dma-buf.
fn search(order: Order, world: World, steps: Steps, readings: u32, budget: u8) -> Search {
    let how = How { order, socket: steps.socket, preempted_runs: true };
    let steps = Steps { programs: steps.programs && order == Order::Shmem, ..steps };
    Search { world, steps, how, readings, all_readings: false, budget, remove: None }
}

/// Runs a search, in which nothing may be wrong.
fn holds(name: &str, search: &Search) -> Found {
    let begun = std::time::Instant::now();
    let found = search.run();
    println!(
        "{name}, {:?}, {} readings, budget {}: {} states, {} exact, {} several, {} asleep, {:.1?}",
        search.how.order,
        search.readings,
        search.budget,
        found.states,
        found.exact,
        found.several,
        found.asleep,
        begun.elapsed(),
    );
    assert_eq!(found.wrong, None, "{name}, {:?}", search.how.order);
    found
}

/// One process with an fd, and one without.
fn one_holder() -> World {
    World::new(&[(0, 0), (1, 0)])
}

/// One process with two mappings and an fd, and another with a copy of the fd.
fn holders() -> World {
    World::new(&[(1, 1), (1, 0)])
}

/// Only the kernel has a reference.
fn kernel_alone() -> World {
    World { kernel: 1, ..World::new(&[(0, 0), (0, 0)]) }
}

/// The same, and two processes share one address space.
fn shared_space() -> World {
    let mut world = kernel_alone();
    world.tasks[1].space = world.tasks[0].space;
    world
}

/// The world after these steps; of several steps with one name the first is taken.
fn later(world: World, names: &[&str]) -> World {
    names.iter().fold(world, |world, name| {
        let mut next = Vec::new();
        // The owner of the socket cannot exit. With this owner, the first process can.
        world.next(&Steps { socket: 1, ..ALL }, &mut next);
        next.into_iter().find(|(what, ..)| what == name).unwrap_or_else(|| panic!("{name}")).2
    })
}

/// Check that one reading alone proves nothing wrong, except while a receiver sleeps.
#[test]
fn one_reading() {
    one_reading_with(0);
}

/// Check the same with longer paths.
#[test]
#[ignore = "takes minutes"]
fn one_reading_at_length() {
    one_reading_with(1);
}

fn one_reading_with(more: u8) {
    for order in ORDERS {
        let searches = [
            ("all", one_holder(), ALL, 3),
            ("moves", holders(), MOVES, 4),
            ("forks", holders(), FORKS, 5),
            ("clones", holders(), CLONES, 5),
            ("execs", holders(), EXECS, 5),
            ("exports", kernel_alone(), EXPORTS, 6),
        ];
        for (name, world, steps, budget) in searches {
            let found = holds(name, &search(order, world, steps, 1, budget + more));
            assert!(found.exact > 0 && found.several == 0 && (steps.messages || found.asleep == 0), "{name}");
        }
    }
    for order in [Order::Iterators, Order::Shmem] {
        holds("shared", &search(order, shared_space(), Steps { exports: true, ..MOVES }, 1, 5 + more));
    }
}

/// Check that several readings together prove nothing wrong except by the limits, also if more
/// readings follow the proof.
#[test]
fn three_readings() {
    three_readings_with(0);
}

/// Check the same with longer paths.
#[test]
#[ignore = "takes minutes"]
fn three_readings_at_length() {
    three_readings_with(1);
}

fn three_readings_with(more: u8) {
    for order in ORDERS {
        let searches = [
            ("all", one_holder(), ALL, 2),
            ("moves", holders(), MOVES, 2),
            ("forks", holders(), FORKS, 2),
            ("clones", holders(), CLONES, 3),
            ("execs", holders(), EXECS, 2),
            ("messages", one_holder(), MESSAGES, 3),
        ];
        for (name, world, steps, budget) in searches {
            for all_readings in [false, true] {
                let search = Search { all_readings, ..search(order, world, steps, 3, budget + more) };
                holds(name, &search);
            }
        }
    }
}

/// Check that a residual is exact if nothing runs, by each source.
#[test]
fn nothing_runs() {
    for order in ORDERS {
        let world = World { kernel: 1, ..holders() };
        assert_eq!(holds("still", &search(order, world, NONE, 3, 0)).exact, 1);
    }
}

/// Check that references are not taken for the kernel's if a task sleeps, for the whole scan, in a
/// call that keeps them in no table.
#[test]
fn sleeping_inside_a_call() {
    let calls: [&[&str]; 8] = [
        &["forks"],
        &["forks", "copies its space"],
        &["forks", "copies its space", "gives the child a pid"],
        &["clones with its fd table", "copies its space"],
        &["clones with its address space"],
        &["sends"],
        &["begins to exec", "replaces its program"],
        &["gives up its space"],
    ];
    for order in ORDERS {
        for names in calls {
            let world = later(World::new(&[(1, 1), (0, 0)]), names);
            let found = holds(&names.join(", "), &search(order, world, NONE, 3, 0));
            assert_eq!(found.exact, 0, "{order:?}: {names:?}");
        }
        let names = ["gives up its space", "releases its space", "gives up its table"];
        let world = World { kernel: 1, ..later(World::new(&[(1, 1), (0, 0)]), &names) };
        assert_eq!(holds("exit", &search(order, world, NONE, 3, 0)).exact, 0, "{order:?}");
    }
    let exec = later(World::new(&[(1, 1), (0, 0)]), &["begins to exec the buffer"]);
    assert_eq!(holds("exec", &search(Order::Shmem, exec, NONE, 3, 0)).exact, 0);
}

/// Check that no residual becomes exact by mistake if a message was found and was gone when the
/// count was read.
#[test]
fn a_message_that_has_gone() {
    for order in ORDERS {
        let world = World { queue: 1, kernel: 1, ..World::new(&[(0, 0), (0, 0)]) };
        holds("message", &search(order, world, MESSAGES, 1, 4));
    }
}

/// Check that the search reaches the limits of the proof, so that its counts of them mean
/// something.
#[test]
fn limits_are_reached() {
    for order in ORDERS {
        let found = holds("messages", &search(order, one_holder(), MESSAGES, 3, 3));
        assert!(found.several > 0 && found.asleep > 0, "{order:?}: {found:?}");
    }
    // procfs does not tell that a process shares an address space while that process shows no
    // mapping.
    let shared = search(Order::Procfs, shared_space(), Steps { exports: true, ..MOVES }, 1, 5);
    assert!(shared.run().wrong.is_some());
}

/// Check that each kind of evidence is needed: without it the search finds a wrong proof.
#[test]
fn each_kind_of_interference_matters() {
    let wrong = |search: Search, remove| Search { remove: Some(remove), ..search }.run().wrong.is_some();
    for order in ORDERS {
        assert!(
            wrong(search(order, holders(), MOVES, 1, 2), |interference| interference.ran = Some([].into()))
        );
        assert!(wrong(search(order, one_holder(), MESSAGES, 1, 1), |w| w.in_call = Some([].into())));
        let forks = search(order, holders(), FORKS, 1, 1);
        assert!(wrong(forks, |interference| interference.in_call = Some([].into())), "{order:?}");
        let mut unseen = search(order, holders(), MOVES, 1, 1);
        unseen.how.preempted_runs = false;
        assert!(unseen.run().wrong.is_some(), "{order:?}");
    }
    let ends = search(Order::Procfs, one_holder(), Steps { exits: true, ..NONE }, 1, 3);
    assert!(wrong(ends, |interference| interference.exiting = false));
}

/// Check that started processes need no rule of their own: the parent ran, and so did the child.
#[test]
fn processes_started() {
    for order in ORDERS {
        let forks = search(order, holders(), CLONES, 2, 4);
        holds(
            "processes_started",
            &Search { remove: Some(|interference| interference.processes_changed = false), ..forks },
        );
    }
}
