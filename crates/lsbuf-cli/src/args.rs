//! The arguments: what each accepts, help with examples, and one line for each mistake.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, ColorChoice, CommandFactory, Parser, Subcommand};
use globset::{Glob, GlobMatcher};
use lsbuf::escape::unescape;
use lsbuf::model::{Bytes, Details, Kind, Kinds, Pid, SumKey};
use lsbuf::naming::MOST_BYTES;
use lsbuf::render::{BUFFER_COLUMNS, Column, PROCESS_COLUMNS, SUM_COLUMNS};
use lsbuf::scan::{CONTAINER_LOGS, Options, PASSWD, PINS, POD_LOGS, Sources};

use crate::diff::DiffArgs;
use crate::export::ExportArgs;
use crate::leaks::LeaksArgs;
use crate::metrics::MetricsArgs;
use crate::past::PastArgs;
use crate::record::RecordArgs;
use crate::report::ReportArgs;
#[cfg(feature = "serve")]
use crate::serve::ServeArgs;
#[cfg(feature = "tui")]
use crate::top::TopArgs;
use crate::topics::Topic;
use crate::trace::TraceArgs;
use crate::{groups, output, stdout};

/// Shows who holds each shared buffer (dma-bufs and shared memory): which process, by which fd or
/// mapping, or the kernel; and how much memory it takes.
#[derive(Debug, Parser)]
#[command(
    name = "lsbuf",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = Topic::of("lsbuf").help()
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) ls: LsArgs,
}

/// The subcommand by which a check starts its second process.
pub(crate) const CHECK_HELPER: &str = "check-helper";

#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct ProbesArgs {
    #[command(subcommand)]
    pub(crate) action: ProbesAction,
}

/// What to do with pinned BPF iterators.
#[derive(Debug, Subcommand)]
pub(crate) enum ProbesAction {
    /// Load the BPF iterators and pin them; replaces those that are pinned
    #[command(after_help = Topic::of("lsbuf probes install").help())]
    Install {
        /// Group that may read them, by name or number; without it, only root may
        #[arg(short, long, value_name = "GROUP", value_parser = group)]
        group: Option<u32>,
        /// Install the flight recorder too: from now on every answer can say who made a buffer
        #[arg(long)]
        origins: bool,
        /// For how many living buffers the recorder has room; each takes 2 KiB of the kernel
        #[arg(long, value_name = "N", requires = "origins", default_value_t = lsbuf::origins::MOST)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
        most: u32,
        #[command(flatten)]
        folder: PinsFolder,
    },
    /// Say what is pinned, who may read it, and whether this user can
    #[command(after_help = Topic::of("lsbuf probes status").help())]
    Status {
        #[command(flatten)]
        folder: PinsFolder,
    },
    /// Remove what is pinned
    #[command(after_help = Topic::of("lsbuf probes remove").help())]
    Remove {
        #[command(flatten)]
        folder: PinsFolder,
    },
}

