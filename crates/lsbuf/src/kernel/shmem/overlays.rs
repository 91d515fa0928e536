//! Overlays with a layer on a tmpfs or hugetlbfs, and the files that processes have open through
//! them.
//!
//! A file that a process opens below the mount point of an overlay is a file of the overlay, with
//! the overlay's device. The overlay opens the file of one of its layers, which no fd shows. It
//! also keeps the dentry of each file that was looked up, open or not (`ovl_inode` in
//! fs/overlayfs/ovl_entry.h).
//!
//! The options of a mount name the layers (`ovl_show_options` in fs/overlayfs): `upperdir` and
//! `lowerdir`, from Linux 6.8 on also `lowerdir+` and `datadir+`. An fd's link shows the path below
//! the mount point. The file of a layer has the same path below that layer, unless it was renamed.
//! So a path makes a process a candidate, and proves nothing: the file may be in another layer, or
//! may have been copied up since.
//!
//! Limits: a layer is found by its path, as the processes see it that see the overlay. It is not
//! found if that path leads elsewhere by now, as after the root has been changed. At most
//! [`MOST_OVERLAYS`] of each mount table are looked at.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::rc::Rc;

use super::MountView;
use super::mounts::{self, Mounts};
use crate::kernel::fds::SlotReader;
use crate::kernel::process::ProcessDir;
use crate::kernel::read::LINK_ROOM;
use crate::kernel::root::ProcRoot;
use crate::model::{Dev, Label, Pid};

/// As many overlays of one mount table are looked at.
const MOST_OVERLAYS: usize = 256;

/// A file or folder: the device of its filesystem, and its path below the root of that.
pub(crate) type Place = (Dev, Vec<u8>);

/// An overlay with a layer in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// Its mount point.
    pub(crate) point: Label,
    /// Those of its layers that are in memory.
    layers: Vec<Place>,
}

impl Overlay {
    /// Whether it may have that file: the file is below one of its layers.
    pub(crate) fn may_have(&self, (dev, below): &Place) -> bool {
        let is_below = |folder: &[u8]| below.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"));
        self.layers.iter().any(|(of, folder)| of == dev && is_below(folder))
    }
}

/// A file that a process has open through an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenedThrough {
    pub(crate) pid: Pid,
    /// The path that its fd shows.
    pub(crate) path: Label,
    /// The file of each layer that it can be.
    pub(crate) files: Vec<Place>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Overlays {
    pub(crate) mounts: Vec<Overlay>,
    pub(crate) opened: Vec<OpenedThrough>,
}

/// What the processes of one mount namespace and root see.
#[derive(Debug, Default)]
struct View {
    mounts: Mounts,
    overlays: Vec<Overlay>,
}

impl Overlays {
    /// Reads the mount tables of all processes but these, and the fds of those that see such an
    /// overlay.
    pub(crate) fn read(root: &ProcRoot, without: &[Pid]) -> Overlays {
        let mut found = Overlays::default();
        let mut views: HashMap<MountView, Rc<View>> = HashMap::new();
        let mut slots = SlotReader::default();
        for (pid, _) in root.processes().unwrap_or_default() {
            if without.contains(&pid) {
                continue;
            }
            // A process that exits meanwhile, or refuses, adds nothing.
            let Ok(process) = ProcessDir::open(root, pid) else { continue };
            let Ok(view) = MountView::of(&process) else { continue };
            let view = views.entry(view).or_insert_with(|| {
                let view = View::of(&process);
                let new = view.overlays.iter().filter(|overlay| !found.mounts.contains(overlay));
                let new: Vec<Overlay> = new.cloned().collect();
                found.mounts.extend(new);
                Rc::new(view)
            });
            if !view.overlays.is_empty() {
                let view = Rc::clone(view);
                view.add_opened(&process, &mut slots, &mut found.opened);
            }
        }
        found
    }
}

impl View {
    fn of(process: &ProcessDir) -> View {
        let mut text = Vec::new();
        let read = process.dir().read_file(c"mountinfo", &mut text);
        let listed: Vec<_> = match read {
            Ok(()) => mounts::overlays(&text).take(MOST_OVERLAYS).collect(),
            Err(_) => return View::default(),
        };
        if listed.is_empty() {
            return View::default();
        }
        let mounts = Mounts::parse(&text);
        let overlay = |(point, options): (Vec<u8>, &[u8])| {
            let layers: Vec<Place> =
                layers(options).iter().filter_map(|path| mounts.place_of(path)).collect();
            (!layers.is_empty()).then(|| Overlay { point: Label::from(&point[..]), layers })
        };
        let overlays = listed.into_iter().filter_map(overlay).collect();
        View { mounts, overlays }
    }

