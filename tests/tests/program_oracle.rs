//! The program that ships against the oracle: what it does with a frame must be what `docs/packet-path.md` says, to the octet,
//! and no counter may move but those that the page names.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use splitter_tests::{
    oracle::{Oracle, sample},
    packet::generate::{Generator, Scenario},
    rig::{self, Rig},
};

#[test]
fn generated_frames_meet_what_the_page_says() -> Result<()> {
    for seed in 0..4 {
        compare(seed, 100_000)?;
    }
    Ok(())
}

fn compare(seed: u64, frames: usize) -> Result<()> {
    let mut world = sample::world();
    world.leeway.fragments_expire = true;
    rig::with(&world.clone(), rig::AMPLE, move |rig: &mut Rig| {
        let mut oracle = Oracle::new(world);
        let mut generator = Generator::new(Scenario::from(oracle.world()), seed);
        let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let started = std::time::Instant::now();
        for number in 0..frames {
            let frame = generator.next(oracle.knowledge());
            if frame.bytes.len() < rig::SHORTEST {
                continue;
            }
            let seen = rig.run(&frame.bytes, frame.ingress)?;
            let expectation = oracle.expect(&frame.bytes, frame.ingress);
            match oracle.check(&expectation, &seen.observed()) {
                Ok(matched) => oracle.learn(matched),
                Err(difference) => {
                    let mut key = format!("{} / {:?} {:?}", frame.label, seen.action, seen.counted);
                    key += &format!(" {:?}", std::mem::discriminant(&difference.kind));
                    let text = format!(
                        "#{number} by {}: {difference}\n  in  {:02x?}\n  out {:02x?}",
                        frame.ingress,
                        &frame.bytes[..],
                        seen.frame
                    );
                    differences.entry(key).or_insert((0, text)).0 += 1;
                }
            }
        }
        println!("seed {seed}: {frames} frames in {:.1?}, {} connections", started.elapsed(), oracle.connections());
        for (key, (count, text)) in &differences {
            println!("{count} x {key}\n  {text}");
        }
        ensure!(differences.is_empty(), "{} differences", differences.values().map(|(count, _)| count).sum::<usize>());
        Ok(())
    })
}
