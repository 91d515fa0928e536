//! Worlds to look at: a desktop with a camera, one with hostile names, one with many buffers, one
//! over time, and one in which each text is a mark.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::PageData;
use super::snapshot_of;
use crate::history::Recorder;
use crate::model::{Ledger, Snapshot};
use crate::render::View;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A buffer of that kind, with what every buffer has, held by these processes by fd and mapping.
pub(super) fn buffer(kind: &str, ino: u64, size: u64, name: &str, pids: &[u64], kernel: u64) -> Value {
    let is_dmabuf = kind == "dmabuf";
    let holder = |pid: &u64| {
        json!({
            "pid": pid, "fds": [3 + ino % 40], "opaths": [], "runs": false, "threads": [],
            "maps": [{ "start": "0x7f0000000000", "end": format!("{:#x}", 0x7f00_0000_0000 + size.max(4096)), "offset": 0, "perms": "rw-s" }],
            "fd_table_of": null, "address_space_of": null,
        })
    };
    let found = 2 * pids.len() as u64;
    json!({
        "kind": kind, "dev": if is_dmabuf { "0:11" } else { "0:1" }, "ino": ino, "ipc_namespace": null,
        "size": size, "charged": if is_dmabuf { Value::Null } else { json!(size) },
        "swapped": if is_dmabuf { Value::Null } else { json!(0) }, "huge_page": null,
        "deleted": if kind == "memfd" { json!(true) } else { json!(false) }, "seals": null, "segment": null, "same_memory": [],
        "name": name, "exporter": if is_dmabuf { json!("system") } else { Value::Null }, "count": found + kernel,
        "refs": {
            "fd": pids.len(), "map": pids.len(), "private_map": 0, "in_flight": 0, "io_uring": 0, "exe": 0,
            "kernel": kernel, "opath": 0,
        },
        "estimate": false, "estimate_reason": null, "leak_shape": null, "memory_owner": "references",
        "attachments": if is_dmabuf { json!([]) } else { Value::Null }, "handles": [], "kernel_holders": [],
        "private_copies": [], "candidates": [], "created_at": "2026-11-27T10:00:00Z", "creator_uid": 1000,
        "holders": pids.iter().map(holder).collect::<Vec<_>>(),
    })
}

pub(super) fn process(pid: u64, comm: &str, cgroup: &str) -> Value {
    json!({
        "pid": pid, "start_time": 100 + pid, "comm": comm, "uid": 1000, "cgroup": cgroup, "rss": 0, "pss": 0,
        "mapped_pss": 0, "uss": 0, "buffers": 0, "fds": 0, "maps": 0, "sync_files": 0,
    })
}

/// A document with these buffers and processes.
pub(super) fn document(buffers: Vec<Value>, processes: Vec<Value>, notes: &[&str]) -> Value {
    json!({
        "schema": "lsbuf.snapshot/1", "taken_at": "2026-11-27T21:04:11Z",
        "host": { "hostname": "workstation", "kernel": "6.18.1", "boot_id": "5d2b1c52-6f0e-4f0a-9a58-0d2f6f3c1e77" },
        "scan": {
            "sources": ["bpf:task", "bpf:task_file", "bpf:task_vma", "bpf:dmabuf", "bpf:shmem_inodes"],
            "complete": notes.is_empty(), "duration_us": 42_000, "notes": notes,
            "processes": { "total": 312, "read": 312 - notes.len(), "unreadable": notes.len(), "vanished": 0 },
            "saw_every_process": notes.is_empty(),
        },
        "looked_for": ["dmabuf", "memfd", "sysv", "shm-anon", "tmpfs", "hugetlbfs", "gem-shmem", "shm-other"],
        "totals": {
            "buffers": 0, "size": 0, "at_least": 0, "same_memory": 0, "held": 0, "opath": 0, "kernel_only": 0,
            "rss": 0, "pss": 0, "unattributed_refs": 0, "estimate": false, "in_flight_fds": 0, "io_uring_files": 0,
        },
        "kinds": [], "exporters": [], "buffers": buffers, "processes": processes, "devices": [],
    })
}

