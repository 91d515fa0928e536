//! `lsbuf::fuzzing::sharing`, which says what is promised.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::sharing(data));
