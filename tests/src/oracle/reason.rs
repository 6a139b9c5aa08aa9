//! The reasons of `docs/packet-path.md`, by the names it gives them.

use std::fmt;

use crate::packet::parse::Flaw;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A reason that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// The page's name for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// To the kernel: section 1.
    TruncatedEthernet = "truncated_ethernet",
    /// To the kernel: section 1.
    TruncatedVlan = "truncated_vlan",
    /// To the kernel: section 1.
    TooManyVlanTags = "too_many_vlan_tags",
    /// To the kernel: section 1.
    NotIp = "not_ip",
    /// To the kernel: section 1.
    TruncatedIpv4 = "truncated_ipv4",
    /// To the kernel: section 1.
    BadIpv4Header = "bad_ipv4_header",
    /// To the kernel: section 1.
    TruncatedIpv6 = "truncated_ipv6",
    /// To the kernel: section 1.
    BadIpv6Header = "bad_ipv6_header",
    /// To the kernel: section 1.
    TooManyExtensions = "too_many_extensions",
    /// To the kernel: section 1.
    TruncatedExtension = "truncated_extension",
    /// To the kernel: section 1.
    SourceRouted = "source_routed",
    /// To the kernel: section 1.
    BadFragment = "bad_fragment",
    /// To the kernel: section 1.
    NotTcpUdp = "not_tcp_udp",
    /// To the kernel: section 1.
    TruncatedTcp = "truncated_tcp",
    /// To the kernel: section 1.
    BadTcpHeader = "bad_tcp_header",
    /// To the kernel: section 1.
    TruncatedUdp = "truncated_udp",
    /// To the kernel: section 1.
    BadUdpHeader = "bad_udp_header",
    /// To the kernel: section 1.
    TruncatedIcmp = "truncated_icmp",
    /// To the kernel: section 2.
    NotOurs = "not_ours",
    /// To the kernel: sections 4, 6, 7 and 8.
    TtlExpired = "ttl_expired",
    /// To the kernel: sections 4 and 6.
    VlanMismatch = "vlan_mismatch",
    /// To the kernel: section 7.
    FragmentUnknown = "fragment_unknown",
    /// To the kernel: section 8.
    IcmpNotError = "icmp_not_error",
    /// To the kernel: section 8.
    IcmpTruncatedQuote = "icmp_truncated_quote",
    /// To the kernel: section 8.
    IcmpUnrelated = "icmp_unrelated",
    /// To the kernel: section 5.
    UnknownReset = "unknown_reset",
    /// To the kernel: section 5.
    NotReady = "not_ready",
    /// Dropped: section 4.
    NoWay = "no_way",
    /// Refused: sections 3 and 5.
    NoBackend = "no_backend",
    /// Refused: section 5.
    PortsExhausted = "ports_exhausted",
    /// Refused: section 3.
    UnknownConnection = "unknown_connection",
    /// Refused: sections 3 and 6.
    ResetByFlip = "reset_by_flip",
    /// Refused: section 5.
    AffinityFull = "affinity_full",
    /// Dropped instead of refused: section 5.
    RefusalSuppressed = "refusal_suppressed",
    /// Dropped: section 6.
    FlippedReply = "flipped_reply",
    /// Dropped: section 5.
    FrameFixed = "frame_fixed",
    /// Counted besides what happens: section 3.
    CanaryFallback = "canary_fallback",
    /// Counted besides what happens: section 3.
    Untracked = "untracked",
}

impl Reason {
    /// The reason of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Reason {
        match flaw {
            Flaw::TruncatedEthernet => Reason::TruncatedEthernet,
            Flaw::TruncatedVlan => Reason::TruncatedVlan,
            Flaw::TooManyVlanTags => Reason::TooManyVlanTags,
            Flaw::NotIp => Reason::NotIp,
            Flaw::TruncatedIpv4 => Reason::TruncatedIpv4,
            Flaw::BadIpv4Header => Reason::BadIpv4Header,
            Flaw::TruncatedIpv6 => Reason::TruncatedIpv6,
            Flaw::BadIpv6Header => Reason::BadIpv6Header,
            Flaw::TooManyExtensions => Reason::TooManyExtensions,
            Flaw::TruncatedExtension => Reason::TruncatedExtension,
            Flaw::SourceRouted => Reason::SourceRouted,
            Flaw::BadFragment => Reason::BadFragment,
            Flaw::NotTcpUdp => Reason::NotTcpUdp,
            Flaw::TruncatedTcp => Reason::TruncatedTcp,
            Flaw::BadTcpHeader => Reason::BadTcpHeader,
            Flaw::TruncatedUdp => Reason::TruncatedUdp,
            Flaw::BadUdpHeader => Reason::BadUdpHeader,
            Flaw::TruncatedIcmp => Reason::TruncatedIcmp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::named("no such reason"), None);
    }

    #[test]
    fn every_reason_is_a_word_of_the_page() {
        let page = include_str!("../../../docs/packet-path.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("`{reason}`")), "{reason} is not in docs/packet-path.md");
        }
    }
}