/// Where iterators are pinned.
#[derive(Debug, Args)]
pub(crate) struct PinsFolder {
    /// Folder with the pinned BPF iterators
    #[arg(long, value_name = "DIR", default_value = PINS)]
    pub(crate) pins: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List every buffer (the default)
    #[command(after_help = Topic::of("lsbuf ls").help())]
    Ls(LsArgs),
    /// List every process that holds a buffer, and what its exit frees
    #[command(after_help = Topic::of("lsbuf ps").help())]
    Ps(PsArgs),
    /// Sum up by command, pod, name and the like
    #[command(after_help = Topic::of("lsbuf sum").help())]
    Sum(SumArgs),
    /// Show single buffers in full: each reference, devices, creator
    #[command(after_help = Topic::of("lsbuf show").help())]
    Show(ShowArgs),
    /// Explain what free(1) calls shared, to the page
    #[command(after_help = Topic::of("lsbuf reconcile").help())]
    Reconcile(ReconcileArgs),
    /// Show the lists on a full screen, again and again, or go through a recording
    #[cfg(feature = "tui")]
    #[command(after_help = Topic::of("lsbuf top").help())]
    Top(TopArgs),
    /// Compare two answers: what was born, died, grew, has other holders
    #[command(after_help = Topic::of("lsbuf diff").help())]
    Diff(DiffArgs),
    /// Record what is there, again and again, into a file that --from FILE answers from
    #[command(after_help = Topic::of("lsbuf record").help())]
    Record(RecordArgs),
    /// Write a recording as tables in files, for other engines: NDJSON or Parquet
    #[command(after_help = Topic::of("lsbuf export").help())]
    Export(ExportArgs),
    /// Find what is born and does not die: suspects, with the evidence
    #[command(after_help = Topic::of("lsbuf leaks").help())]
    Leaks(LeaksArgs),
    /// Write a page to look at or to send, or who made the buffers, for flame graphs and pprof
    #[command(after_help = Topic::of("lsbuf report").help())]
    Report(ReportArgs),
    /// Print the figures as metrics for Prometheus, once
    #[command(after_help = Topic::of("lsbuf metrics").help())]
    Metrics(MetricsArgs),
    /// Serve metrics for Prometheus, and all buffers as JSON, over HTTP
    #[cfg(feature = "serve")]
    #[command(after_help = Topic::of("lsbuf serve").help())]
    Serve(ServeArgs),
    /// Print what happens to buffers as it happens; of a command also what it left
    #[command(after_help = Topic::of("lsbuf trace").help())]
    Trace(TraceArgs),
    /// Say whether answers are complete here, and what would make them so
    #[command(after_help = Topic::of("lsbuf doctor").help())]
    Doctor(DoctorArgs),
    /// Set the name of a dma-buf, through an fd of a process that holds it
    #[command(after_help = Topic::of("lsbuf name").help())]
    Name(NameArgs),
    /// Let a group see the whole machine: pin BPF iterators, as root
    #[command(after_help = Topic::of("lsbuf probes").help())]
    Probes(ProbesArgs),
    /// Test whether this kernel behaves as lsbuf assumes
    #[command(after_help = Topic::of("lsbuf check").help())]
    Check,
}

/// Commands that no user needs. They are in no help, no manual page and no completion, so they are
/// apart from [`Cli`], from which those are made.
#[derive(Debug, Parser)]
#[command(name = "lsbuf", disable_help_subcommand = true)]
pub(crate) enum Hidden {
    /// The second process of lsbuf check
    #[command(name = CHECK_HELPER)]
    CheckHelper,
    /// Write manual pages or completions, for packages
    #[command(subcommand, disable_help_subcommand = true)]
    Generate(Generate),
}

impl Hidden {
    /// Whether this process was started with one of them.
    pub(crate) fn is_wanted() -> bool {
        let first = std::env::args_os().nth(1);
        first.is_some_and(|word| Hidden::command().find_subcommand(word).is_some())
    }
}

/// What to write.
#[derive(Debug, Subcommand)]
pub(crate) enum Generate {
    /// A manual page for each command
    Man {
        /// An existing folder
        dir: PathBuf,
    },
    /// Completions for bash, zsh and fish
    Completions {
        /// An existing folder
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, BUFFER_COLUMNS), conflicts_with_all = ["json", "compact"])]
    pub(crate) output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL", default_value = "COST", value_parser = |s: &str| find(s, BUFFER_COLUMNS))]
    pub(crate) sort: Column,
    #[command(flatten)]
    pub(crate) details: DetailsArg,
    #[command(flatten)]
    pub(crate) listing: ListingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, PROCESS_COLUMNS), conflicts_with_all = ["json", "compact"])]
    pub(crate) output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL", default_value = "RSS", value_parser = |s: &str| find(s, PROCESS_COLUMNS))]
    pub(crate) sort: Column,
    #[command(flatten)]
    pub(crate) details: DetailsArg,
    #[command(flatten)]
    pub(crate) listing: ListingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SumArgs {
    /// What the buffers of a group have in common: name, command, cgroup, unit, container, pod,
    /// workload (the container in its pod, or the unit), user, exporter, kind, mount; payer: the
    /// cgroup that the pages are charged to; and by the flight recorder origin, stack, client: who
    /// made it, by which calls, who received it first
    #[arg(long, value_name = "KEY", default_value = "command", value_parser = sum_key)]
    pub(crate) by: SumKey,
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, SUM_COLUMNS), conflicts_with_all = ["json", "compact"])]
    pub(crate) output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL", default_value = "COST", value_parser = |s: &str| find(s, SUM_COLUMNS))]
    pub(crate) sort: Column,
    #[command(flatten)]
    pub(crate) listing: ListingArgs,
}

