//! The arguments: what each accepts, help with examples, and one line for each mistake.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, ColorChoice, CommandFactory, Parser, Subcommand};
use globset::{Glob, GlobMatcher};
use lsbuf::model::{Bytes, Kind, Kinds, Pid};
use lsbuf::render::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_PROCESS_COLUMNS, PROCESS_COLUMNS,
};
use lsbuf::scan::{Options, PINS, Sources};

use crate::{groups, output, stdout};

// clap wraps text below the options at the terminal's width: a paragraph here is one line. Examples
// end at column 80.

const EXAMPLES: &str = "\
Examples:
  lsbuf                            every buffer, largest first
  lsbuf -d                         dma-bufs alone
  lsbuf --kind memfd,sysv          these kinds alone
  lsbuf -p 4711 -o +SHAPE,CREATED  what process 4711 holds, two more columns
  lsbuf --unheld                   what no process holds: drivers, lost segments
  lsbuf --deleted                  unlinked files that are still held
  lsbuf --min-size 8M --name 'cam*' --sort COUNT
  lsbuf ps --sort BUFS             the processes that hold the most buffers
  lsbuf show 17                    every reference to the buffer with INO 17
  lsbuf reconcile                  what free(1) calls shared, and whose it is
  lsbuf doctor                     is the answer complete here, and if not, why
  lsbuf -J | jq '.totals'          everything, as JSON
";

const LS_EXAMPLES: &str = "\
Examples:
  lsbuf ls --human -o +DELETED,IPC  with two more columns
  lsbuf ls -p 4711                  what process 4711 holds
  lsbuf ls --kind sysv --unheld     segments that no process has attached
";

const PS_EXAMPLES: &str = "\
Examples:
  lsbuf ps --human           largest first
  lsbuf ps --sort USS        what an exit would free, largest first
  lsbuf ps -d -o +SYNCS,UID  dma-bufs alone, with fence fds and users
";

const SHOW_EXAMPLES: &str = "\
Examples:
  lsbuf show 17           the buffer with INO 17
  lsbuf show dmabuf:3     if other kinds have that number, too
  lsbuf show frame-pool   by name; also: lsbuf show /dev/shm/x
  lsbuf show 0x1234       a System V segment by its key
";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  sudo lsbuf doctor               can root see everything here
  lsbuf doctor --source procfs    what another source would see
  lsbuf doctor --strict && …      in a script: only if answers are complete

It tries each source, says what it saw and what the source gives, and names the fewest \
capabilities or mounts that a complete answer needs.
";

/// Shows who holds each shared buffer (dma-bufs and shared memory): which process, by which fd or
/// mapping, or the kernel; and how much memory it takes.
#[derive(Debug, Parser)]
#[command(
    name = "lsbuf",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = format!("{EXAMPLES}\n{}\n{EXIT}", buffer_columns())
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) ls: LsArgs,
}

const EXIT: &str = "\
? is unknown, ~ an estimate, - none or does not apply.
Filters choose rows. The figures in a row, and the totals, are of the whole machine.
A row is red if one process holds the buffer by 16 fds or more, yellow if no fd and no mapping \
holds it.
Output that is piped is not cut to the terminal's width.
Options go after the command: lsbuf ps --human.
Exit status: 0 answered, even if only in part (stderr says so); 1 no answer; 2 wrong arguments; \
3 answered in part, with --strict.";

/// The subcommand by which a check starts its second process.
pub(crate) const CHECK_HELPER: &str = "check-helper";

const CHECK: &str = "\
Examples:
  sudo lsbuf check                    all points
  lsbuf check | grep -A2 '^not ok'    only what does not hold

It makes buffers of its own and tries on them what lsbuf assumes: that an inode number belongs to \
one buffer, that each fd and each mapping adds 1 to the count, where names show, and what stays \
listed. It prints TAP, version 14: one line for each point, and below a point that does not hold \
what was seen and what it means. Comments say what a buffer costs the kernel.

It uses the exporters that this user may open, and leaves nothing behind: the system heap \
(/dev/dma_heap/system), udmabuf (modprobe udmabuf; /dev/udmabuf) and vgem (modprobe vgem; its \
node under /dev/dri). Points that need another exporter, or root, are skipped and say so. Without \
any exporter it prints 'Bail out!' and what to do.

