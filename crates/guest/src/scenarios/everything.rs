//! One world with every sort of shared memory and of huge pages at once, while the machine swaps:
//! `lsbuf reconcile` finds an owner for each page of `Shmem` and of the pool of huge pages.
//!
//! Other scenarios try each sort alone. What is only in one row there can be taken for another one
//! here: pages in swap, segments of huge pages, and what procfs does not show.

mod world;

use std::fs;

use anyhow::Context;
use rustix::thread::UnshareFlags;
use serde_json::Value;

use self::world::{
    ATTACHED, BEHIND_LOOP, BELOW_A_MOUNT, BY_FD, DELETED, HALF_SWAPPED, HELD, HIDDEN, HUGE_ALL,
    HUGE_ANONYMOUS, HUGE_ATTACHED, HUGE_HELD, HUGE_MEMFD, HUGE_OWN, HUGE_RESERVED, HUGE_UNATTACHED,
    HUGE_UNHELD, IN_FLIGHT, MAPPED, MEMFD_BEHIND_LOOP, ON_DEVTMPFS, UNATTACHED, UNHELD, UNMOUNTED_HELD,
    UNMOUNTED_UNHELD, World,
};
use super::huge_pages::account;
use super::reconcile::Parts;
use super::shmem::kit::mount_tmpfs;
use crate::kernels::Kernels;
use crate::make::{self, HugePages};
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{page, task};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "everything",
    claim: "With every sort of shared memory and huge pages at once, and a part in swap, nothing is left over of Shmem and of the huge pages",
    needs: &[Need::HugePages, Need::Swap, Need::Loop],
    kernels: Kernels::Every,
    ways: Way::BOTH,
    run: everything,
}];

fn everything(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/dev/shm")?;
    let (before, _) = Parts::ask(ctx, "before")?;
    ctx.check_eq("left over before", 0, before.left_over)?;
    let _swap = make::swap()?;
    let _aside = HugePages::set_aside(HUGE_ALL)?;
    let mut world = World::default();
    world.add_visible()?;
    world.add_swapped()?;
    world.add_huge()?;
    let visible = compare(ctx, "what every way shows", &world, 0, before)?;
    // By procfs, more swap can be in use than these have: that of other memory, and of pages that
    // were read back.
    let is_about_swap = |doubt: &&Value| doubt.as_str().is_some_and(|doubt| doubt.contains("may be in swap"));
    let doubts = visible["doubts"].as_array().into_iter().flatten();
    let others = doubts.filter(|doubt| ctx.way.is_bpf() || !is_about_swap(doubt)).count();
    ctx.check_eq("doubts of what every way shows", 0, others)?;
    ctx.check_eq("doubts of the huge pages", "[]", &visible["huge_doubts"])?;
    world.add_hidden()?;
    let all = compare(ctx, "everything", &world, HIDDEN, before)?;
    let complete = ctx.way.is_bpf();
    ctx.check_eq("everything was seen", complete, &all["complete"])?;
    // What procfs does not show is named: messages, a mount below another one, and swap.
    let said = all["doubts"].to_string() + &all["scan"]["notes"].to_string();
    for word in ["messages not yet received carry 1 fd", "/tmp/over is unknown", "may be in swap"] {
        ctx.check_eq(format!("it says {word:?}"), !complete, said.contains(word))?;
    }
    fs::remove_file("/dev/everything")?;
    Ok(())
}