/// What every list takes.
#[derive(Debug, Args)]
pub(crate) struct ListingArgs {
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) past: PastArgs,
    #[command(flatten)]
    pub(crate) scan: ScanArgs,
}

impl ListingArgs {
    /// As the library takes it.
    pub(crate) fn options(&self, details: Details) -> Options {
        Options { details, ..self.scan.options() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// INO, KIND:INO, a segment's key, a name, or what another tool prints (see below)
    #[arg(required = true, value_name = "BUFFER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) buffers: Vec<String>,
    /// JSON, schema lsbuf.snapshot/1, with these buffers only; their lives in a recording have the
    /// schema lsbuf.life/1
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
    /// JSON on one line, without white space
    #[arg(long, requires = "json")]
    pub(crate) compact: bool,
    #[command(flatten)]
    pub(crate) past: PastArgs,
    #[command(flatten)]
    pub(crate) scan: ScanArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The dma-buf: INO, KIND:INO, or its name, raw or as lsbuf prints it
    #[arg(value_name = "BUFFER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) buffer: String,
    /// The new name, as lsbuf prints names: \xNN is a byte, \\ a backslash
    #[arg(value_name = "TEXT", required_unless_present = "clear", value_parser = name)]
    pub(crate) text: Option<Name>,
    /// Take the name away
    #[arg(long, conflicts_with_all = ["text", "prefix"])]
    pub(crate) clear: bool,
    /// Put TEXT before the name that it has
    #[arg(long)]
    pub(crate) prefix: bool,
    /// Replace the name that it has; also set a name with control characters
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

/// The bytes of a new name.
#[derive(Clone, Debug)]
pub(crate) struct Name(pub(crate) Vec<u8>);

fn name(text: &str) -> Result<Name, String> {
    if text.is_empty() {
        return Err("an empty name is set by --clear".into());
    }
    let bytes = unescape(text).ok_or("a backslash begins \\xNN, and is itself written \\\\")?;
    if bytes.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, and the kernel takes {MOST_BYTES}", bytes.len()));
    }
    Ok(Name(bytes))
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) scan: ScanArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// JSON, schema lsbuf.reconcile/1
    #[arg(short = 'J', long, conflicts_with = "human")]
    pub(crate) json: bool,
    /// JSON on one line, without white space
    #[arg(long, requires = "json", conflicts_with = "human")]
    pub(crate) compact: bool,
    /// Sizes in bytes (the default unless on a terminal)
    #[arg(short, long, conflicts_with = "human")]
    pub(crate) bytes: bool,
    /// Sizes like 8.0M (the default on a terminal)
    #[arg(long)]
    pub(crate) human: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
pub(crate) struct Format {
    /// JSON, schema lsbuf.snapshot/1; of sum lsbuf.sum/1; of leaks lsbuf.leaks/1
    #[arg(short = 'J', long, conflicts_with_all = ["csv", "raw", "noheadings", "human"])]
    pub(crate) json: bool,
    /// JSON on one line, without white space
    #[arg(long, requires = "json", conflicts_with_all = ["csv", "raw", "noheadings", "human"])]
    pub(crate) compact: bool,
    /// CSV; a ' goes before text that begins with = + - @ or ', so that no spreadsheet takes it for
    /// a formula
    #[arg(long, conflicts_with = "raw")]
    pub(crate) csv: bool,
    /// Fields separated by one blank, blanks in them as \x20
    #[arg(short, long)]
    pub(crate) raw: bool,
    /// No headings and no totals
    #[arg(short, long)]
    pub(crate) noheadings: bool,
    /// Sizes in bytes (the default unless on a terminal)
    #[arg(short, long, conflicts_with = "human")]
    pub(crate) bytes: bool,
    /// Sizes like 8.0M (the default on a terminal)
    #[arg(long)]
    pub(crate) human: bool,
    /// Colour: auto (on a terminal, unless NO_COLOR is set), always, never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) color: ColorChoice,
}

impl Format {
    /// Whether it is one that programs read.
    pub(crate) fn is_for_programs(&self) -> bool {
        self.json || self.csv || self.raw
    }
}

/// What JSON of buffers and processes has besides.
#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
pub(crate) struct DetailsArg {
    /// In JSON, also what else can be read of each process: command line, program, user, limit,
    /// unit, container, pod
    #[arg(long, requires = "json")]
    details: bool,
}

impl DetailsArg {
    /// What these columns need, or all.
    pub(crate) fn wanted<'c>(&self, columns: impl Iterator<Item = &'c Column>) -> Details {
        let all = if self.details { Details::ALL } else { Details::NONE };
        columns.fold(all, |details, column| details.and(column.details()))
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
pub(crate) struct FilterArgs {
    /// Only what these processes hold: 12,13
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = pid)]
    pub(crate) pids: Vec<Pid>,
    /// Only dma-bufs of these exporters, by exact name: system,udmabuf
    #[arg(long = "exporter", value_name = "EXPORTER", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(crate) exporters: Vec<String>,
    /// Only buffers whose name matches, such as 'cam*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub(crate) name: Option<GlobMatcher>,
    /// Only buffers of at least this SIZE, such as 10M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) min_size: Option<Bytes>,
    /// Only what no process holds; lists also each file of a tmpfs or hugetlbfs that nobody holds
    #[arg(long, alias = "kernel-only")]
    pub(crate) unheld: bool,
    /// Only unlinked files and segments marked for removal
    #[arg(long)]
    pub(crate) deleted: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scan")]
pub(crate) struct ScanArgs {
    /// Look for these kinds alone, also in the totals: dmabuf, memfd, sysv, shm-anon, tmpfs,
    /// hugetlbfs, gem-shmem, ashmem, shm-other, secretmem, guest_memfd, or all
    #[arg(
        long = "kind",
        value_name = "KIND,…",
        env = "LSBUF_KIND",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = kinds
    )]
    kinds: Vec<Kinds>,
    /// Look for dma-bufs alone, whatever --kind says
    #[arg(short, long)]
    dmabuf: bool,
    /// Find out which cgroups pay for each buffer, for JSON; -o +PAYER does, too
    #[arg(long)]
    payers: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

/// How to scan, whatever the kinds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Scan")]
pub(crate) struct ReadingArgs {
    /// What to read: auto, bpf, or procfs, procmap, maps or map_files, alone or with ,bufinfo. auto
    /// is bpf if iterators are pinned or may be loaded, else procfs,bufinfo; with -d it tries
    /// procfs,bufinfo before it loads them
    #[arg(
        long,
        value_name = "SOURCE,…",
        env = "LSBUF_SOURCE",
        hide_env_values = true,
        default_value = "auto",
        hide_default_value = true
    )]
    source: Sources,
    /// Exit with status 3 if the answer is partial
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    roots: Roots,
}

