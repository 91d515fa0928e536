//! Recorded time: snapshots in an SQLite file, and questions to the past.
//!
//! A [`Recorder`] appends snapshots to a file. A [`Recording`] reads them back: the snapshot of any
//! sample, and the life of one buffer. What comes back is a [`Snapshot`](crate::model::Snapshot),
//! so that everything which measures or shows a snapshot does so for the past as well.
//!
//! The file has intervals: a row holds from the sample in which it was first seen to the last in
//! which it was the same. So a recording costs what changes. `docs/recording.md` describes the
//! tables for those who ask them by SQL.
//!
//! Limits: what lives and dies between two samples is not seen. A recording has no list of the
//! files that nobody holds, and of processes not how much they have mapped in (`rss_shmem`), which
//! changes all the time.
//!
//! ```
//! use lsbuf::history::{Keep, Recorder, Recording};
//! # let folder = std::env::temp_dir().join(format!("lsbuf-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! # let path = folder.join("buffers.db");
//!
//! let mut recorder = Recorder::open(&path, Keep::default())?;
//! recorder.append(lsbuf::scan(lsbuf::scan::Options::default())?)?;
//! recorder.close()?;
//!
//! let recording = Recording::open(&path)?;
//! let newest = recording.samples()?.pop().expect("one was appended");
//! println!("{} buffers", recording.snapshot(newest.id)?.buffers.len());
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), lsbuf::Error>(())
//! ```

mod checksum;
mod course;
mod document;
pub mod export;
mod file;
mod keep;
mod life;
mod moments;
mod recorder;
mod recording;
mod rows;
mod suspects;
mod table;
mod value;
mod when;

pub use course::{Course, CourseGroup};
pub use document::read_document;
pub use keep::Keep;
pub use life::{BufferNumber, Lasting, Life};
pub use moments::{Between, Hold, Moment, Span};
pub use recorder::{Appended, Recorder};
pub use recording::{Recording, Sample, SampleId};
pub use suspects::{
    COHORTS, Cohort, Fences, Growth, Judged, LivedBuffer, Slope, Suspect, SuspectHolder, SuspectKey,
    SuspectOrigin, Suspects,
};
pub use when::{When, duration, shown};

#[cfg(test)]
mod tests;
