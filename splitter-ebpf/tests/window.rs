//! What a breaker's window counts, used as the program uses it.

use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    thread,
};

use proptest::prelude::*;
use splitter_ebpf::{
    abi::{Breaker, NO_LIMIT, WINDOW_SLOTS, Window, WindowSlot, WindowTally},
    breaker::{add, begin, counts, in_time, shape, slot, tally, time},
    moment::{FINE_NS, Fine, MAX_FINE_AGE, Moment},
};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a list of everything that happened: after each step, long silences between them included, the window holds exactly what the list says of its time.
    #[test]
    fn a_window_holds_what_happened_within_it(
        start in 0_u64..1 << 39,
        (timeout, length) in lengths(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let breaker = of_shape(timeout, length);
        let (window, mut list) = (Window::default(), List::default());
        let mut events = schedule(start, &steps);
        events.sort_by_key(|event| event.at);
        for event in events {
            match event.what {
                What::Attempt => {
                    attempt(&breaker, &window, event.seen);
                    list.attempts.push((time(&breaker, event.seen), Vec::new()));
                }
                What::Completion { begun } => {
                    outcome(&breaker, &window, Outcome::Completed, begun, event.seen);
                    list.completions.push(time(&breaker, event.seen));
                    list.resolve(time(&breaker, begun), time(&breaker, event.seen));
                }
                What::Refusal { begun } => {
                    outcome(&breaker, &window, Outcome::Refused, begun, event.seen);
                    list.refusals.push(time(&breaker, event.seen));
                    list.resolve(time(&breaker, begun), time(&breaker, event.seen));
                }
                What::Look => {}
            }
            let now = time(&breaker, event.at);
            prop_assert_eq!(tally(&breaker, &window, now), list.tally(&breaker, now), "at {} under {:?}", now, breaker);
        }
    }

    /// In units, as a user counts them: no slots in it.
    #[test]
    fn an_attempt_without_an_outcome_is_seen_after_its_timeout_and_within_two_slots_of_it(at in 0_u64..1 << 40, (timeout, length) in lengths()) {
        let breaker = of_shape(timeout, length);
        let (window, slots) = (Window::default(), 1 << breaker.shift);
        attempt(&breaker, &window, at);
        let at_age = |age: u64| tally(&breaker, &window, time(&breaker, at + age));
        let not_due = WindowTally { attempts: at_age(timeout).attempts, ..WindowTally::default() };
        prop_assert_eq!(at_age(timeout), not_due);
        let first = (timeout..timeout + 2 * slots).find(|age| at_age(*age).timed_out == 1);
        prop_assert!(first.is_some(), "not within {} units of {timeout}", 2 * slots);
        for age in [timeout + 2 * slots, timeout + length + slots] {
            let age = age.max(timeout + 2 * slots);
            prop_assert_eq!((at_age(age).due, at_age(age).timed_out), (1, 1), "at {}", age);
        }
        // It's in the window of attempts for its length, and for two slots more at most.
        prop_assert_eq!((at_age(0).attempts, at_age(length - 1).attempts, at_age(length + 2 * slots).attempts), (1, 1, 0));
        // It's gone from that of timeouts likewise.
        let last = timeout + length + 4 * slots;
        prop_assert_eq!(at_age(last), WindowTally::default());
        prop_assert_eq!(at_age(last + (WINDOW_SLOTS as u64) * slots), WindowTally::default());
    }

    /// Whoever completes before its timeout is never counted as having failed, on whatever borders of slots it falls.
    #[test]
    fn an_attempt_that_completes_before_its_timeout_never_failed(at in 0_u64..1 << 40, (timeout, length) in lengths(), part in 0.0..1.0) {
        let breaker = of_shape(timeout, length);
        let window = Window::default();
        let age = (timeout as f64 * part) as u64;
        attempt(&breaker, &window, at);
        outcome(&breaker, &window, Outcome::Completed, at, at + age);
        for now in 0..2 * WINDOW_SLOTS as u64 {
            let tally = tally(&breaker, &window, time(&breaker, at + age) + now);
            prop_assert_eq!(tally.timed_out, 0);
        }
    }
}

