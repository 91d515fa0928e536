//! The name of the workload that a process belongs to: of its container in its pod, or of its unit.
//!
//! It is bounded and stable: it has no id and no counter, so that a workload that is started again
//! has the same name. That is what a label of a metric needs.
//!
//! Limits: a container that is in no pod has only an id in the path of its cgroup. All containers
//! of one runtime have one name then, as `docker-#.scope`.

use super::{Label, PodName, Workload, folded};

/// The name of a workload. Of a pod the first three are known, or none; of others only the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct WorkloadName {
    /// The namespace of the pod.
    pub namespace: Option<Label>,
    /// The pod.
    pub pod: Option<Label>,
    /// The container in the pod. `None` also if it has no known name.
    pub container: Option<Label>,
    /// The unit of systemd. Numbers in the names of units that live for a moment are folded
    /// ([`folded`]).
    pub unit: Option<Label>,
}

/// What stands for a pod of which only the UID is known.
const UNKNOWN_POD: &str = "unknown";

impl Workload {
    /// Its name. `None`: it runs in no pod and in no unit.
    #[must_use]
    pub fn name(&self) -> Option<WorkloadName> {
        if let Some(pod) = &self.pod {
            let PodName { namespace, name } = match &pod.name {
                Some(name) => name.clone(),
                None => PodName::new(Label::default(), UNKNOWN_POD.into()),
            };
            let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
            let container = pod.container.clone();
            return Some(WorkloadName { namespace, pod: Some(name), container, unit: None });
        }
        let unit = self.unit.as_ref()?;
        let is_transient = unit.as_bytes().ends_with(b".scope") || unit.as_bytes().starts_with(b"run-");
        let unit = if is_transient { folded(unit) } else { unit.clone() };
        Some(WorkloadName { unit: Some(unit), ..WorkloadName::default() })
    }
}

impl WorkloadName {
    /// `NAMESPACE/POD/CONTAINER`, as far as it is known, or the unit, which has no slash.
    #[must_use]
    pub fn label(&self) -> Label {
        let WorkloadName { namespace, pod, container, unit } = self;
        let parts = [namespace, pod, container, unit].into_iter().flatten().map(Label::as_bytes);
        Label::from(&parts.collect::<Vec<_>>().join(&b'/')[..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pod;
    use super::*;

    fn named(workload: &Workload) -> String {
        workload.name().map_or("-".to_owned(), |name| name.label().to_string())
    }

    /// Check that a pod is named before the unit of its container, and by no id.
    #[test]
    fn pods() {
        let pod = |name, container: Option<&str>| Workload {
            unit: Some("crio-0.scope".into()),
            pod: Some(Pod { uid: "uid".into(), name, container: container.map(Label::from) }),
            ..Workload::default()
        };
        let name = || Some(PodName::new("shop".into(), "web-0".into()));
        assert_eq!(named(&pod(name(), Some("nginx"))), "shop/web-0/nginx");
        assert_eq!(named(&pod(name(), None)), "shop/web-0");
        assert_eq!(named(&pod(None, None)), "unknown");
    }

    /// Check that units that are started anew for each use have one name, and others their own.
    #[test]
    fn units() {
        let id = "0123456789abcdef".repeat(4);
        for (unit, expected) in [
            ("postgresql@15-main.service", "postgresql@15-main.service"),
            ("session-12.scope", "session-#.scope"),
            (&format!("docker-{id}.scope"), "docker-#.scope"),
            ("run-u17.service", "run-u#.service"),
        ] {
            assert_eq!(named(&Workload { unit: Some(unit.into()), ..Workload::default() }), expected);
        }
        assert_eq!(named(&Workload::default()), "-");
    }
}
