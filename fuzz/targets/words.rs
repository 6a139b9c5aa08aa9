//! See `splitter_fuzz::words`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::words::check(octets));
