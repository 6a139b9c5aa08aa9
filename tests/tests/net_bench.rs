//! The bench's network carries what it is to measure: packets arrive, whatever their speed.

use splitter_tests::bench::wire::{Path, trickle};

const PACKETS: u32 = 2_000;

#[test]
fn packets_of_the_generator_reach_both_backends() {
    for path in [Path::SplitterDsr, Path::SplitterNat, Path::XdpMinimal, Path::Routing] {
        let (sent, received) = trickle(path, PACKETS).expect("a flood");
        let all = received.iter().sum::<u64>();
        let what = format!("{}: {sent} sent, {received:?} received", path.name());
        assert!(sent >= u64::from(PACKETS) / 10 && all <= sent && all * 10 >= sent * 9, "{what}");
        // Half each; the generator takes its flows in turn.
        assert!(received.len() == 2 && received.iter().all(|one| one * 10 >= all * 3), "{what}");
    }
}

#[test]
fn packets_of_the_generator_reach_the_one_backend_of_the_redirect() {
    let (sent, received) = trickle(Path::XdpRedirect, PACKETS).expect("a flood");
    let what = format!("{sent} sent, {received:?} received");
    assert!(sent >= u64::from(PACKETS) / 10 && received[0] <= sent && received[0] * 10 >= sent * 9, "{what}");
    assert_eq!(received[1..], [0], "{what}");
}