/// A stack of calls of a program, the innermost first.
pub(super) fn made(command: &str, pid: u64, calls: &[&str], kernel: &[&str]) -> Value {
    let user = |(nth, name): (usize, &&str)| {
        json!({
            "build_id": "ab".repeat(20), "offset": 4096 + 64 * nth, "module": command,
            "functions": [{ "name": name, "file": format!("{name}.c"), "line": 10 + nth, "inlined": false }],
        })
    };
    json!({
        "state": "made", "after_boot_ns": 5_000_000_000_u64, "at": "2026-11-27T20:00:00Z", "pid": pid, "started_ns": 1,
        "command": command, "tid": pid, "thread": command, "uid": 1000, "cgroup_id": 77,
        "stack": {
            "user": calls.iter().enumerate().map(user).collect::<Vec<_>>(), "user_end": "complete",
            "kernel": kernel.iter().map(|name| json!({ "function": name, "module": null })).collect::<Vec<_>>(),
        },
        "client": { "state": "not_seen" },
    })
}

const PROGRAMS: &[(u64, &str, &str)] = &[
    (812, "compositor", "/user.slice/user-1000.slice/session-2.scope"),
    (1401, "camera-service", "/system.slice/camera.service"),
    (1620, "pipewire", "/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service"),
    (2210, "browser", "/user.slice/user-1000.slice/app.slice/browser.scope"),
    (2231, "browser-gpu", "/user.slice/user-1000.slice/app.slice/browser.scope"),
    (2260, "renderer", "/user.slice/user-1000.slice/app.slice/browser.scope"),
    (2261, "renderer", "/user.slice/user-1000.slice/app.slice/browser.scope"),
    (3005, "editor", "/user.slice/user-1000.slice/app.slice/editor.scope"),
    (3301, "postgres", "/system.slice/postgresql.service"),
    (3302, "postgres", "/system.slice/postgresql.service"),
    (3303, "postgres", "/system.slice/postgresql.service"),
    (4100, "inference", "/kubepods.slice/kubepods-pod12.slice/cri-containerd-77.scope"),
    (4711, "video-call", "/user.slice/user-1000.slice/app.slice/video-call.scope"),
];

fn programs() -> Vec<Value> {
    PROGRAMS.iter().map(|&(pid, comm, cgroup)| process(pid, comm, cgroup)).collect()
}

const MIB: u64 = 1 << 20;

/// A desktop with a camera, a browser, a database and a model.
pub(super) fn small() -> Snapshot {
    let mut buffers = Vec::new();
    for nth in 0..6 {
        let mut frame =
            buffer("dmabuf", 40 + nth, 12 * MIB, &format!("camera-frame-{nth}"), &[1401, 1620, 4711], 1);
        frame["attachments"] = json!(["0000:00:02.0"]);
        frame["memory_owner"] = json!("queue");
        frame["origin"] = made(
            "camera-service",
            1401,
            &["allocate_frame", "start_stream", "main"],
            &["dma_heap_ioctl", "entry_SYSCALL_64"],
        );
        buffers.push(frame);
    }
    for nth in 0..9 {
        let mut surface = buffer("dmabuf", 60 + nth, (nth + 2) * 4 * MIB, "", &[812, 2231], 2);
        surface["exporter"] = json!("i915");
        surface["estimate"] = json!(nth % 2 == 0);
        surface["estimate_reason"] = if nth % 2 == 0 { json!("maybe-in-flight") } else { Value::Null };
        surface["candidates"] = json!([812, 2231]);
        surface["origin"] = made(
            "browser-gpu",
            2231,
            &["gbm_bo_create", "allocate_surface", "render", "main"],
            &["i915_gem_create_ioctl", "entry_SYSCALL_64"],
        );
        buffers.push(surface);
    }
    let mut leaked = buffer("dmabuf", 99, 64 * MIB, "tensor-pool", &[4100], 0);
    leaked["leak_shape"] = json!("fd");
    leaked["exporter"] = json!("udmabuf");
    leaked["origin"] = json!({ "state": "before" });
    buffers.push(leaked);
    for nth in 0..24 {
        let pids: &[u64] = if nth % 3 == 0 { &[812, 2260] } else { &[2261] };
        let mut pool = buffer("memfd", 200 + nth, (nth % 5 + 1) * MIB, "/memfd:wl_shm", pids, 0);
        pool["origin"] = made(
            "renderer",
            2260,
            &["memfd_create", "shm_pool_create", "paint", "main"],
            &["__x64_sys_memfd_create", "entry_SYSCALL_64"],
        );
        buffers.push(pool);
    }
    buffers.push(buffer("sysv", 32769, 148 * MIB, "0x0052e2c1", &[3301, 3302, 3303], 0));
    if let Some(segment) = buffers.last_mut() {
        segment["dev"] = Value::Null;
        segment["ipc_namespace"] = json!(4_026_531_839_u64);
        segment["segment"] = json!({
            "key": 5_432_001, "owner": 106, "creator_pid": 3301, "last_pid": 3303, "attached": 3, "removed": false,
            "rss": 100 * MIB, "swap": 0, "remove_command": null,
        });
    }
    for nth in 0..14 {
        buffers.push(buffer(
            "tmpfs",
            300 + nth,
            (nth + 1) * 300_000,
            &format!("/dev/shm/sem.{nth}"),
            &[3005],
            0,
        ));
    }
    let mut unknown = buffer("shm-anon", 7, 16 * MIB, "/dev/zero", &[2210, 2260, 2261], 0);
    for key in ["size", "charged", "count"] {
        unknown[key] = Value::Null;
    }
    unknown["refs"]["kernel"] = Value::Null;
    unknown["estimate_reason"] = json!("not-counted");
    buffers.push(unknown);
    let note = "1 process could not be read: permission was denied (run as root)";
    snapshot_of(&document(buffers, programs(), &[note]))
}

