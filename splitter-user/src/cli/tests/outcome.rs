use std::sync::Mutex;

use super::*;
use crate::{
    api::{
        command::{Caller, CommandError, CommandErrorKind},
        fake::{Asked, address, name, weight},
        wire::{AddBackend, ExplainRequest, FlipRequest, NetworkChange, TraceFilter},
    },
    model::{BackendWeight, Cohort, Existing, NetworkList},
};

#[test]
fn every_command_asks_for_what_was_written_and_says_what_came_of_it() {
    let agent = Agent::start(Fake::default());
    let by = || Caller { uid: nix::unistd::getuid().as_raw(), user: user() };
    let one = BackendWeight::ONE;
    let (new, old) = (address("[2001:db8::9]:8080"), address("10.1.0.3:8080"));
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<_>>();
    let steps = [
        ("weight web 0.25%", Asked::SetWeight(name("web"), weight("0.25%"), by()), "web: weight 0.25%, 0.25% in force\n"),
        (
            "weight dns 1%",
            Asked::SetWeight(name("dns"), weight("1%"), by()),
            "dns: weight 1%, but the service is flipped: nothing goes to the canary until `splitter unflip dns`\n",
        ),
        (
            "flip web",
            Asked::Flip(name("web"), FlipRequest { existing: Existing::Keep, reason: None }, by()),
            "web: flipped, everything new goes to stable; established canary connections go on\n",
        ),
        (
            "flip web --existing reset --reason 500s_all_over",
            Asked::Flip(name("web"), FlipRequest { existing: Existing::Reset, reason: Some("500s all over".to_owned()) }, by()),
            "web: flipped, everything new goes to stable; established canary connections are reset with their next packet\n",
        ),
        ("unflip dns", Asked::Unflip(name("dns"), by()), "dns: not flipped any more, 0.25% in force\n"),
        (
            "backend add web canary [2001:db8::9]:8080",
            Asked::AddBackend(name("web"), AddBackend { address: new, cohort: Cohort::Canary, weight: one }, by()),
            "web: added [2001:db8::9]:8080 to canary\n",
        ),
        (
            "backend add dns canary [2001:db8::54]:53",
            Asked::AddBackend(
                name("dns"),
                AddBackend { address: address("[2001:db8::54]:53"), cohort: Cohort::Canary, weight: one },
                by(),
            ),
            "dns: added [2001:db8::54]:53 to canary; it gets nothing yet: no neighbour 2001:db8::54 on eth1\n",
        ),
        (
            "backend remove web 10.1.0.3:8080",
            Asked::RemoveBackend(name("web"), old, by()),
            "web: removed 10.1.0.3:8080, 7 connections left\n",
        ),
        (
            "backend drain web 10.1.0.3:8080",
            Asked::DrainBackend(name("web"), old, true, by()),
            "web: draining 10.1.0.3:8080, 7 connections left\n",
        ),
        (
            "backend undrain web 10.1.0.3:8080",
            Asked::DrainBackend(name("web"), old, false, by()),
            "web: 10.1.0.3:8080 gets new connections again\n",
        ),
        (
            "backend weight web 10.1.0.3:8080 1",
            Asked::SetBackendWeight(name("web"), old, one, by()),
            "web: 10.1.0.3:8080 has weight 1 in its cohort\n",
        ),
        (
            "network add web always-canary 10.9.0.0/16 198.51.100.7",
            Asked::ChangeNetworks(
                name("web"),
                NetworkChange { list: NetworkList::AlwaysCanary, add: nets(&["10.9.0.0/16", "198.51.100.7/32"]), remove: vec![] },
                by(),
            ),
            "web: always-canary: 2 added, 7 in the list\n",
        ),
        (
            "network remove web never-canary 2001:db8::/32",
            Asked::ChangeNetworks(
                name("web"),
                NetworkChange { list: NetworkList::NeverCanary, add: vec![], remove: nets(&["2001:db8::/32"]) },
                by(),
            ),
            "web: never-canary: 1 removed, 7 in the list\n",
        ),
        ("reload", Asked::Reload(by()), "reloaded: weight of `web`: 5% to 10%\n"),
        ("detach", Asked::Detach(by()), "detached from eth0: nothing is split any more\n"),
    ];
    for (line, _, said) in &steps {
        let outcome = agent.splitter(line);
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (Code::Ok, *said, ""), "{line}");
    }
    assert_eq!(agent.core.asked(), steps.map(|(_, asked, _)| asked));
}

