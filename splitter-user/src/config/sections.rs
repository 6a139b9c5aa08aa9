//! Sections as written, each value by itself: what could be read is there, what could not was reported.

use std::{io, net::IpAddr, net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    Agent, Nat, Resume, Tables, XdpMode,
    document::{Found, List, Problems, Reported, Table},
    error::Mark,
    rollout::{self, RawRollout},
    rules, schema, values,
};
use crate::model::{
    Affinity, BackendWeight, Breaker, Cohort, Existing, Factor, Mode, NetworkList, OnLeaseExpiry, Protocol, Seed, ServiceName,
    Timeouts, Weight,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Signs of life come with the samples; so many have to fail before the lease runs out.
const SAMPLES_PER_LEASE: u32 = 3;

/// `[agent]`.
pub(super) fn agent(file: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Agent, Reported> {
    let Some(table) = file.table("agent", &schema::AGENT, "[agent]", problems)? else {
        return Err(file.missing("agent", problems));
    };
    let interfaces = interfaces(&table, problems);
    let modes = [("native", XdpMode::Native), ("generic", XdpMode::Generic), ("auto", XdpMode::Auto)];
    let xdp_mode = table.value("xdp_mode", problems, |v| values::word(v, &modes));
    let socket = table.value("socket", problems, values::socket_path);
    let socket_group = table.optional("socket_group", problems, values::group);
    let metrics_address = table.value("metrics_address", problems, values::metrics_address);
    let state_directory = table.value("state_directory", problems, values::absolute_path);
    let pin_directory = table.value("pin_directory", problems, values::absolute_path);
    let intervals = 10 * MILLISECOND..=10 * SECOND;
    let sample_interval = table.value("sample_interval", problems, |v| values::duration(v, intervals));
    let detach_on_stop = table.value("detach_on_stop", problems, values::boolean);
    let lease = table.value("lease", problems, |v| values::duration(v, 500 * MILLISECOND..=600 * SECOND));
    let resume = table.value("resume", problems, |v| values::word(v, &[("auto", Resume::Auto), ("manual", Resume::Manual)]));
    let (sample_interval, lease) = (sample_interval?.value, lease?);
    if lease.value < sample_interval * SAMPLES_PER_LEASE {
        let message = format!(
            "the lease is renewed with each sample, and {} is less than {SAMPLES_PER_LEASE} times sample_interval ({}): make it longer, or sample more often",
            humantime::format_duration(lease.value),
            humantime::format_duration(sample_interval)
        );
        return Err(problems.report(lease.at, &table.inner("lease"), message));
    }
    Ok(Agent {
        interfaces: interfaces?,
        xdp_mode: xdp_mode?.value,
        socket: socket?.value,
        socket_group: socket_group?.map(|group| group.value),
        metrics_address: metrics_address?.value,
        state_directory: state_directory?.value,
        pin_directory: pin_directory?.value,
        sample_interval,
        detach_on_stop: detach_on_stop?.value,
        lease: lease.value,
        resume: resume?.value,
    })
}

fn interfaces(table: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Vec<String>, Reported> {
    let place = table.inner("interfaces");
    let mut names: Vec<String> = Vec::new();
    let list = table.list("interfaces", problems, |index, value, problems| {
        let at = value.span().start;
        let place = format!("{place} {}", index + 1);
        let name = values::interface(value.get_ref()).map_err(|why| problems.report(at, &place, why))?;
        if names.contains(&name) {
            return Err(problems.report(at, &place, format_args!("\"{name}\" is listed twice: name each interface once")));
        }
        names.push(name);
        Ok(())
    });
    match list.missing {
        Some(reported) => Err(reported),
        None if names.is_empty() => {
            let at = table.get("interfaces").map_or(table.at, |value| value.span().start);
            Err(problems.report(at, &place, "no interface is named: the program is attached to at least one"))
        }
        None => Ok(names),
    }
}

/// `[nat]`.
pub(super) fn nat(file: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Nat, Reported> {
    let empty = toml::map::Map::new();
    let table = file
        .table("nat", &schema::NAT, "[nat]", problems)?
        .unwrap_or_else(|| Table::open(&empty, file.at, &schema::NAT, "[nat]", problems));
    let place = table.inner("addresses");
    let mut addresses: Vec<IpAddr> = Vec::new();
    let list = table.list("addresses", problems, |index, value, problems| {
        let at = value.span().start;
        let place = format!("{place} {}", index + 1);
        let address = values::address(value.get_ref()).map_err(|why| problems.report(at, &place, why))?;
        if let Some(fault) = rules::fault(address) {
            return Err(problems.report(at, &place, format_args!("{address} {fault}")));
        }
        if addresses.contains(&address) {
            return Err(problems.report(at, &place, format_args!("{address} is listed twice: name each address once")));
        }
        addresses.push(address);
        Ok(())
    });
    let ports = table.value("ports", problems, values::ports);
    list.missing.map_or(Ok(()), Err)?;
    Ok(Nat { addresses, ports: ports?.value })
}

/// `[tables]`, and where it stands.
pub(super) fn tables(file: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Found<Tables>, Reported> {
    let empty = toml::map::Map::new();
    let table = file
        .table("tables", &schema::TABLES, "[tables]", problems)?
        .unwrap_or_else(|| Table::open(&empty, file.at, &schema::TABLES, "[tables]", problems));
    let services = table.value("services", problems, |v| values::size(v, 1..=4_096));
    let backends = table.value("backends", problems, |v| values::size(v, 1..=16_384));
    let connections = table.value("connections", problems, |v| values::size(v, 1_024..=4_194_304));
    let networks = table.value("networks", problems, |v| values::size(v, 1..=1_048_576));
    let value = Tables {
        services: services?.value,
        backends: backends?.value,
        connections: connections?.value.next_power_of_two(),
        networks: networks?.value,
    };
    Ok(Found { value, at: table.at })
}

/// One `[[service]]` as written.
pub(super) struct RawService {
    /// Where its heading stands.
    pub(super) at: usize,
    /// In words.
    pub(super) label: String,
    pub(super) name: Result<Found<ServiceName>, Reported>,
    pub(super) protocol: Result<Found<Protocol>, Reported>,
    pub(super) address: Result<Found<SocketAddr>, Reported>,
    pub(super) mode: Result<Found<Mode>, Reported>,
    pub(super) affinity: Result<Found<Affinity>, Reported>,
    pub(super) weight: Result<Found<Weight>, Reported>,
    pub(super) seed: Result<Option<Found<Seed>>, Reported>,
    pub(super) stable: List<RawBackend>,
    pub(super) canary: List<RawBackend>,
    pub(super) always_canary: RawNetworks,
    pub(super) never_canary: RawNetworks,
    pub(super) timeouts: Result<Timeouts, Reported>,
    pub(super) breach: Result<Option<RawBreach>, Reported>,
    pub(super) breaker: Result<Option<RawBreaker>, Reported>,
    pub(super) rollout: Result<Option<RawRollout>, Reported>,
    pub(super) on_lease_expiry: Result<Found<OnLeaseExpiry>, Reported>,
}

/// A backend as written.
pub(super) type RawBackend = (SocketAddr, BackendWeight);

/// One of a service's two lists of networks.
pub(super) struct RawNetworks {
    pub(super) found: Vec<IpNet>,
    /// Where each of them stands.
    pub(super) spots: Vec<Spot>,
    pub(super) missing: Option<Reported>,
}

/// Where a network stands. Its line is only counted when it is asked for: there may be 100,000 of them.
#[derive(Clone)]
pub(super) enum Spot {
    /// At an octet of the configuration.
    Here(usize),
    /// In a file that it names.
    File(Mark),
}

/// `[service.breach]` as written.
pub(super) struct RawBreach {
    pub(super) at: usize,
    pub(super) refused: Option<Found<Weight>>,
    pub(super) reset: Option<Found<Weight>>,
    pub(super) timeout: Option<Found<Weight>>,
    pub(super) min_attempts: u64,
    pub(super) window: Found<Duration>,
    pub(super) existing: Existing,
}

/// `[service.breaker]` as written.
pub(super) struct RawBreaker {
    pub(super) at: usize,
    pub(super) refused: Option<Found<Weight>>,
    pub(super) timeout: Option<Found<Weight>>,
    pub(super) reset: Option<Found<Weight>>,
    pub(super) retransmit: Option<Found<Weight>>,
    pub(super) min_attempts: u32,
    pub(super) window: Duration,
    pub(super) stable_factor: Option<Factor>,
    pub(super) existing: Existing,
}

/// One `[[service]]`, the `index`th from 0. `read` gives the files that it names.
pub(super) fn service(
    index: usize,
    value: &Spanned<DeValue<'_>>,
    problems: &mut Problems<'_>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
) -> Result<RawService, Reported> {
    let at = value.span().start;
    let by_number = format!("service {}", index + 1);
    let DeValue::Table(keys) = value.get_ref() else {
        return Err(problems.report(at, &by_number, values::expected("a table [[service]]", value.get_ref())));
    };
    let written_name = keys.get("name").and_then(|name| name.get_ref().as_str());
    let label = written_name.map_or(by_number, |name| format!("service \"{name}\""));
    let table = Table::open(keys, at, &schema::SERVICE, &label, problems);
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let modes = [("nat", Mode::Nat), ("dsr", Mode::Dsr)];
    let affinities = [("connection", Affinity::Connection), ("client", Affinity::Client)];
    let expiries = [("stable", OnLeaseExpiry::Stable), ("hold", OnLeaseExpiry::Hold)];
    Ok(RawService {
        at,
        name: table.value("name", problems, values::service_name),
        protocol: table.value("protocol", problems, |v| values::word(v, &protocols)),
        address: table.value("address", problems, values::socket_address),
        mode: table.value("mode", problems, |v| values::word(v, &modes)),
        affinity: table.value("affinity", problems, |v| values::word(v, &affinities)),
        weight: table.value("weight", problems, values::weight),
        seed: table.optional("seed", problems, values::seed),
        stable: backends(&table, Cohort::Stable, problems),
        canary: backends(&table, Cohort::Canary, problems),
        always_canary: networks(&table, NetworkList::AlwaysCanary, problems, read),
        never_canary: networks(&table, NetworkList::NeverCanary, problems, read),
        timeouts: timeouts(&table, problems),
        breach: breach(&table, problems),
        breaker: breaker(&table, problems),
        rollout: rollout::rollout(&table, problems),
        on_lease_expiry: table.value("on_lease_expiry", problems, |v| values::word(v, &expiries)),
        label,
    })
}

fn backends(table: &Table<'_, '_>, cohort: Cohort, problems: &mut Problems<'_>) -> List<RawBackend> {
    table.list(cohort.as_str(), problems, |index, value, problems| {
        let place = format!("{}, {cohort} backend {}", table.place, index + 1);
        let at = value.span().start;
        let DeValue::Table(keys) = value.get_ref() else {
            let address = values::socket_address(value.get_ref()).map_err(|why| problems.report(at, &place, why))?;
            return Ok((address, BackendWeight::ONE));
        };
        let table = Table::open(keys, at, &schema::BACKEND, &place, problems);
        let address = table.value("address", problems, values::socket_address);
        let weight = table.value("weight", problems, |v| {
            // Any number is let through to the model, whose error says what to do about a weight of 0.
            let number = values::integer(v, 0..=u64::MAX)?;
            BackendWeight::try_from(u32::try_from(number).unwrap_or(u32::MAX)).map_err(|why| why.to_string())
        });
        Ok((address?.value, weight?.value))
    })
}

fn networks(
    table: &Table<'_, '_>,
    which: NetworkList,
    problems: &mut Problems<'_>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
) -> RawNetworks {
    let (key, file_key) = match which {
        NetworkList::AlwaysCanary => ("always_canary", "always_canary_file"),
        NetworkList::NeverCanary => ("never_canary", "never_canary_file"),
    };
    let place = table.inner(key);
    let mut networks = RawNetworks { found: Vec::new(), spots: Vec::new(), missing: None };
    let list = table.list(key, problems, |index, value, problems| {
        let at = value.span().start;
        values::network(value.get_ref()).map_err(|why| problems.report(at, &format!("{place} {}", index + 1), why))
    });
    networks.missing = list.missing;
    for (_, network) in list.found {
        networks.found.push(network.value);
        networks.spots.push(Spot::Here(network.at));
    }
    match table.optional(file_key, problems, values::file_path) {
        Ok(None) => {}
        Ok(Some(path)) => network_file(&table.inner(file_key), &path, problems, read, &mut networks),
        Err(reported) => networks.missing = Some(reported),
    }
    networks
}

/// A file of networks: one a line, `#` begins a comment.
fn network_file(
    place: &str,
    path: &Found<PathBuf>,
    problems: &mut Problems<'_>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
    networks: &mut RawNetworks,
) {
    let text = match read(&path.value) {
        Ok(text) => text,
        Err(why) => {
            let message = format!("cannot read {}: {why}", path.value.display());
            networks.missing = Some(problems.report(path.at, place, message));
            return;
        }
    };
    let file: Arc<str> = Arc::from(path.value.display().to_string());
    for (index, line) in text.lines().enumerate() {
        let written = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if written.is_empty() {
            continue;
        }
        let column = line.chars().take_while(|c| c.is_whitespace()).count() + 1;
        let mark = Mark { file: Arc::clone(&file), line: index + 1, column };
        match values::parse_network(written) {
            Ok(network) => {
                networks.found.push(network);
                networks.spots.push(Spot::File(mark));
            }
            Err(why) => networks.missing = Some(problems.report_at(mark, place, why)),
        }
    }
}

fn timeouts(service: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Timeouts, Reported> {
    let place = service.inner("timeouts");
    let empty = toml::map::Map::new();
    let table = service
        .table("timeouts", &schema::TIMEOUTS, &place, problems)?
        .unwrap_or_else(|| Table::open(&empty, service.at, &schema::TIMEOUTS, &place, problems));
    let connect = table.value("connect", problems, |v| values::duration(v, 100 * MILLISECOND..=Timeouts::MAX_CONNECT));
    let mut time = |key| table.value(key, problems, |v| values::seconds(v, SECOND..=Timeouts::MAX));
    let (established, udp, closing) = (time("established"), time("udp"), time("closing"));
    Ok(Timeouts { connect: connect?.value, established: established?.value, udp: udp?.value, closing: closing?.value })
}

fn breach(service: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Option<RawBreach>, Reported> {
    let Some(table) = service.table("breach", &schema::BREACH, &service.inner("breach"), problems)? else {
        return Ok(None);
    };
    let refused = table.optional("refused", problems, values::weight);
    let reset = table.optional("reset", problems, values::weight);
    let timeout = table.optional("timeout", problems, values::weight);
    let min_attempts = table.value("min_attempts", problems, |v| values::integer(v, 1..=u64::MAX));
    let window = table.value("window", problems, |v| values::duration(v, SECOND..=HOUR));
    let fates = [("keep", Existing::Keep), ("reset", Existing::Reset)];
    let existing = table.value("existing", problems, |v| values::word(v, &fates));
    Ok(Some(RawBreach {
        at: table.at,
        refused: refused?,
        reset: reset?,
        timeout: timeout?,
        min_attempts: min_attempts?.value,
        window: window?,
        existing: existing?.value,
    }))
}

fn breaker(service: &Table<'_, '_>, problems: &mut Problems<'_>) -> Result<Option<RawBreaker>, Reported> {
    let Some(table) = service.table("breaker", &schema::BREAKER, &service.inner("breaker"), problems)? else {
        return Ok(None);
    };
    let refused = table.optional("refused", problems, values::weight);
    let timeout = table.optional("timeout", problems, values::weight);
    let reset = table.optional("reset", problems, values::weight);
    let retransmit = table.optional("retransmit", problems, values::weight);
    let min_attempts = table.value("min_attempts", problems, |v| values::size(v, 1..=u32::MAX));
    let window = table.value("window", problems, |v| values::duration(v, SECOND..=Breaker::MAX_WINDOW));
    let stable_factor = table.optional("worse_than_stable", problems, values::factor);
    let fates = [("keep", Existing::Keep), ("reset", Existing::Reset)];
    let existing = table.value("existing", problems, |v| values::word(v, &fates));
    Ok(Some(RawBreaker {
        at: table.at,
        refused: refused?,
        timeout: timeout?,
        reset: reset?,
        retransmit: retransmit?,
        min_attempts: min_attempts?.value,
        window: window?.value,
        stable_factor: stable_factor?.map(|factor| factor.value),
        existing: existing?.value,
    }))
}
