//! The account of huge pages, as a part of `lsbuf reconcile`'s table and JSON.

use serde::Serialize;

use super::cell::Sizes;
use super::reconcile::{JsonReconcileKind, signed};
use crate::escape::{escape, escape_gaps};
use crate::model::serialize::lost_bytes;
use crate::model::{Bytes, Dev, Kind, Label};
use crate::reconcile::{HugeAccount, HugeMount, HugeRow, KindRow, PrivateHuge, Reconciliation};

/// The lines of the table, with its heading; empty if there is no account.
pub(super) fn lines(found: &Reconciliation, sizes: Sizes) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for account in &found.huge {
        let heading = ["HUGE PAGES", "BUFFERS", "SIZE", "WHERE"];
        lines.extend(lines.is_empty().then(|| heading.map(str::to_owned).to_vec()));
        lines.extend(of_pool(account, sizes));
    }
    lines
}

fn of_pool(account: &HugeAccount, sizes: Sizes) -> Vec<Vec<String>> {
    let size = |bytes: i128| signed(bytes, sizes);
    let pool = &account.pool;
    let line = |what: String, files: Option<u64>, bytes: String, place: String| {
        vec![what, files.map_or(String::new(), |files| files.to_string()), bytes, place]
    };
    let of_pages = |pages: u64| size(i128::from(pages) * i128::from(pool.size.0));
    let surplus = match pool.surplus {
        0 => String::new(),
        pages => format!(", {} of it surplus", of_pages(pages)),
    };
    let total = format!("{} pages of {}{surplus}", pool.total, pool.size);
    let mut lines = vec![line("pages".into(), None, of_pages(pool.total), total)];
    let of_kind = |row: &KindRow, bytes| if row.unknown == row.buffers { "?".into() } else { size(bytes) };
    lines.extend(account.rows().into_iter().filter_map(|(row, bytes)| {
        Some(match row {
            HugeRow::Free if pool.reserved == 0 => line("  free".into(), None, size(bytes), String::new()),
            HugeRow::Free => {
                let promised = format!("{} of it promised (HugePages_Rsvd)", of_pages(pool.reserved));
                line("  free".into(), None, size(bytes), promised)
            }
            HugeRow::Held(row) => {
                let what = if row.kind == Kind::Hugetlbfs { "hugetlbfs, held" } else { row.kind.as_str() };
                line(format!("  {what}"), Some(row.buffers), of_kind(row, bytes), String::new())
            }
            HugeRow::Unattached(row) => {
                line("  sysv, not attached".into(), Some(row.buffers), of_kind(row, bytes), String::new())
            }
            HugeRow::Unheld(mount) => {
                line("  hugetlbfs, not held".into(), Some(mount.files), size(bytes), place(mount))
            }
            HugeRow::Private(private) if private.owners.is_empty() => return None,
            HugeRow::Private(private) => line("  private".into(), None, size(bytes), owners(private, sizes)),
            HugeRow::LeftOver => line("  left over".into(), None, size(bytes), String::new()),
        })
    }));
    lines
}

fn place(mount: &HugeMount) -> String {
    match &mount.point {
        Some(point) => escape_gaps(point.as_bytes()),
        None => format!("device {}, which no mount shows", mount.dev),
    }
}

/// The processes that have the most.
fn owners(private: &PrivateHuge, sizes: Sizes) -> String {
    const MOST: usize = 4;
    let one = |owner: &crate::reconcile::HugeOwner| {
        let comm = owner.comm.as_ref().map_or("?".into(), |comm| escape(comm.as_bytes()));
        format!("{comm}:{} {}", owner.pid, signed(owner.bytes.0.into(), sizes))
    };
    let mut shown: Vec<String> = private.owners.iter().take(MOST).map(one).collect();
    let more = private.owners.len().saturating_sub(MOST);
    shown.extend((more > 0).then(|| format!("{more} more")));
    shown.join(", ")
}

/// Whether the account adds up, and why it may be off.
pub(super) fn verdict(found: &Reconciliation) -> Option<String> {
    if found.huge.is_empty() && found.huge_uncertainties.is_empty() {
        return None;
    }
    let doubts: Vec<String> = found.huge_uncertainties.iter().map(|one| format!("- {one}\n")).collect();
    let adds_up = found.huge.iter().all(|account| account.left_over == 0);
    let told = match (adds_up, doubts.is_empty()) {
        (true, true) => "the huge pages add up",
        (true, false) if found.huge.is_empty() => "there is no account of huge pages:\n",
        (true, false) => "the huge pages add up, but:\n",
        (false, true) => {
            "what is left over of the huge pages may be pages that only the kernel or a message holds"
        }
        (false, false) => {
            "what is left over of the huge pages may be pages that only the kernel or a message holds; also:\n"
        }
    };
    Some(format!("{told}{}", doubts.concat()).trim_end().to_owned())
}

#[derive(Serialize)]
pub(super) struct JsonHuge<'a> {
    page_size: Bytes,
    total: u64,
    free: u64,
    reserved: u64,
    surplus: u64,
    held: Vec<JsonReconcileKind>,
    unattached: Option<JsonReconcileKind>,
    unheld: Vec<JsonHugeMount<'a>>,
    private: Bytes,
    private_of: Vec<JsonOwner<'a>>,
    left_over: i128,
}

#[derive(Serialize)]
struct JsonHugeMount<'a> {
    dev: Dev,
    mount_point: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point_bytes: Option<String>,
    files: u64,
    charged: Bytes,
}

#[derive(Serialize)]
struct JsonOwner<'a> {
    pid: u32,
    comm: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Option<String>,
    bytes: Bytes,
}

impl<'a> From<&'a HugeAccount> for JsonHuge<'a> {
    fn from(account: &'a HugeAccount) -> JsonHuge<'a> {
        let pool = &account.pool;
        let bytes = |pages: u64| pages.saturating_mul(pool.size.0);
        let mount = |mount: &'a HugeMount| JsonHugeMount {
            dev: mount.dev,
            mount_point: mount.point.as_ref(),
            mount_point_bytes: lost_bytes(mount.point.as_ref()),
            files: mount.files,
            charged: mount.charged,
        };
        let owner = |owner: &'a crate::reconcile::HugeOwner| JsonOwner {
            pid: owner.pid.0,
            comm: owner.comm.as_ref(),
            comm_bytes: lost_bytes(owner.comm.as_ref()),
            bytes: owner.bytes,
        };
        JsonHuge {
            page_size: pool.size,
            total: bytes(pool.total),
            free: bytes(pool.free),
            reserved: bytes(pool.reserved),
            surplus: bytes(pool.surplus),
            held: account.held.iter().map(JsonReconcileKind::from).collect(),
            unattached: account.unattached.as_ref().map(JsonReconcileKind::from),
            unheld: account.unheld.iter().map(mount).collect(),
            private: account.private.bytes,
            private_of: account.private.owners.iter().map(owner).collect(),
            left_over: account.left_over,
        }
    }
}
