//! Writes messages of protobuf, as far as a profile needs it: numbers, bytes, messages in messages,
//! and packed lists of numbers.
//!
//! Limit: it knows no schema. Numbers of fields are the caller's business.

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// How the value of a field is written: as one number, or as bytes after their length.
#[derive(Clone, Copy)]
enum Wire {
    Number = 0,
    Bytes = 2,
}

impl Message {
    /// A field with a number. A missing one is 0, so 0 is left out.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, Wire::Number);
            push_number(&mut self.0, value);
        }
    }

    /// A field with text or bytes, also if there are none.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, Wire::Bytes);
        push_number(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A field with a message.
    pub(super) fn message(&mut self, field: u32, inner: &Message) {
        self.bytes(field, &inner.0);
    }

    /// A field with a list of numbers.
    pub(super) fn packed(&mut self, field: u32, numbers: &[u64]) {
        let mut packed = Vec::with_capacity(numbers.len());
        numbers.iter().for_each(|&number| push_number(&mut packed, number));
        if !packed.is_empty() {
            self.bytes(field, &packed);
        }
    }

    /// What was written.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, wire: Wire) {
        push_number(&mut self.0, u64::from(field) << 3 | wire as u64);
    }
}

/// Seven bits a byte, the lowest first. The highest bit of a byte says that more follow.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the bytes of the examples in protobuf's own description of its encoding.
    #[test]
    fn as_described() {
        let mut inner = Message::default();
        inner.number(1, 150);
        assert_eq!(inner.0, [0x08, 0x96, 0x01]);
        let mut outer = Message::default();
        outer.bytes(2, b"testing");
        assert_eq!(outer.0, [&[0x12, 0x07][..], b"testing"].concat());
        let mut outer = Message::default();
        outer.message(3, &inner);
        assert_eq!(outer.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut packed = Message::default();
        packed.packed(6, &[3, 270, 86942]);
        assert_eq!(packed.0, [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
    }

    /// Check that the largest number has ten bytes, that zeros in a list stay, and that what is as
    /// if it were missing is left out.
    #[test]
    fn extremes() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        assert_eq!(message.0, [&[0x08][..], &[0xff; 9], &[0x01]].concat());
        let mut message = Message::default();
        message.number(1, 0);
        message.packed(2, &[]);
        assert!(message.0.is_empty());
        message.packed(2, &[0, 0]);
        assert_eq!(message.0, [0x12, 0x02, 0, 0]);
    }
}