#[test]
fn questions_ask_for_what_was_written() {
    let agent = Agent::start(Fake::default());
    for line in [
        "status",
        "status web",
        "backend list web",
        "network list web",
        "explain web --from [2001:db8::1]:7 --at 0.01%",
        "events",
        "trace web --from 198.51.100.0/24 --count 2",
        "rollout status web",
    ] {
        assert_eq!(agent.splitter(line).code, Code::Ok, "{line}");
    }
    let client = address("[2001:db8::1]:7");
    let explain = ExplainRequest { client: client.ip(), port: Some(7), at: Some(weight("0.01%")) };
    let filter = TraceFilter { from: Some("198.51.100.0/24".parse().expect("a prefix")), count: Some(2) };
    assert_eq!(
        agent.core.asked(),
        [
            Asked::Status(None),
            Asked::Status(Some(name("web"))),
            Asked::Backends(name("web")),
            Asked::Networks(name("web")),
            Asked::Explain(name("web"), explain),
            Asked::Events(false),
            Asked::Trace(name("web"), filter),
            Asked::Rollout(name("web")),
        ]
    );
}

#[test]
fn every_exit_code_comes_with_its_error_and_its_hint() {
    let agent = Agent::start(Fake::default());
    for (line, code, error, hint) in [
        ("status wbe", Code::NotFound, "there is no service `wbe`", Some("`splitter status` lists the services")),
        (
            "backend drain web 10.0.0.1:1",
            Code::NotFound,
            "service `web` has no backend 10.0.0.1:1",
            Some("`splitter backend list web` lists its backends"),
        ),
        ("unflip web", Code::Conflict, "service `web` is not flipped", None),
        (
            "explain web --from 198.51.100.23",
            Code::Usage,
            "service `web` decides by address and port, and no port was given",
            Some("name the client's port, as in `--from 198.51.100.23:40000`"),
        ),
        (
            "agent --config /etc/splitter.toml --detach",
            Code::NotPermitted,
            "loading a program needs CAP_BPF",
            Some("run it as root"),
        ),
    ] {
        let outcome = agent.splitter(line);
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{line}");
        assert_eq!(outcome.err, format!("error: {error}\n{hint}"), "{line}");
    }
    for (kind, code) in [(CommandErrorKind::Unavailable, Code::Failed), (CommandErrorKind::Internal, Code::Failed)] {
        let agent = Agent::start(Fake::failing(CommandError::new(kind, "no").place("service \"web\"")));
        let outcome = agent.splitter("status");
        assert_eq!((outcome.code, outcome.err.as_str()), (code, "error: service \"web\": no\n"));
    }
}

#[test]
fn without_an_agent_the_hint_says_how_to_start_one() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    for line in [
        "status",
        "weight web 5%",
        "events --follow",
        "trace web",
        "reload",
        "status --watch",
        "rollout start web",
        "rollout status web --watch",
    ] {
        let outcome = splitter(nowhere, line);
        assert_eq!((outcome.code, outcome.out.as_str()), (Code::NotReachable, ""), "{line}");
        let expected = "error: the agent is not running: nobody answers on /nonexistent/agent.sock\n\
            hint: start it with `systemctl start splitter` or `splitter agent --config FILE`, or name its socket with `--socket`\n";
        assert_eq!(outcome.err, expected, "{line}");
    }
    let outcome = splitter(nowhere, "doctor");
    assert_eq!(outcome.code, Code::Failed);
    assert!(outcome.out.contains("FAILED   agent /nonexistent/agent.sock: the agent is not running"), "{}", outcome.out);
}