#[test]
fn a_slot_counts_from_its_beginning_until_the_next_turn() {
    let slot = WindowSlot::default();
    assert!(!counts(&slot, 0) && !counts(&slot, 5));
    begin::<true>(&slot, 5);
    assert!(counts(&slot, 5) && !counts(&slot, 5 + 64));
    slot.attempts.add(3);
    // Beginning what has begun leaves it alone.
    begin::<true>(&slot, 5);
    assert_eq!(slot.attempts.load(), 3);
    begin::<true>(&slot, 5 + 64);
    assert!(counts(&slot, 5 + 64) && !counts(&slot, 5));
    assert_eq!(slot.attempts.load(), 0);
}

#[test]
fn a_new_turn_empties_every_count() {
    for exact in [false, true] {
        let slot = WindowSlot::default();
        let counters = [&slot.attempts, &slot.completed, &slot.refused, &slot.reset, &slot.retransmitted, &slot.resolved];
        for count in counters {
            count.store(7);
        }
        if exact {
            begin::<true>(&slot, 0)
        } else {
            begin::<false>(&slot, 0)
        };
        assert!(counts(&slot, 0) && counters.iter().all(|count| count.load() == 0));
    }
}

#[test]
fn a_clock_a_little_behind_does_not_take_a_slot_back() {
    let slot = WindowSlot::default();
    begin::<true>(&slot, 100 + 64);
    slot.attempts.add(3);
    begin::<true>(&slot, 100);
    assert!(counts(&slot, 100 + 64) && slot.attempts.load() == 3);
}

#[test]
fn a_slot_left_by_a_window_of_shorter_slots_is_taken() {
    // A packet that was under way when the limits were replaced; from then on the numbers of times are smaller.
    let slot = WindowSlot::default();
    begin::<true>(&slot, 1_000_000 << 2);
    slot.refused.add(3);
    begin::<true>(&slot, 1_000_000);
    assert!(counts(&slot, 1_000_000) && slot.refused.load() == 0);
}

#[test]
fn the_first_times_of_all_have_nothing_before_them() {
    let breaker = Breaker { shift: 0, deadline: 2, window: 3, ..without_limits() };
    let window = Window::default();
    assert_eq!(tally(&breaker, &window, 0), WindowTally::default());
    begin::<true>(slot(&window, 0), 0);
    slot(&window, 0).attempts.add(1);
    assert_eq!(tally(&breaker, &window, 0).attempts, 1);
    assert_eq!(tally(&breaker, &window, 2).due, 0);
    assert_eq!(tally(&breaker, &window, 3), WindowTally { due: 1, timed_out: 1, ..WindowTally::default() });
}

#[test]
fn more_outcomes_than_attempts_are_no_failures() {
    let breaker = Breaker { shift: 0, deadline: 1, window: 4, ..without_limits() };
    let window = Window::default();
    begin::<true>(slot(&window, 10), 10);
    slot(&window, 10).attempts.add(2);
    slot(&window, 10).resolved.add(5);
    assert_eq!(tally(&breaker, &window, 12), WindowTally { attempts: 2, due: 2, ..WindowTally::default() });
}

#[test]
fn a_slot_that_lies_before_the_clock_began_adds_nothing() {
    let breaker = Breaker { shift: 0, deadline: 2, window: 3, ..without_limits() };
    let slot = WindowSlot::default();
    begin::<true>(&slot, 0);
    slot.attempts.add(1);
    let mut sum = WindowTally::default();
    add(&breaker, &mut sum, &slot, 0, 1);
    assert_eq!(sum, WindowTally::default());
}

