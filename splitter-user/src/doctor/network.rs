//! Interfaces, addresses, and the ways to backends.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{fail, ok, system, unknown, warn};
use crate::{
    api::wire::Check,
    config::{Agent, Config, XdpMode},
    dataplane::kernel,
    model::{Mode, Service},
    neighbor::{self, Interface, NetlinkError, Settings, Watcher, XdpHook},
};

/// A neighbour that isn't there takes the kernel 3 s to give up.
const PATIENCE: Duration = Duration::from_secs(4);

/// The largest frame of an XDP program on one page of 4 KiB: what headroom (256) and the kernel's own data behind it (320) leave, less the Ethernet
/// header and two tags.
const ONE_PAGE: u32 = 4_096 - 256 - 320 - 22;

/// Drivers that have XDP of their own in kernels from 5.10 on, as far as is known here. Another may have it; then `native` works, too.
const NATIVE: [&str; 29] = [
    "amazon_ena",
    "bnxt_en",
    "bonding",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "fec",
    "fsl_dpa",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "nfp",
    "qede",
    "sfc",
    "stmmac",
    "thunder-nic",
    "tun",
    "veth",
    "virtio_net",
];

/// Everything that the configuration says of the network.
pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for name in &config.agent.interfaces {
        checks.extend(interface(name, &config.agent).await);
    }
    for service in &config.services {
        checks.push(service_address(service).await);
    }
    checks.extend(table_sizes(config));
    // An agent that runs tells of the ways that it uses.
    if UnixStream::connect(&config.agent.socket).is_err() {
        checks.extend(ways(config).await);
    }
    checks
}

async fn interface(name: &str, agent: &Agent) -> Vec<Check> {
    let interface = match neighbor::interface(name).await {
        Ok(interface) => interface,
        Err(error @ NetlinkError::NoSuchInterface { .. }) => {
            return vec![fail("interface", name, error.to_string(), "name another in `interfaces` of [agent]")];
        }
        Err(error) => return vec![unknown("interface", name, error.to_string())],
    };
    let mut checks = Vec::new();
    if interface.up {
        checks.push(ok("interface", name, "it is up"));
    } else {
        checks.push(fail(
            "interface",
            name,
            "it is down or has no carrier",
            format!("`ip link set {name} up`, or see its cable"),
        ));
    }
    checks.push(judge_driver(&interface.driver(), name, agent.xdp_mode));
    checks.push(judge_mtu(&interface, system::takes_jumbo_frames()));
    let ours = kernel::is_pinned(&agent.pin_directory, interface.index);
    checks.push(match neighbor::xdp(interface.index).await {
        Ok(found) => judge_attached(found, ours, name),
        Err(error) => unknown("xdp", name, format!("it is not known whether a program is attached: {error}")),
    });
    checks
}

fn judge_driver(driver: &io::Result<String>, name: &str, mode: XdpMode) -> Check {
    match (driver, mode) {
        (_, XdpMode::Generic) => {
            let finding = "xdp_mode is generic: the program runs behind the driver, slowly";
            warn("native_xdp", name, finding, "set `xdp_mode = \"native\"` if the driver can")
        }
        (Ok(driver), XdpMode::Native | XdpMode::Auto) if NATIVE.contains(&driver.as_str()) => {
            ok("native_xdp", name, format!("its driver {driver} has XDP of its own"))
        }
        (Ok(driver), XdpMode::Native | XdpMode::Auto) => {
            unknown("native_xdp", name, format!("whether its driver {driver} has XDP of its own shows when the agent starts"))
        }
        (Err(error), XdpMode::Native | XdpMode::Auto) => {
            unknown("native_xdp", name, format!("its driver does not say its name: {error}"))
        }
    }
}

fn judge_mtu(interface: &Interface, jumbo: Option<bool>) -> Check {
    let (name, mtu) = (&interface.name, interface.mtu);
    if mtu <= ONE_PAGE {
        ok("mtu", name, format!("{mtu}"))
    } else if jumbo == Some(false) {
        let finding = format!("{mtu}: this kernel's XDP takes no frames of more than a page");
        fail("mtu", name, finding, format!("`ip link set {name} mtu {ONE_PAGE}`, or use Linux 5.18 or later"))
    } else {
        ok("mtu", name, format!("{mtu}: jumbo frames, if the driver takes those in XDP"))
    }
}

