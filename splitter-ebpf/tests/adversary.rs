//! What an outsider learns of the hash: one who may choose address and port, sees for very many of them which cohort they went to, knows this source text, and
//! doesn't know the seed.
//!
//! That whoever finds a port that hits may keep it, is what sticky means. What is tested is the rest: from the answers seen nothing follows for a
//! connection that was not tried. Tests can refute that and not prove it: the hash is no pseudo-random function, see `docs/security.md`.
//!
//! All chance here comes from fixed seeds, so a run is like any other. Levels are those of one look; a test that takes many looks divides.

use std::collections::{HashMap, HashSet};

use splitter_ebpf::{address::Address, affinity, hash};

/// Services' seeds, as agents make them; and what a person might write by hand goes through the same derivation before it gets here.
const SEEDS: [[u64; 2]; 4] = [
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344],
    [0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89],
    [0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c],
    [0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917],
];

/// Half of all connections go to the canary: the weight at which an answer says the most.
const HALF: u32 = 1 << 31;

/// A client, as the attacker chooses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Client {
    high: u64,
    low: u64,
    port: u16,
}

impl Client {
    fn v4(octets: [u8; 4], port: u16) -> Self {
        let address = Address::v4(octets);
        Self { high: address.high, low: address.low, port: port.to_be() }
    }

    fn hash(self, seed: [u64; 2]) -> hash::Hash {
        hash::client(seed, Address { high: self.high, low: self.low }, self.port)
    }

    fn hits(self, seed: [u64; 2]) -> bool {
        self.hash(seed).place() < HALF
    }
}

/// SplitMix64: a generator that anybody can check.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Somebody in a /16, on any port.
    fn v4(&mut self) -> Client {
        let [a, b, c, d, ..] = self.next().to_le_bytes();
        Client::v4([198, 18, a, b], u16::from_le_bytes([c, d]))
    }

    /// Somebody in one /64, on any port.
    fn v6(&mut self) -> Client {
        Client { high: HOME, low: self.next(), port: self.next() as u16 }
    }
}

/// A provider's /64, as it is loaded.
const HOME: u64 = 0x0000_cc00_b80d_0120;

/// How far a count is from half of `of`, in standard deviations.
fn deviations(count: u32, of: u32) -> f64 {
    (f64::from(count) - f64::from(of) / 2.0) / (f64::from(of) / 4.0).sqrt()
}

#[test]
fn a_port_that_hits_goes_on_hitting() {
    // Inherent in a sticky split: this is what an outsider can do, and why `never_canary` exists.
    let mut random = Random(1);
    for seed in SEEDS {
        let kept: Vec<Client> = (0..1_000).map(|_| random.v4()).filter(|client| client.hits(seed)).collect();
        assert!(kept.len() > 400 && kept.iter().all(|client| client.hits(seed)));
    }
}

/// Differences between two clients that an attacker who has read the hash tries: XOR by XOR, sum by sum.
fn differences() -> Vec<(u64, u16)> {
    // Public multipliers, now or formerly in the hash. By its inverse, a chosen difference behind the multiplication is one in front of it.
    let multipliers: [u64; 5] = [1, 0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];
    let mut all = Vec::new();
    for multiplier in multipliers {
        let inverse = inverse(multiplier);
        for bit in 0..64 {
            let by = (1_u64 << bit).wrapping_mul(inverse);
            all.extend([(by, 0), (by.wrapping_neg(), 0)]);
            // The port can take back what the address did to the low bits, or to what a byte swap makes of the high ones.
            all.extend([0, 1, 7, 8, 15].map(|port| (by, 1_u16 << port)));
            all.extend([0, 3, 8, 14].map(|port| (by, 3_u16 << port)));
            if bit < 16 {
                all.push((by, 1 << bit));
                all.push((by, (1_u16 << bit).swap_bytes()));
            } else if bit >= 48 {
                all.push((by, 1 << (bit - 48)));
                all.push((by, (1_u16 << (bit - 48)).swap_bytes()));
            }
        }
        // What a xor-shift by half makes one bit of.
        all.extend((0..32).map(|bit| ((1_u64 << bit | 1 << (bit + 32)).wrapping_mul(inverse), 0)));
    }
    all.extend((0..16).map(|bit| (0, 1 << bit)));
    all.sort_unstable();
    all.dedup();
    all
}

/// The inverse of an odd number modulo 2⁶⁴ (Newton).
fn inverse(odd: u64) -> u64 {
    (0..6).fold(odd, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse))))
}

