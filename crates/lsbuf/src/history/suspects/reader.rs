//! Reads the lives of all buffers of a range from a recording.
//!
//! Three tables are read side by side in the order of the buffers, so that of each buffer only its
//! states are in memory. The checksum of each row is compared.
//!
//! Limit: a holder's command and cgroup are those that it had at last.

use std::collections::HashMap;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, Rows};

use super::fences::FenceCounts;
use super::lives::{Lives, Stay};
use super::origins::Origins;
use super::range::Range;
use super::{SuspectHolder, SuspectKey, Suspects};
use crate::error::Error;
use crate::history::rows::{BUFFER_STATE, HOLDING, PROCESS_STATE, Unreadable};
use crate::history::table::Table;
use crate::history::value::{Unsigned, Word};
use crate::history::{Recording, Sample};
use crate::model::{Bytes, Kind, Kinds, Label, LeakShape, folded};

/// A buffer of a recording, for filters.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LivedBuffer<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name at last; `None`: unknown.
    pub name: Option<&'a Label>,
    /// Who made it; `None`: unknown, or it is no dma-buf.
    pub exporter: Option<&'a Label>,
    /// Its length at last.
    pub size: Option<Bytes>,
}

impl Recording {
    /// What grows between two samples and does not come back, with the evidence; of those buffers
    /// for which `is_wanted` is true.
    ///
    /// ```
    /// use lsbuf::history::{Growth, Keep, Recorder};
    /// # use lsbuf::scan::{Options, Scanner};
    /// let mut recorder = Recorder::in_memory()?;
    /// # let mut scanner = Scanner::new(Options::default())?;
    /// for _ in 0..3 {
    ///     recorder.append(scanner.scan()?)?;
    /// }
    /// let recording = recorder.finish()?;
    /// let (first, last) = recording.span()?.expect("three were appended");
    /// let suspects = recording.suspects(first, last, |_| true)?;
    /// assert!(suspects.groups.iter().all(|group| group.growth != Growth::Growing));
    /// # Ok::<(), lsbuf::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn suspects(
        &self,
        first: Sample,
        last: Sample,
        is_wanted: impl FnMut(&LivedBuffer<'_>) -> bool,
    ) -> Result<Suspects, Error> {
        self.reading(|db| {
            let range = Range::read(db, first.id.0, last.id.0)?;
            let (samples, length) = (range.ids.len() as u64, range.length());
            let partial = range.partial(db)?;
            let mut reader = Reader::new(db, range, is_wanted)?;
            let fences = std::mem::take(&mut reader.fences).fences(&reader.holders, &reader.range.times);
            let groups = reader.read(db)?.suspects();
            Ok(Suspects { first, last, samples, partial, length, groups, fences })
        })
    }
}

/// Some rows of a table in the order of the buffers.
pub(in crate::history) struct Ordered<'s> {
    table: &'static Table,
    rows: Rows<'s>,
    of: usize,
    first: usize,
    last: usize,
    newest: i64,
}

impl<'s> Ordered<'s> {
    pub(in crate::history) fn new(
        table: &'static Table,
        rows: Rows<'s>,
        newest: i64,
    ) -> Result<Ordered<'s>, Unreadable> {
        let (of, first, last) = (table.column("buffer")?, table.column("first")?, table.column("last")?);
        Ok(Ordered { table, rows, of, first, last, newest })
    }

    /// The next row: of which buffer it is, and from which sample to which it holds.
    pub(in crate::history) fn next(&mut self) -> Result<Option<(i64, i64, i64, &Row<'s>)>, Unreadable> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        self.table.check(row)?;
        // The recorder ends every row when it ends itself.
        let last = row.get::<_, Option<i64>>(self.last)?.unwrap_or(self.newest);
        Ok(Some((row.get(self.of)?, row.get(self.first)?, last, row)))
    }
}

/// A buffer as it is gathered from its states.
struct Lived {
    row: i64,
    first: i64,
    last: i64,
    state: State,
}

/// Its last state within the range.
#[derive(Default)]
pub(in crate::history) struct State {
    pub(in crate::history) size: Option<Bytes>,
    pub(in crate::history) charged: Option<Bytes>,
    pub(in crate::history) name: Option<Label>,
    pub(in crate::history) exporter: Option<Label>,
    shape: Option<LeakShape>,
}

