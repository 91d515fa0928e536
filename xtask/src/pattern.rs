//! Names with one `*`. That is enough for kernels and packages, and tells what the `*` stands for.

/// What the `*` of `pattern` stands for in `text`, or `None` if they do not match. Without `*`,
/// both must be equal.
pub(crate) fn capture<'text>(pattern: &str, text: &'text str) -> Option<&'text str> {
    match pattern.split_once('*') {
        Some((before, after)) => text.strip_prefix(before)?.strip_suffix(after),
        None => (pattern == text).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::capture;

    /// Check that a pattern matches whole names only.
    #[test]
    fn matches_whole_names() {
        assert_eq!(capture("6.*", "6.12"), Some("12"));
        assert_eq!(capture("6.1", "6.12"), None);
        assert_eq!(capture("*", "x"), Some("x"));
        assert_eq!(capture("ab*ba", "aba"), None);
    }
}