fn judge_attached(found: Option<XdpHook>, ours: bool, name: &str) -> Check {
    match (found, ours) {
        (None, false) => ok("xdp", name, "no XDP program is in the way"),
        (None, true) => {
            let remedy = "restart the agent: `systemctl restart splitter`";
            fail("xdp", name, "Splitter's program was attached, and is not any more: nothing is split", remedy)
        }
        (Some(_), true) => ok("xdp", name, "Splitter's program is attached"),
        (Some(how), false) => {
            let how = match how {
                XdpHook::Generic => "in generic mode",
                XdpHook::Hardware => "in hardware",
                XdpHook::Driver => "in the driver",
            };
            let remedy = format!("`ip link show {name}` names it, `ip link set {name} xdp off` takes it off");
            fail("xdp", name, format!("somebody else's XDP program is attached {how}"), remedy)
        }
    }
}

/// Packets to the service must come to this node: somebody has to answer for its address.
async fn service_address(service: &Service) -> Check {
    let (ip, subject) = (service.address.ip(), format!("{} {}", service.name, service.address));
    match (neighbor::is_local(ip).await, service.mode) {
        (Ok(true), _) => ok("service_address", subject, "it is this node's"),
        (Ok(false), Mode::Nat | Mode::Dsr) => {
            let finding = "it is not this node's: packets come here only if a router sends them, and ping is not answered";
            warn(
                "service_address",
                subject,
                finding,
                format!("`ip addr add {ip} dev INTERFACE`, or route it to this node on purpose"),
            )
        }
        (Err(error), _) => unknown("service_address", subject, error.to_string()),
    }
}

/// Whether the kernel's neighbour tables have room for the backends.
fn table_sizes(config: &Config) -> Vec<Check> {
    let backends: BTreeSet<IpAddr> =
        config.services.iter().flat_map(|s| &s.backends).map(|backend| backend.address.ip()).collect();
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = backends.into_iter().partition(IpAddr::is_ipv4);
    let limit = |family: &str| {
        let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh2");
        fs::read_to_string(Path::new(&path)).ok()?.trim().parse::<usize>().ok()
    };
    [("ipv4", ipv4.len()), ("ipv6", ipv6.len())]
        .into_iter()
        .filter_map(|(family, count)| Some((family, count, limit(family).filter(|_| count > 0)?)))
        .map(|(family, count, limit)| judge_table(family, count, limit))
        .collect()
}

fn judge_table(family: &str, backends: usize, limit: usize) -> Check {
    // Others on the same links have neighbours, too.
    if backends * 2 <= limit {
        ok("neighbour_table", family, format!("room for {limit}, {backends} backends"))
    } else {
        let finding = format!("{backends} backends, and the kernel gives up entries above {limit}");
        let remedy = format!("`sysctl -w net.{family}.neigh.default.gc_thresh2={} …gc_thresh3={}`", backends * 4, backends * 8);
        warn("neighbour_table", family, finding, remedy)
    }
}

