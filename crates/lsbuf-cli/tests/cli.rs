//! The command as its users meet it: what it prints, where, and how it exits; on recorded trees.
//!
//! Output is compared with reviewed snapshots. Their world is [`world`], so each can be checked by
//! hand.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::process::{Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use kit::{Tree, lsbuf, shmem_tree};

/// A camera shares a buffer with a compositor and leaks one that only the kernel still holds; a
/// hostile process holds a third, unnamed... but for bytes that no terminal should see.
fn world() -> Tree {
    let mut tree = Tree::new();
    tree.process(12, b"camera");
    tree.process(13, b"compositor");
    tree.process(66, b"ev\x1bil\n)");
    tree.listed(7, b"cam 0", 8 << 20, 4, &["vgem"]);
    tree.dmabuf_fd(12, 5, 7, b"cam 0", 8 << 20, 4);
    tree.dmabuf_fd(12, 6, 7, b"cam 0", 8 << 20, 4);
    tree.dmabuf_fd(13, 9, 7, b"cam 0", 8 << 20, 4);
    tree.maps(13, &["7f0000000000-7f0000800000 rw-s 00000000 00:0c 7    /dmabuf:cam 0"]);
    tree.listed(8, b"<none>", 12288, 2, &[]);
    tree.process(14, b"(gpu) 1\n");
    tree.fd(14, 3, b"/dev/dri/card0", b"pos:\t0\nflags:\t02\nmnt_id:\t20\n");
    tree.fd(14, 4, b"/dev/dri/card0", b"pos:\t0\nflags:\t02\nmnt_id:\t20\n");
    tree.link("sys/class/drm/card0/device", b"../../../devices/faux/vgem");
    tree.listed(9, b"\x1b[31m\n\xff,\"\\x", 4096, 1, &[]);
    tree.dmabuf_fd(66, 3, 9, b"\x1b[31m\n\xff,\"\\x", 4096, 1);
    tree.write_list();
    tree
}

/// Check the table of shared memory: most expensive first, what is unknown marked, and its totals.
#[test]
fn ls_shmem_tree() {
    let run = lsbuf(&shmem_tree(), &["--human", "-o", "+DELETED,PRIVATE,SWAPPED,SEALS,IPC"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, UNCOUNTED));
    insta::assert_snapshot!(run.stdout);
}

/// What is said of the two that procfs has no count for.
const UNCOUNTED: &str = "lsbuf: note: procfs has no count of references for 2 shmem buffers: COUNT, KERNEL and USS \
    need BPF iterators (root, or lsbuf probes install)\n";

/// Check that processes' figures are made of what is charged, with sync_files beside them.
#[test]
fn ps_shmem_tree() {
    insta::assert_snapshot!(lsbuf(&shmem_tree(), &["ps", "-o", "+MPSS,SYNCS"]).stdout);
}

/// Check that shared memory is shown in full, each kind with what it has of its own.
#[test]
fn show_shmem_tree() {
    let shown = lsbuf(&shmem_tree(), &["show", "memfd:7", "0", "/dev/shm/leaked", "0x1234"]);
    assert_eq!((shown.status, shown.stderr.as_str()), (0, UNCOUNTED));
    insta::assert_snapshot!(shown.stdout);
}

/// Check that a name can be given back as it was printed.
#[test]
fn show_by_a_printed_name() {
    let shown = lsbuf(&shmem_tree(), &["show", r"wl_\x1bshm"]);
    assert_eq!((shown.status, shown.stdout.lines().next()), (0, Some(r"memfd 7: wl_\x1bshm")));
}