#[test]
fn nobody_builds_two_connections_of_one_place_without_the_seed() {
    let mut random = Random(2);
    let mask = (1 << 14) - 1;
    let (mut pairs, mut shared) = (0_u32, 0_u32);
    for (by, port) in differences() {
        for seed in SEEDS {
            for _ in 0..16 {
                let one = random.v6();
                for other in [
                    Client { low: one.low.wrapping_add(by), port: one.port ^ port, ..one },
                    Client { low: one.low ^ by, port: one.port ^ port, ..one },
                ] {
                    let (a, b) = (one.hash(seed), other.hash(seed));
                    assert_ne!(a, b, "{one:x?} and {other:x?}, a difference of {by:#x} and {port:#x}, are one connection");
                    pairs += 1;
                    shared += u32::from(affinity::buckets(a, mask).0 == affinity::buckets(b, mask).0);
                }
            }
        }
    }
    // By chance one in 16,384 shares its first bucket.
    let expected = f64::from(pairs) / f64::from(mask + 1);
    println!("{pairs} pairs, {shared} in one bucket, {expected:.1} expected");
    assert!(
        f64::from(shared) < expected + 5.0 * expected.sqrt(),
        "{shared} of {pairs} pairs share a bucket, {expected:.1} by chance"
    );
}

#[test]
fn a_client_says_nothing_about_another_at_a_chosen_difference() {
    let differences = differences();
    let mut random = Random(3);
    // A first look at each, then a long one at those that stood out.
    let looks = |one: fn(&mut Random) -> Client, by: u64, port: u16, random: &mut Random, seed, pairs: u32| {
        let agree = (0..pairs).filter(|_| {
            let one = one(random);
            let other = Client { low: one.low.wrapping_add(by), port: one.port ^ port, ..one };
            one.hits(seed) == other.hits(seed)
        });
        deviations(agree.count() as u32, pairs)
    };
    let mut longest = 0.0_f64;
    for seed in SEEDS {
        let mut first: Vec<_> = differences
            .iter()
            .map(|(by, port)| (looks(Random::v6, *by, *port, &mut random, seed, 1 << 10).abs(), *by, *port))
            .collect();
        first.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, by, port) in first.into_iter().take(64) {
            let away = looks(Random::v6, by, port, &mut random, seed, 1 << 17);
            longest = longest.max(away.abs());
            // 256 looks: by chance one above 5 in 1.5·10⁻⁴ of all runs, were they different.
            assert!(away.abs() < 5.0, "clients {by:#x}, {port:#x} apart agree {away:.1} standard deviations off a half");
        }
    }
    println!("{} differences, the longest looks at most {longest:.1} standard deviations off", differences.len());
}

