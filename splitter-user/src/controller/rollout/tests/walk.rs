//! Walks at random: any plan, any input, any time, restarts in between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_comes_in_a_rollout_keeps_its_promises(plan in any_plan(), inputs in prop::collection::vec(input(), 0..80)) {
        let mut run = start(1, &plan, "eve", AT);
        let mut reached = weight_of(&run);
        holds(&run)?;
        for (number, input) in inputs.into_iter().enumerate() {
            let at = AT + Duration::from_secs(number as u64);
            let before = run.clone();
            run = comes(&run, &input, at)?;
            holds(&run)?;

            if run.id == before.id {
                let weight = weight_of(&run);
                if is_active(&run.phase) {
                    prop_assert!(weight >= reached, "{input:?}: the weight fell from {reached:?} to {weight:?}");
                }
                reached = reached.max(weight);
                let kept = run.log.iter().rposition(|entry| Some(entry) == before.log.last());
                prop_assert!(kept.is_some(), "{input:?}: what was noted last is gone");
                prop_assert_eq!(&run.log[0], &before.log[0]);
                prop_assert_eq!(run.phase == before.phase, run.log == before.log, "what happens is noted, and nothing else");
            } else {
                prop_assert!(!is_active(&before.phase), "{input:?}: a rollout that goes on was replaced");
                reached = weight_of(&run);
            }

        }
    }

    #[test]
    fn from_every_state_somebody_finds_a_way_out(plan in any_plan(), inputs in prop::collection::vec(input(), 0..80)) {
        let mut run = start(1, &plan, "eve", AT);
        for input in inputs {
            run = comes(&run, &input, AT)?;
        }
        // To promotion, with what a person may ask and the agent does.
        let mut way = run.clone();
        if matches!(way.phase, Phase::Flipped { .. } | Phase::Aborted { .. }) {
            way = retry(&way, way.id + 1, &plan, "alice", AT).expect("begins again");
        }
        if is_active(&way.phase) && !matches!(way.phase, Phase::Promoting { .. }) {
            way = ask(&way, Verb::Promote { full: true }, "alice", AT).expect("from each of these");
        }
        prop_assert_eq!(promoted(&way, AT).phase, Phase::Promoted);

        // To promotion, step by step.
        let mut way = run.clone();
        for _ in 0..3 * (plan.steps.len() + 1) {
            let verb = match way.phase {
                Phase::Stepping { .. } => Verb::Promote { full: false },
                Phase::Gate { .. } => Verb::Approve,
                Phase::Paused { .. } => Verb::Resume,
                Phase::Flipped { .. } | Phase::Aborted { .. } => {
                    way = retry(&way, way.id + 1, &plan, "alice", AT).expect("begins again");
                    continue;
                }
                Phase::Promoting { .. } => {
                    way = promoted(&way, AT);
                    break;
                }
                Phase::Promoted => break,
            };
            way = ask(&way, verb, "alice", AT).expect("it's what the state wants");
        }
        prop_assert_eq!(&way.phase, &Phase::Promoted);

        // To an end without promotion.
        if !run.is_over() {
            let ended = ask(&run, Verb::Abort, "alice", AT).expect("from each of these");
            prop_assert_eq!(weight_of(&ended), None);
            prop_assert!(ended.is_over() && retry(&ended, ended.id + 1, &plan, "alice", AT).is_ok());
        }
    }

    /// With a plan in which enough is known in time, nobody has to do anything.
    #[test]
    fn a_canary_that_is_as_good_as_stable_is_promoted_by_itself(steps in steps(false), each in 1_u64..100) {
        let lasts: Duration = steps.iter().map(|step| step.lasts).sum();
        let plan = Plan { min_connections: 50, deadline: lasts + 200 * MINUTE, ..plain(steps) };
        let mut run = start(1, &plan, "eve", AT);
        let mut looks = 0_u32;
        while is_active(&run.phase) && !matches!(run.phase, Phase::Promoting { .. }) {
            looks += 1;
            prop_assert!(looks < 10_000, "{:?}", run.phase);
            looked(&mut run, &Look { elapsed: MINUTE, seen: connections(each), answers: Vec::new() });
        }
        prop_assert!(matches!(run.phase, Phase::Promoting { .. }), "{:?}", run.phase);
        prop_assert!(looks * MINUTE >= lasts, "steps were left before their time");
    }
}

