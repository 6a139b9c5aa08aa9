//! What an agent needs, in memory.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    agent::{AgentError, Lost, Parts, Signal, WaySource, run},
    api::{client::Client, socket::Socket},
    config::Config,
    dataplane::{ServiceKey, fake::FakeDataplane},
    model::{Protocol, ServiceName, Weight},
    neighbor::{Way, WayError, Ways},
    store::{History, MemoryHistory, MemoryStore, Store},
};

/// One service with two stable backends and a canary.
pub const CONFIG: &str = r#"
[agent]
interfaces = ["eth0"]
sample_interval = "10ms"

[[service]]
name = "web"
protocol = "tcp"
address = "192.0.2.10:80"
weight = "0%"
stable = ["10.0.1.1:8080", "10.0.1.2:8080"]
canary = ["10.0.1.9:8080"]

[service.breach]
refused = "5%"
min_attempts = 50
"#;

/// Backends that have a way in the beginning.
pub const ALL_REACHABLE: &[&str] = &["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.9"];

const PATIENCE: Duration = Duration::from_secs(10);

/// An agent that runs, and its surroundings.
pub struct Rig {
    pub dataplane: FakeDataplane,
    pub store: MemoryStore,
    pub history: MemoryHistory,
    pub signals: mpsc::Sender<Signal>,
    text: Arc<Mutex<String>>,
    ways: watch::Sender<Arc<Ways>>,
    directory: TempDir,
    metrics: SocketAddr,
    agent: JoinHandle<Result<(), AgentError>>,
}

impl Rig {
    pub async fn start(text: &str) -> Self {
        Self::start_with(text, |_, _| {}).await
    }

    /// Prepares the store and the data plane before the agent comes.
    pub async fn start_with(text: &str, prepare: impl FnOnce(&MemoryStore, &FakeDataplane)) -> Self {
        let (dataplane, store) = (FakeDataplane::default(), MemoryStore::default());
        prepare(&store, &dataplane);
        let directory = tempfile::tempdir().expect("a directory");
        Self::run(dataplane, store, MemoryHistory::default(), directory, text.to_owned()).await
    }

    /// Ends the agent without asking it, and starts another.
    pub async fn restart(self) -> Self {
        self.restart_with(|_, _| {}).await
    }

    /// The same, with something that happens in between.
    pub async fn restart_with(mut self, between: impl FnOnce(&MemoryStore, &FakeDataplane)) -> Self {
        self.agent.abort();
        assert!((&mut self.agent).await.is_err_and(|error| error.is_cancelled()));
        // A process's tasks end with it; here they are ended one by one, and what they hold is free a moment later.
        let socket = self.directory.path().join("agent.sock");
        self.until(|rig| !rig.dataplane.is_held() && Socket::bind(&socket, None).is_ok()).await;
        between(&self.store, &self.dataplane);
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self::run(self.dataplane, self.store, self.history, self.directory, text).await
    }

    async fn run(dataplane: FakeDataplane, store: MemoryStore, history: MemoryHistory, directory: TempDir, text: String) -> Self {
        let metrics = free_address();
        let text = Arc::new(Mutex::new(text));
        let (ways, known) = watch::channel(reachable(ALL_REACHABLE));
        let (signals, told) = mpsc::channel(4);
        let (ready, is_ready) = oneshot::channel();
        let mut parts = parts(&dataplane, &store, &history, &directory, metrics, &text, known);
        parts.ready = Box::new(move || ready.send(()).expect("somebody waits"));
        let mut agent = tokio::spawn(run(parts, told));
        tokio::select! {
            ready = is_ready => ready.expect("the agent is up"),
            ended = &mut agent => panic!("the agent did not start: {ended:?}"),
            () = sleep(PATIENCE) => panic!("the agent takes too long to start"),
        }
        Self { dataplane, store, history, signals, text, ways, directory, metrics, agent }
    }

    /// Another agent with the same socket; what becomes of it.
    pub async fn second(&self) -> Result<(), AgentError> {
        let (_signals, told) = mpsc::channel(1);
        let known = self.ways.subscribe();
        run(parts(&self.dataplane, &self.store, &self.history, &self.directory, free_address(), &self.text, known), told).await
    }

    pub fn client(&self) -> Client {
        Client::new(self.directory.path().join("agent.sock"))
    }

