//! See `splitter_fuzz::answers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::answers::check(octets));