/// Asks, and compares both accounts and their parts with what was made. `hidden` are the pages of
/// the world that only BPF iterators show. By procfs they are left over, less what is in swap
/// without being known to be. If nothing is hidden, that part of the swap follows from the sums.
fn compare(ctx: &mut Ctx, what: &str, world: &World, hidden: u64, before: Parts) -> anyhow::Result<Value> {
    let (parts, answer) = Parts::ask(ctx, what)?;
    let bytes = |pages: u64| pages * page();
    let by_bpf = ctx.way.is_bpf();
    let hidden_here = if by_bpf { 0 } else { bytes(hidden) };
    // The table of segments tells procfs what of them is in swap.
    let unknown_swap = if by_bpf || hidden == 0 { 0 } else { world.swapped - world.swapped_of_segments };
    let charged = sum(&answer["held"], "charged") + sum(&answer["tmpfs"], "unheld");
    let swapped = answer["swapped"].as_u64().context("no swapped")?;
    ctx.check_eq(
        format!("{what}: Shmem, of {charged} charged and {swapped} of it swapped"),
        i128::from(charged) - i128::from(swapped) + i128::from(hidden_here) - i128::from(unknown_swap),
        parts.shmem,
    )?;
    ctx.check_eq(
        format!("{what}: left over"),
        i128::from(hidden_here) - i128::from(unknown_swap),
        parts.left_over,
    )?;
    ctx.check_eq(format!("{what}: bytes known to be in swap"), world.swapped - unknown_swap, swapped)?;
    let came = parts.since(before);
    let half_swapped = HALF_SWAPPED as u64;
    let shown = |pages: u64| if hidden > 0 && by_bpf { pages } else { 0 };
    for (row, pages, found) in [
        ("memfds", BY_FD + MAPPED + half_swapped + shown(IN_FLIGHT + MEMFD_BEHIND_LOOP), came.memfd),
        ("segments", (ATTACHED + UNATTACHED) as u64 + half_swapped, came.sysv),
        ("shared anonymous memory", half_swapped, came.anonymous),
    ] {
        ctx.check_eq(format!("{what}: bytes of {row}"), bytes(pages), found)?;
    }
    // A loop device holds its file. procfs counts that as a file which nobody holds.
    let files = HELD + DELETED + UNHELD + ON_DEVTMPFS + BEHIND_LOOP + 2 * half_swapped;
    let hidden_files = shown(BELOW_A_MOUNT + UNMOUNTED_UNHELD + UNMOUNTED_HELD);
    ctx.check_eq(format!("{what}: bytes of files"), bytes(files + hidden_files), came.tmpfs + came.unheld)?;
    compare_huge(ctx, what, &answer)?;
    Ok(answer)
}

/// Compares the account of huge pages with what was made.
fn compare_huge(ctx: &mut Ctx, what: &str, answer: &Value) -> anyhow::Result<()> {
    let found = account(answer)?;
    let kind = |kind: &str| {
        let rows = found["held"].as_array().into_iter().flatten();
        rows.filter(|row| row["kind"] == kind).filter_map(|row| row["charged"].as_u64()).sum::<u64>()
    };
    let used =
        HUGE_MEMFD + HUGE_ANONYMOUS + HUGE_HELD + HUGE_UNHELD + HUGE_OWN + HUGE_ATTACHED + HUGE_UNATTACHED;
    for (row, pages, found) in [
        ("pages", HUGE_ALL, found["total"].as_u64()),
        ("free pages", HUGE_ALL - used, found["free"].as_u64()),
        ("reserved pages", HUGE_RESERVED, found["reserved"].as_u64()),
        ("memfds", HUGE_MEMFD, Some(kind("memfd"))),
        ("shared anonymous memory", HUGE_ANONYMOUS, Some(kind("shm-anon"))),
        ("held files", HUGE_HELD, Some(kind("hugetlbfs"))),
        ("unheld files", HUGE_UNHELD, Some(sum(&found["unheld"], "charged"))),
        ("own pages", HUGE_OWN, found["private"].as_u64()),
        ("attached segments", HUGE_ATTACHED, Some(kind("sysv"))),
        ("unattached segments", HUGE_UNATTACHED, found["unattached"]["charged"].as_u64()),
    ] {
        let bytes = pages * HugePages::SIZE;
        ctx.check_eq(format!("{what}: bytes of huge pages: {row}"), bytes, found.unwrap_or(u64::MAX))?;
    }
    ctx.check_eq(format!("{what}: huge pages left over"), 0, &found["left_over"])
}

/// The sum of a figure over the rows of a list.
fn sum(rows: &Value, key: &str) -> u64 {
    rows.as_array().into_iter().flatten().filter_map(|row| row[key].as_u64()).sum()
}