impl ShowArgs {
    /// As the library takes it. To show one buffer in full it is worth asking the drivers, too.
    pub(crate) fn options(&self) -> Options {
        let mut options = self.scan.options();
        options.sources.gem_handles = true;
        options.sources.kernel_holders = true;
        options.sources.driver_shmem = true;
        options
    }
}

impl ScanArgs {
    /// Which kinds are looked for.
    pub(crate) fn kinds(&self) -> Kinds {
        chosen_kinds(&self.kinds, self.dmabuf)
    }

    /// As the library takes it.
    pub(crate) fn options(&self) -> Options {
        Options { kinds: self.kinds(), payers: self.payers, ..self.reading.options() }
    }
}

impl ReadingArgs {
    /// The id of the machine that is read; `None`: it is a recorded one, or has none.
    pub(crate) fn machine_id(&self) -> Option<String> {
        let id = std::fs::read_to_string(self.roots.own("/etc/machine-id")?).ok()?;
        let id = id.trim_end();
        (!id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    }

    /// As the library takes it, with all kinds.
    pub(crate) fn options(&self) -> Options {
        self.roots.options(self.source)
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scan")]
struct Roots {
    /// The procfs to read, or a recorded copy of one
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    proc_root: PathBuf,
    /// The sysfs that belongs to it [default: /sys for /proc, else none]
    #[arg(long, value_name = "DIR")]
    sys_root: Option<PathBuf>,
    #[command(flatten)]
    folder: PinsFolder,
}

impl Roots {
    /// A file of this machine, unless a recorded one is read.
    fn own(&self, path: &str) -> Option<PathBuf> {
        (self.proc_root.as_path() == Path::new("/proc")).then(|| PathBuf::from(path))
    }

    fn options(&self, sources: Sources) -> Options {
        let own = |path: &str| self.own(path);
        Options {
            proc_root: self.proc_root.clone(),
            sys_root: self.sys_root.clone().or(own("/sys")),
            // Users and pods of this machine, not those of a recorded one.
            passwd: own(PASSWD),
            pod_logs: own(POD_LOGS),
            container_logs: own(CONTAINER_LOGS),
            // A command asks for the best answer that the caller's rights allow.
            sources: Sources { load_bpf: true, ..sources },
            pins: self.folder.pins.clone(),
            without_self: true,
            ..Options::default()
        }
    }
}

/// The columns that the user chose.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
    /// Whether they are added to the default ones.
    more: bool,
}

impl Columns {
    /// The columns that the user named.
    pub(crate) fn named(chosen: &Option<Columns>) -> &[Column] {
        chosen.as_ref().map_or(&[], |chosen| &chosen.columns)
    }

    /// The chosen columns, or the default ones.
    pub(crate) fn or_default(chosen: &Option<Columns>, all: &[Column], default: &[&str]) -> Vec<Column> {
        let default = || default.iter().filter_map(|name| all.iter().find(|c| c.name == *name)).copied();
        match chosen {
            None => default().collect(),
            Some(Columns { columns, more: true }) => {
                let others = default().filter(|c| columns.iter().all(|more| more.name != c.name));
                others.chain(columns.iter().copied()).collect()
            }
            Some(Columns { columns, more: false }) => columns.clone(),
        }
    }
}

pub(crate) fn find(name: &str, all: &[Column]) -> Result<Column, String> {
    all.iter().find(|c| c.name.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
        let valid: Vec<&str> = all.iter().map(|c| c.name).collect();
        format!("no such column; valid: {}", valid.join(", "))
    })
}

pub(crate) fn choose(list: &str, all: &[Column]) -> Result<Columns, String> {
    let names = list.strip_prefix('+');
    let columns =
        names.unwrap_or(list).split(',').map(|name| find(name, all).map_err(|e| format!("'{name}': {e}")));
    Ok(Columns { columns: columns.collect::<Result<_, _>>()?, more: names.is_some() })
}

pub(crate) fn pid(text: &str) -> Result<Pid, String> {
    let pid = text.parse().ok().filter(|&pid| pid > 0).map(Pid);
    pid.ok_or_else(|| "a process id is a number from 1 to 4294967295".to_owned())
}

fn group(text: &str) -> Result<u32, String> {
    let named = || groups::read().into_iter().find(|(_, name)| name == text).map(|(gid, _)| gid);
    // The highest number means none.
    let numbered = || text.parse().ok().filter(|&gid| gid < u32::MAX);
    named()
        .or_else(numbered)
        .ok_or_else(|| "no such group in /etc/group; valid: one of those, or a number".to_owned())
}

pub(crate) fn glob(text: &str) -> Result<GlobMatcher, String> {
    let glob =
        Glob::new(text).map_err(|e| format!("{}; valid: *, ?, [abc], {{a,b}}, \\ to quote", e.kind()))?;
    Ok(glob.compile_matcher())
}

/// What `--kind` and `-d` choose together.
pub(crate) fn chosen_kinds(kinds: &[Kinds], only_dmabufs: bool) -> Kinds {
    match kinds {
        _ if only_dmabufs => Kinds::DMABUF,
        [] => Kinds::ALL,
        kinds => kinds.iter().flat_map(|set| set.iter()).collect(),
    }
}

pub(crate) fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "all" {
        return Ok(Kinds::ALL);
    }
    Kind::of_word(text).map(Kinds::from).ok_or_else(|| {
        let valid: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
        format!("no such kind; valid: {}, all", valid.join(", "))
    })
}