/// Check that names which look the same in JSON are told apart by their bytes, in which form they
/// can be given back, and that the schema knows those.
#[test]
fn names_that_are_no_text() {
    let mut tree = Tree::new();
    tree.process(12, b"a\xffb");
    for (fd, (ino, name)) in [(7, b"n\xfe"), (8, b"n\xff")].into_iter().enumerate() {
        tree.listed(ino, name, 4096, 1, &[]);
        tree.dmabuf_fd(12, fd as u32, ino, name, 4096, 1);
    }
    tree.write_list();
    let document: serde_json::Value =
        serde_json::from_str(&lsbuf(&tree, &["-J", "--sort", "INO"]).stdout).unwrap();
    let names: Vec<_> =
        (0..2).map(|nth| &document["buffers"][nth]).map(|b| (&b["name"], &b["name_bytes"])).collect();
    assert_eq!(names[0].0, names[1].0);
    assert_ne!(names[0].1, names[1].1);
    assert_eq!(document["processes"][0]["comm_bytes"], r"a\xffb");
    assert!(document["buffers"][0].get("exporter_bytes").is_none());
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.snapshot-1.schema.json")).unwrap();
    assert!(jsonschema::validator_for(&schema).unwrap().is_valid(&document));

    let shown = lsbuf(&tree, &["show", r"n\xff"]);
    assert_eq!((shown.status, shown.stdout.lines().next()), (0, Some(r"dmabuf 8: n\xff")));
}

/// Check that the columns that programs get do not depend on what there is, where people's do.
#[test]
fn default_columns_of_a_family() {
    let headings = |arguments: &[&str]| {
        let run = lsbuf(&shmem_tree(), arguments);
        run.stdout.lines().next().unwrap_or_default().contains("EXPORTER")
    };
    assert_eq!((headings(&["--csv"]), headings(&["-r"]), headings(&[])), (true, true, false));
}

/// Check that JSON of every kind keeps its schema.
#[test]
fn family_keeps_its_schema() {
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.snapshot-1.schema.json")).unwrap();
    let document = serde_json::from_str(&lsbuf(&shmem_tree(), &["-J"]).stdout).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// Check that kinds are chosen together, by -d over what the environment says, and that totals
/// speak of those alone.
#[test]
fn chosen_kinds() {
    let count =
        |args: &[&str]| lsbuf(&shmem_tree(), &[args, &["-n", "-o", "INO"]].concat()).stdout.lines().count();
    assert_eq!((count(&["--kind", "sysv,memfd"]), count(&["--kind", "tmpfs"]), count(&[])), (3, 1, 4));
    assert_eq!((count(&["--deleted"]), count(&["--unheld"])), (2, 1));
    let run = lsbuf(&shmem_tree(), &["--kind", "memfd", "-d"]);
    assert!(run.stderr.starts_with("lsbuf: no dma-buf found; looked at"), "{}", run.stderr);
}

fn stdout(args: &[&str]) -> String {
    let run = lsbuf(&world(), args);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    run.stdout
}

/// Check the table of buffers, largest first, with its totals.
#[test]
fn ls() {
    insta::assert_snapshot!(stdout(&["--human"]));
}

/// Check the table of buffers with every column.
#[test]
fn ls_all_columns() {
    insta::assert_snapshot!(stdout(&[
        "-b",
        "-o",
        "+PIDS,OPATH,IN-FLIGHT,IO-URING,SHAPE,ATTACHED,CANDIDATES,CREATED,UID,KIND,DEV,CHARGED"
    ]));
}

/// Check the table of processes.
#[test]
fn ps() {
    insta::assert_snapshot!(stdout(&["ps", "--human", "-o", "+MPSS,UID,CGROUP,START"]));
}

/// Check that a blank in a value does not make a field in raw output.
#[test]
fn raw() {
    insta::assert_snapshot!(stdout(&["ls", "-r"]));
}

/// Check CSV, and that it quotes what it must.
#[test]
fn csv() {
    insta::assert_snapshot!(stdout(&["--csv"]));
}

/// Check everything about single buffers.
#[test]
fn show() {
    insta::assert_snapshot!(stdout(&["show", "7", "8", "9"]));
}

/// Check that handles which a driver lists take the place of guesses by open devices.
#[test]
fn show_handles() {
    let tree = world();
    let text = b"pid       21 command ev\x1bil:\n\t\t0x0000001f:        12288 byte GTT imported from ino:8\n";
    tree.write("sys/kernel/debug/dri/0/amdgpu_gem_info", text);
    let shown = lsbuf(&tree, &["show", "8"]).stdout;
    assert!(
        shown.contains("by the handles that the driver lists\n    ev\\x1bil:21  handle 0x1f (imported)\n"),
        "{shown}"
    );
    assert!(!shown.contains("/dev/dri"), "{shown}");
}

/// Check that JSON carries the same figures, with the time and duration of the run blotted out.
#[test]
fn json() {
    let mut document: serde_json::Value = serde_json::from_str(&stdout(&["-J"])).unwrap();
    document["taken_at"] = "T".into();
    document["scan"]["duration_us"] = 0.into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
}

/// Check that every command with JSON prints it on one line if asked, and says the same.
#[test]
fn compact_json() {
    let tree = shared_world();
    for command in [&["ls"][..], &["ps"], &["show", "7"], &["reconcile"]] {
        let [lines, compact] = [&["-J"][..], &["-J", "--compact"]].map(|format| {
            let text = lsbuf(&tree, &[command, format].concat()).stdout;
            let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
            document["taken_at"] = "T".into();
            document["scan"]["duration_us"] = 0.into();
            (text.lines().count(), document)
        });
        assert!(lines.0 > 1, "{command:?}");
        assert_eq!(compact, (1, lines.1), "{command:?}");
    }
}

/// Check that what JSON says has the form that the published schema promises, holders and unknowns
/// included.
#[test]
fn json_keeps_its_schema() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/lsbuf.snapshot-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let document: serde_json::Value = serde_json::from_str(&stdout(&["-J"])).unwrap();
    let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut broken = document;
    broken["buffers"][0]["refs"]["kernel"] = "3".into();
    assert!(!schema.is_valid(&broken), "a schema that takes anything proves nothing");
}