async fn ways(config: &Config) -> Vec<Check> {
    let watcher = match Watcher::start(Settings::default()) {
        Ok(watcher) => watcher,
        Err(error) => return vec![unknown("way", "", error.to_string())],
    };
    let backends: Vec<(&Service, SocketAddr)> = config
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |backend| (service, backend.address)))
        .collect();
    watcher.watch(backends.iter().map(|(_, address)| address.ip()).collect());
    let ways = watcher.settled(PATIENCE).await;
    let checks = backends.into_iter().map(|(service, backend)| {
        let (ip, subject) = (backend.ip(), format!("{} {backend}", service.name));
        match ways.get(&ip) {
            Some(Ok(way)) if service.mode == Mode::Nat && !config.agent.interfaces.contains(&way.interface_name) => {
                let finding = format!("it is reached by {}, where the program will not be attached", way.interface_name);
                fail("way", subject, finding, "add that to `interfaces` in [agent]: replies come back there")
            }
            Some(Ok(way)) => {
                let hop = way.gateway.map_or_else(|| "directly".to_owned(), |gateway| format!("by the gateway {gateway}"));
                ok("way", subject, format!("reached {hop}, out of {}, from {}", way.interface_name, way.source_address))
            }
            Some(Err(error)) => fail("way", subject, error.to_string(), format!("`ip route get {ip}`, `ping {ip}`")),
            None => unknown("way", subject, "the kernel has not said in time how it is reached"),
        }
    });
    let checks = checks.collect();
    watcher.stop().await;
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::CheckResult;

    #[test]
    fn a_program_that_is_not_ours_is_in_the_way() {
        let rows = [
            (None, false, CheckResult::Ok),
            (None, true, CheckResult::Fail),
            (Some(XdpHook::Driver), true, CheckResult::Ok),
            (Some(XdpHook::Generic), false, CheckResult::Fail),
        ];
        for (found, ours, expected) in rows {
            assert_eq!(judge_attached(found, ours, "eth0").result, expected, "{found:?}, ours: {ours}");
        }
    }

    #[test]
    fn a_large_mtu_needs_a_kernel_that_takes_it() {
        let with = |mtu, jumbo| judge_mtu(&Interface { mtu, ..loopback() }, jumbo).result;
        assert_eq!(with(1_500, Some(false)), CheckResult::Ok);
        assert_eq!(with(9_000, Some(false)), CheckResult::Fail);
        assert_eq!(with(9_000, Some(true)), CheckResult::Ok);
    }

    #[test]
    fn neighbours_beyond_half_of_the_table_are_a_warning() {
        assert_eq!(judge_table("ipv4", 256, 512).result, CheckResult::Ok);
        assert_eq!(judge_table("ipv4", 257, 512).result, CheckResult::Warn);
    }

    #[test]
    fn an_unknown_driver_is_not_called_wrong() {
        assert_eq!(judge_driver(&Ok("veth".to_owned()), "eth0", XdpMode::Native).result, CheckResult::Ok);
        assert_eq!(judge_driver(&Ok("r8169".to_owned()), "eth0", XdpMode::Native).result, CheckResult::Unknown);
        assert_eq!(judge_driver(&Ok("veth".to_owned()), "eth0", XdpMode::Generic).result, CheckResult::Warn);
    }

    #[tokio::test]
    async fn this_machine_is_examined_with_a_configuration() {
        const TEXT: &str = "[agent]\ninterfaces = [\"lo\", \"nosuch0\"]\nsocket = \"/nonexistent/agent.sock\"\n\n[[service]]\nname = \"web\"\n\
            protocol = \"tcp\"\naddress = \"127.0.0.1:80\"\nstable = [\"127.0.0.2:8080\"]\n";
        let config = match Config::parse(TEXT, "t.toml") {
            Ok(config) => config,
            // Loopback addresses may be refused by the rules; any other address is not this machine's.
            Err(_) => Config::parse(&TEXT.replace("127.0.0.1:80", "192.0.2.10:80").replace("127.0.0.2", "192.0.2.1"), "t.toml")
                .expect("valid"),
        };
        let checks = examine(&config).await;
        let result = |name: &str, subject: &str| {
            let found = checks.iter().find(|check| check.name == name && check.subject.as_deref() == Some(subject));
            found.map(|check| check.result)
        };
        assert_eq!(result("interface", "lo"), Some(CheckResult::Ok));
        assert_eq!(result("interface", "nosuch0"), Some(CheckResult::Fail));
        assert_eq!(result("xdp", "lo"), Some(CheckResult::Ok));
        assert!(checks.iter().any(|check| check.name == "way"), "{checks:?}");
    }

    fn loopback() -> Interface {
        Interface { index: 1, name: "lo".to_owned(), mac: None, mtu: 65_536, up: true, kind: None, vlan: None, controller: None }
    }
}
