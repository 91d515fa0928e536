//! A profile for pprof: who made the buffers that there are, with build ids, files and lines.
//!
//! The format is `profile.proto` of the pprof project: tables of strings, functions, mappings and
//! locations that name each other by number, and samples. A sample has the buffers that one process
//! made by one stack, of one kind: how many, and what they cost. Its labels are the command, the
//! pid and the kind.
//!
//! A mapping is a file, by its build id. An address in it is the offset in the file. Where no
//! function is known its name is the place. Such a mapping has no mark that it has functions, so
//! that pprof looks for them by the build id. The format allows locations without a mapping, and
//! without a function, but not all readers do.
//!
//! Limits: it is not compressed. A number in it ends at 2^63 - 1. A buffer of unknown cost counts
//! with no bytes, and a comment in the profile says how many there are.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::View;
use super::protobuf::Message;
#[cfg(feature = "bpf")]
use super::stack_gap;
use super::{birth, gap, place, unknown_costs};
use crate::escape::escape;
#[cfg(feature = "bpf")]
use crate::model::Kind;
use crate::model::{Buffer, CodePlace, KernelFrame, Label, Stack, UserFrame, counted};

/// The numbers of the fields that are written, by message.
mod field {
    pub(super) const PROFILE_SAMPLE_TYPE: u32 = 1;
    pub(super) const PROFILE_SAMPLE: u32 = 2;
    pub(super) const PROFILE_MAPPING: u32 = 3;
    pub(super) const PROFILE_LOCATION: u32 = 4;
    pub(super) const PROFILE_FUNCTION: u32 = 5;
    pub(super) const PROFILE_STRING_TABLE: u32 = 6;
    pub(super) const PROFILE_TIME_NANOS: u32 = 9;
    pub(super) const PROFILE_COMMENT: u32 = 13;
    pub(super) const VALUE_TYPE_TYPE: u32 = 1;
    pub(super) const VALUE_TYPE_UNIT: u32 = 2;
    pub(super) const SAMPLE_LOCATION_ID: u32 = 1;
    pub(super) const SAMPLE_VALUE: u32 = 2;
    pub(super) const SAMPLE_LABEL: u32 = 3;
    pub(super) const LABEL_KEY: u32 = 1;
    pub(super) const LABEL_STR: u32 = 2;
    pub(super) const LABEL_NUM: u32 = 3;
    pub(super) const MAPPING_ID: u32 = 1;
    pub(super) const MAPPING_MEMORY_LIMIT: u32 = 3;
    pub(super) const MAPPING_FILENAME: u32 = 5;
    pub(super) const MAPPING_BUILD_ID: u32 = 6;
    pub(super) const MAPPING_HAS_FUNCTIONS: u32 = 7;
    pub(super) const MAPPING_HAS_FILENAMES: u32 = 8;
    pub(super) const MAPPING_HAS_LINE_NUMBERS: u32 = 9;
    pub(super) const MAPPING_HAS_INLINE_FRAMES: u32 = 10;
    pub(super) const LOCATION_ID: u32 = 1;
    pub(super) const LOCATION_MAPPING_ID: u32 = 2;
    pub(super) const LOCATION_ADDRESS: u32 = 3;
    pub(super) const LOCATION_LINE: u32 = 4;
    pub(super) const LINE_FUNCTION_ID: u32 = 1;
    pub(super) const LINE_LINE: u32 = 2;
    pub(super) const FUNCTION_ID: u32 = 1;
    pub(super) const FUNCTION_NAME: u32 = 2;
    pub(super) const FUNCTION_SYSTEM_NAME: u32 = 3;
    pub(super) const FUNCTION_FILENAME: u32 = 4;
}

/// A profile of the view's buffers.
#[must_use]
pub fn pprof(view: &View<'_>) -> Vec<u8> {
    let mut profile = Profile::default();
    // The first string is the empty one.
    profile.string("");
    for &row in &view.buffers {
        profile.add(&view.buffer(row));
    }
    profile.write(LIVING, nanos(view.snapshot().taken_at), unknown_costs(view))
}

