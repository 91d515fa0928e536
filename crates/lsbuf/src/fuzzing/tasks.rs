//! Promises about the parsers of a process's identity, and of the recorded list of tasks that share
//! tables.

use std::cmp::Ordering;

use super::halves;
use crate::kernel::details::{Users, fd_limit, rss_shmem};
use crate::kernel::kcmp::Resource;
use crate::kernel::task::{self as texts, Stage, last_pid};
use crate::kernel::tree::Tree;
use crate::kernel::tree::recorded::{Recorded, pair};
use crate::kernel::workload;
use crate::model::{Bytes, Tid, Workload};

/// `stat`, `status` and `cgroup` of a process, and `loadavg`, are read back as they were printed. A
/// command name shifts no field.
pub fn process(data: &[u8]) {
    let (text, comm) = halves(data);
    let byte = |nth: usize| text.get(nth).copied().unwrap_or(0);
    let (state, flags) = ("RSDZXtTIP".as_bytes()[usize::from(byte(0)) % 9] as char, [1, 2, 3, 4].map(byte));
    let flags = u32::from_ne_bytes(flags);
    let print = |comm: &[u8], flags: u32, start: u64| {
        let fields = format!(") {state} 1 7 7 0 -1 {flags} 102 0 0 0 0 0 0 0 20 0 1 0 {start} 9003008 200\n");
        [b"7 (", comm, fields.as_bytes()].concat()
    };
    assert_eq!(texts::stat(&print(comm, flags, 4711)), Ok((comm.into(), 4711)));
    assert_eq!(texts::parent(&print(comm, flags, 4711)), Ok(Some(1)));
    let _ = texts::parent(text);
    assert_eq!(texts::stage(&print(comm, flags, 1)), texts::stage(&print(b"x", flags, 1)));
    assert_eq!(texts::stage(&print(comm, 2_129_984, 1)), Ok(Stage::Kernel));
    let _ = texts::stage(text);
    if let Ok((comm, start)) = texts::stat(text) {
        assert_eq!(texts::stat(&print(comm.as_bytes(), flags, start)), Ok((comm, start)));
    }
    let line = text.split(|&b| b == b'\n').next().unwrap_or_default();
    if let Some(uid) = texts::real_uid(text) {
        let status = [b"Name:\t", line, format!("\nUid:\t{uid}\t0\t0\t0\n").as_bytes()].concat();
        assert_eq!(texts::real_uid(&status), Some(uid));
    }
    for (pids, one) in
        [("", false), ("NSpid:\t7\n", true), ("NSpid:\t7\t1\n", false), ("NSpid:\t7\t1\t1\n", false)]
    {
        let status = [b"Name:\t", line, b"\n", pids.as_bytes(), b"NSpgid:\t7\n"].concat();
        assert_eq!(texts::is_in_one_namespace(&status), one);
    }
    let _ = texts::is_in_one_namespace(text);
    for (before, path) in [(&b"1:cpu:/x\n0::/"[..], line), (b"0::/\n4:cpu,memory:/", line)] {
        let printed = [before, path, b"\n"].concat();
        assert!(texts::cgroup(&printed).is_some_and(|cgroup| cgroup.path[1..] == *path));
    }
    let _ = texts::cgroup(text);
    if let Some(pid) = last_pid(text) {
        assert_eq!(last_pid(format!("0.00 0.01 0.05 1/80 {pid}\n").as_bytes()), Some(pid));
    }
}

/// `limits`, `status` and `cgroup` of a process, and passwd(5), are read back as they were printed.
/// No path of a cgroup makes a name that could be a path.
pub fn details(data: &[u8]) {
    if let Some(limit) = fd_limit(data) {
        let text = format!("Limit Soft Hard Units\nMax open files            {limit:<20} 1 files\n");
        assert_eq!(fd_limit(text.as_bytes()), Some(limit));
    }
    if let Some(Bytes(bytes)) = rss_shmem(data) {
        let text = format!("Name:\tx\nRssShmem:\t{:8} kB\n", bytes / 1024);
        assert_eq!(rss_shmem(text.as_bytes()), Some(Bytes(bytes)));
    }
    let line = data.split(|&b| b == b'\n').next().unwrap_or_default();
    let name = line.split(|&b| b == b':').next().unwrap_or_default();
    let user = Users::parse(&[name, b":x:7:7:::\n", data].concat()).name(7);
    assert!(name.is_empty() || user == Some(name.into()));
    let printed = [b"0::/", line, b"\n"].concat();
    let path = workload::path(&printed);
    assert!(path.is_none_or(|path| path[1..] == *line));
    let Workload { unit, container, pod } = workload::of_path(path.unwrap_or(data));
    for name in [unit, container, pod.map(|pod| pod.uid)].into_iter().flatten() {
        assert!(!name.as_bytes().contains(&b'/'));
    }
    let _ = workload::path(data);
}

/// Recorded sharing. A line is read back as it was printed, and holds in both directions and for
/// its resource alone. All lines together give an order.
pub fn sharing(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let pairs: Vec<_> = text.lines().filter_map(pair).take(16).collect();
    for &(what, a, b) in &pairs {
        let (word, other) = match what {
            Resource::Files => ("files", Resource::Vm),
            Resource::Vm => ("vm", Resource::Files),
        };
        assert_eq!(pair(&format!("{word} {a} {b}")), Some((what, a, b)));
        let one = Recorded::sharing([(what, a, b)].into_iter());
        assert_eq!(one.compare(what, Tid(a), Tid(b)), Some(Ordering::Equal));
        assert_eq!(one.compare(what, Tid(b), Tid(a)), Some(Ordering::Equal));
        assert_eq!(one.compare(other, Tid(a), Tid(b)), Some(a.cmp(&b)));
    }
    let all = Recorded::sharing(pairs.iter().copied());
    for &(what, a, _) in &pairs {
        for &(_, b, _) in &pairs {
            let order = |a, b| all.compare(what, Tid(a), Tid(b));
            assert_eq!(order(a, b), order(b, a).map(Ordering::reverse));
        }
    }
}
