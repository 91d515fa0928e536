//! `lsbuf::fuzzing::hidden_refs`, which says what is promised.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::hidden_refs(data));
