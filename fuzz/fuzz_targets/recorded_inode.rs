//! Fuzzes `lsbuf::fuzzing::recorded_inode`. Its documentation says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lsbuf::fuzzing::recorded_inode(data));
