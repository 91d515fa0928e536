//! What is known of the buffers of a trace: what an event does not tell any more was told by those
//! before it.

use std::collections::HashMap;

use crate::kernel::bpf::tracing::EventObject;
use crate::kernel::magic;
use crate::kernel::shmem::name::{Filesystem, of_kernel_file};
use crate::model::{Bytes, Dev, Inode, Kind, Label, TraceKey, TracedBuffer};

/// The buffers that live, as far as events have told.
#[derive(Debug, Default)]
pub(super) struct KnownBuffers(HashMap<TraceKey, TracedBuffer>);

impl KnownBuffers {
    /// The buffer of an event. `is_freed`: it is gone afterwards.
    pub(super) fn describe(&mut self, object: EventObject, is_freed: bool) -> TracedBuffer {
        let key = TraceKey(object.key);
        let before = if is_freed { self.0.remove(&key) } else { None };
        if object.is_dmabuf {
            let buffer = of_dmabuf(key, object, before);
            return self.keep(buffer, is_freed);
        }
        if is_freed {
            let (size, memory) = (Bytes(object.size), Bytes(object.memory));
            return match before {
                Some(before) => TracedBuffer { size, memory, ..before },
                // Its name is gone, and with it the kind.
                None => TracedBuffer { kind: None, name: None, ..of_file(key, object, None) },
            };
        }
        let before = self.0.get(&key);
        let buffer = of_file(key, object, before);
        self.keep(buffer, is_freed)
    }

    fn keep(&mut self, buffer: TracedBuffer, is_freed: bool) -> TracedBuffer {
        if !is_freed {
            self.0.insert(buffer.key, buffer.clone());
        }
        buffer
    }
}

fn of_dmabuf(key: TraceKey, object: EventObject, before: Option<TracedBuffer>) -> TracedBuffer {
    let ino = Some(object.ino).filter(|ino| *ino != Inode(0)).or(before.and_then(|before| before.ino));
    TracedBuffer {
        key,
        kind: Some(Kind::DmaBuf),
        dev: None,
        ino,
        ipc: None,
        size: Bytes(object.size),
        memory: Bytes(object.size),
        name: filled(object.name),
        name_cut: false,
        exporter: filled(object.exporter),
    }
}

fn of_file(key: TraceKey, object: EventObject, before: Option<&TracedBuffer>) -> TracedBuffer {
    let filesystem = match (object.magic, object.no_folder) {
        (magic::TMPFS, true) => Some(Filesystem::Kernel),
        (magic::TMPFS, false) => Some(Filesystem::Tmpfs),
        (magic::HUGETLBFS, true) => Some(Filesystem::KernelHuge),
        (magic::HUGETLBFS, false) => Some(Filesystem::Hugetlbfs),
        (magic::SECRETMEM, _) => Some(Filesystem::Secret),
        (magic::GUEST_MEMFD, _) => Some(Filesystem::Guest),
        _ => None,
    };
    let (kind, name) = match filesystem {
        None => (None, None),
        Some(filesystem) => match filesystem.only_kind() {
            Some(kind @ (Kind::Tmpfs | Kind::Hugetlbfs)) => (Some(kind), filled(object.name)),
            Some(kind) => (Some(kind), None),
            None => {
                let named = of_kernel_file(filesystem, object.name.as_bytes());
                (Some(named.kind), filled(Label::from(named.name)))
            }
        },
    };
    TracedBuffer {
        key,
        kind,
        dev: Some(object.dev).filter(|dev| *dev != Dev { major: 0, minor: 0 }),
        ino: Some(object.ino),
        ipc: object.ipc.or(before.and_then(|before| before.ipc)),
        size: Bytes(object.size),
        memory: Bytes(object.memory),
        name,
        name_cut: object.name_cut,
        exporter: None,
    }
}

fn filled(text: Label) -> Option<Label> {
    Some(text).filter(|text| !text.as_bytes().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, magic: i64, no_folder: bool) -> EventObject {
        EventObject {
            key: 1,
            is_dmabuf: false,
            magic,
            no_folder,
            dev: Dev { major: 0, minor: 1 },
            ino: Inode(5),
            ipc: None,
            size: 0,
            memory: 0,
            name: name.into(),
            name_cut: false,
            exporter: "".into(),
        }
    }

    /// Check that the kind follows from the filesystem and the name, and that only the kernel's own
    /// names count.
    #[test]
    fn kinds() {
        for (name, magic, no_folder, kind, shown) in [
            ("memfd:x", magic::TMPFS, true, Kind::Memfd, Some("x")),
            ("memfd:x", magic::TMPFS, false, Kind::Tmpfs, Some("memfd:x")),
            ("SYSV0000002a", magic::TMPFS, true, Kind::Sysv, Some("0000002a")),
            ("dev/zero", magic::TMPFS, true, Kind::ShmAnon, None),
            ("drm mm object", magic::TMPFS, true, Kind::GemShmem, Some("drm mm object")),
            ("anon_hugepage", magic::HUGETLBFS, true, Kind::ShmAnon, None),
            ("big", magic::HUGETLBFS, false, Kind::Hugetlbfs, Some("big")),
            ("secretmem", magic::SECRETMEM, true, Kind::Secretmem, None),
        ] {
            let buffer = KnownBuffers::default().describe(file(name, magic, no_folder), false);
            assert_eq!((buffer.kind, buffer.name), (Some(kind), shown.map(Label::from)), "{name}");
        }
    }

    /// Check that at its end a buffer has the name and kind that it had before, and that one which
    /// was never seen has none.
    #[test]
    fn freed() {
        let mut known = KnownBuffers::default();
        known.describe(file("memfd:x", magic::TMPFS, true), false);
        let end = || EventObject { size: 64, ..file("", magic::TMPFS, false) };
        let buffer = known.describe(end(), true);
        assert_eq!((buffer.kind, buffer.name, buffer.size), (Some(Kind::Memfd), Some("x".into()), Bytes(64)));
        let buffer = known.describe(end(), true);
        assert_eq!((buffer.kind, buffer.name, buffer.size), (None, None, Bytes(64)));
    }

    /// Check that a dma-buf keeps its inode number when the kernel does not tell it any more.
    #[test]
    fn freed_dmabuf() {
        let mut known = KnownBuffers::default();
        let dmabuf = |ino| EventObject { is_dmabuf: true, ino: Inode(ino), ..file("", 0, false) };
        known.describe(dmabuf(5), false);
        assert_eq!(known.describe(dmabuf(0), true).ino, Some(Inode(5)));
        assert_eq!(known.describe(dmabuf(0), true).ino, None);
    }
}
