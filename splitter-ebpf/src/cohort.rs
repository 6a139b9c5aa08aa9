//! Which cohort a new connection belongs to, and why.

use crate::{
    abi::{Control, Service, Settings, flags, verdict},
    moment::Moment,
};

/// A set of backends of one version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cohort {
    /// The version in service.
    Stable = 0,
    /// The version on trial.
    Canary = 1,
}

/// The rule that put a connection into its cohort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The service is flipped: stable.
    Flipped,
    /// Its breaker has tripped: stable.
    Tripped,
    /// The agent's lease has run out: stable.
    LeaseRanOut,
    /// The client's network never gets the canary.
    NeverCanary,
    /// The client's network always gets the canary.
    AlwaysCanary,
    /// The place in hash space is below the weight: canary.
    Below,
    /// It isn't: stable.
    NotBelow,
    /// The canary's share, but the canary has no usable backend: stable.
    Fallback,
}

impl Rule {
    /// The cohort that the rule means.
    #[inline(always)]
    #[must_use]
    pub const fn cohort(self) -> Cohort {
        match self {
            Self::AlwaysCanary | Self::Below => Cohort::Canary,
            Self::Flipped | Self::Tripped | Self::LeaseRanOut | Self::NeverCanary | Self::NotBelow | Self::Fallback => {
                Cohort::Stable
            }
        }
    }
}

/// What keeps a service on stable beside its control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hold {
    /// Nothing does.
    None = 0,
    /// Its breaker has tripped.
    Tripped = 1,
    /// The agent's lease has run out.
    LeaseRanOut = 2,
}

impl Hold {
    /// What keeps this service on stable at this moment.
    #[inline(always)]
    #[must_use]
    pub fn of(settings: &Settings, service: &Service, now: Moment) -> Self {
        if service.trip.load() != 0 {
            Self::Tripped
        } else if now.0 > settings.lease.load() && !service.has(flags::LEASE_HOLD) {
            Self::LeaseRanOut
        } else {
            Self::None
        }
    }

    /// Whether nothing does.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

/// Whether an attempt that a backend of this cohort (0 stable, 1 canary) hasn't answered is better off elsewhere, its service being on stable by now: its
/// client's next SYN begins it anew. `hold` is asked only where it matters, as that takes the clock.
#[inline(always)]
#[must_use]
pub fn spares(control: Control, cohort: u8, hold: impl FnOnce() -> Hold) -> bool {
    cohort != 0 && (control.flipped() || !hold().is_none())
}

/// The first rule that applies. `network` is what the prefix table says of the client (a value of [`verdict`], 0: nothing), `canary_usable`
/// whether the canary's table has entries.
#[inline(always)]
#[must_use]
pub const fn choose(control: Control, hold: Hold, network: u8, place: u32, canary_usable: bool) -> Rule {
    let rule = if control.flipped() {
        Rule::Flipped
    } else if matches!(hold, Hold::Tripped) {
        Rule::Tripped
    } else if matches!(hold, Hold::LeaseRanOut) {
        Rule::LeaseRanOut
    } else if network == verdict::NEVER_CANARY {
        Rule::NeverCanary
    } else if network == verdict::ALWAYS_CANARY {
        Rule::AlwaysCanary
    } else if (place as u64) < control.threshold() {
        Rule::Below
    } else {
        Rule::NotBelow
    };
    match rule.cohort() {
        Cohort::Canary if !canary_usable => Rule::Fallback,
        Cohort::Canary | Cohort::Stable => rule,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::abi::SharedWord;

    fn at(basis_points: u16) -> Control {
        Control::default().with_threshold(Control::threshold_of(basis_points))
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        for place in [0, 1, u32::MAX / 2, u32::MAX] {
            assert_eq!(choose(at(0), Hold::None, 0, place, true), Rule::NotBelow);
            assert_eq!(choose(at(10_000), Hold::None, 0, place, true), Rule::Below);
        }
    }

    #[test]
    fn a_flip_outranks_networks_and_networks_outrank_the_weight() {
        let flipped = at(10_000).with_flip(true, false);
        assert_eq!(choose(flipped, Hold::None, verdict::ALWAYS_CANARY, 0, true), Rule::Flipped);
        assert_eq!(choose(at(10_000), Hold::Tripped, verdict::ALWAYS_CANARY, 0, true), Rule::Tripped);
        assert_eq!(choose(at(10_000), Hold::LeaseRanOut, verdict::ALWAYS_CANARY, 0, true), Rule::LeaseRanOut);
        assert_eq!(choose(at(10_000), Hold::None, verdict::NEVER_CANARY, 0, true), Rule::NeverCanary);
        assert_eq!(choose(at(0), Hold::None, verdict::ALWAYS_CANARY, 0, true), Rule::AlwaysCanary);
        assert_eq!(choose(at(0), Hold::None, verdict::ALWAYS_CANARY, 0, false), Rule::Fallback);
    }

    #[test]
    fn what_holds_a_service_on_stable_is_its_breaker_or_a_lease_that_has_run_out_unless_it_is_to_hold_its_weight() {
        let settings = Settings { lease: SharedWord::new(1_000), ..Settings::default() };
        let service = |trip: u64, flags| Service { trip: SharedWord::new(trip), flags, ..Service::default() };
        assert_eq!(Hold::of(&settings, &service(0, 0), Moment(1_000)), Hold::None);
        assert_eq!(Hold::of(&settings, &service(0, 0), Moment(1_001)), Hold::LeaseRanOut);
        assert_eq!(Hold::of(&settings, &service(0, flags::LEASE_HOLD), Moment(1_001)), Hold::None);
        assert_eq!(Hold::of(&settings, &service(7, flags::LEASE_HOLD), Moment(1)), Hold::Tripped);
        let released = Settings { lease: SharedWord::new(u64::MAX), ..Settings::default() };
        assert_eq!(Hold::of(&released, &service(0, 0), Moment(u64::MAX)), Hold::None);
    }

    proptest! {
        #[test]
        fn raising_the_weight_moves_nobody_out_and_lowering_it_nobody_in(place: u32, low in 0_u16..=10_000, high in 0_u16..=10_000) {
            let (low, high) = (low.min(high), low.max(high));
            let (before, after) = (choose(at(low), Hold::None, 0, place, true).cohort(), choose(at(high), Hold::None, 0, place, true).cohort());
            prop_assert!(before == Cohort::Stable || after == Cohort::Canary);
        }

        #[test]
        fn the_parts_of_a_control_word_do_not_touch_each_other(word: u64, bp in 0_u16..=10_000, flipped: bool, reset: bool, generation in 0_usize..2, networks: bool, trace: bool) {
            let control = Control(word & ((1 << 38) - 1))
                .with_trace(trace).with_networks(networks).with_generation(generation).with_flip(flipped, reset)
                .with_threshold(Control::threshold_of(bp));
            prop_assert_eq!(control.threshold(), Control::threshold_of(bp));
            prop_assert_eq!(control.flipped(), flipped);
            prop_assert_eq!(control.resets_canary(), flipped && reset);
            prop_assert_eq!(control.generation(), generation);
            prop_assert_eq!(control.has_networks(), networks);
            prop_assert_eq!(control.traces(), trace);
        }
    }
}
