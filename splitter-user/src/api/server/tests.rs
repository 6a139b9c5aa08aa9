use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    time::Instant,
};

use hyper::StatusCode;
use nix::unistd::{Group, getgid, getuid};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::{
    api::{
        client::{Client, ClientError},
        command::{CommandError, CommandErrorKind},
        fake::{Asked, Fake, address, doctor, events, explanation, history, name, networks, rollout, status, trace, weight},
        socket::{SOCKET_MODE, SocketError},
        wire::{
            AddBackend, ErrorBody, ErrorCode, ExplainRequest, FlipRequest, NetworkChange, PromoteRequest, RolloutAction,
            RolloutWord, TraceFilter,
        },
    },
    model::{BackendWeight, Cohort, Existing, NetworkList},
};

#[tokio::test]
async fn every_call_reaches_the_core_with_what_was_asked_and_by_whom() {
    let agent = Agent::start(Fake::default());
    let (client, web, me) = (agent.client(), name("web"), me());
    let backend = address("[2001:db8::7]:8080");
    let known = address("10.1.0.3:8080");
    let one = BackendWeight::ONE;
    let flip = FlipRequest { existing: Existing::Reset, reason: Some("5xx \"über\"\n".to_owned()) };
    let add = AddBackend { address: backend, cohort: Cohort::Canary, weight: one };
    let change = NetworkChange {
        list: NetworkList::NeverCanary,
        add: vec!["10.0.0.0/8".parse().expect("a prefix"), "2001:db8::/32".parse().expect("a prefix")],
        remove: vec![],
    };
    let explain = ExplainRequest { client: known.ip(), port: Some(4000), at: Some(weight("25%")) };

    assert_eq!(client.version().await.expect("version").api, 1);
    assert_eq!(client.status(None).await.expect("status"), status());
    assert_eq!(client.status(Some(&web)).await.expect("status").services.len(), 1);
    assert_eq!(client.set_weight(&web, weight("0.01%")).await.expect("weight").weights.asked, weight("0.01%"));
    assert_eq!(client.flip(&web, &flip).await.expect("flip").flip.expect("flipped").reason, flip.reason);
    assert_eq!(client.unflip(&name("dns")).await.expect("unflip").flip, None);
    assert_eq!(client.backends(&web).await.expect("backends").cohorts, status().services[0].cohorts);
    client.add_backend(&web, &add).await.expect("add");
    client.remove_backend(&web, backend).await.expect("remove");
    client.drain_backend(&web, known, true).await.expect("drain");
    client.drain_backend(&web, known, false).await.expect("undrain");
    client.set_backend_weight(&web, backend, one).await.expect("weight");
    assert_eq!(client.networks(&web).await.expect("networks"), networks());
    assert_eq!(client.change_networks(&web, &change).await.expect("change").added, 2);
    assert_eq!(client.explain(&web, &explain).await.expect("explain").at, explanation().at);
    assert!(client.reload().await.expect("reload").ok);
    assert_eq!(client.detach().await.expect("detach").interfaces, ["eth0"]);
    assert_eq!(client.doctor().await.expect("doctor"), doctor());
    assert_eq!(client.history(None, None).await.expect("history"), history());
    assert_eq!(client.history(Some(&web), Some(1)).await.expect("history").rollouts, history().rollouts[..1]);
    assert_eq!(client.rollout(&web).await.expect("rollout"), rollout::status());
    let actions: Vec<_> = RolloutWord::ALL.into_iter().map(RolloutAction::Word).collect();
    let promotions = [false, true].map(|full| RolloutAction::Promote(PromoteRequest { full }));
    let actions: Vec<_> = actions.into_iter().chain(promotions).collect();
    for action in &actions {
        assert_eq!(client.change_rollout(&web, *action).await.expect("rollout"), rollout::status());
    }

    let by = || me.clone();
    let mut asked = agent.commands.asked();
    let of_rollouts = asked.split_off(asked.len() - actions.len());
    assert_eq!(
        of_rollouts,
        actions.into_iter().map(|action| Asked::ChangeRollout(name("web"), action, by())).collect::<Vec<_>>()
    );
    assert_eq!(
        asked,
        [
            Asked::Status(None),
            Asked::Status(Some(name("web"))),
            Asked::SetWeight(name("web"), weight("0.01%"), by()),
            Asked::Flip(name("web"), flip, by()),
            Asked::Unflip(name("dns"), by()),
            Asked::Backends(name("web")),
            Asked::AddBackend(name("web"), add, by()),
            Asked::RemoveBackend(name("web"), backend, by()),
            Asked::DrainBackend(name("web"), known, true, by()),
            Asked::DrainBackend(name("web"), known, false, by()),
            Asked::SetBackendWeight(name("web"), backend, one, by()),
            Asked::Networks(name("web")),
            Asked::ChangeNetworks(name("web"), change, by()),
            Asked::Explain(name("web"), explain),
            Asked::Reload(by()),
            Asked::Detach(by()),
            Asked::Doctor,
            Asked::History(None, 20),
            Asked::History(Some(name("web")), 1),
            Asked::Rollout(name("web")),
        ]
    );
    agent.stop().await;
}

