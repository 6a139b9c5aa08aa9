//! Why a packet isn't forwarded to a backend. A reason is a counter is a label.

/// Counters in [`crate::abi::ReasonCounters`]; more than there are reasons, so that one can be added without a new layout.
pub const REASONS: usize = 32;

/// Counters of refusals in [`crate::abi::ServiceCounters`].
pub const REFUSALS: usize = 8;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident from $first:literal { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every one, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its place among [`Self::ALL`].
            #[inline(always)]
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// Its place among all reasons of the data plane.
            #[inline(always)]
            #[must_use]
            pub const fn counter(self) -> usize {
                $first + self as usize
            }

            /// The metric's label and the word in output.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// The packet goes to the kernel untouched.
    Skip from 0 {
        /// Fewer than 14 octets.
        TruncatedEthernet = "truncated_ethernet",
        /// A VLAN tag is cut short.
        TruncatedVlan = "truncated_vlan",
        /// More than two VLAN tags.
        TooManyVlanTags = "too_many_vlan_tags",
        /// Neither IPv4 nor IPv6.
        NotIp = "not_ip",
        /// An IPv4 header is cut short.
        TruncatedIpv4 = "truncated_ipv4",
        /// Version, header length or total length can't be.
        BadIpv4Header = "bad_ipv4_header",
        /// An IPv6 header is cut short.
        TruncatedIpv6 = "truncated_ipv6",
        /// Version or payload length can't be.
        BadIpv6Header = "bad_ipv6_header",
        /// More IPv6 extension headers than are followed.
        TooManyExtensions = "too_many_extensions",
        /// An extension header is cut short.
        TruncatedExtension = "truncated_extension",
        /// A routing header that isn't at its end.
        SourceRouted = "source_routed",
        /// A fragment that can't be.
        BadFragment = "bad_fragment",
        /// A protocol that isn't split.
        NotTcpUdp = "not_tcp_udp",
        /// A TCP header is cut short.
        TruncatedTcp = "truncated_tcp",
        /// A TCP data offset that can't be.
        BadTcpHeader = "bad_tcp_header",
        /// A UDP header is cut short.
        TruncatedUdp = "truncated_udp",
        /// A UDP length that can't be.
        BadUdpHeader = "bad_udp_header",
        /// An ICMP header is cut short.
        TruncatedIcmp = "truncated_icmp",
        /// Not for a service and not a reply.
        NotOurs = "not_ours",
        /// TTL or hop limit used up.
        TtlExpired = "ttl_expired",
        /// The frame's tags don't fit the way out.
        VlanMismatch = "vlan_mismatch",
        /// A later fragment whose first was not seen.
        FragmentUnknown = "fragment_unknown",
        /// ICMP that quotes nothing.
        IcmpNotError = "icmp_not_error",
        /// A quote too short to say whose it is.
        IcmpTruncatedQuote = "icmp_truncated_quote",
        /// An error about a connection that isn't ours.
        IcmpUnrelated = "icmp_unrelated",
        /// A RST of a connection that nobody knows.
        UnknownReset = "unknown_reset",
        /// The maps aren't filled in.
        NotReady = "not_ready",
    }
}

reasons! {
    /// The packet is dropped without an answer.
    Drop from 27 {
        /// The way to the backend isn't known.
        NoWay = "no_way",
        /// A refusal over the limit of ICMP errors.
        RefusalSuppressed = "refusal_suppressed",
        /// A reply of a connection that a flip has ended, in UDP.
        FlippedReply = "flipped_reply",
        /// The frame could not be changed as it had to be.
        FrameFixed = "frame_fixed",
    }
}

reasons! {
    /// The client is told at once that there is nobody: a RST, or ICMP port unreachable. Counted per service.
    Refuse from 0 {
        /// No usable stable backend.
        NoBackend = "no_backend",
        /// No port is free for another connection.
        PortsExhausted = "ports_exhausted",
        /// The affinity table has no room for another connection.
        AffinityFull = "affinity_full",
        /// In the middle of a connection that isn't known.
        UnknownConnection = "unknown_connection",
        /// The connection went to the canary, and the flip resets those.
        ResetByFlip = "reset_by_flip",
    }
}

/// Labels of the data plane's packet counters, by index in [`crate::abi::ReasonCounters`].
#[must_use]
pub fn label(counter: usize) -> Option<&'static str> {
    let skip = Skip::ALL.iter().map(|r| (r.counter(), r.label()));
    let drop = Drop::ALL.iter().map(|r| (r.counter(), r.label()));
    skip.chain(drop).find(|(index, _)| *index == counter).map(|(_, label)| label)
}

const _: () = {
    assert!(Skip::ALL.len() == 27);
    assert!(Skip::ALL.len() + Drop::ALL.len() <= REASONS);
    assert!(Refuse::ALL.len() <= REFUSALS);
};

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_label_of_its_own() {
        let labels: std::vec::Vec<_> = (0..REASONS).filter_map(label).collect();
        assert_eq!(labels.len(), Skip::ALL.len() + Drop::ALL.len());
        assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len());
        let refusals: BTreeSet<_> = Refuse::ALL.iter().map(|r| (r.index(), r.label())).collect();
        assert_eq!(refusals.len(), Refuse::ALL.len());
    }
}
