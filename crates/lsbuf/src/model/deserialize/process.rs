//! One process and its details.

use serde::Deserialize;

use super::super::{Args, Bytes, Pid, Pod, PodName, Process, ProcessDetails, Workload};
use super::text::{label, labels};

#[derive(Deserialize)]
pub(super) struct JsonProcess {
    pid: Pid,
    start_time: u64,
    comm: String,
    comm_bytes: Option<String>,
    uid: Option<u32>,
    cgroup: Option<String>,
    cgroup_bytes: Option<String>,
    sync_files: Option<u64>,
    details: Option<ProcessDetails>,
}

impl JsonProcess {
    pub(super) fn into_model(self) -> Result<Process, String> {
        Ok(Process {
            pid: self.pid,
            start_time: self.start_time,
            comm: label(Some(self.comm), self.comm_bytes)?.unwrap_or_default(),
            uid: self.uid,
            cgroup: label(self.cgroup, self.cgroup_bytes)?,
            sync_files: self.sync_files,
            details: self.details.map(Box::new),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct JsonDetails {
    args: Option<Vec<String>>,
    args_bytes: Option<Vec<String>>,
    args_whole: Option<bool>,
    exe: Option<String>,
    exe_bytes: Option<String>,
    user: Option<String>,
    user_bytes: Option<String>,
    fd_limit: Option<u64>,
    rss_shmem: Option<Bytes>,
    parent: Option<Pid>,
    workload: Option<JsonWorkload>,
}

impl JsonDetails {
    pub(super) fn into_model(self) -> Result<ProcessDetails, String> {
        let is_whole = self.args_whole.unwrap_or_default();
        let words = self.args.map(|args| labels(args, self.args_bytes)).transpose()?;
        Ok(ProcessDetails {
            args: words.map(|words| Args { words, is_whole }),
            exe: label(self.exe, self.exe_bytes)?,
            user: label(self.user, self.user_bytes)?,
            fd_limit: self.fd_limit,
            rss_shmem: self.rss_shmem,
            parent: self.parent,
            workload: self.workload.map(JsonWorkload::into_model).transpose()?,
        })
    }
}

#[derive(Deserialize)]
struct JsonWorkload {
    unit: Option<String>,
    unit_bytes: Option<String>,
    container: Option<String>,
    container_bytes: Option<String>,
    pod: Option<JsonPod>,
}

impl JsonWorkload {
    fn into_model(self) -> Result<Workload, String> {
        Ok(Workload {
            unit: label(self.unit, self.unit_bytes)?,
            container: label(self.container, self.container_bytes)?,
            pod: self.pod.map(JsonPod::into_model),
        })
    }
}

#[derive(Deserialize)]
struct JsonPod {
    uid: String,
    namespace: Option<String>,
    name: Option<String>,
    container: Option<String>,
}

impl JsonPod {
    fn into_model(self) -> Pod {
        let name = self.namespace.zip(self.name);
        Pod {
            uid: self.uid.as_str().into(),
            name: name.map(|(space, name)| PodName::new(space.as_str().into(), name.as_str().into())),
            container: self.container.map(|name| name.as_str().into()),
        }
    }
}
