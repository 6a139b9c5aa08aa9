//! See `splitter_fuzz::state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| splitter_fuzz::state::check(octets));
