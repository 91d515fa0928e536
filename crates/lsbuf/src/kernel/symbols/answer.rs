//! Names of functions as bytes: what a child answers, and what the cache keeps.
//!
//! An answer is its length (four bytes), the number of functions (one byte), and for each function
//! a byte of flags (1: inlined into the next one; 2: has a file; 4: has a line), the name, the file
//! and the line, as far as there are any. A text is its length (two bytes) and its bytes. Numbers
//! are in little-endian byte order.
//!
//! The bytes come from a process that read an untrusted file, or from the cache. So nothing in them
//! is trusted; an answer that is not exactly of this form is none.

use crate::model::{Function, Label};

/// The most functions at one place, and the longest text. A longer text is cut off; a name of
/// C++ can be very long, and says little after that.
pub(super) const FUNCTIONS: usize = 64;
pub(super) const TEXT: usize = 1024;

const INLINED: u8 = 1;
const HAS_FILE: u8 = 2;
const HAS_LINE: u8 = 4;

/// The functions at one place.
pub(super) struct Answer<'f>(pub(super) &'f [Function]);

impl Answer<'_> {
    /// As bytes, with their length.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let functions = self.0.get(..FUNCTIONS).unwrap_or(self.0);
        let mut bytes = vec![0; 4];
        bytes.push(u8::try_from(functions.len()).unwrap_or_default());
        for Function { name, file, line, inlined } in functions {
            let flag = |is: bool, flag| if is { flag } else { 0 };
            bytes.push(
                flag(*inlined, INLINED) | flag(file.is_some(), HAS_FILE) | flag(line.is_some(), HAS_LINE),
            );
            put_text(&mut bytes, name);
            file.iter().for_each(|file| put_text(&mut bytes, file));
            line.iter().for_each(|line| bytes.extend(line.to_le_bytes()));
        }
        let length = u32::try_from(bytes.len() - 4).unwrap_or_default();
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }
}

/// Writes a text.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &Label) {
    let text = text.as_bytes();
    let text = text.get(..TEXT).unwrap_or(text);
    bytes.extend(u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(text);
}

/// The answers in these bytes, up to the first that is cut off or malformed.
pub(super) fn all(mut bytes: &[u8]) -> Vec<Vec<Function>> {
    let mut answers = Vec::new();
    while let Some(answer) = take_answer(&mut bytes) {
        answers.push(answer);
    }
    answers
}

/// Takes one answer from the beginning.
pub(super) fn take_answer(bytes: &mut &[u8]) -> Option<Vec<Function>> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let (mut answer, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let [count] = take(&mut answer)?;
    if usize::from(count) > FUNCTIONS {
        return None;
    }
    let mut functions = Vec::new();
    for _ in 0..count {
        let [flags] = take(&mut answer)?;
        if flags > (INLINED | HAS_FILE | HAS_LINE) {
            return None;
        }
        let mut function = Function::new(take_text(&mut answer)?);
        function.inlined = flags & INLINED != 0;
        if flags & HAS_FILE != 0 {
            function.file = Some(take_text(&mut answer)?);
        }
        if flags & HAS_LINE != 0 {
            function.line = Some(u32::from_le_bytes(take(&mut answer)?));
        }
        functions.push(function);
    }
    answer.is_empty().then_some(functions)
}

/// Takes a text from the beginning.
pub(super) fn take_text(bytes: &mut &[u8]) -> Option<Label> {
    let length = usize::from(u16::from_le_bytes(take(bytes)?));
    let (text, rest) = bytes.split_at_checked(length).filter(|_| length <= TEXT)?;
    *bytes = rest;
    Some(Label::from(text))
}

/// Takes so many bytes from the beginning.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label() -> impl Strategy<Value = Label> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Label::from(bytes.as_slice()))
    }

    fn function() -> impl Strategy<Value = Function> {
        (label(), proptest::option::of(label()), any::<Option<u32>>(), any::<bool>())
            .prop_map(|(name, file, line, inlined)| Function { name, file, line, inlined })
    }

    proptest! {
        /// Check that answers come back, up to where they are cut off.
        #[test]
        fn round_trip(
            answers in proptest::collection::vec(proptest::collection::vec(function(), 0..5), 0..5),
            cut: prop::sample::Index,
        ) {
            let bytes: Vec<Vec<u8>> = answers.iter().map(|functions| Answer(functions).to_bytes()).collect();
            prop_assert_eq!(&all(&bytes.concat()), &answers);
            let cut = cut.index(bytes.concat().len() + 1);
            let mut end = 0;
            let ends = bytes.iter().map(|bytes| { end += bytes.len(); end });
            let whole = ends.filter(|&end| end <= cut).count();
            prop_assert_eq!(&all(&bytes.concat()[..cut]), &answers[..whole]);
        }
    }

    /// Check that a text that is too long is cut off, and that more functions than can be are left
    /// out, so that the answer can be read back.
    #[test]
    fn limits() {
        let function = Function::new(vec![b'x'; TEXT + 9].as_slice().into());
        let back = all(&Answer(&vec![function; FUNCTIONS + 9]).to_bytes()).remove(0);
        assert_eq!((back.len(), back[0].name.as_bytes().len()), (FUNCTIONS, TEXT));
    }
}
