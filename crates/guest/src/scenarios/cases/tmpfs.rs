//! Files in `/dev/shm`: leaked, left behind, charged to somebody else, guests' memory.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::chown;

use super::kit::{Program, borrowed, lines, own_dev_shm, row};
use crate::actor::{Actor, Held};
use crate::scenario::Ctx;
use crate::scenarios::shmem::kit::{file, page};
use crate::scenarios::shmem::payers::{enable_memory_controller, enter, settled_shmem_of};
use crate::sys::loops::LoopDevice;
use crate::sys::{self, page_size};

/// Case 1. Of two `python3`, one keeps 20 deleted files open and may have 64 fds.
pub(super) fn leaking_loader(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILES: usize = 20;
    own_dev_shm()?;
    let deleted = |nth: usize| {
        let path = format!("/dev/shm/torch_513_{nth}");
        let open = file(&path, 1)?;
        fs::remove_file(path)?;
        Ok(open)
    };
    let files = (0..FILES).map(deleted).collect::<anyhow::Result<Vec<_>>>()?;
    let loader = Program::start("python3", "train.py", &borrowed(&files))?;
    let server = Program::start("python3", "serve.py", &borrowed(&files[..1]))?;
    drop(files);
    loader.limit_fds(64)?;
    server.limit_fds(1024)?;
    let listed = lines("ps -n --kind tmpfs --sort FDS -o PID,COMMAND,FDS,NOFILE,ARGS")?;
    let expected = format!("{} python3 {FILES} 64 python3 wait train.py", loader.pid());
    ctx.check_eq("the process with the most fds", &expected, listed.first().map_or("none", |l| l))?;
    let expected = format!("{} python3 1 1024 python3 wait serve.py", server.pid());
    ctx.check_eq("the other one", expected, row(&listed, server.pid()))
}

/// Case 4. A publisher is killed and leaves two files. A subscriber holds a third one.
pub(super) fn left_behind(ctx: &mut Ctx) -> anyhow::Result<()> {
    own_dev_shm()?;
    let mut publisher = Actor::start(b"publisher", |stage| {
        let (port, segment) = (file("/dev/shm/fastrtps_port7410", 2)?, file("/dev/shm/fastrtps_0a1b", 8)?);
        chown("/dev/shm/fastrtps_0a1b", Some(1000), None)?;
        sys::map(&segment, 0, page_size())?;
        stage.pause(&[Held::by_file(&port)?, Held::by_file(&segment)?])
    })?;
    let mut subscriber = Actor::start(b"subscriber", |stage| {
        let port = file("/dev/shm/fastrtps_port7412", 4)?;
        stage.pause(&[Held::by_file(&port)?])
    })?;
    publisher.paused()?;
    subscriber.paused()?;
    let command = "ls -n --unheld --kind tmpfs --name /dev/shm/fastrtps* -o CHARGED,UID,SHAPE,NAME";
    ctx.check_eq("files that nobody holds, before", "[]", format!("{:?}", lines(command)?))?;
    drop(publisher);
    let shape = if ctx.way.is_bpf() { "unheld" } else { "~unheld" };
    let expected = [
        format!("{} 1000 {shape} /dev/shm/fastrtps_0a1b", 8 * page()),
        format!("{} 0 {shape} /dev/shm/fastrtps_port7410", 2 * page()),
    ];
    ctx.check_eq("files that nobody holds", format!("{expected:?}"), format!("{:?}", lines(command)?))
}

/// Case 5. A task of one cgroup writes a file and exits; a task of another one holds it.
pub(super) fn paid_by_the_writer(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILE: &str = "/dev/shm/emptydir";
    const WRITER: &str = "/sys/fs/cgroup/case5_writer";
    const READER: &str = "/sys/fs/cgroup/case5_reader";
    own_dev_shm()?;
    enable_memory_controller()?;
    let mut writer = Actor::start(b"writer", |stage| {
        enter(WRITER)?;
        drop(file(FILE, 40)?);
        stage.pause(&[])
    })?;
    writer.paused()?;
    drop(writer);
    let mut reader = Actor::start(b"reader", |stage| {
        enter(READER)?;
        let open = OpenOptions::new().read(true).open(FILE)?;
        stage.pause(&[Held::by_file(&open)?])
    })?;
    reader.paused()?;
    let listed = lines("ls -n --kind tmpfs --name /dev/shm/emptydir -o CHARGED,PAYER,HOLDERS")?;
    let expected = format!("[\"{} /case5_writer reader:{}(1f)\"]", 40 * page(), reader.pid);
    ctx.check_eq("who pays and who holds", expected, format!("{listed:?}"))?;
    ctx.check_eq("shmem of the writer's cgroup", 40 * page(), settled_shmem_of(WRITER, 40 * page())?)?;
    ctx.check_eq("shmem of the reader's cgroup", 0, settled_shmem_of(READER, 0)?)
}

/// Case 14. A loop device keeps a file that has no name any more.
pub(super) fn file_of_a_loop_device(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILE: &str = "/dev/shm/portable.img";
    own_dev_shm()?;
    let device = LoopDevice::of(file(FILE, 16)?)?;
    fs::remove_file(FILE)?;
    let listed = lines("ls -n --deleted --kind tmpfs -o CHARGED,NAME,HOLDERS")?;
    let expected = format!("[\"{} {FILE} {}\"]", 16 * page(), device.name);
    ctx.check_eq("deleted files", expected, format!("{listed:?}"))
}

/// Case 15. Three virtual machines, each with a deleted file for its memory.
pub(super) fn guests_memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    own_dev_shm()?;
    let mut machines = Vec::new();
    for (guest, pages) in [("guest=web", 64), ("guest=db", 128), ("guest=ci", 32)] {
        let path = format!("/dev/shm/qemu_back_mem.{pages}");
        let memory = file(&path, pages)?;
        fs::remove_file(path)?;
        machines.push((Program::start("qemu-system-x86", guest, &borrowed(&[memory]))?, guest, pages));
    }
    let listed = lines("ps -n --kind tmpfs -o PID,COMMAND,USS,ARGS")?;
    for (machine, guest, pages) in &machines {
        let (pid, uss) = (machine.pid(), pages * page());
        let expected = format!("{pid} qemu-system-x86 {uss} qemu-system-x86 wait {guest}");
        ctx.check_eq(format!("the machine {guest}"), expected, row(&listed, pid))?;
    }
    Ok(())
}
