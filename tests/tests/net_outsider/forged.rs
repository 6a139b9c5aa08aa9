//! Segments in other people's names, thrown into connections under way.

use std::{net::SocketAddr, thread, time::Duration};

use splitter_tests::{
    lab::{Topology, inject},
    node::{FAMILIES, Family, Kind, Site},
    packet::{ACK, FIN, Mac, Packet, RST, SYN},
    workload::tcp_echo,
};
use splitter_user::model::Mode;

const CONNECTIONS: usize = 24;
const ROUNDS: u32 = 8;
/// Long enough for several exchanges on every connection.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
fn in_nat_mode_connections_survive_segments_forged_in_their_clients_names() {
    survive(&site(Topology::TwoArmSwitched, Mode::Nat));
}

#[test]
fn in_dsr_mode_connections_survive_segments_forged_in_their_clients_names() {
    survive(&site(Topology::OneArm, Mode::Dsr));
}

fn site(topology: Topology, mode: Mode) -> Site {
    Site::builder(topology, mode).kinds(&[Kind::Echo]).weight("50%").start().expect("a site")
}

/// The kernels at both ends take none of these, as their sequence numbers are guessed (RFC 5961): so all that could break a connection is the node.
fn survive(site: &Site) {
    let mode = site.mode();
    let running: Vec<tcp_echo::Running> = FAMILIES.into_iter().map(|family| echo(site, family)).collect();
    let node = Mac(site.lab.node().namespace.mac(&site.lab.node().front).expect("it has one"));
    let client = Mac(site.lab.client().mac("eth0").expect("it has one"));
    let mut guess = 0x2545_f491_u32;
    for round in 0..ROUNDS {
        for (family, running) in FAMILIES.into_iter().zip(&running) {
            let target = site.target(Kind::Echo, family);
            for connection in running.connections() {
                // A RST alone; a RST and a SYN, as if the client came back from its port; a FIN; a SYN alone; what acknowledges nothing that there is.
                let story: &[u8] = match round % 4 {
                    0 => &[RST],
                    1 => &[RST, SYN],
                    2 => &[SYN, FIN | ACK],
                    _ => &[RST | ACK, SYN, ACK],
                };
                for flags in story {
                    guess = guess.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
                    forge(site, connection.local, target, *flags, guess, (client, node));
                }
            }
        }
        thread::sleep(A_WHILE);
    }
    let live = |site: &Site| -> u64 {
        let status = site.node.status().expect("a status");
        let backends = status.services.iter().flat_map(|service| &service.cohorts).flat_map(|cohort| &cohort.backends);
        backends.filter_map(|backend| backend.connections).sum()
    };
    thread::sleep(Duration::from_secs(2));
    let of_all = live(site);
    assert_eq!(of_all, 2 * CONNECTIONS as u64, "{mode}: all are in the tables");
    for running in running {
        let report = tcp_echo::Report::of(&running.stop().expect("it stops"));
        assert_eq!(
            (report.opened, report.broken, report.bytes_wrong, report.strangers),
            (CONNECTIONS as u64, 0, 0, 0),
            "{mode}: {report:?}"
        );
        assert!(report.exchanges > 10 * report.opened, "{mode}: they were in use: {report:?}");
        assert!(report.by_server.len() > 1, "{mode}: on several servers: {report:?}");
    }
}

fn forge(site: &Site, from: SocketAddr, to: SocketAddr, flags: u8, sequence: u32, (client, node): (Mac, Mac)) {
    let segment = Packet::tcp(from, to, flags).with_tcp(|tcp| {
        tcp.sequence = sequence;
        tcp.acknowledgement = sequence.rotate_left(16);
    });
    inject(site.lab.client(), "eth0", &segment.ethernet(node, client).build()).expect("sent");
}

fn echo(site: &Site, family: Family) -> tcp_echo::Running {
    let load = tcp_echo::Load::new(site.client(family), site.target(Kind::Echo, family), CONNECTIONS);
    load.start(site.lab.client()).expect("a load")
}