/// A profile of a trace's balance: what was made, and what of it is left, by stack. `taken_at`:
/// when the trace ended.
#[cfg(feature = "bpf")]
#[must_use]
pub fn trace_pprof(rows: &[crate::trace::BalanceRow], taken_at: SystemTime) -> Vec<u8> {
    const MADE: [(&str, &str); 2] = [("alloc_objects", "count"), ("alloc_space", "bytes")];
    let mut profile = Profile::default();
    profile.string("");
    for row in rows {
        let stack = row.stack.as_deref();
        let locations = profile.locations(stack, stack_gap(stack));
        let maker = Some((profile.label(&row.command), None));
        let kind = row.kind.map(Kind::as_str);
        let sum = &row.sum;
        let values = [sum.made, sum.made_bytes.0, sum.left(), sum.left_bytes.0];
        profile.count(SampleKey { locations, maker, kind }, &values);
    }
    profile.write(&[&MADE, LIVING].concat(), nanos(taken_at), 0)
}

/// Nanoseconds after the epoch.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}

/// Distinct things, numbered as they come.
#[derive(Debug)]
struct Numbered<T> {
    numbers: HashMap<T, u64>,
    all: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { numbers: HashMap::new(), all: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    /// The number of a thing, from 0.
    fn number(&mut self, thing: T) -> u64 {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        let number = self.all.len() as u64;
        self.all.push(thing.clone());
        self.numbers.insert(thing, number);
        number
    }

    /// The same from 1, where 0 means none.
    fn id(&mut self, thing: T) -> u64 {
        self.number(thing) + 1
    }

    /// All of them with their ids.
    fn with_ids(&self) -> impl Iterator<Item = (u64, &T)> {
        (1..).zip(&self.all)
    }
}

/// A file of code. Both are numbers of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mapping {
    file: u64,
    build_id: u64,
}

/// A function. Both are numbers of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Named {
    name: u64,
    file: u64,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Location {
    /// The id of its mapping.
    mapping: u64,
    address: u64,
    /// Whether its functions are known.
    is_named: bool,
    /// Functions by their ids, with lines, the innermost first.
    lines: Vec<(u64, u64)>,
}

/// What the buffers of a sample have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SampleKey {
    /// Locations by their ids, the innermost first.
    locations: Vec<u64>,
    /// The command, as the number of a string, and the pid; `None`: many processes.
    maker: Option<(u64, Option<u32>)>,
    kind: Option<&'static str>,
}

/// A profile as it is gathered.
#[derive(Debug, Default)]
struct Profile {
    strings: Numbered<String>,
    mappings: Numbered<Mapping>,
    functions: Numbered<Named>,
    locations: Numbered<Location>,
    samples: BTreeMap<SampleKey, Vec<u64>>,
}

/// What the values of a sample are, in their order: name and unit. Readers show the last one unless
/// told otherwise.
type Values = [(&'static str, &'static str)];

/// How many buffers there are, and what they cost.
const LIVING: &Values = &[("inuse_objects", "count"), ("inuse_space", "bytes")];

impl Profile {
    fn string(&mut self, text: &str) -> u64 {
        self.strings.number(text.to_owned())
    }

    fn label(&mut self, label: &Label) -> u64 {
        self.strings.number(escape(label.as_bytes()))
    }

    fn add(&mut self, buffer: &Buffer) {
        let birth = birth(buffer);
        let stack = birth.and_then(|birth| birth.stack.as_deref());
        let locations = self.locations(stack, gap(buffer));
        let maker = birth.map(|birth| (self.label(&birth.command), Some(birth.pid.0)));
        let kind = Some(buffer.id.kind.as_str());
        let cost = buffer.cost().map_or(0, |cost| cost.0);
        self.count(SampleKey { locations, maker, kind }, &[1, cost]);
    }