#[test]
fn a_wrong_command_line_asks_nobody_and_names_what_is_wrong() {
    let agent = Agent::start(Fake::default());
    for (line, part) in [
        ("weight web 101%", "weight `101%` is out of range: use 0% to 100%"),
        ("weight web -1%", "weight `-1%` is out of range"),
        ("weight web abc", "`abc` is not a weight: write a percentage"),
        ("weight web 5", "`5` is not a weight"),
        ("weight web 0.001%", "finer than 0.01%"),
        ("weight w/b 5%", "`w/b` is not a service name"),
        ("flip web --existing drop", "invalid value 'drop'"),
        ("backend add web blue 10.0.0.1:80", "invalid value 'blue'"),
        ("backend add web canary 10.0.0.1", "invalid value '10.0.0.1'"),
        ("backend add web canary 10.0.0.1:80 --weight 0", "backend weight 0 is out of range"),
        ("backend weight web 10.0.0.1:80 -3", "whole number from 1 to 1000"),
        ("network add web sometimes 10.0.0.0/8", "invalid value 'sometimes'"),
        ("network add web always-canary", "required arguments were not provided"),
        ("network add web always-canary 10.0.0.0/33", "write a network"),
        ("network add web always-canary 10.1.0.0/8", "did you mean 10.0.0.0/8?"),
        ("explain web --from example.org", "write an address, or an address and a port"),
        ("explain web --from 10.0.0.1:99999", "write an address, or an address and a port"),
        ("explain web --from 10.0.0.1 --at 200%", "out of range"),
        ("trace web --count 0", "invalid value '0'"),
        ("status -o yaml", "invalid value 'yaml'"),
        ("stats", "tip: a similar subcommand exists: 'status'"),
        ("agent", "--config <FILE>"),
        ("rollout wait web --timeout soon", "expected number at 0"),
        ("rollout promot web", "a similar subcommand exists: 'promote'"),
        ("rollout start", "<SERVICE>"),
        ("", "Usage: splitter"),
    ] {
        let outcome = agent.splitter(line);
        assert_eq!((outcome.code, outcome.out.as_str()), (Code::Usage, ""), "{line}: {}", outcome.err);
        assert!(outcome.err.contains(part), "{line}: {}", outcome.err);
    }
    assert_eq!(agent.core.asked(), []);
}

#[test]
fn what_needs_no_agent_works_without() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("splitter.toml");
    let file = file.to_str().expect("text");
    let right = "[agent]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n\
        weight = \"5%\"\nstable = [\"10.1.0.2:8080\", \"10.1.0.3:8080\"]\ncanary = [\"10.1.0.4:8080\"]\n";
    std::fs::write(file, right).expect("a file");
    let good = splitter(nowhere, &format!("check {file}"));
    assert_eq!((good.code, good.out), (Code::Ok, format!("{file}: ok: 1 service, 3 backends\n")), "{}", good.err);

    std::fs::write(file, right.replace("5%", "101%").replace("protocol", "protocoll")).expect("a file");
    let bad = splitter(nowhere, &format!("check {file}"));
    assert_eq!((bad.code, bad.out.as_str()), (Code::Usage, ""));
    assert!(bad.err.lines().count() >= 2, "every problem is told: {}", bad.err);
    assert!(bad.err.lines().all(|line| line.starts_with(&format!("error: {file}:"))), "{}", bad.err);
    for shell in ["bash", "zsh", "fish"] {
        let script = splitter(nowhere, &format!("completions {shell}"));
        assert_eq!(script.code, Code::Ok);
        assert!(script.out.contains("unflip"), "{shell}");
    }
}

#[test]
fn a_doctor_whose_checks_fail_fails_and_looks_at_the_file_it_was_given() {
    let agent = Agent::start(Fake::default());
    let outcome = agent.splitter("doctor --config f.toml");
    assert_eq!((outcome.code, outcome.err.as_str()), (Code::Failed, ""), "the fake agent's neighbour doesn't answer");
    assert!(outcome.out.starts_with("ok       kernel: looked at f.toml\nok       agent "), "{}", outcome.out);
}

#[test]
fn a_stream_that_the_agent_ends_is_an_error_and_a_reader_who_has_seen_enough_is_none() {
    let agent = Agent::start(Fake::default());
    let socket = agent.directory.path().join("agent.sock");
    let mut pipe = Pipe { text: vec![], flushes: 3 };
    assert_eq!(run_into(&socket, "trace web", &mut pipe, &mut Vec::new()), Code::Ok);
    assert_eq!(pipe.text.iter().filter(|byte| **byte == b'\n').count(), 3);

    let events = crate::api::fake::events().len();
    let shown = Shared::default();
    let mut out = shown.clone();
    let following = std::thread::spawn(move || {
        let mut err = Vec::new();
        let code = run_into(&socket, "events --follow", &mut out, &mut err);
        (code, String::from_utf8(strip_bytes(&err).into_vec()).expect("text"))
    });
    while shown.text().matches("2026-03-01 ").count() < events && !following.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    agent.stop.send(true).expect("the server listens");
    let (code, err) = following.join().expect("it ends");
    assert_eq!(code, Code::NotReachable, "{err}");
    assert!(err.contains("ended the stream"), "{err}");
    assert_eq!(shown.text().matches("2026-03-01 ").count(), events, "all events were shown");
}

/// Output that can be read while it is written.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panicked")).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).expect("a look-up").map(|user| user.name)
}
