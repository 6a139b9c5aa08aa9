//! What the agent tells of what the data plane measured.

use std::time::Duration;

use splitter_ebpf::{
    histogram,
    moment::{TICK_NS, Ticks},
};

use super::{
    CANARY, STABLE,
    rig::{CONFIG, Rig, address, key, name},
};
use crate::{
    api::wire::{Recent, ResumeWord},
    controller::Cohorts,
    dataplane::{CohortTimes, Lease, Times},
    model::{Cohort, OnLeaseExpiry},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_what_each_cohort_did_lately_and_not_what_it_did_before() {
    let rig = Rig::start_with(CONFIG, |_, dataplane| {
        dataplane.count(key(), address(CANARY), |counters| (counters.opened, counters.timed_out) = (1_000, 1_000));
        dataplane.times(key(), Cohorts { canary: took(50, Duration::from_secs(3)), ..Cohorts::default() });
    })
    .await;
    rig.dataplane.count(key(), address(CANARY), |counters| {
        counters.opened += 150;
        (counters.completed, counters.refused, counters.established, counters.ended) = (120, 30, 121, 100);
    });
    rig.dataplane.count(key(), address(STABLE), |counters| (counters.opened, counters.completed) = (9, 9));
    let mut canary = took(120, Duration::from_millis(2));
    let before = took(50, Duration::from_secs(3));
    canary.handshake.counts.iter_mut().zip(&before.handshake.counts).for_each(|(count, before)| *count += before);
    rig.dataplane.times(key(), Cohorts { canary, stable: took(9, Duration::from_millis(1)) });

    let recent = async |cohort| -> Option<Recent> {
        let status = rig.client().status(Some(&name("web"))).await.expect("status");
        status.services[0].cohort(cohort).and_then(|cohort| cohort.recent.clone())
    };
    let canary = loop {
        match recent(Cohort::Canary).await {
            Some(recent) if recent.attempts > 0 => break recent,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!((canary.attempts, canary.resolved, canary.failed, canary.failure_ratio), (150, 150, 30, Some(0.2)));
    let times = canary.handshake.expect("handshakes are seen");
    assert_eq!(times.count, 120);
    for quantile in [times.p50_us, times.p90_us, times.p99_us] {
        assert!(quantile.is_some_and(|us| (1_810..=2_190).contains(&us)), "within a bucket of 2 ms: {times:?}");
    }
    let stable = recent(Cohort::Stable).await.expect("known");
    assert_eq!((stable.attempts, stable.failure_ratio), (9, None), "of 9 there is no share");
    assert_eq!(stable.handshake.map(|times| (times.count, times.p50_us)), Some((9, None)));

    let status = rig.client().status(None).await.expect("status");
    let web = &status.services[0];
    assert_eq!(web.cohort(Cohort::Canary).and_then(|cohort| cohort.sums?.live()), Some(21));
    assert_eq!((web.breaker.as_ref(), web.on_lease_expiry), (None, Some(OnLeaseExpiry::Stable)));
    let list = rig.client().backends(&name("web")).await.expect("backends");
    assert!(list.cohorts.iter().all(|cohort| cohort.recent.is_none()));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_histograms_the_living_and_the_lease() {
    let rig = Rig::start(CONFIG).await;
    rig.dataplane.count(key(), address(CANARY), |counters| {
        (counters.established, counters.ended, counters.retransmitted, counters.reset_by_backend) = (121, 100, 7, 3);
    });
    rig.dataplane.times(key(), Cohorts { canary: took(120, Duration::from_millis(2)), ..Cohorts::default() });
    let metrics = rig.metrics().await;
    let labels = r#"service="web",cohort="canary""#;
    for line in [
        format!(r#"splitter_handshake_seconds_bucket{{le="0.001483008",{labels}}} 0"#),
        format!(r#"splitter_handshake_seconds_bucket{{le="0.002097152",{labels}}} 120"#),
        format!(r#"splitter_handshake_seconds_bucket{{le="+Inf",{labels}}} 120"#),
        format!("splitter_handshake_seconds_count{{{labels}}} 120"),
        format!("splitter_handshake_seconds_sum{{{labels}}} 0.24"),
        format!("splitter_first_response_seconds_count{{{labels}}} 0"),
        format!(r#"splitter_backend_connections_live{{{labels},backend="10.0.1.9:8080"}} 21"#),
        format!(r#"splitter_backend_syn_retransmits_total{{{labels},backend="10.0.1.9:8080"}} 7"#),
        format!(r#"splitter_backend_connections_reset_by_backend_total{{{labels},backend="10.0.1.9:8080"}} 3"#),
        "splitter_agent_lease_seconds 10.0".to_owned(),
        "splitter_agent_leases_ran_out_total 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("splitter_service_breaker_tripped{"), "it has none: {metrics}");
    assert!(!metrics.contains("splitter_agent_lease_ran_out_timestamp_seconds "), "it never had: {metrics}");

    rig.dataplane.set_lease(Lease::RanOut(Duration::from_secs(3)));
    rig.until(|rig| rig.dataplane.lease() != Lease::RanOut(Duration::from_secs(3))).await;
    let metrics = rig.metrics().await;
    assert!(metrics.contains("splitter_agent_leases_ran_out_total 1\n"), "{metrics}");
    assert!(metrics.contains("splitter_agent_lease_ran_out_timestamp_seconds "), "{metrics}");
    let lease = rig.client().status(None).await.expect("status").agent.lease.expect("it has one");
    assert_eq!((lease.length_ms, lease.left_ms, lease.resume), (10_000, 10_000, ResumeWord::Auto));
    assert_eq!(lease.ran_out.map(|lapse| lapse.lasted_ms), Some(3_000));
    rig.stop().await.expect("stopped in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mode_does_not_show_is_not_told() {
    let dsr = CONFIG.replace("protocol = \"tcp\"", "protocol = \"udp\"\nmode = \"dsr\"").replace(":8080", ":80");
    let rig = Rig::start(&dsr.replace("refused = \"5%\"", "timeout = \"5%\"")).await;
    let metrics = rig.metrics().await;
    assert!(metrics.contains("splitter_backend_connections_live{"), "{metrics}");
    for unseen in ["splitter_handshake_seconds", "splitter_first_response_seconds", "splitter_backend_syn_retransmits"] {
        assert!(!metrics.contains(unseen), "{unseen}");
    }
    rig.stop().await.expect("stopped in order");
}

/// So many handshakes that took so long, and no first response.
fn took(count: u64, each: Duration) -> CohortTimes {
    let mut counts = vec![0; histogram::LAST + 1];
    let ticks = u32::try_from(each.as_nanos() / u128::from(TICK_NS)).expect("short");
    counts[histogram::bucket(Ticks(ticks))] = count;
    let handshake = Times { sum: each * u32::try_from(count).expect("few"), counts };
    CohortTimes { handshake, first_response: Times::default() }
}
