//! The account of shared memory as a line of text: as the test made it, and as lsbuf printed it.

use anyhow::Context;
use serde_json::Value;

use crate::actor::Held;
use crate::answer::{self, Answer, ExpectedResidual};
use crate::way::Way;

/// A buffer, as the test made it.
#[derive(Clone, Debug)]
pub(in crate::scenarios) struct Shm {
    pub(in crate::scenarios) kind: &'static str,
    pub(in crate::scenarios) ino: u64,
    name: String,
    size: u64,
    charged: Option<u64>,
    namespace: Option<u64>,
    private: usize,
    in_flight: u64,
    programs: u64,
    kernel: ExpectedResidual,
    held: Vec<Held>,
}

impl Shm {
    /// A buffer that these hold, and nobody else. The first one has what the inode says.
    pub(in crate::scenarios) fn held(kind: &'static str, name: &str, held: Vec<Held>) -> Shm {
        let first = held.first().cloned().unwrap_or_default();
        Shm { held, ..Shm::unheld(kind, name, &first) }
    }

    /// A buffer that no process holds, described by a former holder.
    pub(in crate::scenarios) fn unheld(kind: &'static str, name: &str, once: &Held) -> Shm {
        Shm {
            kind,
            ino: once.ino,
            name: name.to_owned(),
            size: once.size,
            charged: Some(once.charged),
            namespace: None,
            private: 0,
            in_flight: 0,
            programs: 0,
            kernel: ExpectedResidual::Exact(0),
            held: Vec::new(),
        }
    }

    /// Says how many of its mappings are private.
    pub(in crate::scenarios) fn and_private(mut self, mappings: usize) -> Shm {
        self.private = mappings;
        self
    }

    /// Adds references in messages.
    pub(in crate::scenarios) fn and_in_flight(mut self, references: u64) -> Shm {
        self.in_flight = references;
        self
    }

    /// Adds programs that run from it.
    pub(in crate::scenarios) fn and_programs(mut self, programs: u64) -> Shm {
        self.programs = programs;
        self
    }

    /// Says how many references no process holds.
    pub(in crate::scenarios) fn and_kernel(mut self, kernel: ExpectedResidual) -> Shm {
        self.kernel = kernel;
        self
    }

    /// Says that its id belongs to this IPC namespace.
    pub(in crate::scenarios) fn in_namespace(mut self, namespace: u64) -> Shm {
        self.namespace = Some(namespace);
        self
    }

    /// Says that the kernel does not count what is allocated for it.
    pub(in crate::scenarios) fn uncharged(mut self) -> Shm {
        self.charged = None;
        self
    }

    /// The account, as far as this way can know it: procfs counts references of segments alone.
    pub(in crate::scenarios) fn line(&self, way: Way) -> String {
        let mut held = self.held.clone();
        held.sort_by_key(|h| h.pid);
        let sum = |f: fn(&Held) -> usize| held.iter().map(f).sum::<usize>() as u64;
        let (fd, map, opath) = (sum(Held::own_fds), sum(Held::own_maps), sum(Held::own_opaths));
        let counts = self.kind == "sysv" || way.is_bpf();
        let known = |figure: u64| if counts { figure.to_string() } else { "?".into() };
        let (residual, kernel) = match self.kernel {
            ExpectedResidual::Exact(references) => (references, known(references)),
            ExpectedResidual::Estimate(references) => (references, format!("~{references}")),
            ExpectedResidual::Unknown => (0, "?".into()),
        };
        let count = fd + map + self.in_flight + self.programs + residual;
        let holders: Vec<String> = held.iter_mut().map(|held| answer::holder(held, "")).collect();
        format!(
            "{}{} {:?} size {} charged {}: count {} = {fd} fd + {map} map ({} private){}{} + {} kernel, {opath} opath, {}",
            self.kind,
            namespace(self.namespace),
            self.name,
            self.size,
            self.charged.map_or("?".into(), |charged| charged.to_string()),
            known(count),
            self.private,
            answer::in_flight(if counts { self.in_flight } else { 0 }),
            programs(self.programs),
            kernel,
            holders.join(" "),
        )
    }

    /// The account that was printed.
    pub(in crate::scenarios) fn printed(&self, answer: &Answer) -> anyhow::Result<String> {
        self.find(answer).map(|buffer| self.line_of(buffer))
    }

    /// The buffer in the answer. An inode number belongs to one filesystem, so another kind, or
    /// even another file of the same kind, may have the same number. Then the name, or the
    /// namespace, decides.
    pub(in crate::scenarios) fn find<'a>(&self, answer: &'a Answer) -> anyhow::Result<&'a Value> {
        let numbered =
            || answer.list("buffers").iter().filter(|b| b["ino"] == self.ino && b["kind"] == self.kind);
        let meant = |b: &&Value| match self.namespace {
            Some(namespace) => b["ipc_namespace"] == namespace,
            None => b["name"] == *self.name,
        };
        numbered()
            .find(meant)
            .or_else(|| numbered().next())
            .with_context(|| format!("lsbuf does not list {}:{}: {}", self.kind, self.ino, answer.0))
    }

    fn line_of(&self, b: &Value) -> String {
        let number = |v: &Value| v.as_u64().map_or("?".into(), |n| n.to_string());
        let refs = &b["refs"];
        let estimate = if b["estimate"] == true && !refs["kernel"].is_null() { "~" } else { "" };
        let holders: Vec<String> =
            b["holders"].as_array().into_iter().flatten().map(answer::printed_holder).collect();
        format!(
            "{}{} {:?} size {} charged {}: count {} = {} fd + {} map ({} private){}{} + {estimate}{} kernel, {} opath, {}",
            b["kind"].as_str().unwrap_or("?"),
            namespace(b["ipc_namespace"].as_u64().filter(|_| self.namespace.is_some())),
            b["name"].as_str().unwrap_or("?"),
            number(&b["size"]),
            number(&b["charged"]),
            number(&b["count"]),
            number(&refs["fd"]),
            number(&refs["map"]),
            number(&refs["private_map"]),
            answer::in_flight(refs["in_flight"].as_u64().unwrap_or(0)),
            programs(refs["exe"].as_u64().unwrap_or(0)),
            number(&refs["kernel"]),
            number(&refs["opath"]),
            holders.join(" "),
        )
    }
}

fn namespace(ipc: Option<u64>) -> String {
    ipc.map_or(String::new(), |ipc| format!(" of ipc:[{ipc}]"))
}

fn programs(running: u64) -> String {
    if running > 0 { format!(" + {running} running") } else { String::new() }
}