/// Check that what exists is shown even if something else that was asked for does not.
#[test]
fn show_what_exists() {
    let run = lsbuf(&world(), &["show", "7", "7", "nosuch"]);
    assert_eq!((run.status, run.stdout.matches("dmabuf 7").count()), (1, 1));
}

/// Check that a buffer can be shown by its name.
#[test]
fn show_by_name() {
    assert!(stdout(&["show", "cam 0"]).starts_with("dmabuf 7: cam 0\n"));
}

/// Check that no format lets a raw control character that another process chose through.
#[test]
fn no_format_is_raw() {
    for args in [
        &["ls"][..],
        &["ls", "-r"],
        &["ls", "--csv"],
        &["ls", "-J"],
        &["ps"],
        &["ps", "--csv"],
        &["show", "9"],
    ] {
        let text = stdout(args);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{args:?}: {text}");
    }
}

/// Check that a newline in a name makes no line: as many lines as rows, in every line-oriented
/// format.
#[test]
fn no_format_gains_lines() {
    for args in [&["ls", "-n"][..], &["ls", "-nr"], &["ls", "-n", "--csv"]] {
        assert_eq!(stdout(args).lines().count(), 3, "{args:?}");
    }
}

/// Check that filters choose rows.
#[test]
fn filters() {
    let inodes = |args: &[&str]| stdout(&[&["-nr", "-o", "INO"], args].concat());
    assert_eq!(inodes(&["-p", "13"]), "7\n");
    assert_eq!(inodes(&["--unheld"]), "8\n");
    assert_eq!(inodes(&["--kernel-only"]), "8\n", "its old name");
    assert_eq!(inodes(&["--name", "cam*"]), "7\n");
    assert_eq!(inodes(&["--min-size", "12K"]), "7\n8\n");
    assert_eq!(inodes(&["--exporter", "system", "--kind", "dmabuf", "--sort", "ino"]), "9\n8\n7\n");
}

