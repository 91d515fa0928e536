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

use Kind::{Number, Text, Time, Truth};

/// A column: its name, what is in it, and where it comes from.
pub(super) type ExportedColumn = (&'static str, Kind, &'static str);

/// A table that is exported.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) name: &'static str,
    /// Behind those that every table has.
    own: &'static [ExportedColumn],
    /// Behind FROM. The table `boot` must be among these, and as `held` the intervals, or as
    /// `begun` the sample that a row is.
    from: &'static str,
    /// Whether a row is an interval. Then it has the samples in which it was first and last seen,
    /// and their times.
    has_interval: bool,
}

/// The first columns of every table.
const MACHINE: &[ExportedColumn] = &[
    ("machine_id", Text, "boot.machine_id"),
    ("hostname", Text, "boot.hostname"),
    ("boot_id", Text, "boot.boot_id"),
];

/// The columns of an interval, behind those.
const INTERVAL: &[ExportedColumn] = &[
    ("first_sample", Number, "held.first"),
    ("last_sample", Number, "coalesce(held.last, (SELECT max(id) FROM sample))"),
    ("first_at", Time, "begun.taken_at"),
    ("last_at", Time, "ended.taken_at"),
];

/// The samples of an interval.
const ENDS: &str = " LEFT JOIN sample AS begun ON begun.id = held.first LEFT JOIN sample AS ended \
                    ON ended.id = coalesce(held.last, (SELECT max(id) FROM sample))";

impl Exported {
    /// Its columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = &'static ExportedColumn> + use<> {
        let interval = if self.has_interval { INTERVAL } else { &[] };
        MACHINE.iter().chain(interval).chain(self.own)
    }

    /// The query for its rows, with one more column behind those of the table: by which time a row
    /// is filed.
    pub(super) fn sql(&self) -> String {
        let columns: Vec<String> = self.columns().map(|(name, _, of)| format!("{of} AS {name}")).collect();
        let (ends, order) = if self.has_interval { (ENDS, "held.first, held.id") } else { ("", "begun.id") };
        format!(
            "SELECT {}, coalesce(begun.taken_at, oldest.taken_at) AS filed_at FROM {}{ends} \
             JOIN (SELECT taken_at FROM sample ORDER BY id LIMIT 1) AS oldest ORDER BY {order}",
            columns.join(", "),
            self.from
        )
    }
}

/// Every table.
pub(super) const EXPORTED: &[Exported] = &[
    Exported {
        name: "sample",
        own: &[
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
        has_interval: false,
    },
    Exported {
        name: "buffer",
        own: &[
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
        from: "buffer_state AS held JOIN buffer ON buffer.id = held.buffer \
               JOIN boot ON boot.id = buffer.boot",
        has_interval: true,
    },
    Exported {
        name: "process",
        own: &[
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
        from: "process_state AS held JOIN process ON process.id = held.process \
               JOIN boot ON boot.id = process.boot",
        has_interval: true,
    },
    Exported {
        name: "holder",
        own: &[
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
        from: "holding AS held JOIN buffer ON buffer.id = held.buffer \
               JOIN process ON process.id = held.process JOIN boot ON boot.id = buffer.boot",
        has_interval: true,
    },
];
