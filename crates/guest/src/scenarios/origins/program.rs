//! Makers that are programs of their own, and the truth of their stacks.
//!
//! Where a program made its buffer follows from the address that it prints and from its `maps`.
//! Build id and function are those of its ELF file, as the crate `object` reads it, which lsbuf
//! does not use for that.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use object::read::{Object, ObjectSegment, ObjectSymbol};
use rustix::param::clock_ticks_per_second;
use serde_json::Value;

/// A program that has made its memfd and waits.
#[derive(Debug)]
pub(in crate::scenarios) struct Maker {
    pub(in crate::scenarios) pid: u32,
    pub(in crate::scenarios) made: Made,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A memfd, and the truth of who made it where.
#[derive(Clone, Debug)]
pub(in crate::scenarios) struct Made {
    /// Its inode number.
    pub(in crate::scenarios) ino: u64,
    /// When the maker was started, in clock ticks after boot.
    pub(in crate::scenarios) started: u64,
    /// Offset in the file, or the address if the file has no build id.
    place: u64,
    build_id: Option<String>,
    /// The file's name.
    module: String,
    /// The function with that place; `None`: the file has no symbols.
    function: Option<String>,
}

/// What a program says of the memfd that it has made.
#[derive(Clone, Copy, Debug)]
pub(in crate::scenarios) struct Said {
    pub(in crate::scenarios) fd: u32,
    /// The address after the system call.
    pub(in crate::scenarios) address: u64,
}

/// The command that makes a memfd after so many calls. Told to, it executes `then`.
pub(in crate::scenarios) fn command(path: &str, calls: usize, then: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.arg(calls.to_string()).args(then);
    command
}

/// The functions that lead to the memfd after so many calls, the innermost first.
pub(in crate::scenarios) fn functions(calls: usize) -> Vec<String> {
    let between = (0..calls).rev().map(|depth| if depth % 2 == 0 { "odd" } else { "even" });
    ["make"].into_iter().chain(between).chain(["begin", "_start"]).map(str::to_owned).collect()
}

impl Maker {
    /// Starts a program, and waits until it has made its memfd.
    pub(in crate::scenarios) fn start(command: &mut Command) -> anyhow::Result<Maker> {
        let (child, input, output, said) = start(command)?;
        let pid = child.id();
        Ok(Maker { pid, made: Made::by(pid, said)?, child, input, output })
    }

    /// Tells the program a letter.
    pub(in crate::scenarios) fn tell(&mut self, letter: u8) -> anyhow::Result<()> {
        self.input.write_all(&[letter]).context("telling a maker")
    }

    /// The next line that it prints, or whatever it has executed.
    pub(in crate::scenarios) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Waits until the program has exited.
    pub(in crate::scenarios) fn ended(&mut self) -> anyhow::Result<()> {
        self.child.wait().map(drop).context("waiting for a maker")
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program that makes a memfd. Returns what it says, and how to talk to it.
pub(in crate::scenarios) fn start(
    command: &mut Command,
) -> anyhow::Result<(Child, ChildStdin, BufReader<ChildStdout>, Said)> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a maker")?;
    let input = child.stdin.take().context("no input")?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let (fd, address) = line.trim_end().split_once(' ').with_context(|| format!("a maker says {line:?}"))?;
    let said = Said { fd: fd.parse()?, address: u64::from_str_radix(address, 16)? };
    Ok((child, input, output, said))
}

impl Made {
    /// Reads the truth of the memfd that a running process has made.
    pub(in crate::scenarios) fn by(pid: u32, said: Said) -> anyhow::Result<Made> {
        let ino = fs::metadata(format!("/proc/{pid}/fd/{}", said.fd)).context("the memfd")?.ino();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let started = fields.split_ascii_whitespace().nth(19).context("no start time")?.parse()?;
        let exe = format!("/proc/{pid}/exe");
        let module = fs::read_link(&exe)?.file_name().context("no name")?.to_string_lossy().into_owned();
        let module = module.strip_suffix(" (deleted)").unwrap_or(&module).to_owned();
        let bytes = fs::read(&exe)?;
        let file = object::File::parse(bytes.as_slice())?;
        let offset = in_file(&fs::read_to_string(format!("/proc/{pid}/maps"))?, said.address)?;
        let build_id = file.build_id()?.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(Made {
            ino,
            started,
            place: if build_id.is_some() { offset } else { said.address },
            function: function(&file, offset)?,
            build_id,
            module,
        })
    }

    /// The innermost call in one line. If it has no `name`, the place is all.
    pub(in crate::scenarios) fn call(&self, has_name: bool) -> String {
        let module = self.build_id.as_ref().filter(|_| has_name).map(|_| self.module.as_str());
        call(
            self.function.as_deref().filter(|_| module.is_some()),
            module,
            self.build_id.as_deref(),
            self.place,
        )
    }
}

/// The offset in the file of an address.
fn in_file(maps: &str, address: u64) -> anyhow::Result<u64> {
    let hex = |text| u64::from_str_radix(text, 16);
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next().and_then(|range| range.split_once('-')).context("no range")?;
        if (hex(start)?..hex(end)?).contains(&address) {
            return Ok(hex(words.nth(1).context("no offset")?)? + (address - hex(start)?));
        }
    }
    anyhow::bail!("nothing is mapped at {address:#x}")
}

/// The function before an offset in the file, by the file's symbols.
fn function(file: &object::File<'_>, offset: u64) -> anyhow::Result<Option<String>> {
    let before = offset - 1;
    let segment = |segment: object::Segment<'_, '_>| {
        let (at, size) = segment.file_range();
        (at..at + size).contains(&before).then(|| segment.address() + (before - at))
    };
    let address = file.segments().find_map(segment).context("no segment")?;
    let mut symbols = file.symbols();
    let found =
        symbols.find(|symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&address));
    found.map(|symbol| symbol.name().map(str::to_owned).context("a name")).transpose()
}

/// A call in one line.
fn call(function: Option<&str>, module: Option<&str>, build_id: Option<&str>, place: u64) -> String {
    let (function, module) = (function.unwrap_or("?"), module.unwrap_or("?"));
    format!("{function} in {module}, {}+{place:#x}", build_id.unwrap_or("address "))
}

/// The innermost call as lsbuf tells it.
pub(in crate::scenarios) fn told_call(origin: &Value) -> anyhow::Result<String> {
    let frame = &origin["stack"]["user"][0];
    let address =
        frame["address"].as_str().map(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16));
    let place = frame["offset"].as_u64().map(Ok).or(address).context("a frame without a place")??;
    let function = frame["functions"][0]["name"].as_str();
    Ok(call(function, frame["module"].as_str(), frame["build_id"].as_str(), place))
}

/// All functions as lsbuf tells them, the innermost first.
pub(in crate::scenarios) fn told_functions(origin: &Value) -> String {
    let frames = origin["stack"]["user"].as_array().into_iter().flatten();
    let names = frames.map(|frame| frame["functions"][0]["name"].as_str().unwrap_or("?"));
    names.collect::<Vec<_>>().join(" ")
}

/// When the maker was started as lsbuf tells it, in clock ticks.
pub(in crate::scenarios) fn told_start(origin: &Value) -> anyhow::Result<u64> {
    let nanos = origin["started_ns"].as_u64().context("no start time")?;
    Ok(u64::try_from(u128::from(nanos) * u128::from(clock_ticks_per_second()) / 1_000_000_000)?)
}
