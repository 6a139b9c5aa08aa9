//! ICMP errors: what they quote, and their translation.

use crate::packet::{
    checksum::Sum,
    get_u16,
    parse::{QuoteFlaw, parse, parse_quote},
    put_u16,
};
use splitter_ebpf::{
    frame::Octets,
    header::{Family, Fragment, Packet, decode, protocol},
    icmp::{self, Quote, Translation},
    reason::Skip,
    rewrite::End,
};

use crate::frames::{self, Input, MEND, assert_only, octets_of, residue, wrong};

/// Reads what a frame quotes, and translates it.
///
/// # Panics
/// When the readers don't agree, an octet is written that isn't to be, or a checksum is more wrong than before.
pub fn check(octets: &[u8]) {
    let Some(Input { choices, number, mut frame }) = Input::of(octets) else { return };
    let Ok(packet) = decode(&Octets(&mut frame)) else { return };
    if packet.fragment != Fragment::Whole || !matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6) {
        return;
    }
    let quote = icmp::quote(&Octets(&mut frame), &packet);
    assert_read(&quote, &packet, &frame);
    // Where the page has it, an error goes no further with a TTL that is used up.
    if let Ok(quote) = quote
        && packet.ttl > 1
    {
        if choices & MEND != 0 {
            mend(&mut frame, &quote);
        }
        translate(&mut frame, &packet, &quote, number);
    }
}

fn assert_read(quote: &Result<Quote, Skip>, packet: &Packet, frame: &[u8]) {
    let ipv4 = packet.family == Family::V4;
    let kinds = if ipv4 { [3, 4, 11, 12] } else { [1, 2, 3, 4] };
    if !kinds.contains(&packet.flags) {
        return assert_eq!(*quote, Err(Skip::IcmpNotError));
    }
    let (at, end) = (packet.transport_at() + 8, (packet.network + packet.length) as usize);
    match (quote, parse_quote(&frame[at..end], ipv4)) {
        (Ok(quote), Ok(by_the_page)) => {
            assert_eq!((quote.network as usize, quote.transport as usize), (at, at + by_the_page.transport));
            assert_eq!((quote.protocol, quote.code), (by_the_page.protocol, frame[at - 7]));
            assert_eq!(quote.room as usize, end - at - by_the_page.transport);
            assert!(quote.room >= 8, "8 octets of the transport");
            for (end, address) in [(quote.source, by_the_page.source), (quote.destination, by_the_page.destination)] {
                let octets = match address.ip() {
                    std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                    std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                assert_eq!((octets_of(end.address, ipv4), u16::from_be(end.port)), (octets, address.port()));
            }
        }
        (Err(skip), Err(QuoteFlaw::Truncated)) => assert_eq!(*skip, Skip::IcmpTruncatedQuote),
        (Err(skip), Err(QuoteFlaw::Unrelated)) => assert_eq!(*skip, Skip::IcmpUnrelated),
        (quote, by_the_page) => panic!("by the page {by_the_page:?}, read {quote:?}"),
    }
}

/// Where the quoted transport's checksum is, if the quote holds it.
fn quoted_checksum(quote: &Quote) -> Option<usize> {
    let at = if quote.protocol == protocol::UDP { 6 } else { 16 };
    (quote.room as usize >= at + 2).then_some(quote.transport as usize + at)
}

/// What the quoted IPv4 header is wrong by.
fn quoted_header(frame: &[u8], quote: &Quote) -> u16 {
    let at = quote.network as usize;
    residue(Sum::new().octets(&frame[at..at + usize::from(frame[at] & 0x0f) * 4]))
}

/// What the quoted segment's checksum is wrong by, over the addresses and what there is of it. What isn't there doesn't change.
fn quoted_segment(frame: &[u8], quote: &Quote) -> u16 {
    let at = quote.network as usize;
    let addresses = if frame[at] >> 4 == 4 { &frame[at + 12..at + 20] } else { &frame[at + 8..at + 40] };
    let segment = &frame[quote.transport as usize..][..quote.room as usize];
    residue(Sum::new().octets(addresses).octets(segment))
}

fn translate(frame: &mut [u8], packet: &Packet, quote: &Quote, number: u8) {
    let ipv4 = packet.family == Family::V4;
    let (nat, backend) = frames::ends(ipv4, number);
    let to = Translation { source: nat.address, destination: backend.address, quoted_source: backend, quoted_destination: nat };
    let before = frame.to_vec();
    let view = parse(&before).expect("the decoder took it");
    let checksum = quoted_checksum(quote);
    // A UDP checksum of zero says that there is none.
    let none = quote.protocol == protocol::UDP && checksum.is_some_and(|at| get_u16(&before, at) == 0);

    icmp::translate(&mut Octets(frame), packet, quote, &to).expect("what was read can be written");

    let mut expected = before.clone();
    expected[view.ip.ttl_at()] -= 1;
    put(&mut expected, view.ip.source_at(), &octets_of(to.source, ipv4));
    put(&mut expected, view.ip.destination_at(), &octets_of(to.destination, ipv4));
    let (source_at, destination_at) = if ipv4 { (12, 16) } else { (8, 24) };
    let at = quote.network as usize;
    put(&mut expected, at + source_at, &octets_of(to.quoted_source.address, ipv4));
    put(&mut expected, at + destination_at, &octets_of(to.quoted_destination.address, ipv4));
    put(&mut expected, quote.transport as usize, &ports(to.quoted_source, to.quoted_destination));
    let header = |at: usize| ipv4.then_some(at + 10);
    let checksums = [header(view.ip.at), header(at), checksum.filter(|_| !none), Some(view.ip.payload + 2)];
    assert_only(&expected, frame, checksums.into_iter().flatten());

    let after = parse(frame).expect("it can still be read");
    assert_eq!(wrong(frame, &after), wrong(&before, &view), "the error's own checksums");
    if ipv4 {
        assert_eq!(quoted_header(frame, quote), quoted_header(&before, quote), "the quoted header's checksum");
    }
    if let Some(at) = checksum.filter(|_| !none) {
        assert_eq!(quoted_segment(frame, quote), quoted_segment(&before, quote), "the quoted transport's checksum");
        assert!(quote.protocol == protocol::TCP || get_u16(frame, at) != 0, "a UDP checksum was taken away");
    }
}

fn ports(source: End, destination: End) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.port.to_ne_bytes(), destination.port.to_ne_bytes());
    [a, b, c, d]
}

fn put(frame: &mut [u8], at: usize, octets: &[u8]) {
    frame[at..at + octets.len()].copy_from_slice(octets);
}

/// Makes the checksums right that are in the frame as a whole: the quoted header's, and the error's own.
fn mend(frame: &mut [u8], quote: &Quote) {
    let at = quote.network as usize;
    let end = at + usize::from(frame[at] & 0x0f) * 4;
    if frame[at] >> 4 == 4 {
        put_u16(frame, at + 10, 0);
        let right = Sum::new().octets(&frame[at..end]).checksum();
        put_u16(frame, at + 10, right);
    }
    let view = parse(frame).expect("checksums make no difference to a reader");
    frames::mend(frame, &view);
}
