//! Text of other processes, times, numbers: what several parts of a document have.

use std::time::SystemTime;

use jiff::Timestamp;

use super::super::{Dev, Label};
use crate::escape::unescape;

/// The text of a key and, where the text lost bytes, the key with `_bytes` at its end.
pub(super) fn label(text: Option<String>, bytes: Option<String>) -> Result<Option<Label>, String> {
    match (text, bytes) {
        (Some(_), Some(bytes)) => Ok(Some(Label::from(&*raw(&bytes)?))),
        (text, _) => Ok(text.map(|text| Label::from(text.as_str()))),
    }
}

/// The same of a list, whose second key has every item.
pub(super) fn labels(texts: Vec<String>, bytes: Option<Vec<String>>) -> Result<Vec<Label>, String> {
    match bytes {
        None => Ok(texts.iter().map(|text| Label::from(text.as_str())).collect()),
        Some(bytes) => bytes.iter().map(|bytes| Ok(Label::from(&*raw(bytes)?))).collect(),
    }
}

fn raw(bytes: &str) -> Result<Vec<u8>, String> {
    unescape(bytes).ok_or_else(|| format!("{bytes:?} is not escaped as \\xNN"))
}

/// A device number as `MAJOR:MINOR`.
pub(super) fn dev(text: &str) -> Option<Dev> {
    let (major, minor) = text.split_once(':')?;
    Some(Dev { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// An address as `0x…`.
pub(super) fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("{text:?} is no address"))
}

/// A time as in RFC 3339.
pub(super) fn time(text: &str) -> Result<SystemTime, String> {
    text.parse::<Timestamp>().map(SystemTime::from).map_err(|_| format!("{text:?} is no time"))
}