/// For how long a holder had a buffer.
#[derive(Clone, Copy)]
struct Held {
    holder: u32,
    process: u32,
    first: i64,
    last: i64,
}

struct Reader<F> {
    range: Range,
    newest: i64,
    lives: Lives,
    holders: Vec<SuspectHolder>,
    /// The holder of each process's row.
    processes: HashMap<i64, u32>,
    origins: Origins,
    fences: FenceCounts,
    is_wanted: F,
}

impl<F: FnMut(&LivedBuffer<'_>) -> bool> Reader<F> {
    fn new(db: &Connection, range: Range, is_wanted: F) -> Result<Reader<F>, Unreadable> {
        let newest: Option<i64> = db.query_row("SELECT max(id) FROM sample", [], |row| row.get(0))?;
        let lives = Lives::new(range.times.clone());
        let origins = Origins::read(db, range.ids.last().copied().unwrap_or_default())?;
        let mut reader = Reader {
            range,
            newest: newest.unwrap_or_default(),
            lives,
            holders: Vec::new(),
            processes: HashMap::new(),
            origins,
            fences: FenceCounts::default(),
            is_wanted,
        };
        reader.read_processes(db)?;
        Ok(reader)
    }

    fn read_processes(&mut self, db: &Connection) -> Result<(), Unreadable> {
        let table = &PROCESS_STATE;
        let mut statement = db.prepare_cached(&table.all_by("process"))?;
        let mut rows = statement.query([])?;
        let end = self.range.ids.last().copied().unwrap_or_default();
        let column = |name: &str| table.column(name);
        let [process, first, last] = [column("process")?, column("first")?, column("last")?];
        let [comm, cgroup, fences] = [column("comm")?, column("cgroup")?, column("sync_files")?];
        let mut known: HashMap<SuspectHolder, u32> = HashMap::new();
        while let Some(row) = rows.next()? {
            table.check(row)?;
            let begin = row.get::<_, i64>(first)?;
            if begin > end {
                continue;
            }
            let holder = SuspectHolder { comm: row.get(comm)?, cgroup: row.get(cgroup)? };
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            let number = *known.entry(holder.clone()).or_insert_with(|| {
                self.holders.push(holder);
                next
            });
            self.processes.insert(row.get(process)?, number);
            let fences = get::<Unsigned>(row, fences)?.map_or(0, |fences| fences.0);
            let until = row.get::<_, Option<i64>>(last)?.unwrap_or(self.newest);
            if let Some((from, until)) = self.range.within(begin, until) {
                self.fences.add(number, fences, from, until);
            }
        }
        Ok(())
    }

    fn read(mut self, db: &Connection) -> Result<Lives, Unreadable> {
        let mut kinds = db.prepare_cached("SELECT id, kind FROM buffer ORDER BY id")?;
        let mut kinds = kinds.query([])?;
        let mut states = db.prepare_cached(&BUFFER_STATE.all_by("buffer"))?;
        let mut states = Ordered::new(&BUFFER_STATE, states.query([])?, self.newest)?;
        let mut holdings = db.prepare_cached(&HOLDING.all_by("buffer"))?;
        let mut holdings = Ordered::new(&HOLDING, holdings.query([])?, self.newest)?;
        let columns = StateColumns::new()?;
        let process = HOLDING.column("process")?;
        let mut held: Vec<Held> = Vec::new();
        // The row that was read of the next buffer.
        let mut next_held: Option<(i64, Held)> = None;
        let mut lived: Option<Lived> = None;
        loop {
            let state = states.next()?;
            let same = matches!((&lived, &state), (Some(lived), Some((row, ..))) if lived.row == *row);
            if !same && let Some(done) = lived.take() {
                held.clear();
                loop {
                    if next_held.is_none() {
                        next_held = match holdings.next()? {
                            Some((of, first, last, row)) => {
                                Some((of, self.held(row.get(process)?, first, last)?))
                            }
                            None => break,
                        };
                    }
                    match next_held {
                        Some((of, one)) if of == done.row => held.push(one),
                        Some((of, _)) if of > done.row => break,
                        // Of a buffer without a state, which no recorder writes.
                        _ => {}
                    }
                    next_held = None;
                }
                let kind = kind_of(&mut kinds, done.row)?;
                self.take(&done, kind, &mut held);
            }
            let Some((row, first, last, values)) = state else { return Ok(self.lives) };
            let lived = lived.get_or_insert_with(|| Lived { row, first, last, state: State::default() });
            (lived.first, lived.last) = (lived.first.min(first), lived.last.max(last));
            if self.range.ids.last().is_some_and(|&end| first <= end) {
                lived.state = columns.state(values)?;
            }
        }
    }

    fn held(&self, process: i64, first: i64, last: i64) -> Result<Held, Unreadable> {
        let Some(&holder) = self.processes.get(&process) else {
            // It began to hold behind the range.
            if self.range.ids.last().is_none_or(|&end| first > end) {
                return Ok(Held { holder: 0, process: 0, first, last });
            }
            return Err(Unreadable::from(format!("process {process} holds a buffer and has no state")));
        };
        Ok(Held { holder, process: u32::try_from(process).unwrap_or(u32::MAX), first, last })
    }

    /// Adds a buffer to the groups of its holders.
    fn take(&mut self, lived: &Lived, kind: Kind, held: &mut Vec<Held>) {
        let Some((_, until)) = self.range.within(lived.first, lived.last) else { return };
        let State { size, charged, name, exporter, shape } = &lived.state;
        let exporter = exporter.as_ref().filter(|_| kind == Kind::DmaBuf);
        let shown = LivedBuffer { kind, name: name.as_ref(), exporter, size: *size };
        if !(self.is_wanted)(&shown) {
            return;
        }
        held.retain(|held| self.range.within(held.first, held.last).is_some());
        held.sort_unstable_by_key(|held| (held.holder, held.first));
        held.dedup_by(|later, earlier| {
            let same = later.holder == earlier.holder;
            earlier.last = earlier.last.max(if same { later.last } else { earlier.last });
            same
        });
        // What nobody holds any more counts with those that held it last.
        let newest = held.iter().map(|held| held.last).max().unwrap_or(lived.last);
        held.iter_mut().filter(|held| held.last == newest).for_each(|held| held.last = lived.last);
        let key = |holder: Option<SuspectHolder>| SuspectKey {
            holder,
            kind,
            exporter: exporter.cloned(),
            name: name.as_ref().map(folded),
            origin: self.origins.of(lived.row).cloned(),
        };
        let stay = |first: i64, last: i64, process: u32| {
            let (from, until) = self.range.within(first, last).unwrap_or((until, until));
            let is_new = |&(at, kinds): &(usize, Kinds)| at == from && kinds.has(kind);
            let is_older = first == lived.first && self.range.widened.iter().any(is_new);
            let mut stay = Stay::new(if is_older { 0 } else { from }, until, process);
            (stay.cost, stay.shape) = (kind.cost(*size, *charged), *shape);
            stay.is_shared = held.len() > 1;
            stay
        };
        if held.is_empty() {
            self.lives.add(key(None), stay(lived.first, lived.last, 0));
        }
        for held in held.iter() {
            let holder = self.holders.get(held.holder as usize).cloned();
            self.lives.add(key(holder), stay(held.first, held.last, held.process));
        }
    }
}

