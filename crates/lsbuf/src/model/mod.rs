//! What was found, and what it adds up to: plain data and arithmetic.
//!
//! Nothing here reads from the kernel or prints. `scan` fills a [`Snapshot`], [`Ledger::of`]
//! measures it, and `render` shows both. An unknown figure is `None`, never zero.
//!
//! With the feature `serde` the model serializes in the words of the JSON schema, and a
//! [`Snapshot`] can be read back from a document.
mod buffer;
mod charges;
mod copies;
#[cfg(feature = "serde")]
pub(crate) mod deserialize;
mod details;
mod device;
mod diff;
mod event;
mod fold;
mod freed;
mod handle;
mod id;
mod kernel_holder;
mod kind;
mod label;
mod ledger;
mod list;
mod name_lives;
mod note;
mod open_file;
mod origin;
mod owner;
mod part;
mod payer;
mod process;
mod residual;
mod same_memory;
#[cfg(feature = "serde")]
pub(crate) mod serialize;
mod shmem;
mod snapshot;
mod source;
mod sum;
mod unheld;
mod units;
mod workload;

pub use buffer::{Buffer, Holder, MapRef, Perms, ThreadFds};
pub use copies::PrivateCopies;
pub use details::{Args, Detail, Details, Pod, PodName, ProcessDetails, Workload};
use device::openers;
pub use device::{Device, DeviceClass, DeviceHolder, candidates};
pub use diff::{Change, ChangedBuffer, ChangedGroup, ChangedProcess, Diff};
pub use event::{Actor, Event, Giver, Happening, TraceKey, TracedBuffer, TracedMapping, Way};
pub use fold::folded;
pub use handle::GemHandle;
pub use id::{BufferId, IpcNamespace};
pub use kernel_holder::{KernelHolder, KernelHolderKind};
pub use kind::{Kind, Kinds};
pub use label::Label;
#[cfg(feature = "metrics")]
pub(crate) use ledger::knows_unheld;
#[cfg(feature = "history")]
pub(crate) use ledger::measure;
#[cfg(all(test, feature = "history"))]
pub(crate) use ledger::tests as examples;
pub use ledger::{
    Account, BufferRow, ExporterTotals, FD_LEAK_MIN, KindTotals, LeakShape, Ledger, ProcessFigures,
    ProcessRow, Totals,
};
pub use list::{FdList, ShortList};
pub use name_lives::NameLives;
pub use note::Note;
pub use open_file::{OpenFile, OpenFileHolder, OpenFiles};
pub use origin::{
    Birth, BuildId, Client, CodePlace, Function, KernelFrame, NoClient, NoOrigin, Origin, Receipt, Stack,
    StackEnd, Unwind, UserFrame,
};
pub use owner::Owner;
pub use part::Part;
pub use payer::{Payer, Payers, PayingCgroup};
pub use process::Process;
pub use residual::{Residual, Why};
pub use shmem::{HugePool, Overlap, Seals, Segment, SegmentReach, TmpfsMount, TmpfsUsage, UnheldSum};
pub use snapshot::{Coverage, Gaps, Host, ProcessCounts, Snapshot};
pub use source::{HiddenRefs, Source};
pub use sum::{Group, GroupFigures, Sum, SumKey, SumTotals};
pub(crate) use unheld::{PackedFile, UnheldBuilder, UnheldFolder};
pub use unheld::{UnheldFile, UnheldGaps, UnheldList};
pub use units::{Bytes, Dev, Fd, Inode, Pid, Tid, counted};
pub use workload::WorkloadName;
