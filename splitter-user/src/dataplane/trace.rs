//! Reports of decisions, as the program's log records bring them.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use ipnet::IpNet;
use log::{Log, Metadata, Record};
use splitter_ebpf::{abi::TraceFilter, address::Address};

use super::{
    destinations::{address, ip},
    loader::OpenError,
};

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose packet.
    pub client: IpAddr,
    /// Its port.
    pub port: u16,
    /// TCP flags.
    pub flags: u8,
    /// The hash of address and port.
    pub hash: u64,
    /// The backend's number.
    pub backend: u32,
}

/// Reads reports.
pub struct Reports {
    logger: EbpfLogger<Sink>,
    sink: Sink,
}

/// Keeps the reports that come out of a flush.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Report>>>);

/// Reports kept at most between two calls; a reader that is slower loses the rest.
const KEPT: usize = 10_000;

impl Log for Sink {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Some(report) = parse(&record.args().to_string()) else {
            tracing::warn!(line = %record.args(), "the program reported something that isn't a decision");
            return;
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(report);
        }
    }

    fn flush(&self) {}
}

impl Reports {
    /// Takes the program's log.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, OpenError> {
        let sink = Sink::default();
        let logger = EbpfLogger::init_with_logger(ebpf, sink.clone())
            .map_err(|error| OpenError::Kernel { tried: "opening the program's log".to_owned(), why: error.to_string() })?;
        Ok(Self { logger, sink })
    }

    /// What has come since the last call.
    pub fn take(&mut self) -> Vec<Report> {
        self.logger.flush();
        std::mem::take(&mut *self.sink.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `high low words hash backend`: the address's two words, port (as loaded) and flags in one, see the program's `trace.rs`.
fn parse(line: &str) -> Option<Report> {
    let mut fields = line.split(' ').map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (high, low, words, hash, backend) = (next()?, next()?, next()?, next()?, next()?);
    let address = Address { high, low };
    let ipv6 = address != Address::v4(address.v4_octets());
    Some(Report {
        client: ip(address, ipv6),
        port: u16::from_be((words >> 8) as u16),
        flags: words as u8,
        hash,
        backend: u32::try_from(backend).ok()?,
    })
}

/// The filter that lets these clients through.
pub fn filter(clients: IpNet) -> TraceFilter {
    let mask = match clients.netmask() {
        IpAddr::V4(mask) => {
            let mut octets = [0xff; 16];
            octets[12..].copy_from_slice(&mask.octets());
            Address::v6(&octets)
        }
        IpAddr::V6(mask) => Address::v6(&mask.octets()),
    };
    TraceFilter { address: address(clients.network()), mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_program_is_a_report() {
        let client = address(IpAddr::from([10, 1, 2, 3]));
        let words = u64::from(4_711_u16.to_be()) << 8 | 0x12;
        let report = parse(&format!("{} {} {words} {} 7", client.high, client.low, u64::MAX)).expect("five numbers");
        let expected = Report { client: IpAddr::from([10, 1, 2, 3]), port: 4_711, flags: 0x12, hash: u64::MAX, backend: 7 };
        assert_eq!(report, expected);
        assert_eq!(parse("1 2 3 4"), None);
        assert_eq!(parse("no decision at all, this"), None);
    }

    #[test]
    fn a_filter_looks_at_the_prefix_alone() {
        for (network, inside, outside) in [("10.1.0.0/16", "10.1.255.1", "10.2.0.1"), ("fd00:1::/32", "fd00:1::9", "fd00:2::9")] {
            let filter = filter(network.parse().expect("a network"));
            let differs = |client: &str| {
                let client = address(client.parse().expect("an address"));
                (client.high ^ filter.address.high) & filter.mask.high | (client.low ^ filter.address.low) & filter.mask.low
            };
            assert_eq!(differs(inside), 0, "{inside}");
            assert_ne!(differs(outside), 0, "{outside}");
        }
    }
}
