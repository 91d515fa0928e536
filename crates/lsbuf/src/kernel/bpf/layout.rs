//! The layout of the records that the BPF programs write: structures, field by field, with the
//! names that they have in `bpf/*.h` and `bpf/*.bpf.c`.
//!
//! A test compares the structures with the type information of the compiled objects, so the
//! programs and this parser cannot differ. It does not compare the meaning of flags in a field;
//! [`super::record`] lists those beside each parser.

use crate::kernel::parse::Malformed;

/// A value that can be read from bytes.
pub(super) trait Field: Sized {
    /// Reads the value at the start of `bytes`.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Field for u32 {
    fn read(bytes: &[u8]) -> Option<u32> {
        bytes.first_chunk().copied().map(u32::from_ne_bytes)
    }
}

impl Field for i32 {
    fn read(bytes: &[u8]) -> Option<i32> {
        bytes.first_chunk().copied().map(i32::from_ne_bytes)
    }
}

impl Field for u64 {
    fn read(bytes: &[u8]) -> Option<u64> {
        bytes.first_chunk().copied().map(u64::from_ne_bytes)
    }
}

impl<const N: usize> Field for [u8; N] {
    fn read(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.first_chunk().copied()
    }
}

/// A structure that fills a record, or all of it but a text at the end.
pub(super) trait Whole: Field {
    /// Reads a record that consists of the structure alone.
    fn only(record: &[u8]) -> Result<Self, Malformed> {
        let (whole, rest) = Self::and_text(record)?;
        if rest.is_empty() { Ok(whole) } else { Err(Malformed) }
    }

    /// Reads a record that consists of the structure and a text after it.
    fn and_text(record: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (whole, text) = record.split_at_checked(size_of::<Self>()).ok_or(Malformed)?;
        Ok((Self::read(whole).ok_or(Malformed)?, text))
    }
}