    /// The calls of a stack, and behind them what stands for those that are not known.
    fn locations(&mut self, stack: Option<&Stack>, gap: Option<&'static str>) -> Vec<u64> {
        let mut locations = stack.map_or(Vec::new(), |stack| self.stack(stack));
        if let Some(gap) = gap {
            let name = self.string(gap);
            let mapping = self.unknown_mapping();
            locations.push(self.call(mapping, 0, false, &[(name, 0, 0)]));
        }
        locations
    }

    /// Adds values to those of a sample.
    fn count(&mut self, sample: SampleKey, values: &[u64]) {
        let sums = self.samples.entry(sample).or_insert_with(|| vec![0; values.len()]);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = sum.saturating_add(*value));
    }

    /// The calls of a stack, the innermost first.
    fn stack(&mut self, stack: &Stack) -> Vec<u64> {
        let kernel = stack.kernel.iter().map(|call| self.kernel_call(call)).collect::<Vec<u64>>();
        kernel.into_iter().chain(stack.user.iter().map(|call| self.user_call(call))).collect()
    }

    fn kernel_call(&mut self, call: &KernelFrame) -> u64 {
        let file = match &call.module {
            // As perf names them.
            Some(module) => self.string(&format!("[{}]", escape(module.as_bytes()))),
            None => self.string("[kernel.kallsyms]"),
        };
        let mapping = self.mappings.id(Mapping { file, build_id: 0 });
        let name = self.label(&call.function);
        self.call(mapping, 0, true, &[(name, 0, 0)])
    }

    fn user_call(&mut self, call: &UserFrame) -> u64 {
        let file = call.module.as_ref().map_or(0, |module| self.label(module));
        let (build_id, address) = match call.place {
            CodePlace::File { build_id, offset } => (self.string(&build_id.to_string()), offset),
            CodePlace::Address(address) => (0, address),
        };
        let mapping = match (file, build_id) {
            (0, 0) => self.unknown_mapping(),
            _ => self.mappings.id(Mapping { file, build_id }),
        };
        let functions = call.functions.iter().map(|function| {
            let file = function.file.as_ref().map_or(0, |file| self.label(file));
            (self.label(&function.name), file, u64::from(function.line.unwrap_or(0)))
        });
        let mut functions: Vec<(u64, u64, u64)> = functions.collect();
        let is_named = !functions.is_empty();
        if !is_named {
            functions.push((self.string(&place(call, |file| escape(file.as_bytes()))), 0, 0));
        }
        self.call(mapping, address, is_named, &functions)
    }

    /// What a call is in whose file is not known.
    fn unknown_mapping(&mut self) -> u64 {
        let file = self.string("[unknown]");
        self.mappings.id(Mapping { file, build_id: 0 })
    }

    /// The id of a call. Of each function the strings of its name and file, and the line.
    fn call(&mut self, mapping: u64, address: u64, is_named: bool, functions: &[(u64, u64, u64)]) -> u64 {
        let line = |&(name, file, line): &(u64, u64, u64)| (self.functions.id(Named { name, file }), line);
        let lines = functions.iter().map(line).collect();
        self.locations.id(Location { mapping, address, is_named, lines })
    }

    fn write(mut self, values: &Values, time_nanos: u64, unknown_costs: usize) -> Vec<u8> {
        let mut out = Message::default();
        for (what, unit) in values {
            let mut value_type = Message::default();
            value_type.number(field::VALUE_TYPE_TYPE, self.string(what));
            value_type.number(field::VALUE_TYPE_UNIT, self.string(unit));
            out.message(field::PROFILE_SAMPLE_TYPE, &value_type);
        }
        for (sample, values) in std::mem::take(&mut self.samples) {
            out.message(field::PROFILE_SAMPLE, &self.sample(&sample, &values));
        }
        for (id, mapping) in self.mappings.with_ids() {
            out.message(field::PROFILE_MAPPING, &self.mapping(id, *mapping));
        }
        for (id, location) in self.locations.with_ids() {
            out.message(field::PROFILE_LOCATION, &location.message(id));
        }
        for (id, function) in self.functions.with_ids() {
            out.message(field::PROFILE_FUNCTION, &function.message(id));
        }
        out.number(field::PROFILE_TIME_NANOS, time_nanos.min(i64::MAX as u64));
        if unknown_costs > 0 {
            let buffers = counted(unknown_costs as u64, "buffer", "buffers");
            let comment = self.string(&format!("{buffers} of unknown cost: no bytes of them are counted"));
            out.packed(field::PROFILE_COMMENT, &[comment]);
        }
        self.strings.all.iter().for_each(|text| out.bytes(field::PROFILE_STRING_TABLE, text.as_bytes()));
        out.into_bytes()
    }

    fn sample(&mut self, sample: &SampleKey, values: &[u64]) -> Message {
        let mut out = Message::default();
        out.packed(field::SAMPLE_LOCATION_ID, &sample.locations);
        let values: Vec<u64> = values.iter().map(|&value| value.min(i64::MAX as u64)).collect();
        out.packed(field::SAMPLE_VALUE, &values);
        let mut labels = Vec::new();
        if let Some(kind) = sample.kind {
            labels.push(("kind", field::LABEL_STR, self.string(kind)));
        }
        if let Some((command, pid)) = sample.maker {
            labels.push(("command", field::LABEL_STR, command));
            labels.extend(pid.map(|pid| ("pid", field::LABEL_NUM, pid.into())));
        }
        for (key, of, value) in labels {
            let mut label = Message::default();
            label.number(field::LABEL_KEY, self.string(key));
            label.number(of, value);
            out.message(field::SAMPLE_LABEL, &label);
        }
        out
    }

    /// A mapping, with what is known of all calls in it.
    fn mapping(&self, id: u64, mapping: Mapping) -> Message {
        let within = || self.locations.all.iter().filter(|location| location.mapping == id);
        let lines = || within().flat_map(|location| &location.lines);
        let function = |id: u64| self.functions.all.get((id as usize).wrapping_sub(1));
        let has_names = within().all(|location| location.is_named);
        let has_files = lines().all(|&(id, _)| function(id).is_some_and(|function| function.file != 0));
        let has_lines = lines().all(|&(_, line)| line != 0);
        let mut out = Message::default();
        out.number(field::MAPPING_ID, id);
        if mapping.build_id != 0 {
            let last = within().map(|location| location.address).max().unwrap_or_default();
            out.number(field::MAPPING_MEMORY_LIMIT, last.saturating_add(1));
        }
        out.number(field::MAPPING_FILENAME, mapping.file);
        out.number(field::MAPPING_BUILD_ID, mapping.build_id);
        out.number(field::MAPPING_HAS_FUNCTIONS, has_names.into());
        out.number(field::MAPPING_HAS_FILENAMES, (has_names && has_files).into());
        out.number(field::MAPPING_HAS_LINE_NUMBERS, (has_names && has_lines).into());
        out.number(field::MAPPING_HAS_INLINE_FRAMES, (has_names && has_files && has_lines).into());
        out
    }
}

impl Location {
    fn message(&self, id: u64) -> Message {
        let mut out = Message::default();
        out.number(field::LOCATION_ID, id);
        out.number(field::LOCATION_MAPPING_ID, self.mapping);
        out.number(field::LOCATION_ADDRESS, self.address);
        for &(function, line) in &self.lines {
            let mut inner = Message::default();
            inner.number(field::LINE_FUNCTION_ID, function);
            inner.number(field::LINE_LINE, line);
            out.message(field::LOCATION_LINE, &inner);
        }
        out
    }
}

impl Named {
    fn message(&self, id: u64) -> Message {
        let mut out = Message::default();
        out.number(field::FUNCTION_ID, id);
        out.number(field::FUNCTION_NAME, self.name);
        out.number(field::FUNCTION_SYSTEM_NAME, self.name);
        out.number(field::FUNCTION_FILENAME, self.file);
        out
    }
}
