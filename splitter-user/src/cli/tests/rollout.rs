use std::thread;

use super::*;
use crate::{
    api::{
        command::{Caller, CommandError, CommandErrorKind, CommandResult},
        fake::{
            Asked, name,
            rollout::{asked, at, at_gate, flipped, healthy, plan, promoted, started, status, told},
        },
        wire::{PromoteRequest, RolloutAction, RolloutPhase, RolloutStatus, RolloutWord},
    },
    config::Config,
    controller::rollout::{self, Move, Verb, moved, retry},
    desired::{self, Origin, Refusal},
    golden::{golden, golden_part},
    model::{Existing, Gate, ServiceName},
    store::{Flip, Phase, Run, ServiceState, State, Stop},
};

#[test]
fn every_verb_says_in_one_line_what_it_did_and_what_comes_next() {
    let word = RolloutAction::Word;
    let again = retry(&flipped(), 4, &flipped().plan, "bob", at(60)).expect("it was flipped");
    for (line, action, run, said) in [
        (
            "rollout start web",
            word(RolloutWord::Start),
            started(),
            "web: rollout 3 started: step 1 of 4 (1% for 15m), 1% to the canary; next: step 2 of 4 (5% for 15m) in 15m if healthy\n",
        ),
        (
            "rollout pause web",
            word(RolloutWord::Pause),
            asked(&healthy(), Verb::Pause, 26),
            "web: rollout 3 paused: it stays at step 2 of 4 (5% for 15m), 5% to the canary; next: somebody lets it go on: \
             `splitter rollout resume web`\n",
        ),
        (
            "rollout resume web",
            word(RolloutWord::Resume),
            healthy(),
            "web: rollout 3 resumed: step 2 of 4 (5% for 15m), 5% to the canary; next: step 3 of 4 (50% for 15m) in 4m 12s if \
             healthy\n",
        ),
        (
            "rollout promote web",
            RolloutAction::Promote(PromoteRequest { full: false }),
            asked(&healthy(), Verb::Promote { full: false }, 26),
            "web: rollout 3 moved on: step 3 of 4 (50% for 15m), 50% to the canary; next: the gate of step 4 of 4 (manual) in 15m if \
             healthy\n",
        ),
        (
            "rollout approve web",
            word(RolloutWord::Approve),
            asked(&at_gate(), Verb::Approve, 46),
            "web: rollout 3 approved: step 4 of 4 (100%), 100% to the canary; next: promotion as soon as the verdict is healthy\n",
        ),
        (
            "rollout promote web --full",
            RolloutAction::Promote(PromoteRequest { full: true }),
            asked(&healthy(), Verb::Promote { full: true }, 26),
            "web: rollout 3 cut short: it's being promoted; next: the canary's backends become stable\n",
        ),
        (
            "rollout abort web",
            word(RolloutWord::Abort),
            asked(&healthy(), Verb::Abort, 26),
            "web: rollout 3 aborted: nothing new goes to the canary; next: nothing; `splitter rollout retry web` begins again with \
             the first step\n",
        ),
        (
            "rollout retry web",
            word(RolloutWord::Retry),
            again,
            "web: rollout 4 started: step 1 of 4 (1% for 15m), 1% to the canary; next: step 2 of 4 (5% for 15m) in 15m if healthy\n",
        ),
    ] {
        let agent = Agent::start(Fake::with_rollouts([Ok(told(&run))]));
        let outcome = agent.splitter(line);
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (Code::Ok, said, ""), "{line}");
        let uid = nix::unistd::getuid();
        let user = nix::unistd::User::from_uid(uid).expect("a look-up").map(|user| user.name);
        assert_eq!(agent.core.asked(), [Asked::ChangeRollout(name("web"), action, Caller { uid: uid.as_raw(), user })], "{line}");
        let json = agent.splitter(&format!("{line} -o json")).out;
        assert_eq!(serde_json::from_str::<RolloutStatus>(&json).expect("JSON"), told(&run), "{line}");
    }
}

