//! `lsbuf::fuzzing::segments`, which says what is promised.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::segments(data));