/// Names that try to be something else.
pub(super) const HOSTILE: &[&str] = &[
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "\"><svg onload=document.title='broken'>",
    "' onmouseover='document.title=1",
    "<!-- <script>",
    "]]>{{script}}{{data}}",
    "\u{202e}gpj.exe\u{2066}\u{200b}",
    "\u{1b}[31mred\u{7}\r\n\tline",
    "a\u{2028}b\u{2029}c",
    "__proto__",
    "constructor",
    "javascript:alert(1)",
    "\\x41\\u003c",
    "&lt;b&gt;&amp;",
];

/// The desktop with hostile names in each place that other processes choose.
pub(super) fn hostile() -> Snapshot {
    let long = "<b>".repeat(100);
    let names: Vec<&str> = HOSTILE.iter().copied().chain([long.as_str()]).collect();
    let mut processes = Vec::new();
    let mut buffers = Vec::new();
    for (nth, name) in (0..).zip(&names) {
        let mut one = process(100 + nth, name, &format!("/{name}"));
        one["details"] = json!({
            "args": [name, name], "args_whole": true, "exe": format!("/usr/bin/{name}"), "user": name, "fd_limit": 1024,
            "rss_shmem": 0, "parent": 1, "workload": { "unit": name, "container": name, "pod": { "uid": "u", "namespace": name, "name": name } },
        });
        processes.push(one);
        let mut file = buffer(
            "tmpfs",
            500 + nth,
            (nth + 1) * 65536,
            name,
            &[100 + nth, 100 + (nth + 1) % names.len() as u64],
            0,
        );
        file["origin"] = made(name, 100 + nth, &[name, "main"], &["shmem_create"]);
        buffers.push(file);
        let mut export = buffer("dmabuf", 600 + nth, (nth + 1) * 65536, name, &[100 + nth], 1);
        export["exporter"] = json!(name);
        export["attachments"] = json!([name]);
        export["kernel_holders"] =
            json!([{ "what": "overlay", "name": name, "pid": 100 + nth, "proven": false }]);
        buffers.push(export);
    }
    let mut broken = buffer("memfd", 700, 4096, "a\u{fffd}<b>", &[100], 0);
    broken["name_bytes"] = json!("a\\xff<b>");
    buffers.push(broken);
    let mut all = document(buffers, processes, &["<script>document.title='broken'</script>"]);
    all["host"]["hostname"] = json!("<i>host</i>");
    snapshot_of(&all)
}

