//! Buffers in the JSON of `lsbuf show`.

use anyhow::Context;
use serde_json::Value;

/// The buffers of an answer.
pub(super) fn buffers(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut answer: Value = serde_json::from_str(text).context("parsing the answer")?;
    match answer["buffers"].take() {
        Value::Array(buffers) => Ok(buffers),
        _ => anyhow::bail!("the answer has no list of buffers"),
    }
}

/// The process numbers of a buffer's holders, the smallest first.
pub(super) fn holders(buffer: &Value) -> Vec<u32> {
    let pid = |holder: &Value| u32::try_from(holder["pid"].as_u64()?).ok();
    let mut pids: Vec<u32> = list(&buffer["holders"]).iter().filter_map(pid).collect();
    pids.sort_unstable();
    pids
}

/// The elements of a list; none if it is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Process numbers, separated by blanks.
pub(super) fn pids<'a>(pids: impl IntoIterator<Item = &'a u32>) -> String {
    pids.into_iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the holders of a buffer are found, in order.
    #[test]
    fn holders_in_order() {
        let text = r#"{"buffers": [{"ino": 7, "holders": [{"pid": 9}, {"pid": 3}]}]}"#;
        let buffers = buffers(text).unwrap();
        assert_eq!(pids(&holders(&buffers[0])), "3 9");
    }

    /// Check that an answer without buffers is an error and not an empty list.
    #[test]
    fn no_buffers() {
        assert!(buffers("{}").is_err());
    }
}