/// What holds of a rollout at any time.
fn holds(run: &Run) -> Result<(), TestCaseError> {
    let weight = weight_of(run);
    let configured = |step: usize| run.plan.steps[step].weight;
    let before = |step: usize| step.checked_sub(1).map_or(Weight::ZERO, configured);
    match &run.phase {
        Phase::Stepping { step } => {
            let from = run.plan.steps[*step].from.unwrap_or(configured(*step));
            prop_assert!(weight >= Some(from) && weight <= Some(configured(*step)), "{weight:?}");
        }
        Phase::Gate { step } => prop_assert_eq!(weight, Some(before(*step))),
        Phase::Paused { step, at_gate, .. } | Phase::Promoting { step, at_gate } => {
            let most = if *at_gate { before(*step) } else { configured(*step) };
            prop_assert!(weight <= Some(most), "{weight:?} with {:?}", run.phase);
        }
        Phase::Flipped { .. } => prop_assert_eq!(weight, Some(Weight::ZERO)),
        Phase::Promoted | Phase::Aborted { .. } => prop_assert_eq!(weight, None),
    }
    prop_assert!((2..=Run::LOG).contains(&run.log.len()));
    let (first, of) = (&run.log[0].what, run.plan.steps.len());
    prop_assert!(matches!(first, Moved::Started { steps, .. } if *steps == of), "{first:?}");
    let checks: BTreeSet<&String> = run.plan.checks.iter().map(|check| &check.name).collect();
    prop_assert!(run.progress.checks.keys().all(|name| checks.contains(name)));
    Ok(())
}

#[derive(Clone, Debug)]
enum Input {
    Asked(Verb),
    Retry,
    Promoted,
    Flipped,
    Looked {
        elapsed: Duration,
        /// Connections, and those that were refused.
        stable: (u64, u64),
        canary: (u64, u64),
        answers: Vec<(String, Answer)>,
    },
    /// A move that somebody thought to be due.
    Moved(Move),
    /// Another agent goes on with what was kept.
    Restarted,
}

fn comes(run: &Run, input: &Input, at: Timestamp) -> Result<Run, TestCaseError> {
    match input {
        Input::Asked(verb) => Ok(ask(run, *verb, "alice", at).unwrap_or_else(|_| run.clone())),
        Input::Retry => Ok(retry(run, run.id + 1, &run.plan, "alice", at).unwrap_or_else(|_| run.clone())),
        Input::Promoted => Ok(promoted(run, at)),
        Input::Flipped => Ok(flipped(run, &FlipReason::Found, at)),
        Input::Moved(due) => Ok(moved(run, due, at)),
        Input::Restarted => {
            let read = serde_json::from_slice(&serde_json::to_vec(run).expect("JSON")).expect("a rollout");
            prop_assert_eq!(&read, run);
            Ok(read)
        }
        Input::Looked { elapsed, stable, canary, answers } => {
            let seen = refused(*stable, *canary);
            let mut next = run.clone();
            let due = look(&mut next, &Look { elapsed: *elapsed, seen, answers: answers.clone() });
            prop_assert_eq!((&next.phase, &next.log), (&run.phase, &run.log), "a look only measures");
            is_due(run, &next, *elapsed, answers, due.as_ref())?;
            Ok(due.map_or_else(|| next.clone(), |due| moved(&next, &due, at)))
        }
    }
}