#[test]
fn no_line_through_the_ports_of_an_address_leads_on() {
    // All 65,536 ports of an address, and every linear function over GF(2) of the port's bits at once: the Walsh–Hadamard transform.
    for (number, seed) in SEEDS.into_iter().enumerate() {
        let spectrum = |last: u8| {
            let sign = |port| if Client::v4([198, 18, 0, last], port).hits(seed) { 1_i32 } else { -1 };
            let mut values: Vec<i32> = (0..=u16::MAX).map(sign).collect();
            let mut half = 1;
            while half < values.len() {
                for block in values.chunks_exact_mut(2 * half) {
                    let (left, right) = block.split_at_mut(half);
                    for (a, b) in left.iter_mut().zip(right) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                half *= 2;
            }
            values
        };
        let (here, there) = (spectrum(number as u8), spectrum(100 + number as u8));
        let best = (1..here.len()).max_by_key(|mask| here[*mask].abs()).expect("there are some");
        // In standard deviations: 256. The largest of 65,535 is above 6 by chance in 1.3·10⁻⁴ of all.
        let (fitted, predicted) = (f64::from(here[best]) / 256.0, f64::from(there[best]) / 256.0);
        println!("the best of 65,535 lines: {fitted:.1} where it was fitted, {predicted:.1} at another address");
        assert!(fitted.abs() < 6.0 && predicted.abs() < 4.0, "{fitted:.1}, {predicted:.1}");
    }
}

/// What a model sees of a client: the bits that vary.
fn bits(client: Client) -> Vec<bool> {
    let varied = (48..64).map(|bit| client.low >> bit & 1 != 0);
    varied.chain((0..16).map(|bit| client.port >> bit & 1 != 0)).collect()
}

/// Those, all pairs of them, and a constant.
fn pairs(client: Client) -> Vec<bool> {
    let single = bits(client);
    let mut all = vec![true];
    for (at, first) in single.iter().enumerate() {
        all.push(*first);
        all.extend(single[..at].iter().map(|second| *first && *second));
    }
    all
}

const FRESH: u32 = 20_000;

/// How far a model is from guessing, on connections that it hasn't seen.
fn judge(what: &str, seed: [u64; 2], random: &mut Random, seen: &HashSet<Client>, predict: impl Fn(Client) -> bool) {
    let fresh = std::iter::repeat_with(|| random.v4()).filter(|client| !seen.contains(client)).take(FRESH as usize);
    let right = fresh.filter(|client| predict(*client) == client.hits(seed)).count() as u32;
    let away = deviations(right, FRESH);
    println!(
        "{what}: {:.2}% of {FRESH} fresh connections foretold, {away:+.1} standard deviations from guessing",
        f64::from(right) / f64::from(FRESH) * 100.0
    );
    // 16 models: by chance one above 4 in 10⁻³ of all runs, were they different.
    assert!(away.abs() < 4.0, "{what} foretells {away:.1} standard deviations better or worse than guessing");
}

#[test]
fn models_that_have_seen_very_many_answers_foretell_no_fresh_one() {
    for (number, seed) in SEEDS.into_iter().enumerate() {
        let mut random = Random(100 + number as u64);
        let answers: HashMap<Client, bool> =
            (0..200_000).map(|_| random.v4()).map(|client| (client, client.hits(seed))).collect();
        let seen: HashSet<Client> = answers.keys().copied().collect();
        let mut trained: Vec<(Client, bool)> = answers.iter().map(|(client, hit)| (*client, *hit)).collect();
        trained.sort_unstable_by_key(|(client, _)| (client.low, client.port));

        let parity = quadratic(&trained);
        judge("quadratic forms over GF(2)", seed, &mut random, &seen, |client| {
            pairs(client).iter().zip(&parity).fold(false, |sum, (bit, weight)| sum ^ (*bit && *weight))
        });

        let tallies = bayes(&trained);
        judge("naive Bayes over octets and their pairs", seed, &mut random, &seen, |client| {
            octets(client).iter().map(|key| tallies.get(key).copied().unwrap_or(0.0)).sum::<f64>() > 0.0
        });

        let weights = logistic(&trained);
        judge("logistic regression over bits and their pairs", seed, &mut random, &seen, |client| {
            pairs(client).iter().zip(&weights).filter(|(bit, _)| **bit).map(|(_, weight)| weight).sum::<f64>() > 0.0
        });

        judge("the nearest neighbours by port, address and bits", seed, &mut random, &seen, |client| {
            let port = u16::from_be(client.port);
            let apart = (1..=64_u16).flat_map(|by| [port.wrapping_add(by), port.wrapping_sub(by)]);
            let ports = apart.map(|port| Client { port: port.to_be(), ..client });
            let flipped = (0..16).map(|bit| Client { port: client.port ^ 1 << bit, ..client });
            let addresses = (48..64).map(|bit| Client { low: client.low ^ 1 << bit, ..client });
            let known = ports.chain(flipped).chain(addresses).filter_map(|near| answers.get(&near));
            known.map(|hit| if *hit { 1 } else { -1 }).sum::<i32>() > 0
        });
    }
}

/// The quadratic form over GF(2) that is right about as many answers as it has coefficients: were the hash one, about all others as well.
fn quadratic(trained: &[(Client, bool)]) -> Vec<bool> {
    let width = pairs(trained[0].0).len();
    let mut rows: Vec<Option<(Vec<bool>, bool)>> = vec![None; width];
    for (client, hit) in trained.iter().step_by(97).take(2 * width) {
        let (mut row, mut value) = (pairs(*client), *hit);
        while let Some(lead) = row.iter().position(|bit| *bit) {
            match &rows[lead] {
                Some((pivot, at)) => {
                    row.iter_mut().zip(pivot).for_each(|(bit, other)| *bit ^= *other);
                    value ^= at;
                }
                None => {
                    rows[lead] = Some((row, value));
                    break;
                }
            }
        }
    }
    let mut form = vec![false; width];
    for lead in (0..width).rev() {
        if let Some((row, value)) = &rows[lead] {
            form[lead] = (lead + 1..width).fold(*value, |sum, at| sum ^ (row[at] && form[at]));
        }
    }
    form
}

/// What a Bayesian counts: octets by place, and pairs of them.
fn octets(client: Client) -> Vec<(usize, u8, u8)> {
    let [.., c, d] = client.low.to_le_bytes();
    let [e, f] = client.port.to_le_bytes();
    let all = [c, d, e, f];
    let single = all.iter().enumerate().map(|(place, octet)| (place, *octet, 0));
    let pairs = (0..all.len()).flat_map(|a| (0..a).map(move |b| (10 + 10 * a + b, a, b)));
    single.chain(pairs.map(|(place, a, b)| (place, all[a], all[b]))).collect()
}

/// The logarithm of how much more often each goes to the canary.
fn bayes(trained: &[(Client, bool)]) -> HashMap<(usize, u8, u8), f64> {
    let mut tallies: HashMap<_, (f64, f64)> = HashMap::new();
    for (client, hit) in trained {
        for key in octets(*client) {
            let (hits, misses) = tallies.entry(key).or_insert((1.0, 1.0));
            *(if *hit { hits } else { misses }) += 1.0;
        }
    }
    tallies.into_iter().map(|(key, (hits, misses))| (key, (hits / misses).ln())).collect()
}

/// Weights by gradient descent.
fn logistic(trained: &[(Client, bool)]) -> Vec<f64> {
    let mut weights = vec![0.0; pairs(trained[0].0).len()];
    for (client, hit) in trained.iter().step_by(7) {
        let on: Vec<usize> = pairs(*client).iter().enumerate().filter(|(_, bit)| **bit).map(|(at, _)| at).collect();
        let sum: f64 = on.iter().map(|at| weights[*at]).sum();
        let error = f64::from(u8::from(*hit)) - 1.0 / (1.0 + (-sum).exp());
        on.into_iter().for_each(|at| weights[at] += 0.002 * error);
    }
    weights
}
