//! `lsbuf::fuzzing::shm_names`, which says what is promised.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::shm_names(data));
