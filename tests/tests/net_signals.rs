//! What Splitter counts and times of real connections, against an observer that counts the same from the frames on the node's link.

use std::{
    collections::BTreeMap,
    env,
    mem::offset_of,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use splitter_ebpf::{
    abi::{HISTOGRAM_BUCKETS, Histogram, kind},
    histogram,
    moment::{TICK_NS, Ticks},
};
use splitter_tests::{
    lab::{Namespace, Topology},
    node::{Family, Kind, Site},
    workload::{
        http::{Mode as Web, Pace},
        observer::{Observer, Seen},
    },
};
use splitter_user::{
    api::wire::Counters,
    model::{Cohort, Mode},
};

/// Real connections; [`COUNT`] asks for another number.
const CONNECTIONS: u64 = 100_000;
const COUNT: &str = "SPLITTER_SIGNALS_CONNECTIONS";
/// An attempt's time, so long that a SYN lost twice is in it.
const CONNECT: &str = "timeouts.connect = \"20s\"";
/// All of it may take so long.
const LIMIT: Duration = Duration::from_secs(300);
/// So much may lie between the observer's look at a frame and the program's: it waits in the device's queue behind others.
const JITTER: Duration = Duration::from_micros(50);
/// From here on that is less than a bucket. Half of the handshakes have to take so long, or little would be compared.
const COMPARABLE: Duration = Duration::from_millis(1);
/// Until what is under way at the load's end has ended.
const END: Duration = Duration::from_secs(30);

/// One in 400 first segments is lost, one in 400 with data is answered with a RST.
const MISFORTUNES: &str = "
table ip misfortunes {
    chain in {
        type filter hook input priority 0;
        tcp flags & (fin|syn|rst|ack) == syn numgen random mod 400 < 1 drop
        tcp flags & (psh|syn|rst) == psh numgen random mod 400 < 1 reject with tcp reset
    }
}
";

#[test]
fn what_is_counted_of_real_connections_is_what_an_observer_counts() {
    let connections = env::var(COUNT).map_or(CONNECTIONS, |text| text.parse().expect("a number of connections"));
    let builder = Site::builder(Topology::OneArm, Mode::Nat).backends(3, 2).clients(8).weight("40%").more(CONNECT);
    let site = builder.start().expect("a site");
    for backend in ["stable1", "canary1"] {
        misfortunes(&site.server(backend).namespace);
    }
    // Between machines that lie side by side in one kernel a handshake takes microseconds, in which nobody can look twice at the same moment. Behind a slow
    // link it takes as long as others' segments before it.
    for (backend, rate) in [("stable1", "2mbit"), ("stable3", "2mbit"), ("canary1", "1900kbit")] {
        slow(&site.server(backend).namespace, rate);
    }
    // One of each version refuses.
    for backend in ["stable2", "canary2"] {
        site.server(backend).set_web(Web::Refuse).expect("it refuses");
    }
    let service = site.target(Kind::Web, Family::V4);
    let switch = site.lab.ns("switch").expect("a switch");
    let observer = Observer::start(switch, "node", service, LIMIT).expect("an observer");

    let mut load = site.web(Family::V4, connections);
    (load.pace, load.duration, load.timeout) = (Pace::Concurrent(256), LIMIT, Duration::from_secs(20));
    let begun = Instant::now();
    let summary = load.run(site.lab.client()).expect("a load").summary();
    let took = begun.elapsed();
    println!("{connections} connections in {took:.1?}: {:.0}/s", connections as f64 / took.as_secs_f64());

    let counted = settled(&site);
    let observed = observer.stop().expect("observed");
    assert_eq!((observed.lost, observed.odd), (0, 0), "the observer has seen everything, and understood it");
    assert_eq!((observed.live, observed.pending), (0, 0), "everything has ended");
    let mut sum = Seen::default();
    for server in &site.servers {
        let address = server.backend(Kind::Web, Family::V4);
        let (is, seen) = (&counted[&address], &observed.backends[&address]);
        let what = server.identity.to_string();
        println!("{what}: {seen:?}", seen = Seen { handshakes: Vec::new(), ..seen.clone() });
        let numbers = |opened, completed, refused, by_backend, reset, closed, retransmitted| {
            BTreeMap::from([
                ("opened", opened),
                ("completed", completed),
                ("refused", refused),
                ("reset by the backend", by_backend),
                ("reset", reset),
                ("closed", closed),
                ("SYNs sent again", retransmitted),
            ])
        };
        let told = |count: Option<u64>| count.expect("nat sees it");
        let (by_backend, again) = (told(is.reset_by_backend), told(is.retransmitted));
        assert_eq!(
            numbers(is.opened, is.completed, told(is.refused), by_backend, is.reset, is.closed, again),
            numbers(
                seen.opened,
                seen.completed,
                seen.refused,
                seen.reset_by_backend,
                seen.reset_by_backend + seen.reset_by_client,
                seen.closed,
                seen.retransmitted
            ),
            "{what}"
        );
        let (established, ended) = (told(is.established), told(is.ended));
        assert_eq!((is.timed_out, is.unreachable, established, ended), (0, Some(0), seen.completed, seen.completed), "{what}");
        sum.opened += seen.opened;
        sum.refused += seen.refused;
        sum.reset_by_backend += seen.reset_by_backend;
        sum.retransmitted += seen.retransmitted;
    }
    // The load knows as well, but not of what its kernel does by itself.
    assert_eq!((summary.refused, summary.connections), (sum.refused, connections), "{summary:?}");
    assert!(sum.opened >= connections && sum.refused > connections / 10, "{sum:?}");
    assert!(sum.reset_by_backend > 0 && sum.retransmitted > 0, "misfortunes happened: {sum:?}");
    for cohort in Cohort::ALL {
        let of = site.of(cohort).map(|server| &observed.backends[&server.backend(Kind::Web, Family::V4)]);
        let mut spans: Vec<Duration> = of.flat_map(|seen| seen.handshakes.iter().copied()).collect();
        spans.sort_unstable();
        times_agree(cohort, &histogram_of(&site, cohort), &spans);
    }
}

/// Waits until nothing lives any more, and says what was counted.
fn settled(site: &Site) -> BTreeMap<std::net::SocketAddr, Counters> {
    let deadline = Instant::now() + END;
    loop {
        let status = site.node.service(&Kind::Web.service(Family::V4)).expect("a status");
        let backends = status.cohorts.into_iter().flat_map(|cohort| cohort.backends);
        let counted: BTreeMap<_, _> = backends.map(|backend| (backend.address, backend.counters.expect("known"))).collect();
        let pending = |is: &Counters| is.opened - is.completed - is.refused.unwrap_or(0) - is.timed_out;
        let live = counted.values().map(|is| is.established.unwrap_or(0) - is.ended.unwrap_or(0)).sum::<u64>();
        if live == 0 || Instant::now() > deadline {
            let pending: u64 = counted.values().map(pending).sum();
            assert_eq!(live, 0, "connections live after their load; {pending} attempts came to nothing: {counted:?}");
            return counted;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The node's histogram of a cohort's handshakes, bucket by bucket: there is one service that has any. (What is exported has fewer edges.)
fn histogram_of(site: &Site, cohort: Cohort) -> Vec<u64> {
    let pin = site.node.pins().path().join("maps/HISTOGRAMS");
    let map = Map::Array(MapData::from_pin(pin).expect("it's pinned"));
    let map = Array::<_, [u8; size_of::<Histogram>()]>::try_from(map).expect("an array of histograms");
    let mut sums = vec![0; HISTOGRAM_BUCKETS];
    let first = 2 * u32::from(cohort == Cohort::Canary) + kind::HANDSHAKE;
    for index in (first..map.len()).step_by(4) {
        let octets = map.get(&index, 0).expect("there are so many");
        let words = octets[offset_of!(Histogram, counts)..].chunks_exact(8);
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u64::from_ne_bytes(word.try_into().expect("eight octets"));
        }
    }
    sums
}

/// Whether quantiles of the histogram and of the observer's times are at most a bucket apart.
fn times_agree(cohort: Cohort, counts: &[u64], spans: &[Duration]) {
    assert_eq!(counts.iter().sum::<u64>(), spans.len() as u64, "{cohort}: handshakes that were timed");
    let median = spans[spans.len() / 2];
    assert!(median >= COMPARABLE, "{cohort}: the links are not slow: {median:?}");
    let mut most = 0;
    for percent in (5..=95).step_by(5).chain([99]) {
        let rank = (spans.len() * percent).div_ceil(100);
        let mut below = 0;
        let reaches = |count: &u64| {
            below += *count;
            below >= rank as u64
        };
        let is = counts.iter().position(reaches).expect("all of them are somewhere");
        let seen = spans[rank - 1];
        let bucket = |span: Duration| histogram::bucket(Ticks((span.as_nanos() as u64 / TICK_NS) as u32));
        let (from, to) = (bucket(seen.saturating_sub(JITTER)), bucket(seen + JITTER));
        if percent % 25 == 0 || percent > 90 {
            let begins = (histogram::begins(is) * TICK_NS) as f64 / 1e3;
            println!(
                "{cohort}: p{percent} from {begins:.1} µs (bucket {is}), observed {:.1} µs ({from} to {to})",
                seen.as_nanos() as f64 / 1e3
            );
        }
        let away = from.saturating_sub(is).max(is.saturating_sub(to));
        most = most.max(away);
        assert!(away <= 1, "{cohort}: p{percent} is in bucket {is}, observed {seen:?} is in buckets {from} to {to}");
    }
    println!("{cohort}: no quantile is more than {most} buckets away");
}

fn slow(namespace: &Namespace, rate: &str) {
    let mut command = std::process::Command::new("tc");
    command.args(["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "1600", "limit", "1000000"]);
    namespace.run(command).expect("a slow link");
}

fn misfortunes(namespace: &Namespace) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), MISFORTUNES).expect("written");
    let mut command = std::process::Command::new("nft");
    command.arg("-f").arg(file.path());
    namespace.run(command).expect("nft takes the rules");
}
