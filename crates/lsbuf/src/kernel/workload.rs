//! The unit, container and pod that a process runs in, by the text of `/proc/P/cgroup`
//! (`proc_cgroup_show` in kernel/cgroup/cgroup.c). No daemon is asked.
//!
//! Of the hierarchies in that text, the unified one counts, then that of the memory controller,
//! then systemd's own. A hierarchy that has the process in its root says nothing. Container
//! runtimes name cgroups in these ways:
//!
//! | who | pod | container |
//! |---|---|---|
//! | kubelet, cgroupfs | `kubepods/burstable/podUID` | `ID`: 64 hex digits |
//! | kubelet, systemd | `kubepods-podUID.slice`, `_` for `-` | `cri-containerd-ID.scope` |
//! | the same with CRI-O | the same | `crio-ID.scope` |
//! | containerd in its own unit | `kubepods-podUID.slice:cri-containerd:ID` | the same name |
//! | Docker, Podman | | `docker-ID.scope`, `docker/ID`, `libpod-ID` |
//! | LXC, systemd-nspawn | | `lxc.payload.NAME`, `machine-NAME.scope` below `machine.slice` |
//!
//! Cgroups nest: a node of kind is a container, and has pods in it. The innermost name counts.
//!
//! Limits: who may make cgroups may give them these names. A cgroup outside of the reader's cgroup
//! namespace shows as `/../…`, and then nothing is claimed. The pods' names are those of folders
//! that the kubelet makes, `NAMESPACE_POD_UID` in `/var/log/pods`. The names of containers in them
//! are those of its links, `POD_NAMESPACE_CONTAINER-ID.log` in `/var/log/containers`. What does not
//! look like that is skipped.

use std::collections::HashMap;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::io::Result;

use super::guard;
use super::{read, task};
use crate::model::{Label, Pod, PodName, Workload};

/// The path of a process's cgroup in the hierarchy that counts. `None`: there is none, or it is
/// outside of the reader's cgroup namespace.
pub(crate) fn path(text: &[u8]) -> Option<&[u8]> {
    let path = task::cgroup(text)?.path;
    let is_outside = path.split(|&b| b == b'/').any(|segment| segment == b"..");
    (!is_outside).then_some(path)
}

/// What the path of a cgroup says. The pod has no name yet.
pub(crate) fn of_path(path: &[u8]) -> Workload {
    // The kernel marks the path of a cgroup that was removed while the process was in it.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let segments: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
    let mut found = Workload::default();
    for (nth, segment) in segments.iter().enumerate().rev() {
        let parent = nth.checked_sub(1).map_or(&b""[..], |before| segments[before]);
        found.container = found.container.or_else(|| container(segment, parent));
        found.pod = found.pod.or_else(|| pod(segment).map(Pod::new));
        found.unit = found.unit.or_else(|| unit(segment));
    }
    found
}

/// Units that can have processes. Slices only group them.
const UNITS: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];

fn unit(segment: &[u8]) -> Option<Label> {
    // containerd appends to a slice's name what is no unit of systemd.
    let is_unit = !segment.contains(&b':')
        && UNITS.iter().any(|end| segment.len() > end.len() && segment.ends_with(end));
    is_unit.then(|| Label::from(segment))
}

fn container(segment: &[u8], parent: &[u8]) -> Option<Label> {
    let scope = segment.strip_suffix(b".scope");
    let name = scope.unwrap_or(segment);
    let last = name.rsplit(|&b| matches!(b, b'-' | b':')).next().unwrap_or_default();
    // The monitor of a container is no part of it.
    let prefix = &name[..name.len() - last.len()];
    if is_hex(last, 64) && !prefix.ends_with(b"conmon-") {
        return Some(last.into());
    }
    let named = |runtime: &str, name: &[u8]| Label::from(&[runtime.as_bytes(), b":", name].concat()[..]);
    if let Some(name) = segment.strip_prefix(b"lxc.payload.") {
        return Some(named("lxc", name));
    }
    match name.strip_prefix(b"machine-") {
        Some(name) if scope.is_some() && parent == b"machine.slice" => Some(named("machine", name)),
        _ => None,
    }
}

/// The UID of a pod.
fn pod(segment: &[u8]) -> Option<Label> {
    let slice = segment.split(|&b| b == b':').next().unwrap_or_default();
    let is_cgroupfs = slice.starts_with(b"pod");
    let name = match slice.strip_suffix(b".slice") {
        Some(name) => name.rsplit(|&b| b == b'-').next()?,
        None if is_cgroupfs => slice,
        None => return None,
    };
    let uid: Vec<u8> = name.strip_prefix(b"pod")?.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect();
    is_uid(&uid).then(|| Label::from(&uid[..]))
}

