//! What help and manual pages say of each command beyond its options: columns, examples, exit
//! status, files.
//!
//! Both are made from the one table here, so that they cannot disagree. Limit: the wording of options
//! is with the options, in `args`.

use lsbuf::render::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_PROCESS_COLUMNS, PROCESS_COLUMNS,
};
use lsbuf::scan::PINS;

/// One command.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Its words, such as `lsbuf probes install`.
    pub(crate) command: &'static str,
    /// The columns that it can show.
    pub(crate) columns: Option<Columns>,
    /// Sentences about all of it.
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
        "Tables show EXPORTER only where a dma-buf is listed, and IPC too where segments of several namespaces are; -d leaves out \
        KIND and CHARGED.",
    ),
};

const PROCESSES: Columns = Columns { all: PROCESS_COLUMNS, default: DEFAULT_PROCESS_COLUMNS, note: None };

const ANSWER: &[(&str, &str)] = &[
    ("0", "answered, if only in part (said on stderr)"),
    ("1", "could not answer"),
    ("2", "wrong arguments"),
    ("3", "in part, with --strict"),
];

const ACTION: &[(&str, &str)] =
    &[("0", "done"), ("1", "not done, and why is on stderr"), ("2", "wrong arguments")];

const SCANNED: &[(&str, &str)] = &[
    ("/proc", "processes, their fds and their mappings (another folder: --proc-root)"),
    ("/sys/kernel/debug/dma_buf/bufinfo", "the kernel's list of dma-bufs with their counts; for root alone"),
    ("/sys/kernel/btf/vmlinux", "the kernel's types, which loading BPF iterators needs"),
    (PINS, "pinned BPF iterators (another folder: --pins)"),
];

const PINNED: &[(&str, &str)] = &[
    (PINS, "the folder with the pinned BPF iterators (another one: --pins)"),
    ("/sys/kernel/btf/vmlinux", "the kernel's types, which loading BPF iterators needs"),
    ("/etc/group", "names of groups"),
    (
        "lsbuf-probes.service",
        "a systemd unit that pins them at boot, if a package or the administrator has installed it; \
        sudo systemctl enable --now lsbuf-probes",
    ),
];

const NONE: Topic =
    Topic { command: "", columns: None, notes: &[], examples: &[], exit: ANSWER, files: SCANNED };

/// All commands, the program itself first.
pub(crate) const TOPICS: &[Topic] = &[
    Topic {
        command: "lsbuf",
        columns: Some(BUFFERS),
        notes: &[
            "Filters choose rows; the figures in a row, and the totals, always speak of the whole machine.",
            "Put options after the command: lsbuf ps --human. Output that is piped is not cut to the terminal's width.",
            "Rows are red where one process holds a buffer by 16 fds or more, yellow where no fd and no mapping holds it.",
        ],
        examples: &[
            ("lsbuf", "every dma-buf and all shared memory, largest first"),
            ("lsbuf -d", "dma-bufs alone"),
            ("lsbuf --kind memfd,sysv", "these kinds alone"),
            ("lsbuf -p 4711 -o +SHAPE,CREATED", "what process 4711 holds, with two more columns"),
            ("lsbuf --kernel-only", "what no process holds: GEM handles, queues, leaked segments"),
            ("lsbuf --deleted", "files that are unlinked and still held"),
            ("lsbuf --min-size 8M --name 'cam*' --sort COUNT", ""),
            ("lsbuf ps", "what each process holds and what it costs"),
            ("lsbuf ps --sort BUFS", "who leaks buffers by the thousand"),
            ("lsbuf show 17", "every reference to the buffer with inode 17"),
            ("lsbuf reconcile", "what free(1) calls shared, explained to the page"),
            ("lsbuf doctor", "is the answer complete here, and if not, why"),
            (
                "lsbuf probes install -g video",
                "as root: let the members of a group see the whole machine, too",
            ),
            ("lsbuf check", "does this kernel keep what the answers rest on"),
            ("lsbuf -J | jq '.totals'", "everything, for programs"),
        ],
        ..NONE
    },
    Topic { command: "lsbuf ls", columns: Some(BUFFERS), ..NONE },
    Topic { command: "lsbuf ps", columns: Some(PROCESSES), ..NONE },
    Topic { command: "lsbuf show", ..NONE },
    Topic {
        command: "lsbuf reconcile",
        examples: &[("sudo lsbuf reconcile --human", ""), ("lsbuf reconcile -J | jq '.left_over'", "")],
        exit: &[
            ("0", "answered, if only in part"),
            ("1", "could not answer"),
            ("2", "wrong arguments"),
            ("3", "in part, with --strict"),
        ],
        files: &[
            ("/proc/meminfo", "the line Shmem"),
            ("/proc/sys/vm/stat_refresh", "reading it makes the kernel add up its counters; for root alone"),
            ("/proc/sysvipc/shm", "System V segments"),
            ("/proc", "processes, their fds and their mappings (another folder: --proc-root)"),
            (PINS, "pinned BPF iterators (another folder: --pins)"),
        ],
        ..NONE
    },
    Topic { command: "lsbuf doctor", ..NONE },
    Topic {
        command: "lsbuf probes",
        exit: &[
            ("0", "done, and for status: this user can answer from what is pinned"),
            ("1", "not so"),
            ("2", "wrong arguments"),
        ],
        files: PINNED,
        ..NONE
    },
    Topic { command: "lsbuf probes install", exit: ACTION, files: PINNED, ..NONE },
    Topic {
        command: "lsbuf probes status",
        exit: &[
            ("0", "this user can answer from what is pinned"),
            ("1", "this user cannot"),
            ("2", "wrong arguments"),
        ],
        files: PINNED,
        ..NONE
    },
    Topic { command: "lsbuf probes remove", exit: ACTION, files: PINNED, ..NONE },
    Topic {
        command: "lsbuf check",
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

    /// Its own examples, and those of the program that use it. `lsbuf ls` is what the program does
    /// without a command.
    pub(crate) fn all_examples(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let (program, others) =
            TOPICS.split_first().map_or((self, TOPICS), |(program, others)| (program, others));
        let uses = |line: &str, topic: &Topic| {
            line.strip_prefix(topic.command).is_some_and(|more| more.is_empty() || more.starts_with(' '))
        };
        let own = self.command;
        let borrowed = program.examples.iter().filter(move |(line, _)| match own {
            _ if own == program.command => false,
            "lsbuf ls" => !others.iter().any(|topic| uses(line, topic)),
            _ => uses(line, self),
        });
        borrowed.chain(self.examples).copied()
    }

    /// What `--help` ends with.
    pub(crate) fn help(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.columns.as_ref().map(Columns::help));
        if !self.examples.is_empty() {
            parts.push(examples(self.examples));
        }
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