#[test]
fn a_refusal_is_the_agents_with_its_exit_code() {
    let refused = CommandError::new(CommandErrorKind::Conflict, "rollout 3 of service \"web\": it isn't paused")
        .remedy("`splitter rollout status` shows where it is");
    let agent = Agent::start(Fake::with_rollouts([Err(refused)]));
    for line in ["rollout resume web", "rollout status web", "rollout wait web"] {
        let outcome = agent.splitter(line);
        let said = "error: rollout 3 of service \"web\": it isn't paused\nhint: `splitter rollout status` shows where it is\n";
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (Code::Conflict, "", said), "{line}");
    }
    let agent = Agent::start(Fake::default());
    for line in ["rollout status dns", "rollout wait dns", "rollout start wbe"] {
        assert_eq!(agent.splitter(line).code, Code::NotFound, "{line}");
    }
}

#[test]
fn the_status_of_every_end_and_of_every_wait_reads_well() {
    let worse = Stop::Check { name: "http-5xx".to_owned(), said: "0.031 is above 0.01".to_owned() };
    let paused = moved(&healthy(), &Move::Pause(worse), at(26));
    let runs = [started(), at_gate(), paused, flipped(), promoted(), asked(&healthy(), Verb::Abort, 27)];
    let mut text = String::new();
    for run in runs {
        let agent = Agent::start(Fake::with_rollouts([Ok(told(&run))]));
        let outcome = agent.splitter("rollout status web");
        assert_eq!((outcome.code, outcome.err.as_str()), (Code::Ok, ""));
        text += &format!("{}\n", outcome.out);
    }
    golden("rollouts.txt", &text);
    let width = text.lines().map(|line| line.chars().count()).max();
    assert!(width <= Some(80), "{width:?} columns");
    assert!(text.lines().all(|line| line == line.trim_end()), "spaces at a line's end");
}

#[test]
fn the_document_says_what_every_verb_does_in_every_phase() {
    let paused = asked(&healthy(), Verb::Pause, 26);
    let promoting = asked(&healthy(), Verb::Promote { full: true }, 26);
    let aborted = asked(&healthy(), Verb::Abort, 26);
    let runs = [healthy(), at_gate(), paused, flipped(), promoting, promoted(), aborted];
    let mut text = format!(
        "| phase | {} |\n| --- |{}\n",
        VERBS.map(|(verb, _)| format!("`{verb}`")).join(" | "),
        " --- |".repeat(VERBS.len())
    );
    text += &row("no rollout", None);
    for run in &runs {
        text += &row(told(run).phase.as_str(), Some(run));
    }
    golden_part("rollouts.md", "verbs", &text);
}

/// What somebody can ask.
type Ask = fn(&Config, &State, &ServiceName, Origin<'_>) -> Result<State, Refusal>;

const VERBS: [(&str, Ask); 8] = [
    ("start", desired::start_rollout),
    ("pause", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Pause, by)),
    ("resume", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Resume, by)),
    ("approve", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Approve, by)),
    ("promote", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Promote { full: false }, by)),
    ("promote --full", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Promote { full: true }, by)),
    ("abort", |config, state, of, by| desired::ask_rollout(config, state, of, Verb::Abort, by)),
    ("retry", desired::retry_rollout),
];

/// What comes of each verb in one phase.
fn row(phase: &str, run: Option<&Run>) -> String {
    let (config, mut state) = (config(), State::default());
    state.rollouts = 3;
    let flip = run.and_then(|run| match &run.phase {
        Phase::Flipped { reason, .. } => {
            let reason = (**reason).clone();
            Some(Flip { at: at(26), by: "the agent".to_owned(), reason, existing: Existing::Reset })
        }
        Phase::Stepping { .. }
        | Phase::Gate { .. }
        | Phase::Paused { .. }
        | Phase::Promoting { .. }
        | Phase::Promoted
        | Phase::Aborted { .. } => None,
    });
    state.services.insert(name("web"), ServiceState { rollout: run.cloned().map(Box::new), flip, ..ServiceState::default() });
    let cells = VERBS.map(|(_, ask)| match ask(&config, &state, &name("web"), Origin { at: at(60), by: "bob" }) {
        Ok(next) => {
            let next = next.service(&name("web")).and_then(|asked| asked.rollout.as_deref()).expect("it has one").clone();
            let (status, another) = (told(&next), run.is_none_or(|run| run.id != next.id));
            let step = status.step.filter(|_| status.phase == RolloutPhase::Stepping);
            let step = step.map(|step| {
                if step == 1 {
                    ", the first step"
                } else if run.and_then(|run| told(run).step) == Some(step) {
                    ", that step"
                } else {
                    ", the next step"
                }
            });
            format!("**{}**{}{}", status.phase.as_str(), step.unwrap_or_default(), if another { " of a new one" } else { "" })
        }
        Err(Refusal::Rollout { cannot, .. }) => cannot.why,
        Err(Refusal::RolloutRuns { .. }) => "it isn't over".to_owned(),
        Err(Refusal::RolloutFlipped { .. }) => "it was flipped: retry or abort it".to_owned(),
        Err(Refusal::NoRollout { .. }) => "there is none".to_owned(),
        Err(other) => panic!("{phase}: {other}"),
    });
    format!("| {phase} | {} |\n", cells.join(" | "))
}

