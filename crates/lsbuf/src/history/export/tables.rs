//! The tables that are exported, and their columns.

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Truth,
    Text,
    /// Microseconds since 1970.
    Time,
}

/// A table that is exported.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) name: &'static str,
    /// Each column's name, what is in it, and where it comes from.
    pub(super) columns: &'static [(&'static str, Kind, &'static str)],
    /// Behind FROM. The tables `boot`, `run` and, as `begun`, the first sample must be among them.
    from: &'static str,
}

impl Exported {
    /// The query for its rows, with two more columns behind those of the table: by which boot and
    /// which time a row is filed.
    pub(super) fn sql(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|(name, _, of)| format!("{of} AS {name}")).collect();
        format!(
            "SELECT {}, coalesce(begun.taken_at, oldest.taken_at) AS filed_at FROM {} \
             JOIN (SELECT taken_at FROM sample ORDER BY id LIMIT 1) AS oldest ORDER BY {}",
            columns.join(", "),
            self.from,
            self.order()
        )
    }

    fn order(&self) -> &'static str {
        if self.name == "sample" { "begun.id" } else { "held.first, held.id" }
    }
}

use Kind::{Number, Text, Time, Truth};

const MACHINE: (&str, Kind, &str) = ("machine_id", Text, "boot.machine_id");
const HOST: (&str, Kind, &str) = ("hostname", Text, "boot.hostname");
const BOOT: (&str, Kind, &str) = ("boot_id", Text, "boot.boot_id");
const FIRST: (&str, Kind, &str) = ("first_at", Time, "begun.taken_at");
const LAST: (&str, Kind, &str) = ("last_at", Time, "ended.taken_at");
const FIRST_SAMPLE: (&str, Kind, &str) = ("first_sample", Number, "held.first");
const LAST_SAMPLE: (&str, Kind, &str) =
    ("last_sample", Number, "coalesce(held.last, (SELECT max(id) FROM sample))");

/// The samples in which a row was first and last seen, for a table that is called `held`.
macro_rules! times {
    () => {
        " LEFT JOIN sample AS begun ON begun.id = held.first LEFT JOIN sample AS ended ON ended.id = \
         coalesce(held.last, (SELECT max(id) FROM sample))"
    };
}

/// Every table.
pub(super) const EXPORTED: &[Exported] = &[
    Exported {
        name: "sample",
        columns: &[
            MACHINE,
            HOST,
            BOOT,
            ("kernel", Text, "boot.kernel"),
            ("sample", Number, "begun.id"),
            ("taken_at", Time, "begun.taken_at"),
            ("boottime_us", Number, "begun.boottime"),
            ("duration_us", Number, "begun.duration"),
            ("processes_total", Number, "begun.processes_total"),
            ("processes_read", Number, "begun.processes_read"),
            ("processes_unreadable", Number, "begun.processes_unreadable"),
            ("complete", Truth, "(SELECT complete FROM coverage_at WHERE sample = begun.id)"),
        ],
        from: "sample AS begun JOIN run ON run.id = begun.run JOIN boot ON boot.id = run.boot",
    },
    Exported {
        name: "buffer",
        columns: &[
            MACHINE,
            HOST,
            BOOT,
            FIRST_SAMPLE,
            LAST_SAMPLE,
            FIRST,
            LAST,
            ("buffer", Number, "held.buffer"),
            ("kind", Text, "buffer.kind"),
            ("dev", Text, "buffer.dev"),
            ("ino", Number, "buffer.ino"),
            ("ipc_namespace", Number, "buffer.ipc_namespace"),
            ("name", Text, "held.name"),
            ("exporter", Text, "held.exporter"),
            ("created_at", Time, "held.created_at / 1000"),
            ("creator_uid", Number, "held.creator_uid"),
            ("size", Number, "held.size"),
            ("charged", Number, "held.charged"),
            ("swapped", Number, "held.swapped"),
            ("deleted", Truth, "held.deleted"),
            ("count", Number, "held.count"),
            ("fd", Number, "held.fd"),
            ("map", Number, "held.map"),
            ("opath", Number, "held.opath"),
            ("in_flight", Number, "held.in_flight"),
            ("io_uring", Number, "held.io_uring"),
            ("exe", Number, "held.exe"),
            ("kernel", Number, "held.kernel"),
            ("estimate_reason", Text, "held.estimate_reason"),
            ("leak_shape", Text, "held.leak_shape"),
        ],
        from: concat!(
            "buffer_state AS held JOIN buffer ON buffer.id = held.buffer JOIN boot ON boot.id = buffer.boot",
            times!()
        ),
    },
    Exported {
        name: "process",
        columns: &[
            MACHINE,
            HOST,
            BOOT,
            FIRST_SAMPLE,
            LAST_SAMPLE,
            FIRST,
            LAST,
            ("process", Number, "held.process"),
            ("pid", Number, "process.pid"),
            ("start_time", Number, "process.start_time"),
            ("comm", Text, "held.comm"),
            ("uid", Number, "held.uid"),
            ("cgroup", Text, "held.cgroup"),
            ("sync_files", Number, "held.sync_files"),
            ("unit", Text, "held.details ->> '$.workload.unit'"),
            ("container", Text, "held.details ->> '$.workload.container'"),
            ("pod_uid", Text, "held.details ->> '$.workload.pod.uid'"),
            ("pod_namespace", Text, "held.details ->> '$.workload.pod.namespace'"),
            ("pod", Text, "held.details ->> '$.workload.pod.name'"),
            ("user", Text, "held.details ->> '$.user'"),
        ],
        from: concat!(
            "process_state AS held JOIN process ON process.id = held.process \
             JOIN boot ON boot.id = process.boot",
            times!()
        ),
    },
    Exported {
        name: "holder",
        columns: &[
            MACHINE,
            HOST,
            BOOT,
            FIRST_SAMPLE,
            LAST_SAMPLE,
            FIRST,
            LAST,
            ("buffer", Number, "held.buffer"),
            ("process", Number, "held.process"),
            ("kind", Text, "buffer.kind"),
            ("ino", Number, "buffer.ino"),
            ("pid", Number, "process.pid"),
            ("start_time", Number, "process.start_time"),
            ("fd", Number, "held.fd"),
            ("map", Number, "held.map"),
            ("opath", Number, "held.opath"),
            ("mapped", Number, "held.mapped"),
            ("runs", Truth, "held.runs"),
        ],
        from: concat!(
            "holding AS held JOIN buffer ON buffer.id = held.buffer \
             JOIN process ON process.id = held.process JOIN boot ON boot.id = buffer.boot",
            times!()
        ),
    },
];
