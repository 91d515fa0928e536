//! Writes a JSON document as it is made, with one line for each value or all on one line.
//!
//! Characters that a terminal would obey are escaped, even where JSON allows them. No value has
//! memory of its own on the way: a document can have millions.
//!
//! Limit: it writes what documents of this crate consist of. Raw bytes and variants with fields are
//! errors, and so are fractions of 32 bits and those that are no numbers. Keys must be text.

use std::fmt::{self, Display};
use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple};
use serde_json::ser::Formatter;

use super::digits::Digits;
use crate::escape::escape_json;

/// How a JSON document is laid out. It says the same in either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonLayout {
    /// One line for each value, indented.
    Lines,
    /// The whole document on one line, without white space between values.
    Compact,
}

/// How many bytes are written at once.
const PIECE: usize = 64 << 10;

/// Writes one document, with a newline at its end.
pub(super) fn document(out: &mut dyn Write, document: &impl Serialize, layout: JsonLayout) -> io::Result<()> {
    let piece = Vec::with_capacity(PIECE + PIECE / 16);
    let mut writer = match layout {
        JsonLayout::Lines => Writer { out, piece, line: 1, step: 2, colon: 2 },
        JsonLayout::Compact => Writer { out, piece, line: 0, step: 0, colon: 1 },
    };
    document.serialize(&mut writer).map_err(|Failed(error)| error)?;
    writer.piece.push(b'\n');
    writer.out.write_all(&writer.piece)
}

/// Writes values one after the other.
struct Writer<'o> {
    out: &'o mut dyn Write,
    /// What is not yet written to `out`.
    piece: Vec<u8>,
    /// How much of [`LINE`] is before a value.
    line: usize,
    /// How much more of it is there inside a list or object.
    step: usize,
    /// How much of [`COLON`] is between a key and its value.
    colon: usize,
}

/// The end of a line, and an indentation that is longer than the deepest of a document.
const LINE: [u8; 33] = *b"\n                                ";

/// What is between a key and its value.
const COLON: [u8; 2] = *b": ";

impl Writer<'_> {
    #[inline]
    fn add(&mut self, text: &[u8]) {
        self.piece.extend_from_slice(text);
    }

    /// Adds the first bytes of a text. To copy a known number of them and to take some back is
    /// faster than to copy few.
    #[inline]
    fn add_first<const N: usize>(&mut self, text: [u8; N], number: usize) {
        let end = self.piece.len() + number;
        self.add(&text);
        self.piece.truncate(end);
    }

    #[inline]
    fn add_number(&mut self, number: u64) {
        self.add(Digits::of(number).as_bytes());
    }

    /// Adds a string.
    fn add_string(&mut self, text: &str) -> io::Result<()> {
        if !is_plain(text.as_bytes()) {
            text.serialize(&mut serde_json::Serializer::with_formatter(&mut self.piece, Harmless))?;
            return Ok(());
        }
        self.piece.push(b'"');
        self.add(text.as_bytes());
        self.piece.push(b'"');
        Ok(())
    }

    /// Begins a value of the innermost list or object: after a comma unless it is the `first`, and
    /// on a line of its own.
    #[inline]
    fn begin(&mut self, first: bool) -> io::Result<()> {
        if self.piece.len() >= PIECE {
            self.out.write_all(&self.piece)?;
            self.piece.clear();
        }
        if !first {
            self.piece.push(b',');
        }
        self.begin_line();
        Ok(())
    }

    /// Begins a line, if there are lines.
    #[inline]
    fn begin_line(&mut self) {
        self.add_first(LINE, self.line);
    }
}

/// Whether text stands for itself inside a JSON string, and no terminal obeys it.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
}

/// Escapes what JSON requires, and what must not reach a terminal.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        out.write_all(escape_json(fragment).as_bytes())
    }
}

/// Why a document could not be written.
#[derive(Debug)]
struct Failed(io::Error);

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: Display>(what: T) -> Failed {
        Failed(io::Error::other(what.to_string()))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed(error)
    }
}

/// The values of an open list or object.
struct Values<'w, 'o> {
    writer: &'w mut Writer<'o>,
    end: u8,
    is_empty: bool,
}

impl<'w, 'o> Values<'w, 'o> {
    #[inline]
    fn open(writer: &'w mut Writer<'o>, [start, end]: [u8; 2]) -> Values<'w, 'o> {
        writer.piece.push(start);
        writer.line += writer.step;
        Values { writer, end, is_empty: true }
    }

    #[inline]
    fn begin(&mut self) -> io::Result<()> {
        self.writer.begin(std::mem::replace(&mut self.is_empty, false))
    }

    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.begin()?;
        value.serialize(&mut *self.writer)
    }

    #[inline]
    fn close(self) -> Result<(), Failed> {
        self.writer.line -= self.writer.step;
        if !self.is_empty {
            self.writer.begin_line();
        }
        self.writer.piece.push(self.end);
        Ok(())
    }
}

impl SerializeSeq for Values<'_, '_> {
    type Ok = ();
    type Error = Failed;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.add(value)
    }

    fn end(self) -> Result<(), Failed> {
        self.close()
    }
}

impl SerializeTuple for Values<'_, '_> {
    type Ok = ();
    type Error = Failed;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.add(value)
    }

    fn end(self) -> Result<(), Failed> {
        self.close()
    }
}

impl SerializeMap for Values<'_, '_> {
    type Ok = ();
    type Error = Failed;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        self.add(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.writer.add_first(COLON, self.writer.colon);
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Failed> {
        self.close()
    }
}

impl SerializeStruct for Values<'_, '_> {
    type Ok = ();
    type Error = Failed;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Failed> {
        self.begin()?;
        // The name of a field needs no escape.
        self.writer.piece.push(b'"');
        self.writer.add(key.as_bytes());
        self.writer.piece.push(b'"');
        self.writer.add_first(COLON, self.writer.colon);
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Failed> {
        self.close()
    }
}

/// Methods for integers of up to 64 bits without a sign.
macro_rules! write_unsigned {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, number: $type) -> Result<(), Failed> {
            self.add_number(number.into());
            Ok(())
        }
    )*};
}