/// Check that a filter nothing passes says so in one line on stderr.
#[test]
fn nothing_matches() {
    let run = lsbuf(&world(), &["--exporter", "nobody"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    assert_eq!(
        run.stderr,
        "lsbuf: none of 3 buffers matches; looked at 5 of 5 processes, by fd, fdinfo, maps, bufinfo, sysvipc\n"
    );
}

/// Check that a machine without dma-bufs is told in one line, with what was looked at.
#[test]
fn no_dmabuf() {
    let tree = Tree::new();
    tree.write_list();
    let run = lsbuf(&tree, &[]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    assert_eq!(
        run.stderr,
        "lsbuf: no buffer found; looked at 1 of 1 process, by fd, fdinfo, maps, bufinfo, sysvipc\n"
    );
}

/// Check that a partial answer is printed, is said on stderr, and fails only under --strict.
#[test]
fn partial() {
    let tree = world();
    std::fs::remove_dir_all(tree.path("sys")).unwrap();
    let run = lsbuf(&tree, &["-n"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 2));
    assert_eq!(
        run.stderr,
        "lsbuf: partial: the kernel's own list was not read (TREE/sys/kernel/debug/dma_buf/bufinfo: No such file or \
         directory (os error 2)): dma-bufs that no process holds are missing\n"
    );
    assert_eq!(lsbuf(&tree, &["--strict"]).status, 3);
    assert_eq!(lsbuf(&world(), &["--strict"]).status, 0);
}

/// Check that each wrong argument is one line that says what is valid, and exit status 2.
#[test]
fn wrong_arguments() {
    for (args, valid) in [
        (&["-o", "FOO"][..], "valid: KIND, INO, SIZE"),
        (&["ps", "--sort", "INO"], "valid: PID, COMMAND, RSS"),
        (&["--kind", "ion"], "valid: dmabuf, memfd, sysv"),
        (&["--source", "ebpf"], "valid: auto, bpf; or one of procfs, procmap, maps, map_files,"),
        (&["--min-size", "10MB"], "valid: 4096, 64K, 10M"),
        (&["--name", "[a"], "valid: *, ?, [abc]"),
        (&["-p", "camera"], "a process id is a number"),
        (&["--color", "blue"], "auto, always, never"),
        (&["--compact"], "not provided: --json"),
        (&["ps", "--compact"], "not provided: --json"),
        (&["show", "7", "--compact"], "not provided: --json"),
        (&["reconcile", "--compact"], "not provided: --json"),
        (&["--compact", "--csv"], "'--compact' cannot be used with '--csv'"),
        (&["ps", "--compact", "--raw"], "'--compact' cannot be used with '--raw'"),
        (&["--compact", "-o", "INO"], "'--compact' cannot be used with '--output"),
        (&["reconcile", "--compact", "--human"], "'--compact' cannot be used with '--human'"),
        (&["frobnicate"], "frobnicate"),
        (&["show"], "<BUFFER>"),
    ] {
        let run = lsbuf(&world(), args);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{args:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(valid), "{args:?}: {}", run.stderr);
    }
}

/// Check that what cannot be answered names what was asked, with exit status 1.
#[test]
fn no_answer() {
    let run = lsbuf(&world(), &["-p", "4711"]);
    assert_eq!((run.status, run.stderr.as_str()), (1, "lsbuf: no process 4711\n"));
    let run = lsbuf(&world(), &["show", "99"]);
    assert_eq!((run.status, run.stderr.as_str()), (1, "lsbuf: no buffer 99 among the 3 found\n"));
    let run = lsbuf(&world(), &["--source", "procmap"]);
    assert_eq!(run.status, 1);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.ends_with(" has no PROCMAP_QUERY (Linux 6.11 and later)\n"), "{}", run.stderr);
    let output = Command::new(cargo_bin("lsbuf")).args(["--proc-root", "/dev"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"lsbuf: /dev is no procfs, nor a recorded tree of one\n");
}

/// Check that a reader who stops reading is no error, and does not hide that the answer is partial.
#[test]
fn broken_pipe() {
    let tree = world();
    for (more, status) in [(&[][..], 0), (&["--json"], 0), (&["--strict"], 3)] {
        let mut child = Command::new(cargo_bin("lsbuf"))
            .arg("--proc-root")
            .arg(tree.path("proc"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(status), "{more:?}");
    }
}

/// Check that an answer which nobody can get is an error in one line, whether stdout is closed or
/// only open for reading.
#[test]
fn no_stdout() {
    let tree = world();
    let folders =
        [tree.path("proc"), tree.path("sys")].map(|path| path.into_os_string().into_string().unwrap());
    let roots = ["--proc-root", &folders[0], "--sys-root", &folders[1]];
    let commands: &[&[&str]] = &[&[], &["--json"], &["--csv"], &["-r"], &["ps"], &["show", "7"], &["doctor"]];
    let commands = commands.iter().map(|command| [command, &roots[..]].concat());
    let others: &[&[&str]] = &[&["probes", "status"], &["--help"], &["ps", "--help"], &["--version"]];
    for command in commands.chain(others.iter().map(|command| command.to_vec())) {
        for stdout in ["1>&-", "1</dev/null"] {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("exec \"$0\" \"$@\" {stdout}")])
                .arg(cargo_bin("lsbuf"))
                .args(&command);
            let output = shell.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            let expected = "lsbuf: nothing can be written: stdout is closed, or only open for reading\n";
            assert_eq!((output.status.code(), said.as_str()), (Some(1), expected), "{command:?} {stdout}");
        }
    }
}

/// Check that colour comes when asked for, marks the heading, and stays out of a pipe otherwise.
#[test]
fn colour() {
    let run = lsbuf(&world(), &["--color", "always"]);
    assert!(run.stdout.starts_with("\u{1b}[1m"));
    assert!(!lsbuf(&world(), &[]).stdout.contains('\u{1b}'));
}

/// Check that help lists every column with its meaning.
#[test]
fn help_lists_columns() {
    let help = stdout_of_help(&["--help"]);
    for column in lsbuf::render::BUFFER_COLUMNS {
        assert!(help.contains(&format!(" {:<10} {}", column.name, column.help)), "{}", column.name);
    }
    let help = stdout_of_help(&["ps", "--help"]);
    for column in lsbuf::render::PROCESS_COLUMNS {
        assert!(help.contains(&format!(" {:<10} {}", column.name, column.help)), "{}", column.name);
    }
}

/// Check that the help of each subcommand has an example, and that no line of an example or a
/// column is longer than a terminal of 80 columns.
#[test]
fn help_has_examples() {
    let commands = ["ls", "ps", "sum", "top", "show", "reconcile", "doctor", "probes", "check"];
    let actions = ["install", "status", "remove"];
    let calls = commands.iter().map(|command| vec![*command, "--help"]);
    let calls = calls.chain(actions.iter().map(|action| vec!["probes", action, "--help"]));
    for call in calls.chain([vec!["--help"]]) {
        let help = stdout_of_help(&call);
        assert!(help.contains("Example"), "{call:?}");
        let is_fixed = |line: &&str| line.starts_with("  lsbuf ") || line.starts_with("* ");
        for line in help.lines().filter(is_fixed) {
            assert!(line.chars().count() <= 80, "{call:?}: {line}");
        }
    }
}

fn stdout_of_help(args: &[&str]) -> String {
    let output = Command::new(cargo_bin("lsbuf")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

/// Check that doctor finds a complete machine complete, and names what an incomplete one lacks.
#[test]
fn doctor() {
    let run = lsbuf(&world(), &["doctor"]);
    assert!(run.stdout.contains("\nAnswers are complete here"), "{}", run.stdout);
    let tree = world();
    std::fs::remove_dir_all(tree.path("sys")).unwrap();
    let run = lsbuf(&tree, &["doctor", "--strict"]);
    assert!(
        run.stdout.contains("Answers are partial here:\n- the kernel's own list was not read"),
        "{}",
        run.stdout
    );
    assert_eq!(run.status, 3);
}

/// Check that doctor names a process that cannot be read, says why and what it costs, and does not
/// claim completeness.
#[test]
fn doctor_names_who_cannot_be_read() {
    let tree = world();
    std::fs::remove_file(tree.path("proc/12/maps")).unwrap();
    std::fs::create_dir(tree.path("proc/12/maps")).unwrap();
    let run = lsbuf(&tree, &["doctor"]);
    assert!(!run.stdout.contains("complete here"), "{}", run.stdout);
    let named = "- 12 (camera): reading its mappings failed: Operation not supported (os error 95)\n";
    assert!(run.stdout.contains(" processes can be read; the others are listed below"), "{}", run.stdout);
    assert!(run.stdout.ends_with(named), "{}", run.stdout);
}

/// Check what is said of pinning, and that help tells what members of the group can then see.
#[test]
fn help_of_probes() {
    let help = stdout_of_help(&["probes", "--help"]);
    insta::assert_snapshot!(help);
    insta::assert_snapshot!(stdout_of_help(&["probes", "install", "--help"]));
}

/// Check that each mistake in pinning is one line that says what is valid or in the way, with its
/// exit status.
#[test]
fn mistakes_with_probes() {
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    for (args, status, says) in [
        (&["probes"][..], 2, "install, status, remove"),
        (&["probes", "frobnicate"], 2, "install, status, remove"),
        (&["probes", "install", "--group", "no such group"], 2, "valid: one of those, or a number"),
        (&["probes", "install", "--group", "4294967295"], 2, "valid: one of those, or a number"),
        (&["probes", "remove", "--pins", full], 1, "is not in a bpf filesystem"),
    ] {
        let output = Command::new(cargo_bin("lsbuf")).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(status), &b""[..]),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

/// Check that a folder which is no bpf filesystem's is nothing to answer from, whatever it is full
/// of.
#[test]
fn status_of_a_forgery() {
    let folder = tempfile::tempdir().unwrap();
    let pins = folder.path().to_str().unwrap();
    let status = || {
        let mut command = Command::new(cargo_bin("lsbuf"));
        let output = command.args(["probes", "status", "--pins", pins]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    // The first line ends with the folder, whose name is a number.
    let (_, said) = status();
    let folder = said.lines().next().and_then(|line| line.split_whitespace().last()).unwrap();
    assert!(folder.starts_with(pins), "{said}");
    std::fs::create_dir(folder).unwrap();
    let without = ["task", "task_file", "task_vma", "dmabuf"];
    let with = ["task_shmem", "task_file_shmem", "task_vma_shmem", "dmabuf_shmem", "shmem_inodes"];
    for name in without.into_iter().chain(with) {
        std::fs::write(std::path::Path::new(folder).join(name), b"").unwrap();
    }
    let (code, said) = status();
    assert_eq!(code, Some(1), "{said}");
    let last = "This user cannot use them: what is there was not pinned by root; \
                as root: lsbuf probes install\nThe flight recorder is not installed.\n";
    assert!(said.ends_with(last), "{said}");
}

/// Check that the second process of a check is not offered, and says what it is to who starts it by
/// hand.
#[test]
fn check_helper() {
    assert!(!stdout_of_help(&["--help"]).contains("check-helper"));
    let output = Command::new(cargo_bin("lsbuf")).arg("check-helper").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("lsbuf: this is for lsbuf check's own use"), "{said}");
}

/// A machine whose Shmem is 1092K and whose parts are known: memfds 20K, a segment 12K of which 4K
/// are in swap, shared anonymous memory 8K; `/dev/shm` has 1M, of which 64K are held; a mount of
/// another namespace has 32K, but for bytes that no terminal should see. A memfd of huge pages and
/// a secret one are not in it.
fn shared_world() -> Tree {
    let tree = Tree::new();
    tree.process(12, b"app");
    tree.process(13, b"other");
    tree.with_shmem(&[12]);
    let mounts = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n25 27 0:27 / /dev/shm rw - tmpfs tmpfs rw\n26 27 0:28 / /run/\x1b[31mx\\012y rw - tmpfs tmpfs rw\n";
    tree.write("proc/13/mountinfo", mounts);
    tree.write("proc/.lsbuf/tmpfs-usage", b"0:27 1048576\n0:28 32768\n");
    tree.shmem_fd(12, 3, b"/memfd:pool (deleted)", "0:1 7 1048576 40 0 4096 1000");
    tree.shmem_fd(12, 4, b"/dev/shm/held", "0:27 5 1048576 128 1 4096 1000");
    tree.shmem_fd(12, 5, b"/memfd:huge (deleted)", "0:17 6 4194304 4096 0 2097152 1000");
    tree.shmem_fd(12, 6, b"/secretmem (deleted)", "0:18 9 12288 0 0 4096 1000");
    tree.maps(
        12,
        &[
            "7f0000000000-7f0000004000 rw-s 00000000 00:01 3      /SYSV0000162e (deleted)",
            "7f0000010000-7f0000014000 rw-s 00000000 00:01 11     /dev/zero (deleted)",
        ],
    );
    tree.shmem_mapped(12, "7f0000000000-7f0000004000", "0:1 3 16384 24 0 4096 0");
    tree.shmem_mapped(12, "7f0000010000-7f0000014000", "0:1 11 16384 16 0 4096 1000");
    let heading = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";
    let row = "      5678          3   600                16384    12    12      1     0     0     0     0          0          0          0                 8192                 4096\n";
    tree.write("proc/sysvipc/shm", format!("{heading}{row}").as_bytes());
    tree.write("proc/sys/vm/stat_refresh", b"");
    meminfo(&tree, 20 + 8 + 8 + 1024 + 32);
    tree
}

fn meminfo(tree: &Tree, shmem: u64) {
    let text = format!(
        "MemTotal: 1000000 kB\nSwapTotal: 100 kB\nSwapFree: 96 kB\nShmem: {shmem} kB\nHugetlb: 4096 kB\n"
    );
    tree.write("proc/meminfo", text.as_bytes());
}

/// Check the table of an account that adds up, to the byte and for people.
#[test]
fn reconcile() {
    for format in ["-b", "--human"] {
        let run = lsbuf(&shared_world(), &["reconcile", format]);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        insta::assert_snapshot!(run.stdout);
    }
}

/// Check the account in JSON, with the time and duration of the run blotted out, and that it has
/// the form that its schema promises.
#[test]
fn reconcile_json() {
    let run = lsbuf(&shared_world(), &["reconcile", "--json"]);
    let mut document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/lsbuf.reconcile-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    document["taken_at"] = "T".into();
    document["scan"]["duration_us"] = 0.into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
    document["left_over"] = "0".into();
    assert!(!schema.is_valid(&document), "a schema that takes anything proves nothing");
}

/// Check that what does not add up is left over with its sign, that each reason is told, and that
/// only what was not seen fails under --strict.
#[test]
fn reconcile_in_doubt() {
    let tree = shared_world();
    meminfo(&tree, 1000);
    std::fs::remove_file(tree.path("proc/sys/vm/stat_refresh")).unwrap();
    let run = lsbuf(&tree, &["reconcile", "-b", "--strict"]);
    assert_eq!(run.status, 0, "{}", run.stdout);
    assert!(run.stdout.contains(&format!(" {}\n", (1000 - 1092) * 1024)), "{}", run.stdout);
    assert!(run.stdout.contains("stat_refresh: No such file"), "{}", run.stdout);
    tree.write("proc/.lsbuf/tmpfs-usage", b"0:27 uncounted\n");
    let run = lsbuf(&tree, &["reconcile", "-b", "--strict"]);
    assert_eq!(run.status, 3, "{}", run.stdout);
    for says in [
        "at /dev/shm is unknown (it has no limit (size=0), so the kernel does not count)",
        "at /run/\\x1b[31mx\\x0ay is unknown (it could not be read)",
    ] {
        assert!(run.stdout.contains(says), "{}", run.stdout);
    }
}

/// Check that kinds are no choice here, by option or environment, and that a machine without a
/// meminfo is no answer.
#[test]
fn reconcile_takes_all_kinds() {
    let tree = shared_world();
    let asked = |kinds: &str| {
        let mut command = Command::new(cargo_bin("lsbuf"));
        command.args(["reconcile", "-b", "--proc-root"]).arg(tree.path("proc")).env("LSBUF_KIND", kinds);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(asked("dmabuf"), lsbuf(&tree, &["reconcile", "-b"]).stdout);
    assert_eq!(lsbuf(&tree, &["reconcile", "--kind", "memfd"]).status, 2);
    std::fs::remove_file(tree.path("proc/meminfo")).unwrap();
    let run = lsbuf(&tree, &["reconcile"]);
    assert_eq!(
        (run.status, run.stderr.as_str()),
        (1, "lsbuf: cannot read TREE/proc/meminfo: No such file or directory (os error 2)\n")
    );
}