/// Whether it is the UID of a pod: five groups of hex digits, or 32 hex digits of a static pod.
fn is_uid(text: &[u8]) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&[u8]> = text.split(|&b| b == b'-').collect();
    let is_uuid = groups.len() == lengths.len() && groups.iter().zip(lengths).all(|(g, len)| is_hex(g, len));
    is_uuid || is_hex(text, 32)
}

fn is_hex(text: &[u8], len: usize) -> bool {
    text.len() == len && text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The names of pods, by UID.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodNames(HashMap<Label, Option<PodName>>);

/// Calls `take` with the name of each entry of a folder.
fn entries(folder: &Path, mut take: impl FnMut(&[u8])) -> Result<()> {
    let path = rustix::path::Arg::into_c_str(folder)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = guard::open_at(None, CWD, &path, flags)?;
    read::entries(std::os::fd::AsFd::as_fd(&folder), |name, _| {
        take(name.to_bytes());
        Ok(())
    })
}

impl PodNames {
    /// Reads the folder of the pods' logs.
    pub(crate) fn read(folder: &Path) -> Result<PodNames> {
        let mut names = PodNames::default();
        entries(folder, |name| names.add(name))?;
        Ok(names)
    }

    /// Takes the name of one folder, `NAMESPACE_POD_UID`.
    pub(crate) fn add(&mut self, folder: &[u8]) {
        let parts: Vec<&[u8]> = folder.split(|&b| b == b'_').collect();
        let &[namespace, name, uid] = &parts[..] else { return };
        if !(is_name(namespace, 63) && is_name(name, 253) && is_uid(uid)) {
            return;
        }
        let named = PodName::new(namespace.into(), name.into());
        let known = self.0.entry(uid.into()).or_insert_with(|| Some(named.clone()));
        // Two folders that contradict each other prove nothing.
        if known.as_ref() != Some(&named) {
            *known = None;
        }
    }

    /// The name of the pod with that UID.
    pub(crate) fn of(&self, uid: &Label) -> Option<PodName> {
        self.0.get(uid).cloned().flatten()
    }
}

/// The names that containers have in their pods, by the id of the container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerNames(HashMap<Label, Option<Label>>);

impl ContainerNames {
    /// Reads the folder of the links to the containers' logs.
    pub(crate) fn read(folder: &Path) -> Result<ContainerNames> {
        let mut names = ContainerNames::default();
        entries(folder, |name| names.add(name))?;
        Ok(names)
    }

    /// Takes the name of one link, `POD_NAMESPACE_CONTAINER-ID.log`.
    pub(crate) fn add(&mut self, link: &[u8]) {
        let parts: Vec<&[u8]> = link.split(|&b| b == b'_').collect();
        let &[pod, namespace, rest] = &parts[..] else { return };
        let Some(rest) = rest.strip_suffix(b".log") else { return };
        let Some(dash) = rest.iter().rposition(|&b| b == b'-') else { return };
        let (name, id) = (&rest[..dash], &rest[dash + 1..]);
        if !(is_name(pod, 253) && is_name(namespace, 63) && is_name(name, 63) && is_hex(id, 64)) {
            return;
        }
        let known = self.0.entry(id.into()).or_insert_with(|| Some(name.into()));
        // Two links that contradict each other prove nothing.
        if known.as_ref().is_some_and(|known| known.as_bytes() != name) {
            *known = None;
        }
    }

    /// The name of the container with that id.
    pub(crate) fn of(&self, id: &Label) -> Option<Label> {
        self.0.get(id).cloned().flatten()
    }
}

/// Whether Kubernetes allows that name (RFC 1123).
fn is_name(text: &[u8], longest: usize) -> bool {
    let is_inner = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let ends = [text.first(), text.last()];
    text.len() <= longest
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && text.iter().all(is_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OUTER: &str = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "11111111-2222-3333-4444-555555555555";
    const SLICE: &str = "pod11111111_2222_3333_4444_555555555555.slice";

    /// The unit, container and pod of a path, as text.
    fn of(path: &str) -> (String, String, String) {
        let text = |label: Option<Label>| label.map_or("-".into(), |l| l.to_string());
        let Workload { unit, container, pod } = of_path(path.as_bytes());
        (text(unit), text(container), text(pod.map(|pod| pod.uid)))
    }

    fn expected(unit: &str, container: &str, pod: &str) -> (String, String, String) {
        (unit.into(), container.into(), pod.into())
    }

    /// Check that pods and containers are found as each driver and runtime names them.
    #[test]
    fn pods() {
        let scope = |runtime: &str| format!("{runtime}-{ID}.scope");
        for (path, unit) in [
            (format!("/kubepods/pod{UID}/{ID}"), "-".into()),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), "-".into()),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{SLICE}/{}",
                    scope("cri-containerd")
                ),
                scope("cri-containerd"),
            ),
            (format!("/kubepods.slice/kubepods-{SLICE}/{}", scope("crio")), scope("crio")),
            (
                format!("/system.slice/containerd.service/kubepods-burstable-{SLICE}:cri-containerd:{ID}"),
                "containerd.service".into(),
            ),
            (
                format!(
                    "/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods-{SLICE}/{}",
                    scope("cri-containerd")
                ),
                scope("cri-containerd"),
            ),
        ] {
            assert_eq!(of(&path), expected(&unit, ID, UID), "{path}");
        }
        let fixed = "0123456789abcdef0123456789abcdef";
        assert_eq!(of(&format!("/kubepods/pod{fixed}/{ID}")), expected("-", ID, fixed));
    }

    /// Check that containers without Kubernetes are found, and that a monitor is none.
    #[test]
    fn containers() {
        let of_container = |path: &str| of(path).1;
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"),
            format!("/libpod_parent/libpod-{ID}"),
        ] {
            assert_eq!(of_container(&path), ID, "{path}");
        }
        assert_eq!(of_container("/lxc.payload.web/system.slice/x.service"), "lxc:web");
        assert_eq!(of_container("/machine.slice/machine-web.scope/payload"), "machine:web");
        for path in [
            format!("/libpod_parent/libpod-conmon-{ID}"),
            format!("/machine.slice/crio-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[1..]),
            "/other.slice/machine-web.scope".into(),
        ] {
            assert_eq!(of_container(&path), "-", "{path}");
        }
    }

    /// Check that the innermost unit counts, that slices are none, and that a removed cgroup keeps
    /// its names.
    #[test]
    fn units() {
        let unit = |path: &str| of(path).0;
        assert_eq!(unit("/system.slice/postgresql@15-main.service"), "postgresql@15-main.service");
        let app = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-12.scope";
        assert_eq!(unit(app), "app-firefox-12.scope");
        assert_eq!((unit("/user.slice"), unit("/"), unit("/.service")), ("-".into(), "-".into(), "-".into()));
        assert_eq!(unit("/system.slice/x.service (deleted)"), "x.service");
    }

    /// Check that a path of another namespace is no claim.
    #[test]
    fn outside() {
        assert_eq!((path(b"0::/../x\n"), path(b"0::/x\n")), (None, Some(&b"/x"[..])));
    }

    /// Check that a folder names its pod, that strange folders name none, and that a contradiction
    /// leaves a pod unnamed.
    #[test]
    fn pod_names() {
        let other = "22222222-2222-3333-4444-555555555555";
        let mut names = PodNames::default();
        for folder in [
            format!("shop_web-0_{UID}"),
            format!("shop_a_{other}"),
            format!("shop_b_{other}"),
            format!("shop_web_0_{UID}"),
            format!("_x_{UID}"),
            "..".into(),
            format!("sh\nop_x_{UID}"),
            format!("{}_x_{UID}", "n".repeat(64)),
        ] {
            names.add(folder.as_bytes());
        }
        assert_eq!(names.of(&UID.into()), Some(PodName::new("shop".into(), "web-0".into())));
        assert_eq!((names.of(&other.into()), names.of(&"x".into())), (None, None));
    }

    /// Check that a link names its container, and that strange links and contradictions name none.
    #[test]
    fn container_names() {
        let mut names = ContainerNames::default();
        for link in [
            format!("web-0_shop_nginx-proxy-{ID}.log"),
            format!("web-0_shop_a-{OUTER}.log"),
            format!("web-0_shop_b-{OUTER}.log"),
            format!("web-0_shop_nginx-{}.log", &ID[1..]),
            format!("web_0_shop_nginx-{ID}.log"),
            format!("web-0_shop_-{ID}.log"),
            "..".into(),
        ] {
            names.add(link.as_bytes());
        }
        assert_eq!(names.of(&ID.into()), Some("nginx-proxy".into()));
        assert_eq!((names.of(&OUTER.into()), names.of(&"x".into())), (None, None));
    }

    proptest! {
        /// Check that no bytes make a parser panic, and that no path makes a container or a pod
        /// whose name has a slash or a newline of its own.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (path(&text), PodNames::default().add(&text), ContainerNames::default().add(&text));
            let Workload { container, pod, .. } = of_path(&text);
            prop_assert!(container.is_none_or(|name| !name.as_bytes().contains(&b'/')));
            prop_assert!(pod.is_none_or(|pod| is_uid(pod.uid.as_bytes())));
        }
    }
}