/// Threads that meet at each slot's beginning, where all of them find it of an old turn. Whoever has seen the slot count its time may rely on it: nothing that is
/// added from then on is lost. What is added by those who came while another one emptied it may be.
#[test]
fn what_is_added_to_a_slot_that_counts_is_never_lost_and_never_counted_twice() {
    const ADDS: u32 = 12;
    const TIMES: u64 = 60_000;
    for threads in [2, 3] {
        let window = Window::default();
        let (arrived, sure) = (AtomicUsize::new(0), AtomicU64::new(0));
        let all = u64::from(ADDS) * threads as u64;
        let work = |leads: bool| {
            let (mut lost, mut at_risk, mut wrong) = (0, 0, None);
            for now in 0..TIMES / threads as u64 {
                meet(&arrived, threads);
                let slot = slot(&window, now);
                let mut counting = 0;
                for _ in 0..ADDS {
                    if !counts(slot, now) {
                        begin::<true>(slot, now);
                    }
                    counting += u64::from(counts(slot, now));
                    slot.attempts.add(1);
                    slot.resolved.add(1);
                }
                sure.fetch_add(counting, SeqCst);
                meet(&arrived, threads);
                if !leads {
                    continue;
                }
                let sure = sure.swap(0, SeqCst);
                let (attempts, resolved) = (u64::from(slot.attempts.load()), u64::from(slot.resolved.load()));
                // No attempt is there without its outcome: none looks like a timeout.
                if !counts(slot, now) || !(sure..=all).contains(&attempts) || !(attempts..=all).contains(&resolved) {
                    // Said at the end: the others wait for this thread.
                    wrong.get_or_insert_with(|| {
                        format!("at {now}: {attempts} attempts, {resolved} outcomes; {sure} of {all} added for sure")
                    });
                }
                lost += all.saturating_sub(attempts);
                at_risk += all - sure;
            }
            (lost, at_risk, wrong)
        };
        let (lost, at_risk, wrong) = thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| work(false));
            }
            work(true)
        });
        println!(
            "{threads} threads: {at_risk} of {} added while a slot was emptied, {lost} of them lost",
            all * TIMES / threads as u64
        );
        assert_eq!(wrong, None);
        assert!(lost <= at_risk);
    }
}

/// Failures of a whole turn ago lie in the slot that is begun. A judge on another CPU must not take them for the present.
#[test]
fn nobody_sees_the_counts_of_an_old_turn_while_a_slot_is_begun() {
    const OLD: u32 = 1_000_000;
    const TURNS: u64 = 60_000;
    let breaker = of_shape(60, 600);
    let slot = WindowSlot::default();
    let (now, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let judge = scope.spawn(|| {
            let mut looks = 0_u64;
            while !done.load(SeqCst) {
                let mut sum = WindowTally::default();
                let at = now.load(SeqCst);
                add(&breaker, &mut sum, &slot, at, 0);
                // Unless the next turn came meanwhile, and what it saw was put there for that.
                if now.load(SeqCst) == at {
                    assert!(sum.refused < OLD && sum.attempts < OLD, "{sum:?} at {at}");
                    looks += 1;
                }
            }
            looks
        });
        for turn in 1..TURNS {
            now.store(turn * WINDOW_SLOTS as u64, SeqCst);
            begin::<true>(&slot, turn * WINDOW_SLOTS as u64);
            for _ in 0..20 {
                hint::spin_loop();
            }
            // The turn is over: nobody looks for it under this number again.
            now.store(turn * WINDOW_SLOTS as u64 + 1, SeqCst);
            slot.attempts.store(OLD);
            slot.refused.store(OLD);
        }
        done.store(true, SeqCst);
        assert!(judge.join().expect("no old count is seen") > 1_000);
    });
}

/// What the program does with an attempt.
fn attempt(breaker: &Breaker, window: &Window, units: u64) {
    counting(breaker, window, units).attempts.add(1);
}

#[derive(Clone, Copy)]
enum Outcome {
    Completed,
    Refused,
}

/// What the program does with an attempt's outcome. It knows when the attempt began from a word that has room for [`Fine`].
fn outcome(breaker: &Breaker, window: &Window, outcome: Outcome, begun: u64, units: u64) {
    let now = counting(breaker, window, units);
    match outcome {
        Outcome::Completed => now.completed.add(1),
        Outcome::Refused => now.refused.add(1),
    }
    let kept = Fine::from_bits(fine(begun).bits());
    let begun = time(breaker, units - u64::from(kept.age(fine(units))));
    if in_time(breaker, begun, time(breaker, units)) {
        slot(window, begun).resolved.add(1);
    }
}

fn counting<'a>(breaker: &Breaker, window: &'a Window, units: u64) -> &'a WindowSlot {
    let now = time(breaker, units);
    let slot = slot(window, now);
    if !counts(slot, now) {
        begin::<true>(slot, now);
    }
    slot
}

fn fine(units: u64) -> Fine {
    Moment(units * FINE_NS + FINE_NS / 3).fine()
}