    /// Writes another configuration.
    pub fn configure(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// These have a way from now on, others don't answer.
    pub fn reach(&self, addresses: &[&str]) {
        self.ways.send_replace(reachable(addresses));
    }

    /// Whether the data plane may use a backend.
    pub fn usable(&self, backend: &str) -> bool {
        let service = self.dataplane.service(&key()).expect("there");
        service.backends.iter().any(|b| b.address == address(backend) && b.is_usable())
    }

    /// Whether something was told, and is kept.
    pub fn has_event(&self, message: &str) -> bool {
        self.store.saved().is_some_and(|state| state.events().any(|event| event.kind.to_string() == message))
    }

    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("it comes to pass");
    }

    pub async fn metrics(&self) -> String {
        self.get("metrics").await
    }

    /// The status of a probe.
    pub async fn probe(&self, path: &str) -> u16 {
        let answer = self.get(path).await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no HTTP: {answer}"))
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).await.expect("connected");
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    /// Stops it in order.
    pub async fn stop(self) -> Result<(), AgentError> {
        self.signals.send(Signal::Stop).await.expect("it listens");
        timeout(PATIENCE, self.agent).await.expect("it stops in time").expect("it doesn't panic")
    }

    /// Nobody follows routes and neighbours any more; what becomes of the agent.
    pub async fn lose_ways(self) -> Result<(), AgentError> {
        drop(self.ways);
        timeout(PATIENCE, self.agent).await.expect("it ends in time").expect("it doesn't panic")
    }
}

pub fn key() -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, address: address("192.0.2.10:80") }
}

pub fn name(name: &str) -> ServiceName {
    name.parse().expect("a name in a test is right")
}

pub fn percent(text: &str) -> Weight {
    text.parse().expect("a weight in a test is right")
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address in a test is right")
}

fn parts(
    dataplane: &FakeDataplane,
    store: &MemoryStore,
    history: &MemoryHistory,
    directory: &TempDir,
    metrics: SocketAddr,
    text: &Arc<Mutex<String>>,
    known: watch::Receiver<Arc<Ways>>,
) -> Parts<FakeWays> {
    let socket = directory.path().join("agent.sock");
    let (text, store, history, dataplane) = (Arc::clone(text), store.clone(), history.clone(), dataplane.clone());
    let source = move || {
        let text = text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut config = Config::parse(&text, "splitter.toml")?;
        config.agent.socket.clone_from(&socket);
        config.agent.metrics_address = Some(metrics);
        Ok(config)
    };
    let source: crate::agent::Source = Arc::new(source);
    let in_force = dataplane.clone();
    Parts {
        config: source().expect("the configuration in a test is right"),
        source,
        store: Box::new(move |_| Ok(Box::new(store) as Box<dyn Store>)),
        history: Box::new(move |_| (Arc::new(history) as Arc<dyn History>, vec![])),
        seeds: Box::new(move |_| in_force.seeds()),
        open: Box::new(move |_| Ok((dataplane.open(), vec![]))),
        ways: Box::new(move || Ok(FakeWays { known })),
        detach: false,
        ready: Box::new(|| {}),
    }
}

/// Knows every way that a test names.
struct FakeWays {
    known: watch::Receiver<Arc<Ways>>,
}

impl WaySource for FakeWays {
    fn watch(&self, _: BTreeSet<IpAddr>) {}

    fn ways(&self) -> Arc<Ways> {
        self.known.borrow().clone()
    }

    async fn settled(&self, _: Duration) -> Arc<Ways> {
        self.ways()
    }

    async fn changed(&mut self) -> Result<(), Lost> {
        self.known.changed().await.map_err(|_| Lost)
    }

    async fn stop(self) {}
}

/// Those in `addresses` have a way, the other backends of these tests don't answer, and 192.0.2.77 has no route.
fn reachable(addresses: &[&str]) -> Arc<Ways> {
    let ip = |text: &&str| -> IpAddr { text.parse().expect("an address in a test is right") };
    let mut ways = Ways::new();
    for backend in ALL_REACHABLE {
        let failed = WayError::Failed { neighbor: ip(backend), interface: "eth0".to_owned() };
        ways.insert(ip(backend), Err(failed));
    }
    let nowhere = ip(&"192.0.2.77");
    ways.insert(nowhere, Err(WayError::NoRoute { destination: nowhere, errno: libc::ENETUNREACH }));
    for address in addresses {
        let way = Way {
            interface: 2,
            interface_name: "eth0".to_owned(),
            vlan: None,
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source_address: ip(&"10.0.1.254"),
            gateway: None,
            mtu: 1_500,
        };
        ways.insert(ip(address), Ok(way));
    }
    Arc::new(ways)
}

/// A port that nobody has, most likely still when the agent takes it.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