/// As many buffers, of 400 processes.
pub(super) fn large(number: u64) -> Snapshot {
    let mut numbers = Numbers(7);
    let names = [
        "compositor",
        "browser",
        "renderer",
        "camera",
        "player",
        "database",
        "builder",
        "agent",
        "indexer",
        "model",
    ];
    let processes: Vec<Value> = (0..400)
        .map(|nth| {
            process(
                1000 + nth,
                names[(nth % 10) as usize],
                &format!("/system.slice/unit-{}.service", nth % 40),
            )
        })
        .collect();
    let kinds = ["dmabuf", "memfd", "memfd", "tmpfs", "sysv", "shm-anon", "gem-shmem"];
    let exporters = ["system", "i915", "amdgpu", "udmabuf", "vc4"];
    let buffers = (0..number).map(|nth| {
        let kind = kinds[numbers.next(7) as usize];
        let size = 4096 << (numbers.next(9) + numbers.next(7));
        let holders = 1 + u64::from(numbers.next(3) == 0) * (1 + numbers.next(3));
        let first = numbers.next(400);
        let pids: Vec<u64> = (0..holders).map(|other| 1000 + (first + 37 * other) % 400).collect();
        let mut one = buffer(
            kind,
            10_000 + nth,
            size,
            &format!("pool-{}-{nth}", numbers.next(50)),
            &pids,
            numbers.next(3),
        );
        if kind == "dmabuf" {
            one["exporter"] = json!(exporters[numbers.next(5) as usize]);
        }
        if nth % 3 == 0 {
            let calls = [format!("allocate_{}", nth % 29), format!("stage_{}", nth % 11), "main".to_owned()];
            let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
            one["origin"] = made(
                names[(first % 10) as usize],
                1000 + first,
                &calls,
                &["shmem_get_inode", "entry_SYSCALL_64"],
            );
        }
        one
    });
    snapshot_of(&document(buffers.collect(), processes, &[]))
}

/// The desktop over two hours, in which the video call leaks a frame now and then.
pub(super) fn recorded() -> PageData {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_809_600);
    let mut recorder = Recorder::in_memory().unwrap();
    let mut numbers = Numbers(3);
    for minute in 0..120_u64 {
        let mut snapshot = small();
        let mut more: Vec<Value> = (0..minute / 2)
            .map(|nth| buffer("dmabuf", 5000 + nth, 3 * MIB, &format!("call-frame-{nth}"), &[4711], 0))
            .collect();
        let pool = 8 + numbers.next(12);
        more.extend(
            (0..pool)
                .map(|nth| buffer("memfd", 9000 + minute / 3 * 40 + nth, 2 * MIB, "/memfd:tile", &[2260], 0)),
        );
        if (40..80).contains(&minute) {
            more.push(buffer("hugetlbfs", 8000, 256 * MIB, "/dev/hugepages/model", &[4100], 0));
        }
        let more = snapshot_of(&document(more, programs(), &[]));
        snapshot.buffers.extend(more.buffers);
        snapshot.taken_at = start + Duration::from_secs(60 * minute);
        recorder.append_at(snapshot, Duration::from_secs(1000 + 60 * minute)).unwrap();
    }
    let recording = recorder.finish().unwrap();
    let (first, last) = recording.span().unwrap().unwrap();
    let course = recording.course(first, last, 600, |_| true).unwrap();
    let suspects = recording.suspects(first, last, |_| true).unwrap();
    let snapshot = recording.snapshot(last.id).unwrap();
    let ledger = Ledger::of(&snapshot);
    let view = View::all(&ledger);
    PageData::new(&view).unwrap().over_time(&view, &course, &suspects).unwrap()
}

