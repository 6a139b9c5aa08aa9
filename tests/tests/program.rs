//! The XDP program that ships, run frame by frame: each reason, each kind of packet, by rows with a why. Each frame is judged by the oracle as
//! well, so what stands here is what a row is about.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use splitter_tests::{
    oracle::{Action, Cohort, Existing, Mode, Performed, Reason, World, sample},
    packet::{
        ACK, Checksum, Extension, FIN, Mac, Packet, RST, SYN, Units, get_u16,
        parse::{self, Transport, parse_quote},
    },
    rig::{
        self,
        play::{BACKEND_MAC, CLIENT_MAC, Play, answer, destination, endpoints},
    },
};
use splitter_user::{dataplane::Dataplane, model};

use sample::{BACK, FRONT};

/// Services of [`sample::world`], IPv4; those of IPv6 are eight further on.
const NAT: usize = 0;
const DSR: usize = 2;
const NAT_UDP: usize = 4;
const DSR_UDP: usize = 6;
const FAMILIES: [usize; 2] = [0, 8];

#[test]
fn a_frame_that_cannot_be_steered_goes_to_the_kernel_with_its_reason() -> Result<()> {
    play(plain(), |play| {
        let rows = unsteerable(play);
        for (why, frame, reason) in &rows {
            for multi_buffer in [true, false] {
                play.rig().set_multi_buffer(multi_buffer);
                play.stop(frame, FRONT, Action::Pass, *reason).with_context(|| (*why).to_owned())?;
            }
        }
        // What else goes to the kernel is in tests of its own: the shortest of frames no kernel runs a program on.
        let elsewhere = [Reason::TruncatedEthernet, Reason::VlanMismatch, Reason::UnknownReset, Reason::NotReady];
        let to_kernel = Reason::ALL.iter().take_while(|reason| **reason != Reason::NoWay);
        let missing: Vec<_> =
            to_kernel.filter(|r| !elsewhere.contains(r) && !rows.iter().any(|(.., reason)| reason == *r)).collect();
        ensure!(missing.is_empty(), "no row for {missing:?}");
        Ok(())
    })
}

#[test]
fn what_cannot_be_served_is_refused_at_once() -> Result<()> {
    play(plain(), |play| {
        for family in FAMILIES {
            let client = play.client(family, 7);
            // Unknown connections: in `nat` nobody can say whose they are.
            let ack = play.packet(family + NAT, client, ACK).build();
            play.stop(&ack, FRONT, Action::Tx, Reason::UnknownConnection)?;
            let rst = play.packet(family + NAT, client, RST).build();
            play.stop(&rst, FRONT, Action::Pass, Reason::UnknownReset)?;
            let syn = play.packet(family + DSR, client, ACK).build();
            play.forward(&syn, FRONT).context("but in `dsr` the hash says it")?;
            play.change(|world| drain(world, Cohort::Stable))?;
            for (service, flags) in [(NAT, SYN), (DSR, SYN), (NAT_UDP, 0), (DSR_UDP, 0)] {
                let another = play.client(family, 8);
                let frame = play.packet(family + service, another, flags).build();
                play.stop(&frame, FRONT, Action::Tx, Reason::NoBackend)?;
            }
            play.change(|world| *world = plain())?;
        }
        Ok(())
    })
}