/// The kind of that buffer. Buffers come in order.
fn kind_of(kinds: &mut Rows<'_>, buffer: i64) -> Result<Kind, Unreadable> {
    while let Some(row) = kinds.next()? {
        if row.get::<_, i64>(0)? == buffer {
            return Ok(row.get::<_, Word<Kind>>(1)?.0);
        }
    }
    Err(Unreadable::from(format!("table buffer lacks row {buffer}")))
}

/// Where the columns of a state are.
pub(in crate::history) struct StateColumns([usize; 5]);

impl StateColumns {
    pub(in crate::history) fn new() -> Result<StateColumns, Unreadable> {
        let of = |name: &str| BUFFER_STATE.column(name);
        Ok(StateColumns([of("size")?, of("charged")?, of("name")?, of("exporter")?, of("leak_shape")?]))
    }

    pub(in crate::history) fn state(&self, row: &Row<'_>) -> rusqlite::Result<State> {
        let StateColumns([size, charged, name, exporter, shape]) = *self;
        let bytes = |column: usize| get::<Unsigned>(row, column).map(|n| n.map(|n| Bytes(n.0)));
        let shape = get::<String>(row, shape)?;
        Ok(State {
            size: bytes(size)?,
            charged: bytes(charged)?,
            name: get(row, name)?,
            exporter: get(row, exporter)?,
            shape: shape.and_then(|word| LeakShape::of_word(&word)),
        })
    }
}

fn get<T: FromSql>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get(column)
}
