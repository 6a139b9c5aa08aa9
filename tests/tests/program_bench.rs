//! The bench of a packet's cost, with a few runs of each case: every run is the run meant, or it fails. Its figures mean nothing here.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;
use splitter_tests::bench::{
    cost,
    options::Options,
    report::Report,
    tables::{self, Medium},
};

#[test]
fn each_kind_of_run_is_the_run_meant_and_gives_a_row_as_promised() -> Result<()> {
    let only = [
        "nat-v4-udp",
        "dsr-v6-udp",
        "refused",
        "not-ours-v6",
        "vlan",
        "new-redirect",
        "single-buffer",
        "nat-v6-tcp-new-networks",
    ];
    let options = Options { only: only.map(str::to_owned).to_vec(), ..Options::default() };
    let rows = cost::rehearse(&options)?;
    for name in [
        "nat-v4-udp-reply",
        "nat-v4-udp-new",
        "dsr-v6-udp-established",
        "dsr-v6-udp-refused",
        "nat-v6-tcp-refused-unknown",
        "nat-v4-tcp-refused-no-port",
        "not-ours-v6-nat-port",
        "nat-v4-tcp-established-vlan",
        "nat-v4-tcp-new-redirect",
        "dsr-v4-tcp-established-single-buffer",
    ] {
        ensure!(rows.iter().any(|row| row.cost.case == name), "no row {name}");
        ensure!(tables::cost(&rows, Medium::Terminal).contains(name), "{name} isn't shown");
    }
    let report = Report { cost: rows.into_iter().map(|row| row.cost).collect(), ..Report::default() };
    let json = serde_json::to_value(&report)?;
    let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>());
    let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
    ensure!(keys(&json) == named(&["machine", "cost", "wire", "scale"]), "{json}");
    ensure!(keys(&json["machine"]) == named(&["cpu", "cores", "kernel", "date", "command"]), "{json}");
    for row in json["cost"].as_array().into_iter().flatten() {
        let expected = named(&["case", "ns", "min", "max", "raw_ns", "empty_ns", "rounds", "flows", "services"]);
        ensure!(keys(row) == expected, "{row}");
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        ensure!(number("min") <= number("ns") && number("ns") <= number("max"), "{row}");
    }
    Ok(())
}

#[test]
fn many_flows_are_many_connections_and_another_build_is_measured_beside() -> Result<()> {
    // This very build, as if it were another.
    let own = std::env::current_exe()?;
    let object = own.ancestors().map(|directory| directory.join("bpf/splitter.o")).find(|path| path.is_file());
    ensure!(object.is_some(), "no bpf/splitter.o in the target directory; `cargo xtask build` builds it");
    let options =
        Options { only: vec!["nat-v4-tcp-reply".to_owned(), "dsr-v4-tcp-new".to_owned()], object, ..Options::default() };
    let rows = cost::rehearse(&options)?;
    ensure!(rows.iter().any(|row| row.cost.flows > 1 && row.cost.services == 1_000), "many flows to many services");
    ensure!(rows.iter().all(|row| row.other.is_some()), "a row without the other build");
    ensure!(tables::cost(&rows, Medium::Terminal).contains("other build"), "it isn't shown");
    Ok(())
}

#[test]
fn a_case_that_there_is_not_is_an_error() {
    let options = Options { only: vec!["no-such-case".to_owned()], ..Options::default() };
    let error = cost::rehearse(&options).expect_err("there is no such case").to_string();
    assert!(error.contains("no-such-case"), "{error}");
}
