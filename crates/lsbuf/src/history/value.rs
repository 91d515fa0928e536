//! How the model's values are stored in SQLite.
//!
//! SQLite's integers are signed and have 64 bits. A number from 2^63 on becomes a negative one and
//! comes back as it was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Value, ValueRef};
use serde::Serialize;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::model::{Bytes, Label};

/// A number as it is stored.
pub(super) fn number(number: u64) -> Value {
    Value::Integer(number.cast_signed())
}

/// A value that may be unknown.
pub(super) fn maybe<T>(value: Option<T>, store: impl Fn(T) -> Value) -> Value {
    value.map_or(Value::Null, store)
}

/// A size that may be unknown.
pub(super) fn bytes(size: Option<Bytes>) -> Value {
    maybe(size, |size| number(size.0))
}

/// A count that may be unknown.
pub(super) fn count(count: Option<u64>) -> Value {
    maybe(count, number)
}

/// A truth value.
pub(super) fn flag(is: bool) -> Value {
    Value::Integer(is.into())
}

/// A word of this program's.
pub(super) fn word(word: &str) -> Value {
    Value::Text(word.to_owned())
}

/// Text that a process chose: TEXT if it is UTF-8, else a BLOB.
pub(super) fn label(label: &Label) -> Value {
    match std::str::from_utf8(label.as_bytes()) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(label.as_bytes().to_vec()),
    }
}

/// A value in the words of the JSON schema.
pub(super) fn json(value: impl Serialize) -> Value {
    // The model's types have no maps with other keys than text, so this does not fail.
    maybe(serde_json::to_string(&value).ok(), Value::Text)
}

/// A list as JSON, or nothing if it is empty.
pub(super) fn json_list<T: Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json(list) }
}

/// A time in microseconds since 1970; negative before that.
pub(super) fn micros(time: SystemTime) -> i64 {
    let of = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -of(before.duration()), of)
}

/// A time in nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> Value {
    let since = time.duration_since(UNIX_EPOCH).ok();
    maybe(since.and_then(|since| i64::try_from(since.as_nanos()).ok()), Value::Integer)
}

/// The time that many microseconds after 1970.
pub(super) fn time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let moved = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    moved.unwrap_or(UNIX_EPOCH)
}

/// A number as it was before it was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned(pub(super) u64);

impl FromSql for Unsigned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Unsigned> {
        value.as_i64().map(|number| Unsigned(number.cast_unsigned()))
    }
}

impl FromSql for Label {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Label> {
        value.as_bytes().map(Label::from)
    }
}

/// A value that is stored in the words of the JSON schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Json<T>> {
        serde_json::from_str(value.as_str()?).map(Json).map_err(FromSqlError::other)
    }
}

/// A value that is stored as its word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<T>(pub(super) T);

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Word<T>> {
        let word: StrDeserializer<'_, Error> = value.as_str()?.into_deserializer();
        T::deserialize(word).map(Word).map_err(FromSqlError::other)
    }
}
