//! Writes `fuzz/seeds/header`, `icmp` and `rewrite` anew: one frame of each kind that the tests' generator makes. From the repository's root:
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --no-default-features --example seeds
//! ```
//!
//! Of the other targets' seeds those of `state` were written by an agent, and the rest by hand.

use std::{collections::BTreeMap, fs, io, path::Path};

use splitter_fuzz::{
    oracle::{Oracle, sample},
    packet::generate::{Generator, Scenario},
};

/// From which so many frames are looked through.
const FRAMES: usize = 20_000;
/// A longer frame teaches a fuzzer nothing.
const LONGEST: usize = 200;

fn main() -> io::Result<()> {
    let mut generator = Generator::new(Scenario::from(&sample::world()), 1);
    let mut oracle = Oracle::new(sample::world());
    let mut kinds: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for pick in 0..FRAMES {
        let frame = generator.next(oracle.knowledge());
        let expectation = oracle.expect(&frame.bytes, frame.ingress);
        let performed = oracle.perform(&expectation, pick);
        oracle.judge(&frame.bytes, frame.ingress, &performed.observed()).expect("it did what was expected");
        if frame.bytes.len() <= LONGEST {
            let label = frame.label;
            // Each kind of packet once as it is, and each oddity once; ICMP errors with each of them, for their own target.
            let kind = match (label.twist, label.base) {
                ("none", base) => base.to_owned(),
                (twist, "ICMP error") => format!("ICMP error {twist} {}", label.detail),
                (twist, _) => format!("{twist} {}", label.detail),
            };
            kinds.entry(kind).or_insert_with(|| frame.bytes.to_vec());
        }
    }
    for target in ["header", "icmp", "rewrite"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&directory)?;
        for (number, (label, frame)) in kinds.iter().enumerate() {
            let about_icmp = label.starts_with("ICMP error");
            if about_icmp != (target == "icmp") && label != "ICMP error" {
                continue;
            }
            let name = label.trim().to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            // What to do with it: checksums made right in every second one; any number.
            let choices = [u8::from(number % 2 == 0), u8::try_from(number % 256).expect("below 256")];
            fs::write(directory.join(name), [&choices[..], frame].concat())?;
        }
    }
    Ok(())
}