#[tokio::test]
async fn streams_give_every_value_and_end_where_they_should() {
    let agent = Agent::start(Fake::default());
    let client = agent.client();

    let mut kept = client.events(false).await.expect("events");
    for event in events() {
        assert_eq!(kept.next().await.expect("a line"), Some(event));
    }
    assert_eq!(kept.next().await.expect("the end"), None);

    let filter = TraceFilter { from: Some("198.51.100.0/24".parse().expect("a prefix")), count: Some(3) };
    let mut records = client.trace(&name("web"), filter).await.expect("trace");
    for record in trace().into_iter().cycle().take(3) {
        assert_eq!(records.next().await.expect("a line"), Some(record));
    }
    assert_eq!(records.next().await.expect("the end"), None);
    assert_eq!(agent.commands.asked(), [Asked::Events(false), Asked::Trace(name("web"), filter)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_ends_streams_in_order_and_takes_the_socket_away() {
    let agent = Agent::start(Fake::default());
    let (socket, mut following) = (agent.socket.clone(), agent.client().events(true).await.expect("events"));
    for event in events() {
        assert_eq!(following.next().await.expect("a line"), Some(event));
    }
    let before = Instant::now();
    assert_eq!(agent.ended().await, Ended { cut: 0 });
    assert!(before.elapsed() < Options::default().shutdown_deadline);
    assert_eq!(following.next().await.expect("an end in order"), None);
    assert!(!socket.exists());
}

#[tokio::test]
async fn what_is_not_done_by_the_deadline_is_cut() {
    let options = Options { shutdown_deadline: Duration::from_millis(50), ..Options::default() };
    let agent = Agent::start_with(Fake::hanging(), options);
    let client = agent.client();
    let hanging = tokio::spawn(async move { client.reload().await });
    while agent.commands.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(agent.ended().await, Ended { cut: 1 });
    assert!(matches!(hanging.await.expect("the task ends"), Err(ClientError::Lost { .. })));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_an_error_that_says_so() {
    let options = Options { request_timeout: Duration::from_millis(20), ..Options::default() };
    let agent = Agent::start_with(Fake::hanging(), options);
    let body = refused(agent.client().reload().await);
    assert_eq!((body.code, body.message.as_str()), (ErrorCode::Unavailable, "the agent did not answer within 0.02 s"));
    agent.stop().await;
}

#[tokio::test]
async fn every_kind_of_error_has_its_status_and_arrives_whole() {
    for (kind, code, status) in [
        (CommandErrorKind::NotFound, ErrorCode::NotFound, StatusCode::NOT_FOUND),
        (CommandErrorKind::Invalid, ErrorCode::Invalid, StatusCode::BAD_REQUEST),
        (CommandErrorKind::Conflict, ErrorCode::Conflict, StatusCode::CONFLICT),
        (CommandErrorKind::Unavailable, ErrorCode::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (CommandErrorKind::Internal, ErrorCode::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    ] {
        let error = CommandError::new(kind, "it can't be").remedy("let it be").place("service \"web\"");
        let agent = Agent::start(Fake::failing(error));
        let body = refused(agent.client().detach().await);
        let expected = ErrorBody {
            code,
            message: "it can't be".to_owned(),
            remedy: Some("let it be".to_owned()),
            place: Some("service \"web\"".to_owned()),
        };
        assert_eq!(body, expected);
        assert_eq!(agent.raw("POST /v1/detach", "", "").await.0, status);
        agent.stop().await;
    }
}

#[tokio::test]
async fn requests_that_mean_nothing_get_an_error_body_and_reach_nobody() {
    let agent = Agent::start(Fake::default());
    let json = "content-type: application/json\r\n";
    let too_long = format!("{{\"reason\": \"{}\"}}", "x".repeat(crate::api::MAX_REQUEST_BODY));
    for (request, headers, body, status, code, part) in [
        ("GET /v1/nothing", "", "", 404, ErrorCode::Unsupported, "no such call"),
        ("GET /", "", "", 404, ErrorCode::Unsupported, "no such call"),
        ("DELETE /v1/status", "", "", 405, ErrorCode::Unsupported, "no such call"),
        ("GET /v1/status?servce=web", "", "", 400, ErrorCode::Invalid, "unknown field `servce`"),
        ("GET /v1/services/w%20b/networks", "", "", 400, ErrorCode::Invalid, "is not a service name"),
        ("DELETE /v1/services/web/backends/10.0.0.1", "", "", 400, ErrorCode::Invalid, "10.0.0.1"),
        ("PUT /v1/services/web/weight", json, "{\"weight\": \"101%\"}", 400, ErrorCode::Invalid, "out of range"),
        ("PUT /v1/services/web/weight", json, "{\"weigth\": \"1%\"}", 400, ErrorCode::Invalid, "unknown field `weigth`"),
        ("PUT /v1/services/web/weight", json, "{", 400, ErrorCode::Invalid, "JSON"),
        ("PUT /v1/services/web/weight", "", "{\"weight\": \"1%\"}", 415, ErrorCode::Invalid, "Content-Type"),
        ("POST /v1/services/web/networks", json, "{\"list\": \"never-canary\"}", 400, ErrorCode::Invalid, "no prefix"),
        ("GET /v1/services/web/trace?from=10.0.0.0/40", "", "", 400, ErrorCode::Invalid, "from"),
        ("POST /v1/services/web/rollout/stop", "", "", 400, ErrorCode::Invalid, "unknown variant `stop`"),
        ("POST /v1/services/web/rollout/promote", json, "{\"ful\": true}", 400, ErrorCode::Invalid, "unknown field `ful`"),
        ("GET /v1/services/web/rollout/start", "", "", 405, ErrorCode::Unsupported, "no such call"),
        ("POST /v1/services/web/flip", json, &too_long, 413, ErrorCode::Invalid, "length limit"),
    ] {
        let (got, text) = agent.raw(request, headers, body).await;
        let error: ErrorBody = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{request}: {error}: {text}"));
        assert_eq!((got.as_u16(), error.code), (status, code), "{request}: {text}");
        assert!(error.message.contains(part), "{request}: {text}");
    }
    assert_eq!(agent.commands.asked(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_service_that_is_not_there_and_a_port_that_is_missing_name_their_remedies() {
    let agent = Agent::start(Fake::default());
    let body = refused(agent.client().networks(&name("wbe")).await);
    assert_eq!((body.code, body.message.as_str()), (ErrorCode::NotFound, "there is no service `wbe`"));
    assert_eq!(body.remedy.as_deref(), Some("`splitter status` lists the services"));

    let request = ExplainRequest { client: address("[2001:db8::1]:1").ip(), port: None, at: None };
    let body = refused(agent.client().explain(&name("web"), &request).await);
    assert_eq!(body.code, ErrorCode::Invalid);
    assert_eq!(body.remedy.as_deref(), Some("name the client's port, as in `--from [2001:db8::1]:40000`"));
    agent.client().explain(&name("dns"), &request).await.expect("`affinity = client` needs no port");
    agent.stop().await;
}

#[tokio::test]
async fn nobody_on_the_socket_is_told_apart_from_no_permission() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("agent.sock");
    let client = Client::new(&socket);
    let error = client.version().await.expect_err("no socket");
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("splitter agent --config")));

    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket that nobody listens on"));
    assert!(matches!(client.version().await, Err(ClientError::NotRunning { .. })));

    let error = ClientError::NotPermitted { socket: socket.clone(), group: Some("splitter".to_owned()) };
    assert_eq!(error.remedy().as_deref(), Some("run this as root or as a member of the group `splitter`"));
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_its_group() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("deeper/agent.sock");
    let group = Group::from_gid(getgid()).expect("a look-up").expect("this process's group has a name");
    let bound = Socket::bind(&socket, Some(&group.name)).expect("bound");
    let found = fs::metadata(&socket).expect("it is there");
    assert_eq!(found.permissions().mode() & 0o7777, SOCKET_MODE);
    assert_eq!((found.uid(), found.gid()), (getuid().as_raw(), group.gid.as_raw()));
    drop(bound);
    assert!(!socket.exists());

    let error = Socket::bind(&socket, Some("no-such-group")).expect_err("no such group");
    assert!(matches!(error, SocketError::NoGroup { .. }));
    assert!(error.remedy().contains("groupadd --system no-such-group"));
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_limit_that_asks_for_nothing_or_for_too_much_is_refused() {
    let agent = Agent::start(Fake::default());
    for limit in [0, 1_001] {
        let error = refused(agent.client().history(None, Some(limit)).await);
        assert_eq!((error.code, error.message), (ErrorCode::Invalid, format!("`limit` is {limit}: it may be 1 to 1000")));
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_goes_on() {
    let agent = Agent::start(Fake::default());
    let error = Socket::bind(&agent.socket, None).expect_err("there is one already");
    let expected = format!("another agent (pid {}) runs with the socket {}", std::process::id(), agent.socket.display());
    assert_eq!(error.to_string(), expected);

    // Even without the lock, for one that answers is there.
    fs::remove_file(agent.socket.with_file_name(".agent.sock.lock")).expect("the lock's file is there");
    let error = Socket::bind(&agent.socket, None).expect_err("there is one already");
    assert_eq!(error.to_string(), expected);
    agent.client().version().await.expect("the first still answers");
    agent.stop().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_anything_else_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a stale socket"));
    let bound = Socket::bind(&socket, None).expect("replaced");
    assert_eq!(bound.path(), socket);
    tokio::net::UnixStream::connect(&socket).await.expect("the new one listens");
    drop(bound);

    fs::write(&socket, "precious").expect("a file");
    let error = Socket::bind(&socket, None).expect_err("not a socket");
    assert!(matches!(error, SocketError::NotASocket { .. }));
    assert_eq!(fs::read_to_string(&socket).expect("still there"), "precious");
}

/// A server over a real socket in a directory of its own.
struct Agent {
    commands: Arc<Fake>,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    server: JoinHandle<io::Result<Ended>>,
    _directory: TempDir,
}

impl Agent {
    fn start(commands: Fake) -> Self {
        Self::start_with(commands, Options::default())
    }

    fn start_with(commands: Fake, options: Options) -> Self {
        let directory = TempDir::new().expect("a directory");
        let socket = directory.path().join("agent.sock");
        let bound = Socket::bind(&socket, None).expect("bound");
        let commands = Arc::new(commands);
        let (stop, stopping) = watch::channel(false);
        let server = tokio::spawn(run(bound, Arc::clone(&commands), options, stopping));
        Self { commands, socket, stop, server, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Stops a server that has nothing to cut.
    async fn stop(self) {
        assert_eq!(self.ended().await, Ended { cut: 0 });
    }

    async fn ended(self) -> Ended {
        self.stop.send(true).expect("the server listens");
        self.server.await.expect("the server ends").expect("in order")
    }

    /// A request as octets, for what the client doesn't send.
    async fn raw(&self, request: &str, headers: &str, body: &str) -> (StatusCode, String) {
        let (mut read, mut write) = UnixStream::connect(&self.socket).await.expect("connected").into_split();
        let length = body.len();
        let request =
            format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        // The answer may come before the whole of a body that is too long was sent.
        let sent = tokio::spawn(async move {
            let sent = write.write_all(request.as_bytes()).await;
            (sent, write)
        });
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.expect("an answer");
        let (sent, _open) = sent.await.expect("the writer doesn't panic");
        assert!(sent.is_ok() || answer.starts_with("HTTP/1.1 413 "), "{sent:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }
}

fn me() -> Caller {
    let user = User::from_uid(getuid()).expect("a look-up").map(|user| user.name);
    Caller { uid: getuid().as_raw(), user }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorBody {
    match result {
        Err(ClientError::Refused { body }) => body,
        other => panic!("not refused: {other:?}"),
    }
}