/// Everything that happened, by the number of its time.
#[derive(Default)]
struct List {
    /// With the times of their outcomes.
    attempts: Vec<(u64, Vec<u64>)>,
    completions: Vec<u64>,
    refusals: Vec<u64>,
}

impl List {
    fn resolve(&mut self, begun: u64, now: u64) {
        let attempt = self.attempts.iter_mut().find(|(at, outcomes)| *at == begun && outcomes.is_empty());
        attempt.expect("an outcome has an attempt").1.push(now);
    }

    fn tally(&self, breaker: &Breaker, now: u64) -> WindowTally {
        let (deadline, window) = (u64::from(breaker.deadline), u64::from(breaker.window));
        let within = |at: u64| (now + 1).saturating_sub(window) <= at && at <= now;
        let number = |times: &[u64]| times.iter().filter(|at| within(**at)).count() as u32;
        let due = |at: u64| at + deadline < now && now <= at + deadline + window;
        let failed = |at: u64, outcomes: &[u64]| outcomes.iter().all(|outcome| *outcome > at + deadline);
        WindowTally {
            attempts: self.attempts.iter().filter(|(at, _)| within(*at)).count() as u32,
            completed: number(&self.completions),
            refused: number(&self.refusals),
            due: self.attempts.iter().filter(|(at, _)| due(*at)).count() as u32,
            timed_out: self.attempts.iter().filter(|(at, outcomes)| due(*at) && failed(*at, outcomes)).count() as u32,
            ..WindowTally::default()
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// Since the step before.
    gap: u64,
    /// The clock of the CPU that sees the attempt is behind by so much.
    behind: u64,
    /// What comes of the attempt, and after what time; `None`: nothing.
    outcome: Option<(bool, u64)>,
}

#[derive(Clone, Copy)]
struct Event {
    at: u64,
    /// By the clock of the CPU.
    seen: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Attempt,
    Completion { begun: u64 },
    Refusal { begun: u64 },
    Look,
}

fn schedule(start: u64, steps: &[Step]) -> Vec<Event> {
    let (mut at, mut events) = (start, Vec::new());
    for step in steps {
        at += step.gap;
        let begun = at.saturating_sub(step.behind);
        events.push(Event { at, seen: begun, what: What::Attempt });
        if let Some((completes, after)) = step.outcome {
            let what = if completes { What::Completion { begun } } else { What::Refusal { begun } };
            events.push(Event { at: at + after, seen: at + after, what });
        }
        events.push(Event { at: at + step.gap / 2, seen: at, what: What::Look });
    }
    events
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly close together; now and then the silence of a window, of many turns, of a wrap of what is kept.
    let gap = prop_oneof![20 => 0_u64..40, 4 => 0_u64..2_000, 1 => 0_u64..100_000, 1 => 0_u64..1 << 24];
    let after = prop_oneof![0_u64..4, 0_u64..400, 0..u64::from(MAX_FINE_AGE) - 1];
    let outcome = prop::option::weighted(0.8, (prop::bool::weighted(0.8), after));
    (gap, 0_u64..2, outcome).prop_map(|(gap, behind, outcome)| Step { gap, behind, outcome })
}

/// Timeouts of a second to two minutes, windows of a second to five minutes, in units.
fn lengths() -> impl Strategy<Value = (u64, u64)> {
    let seconds = |seconds: u64| seconds * 1_000_000_000 / FINE_NS;
    let short = (seconds(1)..seconds(10), seconds(1)..seconds(20));
    prop_oneof![short, (seconds(1)..seconds(121), seconds(1)..seconds(301))]
}

fn of_shape(timeout: u64, length: u64) -> Breaker {
    let (shift, deadline, window) = shape(timeout, length);
    Breaker { shift, deadline, window, ..without_limits() }
}

fn without_limits() -> Breaker {
    Breaker { refused: NO_LIMIT, timeout: NO_LIMIT, reset: NO_LIMIT, retransmit: NO_LIMIT, ..Breaker::default() }
}

/// Until all are here. Spinning: they are to go on in the same instant.
fn meet(arrived: &AtomicUsize, of: usize) {
    let round = arrived.fetch_add(1, SeqCst) / of;
    let mut spins = 0_u32;
    while arrived.load(SeqCst) / of == round {
        spins += 1;
        if spins > 500 { thread::yield_now() } else { hint::spin_loop() }
    }
}
