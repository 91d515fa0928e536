//! How the BPF iterators are compiled, for `cargo xtask bpf` and for builds with the feature
//! `bpf-from-source`.
//!
//! The same compiler makes the same bytes in every folder. More than half of what it makes is not
//! needed to load an object, and is removed: DWARF, the table of source lines, the labels inside
//! functions, and the relocations of the type information, which loaders compute themselves. The
//! compiler is told a build folder that does not exist (`-fdebug-compilation-dir`). This keeps the
//! real folder's name out of the object, and the text of the source lines too, because the compiler
//! does not find the files. What remains is code, types, functions, and the places where fields of
//! kernel structures are read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every object, `NAME.bpf.o`. Each source, `NAME.bpf.c`, makes two of them. The one with `_shmem`
/// at the end of its name also looks for shared memory. The one with `_payers` also looks at the
/// pages of each inode.
pub(crate) const OBJECTS: [&str; 12] = [
    "dmabuf",
    "dmabuf_shmem",
    "origins",
    "shmem_inodes",
    "shmem_inodes_payers",
    "task",
    "task_file",
    "task_file_shmem",
    "task_shmem",
    "task_vma",
    "task_vma_shmem",
    "trace",
];

/// The major version of clang that makes the committed objects. Another version may choose other
/// instructions.
pub(crate) const MAJOR: &str = "14";

/// The programs that compile the iterators.
#[derive(Debug)]
pub(crate) struct Tools {
    clang: String,
    objcopy: String,
    /// The version that clang reports.
    pub(crate) version: String,
}

impl Tools {
    /// Finds the programs: those of version [`MAJOR`] if they can be run, else those without a
    /// version in their name.
    pub(crate) fn find() -> Result<Tools, String> {
        for suffix in [&format!("-{MAJOR}"), ""] {
            let (clang, objcopy) = (format!("clang{suffix}"), format!("llvm-objcopy{suffix}"));
            let said = run(Command::new(&clang).arg("--version"));
            if let (Ok(said), Ok(_)) = (said, run(Command::new(&objcopy).arg("--version"))) {
                let mut words = said.split_ascii_whitespace().skip_while(|word| *word != "version");
                let version = words.nth(1).unwrap_or("of unknown version").to_owned();
                return Ok(Tools { clang, objcopy, version });
            }
        }
        Err("there is no clang with llvm-objcopy".to_owned())
    }

    /// Compiles the object `name` from the sources in `folder`, for machines of one byte order.
    /// Writes it into the folder `into` and returns its path.
    pub(crate) fn compile(
        &self,
        folder: &Path,
        name: &str,
        big_endian: bool,
        into: &Path,
    ) -> Result<PathBuf, String> {
        let into = into.canonicalize().map_err(|e| format!("{}: {e}", into.display()))?;
        let file = |ending: &str| into.join(format!("{name}.bpf.{ending}"));
        let (object, whole, types) = (file("o"), file("whole"), file("types"));
        let mut clang = Command::new(&self.clang);
        clang.args(["-target", if big_endian { "bpfeb" } else { "bpfel" }]);
        clang.args(["-mcpu=v3", "-O2", "-g", "-Wall", "-fdebug-compilation-dir=/nowhere", "-c"]);
        let variants = [("_shmem", "-DSHMEM=1"), ("_payers", "-DPAYERS=1")];
        let variant = variants.iter().find_map(|(end, define)| Some((name.strip_suffix(end)?, *define)));
        let (source, define) = variant.unwrap_or((name, "-DSHMEM=0"));
        clang.arg(define);
        clang.arg(format!("{source}.bpf.c")).arg("-o").arg(&whole).current_dir(folder);
        run(&mut clang)?;
        let copy = || Command::new(&self.objcopy);
        let section = |option: &str| format!("--{option}=.BTF.ext={}", types.display());
        run(copy().arg(section("dump-section")).arg(&whole).arg("/dev/null"))?;
        let read = fs::read(&types).map_err(|e| format!("{}: {e}", types.display()))?;
        let cut = without_lines(&read, big_endian).ok_or(format!("{name}: unknown form of .BTF.ext"))?;
        fs::write(&types, cut).map_err(|e| format!("{}: {e}", types.display()))?;
        let unused = [".rel.BTF", ".rel.BTF.ext", ".llvm_addrsig"];
        run(copy()
            .arg("--strip-debug")
            .args(unused.map(|name| format!("--remove-section={name}")))
            .args(["--wildcard", "--strip-symbol=LBB*"])
            .arg(&whole)
            .arg(&object))?;
        run(copy().arg(section("update-section")).arg(&object))?;
        for left in [whole, types] {
            fs::remove_file(&left).map_err(|e| format!("{}: {e}", left.display()))?;
        }
        Ok(object)
    }
}

/// The section `.BTF.ext` without its table of source lines. It has a header of 32-bit numbers. The
/// second number is the length of the header. After it come, for each table, its offset behind the
/// header and its length: functions, lines, relocations (`struct btf_ext_header` of the kernel's
/// tools/lib/bpf/libbpf_internal.h).
fn without_lines(section: &[u8], big_endian: bool) -> Option<Vec<u8>> {
    let number = |at: usize| {
        let bytes = section.get(at * 4..)?.first_chunk()?;
        Some(if big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    };
    let header = usize::try_from(number(1)?).ok()?;
    let table = |at: usize| {
        let begin = header.checked_add(usize::try_from(number(at)?).ok()?)?;
        section.get(begin..)?.get(..usize::try_from(number(at + 1)?).ok()?)
    };
    let (functions, relocations) = (table(2)?, table(6)?);
    let places = [0, functions.len(), functions.len(), 0, functions.len(), relocations.len()];
    let mut cut = section.get(..8)?.to_vec();
    for place in places {
        let place = u32::try_from(place).ok()?;
        cut.extend(if big_endian { place.to_be_bytes() } else { place.to_le_bytes() });
    }
    // The headers of newer compilers have more tables, which are empty or belong to what is
    // removed.
    cut[4..8].copy_from_slice(&if big_endian { 32u32.to_be_bytes() } else { 32u32.to_le_bytes() });
    cut.extend(functions);
    cut.extend(relocations);
    Some(cut)
}

/// Runs a program. Returns what it printed, or one line of its errors.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let first = errors.lines().find(|line| line.contains("error")).or(errors.lines().next());
    Err(format!("{name}: {}", first.unwrap_or("it failed and does not say why")))
}