#[test]
fn what_ends_a_connection_that_nobody_knows_is_no_attempt_at_one() -> Result<()> {
    play(plain(), |play| {
        for service in [DSR, 8 + DSR] {
            let key = rig::key(&play.world().services[service]);
            for (number, flags, expected) in
                [(1, RST, 0), (2, FIN | ACK, 0), (3, ACK, 1), (4, SYN, 2), (3, ACK, 2), (3, FIN | ACK, 2)]
            {
                let client = play.client(service, number);
                let frame = play.packet(service, client, flags).build();
                play.forward(&frame, FRONT)?;
                let sample = play.rig().dataplane().sample();
                let opened: u64 = sample.services[&key].backends.values().map(|backend| backend.counters.opened).sum();
                ensure!(opened == expected, "{opened} opened after flags {flags:#x} of client {number}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_flip_that_resets_ends_what_the_canary_has() -> Result<()> {
    play(canary(), |play| {
        for family in FAMILIES {
            let client = play.client(family, 7);
            let packets = [NAT, DSR, NAT_UDP, DSR_UDP].map(|service| play.packet(family + service, client, SYN).build());
            let opened = packets.iter().map(|frame| play.forward(frame, FRONT)).collect::<Result<Vec<_>>>()?;
            play.forward(&answer(&opened[0].frame, SYN | ACK)?.build(), BACK)?;
            play.forward(&play.packet(family + DSR, client, ACK).build(), FRONT)?;
            play.change(|world| flip(world, Some(Existing::Keep)))?;
            for (frame, before) in packets.iter().zip(&opened) {
                ensure!(play.forward(frame, FRONT)?.frame == before.frame, "kept");
            }
            play.change(|world| flip(world, Some(Existing::Reset)))?;
            let [nat, dsr, nat_udp, dsr_udp] = &packets;
            let reply = answer(&opened[0].frame, ACK)?.build();
            play.stop(&reply, BACK, Action::Tx, Reason::ResetByFlip)?;
            let reply = answer(&opened[2].frame, 0)?.build();
            play.stop(&reply, BACK, Action::Drop, Reason::FlippedReply)?;
            for service in [NAT, DSR] {
                let data = play.packet(family + service, client, ACK).build();
                play.stop(&data, FRONT, Action::Tx, Reason::ResetByFlip)?;
                play.stop(&data, FRONT, Action::Tx, Reason::ResetByFlip)?;
            }
            let (sample, live) = (play.dataplane().sample(), play.dataplane().sweep());
            let on_canary =
                |(service, backend): &(_, _)| sample.services[service].backends[backend].cohort == model::Cohort::Canary;
            let live: u64 = live.connections.iter().filter(|(key, _)| on_canary(key)).map(|(_, count)| count).sum();
            ensure!(live == 1, "of the canary's connections only the exchange that nobody was told about lives, not {live}");
            for (syn, before) in [(nat, &opened[0]), (dsr, &opened[1])] {
                let moved = play.forward(syn, FRONT)?;
                ensure!(moved.frame != before.frame, "the client comes back from the same port, to stable");
            }
            for (frame, before) in [(nat_udp, &opened[2]), (dsr_udp, &opened[3])] {
                let moved = play.forward(frame, FRONT)?;
                ensure!(destination(&moved.frame) != destination(&before.frame), "an exchange moves with its next packet");
            }
            play.change(|world| flip(world, None))?;
        }
        Ok(())
    })
}

#[test]
fn a_backend_whose_way_is_lost_drops_what_it_has_and_gets_nothing_new() -> Result<()> {
    play(plain(), |play| {
        for service in [NAT, DSR, NAT_UDP, DSR_UDP, 8 + NAT, 8 + DSR] {
            let client = play.client(service, 7);
            let frame = play.packet(service, client, SYN).build();
            let before = play.forward(&frame, FRONT)?;
            let to = destination(&before.frame);
            play.change(|world| lose(world, to))?;
            play.stop(&frame, FRONT, Action::Drop, Reason::NoWay)?;
            for number in 100..200 {
                let client = play.client(service, number);
                let frame = play.packet(service, client, SYN).build();
                ensure!(destination(&play.forward(&frame, FRONT)?.frame) != to, "a new connection");
            }
            play.change(|world| *world = plain())?;
            ensure!(play.forward(&frame, FRONT)?.frame == before.frame, "it is back");
        }
        Ok(())
    })
}

#[test]
fn ports_that_are_used_up_are_refused_and_freed_by_what_never_completed() -> Result<()> {
    let mut world = plain();
    world.nat_addresses = vec!["10.0.250.0".parse()?, "2001:db8::ff:0:fa".parse()?];
    world.nat_ports = Some(20_000..=20_063);
    world.leeway.ports_exhausted = true;
    // An attempt that never completed gives way, its port included.
    world.leeway.affinity_full = true;
    play(world, |play| {
        for family in FAMILIES {
            let mut established = Vec::new();
            let refused = loop {
                let client = play.client(family + NAT, u32::try_from(established.len())?);
                let syn = play.packet(family + NAT, client, SYN).build();
                let seen = play.send(&syn, FRONT)?;
                if seen.counted == [Reason::PortsExhausted] {
                    break seen;
                }
                ensure!(seen.counted.is_empty() && established.len() < 64, "{:?}", seen.counted);
                shake(play, &seen, family + NAT, client)?;
                established.push((client, seen));
            };
            // Each CPU hands out a part of its own.
            let part = 64 / aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
            ensure!(established.len() * 4 >= part * 3 && established.len() <= part, "{} of {part} ports", established.len());
            let view = parse::parse(&refused.frame).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?;
            ensure!(matches!(view.transport, Transport::Tcp(tcp) if tcp.flags == RST | ACK), "{view:?}");
            for (client, before) in &established {
                let ack = play.packet(family + NAT, *client, ACK).build();
                let after = play.forward(&ack, FRONT)?;
                ensure!(endpoints(&after.frame)? == endpoints(&before.frame)?, "established connections keep theirs");
            }
            // UDP has ports of its own; nobody answers, so the oldest exchange gives way and no client is refused.
            for number in 0..200 {
                let client = play.client(family + NAT_UDP, number);
                let datagram = play.packet(family + NAT_UDP, client, 0).build();
                play.forward(&datagram, FRONT)?;
            }
            // One that ended makes room for another.
            let (client, _) = established[0];
            let rst = play.packet(family + NAT, client, RST).build();
            play.forward(&rst, FRONT)?;
            let syn = play.packet(family + NAT, client, SYN).build();
            let again = play.send(&syn, FRONT)?;
            ensure!(again.counted.is_empty() || again.counted == [Reason::PortsExhausted], "{:?}", again.counted);
        }
        Ok(())
    })
}

#[test]
fn long_lived_connections_with_ports_side_by_side_do_not_make_all_seem_taken() -> Result<()> {
    let mut world = plain();
    world.nat_addresses = vec!["10.0.250.0".parse()?];
    world.nat_ports = Some(20_000..=20_511);
    world.leeway.affinity_full = true;
    play(world, |play| {
        for number in 0..100 {
            let client = play.client(NAT, number);
            let syn = play.packet(NAT, client, SYN).build();
            let sent = play.forward(&syn, FRONT)?;
            shake(play, &sent, NAT, client)?;
        }
        // Attempts that never complete use up the rest of this CPU's part several times over.
        for number in 1_000..3_000 {
            let client = play.client(NAT, number);
            let syn = play.packet(NAT, client, SYN).build();
            play.forward(&syn, FRONT)?;
        }
        Ok(())
    })
}

#[test]
fn a_datagram_in_fragments_stays_together_both_ways() -> Result<()> {
    play(plain(), |play| {
        for (service, ingress) in
            [(NAT_UDP, FRONT), (DSR_UDP, FRONT), (8 + NAT_UDP, FRONT), (8 + DSR_UDP, FRONT), (NAT, FRONT), (8 + DSR, FRONT)]
        {
            let client = play.client(service, 9);
            let whole = play.packet(service, client, SYN).payload(vec![7; 3_000]);
            let length = whole.transport_length();
            let pieces = [0..1_480, 1_480..2_960, 2_960..length].map(|piece| whole.clone().fragment(77, piece).build());
            play.stop(&pieces[1], ingress, Action::Pass, Reason::FragmentUnknown).context("it overtook the first")?;
            let sent = pieces.iter().map(|piece| play.forward(piece, ingress)).collect::<Result<Vec<_>>>()?;
            ensure!(sent.iter().all(|piece| destination(&piece.frame) == destination(&sent[0].frame)), "service {service}");
            let other = whole.clone().fragment(78, 1_480..2_960).build();
            play.stop(&other, ingress, Action::Pass, Reason::FragmentUnknown).context("of another datagram")?;
            if play.world().services[service].mode == Mode::Nat {
                let reply = answer(&sent[0].frame, ACK)?.payload(vec![8; 2_000]);
                let length = reply.transport_length();
                for piece in [0..1_480, 1_480..length] {
                    let back = play.forward(&reply.clone().fragment(5, piece).build(), BACK)?;
                    ensure!(destination(&back.frame) == CLIENT_MAC);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn icmp_errors_go_to_whom_they_concern() -> Result<()> {
    play(plain(), |play| {
        for family in FAMILIES {
            for service in [NAT, DSR, NAT_UDP, DSR_UDP] {
                let service = family + service;
                let client = play.client(service, 11);
                let at = play.world().services[service].address;
                let sent = play.forward(&play.packet(service, client, SYN).build(), FRONT)?;
                let router: IpAddr = if family == 0 { "192.0.2.77".parse()? } else { "2001:db8::77".parse()? };
                // Packet too big, from a router on the client's side, about what the service sent.
                let (kind, code) = if family == 0 { (3, 4) } else { (2, 0) };
                let quoted = reversed(&play.packet(service, client, ACK), at, client);
                let error = Packet::icmp(router, at.ip(), kind, code, quoted).ethernet(sample::node(FRONT), CLIENT_MAC);
                let told = play.forward(&error.build(), FRONT)?;
                ensure!(destination(&told.frame) == destination(&sent.frame), "it goes to the backend that owns the connection");
                if play.world().services[service].mode == Mode::Dsr {
                    ensure!(told.frame[12..] == error.build()[12..], "`dsr` changes the Ethernet addresses alone");
                    continue;
                }
                let (nat, backend) = endpoints(&sent.frame)?;
                ensure!(quoted_in(&told.frame)? == (backend, nat), "the backend sees its own packet quoted");
                // Port unreachable from the backend, about what the node sent there.
                let (kind, code) = if family == 0 { (3, 3) } else { (1, 4) };
                let error = Packet::icmp(backend.ip(), nat.ip(), kind, code, sent.frame[14..].to_vec());
                let told = play.forward(&error.ethernet(sample::node(BACK), BACKEND_MAC).build(), BACK)?;
                ensure!(
                    destination(&told.frame) == CLIENT_MAC && quoted_in(&told.frame)? == (client, at),
                    "{:?}",
                    quoted_in(&told.frame)?
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_udp_checksum_of_none_stays_none_and_one_that_comes_out_as_zero_is_written_as_ones() -> Result<()> {
    play(plain(), |play| {
        for family in FAMILIES {
            let client = play.client(family, 12);
            let none = play.packet(family + NAT_UDP, client, 0).checksum(Checksum::Zero).build();
            let at = none.len() - b"question".len() - 2;
            ensure!(get_u16(&play.forward(&none, FRONT)?.frame, at) == 0);
            let mut ones = 0;
            for number in 0..=u16::MAX {
                let frame = play.packet(family + NAT_UDP, client, 0).payload(number.to_be_bytes().to_vec()).build();
                let sent = play.rig().run(&frame, FRONT)?;
                ensure!(get_u16(&sent.frame, at) != 0, "payload {number}");
                if get_u16(&sent.frame, at) == 0xffff {
                    ones += 1;
                    play.forward(&frame, FRONT).context("the oracle says so too")?;
                }
            }
            ensure!(ones > 0, "no payload came out as zero");
        }
        Ok(())
    })
}

#[test]
fn vlan_tags_are_kept_or_fitted_to_the_way() -> Result<()> {
    // The third stable backend is in VLAN 300, behind the back; the second behind the front.
    let only = |backend: usize| {
        let mut world = sample::world();
        for service in &mut world.services {
            service.weight = 0;
            service.backends.iter_mut().enumerate().for_each(|(index, b)| b.weight = u32::from(index == backend));
        }
        world
    };
    type Row = (&'static str, usize, &'static [u16], Result<&'static [u16], Reason>);
    let rows: [Row; 8] = [
        ("no tag, no VLAN", 0, &[], Ok(&[])),
        ("no tag, where the way has a VLAN", 2, &[], Err(Reason::VlanMismatch)),
        ("a tag, out of another interface without a VLAN", 0, &[100], Err(Reason::VlanMismatch)),
        ("a tag, back by the same interface", 1, &[0x2064], Ok(&[0x2064])),
        ("two tags, back by the same interface", 1, &[0x2064, 0x30c8], Ok(&[0x2064, 0x30c8])),
        ("the way's VLAN is written, PCP and DEI stay", 2, &[0xf064], Ok(&[0xf12c])),
        ("into the outer tag of two", 2, &[0xf064, 0x30c8], Ok(&[0xf12c, 0x30c8])),
        ("VLAN 0 is a tag, too", 2, &[0x6000], Ok(&[0x612c])),
    ];
    for (why, backend, tags, expected) in rows {
        play(only(backend), |play| {
            for service in [NAT, DSR, NAT_UDP, 8 + NAT, 8 + DSR_UDP] {
                let client = play.client(service, 13);
                let tagged = |packet: Packet, tags: &[u16]| tags.iter().fold(packet, |packet, tci| packet.tagged(*tci));
                let frame = tagged(play.packet(service, client, SYN), tags).build();
                let expected = match expected {
                    Ok(expected) => expected,
                    Err(reason) => {
                        play.stop(&frame, FRONT, Action::Pass, reason)?;
                        continue;
                    }
                };
                let sent = play.forward(&frame, FRONT)?;
                ensure!(tcis(&sent)? == expected, "{:x?}", tcis(&sent)?);
                if play.world().services[service].mode == Mode::Nat {
                    // The backend's side has other VLANs; the client gets its own, with the reply's priority.
                    let ingress = if backend == 1 { FRONT } else { BACK };
                    let reply = tagged(answer(&sent.frame, ACK)?, &[0x4001, 0x5002][..tags.len()]).build();
                    let back = play.forward(&reply, ingress)?;
                    let wanted: Vec<_> =
                        tags.iter().zip([0x4000, 0x5000]).map(|(tci, priority)| tci & 0xfff | priority).collect();
                    ensure!(tcis(&back)? == wanted, "back: {:x?}", tcis(&back)?);
                    let untagged = tagged(answer(&sent.frame, ACK)?, &[1, 2, 3][..(tags.len() + 1) % 3]).build();
                    play.stop(&untagged, ingress, Action::Pass, Reason::VlanMismatch)?;
                }
            }
            Ok(())
        })
        .context(why)?;
    }
    Ok(())
}

#[test]
fn a_jumbo_frame_is_steered_translated_and_refused_like_any_other() -> Result<()> {
    play(plain(), |play| {
        for (service, payload) in
            [(NAT, 8_900), (DSR, 8_900), (NAT_UDP, 8_000), (DSR_UDP, 9_100), (8 + NAT, 5_000), (8 + DSR_UDP, 9_001)]
        {
            let client = play.client(service, 14);
            let frame = play.packet(service, client, SYN).payload(vec![0x5a; payload]).build();
            let sent = play.forward(&frame, FRONT)?;
            ensure!(sent.frame.len() == frame.len());
            if play.world().services[service].mode == Mode::Nat {
                let reply = answer(&sent.frame, ACK)?.payload(vec![0xa5; payload]).build();
                play.forward(&reply, BACK)?;
                // Headers alone are looked for in the first buffer.
                for linear in [frame.len() - 1, 1_000, 128] {
                    let again = play.rig().run_as(&frame, FRONT, 0, linear)?;
                    ensure!(again.frame == sent.frame, "{linear} octets in the first buffer");
                }
            }
        }
        play.change(|world| drain(world, Cohort::Stable))?;
        for service in [NAT, DSR, NAT_UDP, 8 + NAT, 8 + DSR_UDP] {
            let client = play.client(service, 15);
            let frame = play.packet(service, client, SYN).payload(vec![0x5a; 8_000]).build();
            play.stop(&frame, FRONT, Action::Tx, Reason::NoBackend)?;
        }
        Ok(())
    })
}

#[test]
fn refusals_of_datagrams_are_limited_and_resets_are_not() -> Result<()> {
    let mut world = plain();
    drain(&mut world, Cohort::Stable);
    play(world, |play| {
        let client = play.client(NAT_UDP, 16);
        let datagram = play.packet(NAT_UDP, client, 0).build();
        let (mut told, mut dropped) = (0, 0);
        let started = std::time::Instant::now();
        for _ in 0..5_000 {
            match play.send(&datagram, FRONT)?.counted[..] {
                [Reason::NoBackend] => told += 1,
                [Reason::RefusalSuppressed] => dropped += 1,
                ref other => anyhow::bail!("counted {other:?}"),
            }
        }
        // A thousand in each unit of time that began meanwhile; a unit is at least 0.85 s.
        let units = 2 + started.elapsed().as_millis() / 850;
        ensure!(dropped > 0 && told >= 1_000 && told <= 1_000 * units, "{told} told, {dropped} dropped");
        let client = play.client(NAT, 16);
        let syn = play.packet(NAT, client, SYN).build();
        for _ in 0..2_000 {
            play.stop(&syn, FRONT, Action::Tx, Reason::NoBackend)?;
        }
        Ok(())
    })
}

#[test]
fn a_data_plane_that_is_not_filled_in_lets_everything_through() -> Result<()> {
    play(plain(), |play| {
        let client = play.client(NAT, 17);
        let syn = play.packet(NAT, client, SYN).build();
        let map = aya::maps::Map::Array(aya::maps::MapData::from_pin(play.rig().maps().join("SETTINGS"))?);
        let mut settings = aya::maps::Array::<_, [u8; 64]>::try_from(map)?;
        let filled = settings.get(&0, 0)?;
        settings.set(0, [0; 64], 0)?;
        let seen = play.rig().run(&syn, FRONT)?;
        ensure!((seen.action, &seen.counted[..]) == (Action::Pass, &[Reason::NotReady][..]), "{seen:?}");
        settings.set(0, filled, 0)?;
        play.forward(&syn, FRONT).map(drop)
    })
}

#[test]
fn an_answer_for_which_the_driver_leaves_no_room_is_dropped_and_counted() -> Result<()> {
    let mut world = plain();
    drain(&mut world, Cohort::Stable);
    play(world, |play| {
        let client = play.client(NAT_UDP, 18);
        let datagram = play.packet(NAT_UDP, client, 0).build();
        let metadata = 216_u8;
        let frame = [&vec![0; usize::from(metadata)][..], &datagram].concat();
        let seen = play.rig().run_as(&frame, FRONT, metadata.into(), frame.len())?;
        ensure!((seen.action, &seen.counted[..]) == (Action::Drop, &[Reason::FrameFixed][..]), "{seen:?}");
        Ok(())
    })
}

#[test]
fn the_verifier_walks_no_more_than_the_page_says() -> Result<()> {
    play(plain(), |play| {
        let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
        let mut wrong = Vec::new();
        for (multi_buffer, any, name) in [
            (true, false, "splitter_frags"),
            (true, true, "splitter_any_frags"),
            (false, false, "splitter"),
            (false, true, "splitter_any"),
        ] {
            let dataplane = play.rig().dataplane();
            let program = if any { dataplane.program_for_any(multi_buffer)? } else { dataplane.program(multi_buffer)? };
            let info = program.info()?;
            let verified = info.verified_instruction_count().context("the kernel doesn't tell (it has to be 5.16 or later)")?;
            println!("{name}: {verified} instructions verified on Linux {kernel}");
            ensure!(verified < 500_000, "{name}: {verified}");
            let page = include_str!("../../docs/packet-path.md");
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}`"))).context("no row in the page")?;
            let told = row.rsplit('|').nth(1).context("two columns")?.trim().replace(',', "").parse::<u32>()?;
            // Other kernels prune other paths.
            if kernel.starts_with("6.18.") && verified.abs_diff(told) > told / 20 {
                wrong.push(format!("{name}: {verified}; the page says {told}"));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:?}");
        ensure!(play.rig().dataplane().info().multi_buffer, "this kernel has jumbo frames");
        Ok(())
    })
}

/// Frames that go to the kernel, with the reason that is counted.
fn unsteerable(play: &Play<'_>) -> Vec<(&'static str, bytes::Bytes, Reason)> {
    let (client4, client6) = (play.client(NAT, 1), play.client(8 + NAT, 1));
    let (v4, v6) = (play.world().services[NAT].address, play.world().services[8 + NAT].address);
    let (syn4, syn6) = (|| play.packet(NAT, client4, SYN), || play.packet(8 + NAT, client6, SYN));
    let udp4 = || play.packet(NAT_UDP, client4, 0);
    let udp_length = |length| {
        let mut packet = udp4();
        if let splitter_tests::packet::Transport::Udp(udp) = &mut packet.transport {
            udp.length = Some(length);
        }
        packet.build()
    };
    let extended = |extensions: Vec<Extension>| syn6().v6(|ip| ip.extensions = extensions).build();
    let fragment = |offset| Extension::Fragment { offset, more: false, identification: 1 };
    let destination = |claimed| Extension::Destination(Units { held: 1, claimed });
    let raw = |protocol, octets: &[u8]| Packet::raw(client4.ip(), v4.ip(), protocol, octets.to_vec()).build();
    let arp = [&[0xff; 6][..], &CLIENT_MAC.0, &[0x08, 0x06], &[0; 28]].concat().into();
    let unreachable = |quote: bytes::Bytes| Packet::icmp(client4.ip(), v4.ip(), 3, 1, quote).build();
    let quote = Packet::tcp(v4, client4, ACK);
    vec![
        ("a tag of 3 octets", syn4().tagged(1).build().slice(..17), Reason::TruncatedVlan),
        ("three tags", syn4().tagged(1).tagged(2).tagged(3).build(), Reason::TooManyVlanTags),
        ("ARP", arp, Reason::NotIp),
        ("19 octets of IPv4", syn4().build().slice(..33), Reason::TruncatedIpv4),
        ("a total length behind the frame", syn4().v4(|ip| ip.total_length = Some(41)).build(), Reason::BadIpv4Header),
        ("39 octets of IPv6", syn6().build().slice(..53), Reason::TruncatedIpv6),
        ("a payload length behind the frame", syn6().v6(|ip| ip.payload_length = Some(21)).build(), Reason::BadIpv6Header),
        ("seven extension headers", extended(vec![destination(None); 7]), Reason::TooManyExtensions),
        ("an extension longer than all", extended(vec![destination(Some(9))]), Reason::TruncatedExtension),
        ("segments left", extended(vec![Extension::Routing(Units { held: 1, claimed: None }, 1)]), Reason::SourceRouted),
        ("two fragment headers", extended(vec![fragment(0), fragment(0)]), Reason::BadFragment),
        ("a fragment beyond the end", syn4().v4(|ip| ip.offset = 0x1fff).build(), Reason::BadFragment),
        ("GRE", raw(47, &[0; 20]), Reason::NotTcpUdp),
        ("ICMPv6 in IPv4", raw(58, &[1; 20]), Reason::NotTcpUdp),
        ("19 octets of TCP", syn4().fragment(1, 0..19).build(), Reason::TruncatedTcp),
        ("data offset 4", syn4().with_tcp(|tcp| tcp.data_offset = Some(4)).build(), Reason::BadTcpHeader),
        ("7 octets of UDP", udp4().fragment(1, 0..7).build(), Reason::TruncatedUdp),
        ("a UDP length behind the packet", udp_length(25), Reason::BadUdpHeader),
        ("UDP length 7", udp_length(7), Reason::BadUdpHeader),
        ("7 octets of ICMP", raw(1, &[3; 7]), Reason::TruncatedIcmp),
        ("another port", Packet::tcp(client4, SocketAddr::new(v4.ip(), 81), SYN).build(), Reason::NotOurs),
        ("another address", Packet::tcp(client6, SocketAddr::new(client6.ip(), v6.port()), SYN).build(), Reason::NotOurs),
        ("a TTL of 1", syn4().ttl(1).build(), Reason::TtlExpired),
        ("a hop limit of 0", syn6().ttl(0).build(), Reason::TtlExpired),
        ("a later fragment of nothing", udp4().fragment(7, 8..16).build(), Reason::FragmentUnknown),
        ("ping", Packet::icmp(client4.ip(), v4.ip(), 8, 0, vec![0; 40]).build(), Reason::IcmpNotError),
        ("an error without a quote", unreachable(bytes::Bytes::new()), Reason::IcmpTruncatedQuote),
        ("a quote of 7 octets of TCP", unreachable(quote.clone().fragment(1, 0..7).build_network()), Reason::IcmpTruncatedQuote),
        ("an error about nobody", unreachable(quote.build_network()), Reason::IcmpUnrelated),
        ("a quote of a later fragment", unreachable(quote.fragment(1, 8..20).build_network()), Reason::IcmpUnrelated),
    ]
}

/// The sample's services, of which every one has all that it needs, no network and no client affinity; nobody is sent to the canary, and no backend is in a VLAN.
fn plain() -> World {
    let mut world = sample::world();
    for (index, service) in world.services.iter_mut().enumerate() {
        service.weight = 0;
        service.networks.clear();
        service.backends.iter_mut().for_each(|backend| backend.weight = 1);
        for (number, backend) in service.backends.iter_mut().enumerate() {
            let octet = u32::try_from(index << 8 | number).expect("a handful");
            let destination = Mac::local(0x10_0000 | octet);
            backend.way =
                Some(splitter_tests::oracle::Way { interface: BACK, source: sample::node(BACK), destination, vlan: None });
        }
    }
    world
}

/// The same with everybody sent to the canary.
fn canary() -> World {
    let mut world = plain();
    world.services.iter_mut().for_each(|service| service.weight = 10_000);
    world
}

fn drain(world: &mut World, cohort: Cohort) {
    let backends = world.services.iter_mut().flat_map(|service| &mut service.backends);
    backends.filter(|backend| backend.cohort == cohort).for_each(|backend| backend.weight = 0);
}

fn flip(world: &mut World, existing: Option<Existing>) {
    world.services.iter_mut().for_each(|service| service.flipped = existing);
}

fn lose(world: &mut World, to: Mac) {
    let backends = world.services.iter_mut().flat_map(|service| &mut service.backends);
    backends.filter(|backend| backend.way.is_some_and(|way| way.destination == to)).for_each(|backend| backend.way = None);
}

fn play(world: World, body: impl FnOnce(&mut Play<'_>) -> Result<()> + Send) -> Result<()> {
    rig::with(&world.clone(), rig::AMPLE, move |rig| body(&mut Play::new(rig, world)))
}

/// Completes a handshake.
fn shake(play: &mut Play<'_>, sent: &Performed, service: usize, client: SocketAddr) -> Result<()> {
    play.forward(&answer(&sent.frame, SYN | ACK)?.build(), BACK)?;
    let ack = play.packet(service, client, ACK).build();
    play.forward(&ack, FRONT).map(drop)
}

/// A packet's transport the other way round: what the service answers.
fn reversed(packet: &Packet, from: SocketAddr, to: SocketAddr) -> bytes::Bytes {
    match packet.transport {
        splitter_tests::packet::Transport::Udp(_) => Packet::udp(from, to, &b"answer"[..]).build_network(),
        splitter_tests::packet::Transport::Tcp(_)
        | splitter_tests::packet::Transport::Icmp(_)
        | splitter_tests::packet::Transport::Raw(..) => Packet::tcp(from, to, ACK | FIN).build_network(),
    }
}

fn quoted_in(frame: &[u8]) -> Result<(SocketAddr, SocketAddr)> {
    let view = parse::parse(frame).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?;
    let quote =
        parse_quote(&frame[view.ip.payload + 8..view.ip.end], view.ip.is_ipv4()).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?;
    Ok((quote.source, quote.destination))
}

fn tcis(performed: &Performed) -> Result<Vec<u16>> {
    Ok(parse::parse(&performed.frame).map_err(|flaw| anyhow::anyhow!("{flaw:?}"))?.tags)
}
