//! What the kernel runs: the pure code and the ABI that the XDP program and the host share.
#![no_std]
