-- The tables of a recording. docs/recording.md explains them, with example queries.
--
-- Sizes are bytes, times are microseconds (of created_at nanoseconds), unknown is NULL. Text that
-- processes choose is TEXT if it is UTF-8, else a BLOB with its bytes. Numbers from 2^63 on are
-- stored as negative ones.
--
-- A row of an interval table holds from sample `first` to sample `last`, both included. `last` is
-- NULL as long as the row still holds. `class` is the number of binary digits of `last - first`; it
-- lets `span` find the rows that hold at a sample without reading those that do not.
--
-- `sum` is a checksum of the row. SQLite has none, and would take a flipped bit for a figure.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;

CREATE TABLE span (class INTEGER PRIMARY KEY, length INTEGER NOT NULL) STRICT;
WITH RECURSIVE classes(class, length) AS (
    SELECT 0, 1 UNION ALL SELECT class + 1, length * 2 FROM classes WHERE class < 48
)
INSERT INTO span SELECT class, length FROM classes;

CREATE TABLE boot (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    machine_id TEXT,
    boot_id TEXT,
    hostname TEXT,
    kernel TEXT
) STRICT;

-- From one start of the recorder to its end.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    lsbuf TEXT NOT NULL,
    looked_for TEXT NOT NULL
) STRICT;

-- `rows` is how many rows of the interval tables hold at it.
CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES run,
    taken_at INTEGER NOT NULL,
    boottime INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    processes_total INTEGER NOT NULL,
    processes_read INTEGER NOT NULL,
    processes_unreadable INTEGER NOT NULL,
    processes_vanished INTEGER NOT NULL,
    rows INTEGER NOT NULL
) STRICT;

CREATE TABLE coverage (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    saw_every_process INTEGER NOT NULL,
    sources TEXT NOT NULL,
    unreadable TEXT NOT NULL,
    in_flight_fds INTEGER,
    io_uring_files INTEGER
) STRICT;

CREATE TABLE note (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    partial INTEGER NOT NULL
) STRICT;

CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    pid INTEGER NOT NULL,
    start_time INTEGER NOT NULL
) STRICT;
CREATE INDEX process_identity ON process (pid, start_time);

CREATE TABLE process_state (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    process INTEGER NOT NULL REFERENCES process,
    comm ANY NOT NULL,
    uid INTEGER,
    cgroup ANY,
    sync_files INTEGER,
    details TEXT
) STRICT;
CREATE INDEX process_state_of ON process_state (process);

CREATE TABLE buffer (
    id INTEGER PRIMARY KEY,
    sum INTEGER NOT NULL,
    boot INTEGER NOT NULL REFERENCES boot,
    kind TEXT NOT NULL,
    dev TEXT,
    ino INTEGER NOT NULL,
    ipc_namespace INTEGER
) STRICT;
CREATE INDEX buffer_identity ON buffer (ino, kind);

CREATE TABLE buffer_state (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    buffer INTEGER NOT NULL REFERENCES buffer,
    size INTEGER,
    charged INTEGER,
    swapped INTEGER,
    huge_page INTEGER,
    deleted INTEGER,
    name ANY,
    exporter ANY,
    created_at INTEGER,
    creator_uid INTEGER,
    name_stays INTEGER,
    count INTEGER,
    fd INTEGER NOT NULL,
    map INTEGER NOT NULL,
    opath INTEGER NOT NULL,
    in_flight INTEGER,
    io_uring INTEGER,
    exe INTEGER,
    kernel INTEGER,
    estimate_reason TEXT,
    leak_shape TEXT,
    parts TEXT
) STRICT;
CREATE INDEX buffer_state_of ON buffer_state (buffer);

CREATE TABLE holding (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    buffer INTEGER NOT NULL REFERENCES buffer,
    process INTEGER NOT NULL REFERENCES process,
    fd INTEGER NOT NULL,
    map INTEGER NOT NULL,
    opath INTEGER NOT NULL,
    mapped INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    fds TEXT,
    opaths TEXT,
    maps TEXT,
    threads TEXT,
    fd_table_of INTEGER,
    address_space_of INTEGER
) STRICT;
CREATE INDEX holding_of ON holding (buffer);
CREATE INDEX holding_by ON holding (process);

CREATE TABLE device (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    path ANY NOT NULL,
    name ANY,
    holders TEXT NOT NULL
) STRICT;

CREATE TABLE mount_point (
    id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER, class INTEGER,
    sum INTEGER NOT NULL,
    dev TEXT NOT NULL,
    path ANY NOT NULL
) STRICT;
