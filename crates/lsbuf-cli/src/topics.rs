//! What help and manual pages say of each command beyond its options: columns, examples, exit
//! status, files.
//!
//! Both are made from the one table here, so that they cannot disagree. Limit: the wording of
//! options is with the options, in `args`.

use lsbuf::render::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_LEAK_COLUMNS, DEFAULT_PROCESS_COLUMNS,
    DEFAULT_SUM_COLUMNS, LEAK_COLUMNS, PROCESS_COLUMNS, SUM_COLUMNS,
};
use lsbuf::scan::PINS;

/// One command.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Its words, such as `lsbuf probes install`.
    pub(crate) command: &'static str,
    /// The columns that it can show.
    pub(crate) columns: Option<Columns>,
    /// Paragraphs about what it does.
    pub(crate) description: &'static [&'static str],
    /// Sentences about its output.
    pub(crate) notes: &'static [&'static str],
    /// Command lines, and what each answers.
    pub(crate) examples: &'static [(&'static str, &'static str)],
    /// Each exit status with its meaning.
    pub(crate) exit: &'static [(&'static str, &'static str)],
    /// Files that it reads or makes; for the manual page alone.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

/// Columns of a table.
#[derive(Debug)]
pub(crate) struct Columns {
    /// All of them.
    pub(crate) all: &'static [Column],
    /// The names of those that are shown by default.
    pub(crate) default: &'static [&'static str],
    /// When a default one is left out.
    pub(crate) note: Option<&'static str>,
}

const BUFFERS: Columns = Columns {
    all: BUFFER_COLUMNS,
    default: DEFAULT_BUFFER_COLUMNS,
    note: Some(
        "A table has EXPORTER only if a dma-buf is listed, and IPC too if segments of several \
         namespaces are. With -d it has no KIND and CHARGED.",
    ),
};

const PROCESSES: Columns = Columns {
    all: PROCESS_COLUMNS,
    default: DEFAULT_PROCESS_COLUMNS,
    note: Some(
        "A table has SYNCS too if a shown process has a sync_file. CGROUP, UNIT, CONTAINER and POD \
         are where the process runs: the kernel may charge its buffers to another cgroup.",
    ),
};

const SUMS: Columns = Columns { all: SUM_COLUMNS, default: DEFAULT_SUM_COLUMNS, note: None };

const LEAKS: Columns = Columns { all: LEAK_COLUMNS, default: DEFAULT_LEAK_COLUMNS, note: None };

const ANSWER: &[(&str, &str)] = &[
    ("0", "answered, even if only in part (stderr says so)"),
    ("1", "no answer"),
    ("2", "wrong arguments"),
    ("3", "answered in part, with --strict"),
];

const ACTION: &[(&str, &str)] =
    &[("0", "done"), ("1", "not done (stderr says why)"), ("2", "wrong arguments")];

const SCANNED: &[(&str, &str)] = &[
    ("/proc", "processes, their fds and their mappings (another folder: --proc-root)"),
    ("/sys/kernel/debug/dma_buf/bufinfo", "the kernel's list of dma-bufs with their counts, for root alone"),
    ("/sys/kernel/btf/vmlinux", "the kernel's types, which loading BPF iterators needs"),
    (PINS, "pinned BPF iterators (another folder: --pins)"),
];

const PINNED: &[(&str, &str)] = &[
    (PINS, "the folder with the pinned BPF iterators (another folder: --pins)"),
    ("/sys/kernel/btf/vmlinux", "the kernel's types, which loading BPF iterators needs"),
    ("/etc/group", "names of groups"),
    (
        "lsbuf-probes.service",
        "a systemd unit that pins them at boot, if a package or the administrator has installed it; \
         sudo systemctl enable --now lsbuf-probes",
    ),
];

const NONE: Topic = Topic {
    command: "",
    columns: None,
    description: &[],
    notes: &[],
    examples: &[],
    exit: ANSWER,
    files: SCANNED,
};