/// What a look must have said, and measured.
fn is_due(
    before: &Run,
    after: &Run,
    elapsed: Duration,
    answers: &[(String, Answer)],
    due: Option<&Move>,
) -> Result<(), TestCaseError> {
    if !is_active(&before.phase) {
        prop_assert_eq!(due, None);
        prop_assert_eq!(after, before);
        return Ok(());
    }
    let steps = matches!(before.phase, Phase::Stepping { .. });
    let passed = if steps { elapsed } else { Duration::ZERO };
    prop_assert_eq!(after.progress.in_step, before.progress.in_step + passed, "a step's time goes on in steps alone");
    prop_assert_eq!(after.progress.age, before.progress.age + elapsed);

    let worse = matches!(standing(after), Standing::Worse(_));
    let breached = worse
        || after.plan.checks.iter().any(|check| {
            let mut bad = before.progress.checks.get(&check.name).map_or(0, |checked| checked.bad);
            answers.iter().filter(|(name, _)| *name == check.name).any(|(_, answer)| {
                bad = match answer {
                    Answer::Pass { .. } => 0,
                    Answer::Bad { .. } => bad + 1,
                    Answer::NoData { .. } => bad,
                };
                matches!(answer, Answer::Bad { .. }) && bad >= check.failures
            })
        });
    let paused_by_one = matches!(before.phase, Phase::Paused { why: Pause::Breach { .. }, .. });
    if breached && after.plan.on_breach == OnBreach::Flip {
        prop_assert!(matches!(due, Some(Move::Flip(Stop::Check { .. } | Stop::Worse { .. }))), "{due:?}");
        prop_assert!(matches!(moved(after, due.expect("a flip"), AT).phase, Phase::Flipped { .. }), "from {:?}", before.phase);
    } else if breached && !paused_by_one {
        prop_assert!(matches!(due, Some(Move::Pause(Stop::Check { .. } | Stop::Worse { .. }))), "{due:?}");
        prop_assert!(matches!(moved(after, due.expect("a pause"), AT).phase, Phase::Paused { .. }), "from {:?}", before.phase);
    } else if after.progress.age >= after.plan.deadline
        && due.is_none_or(|due| !matches!(due, Move::Flip(Stop::Check { .. } | Stop::Worse { .. })))
    {
        let expected = match after.plan.on_deadline {
            OnDeadline::Abort => Move::Abort(Abort::Deadline { after: after.plan.deadline }),
            OnDeadline::Flip => Move::Flip(Stop::Deadline { after: after.plan.deadline }),
        };
        // What was found before it is found again.
        if !matches!(due, Some(Move::Pause(_))) {
            prop_assert_eq!(due, Some(&expected));
        }
    } else if due == Some(&Move::Next) {
        let Phase::Stepping { step } = before.phase else { panic!("{:?}", before.phase) };
        prop_assert!(after.progress.in_step >= after.plan.steps[step].lasts);
    } else if due == Some(&Move::Open) {
        let at_gate = matches!(before.phase, Phase::Gate { .. });
        prop_assert!(at_gate, "opened from {:?}", before.phase);
    }
    Ok(())
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let policies = (
        prop::sample::select(vec![OnBreach::Flip, OnBreach::Pause]),
        prop::sample::select(vec![OnNoData::Hold, OnNoData::Flip, OnNoData::Proceed]),
        prop::sample::select(vec![OnDeadline::Abort, OnDeadline::Flip]),
    );
    let numbers = (0_u64..1_000, 0_u32..20, 10_u32..400, 1_u32..4, 1_u32..4);
    (steps(true), policies, numbers, any::<bool>()).prop_map(
        |(steps, (on_breach, on_no_data, on_deadline), numbers, compared)| {
            let (min_connections, no_data, deadline, smoke, http) = numbers;
            Plan {
                min_connections,
                on_breach,
                on_no_data,
                no_data_for: no_data * MINUTE,
                deadline: deadline * MINUTE,
                on_deadline,
                compare: compared.then(compare),
                checks: vec![check("smoke", smoke), check("http", http)],
                ..plain(steps)
            }
        },
    )
}

/// Weights that don't fall, some as ramps, some behind gates.
fn steps(gates: bool) -> impl Strategy<Value = Vec<Step>> {
    let gate = prop_oneof![Just(Gate::Manual), Just(Gate::Check("smoke".to_owned()))];
    let one = (0_u16..40, 0_u16..40, any::<bool>(), 0_u32..30, prop::option::weighted(0.4, gate));
    prop::collection::vec(one, 1..6).prop_map(move |all| {
        let mut reached = 0;
        let mut made = Vec::new();
        for (rise, ramp, ramps, minutes, gate) in all {
            let from = (reached + rise).min(100);
            let to = (from + if ramps { ramp } else { 0 }).min(100);
            made.push(step(ramps.then_some(from), to, minutes, gate.filter(|_| gates)));
            reached = to;
        }
        made
    })
}

/// So many connections, of which sometimes some are refused.
fn outcomes() -> impl Strategy<Value = (u64, u64)> {
    let failing = prop_oneof![9 => Just(0), 1 => 0_u64..100];
    (0_u64..2_000, failing).prop_map(|(each, percent)| (each, each * percent / 100))
}

fn input() -> impl Strategy<Value = Input> {
    let verb = prop::sample::select(vec![
        Verb::Pause,
        Verb::Resume,
        Verb::Approve,
        Verb::Promote { full: false },
        Verb::Promote { full: true },
        Verb::Abort,
    ]);
    let stop = Stop::Check { name: "smoke".to_owned(), said: "bad".to_owned() };
    let due = prop::sample::select(vec![
        Move::Next,
        Move::Open,
        Move::Flip(stop.clone()),
        Move::Pause(stop),
        Move::Abort(Abort::Deadline { after: MINUTE }),
    ]);
    let name = prop::sample::select(vec!["smoke".to_owned(), "http".to_owned(), "unknown".to_owned()]);
    let answer = prop_oneof![6 => Just(pass()), 1 => Just(bad()), 1 => Just(no_data())];
    let elapsed = prop_oneof![
        9 => (0_u64..2_000_000_000_000).prop_map(Duration::from_nanos),
        1 => (0_u64..40_000).prop_map(Duration::from_secs),
    ];
    let looked = (elapsed, outcomes(), outcomes(), prop::collection::vec((name, answer), 0..4))
        .prop_map(|(elapsed, stable, canary, answers)| Input::Looked { elapsed, stable, canary, answers });
    prop_oneof![
        4 => verb.prop_map(Input::Asked),
        1 => Just(Input::Retry),
        1 => Just(Input::Promoted),
        1 => Just(Input::Flipped),
        1 => due.prop_map(Input::Moved),
        2 => Just(Input::Restarted),
        16 => looked,
    ]
}
