//! The list of the programs of a trace: at which functions of the kernel they run, and what is not
//! seen where one of them cannot.

use super::super::sys::Attached;

/// The most copies of a program that are attached. A kernel that preempts itself skips a program as
/// long as a task that was running it is off the processor. With several copies, as many tasks may
/// be.
pub(super) const MOST_COPIES: u32 = 4;

/// The copies of a program that runs seldom. Each copy takes time to load and to attach.
const FEW_COPIES: u32 = 2;

/// A program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// Its name in the object.
    pub(super) program: &'static str,
    /// The function of the kernel at which it runs.
    pub(super) function: &'static str,
    pub(super) at: Attached,
    /// What is not seen without it.
    pub(super) sees: &'static str,
    /// A kernel without the function needs no such program.
    pub(super) may_lack: bool,
    /// The constant that says how many arguments the function has, if that differs.
    pub(super) arguments: Option<&'static str>,
    /// How many copies of it are attached.
    pub(super) copies: u32,
}

const fn entry(program: &'static str, function: &'static str, sees: &'static str) -> Hook {
    Hook {
        program,
        function,
        at: Attached::Entry,
        sees,
        may_lack: false,
        arguments: None,
        copies: FEW_COPIES,
    }
}

const fn exit(program: &'static str, function: &'static str, sees: &'static str) -> Hook {
    Hook { program, function, at: Attached::Exit, sees, may_lack: false, arguments: None, copies: FEW_COPIES }
}

impl Hook {
    const fn counting(self, arguments: &'static str) -> Hook {
        Hook { arguments: Some(arguments), ..self }
    }

    const fn often(self) -> Hook {
        Hook { copies: MOST_COPIES, ..self }
    }
}

const SENDERS: &str = "from whom the fds of messages come";

/// All of them, in the order in which they are attached: the end of a buffer is noticed before its
/// begin is, and from whom an fd comes before the fd.
pub(crate) const HOOKS: [Hook; 28] = [
    entry("trace_forked", "wake_up_new_task", "processes that a command starts"),
    entry("trace_dmabuf_closed", "dma_buf_file_release", "the inodes of dma-bufs that are freed").often(),
    entry("trace_dmabuf_freed", "dma_buf_release", "dma-bufs that are freed").often(),
    entry("trace_file_freed", "shmem_evict_inode", "shared memory that is freed").often(),
    entry("trace_huge_freed", "hugetlbfs_evict_inode", "huge pages that are freed"),
    exit("trace_renamed", "dma_buf_ioctl", "new names of dma-bufs"),
    entry("trace_detached", "dma_buf_detach", "detachments from devices"),
    exit("trace_attached", "dma_buf_dynamic_attach", "attachments to devices"),
    exit("trace_node_mapped", "dma_buf_mmap", "mappings of dma-bufs through a device node"),
    exit("trace_segment_mapped", "security_mmap_file", "mappings of System V segments").often(),
    exit("trace_file_mapped", "vm_mmap_pgoff", "mappings").often(),
    exit("list_copied", "scm_fp_dup", SENDERS),
    // A kernel without the function copies the list when it is sent, which the one above sees.
    Hook { may_lack: true, ..entry("list_queued", "unix_prepare_fpl", SENDERS) },
    entry("list_freed", "__scm_destroy", SENDERS),
    exit("list_arrived", "scm_detach_fds", SENDERS),
    entry("list_arrives", "scm_detach_fds", SENDERS),
    exit("file_was_taken", "pidfd_getfd", "from whom an fd was taken"),
    entry("file_taken", "pidfd_getfd", "from whom an fd was taken"),
    entry("trace_received", "security_file_receive", "fds that are received in other ways"),
    exit("trace_fd_replaced", "do_dup2", "fds that dup2 makes"),
    entry("trace_fd_installed", "fd_install", "fds").often(),
    exit("trace_unnamed_made", "shmem_tmpfile", "births of files without a name (O_TMPFILE)")
        .counting("tmpfile_arguments"),
    exit("trace_huge_named_made", "hugetlbfs_mknod", "births of files on hugetlbfs")
        .counting("huge_mknod_arguments"),
    exit("trace_named_made", "shmem_mknod", "births of files on tmpfs").counting("mknod_arguments").often(),
    exit("trace_segment_made", "newseg", "births of System V segments"),
    exit("trace_huge_made", "hugetlb_file_setup", "births of huge memfds and segments")
        .counting("huge_setup_arguments"),
    exit("trace_file_made", "__shmem_file_setup", "births of memfds and shared anonymous memory")
        .counting("setup_arguments")
        .often(),
    exit("trace_dmabuf_made", "dma_buf_export", "births of dma-bufs").often(),
];