/// One service with the plan that the runs have.
fn config() -> Config {
    let text = "[agent]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n\
        stable = [\"10.1.0.2:8080\"]\ncanary = [\"10.1.0.4:8080\"]\n";
    let mut config = Config::parse(text, "test").expect("a configuration");
    config.services[0].rollout = Some(plan());
    config
}

#[test]
fn a_watch_shows_it_again_and_again() {
    let agent = Agent::start(Fake::with_rollouts([Ok(told(&started())), Ok(status())]));
    let socket = agent.directory.path().join("agent.sock");
    let mut pipe = Pipe { text: vec![], flushes: 2 };
    assert_eq!(run_into(&socket, "rollout status web --watch -o json", &mut pipe, &mut Vec::new()), Code::Ok);
    assert_eq!(read(&String::from_utf8(pipe.text).expect("text")), [told(&started()), status()]);
}

#[test]
fn a_wait_ends_with_the_code_of_the_rollouts_end() {
    let aborted = asked(&healthy(), Verb::Abort, 27);
    for (end, code, error) in [
        (promoted(), Code::Ok, ""),
        (
            flipped(),
            Code::Flipped,
            "error: rollout 3 of web was flipped: check http-5xx: 0.031 is above 0.01\n\
             hint: somebody decides: `splitter rollout retry web` begins again with the first step, `splitter rollout abort web` \
             gives it up\n",
        ),
        (
            aborted,
            Code::Aborted,
            "error: rollout 3 of web was aborted: by bob\n\
             hint: nothing; `splitter rollout retry web` begins again with the first step\n",
        ),
        (
            at_gate(),
            Code::AtGate,
            "error: rollout 3 of web waits at the gate of step 4 of 4 (manual)\n\
             hint: somebody approves: `splitter rollout approve web`\n",
        ),
    ] {
        let outcome = wait("", [started(), healthy(), healthy(), end.clone()]);
        assert_eq!((outcome.code, outcome.err.as_str()), (code, error));
        let at_once = wait("", [end]);
        assert_eq!((at_once.code, at_once.err.as_str()), (code, error), "over when the wait begins");
        assert_eq!(at_once.out.lines().count(), 1, "{}", at_once.out);
    }
    assert_eq!([Code::Flipped, Code::Aborted, Code::AtGate, Code::TimedOut].map(|code| code as u8), [7, 8, 9, 10]);
}

#[test]
fn a_wait_prints_a_line_when_something_changes_and_nothing_else() {
    let paused = asked(&healthy(), Verb::Pause, 26);
    let resumed = asked(&paused, Verb::Resume, 27);
    let promoting = asked(&resumed, Verb::Promote { full: true }, 28);
    let promoted = rollout::promoted(&promoting, at(28));
    let mut later = started();
    later.progress.age += Duration::from_secs(5);
    let outcome = wait("", [started(), later, healthy(), healthy(), paused.clone(), paused, resumed, promoted]);
    assert_eq!((outcome.code, outcome.err.as_str()), (Code::Ok, ""));
    golden("rollout-wait.txt", &outcome.out);
}

#[test]
fn a_wait_in_json_is_the_whole_status_a_line() {
    let outcome = wait("-o json", [started(), started(), healthy(), flipped()]);
    assert_eq!(outcome.code, Code::Flipped);
    assert_eq!(read(&outcome.out), [started(), healthy(), flipped()].map(|run| told(&run)));
}