Exit status: 0 every point that could be tried holds; 1 one does not, or no buffer could be made; \
2 wrong arguments.";

const RECONCILE: &str = "\
Examples:
  sudo lsbuf reconcile --human
  lsbuf reconcile -J | jq '.left_over'

The rows below Shmem (/proc/meminfo) add up to it: what is charged for buffers that processes \
hold, by kind, and for System V segments; what is used of each mounted tmpfs by files that no \
process holds; less what of all this is in swap; and, in the last row, what is left over. The \
lines below the table say what that may be.

Huge pages, memfd_secret and guest_memfd are not in Shmem; a line of their own has them. As root, \
lsbuf first has the kernel add up its per-CPU counters (it reads /proc/sys/vm/stat_refresh). If \
Shmem changes during the scan, lsbuf scans again, up to three times in all.

Exit status: 0 answered, even if only in part; 1 no answer; 2 wrong arguments; 3 answered in \
part, with --strict.";

const PROBES: &str = "\
Examples:
  sudo lsbuf probes install --group video    once per boot
  lsbuf probes status                        what is pinned, and can I read it
  sudo lsbuf probes remove

Root loads the BPF iterators and pins them. Members of the group then see the whole machine \
without any privilege: lsbuf reads pinned iterators by itself if its user may (--source auto or \
bpf).

What members can then see, of all users and containers: every dma-buf's size, exporter, name, \
creator and attached devices; every memfd, segment and tmpfs file that is held, with its path; \
every process that holds one, with its pid, command, user and cgroup, its fd numbers, and the \
addresses of its mappings (which reveals address space layout randomization); and which processes \
have a GPU or video device open. They cannot see what is in a buffer, or open one.

The folder must be on a bpf filesystem, or be missing or empty: then one is mounted there. It \
cannot be below /sys/fs/bpf where systemd has mounted that, because only root can enter it.

Exit status: 0 done, and for status: this user can read what is pinned; 1 if not; 2 wrong \
arguments.";

const INSTALL_EXAMPLE: &str = "\
Example:
  sudo lsbuf probes install --group video

Read lsbuf probes --help first: it says what the members can then see.";

const STATUS_EXAMPLE: &str = "\
Example:
  lsbuf probes status && lsbuf    the whole machine, if it can be seen";

const REMOVE_EXAMPLE: &str = "\
Example:
  sudo lsbuf probes remove";

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
    #[command(after_help = INSTALL_EXAMPLE)]
    Install {
        /// Group that may read them, by name or number; without it, only root may
        #[arg(short, long, value_name = "GROUP", value_parser = group)]
        group: Option<u32>,
        #[command(flatten)]
        folder: PinsFolder,
    },
    /// Say what is pinned, who may read it, and whether this user can
    #[command(after_help = STATUS_EXAMPLE)]
    Status {
        #[command(flatten)]
        folder: PinsFolder,
    },
    /// Remove what is pinned
    #[command(after_help = REMOVE_EXAMPLE)]
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
    #[command(after_help = format!("{LS_EXAMPLES}\n{}", buffer_columns()))]
    Ls(LsArgs),
    /// List every process that holds a buffer, and what its exit frees
    #[command(after_help = format!("{PS_EXAMPLES}\n{}", columns(PROCESS_COLUMNS, DEFAULT_PROCESS_COLUMNS)))]
    Ps(PsArgs),
    /// Show single buffers in full: each reference, devices, creator
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Explain what free(1) calls shared, to the page
    #[command(after_help = RECONCILE)]
    Reconcile(ReconcileArgs),
    /// Say whether answers are complete here, and what would make them so
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Let a group see the whole machine: pin BPF iterators, as root
    #[command(after_help = PROBES)]
    Probes(ProbesArgs),
    /// Test whether this kernel behaves as lsbuf assumes
    #[command(after_help = CHECK)]
    Check,
    /// The second process of lsbuf check
    #[command(name = CHECK_HELPER, hide = true)]
    CheckHelper,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, BUFFER_COLUMNS), conflicts_with = "json")]
    pub(crate) output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL", default_value = "COST", value_parser = |s: &str| find(s, BUFFER_COLUMNS))]
    pub(crate) sort: Column,
    #[command(flatten)]
    pub(crate) listing: ListingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, PROCESS_COLUMNS), conflicts_with = "json")]
    pub(crate) output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL", default_value = "RSS", value_parser = |s: &str| find(s, PROCESS_COLUMNS))]
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
    pub(crate) scan: ScanArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// INO, KIND:INO, key of a segment, or name, raw or as lsbuf prints it
    #[arg(required = true, value_name = "BUFFER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) buffers: Vec<String>,
    /// JSON, schema lsbuf.snapshot/1, with these buffers only
    #[arg(short = 'J', long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) scan: ScanArgs,
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
    /// JSON, schema lsbuf.snapshot/1
    #[arg(short = 'J', long, conflicts_with_all = ["csv", "raw", "noheadings", "human"])]
    pub(crate) json: bool,
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
    /// Only buffers of at least this size, such as 10M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) min_size: Option<Bytes>,
    /// Only buffers that no process holds
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
        options.sources.driver_shmem = true;
        options
    }
}

