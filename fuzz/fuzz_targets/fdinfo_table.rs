//! `lsbuf::fuzzing::fdinfo_table`, which says what is promised.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::fdinfo_table(data));