/// Methods for other integers.
macro_rules! write_others {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, number: $type) -> Result<(), Failed> {
            Ok(write!(self.piece, "{number}")?)
        }
    )*};
}

fn unsupported<T>() -> Result<T, Failed> {
    Err(ser::Error::custom("no document has such a value"))
}

impl<'w, 'o> serde::Serializer for &'w mut Writer<'o> {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = Values<'w, 'o>;
    type SerializeTuple = Values<'w, 'o>;
    type SerializeTupleStruct = Impossible<(), Failed>;
    type SerializeTupleVariant = Impossible<(), Failed>;
    type SerializeMap = Values<'w, 'o>;
    type SerializeStruct = Values<'w, 'o>;
    type SerializeStructVariant = Impossible<(), Failed>;

    write_unsigned!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);
    write_others!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    write_others!(serialize_i128: i128, serialize_u128: u128);

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Failed> {
        self.add(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), Failed> {
        unsupported()
    }

    fn serialize_f64(self, number: f64) -> Result<(), Failed> {
        if !number.is_finite() {
            return unsupported();
        }
        // Rust writes it without an exponent.
        Ok(write!(self.piece, "{number}")?)
    }

    fn serialize_char(self, value: char) -> Result<(), Failed> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Failed> {
        Ok(self.add_string(text)?)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Failed> {
        let start = self.piece.len();
        write!(self.piece, "\"{value}\"")?;
        let inside = &self.piece[start + 1..self.piece.len() - 1];
        if !is_plain(inside) {
            let text = String::from_utf8_lossy(inside).into_owned();
            self.piece.truncate(start);
            self.add_string(&text)?;
        }
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Failed> {
        unsupported()
    }

    fn serialize_none(self) -> Result<(), Failed> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Failed> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Failed> {
        self.add(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Failed> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Failed> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Failed> {
        unsupported()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Values<'w, 'o>, Failed> {
        Ok(Values::open(self, *b"[]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Values<'w, 'o>, Failed> {
        Ok(Values::open(self, *b"[]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Failed>, Failed> {
        unsupported()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Failed>, Failed> {
        unsupported()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Values<'w, 'o>, Failed> {
        Ok(Values::open(self, *b"{}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Values<'w, 'o>, Failed> {
        Ok(Values::open(self, *b"{}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Failed>, Failed> {
        unsupported()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(value: &impl Serialize, layout: JsonLayout) -> String {
        let mut text = Vec::new();
        document(&mut text, value, layout).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn value(text: &'static str) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        /// Check that any document of printable ASCII is laid out as serde_json's printers do it.
        #[test]
        fn laid_out_as_usual(value in value("[ -~]{0,8}")) {
            let lines = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(written(&value, JsonLayout::Lines), lines + "\n");
            let compact = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(written(&value, JsonLayout::Compact), compact + "\n");
        }

        /// Check that any document is read back as what it was, and that nothing in it ends a line
        /// of the compact form.
        #[test]
        fn read_back(value in value("([a-z]|[\\p{Cc}\\p{M}\\p{Cf}]|.|[\"\\\\]){0,8}")) {
            let [lines, compact] = [JsonLayout::Lines, JsonLayout::Compact].map(|layout| written(&value, layout));
            prop_assert_eq!(&serde_json::from_str::<Value>(&lines).unwrap(), &value);
            prop_assert_eq!(&serde_json::from_str::<Value>(&compact).unwrap(), &value);
            prop_assert_eq!(compact.matches('\n').count(), 1);
        }

        /// Check that text is escaped alike, whether it stands ready or is formatted.
        #[test]
        fn formatted_text(text in "([a-z]|[\\p{Cc}\\p{M}\\p{Cf}]|.|[\"\\\\]){0,8}") {
            struct Formatted<'t>(&'t str);
            impl Serialize for Formatted<'_> {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self.0)
                }
            }
            prop_assert_eq!(
                written(&Formatted(&text), JsonLayout::Lines),
                written(&text, JsonLayout::Lines)
            );
        }

        /// Check that a document that is longer than a piece is whole.
        #[test]
        fn in_pieces(numbers in prop::collection::vec(any::<u64>(), 5000..6000)) {
            let text = written(&numbers, JsonLayout::Compact);
            prop_assert!(text.len() > PIECE);
            prop_assert_eq!(serde_json::from_str::<Vec<u64>>(&text).unwrap(), numbers);
        }
    }

    /// Check that a sum beyond 64 bits is written, with its sign.
    #[test]
    fn large_numbers() {
        assert_eq!(written(&i128::MIN, JsonLayout::Lines), format!("{}\n", i128::MIN));
    }

    /// Check that a value that this writer does not know is refused, and not written wrongly.
    #[test]
    fn unknown_values() {
        for number in [f64::NAN, f64::INFINITY] {
            assert!(document(&mut Vec::new(), &number, JsonLayout::Lines).is_err());
        }
        assert!(document(&mut Vec::new(), &1.5f32, JsonLayout::Lines).is_err());
    }

    /// Check that fractions are written without an exponent, also very large and very small ones.
    #[test]
    fn fractions() {
        let mut text = Vec::new();
        assert!(document(&mut text, &[1.5, -0.25, 3.0, 1e20, 1e-7], JsonLayout::Compact).is_ok());
        assert_eq!(text, b"[1.5,-0.25,3,100000000000000000000,0.0000001]\n");
    }
}