impl ScanArgs {
    /// Which kinds are looked for.
    pub(crate) fn kinds(&self) -> Kinds {
        match &self.kinds[..] {
            _ if self.dmabuf => Kinds::DMABUF,
            [] => Kinds::ALL,
            kinds => kinds.iter().flat_map(|set| set.iter()).collect(),
        }
    }

    /// As the library takes it.
    pub(crate) fn options(&self) -> Options {
        Options { kinds: self.kinds(), ..self.reading.options() }
    }
}

impl ReadingArgs {
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
    fn options(&self, sources: Sources) -> Options {
        let own = (self.proc_root.as_path() == Path::new("/proc")).then(|| PathBuf::from("/sys"));
        Options {
            proc_root: self.proc_root.clone(),
            sys_root: self.sys_root.clone().or(own),
            // A command asks for the best answer that the caller's rights allow.
            sources: Sources { load_bpf: true, ..sources },
            pins: self.folder.pins.clone(),
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
    /// The chosen columns, or the default ones.
    pub(crate) fn or_default(chosen: &Option<Columns>, all: &[Column], default: &[&str]) -> Vec<Column> {
        let default = || all.iter().filter(|c| default.contains(&c.name)).copied();
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

fn find(name: &str, all: &[Column]) -> Result<Column, String> {
    all.iter().find(|c| c.name.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
        let valid: Vec<&str> = all.iter().map(|c| c.name).collect();
        format!("no such column; valid: {}", valid.join(", "))
    })
}

fn choose(list: &str, all: &[Column]) -> Result<Columns, String> {
    let names = list.strip_prefix('+');
    let columns =
        names.unwrap_or(list).split(',').map(|name| find(name, all).map_err(|e| format!("'{name}': {e}")));
    Ok(Columns { columns: columns.collect::<Result<_, _>>()?, more: names.is_some() })
}

/// The columns of a list of buffers, and when tables leave some out.
fn buffer_columns() -> String {
    let text = columns(BUFFER_COLUMNS, DEFAULT_BUFFER_COLUMNS);
    text + "A table has EXPORTER only if a dma-buf is listed, and IPC too if segments of several \
            namespaces are. With -d it has no KIND and CHARGED.\n"
}

fn columns(all: &[Column], default: &[&str]) -> String {
    let mut text = "Columns (* shown by default):\n".to_owned();
    for column in all {
        let mark = if default.contains(&column.name) { '*' } else { ' ' };
        text.push_str(&format!("{mark} {:<10} {}\n", column.name, column.help));
    }
    text
}

fn pid(text: &str) -> Result<Pid, String> {
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

fn glob(text: &str) -> Result<GlobMatcher, String> {
    let glob =
        Glob::new(text).map_err(|e| format!("{}; valid: *, ?, [abc], {{a,b}}, \\ to quote", e.kind()))?;
    Ok(glob.compile_matcher())
}

fn kinds(text: &str) -> Result<Kinds, String> {
    if text == "all" {
        return Ok(Kinds::ALL);
    }
    Kind::of_word(text).map(|kind| [kind].into_iter().collect()).ok_or_else(|| {
        let valid: Vec<&str> = Kind::ALL.iter().map(|k| k.as_str()).collect();
        format!("no such kind; valid: {}, all", valid.join(", "))
    })
}

/// Powers of 1024, as sizes are printed: 10M is 10 MiB.
fn size(text: &str) -> Result<Bytes, String> {
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