/// A structure as the test compares it: name, size, and each field with its offset and size.
#[cfg(test)]
#[cfg(feature = "bpf")]
pub(super) type Structure = (&'static str, usize, &'static [(&'static str, usize, usize)]);

/// Declares structures, each with its name in C. The name of a field that is not read begins with
/// `_`.
macro_rules! structures {
    ($all:ident: $($name:ident, $in_c:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub(super) struct $name {
                $(pub(super) $field: $type,)*
            }

            impl Field for $name {
                fn read(bytes: &[u8]) -> Option<$name> {
                    Some($name {
                        $($field: Field::read(bytes.get(std::mem::offset_of!($name, $field)..)?)?,)*
                    })
                }
            }

            impl Whole for $name {}
        )*

        #[cfg(test)]
        #[cfg(feature = "bpf")]
        pub(super) const $all: &[Structure] = &[$((
            $in_c,
            size_of::<$name>(),
            &[$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$type>()),)*],
        ),)*];
    };
}

structures! { STRUCTURES:
    Head, "head" {
        kind: u32,
        size: u32,
    }
    Task, "task" {
        _head: Head,
        mm: u64,
        files: u64,
        started: u64,
        cgroup: u64,
        program: u64,
        locked_pages: u64,
        tgid: u32,
        tid: u32,
        uid: u32,
        state: u32,
        ipc: u32,
        mm_writes: u32,
        mounts: u32,
        mounts_count: u32,
        ipc_count: u32,
        _unused: u32,
        comm: [u8; 16],
    }
    Fd, "fd" {
        _head: Head,
        ino: u64,
        count: u64,
        files: u64,
        program: u64,
        tgid: u32,
        tid: u32,
        fd: u32,
        path_only: u32,
    }
    Buffer, "buffer" {
        _head: Head,
        ino: u64,
        size: u64,
        count: u64,
        count_after: u64,
        changed: u64,
        modified: u64,
        dev: u32,
        uid: u32,
        flags: u32,
        changed_ns: u32,
        modified_ns: u32,
        _unused: u32,
        exporter: [u8; 64],
        name: [u8; 32],
    }
    Attachment, "attachment" {
        _head: Head,
        name: [u8; 64],
    }
    Range, "range" {
        mm: u64,
        start: u64,
        end: u64,
        pgoff: u64,
        tgid: u32,
        flags: u32,
    }
    Vma, "vma" {
        _head: Head,
        ino: u64,
        range: Range,
    }
    DeviceFd, "device_fd" {
        _head: Head,
        program: u64,
        tgid: u32,
        fd: u32,
        rdev: u32,
        _unused: u32,
    }
    InFlight, "in_flight" {
        _head: Head,
        ino: u64,
        socket: u64,
        _tgid: u32,
        tid: u32,
        fd: u32,
        _unused: u32,
    }
    Keeper, "keeper" {
        _head: Head,
        ino: u64,
        tgid: u32,
        tid: u32,
        fd: u32,
        what: u32,
    }
    End, "end" {
        _head: Head,
        _count: u64,
    }
    ShmInode, "shm_inode" {
        _head: Head,
        object: u64,
        ino: u64,
        size: u64,
        blocks: u64,
        pages: u64,
        swapped: u64,
        magic: u64,
        created: u64,
        opens: u64,
        created_ns: u32,
        dev: u32,
        uid: u32,
        links: u32,
        block_bits: u32,
        seals: u32,
        pins: u32,
        flags: u32,
    }
    ShmFd, "shm_fd" {
        _head: Head,
        object: u64,
        file: u64,
        count: u64,
        files: u64,
        program: u64,
        tgid: u32,
        tid: u32,
        fd: u32,
        path_only: u32,
    }
    ShmVma, "shm_vma" {
        _head: Head,
        object: u64,
        file: u64,
        count: u64,
        range: Range,
        ipc: u32,
        _unused: u32,
    }
    ShmInFlight, "shm_in_flight" {
        _head: Head,
        object: u64,
        file: u64,
        count: u64,
        socket: u64,
        _tgid: u32,
        tid: u32,
        fd: u32,
        path_only: u32,
    }
    ShmExe, "shm_exe" {
        _head: Head,
        mm: u64,
        object: u64,
        file: u64,
        count: u64,
    }
    Unlisted, "unlisted" {
        files: u64,
        pages: u64,
        swapped: u64,
        other_pages: u64,
        uses: u64,
    }
    ShmFilesystem, "shm_filesystem" {
        _head: Head,
        filesystem: u64,
        magic: u64,
        unlisted: Unlisted,
        dev: u32,
        kernels: u32,
        mounts: u32,
        active: u32,
        namespace: u32,
        elsewhere: u32,
    }
    ShmWalk, "shm_walk" {
        _head: Head,
        inodes_cut: u32,
        mappings_cut: u32,
        repeated: u32,
        _unused: u32,
    }
    ShmCgroup, "shm_cgroup" {
        _head: Head,
        cgroup: u64,
        hierarchy: u32,
        removed: u32,
    }
    Payer, "payer" {
        cgroup: u64,
        pages: u64,
    }
    ShmPages, "shm_pages" {
        _head: Head,
        object: u64,
        others: u64,
        in_swap: u64,
        nobodys: u64,
        lost: u64,
        payers: u64,
    }
    SyncFd, "sync_fd" {
        _head: Head,
        program: u64,
        files: u64,
        tgid: u32,
        _tid: u32,
        fd: u32,
        _unused: u32,
    }
    MemfdPages, "memfd_pages" {
        _head: Head,
        ino: u64,
        pages: u64,
        dev: u32,
        untold: u32,
    }
    GemFile, "gem_file" {
        _head: Head,
        ino: u64,
        dev: u32,
        _unused: u32,
    }
    Run, "run" {
        _head: Head,
        runtime: u64,
        switches: u64,
        tgid: u32,
        tid: u32,
        call: i32,
        flags: u32,
    }
    Origin, "origin" {
        _head: Head,
        ino: u64,
        born: u64,
        started: u64,
        cgroup: u64,
        dev: u32,
        what: u32,
        tgid: u32,
        tid: u32,
        uid: u32,
        task_flags: u32,
        kernel_bytes: i32,
        user_bytes: i32,
        ipc: u32,
        flags: u32,
        comm: [u8; 16],
        thread: [u8; 16],
        client: ClientRow,
    }
    ClientRow, "client" {
        started: u64,
        cgroup: u64,
        received: u64,
        state: u32,
        tgid: u32,
        _tid: u32,
        uid: u32,
        comm: [u8; 16],
    }
    OriginCounts, "origin_counts" {
        _head: Head,
        counts: Counts,
        about: AboutRecorder,
    }
    Counts, "counts" {
        births: u64,
        deaths: u64,
        full: u64,
    }
    AboutRecorder, "about" {
        since: u64,
        since_wall: u64,
        most: u32,
        watched: u32,
    }
    UserFrame, "user_frame" {
        status: i32,
        build_id: [u8; 20],
        place: u64,
    }
}

// Of a trace.
#[cfg(feature = "bpf")]
structures! { TRACE_STRUCTURES:
    Event, "event" {
        _head: Head,
        at: u64,
        object: u64,
        ino: u64,
        size: u64,
        memory: u64,
        started: u64,
        cgroup: u64,
        start: u64,
        length: u64,
        lost: u64,
        from_started: u64,
        what: u32,
        of: u32,
        flags: u32,
        magic: u32,
        dev: u32,
        ipc: u32,
        tgid: u32,
        tid: u32,
        uid: u32,
        task_flags: u32,
        fd: i32,
        protection: u32,
        sharing: u32,
        kernel_bytes: i32,
        user_bytes: i32,
        _unused: u32,
        way: u32,
        from: u32,
        comm: [u8; 16],
        thread: [u8; 16],
        from_comm: [u8; 16],
        name: [u8; 128],
        exporter: [u8; 64],
        device: [u8; 64],
    }
    EventStacks, "event_stacks" {
        event: Event,
        kernel: [u8; 24 * 8],
        user: [u8; 48 * 32],
    }
    EventCopied, "event_copied" {
        stacks: EventStacks,
        registers: [u8; 34 * 8],
        start_stack: u64,
        start_code: u64,
        copied_from: u64,
        copied: u32,
        _unused: u32,
        copy: [u8; 32 << 10],
    }
    Losses, "losses" {
        ring: u64,
        map: u64,
    }
}

/// Declares the numbers of an enumeration in C.
macro_rules! kinds {
    ($all:ident: $($name:ident = $number:literal,)*) => {
        $(pub(super) const $name: u32 = $number;)*

        #[cfg(test)]
        #[cfg(feature = "bpf")]
        pub(super) const $all: &[(&str, u32)] = &[$((stringify!($name), $number),)*];
    };
}

// `enum kind`.
kinds! { KINDS:
    TASK = 1,
    FD = 2,
    BUFFER = 3,
    ATTACHMENT = 4,
    VMA = 5,
    DEVICE = 6,
    IN_FLIGHT = 7,
    KEEPER = 8,
    END = 9,
    SHM_INODE = 10,
    SHM_FD = 11,
    SHM_VMA = 12,
    SHM_IN_FLIGHT = 13,
    SYNC_FILE = 14,
    MEMFD_PAGES = 15,
    RUN = 16,
    SHM_EXE = 17,
    SHM_FILESYSTEM = 18,
    SHM_WALK = 19,
    GEM_FILE = 20,
    SHM_CGROUP = 21,
    SHM_PAGES_OF = 22,
}

// `enum origin_kind`.
kinds! { ORIGIN_KINDS:
    ORIGIN = 1,
    ORIGIN_USER = 2,
    ORIGIN_KERNEL = 3,
    ORIGIN_COUNTS = 4,
}

// `enum trace_kind`.
#[cfg(feature = "bpf")]
kinds! { TRACE_KINDS:
    EVENT = 1,
}

// `enum event_what`.
#[cfg(feature = "bpf")]
kinds! { EVENT_WHATS:
    EVENT_MADE = 1,
    EVENT_FD = 2,
    EVENT_MAPPED = 3,
    EVENT_ATTACHED = 4,
    EVENT_DETACHED = 5,
    EVENT_RENAMED = 6,
    EVENT_FREED = 7,
}

#[cfg(test)]
#[cfg(feature = "bpf")]
mod tests {
    use std::collections::HashSet;

    use aya_obj::Object;

    use super::*;
    use crate::kernel::bpf::{Iterator, recorder, tracing};
    use crate::kernel::btf;

    /// Check that the structures have no padding, which the programs would leave unset.
    #[test]
    fn without_holes() {
        for &(name, size, fields) in STRUCTURES.iter().chain(TRACE_STRUCTURES) {
            let end = fields.iter().fold(0, |end, &(field, at, size)| {
                assert_eq!(end, at, "{name}.{field}");
                at + size
            });
            assert_eq!(end, size, "{name}");
        }
    }

    /// Check that in the compiled programs every structure has the same fields with the same
    /// offsets and sizes as here, and the kinds have the same numbers; and that neither side has
    /// more.
    #[test]
    fn same_as_in_the_programs() {
        let mut seen = HashSet::new();
        let iterators = Iterator::ALL.map(|iterator| (iterator.name(), iterator.object()));
        let [recorder, trace] = ["the flight recorder", "a trace"];
        let others = [(recorder, recorder::object()), (trace, tracing::object())];
        for (of, object) in iterators.into_iter().chain(others) {
            let types = Object::parse(object).unwrap().btf.unwrap().to_bytes();
            for (name, numbers, only) in [
                ("kind", KINDS, None),
                ("origin_kind", ORIGIN_KINDS, Some(recorder)),
                ("trace_kind", TRACE_KINDS, Some(trace)),
                ("event_what", EVENT_WHATS, Some(trace)),
            ] {
                let Some(declared) = btf::enumerators(&types, name).unwrap() else {
                    assert!(only.is_some_and(|only| of != only), "{of} lacks {name}");
                    continue;
                };
                let declared: Vec<(&str, u32)> =
                    declared.iter().map(|(name, n)| (name.as_str(), *n)).collect();
                assert_eq!(declared, numbers, "{of}");
            }
            for &(name, size, fields) in STRUCTURES.iter().chain(TRACE_STRUCTURES) {
                let Some(declared) = btf::layout(&types, name).unwrap() else { continue };
                let fields = fields.iter().map(|&(field, at, size)| {
                    (field.trim_start_matches('_').to_owned(), at as u32, size as u32)
                });
                let here = (size as u32, fields.collect::<Vec<_>>());
                assert_eq!(declared, here, "{name} of {of}");
                seen.insert(name);
            }
        }
        let missing: Vec<&str> = STRUCTURES
            .iter()
            .chain(TRACE_STRUCTURES)
            .map(|&(name, ..)| name)
            .filter(|name| !seen.contains(name))
            .collect();
        assert!(missing.is_empty(), "in no program: {missing:?}");
    }
}