/// A page in which each text that a process, a user or an administrator chooses is a mark, with the
/// marks.
pub(super) fn marked() -> (PageData, Vec<String>) {
    let mut marks = Vec::new();
    let mut mark = |what: &str| {
        marks.push(format!("mark{}{what}", marks.len()));
        marks.last().cloned().unwrap()
    };
    let comm = mark("comm");
    let mut one = process(4_171_717, &comm, &format!("/{}", mark("cgroup")));
    one["uid"] = json!(7_171_717);
    one["details"] = json!({
        "args": [mark("arg"), format!("--password={}", mark("secret"))], "args_whole": true,
        "exe": format!("/opt/{}", mark("exe")), "user": mark("user"), "fd_limit": 1024, "rss_shmem": 0, "parent": 3_171_717,
        "workload": {
            "unit": mark("unit"), "container": mark("container"),
            "pod": { "uid": mark("poduid"), "namespace": mark("namespace"), "name": mark("podname") },
        },
    });
    let name = mark("name");
    let mut shared = buffer("memfd", 1, 4096, &format!("/memfd:{name}"), &[4_171_717], 1);
    shared["candidates"] = json!([4_171_717]);
    shared["creator_uid"] = json!(7_171_717);
    shared["kernel_holders"] = json!([{ "what": "overlay", "name": format!("/mnt/{}", mark("overlay")), "pid": 4_171_717, "proven": true }]);
    let function = mark("function");
    let mut origin = made(&comm, 4_171_717, &[&function], &["shmem_get_inode"]);
    origin["thread"] = json!(mark("thread"));
    origin["uid"] = json!(7_171_717);
    origin["stack"]["user"][0]["module"] = json!(mark("module"));
    origin["stack"]["user"][0]["build_id"] = json!("5ec3e7".repeat(6) + "5ec3");
    origin["stack"]["user"][0]["functions"][0]["file"] = json!(format!("/src/{}.c", mark("file")));
    origin["client"] = json!({
        "state": "received", "after_boot_ns": 5, "at": null, "pid": 2_171_717, "started_ns": 1,
        "command": mark("client"), "uid": 7_171_717, "cgroup_id": 1_717_171,
    });
    shared["origin"] = origin;
    shared["payers"] = json!({
        "cgroups": [{ "cgroup": format!("/{}", mark("payer")), "id": 1_717_171, "unified": true, "removed": false, "bytes": 4096 }],
        "nobody": 0, "swapped": 0, "unknown": 0,
    });
    let mut lost = buffer("dmabuf", 2, 4096, "x\u{fffd}", &[4_171_717], 1);
    lost["name_bytes"] = json!(format!("x\\xff{}", mark("bytes")));
    lost["handles"] = json!([{ "pid": 4_171_717, "comm": comm, "handle": 1, "imported": true }]);
    lost["attachments"] = json!([mark("attachment")]);
    let mut segment = buffer("sysv", 3, 4096, "0x5ec3e7", &[4_171_717], 0);
    segment["segment"] = json!({
        "key": 0x5ec3e7, "owner": 7_171_717, "creator_pid": 5_171_717, "creator_comm": mark("creator"), "last_pid": 5_171_717,
        "last_comm": mark("last"), "attached": 1, "removed": false, "rss": 0, "swap": 0,
        "reached_path": format!("/run/{}", mark("reached")), "remove_command": null,
    });
    let note = format!("process 4171717 of {comm} at /run/{} has /memfd:{name}", mark("note"));
    let mut all = document(vec![shared, lost, segment], vec![one], &[&note]);
    all["host"]["hostname"] = json!(mark("host"));
    all["host"]["boot_id"] = json!(mark("boot"));
    all["devices"] = json!([{
        "path": format!("/dev/{}", mark("device")), "name": mark("devicename"),
        "holders": [{ "pid": 4_171_717, "comm": comm, "fds": [1] }],
    }]);
    marks.extend(
        ["4171717", "7171717", "3171717", "2171717", "1717171", "5171717", "5ec3e7", "6210535"]
            .map(str::to_owned),
    );
    let mut recorder = Recorder::in_memory().unwrap();
    let snapshot = snapshot_of(&all);
    for nth in 0..2 {
        recorder.append_at(snapshot.clone(), Duration::from_secs(nth)).unwrap();
    }
    let recording = recorder.finish().unwrap();
    let (first, last) = recording.span().unwrap().unwrap();
    let course = recording.course(first, last, 600, |_| true).unwrap();
    let suspects = recording.suspects(first, last, |_| true).unwrap();
    let ledger = Ledger::of(&snapshot);
    let view = View::all(&ledger);
    (PageData::new(&view).unwrap().over_time(&view, &course, &suspects).unwrap(), marks)
}
