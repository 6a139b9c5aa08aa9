//! The merge against a plain model of what each command does, and each refusal's message.

mod rollout;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{
    model::{BackendWeight, Cohort, NetworkList},
    store::{decode, encode},
};

const BY: Origin<'_> = Origin { at: Timestamp::UNIX_EPOCH, by: "alice" };

#[test]
fn a_weight_by_command_counts_until_the_configured_one_changes() {
    let one = config(r#"weight = "1%""#);
    let state = set_weight(&one, &seeded(&one), &name(), percent("25%"), BY).expect("set");
    let desired = only(&one, &state);
    assert_eq!((desired.weight_in_force, desired.weight_source), (percent("25%"), WeightSource::Command));
    assert_eq!(reconcile(&one, &state, Timestamp::UNIX_EPOCH), state, "a reload without a change");

    let two = config(r#"weight = "2%""#);
    let desired = only(&two, &state);
    assert_eq!((desired.weight_in_force, desired.weight_source), (percent("2%"), WeightSource::Config));
    let state = reconcile(&two, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(last(&state), "checkout: the configured weight changed to 2%, which replaces the 25% set by command");
    let desired = only(&one, &reconcile(&one, &state, Timestamp::UNIX_EPOCH));
    assert_eq!(desired.weight_in_force, percent("1%"), "it doesn't come back with the old configuration");
}

#[test]
fn asking_for_the_configured_weight_is_asking_for_none() {
    let config = config(r#"weight = "1%""#);
    let state = set_weight(&config, &seeded(&config), &name(), percent("5%"), BY).expect("set");
    assert_eq!(last(&state), "checkout: weight from 1% to 5%, by alice");
    let state = set_weight(&config, &state, &name(), percent("1%"), BY).expect("set back");
    assert_eq!(only(&config, &state).weight_source, WeightSource::Config);
    let events = state.last_event();
    let state = set_weight(&config, &state, &name(), percent("1%"), BY).expect("nothing to do");
    assert_eq!(state.last_event(), events, "nothing happened, so there is no event");
}

#[test]
fn a_flip_puts_the_weight_out_of_force_and_keeps_its_first_reason() {
    let config = config(r#"weight = "10%""#);
    let reason = FlipReason::Person { text: Some("pager".to_owned()) };
    let flipped = flip(&config, &seeded(&config), &name(), reason.clone(), Existing::Keep, BY).expect("flipped");
    assert_eq!(last(&flipped), "checkout: flipped to stable, by alice: pager (established canary connections: keep)");
    let weighted = set_weight(&config, &flipped, &name(), percent("20%"), BY).expect("set meanwhile");
    let desired = only(&config, &weighted);
    assert_eq!((desired.weight_in_force, desired.service.weight), (Weight::ZERO, percent("20%")));

    let again = flip(&config, &weighted, &name(), reason.clone(), Existing::Keep, BY).expect_err("flipped");
    let expected = "service \"checkout\" is flipped already, since 1970-01-01T00:00:00Z, by alice: pager";
    assert_eq!(again.to_string(), expected);
    let person = FlipReason::Person { text: None };
    let reset = flip(&config, &weighted, &name(), person, Existing::Reset, BY).expect("another fate for connections");
    let kept = only(&config, &reset).flip.expect("still flipped");
    assert_eq!((kept.reason, kept.existing), (reason, Existing::Reset));

    let back = unflip(&config, &reset, &name(), BY).expect("unflipped");
    assert_eq!(last(&back), "checkout: unflipped, the canary gets 20% again, by alice");
    assert_eq!(only(&config, &back).weight_in_force, percent("20%"));
    assert_eq!(unflip(&config, &back, &name(), BY).expect_err("not flipped").to_string(), "service \"checkout\" is not flipped");
}

#[test]
fn a_damaged_state_holds_every_service_on_stable() {
    let config = config(r#"weight = "10%""#);
    let state = hold_on_stable(&config, Path::new("/s/state.json.damaged-1"), "EOF", Timestamp::UNIX_EPOCH);
    let desired = only(&config, &give_seeds(&config, &state, || Seed([1, 2])));
    assert_eq!(desired.weight_in_force, Weight::ZERO);
    let reason = desired.flip.expect("flipped").reason.to_string();
    assert_eq!(reason, "the saved state was damaged (kept as /s/state.json.damaged-1), so it is held on stable");
    assert_eq!(state.events().len(), 2);
}

#[test]
fn a_service_keeps_its_seed_and_the_configured_one_counts_more() {
    let plain = config("");
    let missing = services(&plain, &State::default()).expect_err("no seed");
    assert_eq!(missing.to_string(), "service \"checkout\" has no seed");
    let state = give_seeds(&plain, &State::default(), || Seed([1, 2]));
    let state = give_seeds(&plain, &state, || unreachable!("it has one"));
    assert_eq!(only(&plain, &state).seed, Seed([1, 2]));
    let own = config(r#"seed = "00000000000000030000000000000004""#);
    assert_eq!(only(&own, &state).seed, Seed([3, 4]));
}

#[test]
fn each_refusal_says_why() {
    let config = config("always_canary = [\"10.9.0.0/16\"]");
    let state = seeded(&config);
    let (one, two, canary) = (address("10.0.1.1:80"), address("10.0.1.2:80"), address("10.0.1.9:80"));
    let weight = BackendWeight::ONE;
    let add = |backend, cohort| add_backend(&config, &state, &name(), backend, cohort, weight, BY);
    let other: ServiceName = "chekout".parse().expect("a name");
    let far: ServiceName = "payments".parse().expect("a name");
    let net: IpNet = "10.9.0.0/16".parse().expect("a network");
    let (always, never) = (NetworkList::AlwaysCanary, NetworkList::NeverCanary);
    let without_two = remove_backend(&config, &state, &name(), two, BY).expect("one is left");
    let draining_two = drain(&config, &state, &name(), two, BY).expect("one is left");
    for (refused, expected) in [
        (set_weight(&config, &state, &other, Weight::ZERO, BY), "no service is named \"chekout\", did you mean \"checkout\"?"),
        (
            set_weight(&config, &state, &far, Weight::ZERO, BY),
            "no service is named \"payments\": `splitter status` lists the services",
        ),
        (
            add(canary, Cohort::Stable),
            "10.0.1.9:80 is a canary backend of service \"checkout\" already: to change it, remove it first, or set its weight",
        ),
        (
            add(address("[fd00::1]:80"), Cohort::Canary),
            "service \"checkout\": [fd00::1]:80 is IPv6, but the service's address 10.0.0.10:80 is IPv4: a service is of one family, write a second service for the other",
        ),
        (
            add(address("10.0.0.10:80"), Cohort::Canary),
            "service \"checkout\": 10.0.0.10:80 is the address of service \"checkout\": a backend is a server behind the splitter, not a service of it",
        ),
        (
            remove_backend(&config, &state, &name(), address("10.0.1.7:80"), BY),
            "service \"checkout\" has no backend 10.0.1.7:80: `splitter backend list checkout` shows those it has",
        ),
        (
            remove_backend(&config, &without_two, &name(), one, BY),
            "service \"checkout\": there is no stable backend: list at least one, for everything that isn't the canary's goes there",
        ),
        (
            remove_backend(&config, &draining_two, &name(), one, BY),
            "service \"checkout\": every stable backend is draining: keep at least one that takes new connections",
        ),
        (
            drain(&config, &without_two, &name(), one, BY),
            "service \"checkout\": every stable backend is draining: keep at least one that takes new connections",
        ),
        (drain(&config, &draining_two, &name(), two, BY), "backend 10.0.1.2:80 of service \"checkout\" is draining already"),
        (undrain(&config, &state, &name(), two, BY), "backend 10.0.1.2:80 of service \"checkout\" is not draining"),
        (
            add_network(&config, &state, &name(), always, net, BY),
            "10.9.0.0/16 is in always-canary of service \"checkout\" already",
        ),
        (
            add_network(&config, &state, &name(), never, net, BY),
            "10.9.0.0/16 is in always-canary of service \"checkout\": a network is in one of the two lists, remove it there first",
        ),
        (
            remove_network(&config, &state, &name(), never, net, BY),
            "10.9.0.0/16 is not in never-canary of service \"checkout\": `splitter network list checkout` shows what is",
        ),
        (
            add_network(&config, &state, &name(), never, "10.8.7.1/16".parse().expect("a network"), BY),
            "service \"checkout\": 10.8.7.1/16 has bits set behind its prefix: write 10.8.0.0/16",
        ),
    ] {
        assert_eq!(refused.expect_err(expected).to_string(), expected);
    }
}

#[test]
fn a_backend_can_be_promoted_and_the_configuration_catches_up() {
    let before = config("");
    let state = remove_backend(&before, &seeded(&before), &name(), address("10.0.1.9:80"), BY).expect("removed");
    let weight = BackendWeight::ONE;
    let state = add_backend(&before, &state, &name(), address("10.0.1.9:80"), Cohort::Stable, weight, BY).expect("added");
    let state = drain(&before, &state, &name(), address("10.0.1.9:80"), BY).expect("draining");
    let promoted = only(&before, &state).service;
    assert_eq!(promoted.backends.iter().filter(|b| b.cohort == Cohort::Stable).count(), 3);

    let after = Config::parse(
        &text("").replace(r#", "10.0.1.2:80"]"#, r#", "10.0.1.2:80", "10.0.1.9:80"]"#).replace(r#"canary = ["10.0.1.9:80"]"#, ""),
        "x",
    )
    .expect("valid");
    let state = reconcile(&after, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(
        last(&state),
        "checkout: dropped: the addition of backend 10.0.1.9:80, asked by command (the configuration lists it itself)"
    );
    let service = only(&after, &state).service;
    let promoted = service.backends.iter().find(|b| b.address == address("10.0.1.9:80")).expect("there");
    assert_eq!((promoted.cohort, promoted.draining), (Cohort::Stable, true), "it still drains");
    assert!(state.services[&name()].backends.removed.is_empty());
}

#[test]
fn a_configuration_that_leaves_no_stable_backend_beside_the_commands_counts_alone() {
    let before = config("");
    let state = remove_backend(&before, &seeded(&before), &name(), address("10.0.1.1:80"), BY).expect("removed");
    let after = Config::parse(&text("").replace(r#", "10.0.1.2:80"]"#, "]"), "x").expect("valid");
    let error = services(&after, &state).expect_err("no stable backend").to_string();
    assert!(error.contains("there is no stable backend"), "{error}");
    let state = reconcile(&after, &state, Timestamp::UNIX_EPOCH);
    assert!(
        last(&state).starts_with("checkout: dropped: the removal of backend 10.0.1.1:80, asked by command (there is no stable"),
        "{}",
        last(&state)
    );
    assert_eq!(only(&after, &state).service.backends, after.services[0].backends);
}

#[test]
fn only_the_service_that_breaks_a_rule_loses_its_drains() {
    let other = "[[service]]\nname = \"b\"\nprotocol = \"tcp\"\naddress = \"10.0.0.11:80\"\nstable = [\"10.0.1.1:80\", \"10.0.1.2:80\"]\n";
    let before = Config::parse(&(text("") + other), "x").expect("valid");
    let b: ServiceName = "b".parse().expect("a name");
    let state = drain(&before, &seeded(&before), &name(), address("10.0.1.1:80"), BY).expect("one is left");
    let state = drain(&before, &state, &b, address("10.0.1.1:80"), BY).expect("one is left");
    let after = Config::parse(&(text("").replace(r#", "10.0.1.2:80"]"#, "]") + other), "x").expect("valid");
    let state = reconcile(&after, &state, Timestamp::UNIX_EPOCH);
    let draining = |index: usize| {
        let services = services(&after, &state).expect("valid");
        services[index].service.backends.iter().filter(|backend| backend.draining).count()
    };
    assert_eq!((draining(0), draining(1)), (0, 1));
    assert!(last(&state).starts_with("checkout: dropped: the draining of backend 10.0.1.1:80"), "{}", last(&state));
}

#[test]
fn where_both_name_a_backend_or_a_network_the_configuration_counts() {
    let before = config("");
    let (backend, network) = (address("10.0.1.5:80"), "10.9.0.0/16".parse().expect("a network"));
    let weight = BackendWeight::ONE;
    let state = add_backend(&before, &seeded(&before), &name(), backend, Cohort::Canary, weight, BY).expect("added");
    let state = add_network(&before, &state, &name(), NetworkList::AlwaysCanary, network, BY).expect("added");
    let after = text("never_canary = [\"10.9.0.0/16\"]").replace(r#"canary = ["10.0.1.9:80"]"#, r#"canary = []"#);
    let after = Config::parse(&after.replace(r#", "10.0.1.2:80"]"#, r#", "10.0.1.5:80"]"#), "x").expect("valid");
    assert_eq!(only(&after, &state).service, after.services[0]);
    assert_eq!(only(&after, &reconcile(&after, &state, Timestamp::UNIX_EPOCH)).service, after.services[0]);
}

#[test]
fn a_service_that_left_the_configuration_comes_back_flipped_and_with_its_seed() {
    let config = config("");
    let none = Config::parse("[agent]\ninterfaces = [\"eth0\"]\n", "x").expect("valid");
    let reason = FlipReason::Person { text: None };
    let state = flip(&config, &seeded(&config), &name(), reason, Existing::Keep, BY).expect("flipped");
    let state = set_weight(&config, &state, &name(), percent("9%"), BY).expect("set");
    let gone = reconcile(&none, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(
        last(&gone),
        "checkout: dropped: everything but its seed and its flip, asked by command (the configuration doesn't name the service)"
    );
    let desired = only(&config, &reconcile(&config, &gone, Timestamp::UNIX_EPOCH));
    assert!(desired.flip.is_some());
    assert_eq!((desired.seed, desired.weight_source), (Seed([1, 2]), WeightSource::Config));
}

#[test]
fn a_flood_of_dropped_changes_does_not_push_out_other_events() {
    let before = config("");
    let mut state = seeded(&before);
    for n in 0..100_u8 {
        let network = format!("10.{n}.0.0/16").parse().expect("a network");
        state = add_network(&before, &state, &name(), NetworkList::NeverCanary, network, BY).expect("added");
    }
    let events = state.last_event();
    let none = Config::parse(&text("").replace("[[service]]", "[tables]\nnetworks = 1\n[[service]]"), "x").expect("valid");
    let state = reconcile(&none, &state, Timestamp::UNIX_EPOCH);
    assert_eq!(state.last_event() - events, 21);
    assert_eq!(last(&state), "checkout: dropped: 80 more changes, asked by command (for the same reasons)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The overlay is an intricate way to say something plain: the model below says it plainly.
    #[test]
    fn commands_do_what_a_plain_model_does_and_keep_the_result_valid(
        start in configuration().prop_map(alone), ops in prop::collection::vec(op(), 0..40),
    ) {
        let mut model = Model::of(&start);
        let mut state = give_seeds(&start, &State::default(), || Seed([1, 2]));
        for op in ops {
            let expected = model.after(&op);
            match op.ask(&start, &state) {
                Ok(next) => {
                    prop_assert!(expected.is_some(), "{op:?} was to be refused in {model:?}");
                    state = next;
                }
                Err(refusal) => prop_assert!(expected.is_none(), "{op:?} was refused: {refusal}"),
            }
            model = expected.unwrap_or(model);
            let desired = services(&start, &state);
            prop_assert!(desired.is_ok(), "{desired:?}");
            prop_assert_eq!(&Model::of_service(&only(&start, &state)), &model, "after {:?}", op);
        }
        prop_assert_eq!(&reconcile(&start, &state, Timestamp::UNIX_EPOCH), &state, "there was nothing to reconcile");
    }

    #[test]
    fn any_state_fits_any_configuration_once_it_is_reconciled(
        start in configuration(), ops in prop::collection::vec(op(), 0..40), other in configuration(),
    ) {
        let state = after(&start, &ops);
        let fitting = reconcile(&other, &state, Timestamp::UNIX_EPOCH);
        let desired = services(&other, &give_seeds(&other, &fitting, || Seed([1, 2])));
        prop_assert!(desired.is_ok(), "{desired:?}");
        prop_assert_eq!(&reconcile(&other, &fitting, Timestamp::UNIX_EPOCH), &fitting, "once is enough");
        let flipped = |state: &State| state.services.get(&name()).and_then(|asked| asked.flip.clone());
        prop_assert_eq!(flipped(&fitting), flipped(&state), "a flip is never dropped");
    }

    #[test]
    fn what_is_saved_is_what_is_loaded(start in configuration(), ops in prop::collection::vec(op(), 0..40)) {
        let state = after(&start, &ops);
        prop_assert_eq!(decode(&encode(&state).expect("encoded")).expect("decoded"), state);
    }
}

/// What a command asks of the one service.
#[derive(Clone, Debug)]
enum Op {
    Weight(Weight),
    Flip(Existing),
    Unflip,
    Add(SocketAddr, Cohort, BackendWeight),
    Remove(SocketAddr),
    Drain(SocketAddr),
    Undrain(SocketAddr),
    BackendWeight(SocketAddr, BackendWeight),
    AddNetwork(NetworkList, IpNet),
    RemoveNetwork(NetworkList, IpNet),
}

impl Op {
    fn ask(&self, config: &Config, state: &State) -> Result<State, Refusal> {
        let person = FlipReason::Person { text: None };
        match *self {
            Self::Weight(weight) => set_weight(config, state, &name(), weight, BY),
            Self::Flip(existing) => flip(config, state, &name(), person, existing, BY),
            Self::Unflip => unflip(config, state, &name(), BY),
            Self::Add(backend, cohort, weight) => add_backend(config, state, &name(), backend, cohort, weight, BY),
            Self::Remove(backend) => remove_backend(config, state, &name(), backend, BY),
            Self::Drain(backend) => drain(config, state, &name(), backend, BY),
            Self::Undrain(backend) => undrain(config, state, &name(), backend, BY),
            Self::BackendWeight(backend, weight) => set_backend_weight(config, state, &name(), backend, weight, BY),
            Self::AddNetwork(list, network) => add_network(config, state, &name(), list, network, BY),
            Self::RemoveNetwork(list, network) => remove_network(config, state, &name(), list, network, BY),
        }
    }
}

/// A service in effect, said plainly.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    weight: Weight,
    flip: Option<Existing>,
    backends: BTreeMap<SocketAddr, (Cohort, BackendWeight, bool)>,
    networks: BTreeMap<IpNet, NetworkList>,
}

impl Model {
    fn of(config: &Config) -> Self {
        Self::of_service(&only(config, &give_seeds(config, &State::default(), || Seed([1, 2]))))
    }

    fn of_service(desired: &Desired) -> Self {
        let service = &desired.service;
        let list = |list: NetworkList| service.networks(list).iter().map(move |network| (*network, list));
        Self {
            weight: service.weight,
            flip: desired.flip.as_ref().map(|flip| flip.existing),
            backends: service.backends.iter().map(|b| (b.address, (b.cohort, b.weight, b.draining))).collect(),
            networks: NetworkList::ALL.into_iter().flat_map(list).collect(),
        }
    }

    /// What it is after a command; `None`: the command is refused.
    fn after(&self, op: &Op) -> Option<Self> {
        let mut next = self.clone();
        match *op {
            Op::Weight(weight) => next.weight = weight,
            Op::Flip(existing) => {
                if next.flip.replace(existing) == Some(existing) {
                    return None;
                }
            }
            Op::Unflip => drop(next.flip.take()?),
            Op::Add(backend, cohort, weight) => {
                let fits = backend.is_ipv4() && backend != address("10.0.0.10:80") && self.backends.len() < 6;
                if !fits || next.backends.insert(backend, (cohort, weight, false)).is_some() {
                    return None;
                }
            }
            Op::Remove(backend) => drop(next.backends.remove(&backend)?),
            Op::Drain(backend) => {
                if std::mem::replace(&mut next.backends.get_mut(&backend)?.2, true) {
                    return None;
                }
            }
            Op::Undrain(backend) => {
                if !std::mem::replace(&mut next.backends.get_mut(&backend)?.2, false) {
                    return None;
                }
            }
            Op::BackendWeight(backend, weight) => next.backends.get_mut(&backend)?.1 = weight,
            Op::AddNetwork(list, network) => {
                let fits = network.addr().is_ipv4() && network == network.trunc();
                if !fits || next.networks.insert(network, list).is_some() {
                    return None;
                }
            }
            Op::RemoveNetwork(list, network) => {
                if next.networks.remove(&network)? != list {
                    return None;
                }
            }
        }
        next.backends.values().any(|(cohort, _, draining)| *cohort == Cohort::Stable && !draining).then_some(next)
    }
}

/// Few values, so that commands meet each other.
fn pool() -> Vec<SocketAddr> {
    let valid = (1..=7).map(|n| address(&format!("10.0.1.{n}:80")));
    valid.chain([address("10.0.0.10:80"), address("[fd00::1]:80")]).collect()
}

fn networks() -> Vec<IpNet> {
    let texts = ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", "10.3.0.1/16", "fd00::/16"];
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

fn cohort() -> impl Strategy<Value = Cohort> {
    prop::sample::select(Cohort::ALL.to_vec())
}

fn list() -> impl Strategy<Value = NetworkList> {
    prop::sample::select(NetworkList::ALL.to_vec())
}

fn backend_weight() -> impl Strategy<Value = BackendWeight> {
    (1_u32..4).prop_map(|n| BackendWeight::try_from(n).expect("in range"))
}

fn weight() -> impl Strategy<Value = Weight> {
    (0_u16..4).prop_map(|n| Weight::from_basis_points(n * 100).expect("in range"))
}

fn op() -> impl Strategy<Value = Op> {
    let backend = || prop::sample::select(pool());
    let network = || prop::sample::select(networks());
    prop_oneof![
        weight().prop_map(Op::Weight),
        prop::sample::select(vec![Existing::Keep, Existing::Reset]).prop_map(Op::Flip),
        Just(Op::Unflip),
        (backend(), cohort(), backend_weight()).prop_map(|(b, c, w)| Op::Add(b, c, w)),
        backend().prop_map(Op::Remove),
        backend().prop_map(Op::Drain),
        backend().prop_map(Op::Undrain),
        (backend(), backend_weight()).prop_map(|(b, w)| Op::BackendWeight(b, w)),
        (list(), network()).prop_map(|(l, n)| Op::AddNetwork(l, n)),
        (list(), network()).prop_map(|(l, n)| Op::RemoveNetwork(l, n)),
    ]
}

/// A valid configuration of the one service, and sometimes another whose address is in the pool of backends.
fn configuration() -> impl Strategy<Value = Config> {
    let role = || prop::option::weighted(0.5, (cohort(), backend_weight()));
    let roles = prop::collection::vec(role(), 5);
    let lists = prop::collection::vec(prop::option::of(list()), 4);
    (roles, lists, weight(), any::<bool>()).prop_map(|(roles, lists, weight, other)| {
        let mut config = config("");
        let service = &mut config.services[0];
        service.weight = weight;
        service.backends = vec![Backend { cohort: Cohort::Stable, ..backend(0) }];
        for (index, role) in roles.into_iter().enumerate() {
            if let Some((cohort, weight)) = role {
                service.backends.push(Backend { cohort, weight, ..backend(index + 1) });
            }
        }
        service.backends.truncate(4);
        for (network, list) in networks().into_iter().zip(lists) {
            if let Some(list) = list {
                service.networks_mut(list).insert(network);
            }
        }
        config.tables.backends = 6;
        if other {
            let mut second = config.services[0].clone();
            second.name = "second".parse().expect("a name");
            second.address = pool()[6];
            second.always_canary = BTreeSet::new();
            second.never_canary = BTreeSet::new();
            second.backends = vec![backend(0)];
            // So that the room for the first one's backends is the same.
            config.tables.backends = 7;
            config.services.push(second);
        }
        config
    })
}

/// Without the other service: the model knows of one.
fn alone(mut config: Config) -> Config {
    config.services.truncate(1);
    config.tables.backends = 6;
    config
}

fn backend(index: usize) -> Backend {
    Backend { address: pool()[index], cohort: Cohort::Stable, weight: BackendWeight::ONE, draining: false }
}

fn after(config: &Config, ops: &[Op]) -> State {
    ops.iter().fold(seeded(config), |state, op| op.ask(config, &state).unwrap_or(state))
}

fn seeded(config: &Config) -> State {
    give_seeds(config, &State::default(), || Seed([1, 2]))
}

/// The first service as asked for.
fn only(config: &Config, state: &State) -> Desired {
    let mut desired = services(config, &give_seeds(config, state, || Seed([1, 2]))).expect("valid");
    desired.swap_remove(0)
}

fn last(state: &State) -> String {
    state.events().last().expect("an event").to_string()
}

fn name() -> ServiceName {
    "checkout".parse().expect("a name")
}

fn percent(text: &str) -> Weight {
    text.parse().expect("a weight")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn config(more: &str) -> Config {
    Config::parse(&text(more), "x").expect("valid")
}

fn text(more: &str) -> String {
    format!(
        "[agent]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"checkout\"\nprotocol = \"tcp\"\naddress = \"10.0.0.10:80\"\n\
         stable = [\"10.0.1.1:80\", \"10.0.1.2:80\"]\ncanary = [\"10.0.1.9:80\"]\n{more}\n"
    )
}