/// All commands, the program itself first. Examples end at column 80 of the help.
pub(crate) const TOPICS: &[Topic] = &[
    Topic {
        command: "lsbuf",
        columns: Some(BUFFERS),
        notes: &[
            "? is unknown, ~ an estimate, - none or does not apply.",
            "Filters choose rows. The figures in a row, and the totals, are of the whole machine.",
            "A row is red if one process holds the buffer by 16 fds or more, yellow if no fd and no \
             mapping holds it.",
            "On a terminal NAME and HOLDERS are cut to its width; output that is piped is not.",
            "Options go after the command: lsbuf ps --human.",
        ],
        examples: &[
            ("lsbuf", "every buffer, largest first"),
            ("lsbuf -d", "dma-bufs alone"),
            ("lsbuf --kind memfd,sysv", "these kinds alone"),
            ("lsbuf -p 4711 -o +SHAPE,CREATED", "what process 4711 holds, two more columns"),
            ("lsbuf --unheld", "what nobody holds: files, segments"),
            ("lsbuf --deleted", "unlinked files that are still held"),
            ("lsbuf --min-size 8M --name 'cam*' --sort COUNT", ""),
            ("lsbuf ps --sort BUFS", "the processes that hold the most buffers"),
            ("lsbuf sum --by pod", "summed up by pod, command, name and the like"),
            ("lsbuf show 17", "every reference to the buffer with INO 17"),
            ("lsbuf name 17 suspect", "mark a dma-buf for every tool"),
            ("lsbuf reconcile", "what free(1) calls shared, and whose it is"),
            ("lsbuf doctor", "is the answer complete here, and if not, why"),
            ("lsbuf -J | jq '.totals'", "everything, as JSON"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf ls",
        columns: Some(BUFFERS),
        examples: &[
            ("lsbuf ls --human -o +DELETED,IPC", "with two more columns"),
            ("lsbuf ls -p 4711", "what process 4711 holds"),
            ("lsbuf ls --kind sysv --unheld", "segments that no process has attached"),
            ("lsbuf ls --kind tmpfs --unheld", "forgotten files, such as in /dev/shm"),
            ("lsbuf ls --kind sysv -o +CPID,LPID", "who made each, and who used it last"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf ps",
        columns: Some(PROCESSES),
        examples: &[
            ("lsbuf ps --human", "largest first"),
            ("lsbuf ps --sort USS", "what an exit would free, largest first"),
            ("lsbuf ps -o PID,USS,NOFILE,ARGS", "which is it, and how near its limit of fds"),
            ("lsbuf ps -o +USER,UNIT,POD", "whose it is"),
            ("lsbuf ps -d -o +SYNCS,UID", "dma-bufs alone, with fence fds and users"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf sum",
        columns: Some(SUMS),
        description: &[
            "Keys of a buffer: name (numbers in it as #: torch_#_#), exporter, kind, and mount (the \
             filesystem of a file of tmpfs or hugetlbfs, as MAJOR:MINOR and mount point). Keys of its \
             holders: command, cgroup, unit, container, pod, user (by /etc/passwd). They say where \
             holders run, not which cgroup the kernel charges.",
            "By a key of holders, a buffer with holders in several groups counts in each. SHARED says \
             how much of a group that is. The line below the table takes away what is counted again, \
             and so proves the sum. PSS adds up by itself to what is held.",
            "Filters choose buffers: with -p, those that the process holds, with all their holders. \
             Files that no process holds are not summed up; lsbuf --unheld lists them.",
        ],
        examples: &[
            ("lsbuf sum --human", "by command, largest first"),
            ("lsbuf sum --by name", "many buffers of the same use in one row"),
            ("lsbuf sum --by pod --sort PSS", "each pod's fair part"),
            ("lsbuf sum --by user -o KEY,USS", "what would be freed if a user were gone"),
            ("lsbuf sum --by mount --deleted", "unlinked files in use, by mount"),
            ("lsbuf sum --by unit -J | jq '.groups'", "for programs"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf show",
        description: &[
            "A BUFFER is named in any of these forms: an inode number or a segment's id (17); KIND:INO \
             (memfd:17), which means nothing else if there is such a buffer; a name (frame-pool), raw \
             or as lsbuf prints it; a path (/dev/shm/x), with or without ' (deleted)'; a link of \
             /proc or lsof (/memfd:frame-pool, memfd:frame-pool, /dmabuf:cam, with or without \
             ' (deleted)'); a segment's key in hex (0x0005d4a2), in decimal (382114) or as in maps \
             (SYSV0005d4a2); an fd, a mapping or a program below /proc (/proc/4711/fd/3, \
             /proc/4711/map_files/START-END, /proc/4711/exe).",
            "If a text fits several buffers, all are shown, and a line on stderr says how many fit \
             and by what.",
        ],
        examples: &[
            ("lsbuf show 17", "the buffer with INO 17"),
            ("lsbuf show dmabuf:3", "if other kinds have that number, too"),
            ("lsbuf show frame-pool", "by name; also: lsbuf show /dev/shm/x"),
            ("lsbuf show 0x1234", "a System V segment by its key"),
            ("lsbuf show '/memfd:pool (deleted)'", "as lsof and maps print it"),
            ("lsbuf show /proc/4711/fd/3", "what process 4711 has open as 3"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf reconcile",
        description: &[
            "The rows below Shmem (/proc/meminfo) add up to it: what is charged for buffers that \
             processes hold, by kind, and for System V segments; what is used of each mounted tmpfs \
             by files that no process holds; less what of all this is in swap; and, in the last row, \
             what is left over. The lines below the table say what that may be.",
            "A second table says how full each tmpfs is. A third one says, for each size of huge \
             pages, who has those that are not free: buffers, files that no process holds, segments, \
             and private mappings.",
            "Huge pages, memfd_secret and guest_memfd are not in Shmem; a line of their own has them. \
             As root, lsbuf first has the kernel add up its per-CPU counters (it reads \
             /proc/sys/vm/stat_refresh). If Shmem changes during the scan, lsbuf scans again, up to \
             three times in all.",
        ],
        examples: &[("sudo lsbuf reconcile --human", ""), ("lsbuf reconcile -J | jq '.left_over'", "")],
        files: &[
            ("/proc/meminfo", "the line Shmem"),
            ("/proc/sys/vm/stat_refresh", "reading it makes the kernel add up its counters, for root alone"),
            ("/proc/sysvipc/shm", "System V segments"),
            ("/proc", "processes, their fds and their mappings (another folder: --proc-root)"),
            (PINS, "pinned BPF iterators (another folder: --pins)"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf diff",
        description: &[
            "A row is a buffer that was born, died, grew, shrank, or has other holders. A process that has \
             got the pid of another one, and a file that has got its inode number, are told apart. Answers of \
             two boots have nothing in common.",
            "With --watch it runs a command, waits up to TIME for what was born meanwhile to go, and shows \
             what is left: also what other processes have made in that time, so use filters on a busy \
             machine. It exits as the command does.",
        ],
        notes: &["What was born and died between the two is not seen."],
        examples: &[
            ("lsbuf -J > a.json; …; lsbuf diff a.json", "from then to now"),
            ("lsbuf diff a.json b.json --by command", "summed up"),
            ("lsbuf diff --from b.db start end", "two times of a recording"),
            ("lsbuf diff --from b.db 14:05 now --by process", ""),
            ("lsbuf diff --watch 10s -- make test", "what does it leave behind"),
        ],
        exit: &[
            ("0", "answered, even if only in part (stderr says so)"),
            ("1", "no answer"),
            ("2", "wrong arguments"),
            ("3", "answered in part, with --strict"),
            ("4", "the command has left something behind, with --fail-on-leftover"),
        ],
        ..NONE
    },
    #[cfg(feature = "tui")]
    Topic {
        command: "lsbuf top",
        description: &[
            "It shows the lists of lsbuf ls, ps and sum on a full screen, and takes a new sample every \
             second. With --from it goes through a recording. The cursor stays with its buffer, process or \
             group when the order changes. The line below the title says how old the sample is and what \
             it took.",
            "Filters on the command line choose rows, as those of lsbuf ls do. docs/top.md describes every \
             key and sign.",
        ],
        notes: &[
            "Keys: 1 2 3 lists, Enter a buffer in full, / filter, < > s r order, m mark, Space freeze or \
             play, t tree, g next key of groups, ← → step, T go to a time, ? help, q quit.",
            "A TIME of --every is 500ms, 90s or 10m.",
        ],
        examples: &[
            ("sudo lsbuf top", "what there is now, every second"),
            ("lsbuf top --list groups --by unit", "summed up by systemd unit"),
            ("lsbuf top --from b.db --at 14:05", "a recording; ← and → step"),
            ("lsbuf top --batch --count 3 --every 10s", "three tables, for a log"),
            ("lsbuf top --batch -J", "a JSON document on each line"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf export",
        description: &[
            "DIR gets a folder for each table (sample, buffer, process, holder), and in it one for each \
             boot and day: buffer/boot=ID/date=2026-11-27/part-0.ndjson. A row is what was the same from \
             first_at to last_at. Each has the machine's id, so that DIR can hold the recordings of many \
             machines. Names are written as lsbuf prints them. Files that are there are not replaced.",
        ],
        examples: &[
            ("lsbuf export buffers.db tables", "NDJSON, for any engine"),
            ("lsbuf export buffers.db tables --format parquet", "smaller and faster to ask"),
            ("duckdb -c \"FROM 'tables/buffer/*/*/*.ndjson' LIMIT 9\"", ""),
        ],
        exit: ACTION,
        files: &[],
        ..NONE
    },
    Topic {
        command: "lsbuf record",
        description: &[
            "It takes a sample, as lsbuf -J --details would, again and again until a signal ends it, and \
             appends each to FILE. Only what changes takes room. FILE is an SQLite database: \
             docs/recording.md describes its tables. lsbuf, ps, sum and show answer from it with --from \
             FILE, also while it is written.",
            "What lives and dies between two samples is not seen. After a crash FILE needs no repair, and \
             lacks at most the last sample. When the disk is full, the oldest samples are deleted; if \
             that does not help, new ones are lost, and counted.",
        ],
        notes: &["A TIME is 500ms, 90s, 10m, 1h30m or 7d."],
        examples: &[
            ("sudo lsbuf record buffers.db", "a sample a second, until Ctrl-C"),
            ("lsbuf record b.db --every 10s --for 1h", ""),
            ("lsbuf --from b.db --at 14:05", "what was there at 14:05"),
            ("lsbuf ps --from b.db --at -10m", "ten minutes before its end"),
            ("lsbuf show --from b.db 17", "the life of the buffer with INO 17; -J: as JSON"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf leaks",
        columns: Some(LEAKS),
        description: &[
            "It groups buffers by the command and cgroup of their holder, by kind, exporter and name with its \
             numbers folded, and by who made them and by which calls if the flight recorder runs. It divides \
             the time into eight parts. Of each part it counts how many were born in it and how many of \
             these are left.",
            "growing: each part leaves survivors, those that have lived long do not die, and it goes on. \
             plateau: it has filled, and stands, as a cache does. churn: what is born dies again, also if \
             more and more are needed. too short: too few samples or births to say.",
            "A suspect is no verdict: a cache that is still filling looks the same. The evidence of each one \
             is printed. docs/leaks.md says how the states are told.",
        ],
        notes: &[
            "A TIME to watch is 500ms, 90s, 10m, 1h30m or 7d.",
            "What is born and dies between two samples is not seen.",
        ],
        examples: &[
            ("sudo lsbuf leaks", "watch for a minute"),
            ("lsbuf leaks --for 10m --every 5s --all", "longer, with all groups"),
            ("lsbuf leaks b.db --since -1h", "the last hour of a recording"),
            ("lsbuf leaks b.db --fail-on growing", "in a test: exit 4 if one grows"),
            ("lsbuf leaks b.db -J --all | jq .states", ""),
        ],
        exit: &[
            ("0", "answered, even if only in part (stderr says so)"),
            ("1", "no answer"),
            ("2", "wrong arguments"),
            ("3", "answered in part, with --strict"),
            ("4", "a group grows, with --fail-on growing"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf report",
        description: &[
            "A page is one HTML file with its data: a map of cost, tables of buffers and processes, one buffer \
             in full, who shares with whom, and who made what. Of a recording it has the time before and \
             the leak suspects as well. It loads nothing from anywhere. It has no command lines, which may \
             have passwords. docs/page.md says what each view shows.",
            "A page is written under another name first, so that a scan that fails replaces nothing.",
            "A stack is the command that made a buffer, the calls in its program and those in the kernel \
             (_[k]), as the flight recorder saw them (lsbuf probes install --origins). Each buffer counts \
             once, with its cost. What has no stack is there too: [before the recorder], [unknown], \
             [truncated] and the like. So the sum is that of the list.",
            "A profile has build ids, files, lines, the command, the pid and the kind besides. \
             docs/origins.md describes both formats.",
        ],
        examples: &[
            ("sudo lsbuf report buffers.html", "then open it in a browser"),
            ("lsbuf report buffers.html --redact --from b.db", "a recording, to be sent to others"),
            ("sudo lsbuf report --folded | flamegraph.pl > b.svg", "what each call costs"),
            ("lsbuf report --folded --objects --kind memfd", "how many buffers each made"),
            ("lsbuf report --pprof buffers.pb", "then: pprof -http=: buffers.pb"),
            ("lsbuf report --folded --from b.db --at 14:05", "of a recording"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf metrics",
        description: &[
            "It scans once and prints one series for each figure of the machine, by kind, exporter and shape, and \
             of each workload: a container in a pod, or a unit. What is not known has no series. Labels are never \
             pids, inodes, names of buffers or command lines. docs/metrics.md lists all metrics.",
            "Pods and containers have names if the kubelet keeps its logs on this machine (/var/log/pods and \
             /var/log/containers). Containers that are in no pod have only ids, and count together.",
        ],
        examples: &[
            ("sudo lsbuf metrics", ""),
            (
                "sudo lsbuf metrics --textfile /var/lib/node_exporter/lsbuf.prom",
                "for node_exporter, by a timer",
            ),
            ("lsbuf metrics | promtool check metrics", "checks the text"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf serve",
        description: &[
            "/ is a page for people. /metrics has what lsbuf metrics prints, /snapshot.json what lsbuf -J prints, \
             and /buffer/KIND:INO one buffer of it. It scans when it is asked, at most once in --min-interval, \
             and all who wait get the same answer. A signal ends it.",
            "It has neither TLS nor users: whoever can connect sees what lsbuf sees. So it listens only for \
             this machine unless --allow-remote is given. Pages of other sites cannot read it. docs/serve.md says \
             how to run it, with a socket of systemd and without root.",
        ],
        notes: &["A TIME is 500ms, 90s or 10m."],
        examples: &[
            ("sudo lsbuf serve", "then: curl http://127.0.0.1:9747/metrics"),
            (
                "lsbuf serve --listen unix:/run/lsbuf.sock",
                "then: curl --unix-socket /run/lsbuf.sock http://localhost/",
            ),
        ],
        exit: ACTION,
        ..NONE
    },
    Topic {
        command: "lsbuf trace",
        description: &[
            "Each line is one event: made, fd (a process has got an fd), received (from another process), \
             mapped, attached to and detached from a device, renamed, freed. SIZE is as it was then: a file \
             gets its size after it is made. It loads BPF programs, which go with it, and needs root, or \
             CAP_BPF and CAP_PERFMON.",
            "How an fd is closed, memory is unmapped, and a child inherits both, cannot be seen: ask lsbuf \
             who holds a buffer. What was lost is printed where it was lost, and again at the end.",
            "With -- COMMAND it prints what the command and its children do, and what happens to buffers \
             that they made. It ends with the command, and as the command does: with its status, or 128 and \
             the number of its signal. docs/trace.md says more.",
        ],
        examples: &[
            ("sudo lsbuf trace -d", "what happens to dma-bufs"),
            ("sudo lsbuf trace --event made,freed --stacks", "births and deaths, and the calls"),
            ("sudo lsbuf trace --kind memfd --comm 'chrom*'", "by command"),
            ("sudo lsbuf trace -- gst-launch-1.0 …", "a command, and what it left"),
            ("sudo lsbuf trace --summary --for 10s", "count for ten seconds"),
            ("sudo lsbuf trace -J | jq 'select(.event == \"received\")'", ""),
        ],
        exit: &[
            ("0", "traced; of a command, it ended with 0"),
            ("1", "no trace"),
            ("2", "wrong arguments"),
            ("3", "something was lost, with --strict"),
            ("N", "the status of COMMAND"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf doctor",
        description: &[
            "It tries each source, says what it saw and what the source gives, and names the fewest \
             capabilities or mounts that a complete answer needs.",
        ],
        examples: &[
            ("sudo lsbuf doctor", "can root see everything here"),
            ("lsbuf doctor --source procfs", "what another source would see"),
            ("lsbuf doctor --strict && …", "in a script: only if answers are complete"),
        ],
        ..NONE
    },
    Topic {
        command: "lsbuf name",
        description: &[
            "It marks a dma-buf while you look for its users: every tool shows the name. It takes an fd \
             of a process that holds the dma-buf (pidfd_getfd, Linux 5.6), sets the name through it, and \
             lets go; COUNT is one higher for that moment. It prints the command that undoes it.",
            "It takes the right to trace that process: the same user, if Yama allows it, or \
             CAP_SYS_PTRACE (root). A name has 31 bytes at most. What is only mapped, or what only the \
             kernel holds, cannot be named. Linux 5.10 refuses while a device is attached. Whoever has \
             an fd can rename the dma-buf again. Other kinds of buffers have no such name.",
        ],
        examples: &[
            ("sudo lsbuf name 17 suspect", "name the dma-buf with INO 17"),
            ("sudo lsbuf name dmabuf:17 '?' --prefix", "mark it, and keep the name that it has"),
            ("sudo lsbuf name suspect other --force", "replace a name"),
            ("sudo lsbuf name other --clear --force", "take it away"),
        ],
        exit: ACTION,
        ..NONE
    },
    Topic {
        command: "lsbuf probes",
        description: &[
            "Root loads the BPF iterators and pins them. Members of the group then see the whole \
             machine without any privilege: lsbuf reads pinned iterators by itself if its user may \
             (--source auto or bpf).",
            "What members can then see, of all users and containers: every dma-buf's size, exporter, \
             name, creator and attached devices; every memfd, segment and tmpfs file that is held, \
             with its path; every process that holds one, with its pid, command, user and cgroup, its \
             fd numbers, and the addresses of its mappings (which reveals address space layout \
             randomization); and which processes have a GPU or video device open. They cannot see \
             what is in a buffer, or open one.",
            "The folder must be on a bpf filesystem, or be missing or empty: then one is mounted \
             there. It cannot be below /sys/fs/bpf where systemd has mounted that, because only root \
             can enter it.",
        ],
        examples: &[
            ("sudo lsbuf probes install --group video", "once per boot"),
            ("lsbuf probes status", "what is pinned, and can I read it"),
            ("sudo lsbuf probes remove", ""),
        ],
        exit: &[
            ("0", "done, and for status: this user can read what is pinned"),
            ("1", "if not"),
            ("2", "wrong arguments"),
        ],
        files: PINNED,
        ..NONE
    },
    Topic {
        command: "lsbuf probes install",
        description: &["lsbuf probes --help says what the members can then see: read it first."],
        examples: &[
            ("sudo lsbuf probes install --group video", ""),
            ("sudo lsbuf probes install --origins", "and record from now on who makes each buffer"),
        ],
        exit: ACTION,
        files: PINNED,
        ..NONE
    },
    Topic {
        command: "lsbuf probes status",
        examples: &[("lsbuf probes status && lsbuf", "the whole machine, if it can be seen")],
        exit: &[
            ("0", "this user can read what is pinned"),
            ("1", "this user cannot"),
            ("2", "wrong arguments"),
        ],
        files: PINNED,
        ..NONE
    },
    Topic {
        command: "lsbuf probes remove",
        examples: &[("sudo lsbuf probes remove", "")],
        exit: ACTION,
        files: PINNED,
        ..NONE
    },
    Topic {
        command: "lsbuf check",
        description: &[
            "It makes buffers of its own and tries on them what lsbuf assumes: that an inode number \
             belongs to one buffer, that each fd and each mapping adds 1 to the count, where names \
             show, and what stays listed. It prints TAP, version 14: one line for each point, and \
             below a point that does not hold what was seen and what it means. Comments say what a \
             buffer costs the kernel.",
            "It uses the exporters that this user may open, and leaves nothing behind: the system heap \
             (/dev/dma_heap/system), udmabuf (modprobe udmabuf; /dev/udmabuf) and vgem (modprobe vgem; \
             its node under /dev/dri). Points that need another exporter, or root, are skipped and \
             say so. Without any exporter it prints 'Bail out!' and what to do.",
        ],
        examples: &[
            ("sudo lsbuf check", "all points"),
            ("lsbuf check | grep -A2 -e '^not ok' -e '^Bail'", "only what does not hold"),
        ],
        exit: &[
            ("0", "every point that could be tried holds"),
            ("1", "one does not, or no buffer could be made"),
            ("2", "wrong arguments"),
        ],
        files: &[
            ("/dev/dma_heap/system", "makes dma-bufs from ordinary memory"),
            ("/dev/udmabuf", "makes dma-bufs from memfds"),
            ("/dev/dri", "the node of vgem"),
        ],
        ..NONE
    },
];

impl Topic {
    /// That of a command, by its words.
    pub(crate) fn of(command: &str) -> &'static Topic {
        TOPICS.iter().find(|topic| topic.command == command).unwrap_or(&NONE)
    }

    /// What `--help` ends with.
    pub(crate) fn help(&self) -> String {
        let mut parts = Vec::new();
        if !self.examples.is_empty() {
            parts.push(examples(self.examples));
        }
        parts.extend(self.columns.as_ref().map(Columns::help));
        parts.extend(self.description.iter().map(|paragraph| format!("{paragraph}\n")));
        let mut last: Vec<String> = self.notes.iter().map(|&note| note.to_owned()).collect();
        let exit: Vec<String> = self.exit.iter().map(|(status, what)| format!("{status} {what}")).collect();
        last.push(format!("Exit status: {}.", exit.join("; ")));
        parts.push(last.join("\n"));
        parts.join("\n")
    }
}

impl Columns {
    /// Whether it is shown by default.
    pub(crate) fn is_default(&self, column: &Column) -> bool {
        self.default.contains(&column.name)
    }

    fn help(&self) -> String {
        let mut text = "Columns (* shown by default):\n".to_owned();
        for column in self.all {
            let mark = if self.is_default(column) { '*' } else { ' ' };
            text.push_str(&format!("{mark} {:<10} {}\n", column.name, column.help));
        }
        text.extend(self.note.map(|note| format!("{note}\n")));
        text
    }
}

fn examples(examples: &[(&str, &str)]) -> String {
    let explained = examples.iter().filter(|(_, what)| !what.is_empty());
    let width = explained.map(|(line, _)| line.len()).max().unwrap_or(0);
    let mut text = "Examples:\n".to_owned();
    for (line, what) in examples {
        let shown =
            if what.is_empty() { format!("  {line}\n") } else { format!("  {line:<width$}  {what}\n") };
        text.push_str(&shown);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::TOPICS;
    use crate::args::Cli;

    /// Check that every command that is shown is a topic, and the other way round.
    #[test]
    fn topics_are_the_commands() {
        let mut program = Cli::command();
        program.build();
        let mut open = vec![program];
        let mut commands = Vec::new();
        while let Some(command) = open.pop() {
            commands.push(command.get_bin_name().unwrap_or("lsbuf").to_owned());
            open.extend(command.get_subcommands().filter(|c| !c.is_hide_set()).cloned());
        }
        let mut topics: Vec<&str> = TOPICS.iter().map(|topic| topic.command).collect();
        commands.sort_unstable();
        topics.sort_unstable();
        assert_eq!(commands, topics);
    }
}
