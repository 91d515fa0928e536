//! The details of a process in the words of the JSON schema.

use serde::{Serialize, Serializer};

use super::{Each, Lost, lost_bytes};
use crate::escape::escape;
use crate::model::{Args, Bytes, Label, Pid, Pod, ProcessDetails, Workload};

#[derive(Serialize)]
struct JsonDetails<'a> {
    args: Option<&'a [Label]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args_bytes: Option<Each<'a, Label, String>>,
    args_whole: Option<bool>,
    exe: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_bytes: Lost,
    user: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_bytes: Lost,
    fd_limit: Option<u64>,
    rss_shmem: Option<Bytes>,
    parent: Option<Pid>,
    workload: Option<JsonWorkload<'a>>,
}

#[derive(Serialize)]
struct JsonWorkload<'a> {
    unit: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_bytes: Lost,
    container: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_bytes: Lost,
    pod: Option<JsonPod<'a>>,
}

#[derive(Serialize)]
struct JsonPod<'a> {
    uid: &'a Label,
    namespace: Option<&'a Label>,
    name: Option<&'a Label>,
    container: Option<&'a Label>,
}

impl Serialize for ProcessDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let args: Option<&Args> = self.args.as_ref();
        let lost_any = args.is_some_and(|args| args.words.iter().any(|w| lost_bytes(Some(w)).is_some()));
        let json = JsonDetails {
            args: args.map(|args| &args.words[..]),
            args_bytes: args
                .filter(|_| lost_any)
                .map(|args| Each(&args.words, |word: &Label| escape(word.as_bytes()))),
            args_whole: args.map(|args| args.is_whole),
            exe: self.exe.as_ref(),
            exe_bytes: lost_bytes(self.exe.as_ref()),
            user: self.user.as_ref(),
            user_bytes: lost_bytes(self.user.as_ref()),
            fd_limit: self.fd_limit,
            rss_shmem: self.rss_shmem,
            parent: self.parent,
            workload: self.workload.as_ref().map(JsonWorkload::of),
        };
        json.serialize(serializer)
    }
}

impl JsonPod<'_> {
    fn of(pod: &Pod) -> JsonPod<'_> {
        let Pod { uid, name, container } = pod;
        let name = name.as_ref();
        let (namespace, name) = (name.map(|n| &n.namespace), name.map(|n| &n.name));
        JsonPod { uid, namespace, name, container: container.as_ref() }
    }
}

impl JsonWorkload<'_> {
    fn of(workload: &Workload) -> JsonWorkload<'_> {
        let Workload { unit, container, pod } = workload;
        JsonWorkload {
            unit: unit.as_ref(),
            unit_bytes: lost_bytes(unit.as_ref()),
            container: container.as_ref(),
            container_bytes: lost_bytes(container.as_ref()),
            pod: pod.as_ref().map(JsonPod::of),
        }
    }
}
