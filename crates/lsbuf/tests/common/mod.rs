//! Builds a recorded tree of a procfs and a sysfs by hand, for tests that need no kernel.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses its part, and fails where a part fails"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use lsbuf::model::Snapshot;
use lsbuf::scan::Options;

/// The mount of every dma-buf in these trees, as fdinfo shows it.
const MNT_ID: u64 = 10;

/// The tree; removed when dropped.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
    bufinfo: Vec<u8>,
    listed: (u64, u64),
}

impl Tree {
    /// A machine without dma-bufs. It has a kernel thread, so that it counts as the whole machine.
    pub(crate) fn new() -> Tree {
        let tree = Tree {
            dir: tempfile::tempdir().unwrap(),
            bufinfo: b"\nDma-buf Objects:\n".to_vec(),
            listed: (0, 0),
        };
        tree.write("proc/sys/kernel/osrelease", b"7.2.0-test\n");
        tree.write("proc/sys/kernel/hostname", b"box\n");
        tree.write("proc/sys/kernel/random/boot_id", b"00000000-0000-4000-8000-000000000000\n");
        tree.write("proc/.lsbuf/dmabuf-dev", b"0:12\n");
        tree.write("proc/.lsbuf/shared", b"");
        tree.write("proc/2/stat", b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0");
        fs::create_dir_all(tree.path("proc/2/fd")).unwrap();
        tree.write("proc/2/maps", b"");
        tree
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn write(&self, below: &str, text: &[u8]) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A process without mappings and fds.
    pub(crate) fn process(&self, pid: u32, comm: &[u8]) {
        let after = b") S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        self.write(&format!("proc/{pid}/stat"), &[format!("{pid} (").as_bytes(), comm, after].concat());
        self.write(&format!("proc/{pid}/status"), b"Name:\tx\nUid:\t1000\t1000\t1000\t1000\n");
        self.write(&format!("proc/{pid}/cgroup"), b"0::/user.slice\n");
        fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
        self.write(&format!("proc/{pid}/maps"), b"");
    }

    /// An fd with any link and fdinfo.
    pub(crate) fn fd(&self, pid: u32, fd: u32, link: &[u8], fdinfo: &[u8]) {
        self.link(&format!("proc/{pid}/fd/{fd}"), link);
        self.write(&format!("proc/{pid}/fdinfo/{fd}"), fdinfo);
    }

    /// An fd of shared memory, and what its inode tells: `MAJOR:MINOR INO SIZE BLOCKS LINKS PAGE
    /// UID`.
    pub(crate) fn shmem_fd(&self, pid: u32, fd: u32, link: &[u8], inode: &str) {
        self.fd(pid, fd, link, b"pos:\t0\nflags:\t02000002\nmnt_id:\t9\n");
        self.write(&format!("proc/{pid}/.lsbuf/fd/{fd}"), format!("shmem {inode}\n").as_bytes());
    }

    /// What the inode behind a mapping tells, in the same form.
    pub(crate) fn shmem_mapped(&self, pid: u32, range: &str, inode: &str) {
        self.write(&format!("proc/{pid}/.lsbuf/map_files/{range}"), format!("shmem {inode}\n").as_bytes());
    }

    /// Adds the devices of the kernel's own shmem mounts, and a mount of `/dev/shm` for these
    /// processes.
    pub(crate) fn with_shmem(&self, pids: &[u32]) {
        self.write("proc/.lsbuf/shmem", b"kernel 0:1\nhuge 0:17\nsecret 0:18\n");
        for pid in pids {
            let mounts = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n25 27 0:27 / /dev/shm rw - tmpfs tmpfs rw\n";
            self.write(&format!("proc/{pid}/mountinfo"), mounts);
        }
    }

    /// A symbolic link.
    pub(crate) fn link(&self, below: &str, target: &[u8]) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(OsStr::from_bytes(target), path).unwrap();
    }

    /// An fd of an unnamed dma-buf in a thread's own table.
    pub(crate) fn thread_fd(&self, pid: u32, tid: u32, fd: u32, ino: u64, size: u64, count: u64) {
        self.link(&format!("proc/{pid}/task/{tid}/fd/{fd}"), b"/dmabuf:");
        self.write(&format!("proc/{pid}/task/{tid}/fdinfo/{fd}"), &fdinfo(ino, size, count));
    }

    /// An fd of a dma-buf.
    pub(crate) fn dmabuf_fd(&self, pid: u32, fd: u32, ino: u64, name: &[u8], size: u64, count: u64) {
        let mut info = fdinfo(ino, size, count);
        if !name.is_empty() {
            info.extend_from_slice(&[b"name:\t", name, b"\n"].concat());
        }
        self.fd(pid, fd, &[b"/dmabuf:", name].concat(), &info);
    }

    /// An O_PATH fd of a dma-buf.
    pub(crate) fn opath_fd(&self, pid: u32, fd: u32, ino: u64) {
        self.fd(
            pid,
            fd,
            b"/dmabuf:",
            format!("pos:\t0\nflags:\t012000000\nmnt_id:\t{MNT_ID}\nino:\t{ino}\n").as_bytes(),
        );
    }

    /// The lines of a process's maps.
    pub(crate) fn maps(&self, pid: u32, lines: &[&str]) {
        self.write(&format!("proc/{pid}/maps"), format!("{}\n", lines.join("\n")).as_bytes());
    }

    /// A buffer in the kernel's list.
    pub(crate) fn listed(&mut self, ino: u64, name: &[u8], size: u64, count: u64, devices: &[&str]) {
        self.bufinfo.extend_from_slice(
            format!("{size:08}\t00000000\t00080007\t{count:08}\tsystem\t{ino:08}\t").as_bytes(),
        );
        self.bufinfo.extend_from_slice(name);
        self.bufinfo.extend_from_slice(b"\n\tAttached Devices:\n");
        for device in devices {
            self.bufinfo.extend_from_slice(format!("\t{device}\n").as_bytes());
        }
        self.bufinfo.extend_from_slice(format!("Total {} devices attached\n\n", devices.len()).as_bytes());
        self.listed = (self.listed.0 + 1, self.listed.1 + size);
    }

    /// Writes the kernel's list of the buffers so far.
    pub(crate) fn write_list(&self) {
        let (buffers, bytes) = self.listed;
        let closing = format!("\nTotal {buffers} objects, {bytes} bytes\n");
        self.write("sys/kernel/debug/dma_buf/bufinfo", &[&self.bufinfo, closing.as_bytes()].concat());
    }

    pub(crate) fn options(&self) -> Options {
        Options { proc_root: self.path("proc"), sys_root: Some(self.path("sys")), ..Options::default() }
    }

    pub(crate) fn scan(&self) -> Snapshot {
        self.write_list();
        lsbuf::scan(self.options()).unwrap()
    }
}

fn fdinfo(ino: u64, size: u64, count: u64) -> Vec<u8> {
    format!(
        "pos:\t0\nflags:\t02000002\nmnt_id:\t{MNT_ID}\nino:\t{ino}\nsize:\t{size}\ncount:\t{count}\nexp_name:\tsystem\n"
    )
    .into_bytes()
}
