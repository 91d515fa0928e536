//! The life of one buffer: when it was there, how large it was, who held it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Connection, Row};

use super::moments::Moments;
use super::recorder::newest_sample;
use super::rows::{self, BUFFER_STATE, HOLDING, PROCESS_STATE, Unreadable};
use super::table::RowId;
use super::{Recording, Sample, SampleId};
use crate::error::Error;
use crate::model::{Buffer, Holder, Host, Process};

/// What a recording knows of one buffer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Life {
    /// The buffer in its last state, without holders.
    pub buffer: Buffer,
    /// Its states, in order. There are gaps where it was not found for a while: a file that nobody
    /// held.
    pub states: Vec<Lasting<Buffer>>,
    /// What processes held of it, in order.
    pub holders: Vec<Lasting<(Process, Holder)>>,
    /// The machine in the boot that it was of.
    pub host: Host,
    pub(super) moments: Moments,
}

impl Life {
    /// The last sample in which it was seen. `None`: it was still there in the last one.
    #[must_use]
    pub fn last_seen(&self) -> Option<Sample> {
        self.states.last().and_then(|state| state.last)
    }
}

/// Something that was the same from one sample to another, both included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lasting<T> {
    /// What.
    pub what: T,
    /// The first sample in which it was seen. `None`: it was there before the first sample that the
    /// recording still has.
    pub first: Option<Sample>,
    /// The last sample in which it was seen. `None`: it was still there in the last one.
    pub last: Option<Sample>,
}

impl Recording {
    /// Every buffer that was ever recorded, in its last state and without holders, with a number by
    /// which its life is found.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn buffers(&self) -> Result<Vec<(BufferNumber, Buffer)>, Error> {
        self.reading(|db| {
            let sql = "SELECT id FROM buffer ORDER BY id";
            let numbers: Vec<i64> =
                db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut buffers = Vec::with_capacity(numbers.len());
            for number in numbers {
                let mut last = None;
                BUFFER_STATE.each_of(db, "buffer", RowId(number), |row| {
                    last = Some(rows::read_buffer(db, row)?);
                    Ok(())
                })?;
                buffers.extend(last.map(|last| (BufferNumber(number), last)));
            }
            Ok(buffers)
        })
    }

    /// The life of one of [`Recording::buffers`].
    ///
    /// # Errors
    /// If there is none with that number, or the file cannot be read.
    pub fn life(&self, of: BufferNumber) -> Result<Life, Error> {
        self.reading(|db| {
            let newest = newest_sample(db)?;
            let mut states: Vec<Lasting<Buffer>> = Vec::new();
            BUFFER_STATE.each_of(db, "buffer", RowId(of.0), |row| {
                states.push(lasting(db, newest, row, rows::read_buffer(db, row)?)?);
                Ok(())
            })?;
            let origin = rows::last_origin(db, RowId(of.0))?;
            states.iter_mut().for_each(|state| state.what.origin.clone_from(&origin));
            let mut holders = Vec::new();
            let mut processes = BTreeMap::new();
            HOLDING.each_of(db, "buffer", RowId(of.0), |row| {
                let key: i64 = row.get("process")?;
                let process: &mut Process = match processes.entry(key) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(last_state(db, RowId(key))?),
                };
                let held = rows::read_holder(row, process.pid)?;
                holders.push(lasting(db, newest, row, (process.clone(), held))?);
                Ok(())
            })?;
            let buffer = states.last().map(|state| state.what.clone());
            let buffer = buffer.ok_or_else(|| format!("it has no buffer {}", of.0))?;
            let boot = rows::boot_of(db, RowId(of.0))?;
            let (host, moments) = (rows::read_host(db, boot)?, Moments::read(db, boot, buffer.id.kind)?);
            Ok(Life { buffer, states, holders, host, moments })
        })
    }
}

/// Names a buffer of a recording, also among those that had the same identity after each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferNumber(i64);

/// A process as it was last seen.
fn last_state(db: &Connection, process: RowId) -> Result<Process, Unreadable> {
    let mut last = None;
    PROCESS_STATE.each_of(db, "process", process, |row| {
        last = Some(rows::read_process(db, row)?);
        Ok(())
    })?;
    last.ok_or_else(|| Unreadable::from(format!("process {} has no state", process.0)))
}

fn lasting<T>(
    db: &Connection,
    newest: Option<SampleId>,
    row: &Row<'_>,
    what: T,
) -> Result<Lasting<T>, Unreadable> {
    let sample = |id: SampleId| rows::find_sample(db, id);
    let last = row.get::<_, Option<i64>>("last")?.map(SampleId);
    Ok(Lasting {
        what,
        first: sample(SampleId(row.get("first")?))?,
        // The recorder ends every row when it ends itself.
        last: last.filter(|&last| Some(last) < newest).map(sample).transpose()?.flatten(),
    })
}