pub(crate) fn sum_key(text: &str) -> Result<SumKey, String> {
    SumKey::of_word(text).ok_or_else(|| {
        let valid: Vec<&str> = SumKey::ALL.iter().map(|key| key.as_str()).collect();
        format!("no such key; valid: {}", valid.join(", "))
    })
}

/// Powers of 1024, as sizes are printed: 10M is 10 MiB.
pub(crate) fn size(text: &str) -> Result<Bytes, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let full = match unit {
        "" | "B" => text.to_owned(),
        "K" | "M" | "G" | "T" | "P" => format!("{text}iB"),
        "KiB" | "MiB" | "GiB" | "TiB" | "PiB" => text.to_owned(),
        _ => String::new(),
    };
    // A number that does not fit into 64 bits is parsed as the largest that does.
    let size = full.parse().ok().filter(|size: &ByteSize| size.as_u64() < u64::MAX);
    size.map(|s| Bytes(s.as_u64()))
        .ok_or_else(|| "not a size; valid: 4096, 64K, 10M, 1.5G (powers of 1024)".to_owned())
}

/// Prints help and versions as clap does, and a mistake as one line, which starts with clap's own
/// words.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match stdout::check().and_then(|()| output::unless_closed(error.print())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                output::say(&error.to_string());
                ExitCode::FAILURE
            }
        };
    }
    let text = error.render().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty() && !line.starts_with("tip:"))
        .collect();
    let mut line = lines.join(" ");
    let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if missing {
        line = "a subcommand is missing".to_owned();
    }
    if missing || error.kind() == ErrorKind::InvalidSubcommand {
        let command = Cli::command();
        let given = std::env::args().nth(1).unwrap_or_default();
        let parent = command.find_subcommand(given).unwrap_or(&command);
        let shown = parent.get_subcommands().filter(|c| !c.is_hide_set());
        let valid: Vec<String> = shown.map(|c| c.get_name().into()).collect();
        line.push_str(&format!("; valid: {}", valid.join(", ")));
    } else if line.contains("the subcommand") {
        line.push_str("; put options after the command, as in: lsbuf ps --human");
    }
    output::say(&format!("{} (try --help)", line.strip_prefix("error: ").unwrap_or(&line)));
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the definitions do not contradict each other.
    #[test]
    fn definitions_hold() {
        Cli::command().debug_assert();
    }

    /// Check that sizes are read in the units in which they are printed.
    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("10M"), Ok(Bytes(10 << 20)));
        assert_eq!(size("1.5G"), Ok(Bytes(3 << 29)));
        assert_eq!(size("4096"), Ok(Bytes(4096)));
    }

    /// Check that a decimal unit is refused: it would be misread.
    #[test]
    fn decimal_units_are_refused() {
        assert!(
            size("99999999P").is_err()
                && size("10MB").is_err()
                && size("").is_err()
                && size("-1").is_err()
                && size("M").is_err()
        );
    }
}
