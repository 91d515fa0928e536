//! Fuzzes `lsbuf::fuzzing::segments`. Its documentation says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::segments(data));