#[test]
fn past_gates_waits_for_approval_and_a_gate_that_a_check_opens_is_waited_at_anyway() {
    let outcome = wait("--past-gates", [at_gate(), at_gate(), asked(&at_gate(), Verb::Approve, 46), promoted()]);
    assert_eq!((outcome.code, outcome.err.as_str()), (Code::Ok, ""));

    let mut by_check = at_gate();
    by_check.plan.steps[3].gate = Some(Gate::Check("http-5xx".to_owned()));
    assert_eq!(wait("", [by_check, promoted()]).code, Code::Ok);
}

#[test]
fn a_wait_whose_time_is_up_says_so() {
    for line in ["--timeout 400ms", "--timeout 400ms --past-gates"] {
        let outcome = wait(line, [started(), asked(&healthy(), Verb::Pause, 26)]);
        assert_eq!(outcome.code, Code::TimedOut, "{line}");
        let said =
            "error: the rollout of web has not ended within 400ms\nhint: `splitter rollout status web` shows where it is\n";
        assert_eq!(outcome.err, said);
        assert_eq!(outcome.out.lines().filter(|line| line.contains("paused: by bob")).count(), 1, "{}", outcome.out);
    }
    let agent = Agent::start(Fake::hanging());
    assert_eq!(agent.splitter("rollout wait web --timeout 400ms").code, Code::TimedOut, "an agent that hangs, too");
}

#[test]
fn a_wait_outlives_the_agent_and_says_so_once() {
    let agent = Agent::start(Fake::with_rollouts([Ok(told(&started()))]));
    let socket = agent.directory.path().join("agent.sock");
    let waiting = thread::spawn(move || splitter(&socket, "rollout wait web --agent-away 1m"));
    until_asked(&agent, 3);
    let directory = agent.end();
    thread::sleep(Duration::from_millis(50));
    let stopping = CommandError::new(CommandErrorKind::Unavailable, "the agent is stopping");
    let agent = Agent::start_in(directory, Fake::with_rollouts([Err(stopping), Ok(told(&healthy())), Ok(told(&promoted()))]));
    let outcome = waiting.join().expect("it ends");
    drop(agent);
    assert_eq!(outcome.code, Code::Ok, "{outcome:?}");
    let said: Vec<_> = outcome.err.lines().collect();
    assert!(matches!(said[..], [away, "the agent answers again"] if away.ends_with("; waiting for it, at most 1m")), "{said:?}");
    assert!(outcome.out.contains("step 1 of 4 passed"), "what happened meanwhile is told: {}", outcome.out);
}

#[test]
fn an_agent_that_stays_away_ends_the_wait() {
    let outcome = splitter(Path::new("/nonexistent/agent.sock"), "rollout wait web --agent-away 40ms");
    assert_eq!((outcome.code, outcome.out.as_str()), (Code::NotReachable, ""));
    let lines: Vec<_> = outcome.err.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "the agent is not running: nobody answers on /nonexistent/agent.sock; waiting for it, at most 40ms");
    assert!(lines[1].starts_with("error: the agent is not running") && lines[2].starts_with("hint: "), "{lines:?}");
}

#[test]
fn a_rollout_that_ended_while_nobody_looked_ends_the_wait_as_its_events_say() {
    let next = retry(&asked(&healthy(), Verb::Abort, 26), 4, &healthy().plan, "bob", at(90)).expect("it was aborted");
    let outcome = wait("", [healthy(), next.clone()]);
    assert_eq!(outcome.code, Code::Aborted);
    let said = "error: web: rollout 3 aborted: by bob\nhint: rollout 4 has begun since: `splitter rollout status web` shows it\n";
    assert_eq!(outcome.err, said);

    let outcome = wait("", [next.clone(), Run { id: 5, ..next }]);
    assert_eq!(outcome.code, Code::Failed);
    assert!(outcome.err.starts_with("error: rollout 4 of web is over, and no event says how it ended\n"), "{}", outcome.err);
}

/// Waits for a rollout that is found so, look by look; the last stays.
fn wait(options: &str, looks: impl IntoIterator<Item = Run>) -> Outcome {
    let looks: Vec<CommandResult<RolloutStatus>> = looks.into_iter().map(|run| Ok(told(&run))).collect();
    Agent::start(Fake::with_rollouts(looks)).splitter(&format!("rollout wait web {options}"))
}

fn read(lines: &str) -> Vec<RolloutStatus> {
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn until_asked(agent: &Agent, times: usize) {
    while agent.core.asked().len() < times {
        thread::sleep(Duration::from_millis(1));
    }
}