    /// Adds the files that a process has open through these overlays.
    fn add_opened(&self, process: &ProcessDir, slots: &mut SlotReader, opened: &mut Vec<OpenedThrough>) {
        let Ok(table) = process.dir().folder(c"fd") else { return };
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        // What could be listed before an error is used.
        let _ = slots.each(&table, |entry| {
            if let Ok(link) = table.link(entry, &mut room)
                && let Some(files) = self.files_of(link)
            {
                opened.push(OpenedThrough { pid: process.pid(), path: Label::from(link), files });
            }
            Ok(())
        });
    }

    /// The files of layers that a path may lead to. `None`: it leads through no such overlay.
    fn files_of(&self, path: &[u8]) -> Option<Vec<Place>> {
        let point = self.mounts.mount_point(path)?;
        let overlay = self.overlays.iter().find(|overlay| overlay.point.as_bytes() == point)?;
        let rest = path.strip_prefix(point).filter(|rest| rest.len() > 1)?;
        let unmarked = rest.strip_suffix(b" (deleted)");
        let names = [Some(rest), unmarked].into_iter().flatten();
        let files = names.flat_map(|name| {
            overlay.layers.iter().map(move |(dev, folder)| (*dev, [&folder[..], name].concat()))
        });
        Some(files.collect())
    }
}

/// The paths of the layers that the options of an overlay name.
pub(crate) fn layers(options: &[u8]) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    for option in options.split(|&byte| byte == b',') {
        let Some(at) = option.iter().position(|&byte| byte == b'=') else { continue };
        let value = mounts::unescaped(&option[at + 1..]);
        match &option[..at] {
            b"upperdir" | b"lowerdir+" | b"datadir+" => paths.push(value),
            b"lowerdir" => paths.extend(split_layers(&value)),
            _ => {}
        }
    }
    paths
}

/// Splits a list of layers at its colons. A backslash stands before a colon, or another backslash,
/// that belongs to a path.
fn split_layers(list: &[u8]) -> Vec<Vec<u8>> {
    let mut paths = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b':' => paths.push(Vec::new()),
            b'\\' => {
                let escaped = bytes.next().copied();
                paths.last_mut().into_iter().for_each(|path| path.extend(escaped));
            }
            byte => paths.last_mut().into_iter().for_each(|path| path.push(byte)),
        }
    }
    paths.retain(|path| !path.is_empty());
    paths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n\
        25 1 0:23 /part /mnt/a\\040b rw - tmpfs none rw\n\
        30 1 0:40 / /merged rw - overlay none rw,lowerdir=/usr:/mnt/a\\040b/low,upperdir=/mnt/a\\040b/up,workdir=/mnt/a\\040b/work\n\
        31 1 0:41 / /other rw - overlay none rw,lowerdir=/usr:/lib\n";
    const DEV: Dev = Dev { major: 0, minor: 23 };

    fn view() -> View {
        let mounts = Mounts::parse(TEXT);
        let listed = mounts::overlays(TEXT);
        let overlays = listed.map(|(point, options)| Overlay {
            point: Label::from(&point[..]),
            layers: layers(options).iter().filter_map(|path| mounts.place_of(path)).collect(),
        });
        View { overlays: overlays.collect(), mounts }
    }

    /// Check that layers on a tmpfs are found by their place there, in the order of the options,
    /// and that others are left out.
    #[test]
    fn layers_in_memory() {
        let view = view();
        let places = [(DEV, b"/part/low".to_vec()), (DEV, b"/part/up".to_vec())];
        assert_eq!(view.overlays[0].layers, places);
        assert_eq!(view.overlays[1].layers, []);
        let has = |path: &str| view.overlays[0].may_have(&(DEV, path.into()));
        assert!(has("/part/up/f") && has("/part/low/a/b"));
        assert!(!has("/part/upper/f") && !has("/part/up") && !has("/up/f"));
    }

    /// Check that a path below an overlay leads to the file of each layer, with and without the
    /// mark of a deleted file, and that another path leads to none.
    #[test]
    fn files_of_a_path() {
        let view = view();
        let files = |path: &str| view.files_of(path.as_bytes()).unwrap_or_default();
        let place = |path: &str| (DEV, path.as_bytes().to_vec());
        assert_eq!(files("/merged/d/f"), [place("/part/low/d/f"), place("/part/up/d/f")]);
        assert!(files("/merged/f (deleted)").contains(&place("/part/up/f")));
        assert_eq!((files("/merged2/f"), files("/merged"), files("/x")), (vec![], vec![], vec![]));
    }

    /// Check that colons within a path do not split it.
    #[test]
    fn colons() {
        assert_eq!(split_layers(b"/a\\:b:/c\\\\d::/e"), [&b"/a:b"[..], b"/c\\d", b"/e"]);
    }

    proptest! {
        /// Check that no bytes make the parsers panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (layers(&text), mounts::overlays(&text).count(), Mounts::parse(&text).place_of(&text));
        }
    }
}
