//! What all pictures of the documents need: text that is safe in SVG.

/// Text as SVG has it, so that it cannot be taken for an element.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a name cannot break the picture.
    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a <b> & c"), "a &lt;b> &amp; c");
    }
}
