//! The XDP program. On the host this is an empty binary, so that plain `cargo build` and `cargo test` take the whole workspace.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
