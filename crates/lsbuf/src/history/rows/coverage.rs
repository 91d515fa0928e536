//! What belongs to a whole sample: how much of the machine was read, notes, devices, mount points.
//! What reads them also returns how many rows that were.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::super::SampleId;
use super::super::table::Table;
use super::super::value::{Json, Unsigned, Word, flag, json, label, maybe, number};
use super::Unreadable;
use crate::model::{
    Coverage, Dev, Device, DeviceClass, DeviceHolder, Gaps, HiddenRefs, Label, Note, Pid, Source,
};

pub(in super::super) const COVERAGE: Table = Table::new(
    "coverage",
    &["complete", "saw_every_process", "sources", "unreadable", "in_flight_fds", "io_uring_files"],
);

pub(in super::super) const NOTE: Table = Table::new("note", &["position", "text", "partial"]);

pub(in super::super) const DEVICE: Table = Table::new("device", &["path", "name", "holders"]);

pub(in super::super) const MOUNT_POINT: Table = Table::new("mount_point", &["dev", "path"]);

/// How much of the machine was read.
pub(in super::super) fn coverage(coverage: &Coverage) -> Vec<Value> {
    let hidden = coverage.hidden_refs.filter(|hidden| !hidden.unknown);
    vec![
        flag(coverage.is_complete()),
        flag(coverage.saw_every_process()),
        json(&coverage.sources),
        json(&coverage.unreadable),
        maybe(hidden, |hidden| number(hidden.in_flight)),
        maybe(hidden, |hidden| number(hidden.io_uring)),
    ]
}

/// A note, with its place among the others.
pub(in super::super) fn note(position: usize, note: &Note) -> Vec<Value> {
    vec![number(position as u64), Value::Text(note.to_string()), flag(note.is_partial())]
}

/// A device.
pub(in super::super) fn device(device: &Device) -> Vec<Value> {
    vec![label(&device.path), maybe(device.name.as_ref(), label), json(&device.holders)]
}

/// Where a filesystem was mounted.
pub(in super::super) fn mount_point(dev: Dev, path: &Label) -> Vec<Value> {
    vec![Value::Text(dev.to_string()), label(path)]
}

/// The samples that are not complete: from which to which, in order.
pub(in super::super) fn partial_samples(db: &Connection) -> Result<Vec<(SampleId, SampleId)>, Unreadable> {
    let mut statement = db.prepare_cached(&COVERAGE.all_by("first"))?;
    let mut rows = statement.query([])?;
    let (first, last) = (COVERAGE.column("first")?, COVERAGE.column("last")?);
    let complete = COVERAGE.column("complete")?;
    let mut partial = Vec::new();
    while let Some(row) = rows.next()? {
        COVERAGE.check(row)?;
        if !row.get::<_, bool>(complete)? {
            // Without a last sample, it is so in every later one.
            let until = row.get::<_, Option<i64>>(last)?.unwrap_or(i64::MAX);
            partial.push((SampleId(row.get(first)?), SampleId(until)));
        }
    }
    Ok(partial)
}

/// How much of the machine was read for a sample. The numbers of processes and the time that it
/// took are the sample's own.
pub(in super::super) fn read_coverage(
    db: &Connection,
    sample: SampleId,
) -> Result<(Coverage, u64), Unreadable> {
    let mut coverage = Coverage::default();
    let mut rows = COVERAGE.each_at(db, sample, |row| {
        coverage.sources = row.get::<_, Json<Vec<Source>>>("sources")?.0;
        coverage.unreadable = row.get::<_, Json<Vec<Pid>>>("unreadable")?.0;
        let saw_every_process: bool = row.get("saw_every_process")?;
        coverage.gaps = Gaps { not_whole_machine: !saw_every_process, ..Gaps::default() };
        let in_flight: Option<Unsigned> = row.get("in_flight_fds")?;
        let io_uring: Option<Unsigned> = row.get("io_uring_files")?;
        coverage.hidden_refs = in_flight.zip(io_uring).map(|(in_flight, io_uring)| HiddenRefs {
            in_flight: in_flight.0,
            io_uring: io_uring.0,
            unknown: false,
        });
        Ok(())
    })?;
    let mut notes: BTreeMap<i64, Note> = BTreeMap::new();
    rows += NOTE.each_at(db, sample, |row| {
        let recorded = Note::Recorded { text: row.get("text")?, is_partial: row.get("partial")? };
        notes.insert(row.get("position")?, recorded);
        Ok(())
    })?;
    coverage.notes = notes.into_values().collect();
    Ok((coverage, rows))
}

/// The devices at a sample.
pub(in super::super) fn read_devices(
    db: &Connection,
    sample: SampleId,
) -> Result<(Vec<Device>, u64), Unreadable> {
    let mut devices = Vec::new();
    let rows = DEVICE.each_at(db, sample, |row| {
        let path: Label = row.get("path")?;
        devices.push(Device {
            name: row.get("name")?,
            class: DeviceClass::of(path.as_bytes()).unwrap_or(DeviceClass::Other),
            holders: row.get::<_, Json<Vec<DeviceHolder>>>("holders")?.0,
            path,
        });
        Ok(())
    })?;
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((devices, rows))
}

/// The mount points at a sample.
pub(in super::super) fn read_mount_points(
    db: &Connection,
    sample: SampleId,
) -> Result<(BTreeMap<Dev, Label>, u64), Unreadable> {
    let mut points = BTreeMap::new();
    let rows = MOUNT_POINT.each_at(db, sample, |row| {
        points.insert(row.get::<_, Word<Dev>>("dev")?.0, row.get("path")?);
        Ok(())
    })?;
    Ok((points, rows))
}
