//! A scripted orchestrator: a real endpoint on a free port that says only what a test tells it to, and the real agent program
//! as its peer. Heartbeats are answered and blobs are served by themselves.

// Each test file uses a part of it.
#![allow(dead_code)]

pub(crate) mod modules;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use modchain_certs::{Authority, CertificatePlan, JoinToken, PeerIdentity, RequestedKey, RootPin, Subject, token};
use modchain_link::{CloseCode, Connection, Endpoint, EndpointKeys, FrameReader, FrameWriter, JoinEndpoint, Joining};
use modchain_types::{
    Adapter, Assignment, AttemptId, Chunk, Digest, Ending, Exceptions, Fence, FenceClaim, GpuRequest, Identity,
    IdentityId, Input, JobId, JobSpec, JournalId, Limits, List, Map, Micro, Policy, Reason, Report, ReportBody,
    Requirements, Reservation, Role, Span, Tariff, Task, TaskBody, Text, Verdict, WallTime, WasmTask,
};
use modchain_wire::agent::{
    AgentHello, AgentWelcome, AttemptOpen, AttemptResume, BlobChunk, BlobHead, Heartbeat, HeartbeatEcho, OutputAck,
    OutputEnd, OutputStream, Probe, Reconcile, ReportAck, StreamRefused,
};
use modchain_wire::join::{ChainDer, JoinAccept, JoinChallenge, JoinHello, JoinRequest, RenewRequest, Renewed};
use modchain_wire::{CHUNK_BYTES_MAX, FromAgent, FromJoiner, Message, Sentence, ToAgent, ToJoiner};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest that anything here may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// The node of a [`World`].
pub(crate) const NODE: IdentityId = IdentityId([7; 16]);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    endpoint: Endpoint,
    blobs: HashMap<Digest, Vec<u8>>,
    /// Between two heartbeats. An agent that has no answer for three of them gives its connection up: less is only for tests that
    /// wait for heartbeats.
    pub(crate) heartbeat: Span,
    /// Whether heartbeats are answered.
    pub(crate) answers: Arc<AtomicBool>,
    /// How many blobs were asked for.
    pub(crate) blobs_asked: Arc<AtomicUsize>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_certificate(Duration::from_secs(3600), Duration::ZERO)
    }

    /// The node's certificate has a life of so long, of which a part is over.
    pub(crate) fn with_certificate(life: Duration, age: Duration) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let now = SystemTime::now();
        let authority = Authority::create(&dir.path().join("ca"), now - Duration::from_secs(3600)).expect("authority");
        let hour = Duration::from_secs(3600);
        let node = Subject::member(Role::Node, NODE).expect("a member");
        authority.issue(node, life, now - age).expect("issues").save(&dir.path().join("node")).expect("saves");
        let client = Subject::member(Role::Client, IdentityId([8; 16])).expect("a member");
        authority.issue(client, hour, now).expect("issues").save(&dir.path().join("client")).expect("saves");
        let orchestrator = authority.issue(Subject::ORCHESTRATOR, hour, now).expect("issues");
        let keys = EndpointKeys::load_or_create(&dir.path().join("quic")).expect("keys");
        let endpoint = Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &orchestrator, &keys, None).expect("listens");
        Self {
            dir,
            authority,
            endpoint,
            blobs: HashMap::new(),
            heartbeat: Span::from_secs(5),
            answers: Arc::new(AtomicBool::new(true)),
            blobs_asked: Arc::default(),
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.endpoint.local_address().expect("bound").to_string()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_modchain-agent"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            // Whatever else runs on this machine is not for these tests to touch.
            .env("MODCHAIN_AGENT_ADAPTERS", "wasm")
            .env("MODCHAIN_AGENT_NVML_LIBRARY", "/nowhere")
            .args(["start", "--orchestrator", &self.address()])
            .arg("--identity")
            .arg(self.dir.path().join("node"))
            .arg("--data")
            .arg(self.data())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start_agent(&self) -> Agent {
        Agent(self.command().spawn().expect("starts"))
    }

    /// A command of the owner to the agent of [`World::command`].
    pub(crate) fn ask(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_modchain-agent"))
            .env_clear()
            .env("HOME", self.dir.path())
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .output()
            .expect("runs")
    }

    /// The document that it prints.
    pub(crate) fn ask_json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ask(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// An assignment of a module with this text.
    pub(crate) fn assignment(&mut self, number: u8, wat: &str, input: Input) -> Assignment {
        let module = Digest::of(wat.as_bytes());
        self.blobs.insert(module, wat.as_bytes().to_vec());
        let task = WasmTask {
            module,
            module_bytes: wat.len() as u64,
            module_name: Text::cut("module.wat"),
            args: List::default(),
            env: Map::default(),
        };
        Assignment {
            attempt: AttemptId { job: JobId([number; 16]), number: 1 },
            claim: FenceClaim { fence: Fence(u64::from(number)), mac: [number; 16] },
            spec: JobSpec {
                name: Text::cut("test"),
                body: TaskBody::Inline(Task::Wasm(task)),
                requirements: Requirements {
                    adapter: Adapter::Wasm,
                    cpu_milli: 100,
                    memory_bytes: 64 << 20,
                    disk_bytes: 0,
                    gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
                    labels: Default::default(),
                    region: None,
                    node: None,
                    price_per_hour_max: None,
                    model: None,
                    exceptions: Exceptions::default(),
                },
                limits: Limits::default(),
                max_cost: Micro::UNIT,
                priority: 0,
                labels: Map::default(),
                input,
                policy: Policy::Cheapest,
            },
            reservation: Reservation { cpu_milli: 100, memory_bytes: 64 << 20, ..Reservation::default() },
            tariff: Tariff::default(),
            run_limit: Span::from_secs(600),
            run_limit_reason: Reason::Budget,
            image: None,
            output_tokens_max: None,
        }
    }

    /// Waits for the agent's next connection and its hello.
    pub(crate) async fn knock(&self) -> Peer {
        let (connection, shown, up, down, hello) = loop {
            let accepted = soon("a connection", self.endpoint.accept()).await.expect("open");
            let (connection, shown) = (accepted.connection, accepted.peer);
            // The agent may have given one up before it was taken, and comes again.
            let control = soon("the control stream", connection.accept_bi::<ToAgent, FromAgent>()).await;
            let Ok((up, mut down)) = control else { continue };
            match soon("the hello", down.read()).await {
                Ok(Some(FromAgent::Hello(hello))) => break (connection, shown, up, down, hello),
                Ok(Some(other)) => panic!("no hello: {other:?}"),
                Ok(None) | Err(_) => {}
            }
        };
        let (attempts_in, attempts) = mpsc::channel(16);
        let (renewals_in, renewals) = mpsc::channel(16);
        let beats = Beats::default();
        let streams = tokio::spawn(take_streams(
            connection.clone(),
            self.blobs.clone(),
            (self.answers.clone(), beats.clone()),
            self.blobs_asked.clone(),
            attempts_in,
            renewals_in,
        ));
        let heartbeat = self.heartbeat;
        Peer { connection, shown, up, down, hello, heartbeat, beats, attempts, renewals, streams }
    }

    /// A join port of the same orchestrator.
    pub(crate) fn listen_join(&self) -> JoinEndpoint {
        let orchestrator = self.authority.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), SystemTime::now());
        JoinEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &orchestrator.expect("issues")).expect("listens")
    }

    pub(crate) fn token(&self, role: Role) -> JoinToken {
        JoinToken::generate(role, RootPin::of_root(self.authority.root()).expect("a root")).expect("a role to join in")
    }

    /// Takes one newcomer in as the node, after its proof.
    pub(crate) async fn take_in(
        &self,
        endpoint: &JoinEndpoint,
        token: &JoinToken,
        plan: &CertificatePlan,
    ) -> JoinRequest {
        let mut newcomer = Newcomer::next(endpoint).await;
        let request = newcomer.challenge().await.expect("asks");
        let exporter = newcomer.joining.exporter;
        let (verifier, id) = (token.verifier(), token.id());
        assert!(token::proves(&verifier, id, &Newcomer::NONCE, &exporter, &request.request, &request.proof));
        let key = RequestedKey::read(&request.request).expect("sound");
        let identity = Identity {
            id: NODE,
            role: Role::Node,
            name: "oslo-03".parse().expect("a name"),
            account: "alice".parse().expect("an account"),
        };
        let accept = JoinAccept {
            identity,
            chain: self.chain(&key, plan),
            pool: "lab".parse().expect("a name"),
            journal: JournalId([1; 16]),
            main_port: self.endpoint.local_address().expect("bound").port(),
            main_host: None,
            existing: false,
        };
        newcomer.last(accept).await;
        request
    }

    /// Whether somebody connects within a moment.
    pub(crate) async fn hears_nobody(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.endpoint.accept()).await.is_err()
    }

    /// A plan of a certificate for the node, from now on.
    pub(crate) fn plan(&self, life: Duration) -> CertificatePlan {
        let node = Subject::member(Role::Node, NODE).expect("a member");
        self.authority.plan(node, life.into(), wall()).expect("plans")
    }

    /// The certificate of a plan, for a key.
    pub(crate) fn chain(&self, key: &RequestedKey, plan: &CertificatePlan) -> ChainDer {
        let issued = self.authority.sign(key, plan).expect("signs");
        List::new(issued.chain.iter().map(|der| Chunk::new(der.to_vec()).expect("fits")).collect()).expect("fits")
    }

    /// The same, with a welcome and one verdict for all.
    pub(crate) async fn welcome(&self, verdict: Verdict) -> Peer {
        let mut peer = self.knock().await;
        peer.say_welcome().await;
        peer.reconcile(verdict).await;
        peer
    }
}

pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    WallTime::default().plus(since.into())
}

/// The agent's program; killed when dropped.
pub(crate) struct Agent(pub(crate) Child);

impl Agent {
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("waits");
    }

    /// The processes of jobs, the oldest first: the one of the first job comes before those that wait for another. They are
    /// children of the agent's own, which stay for a while when their jobs have ended.
    pub(crate) fn jobs(&self) -> Vec<u32> {
        let templates = Self::children_of(self.0.id());
        let mut jobs: Vec<_> = templates.into_iter().flat_map(|(_, template)| Self::children_of(template)).collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, pid)| pid).collect()
    }

    /// When each was started, and its process.
    fn children_of(parent: u32) -> Vec<(u64, u32)> {
        let parent = parent.to_string();
        let mut children = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("lists").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = rest.split_whitespace().collect();
            if fields[1] == parent {
                children.push((fields[19].parse::<u64>().expect("when it was started"), pid));
            }
        }
        children
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("waits") {
                return status.code();
            }
            assert!(Instant::now() < until, "the agent does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Heartbeats that came, oldest first.
pub(crate) type Beats = Arc<Mutex<Vec<Heartbeat>>>;

/// The orchestrator's end of one connection.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    /// The certificate that the agent showed.
    pub(crate) shown: PeerIdentity,
    pub(crate) up: FrameWriter<ToAgent>,
    pub(crate) down: FrameReader<FromAgent>,
    pub(crate) hello: AgentHello,
    heartbeat: Span,
    /// Every heartbeat of this connection.
    pub(crate) beats: Beats,
    attempts: mpsc::Receiver<AttemptStream>,
    renewals: mpsc::Receiver<RenewalAsked>,
    streams: JoinHandle<()>,
}

impl Peer {
    pub(crate) async fn say_welcome(&mut self) {
        let streams_max = self.connection.authorise(20);
        let welcome = AgentWelcome {
            types: FromAgent::known_types(),
            version: Text::cut("test"),
            journal: JournalId([1; 16]),
            heartbeat: self.heartbeat,
            lease: Span::from_secs(30),
            streams_max,
            wall: WallTime(0),
        };
        self.say(welcome).await;
    }

    pub(crate) async fn reconcile(&mut self, verdict: Verdict) {
        let verdicts = self.hello.inventory.iter().map(|item| (item.attempt, item.fence, verdict)).collect();
        self.say(Reconcile { verdicts: List::new(verdicts).expect("fits") }).await;
    }

    pub(crate) async fn say(&mut self, message: impl Into<ToAgent>) {
        soon("sending", self.up.write(&message.into())).await.expect("sends");
    }

    pub(crate) async fn hear(&mut self) -> FromAgent {
        soon("a frame", self.down.read()).await.expect("reads").expect("goes on")
    }

    pub(crate) async fn report(&mut self) -> Report {
        match self.hear().await {
            FromAgent::Report(report) => report,
            other => panic!("not a report: {other:?}"),
        }
    }

    /// Reads reports up to the one that says how the attempt ended.
    pub(crate) async fn ending(&mut self) -> (Report, Ending) {
        loop {
            let report = self.report().await;
            if let ReportBody::Ended { ending, .. } = &report.body {
                let ending = ending.clone();
                return (report, ending);
            }
        }
    }

    /// Reads reports until the attempt's code runs.
    pub(crate) async fn started(&mut self) {
        assert_eq!(self.report().await.body, ReportBody::Starting);
        assert_eq!(self.report().await.body, ReportBody::Started);
    }

    pub(crate) async fn ack(&mut self, report: &Report) {
        self.say(ReportAck { attempt: report.attempt, fence: report.fence }).await;
    }

    pub(crate) async fn attempt(&mut self) -> AttemptStream {
        soon("an attempt's stream", self.attempts.recv()).await.expect("open")
    }

    /// The next request for a certificate, proved on this very connection.
    pub(crate) async fn renewal(&mut self) -> RenewalAsked {
        let asked = soon("a renewal", self.renewals.recv()).await.expect("open");
        assert!(asked.key.is_possessed(&self.connection.exporter(), &asked.request.proof));
        asked
    }

    /// An answer means that the agent has dealt with all that was said before.
    pub(crate) async fn is_served(&mut self) {
        self.say(Probe { number: 7 }).await;
        // Probes may find something at any time, and what was not acknowledged is told again.
        while !matches!(self.hear().await, FromAgent::ProbeAnswer(answer) if answer.number == 7) {}
    }

    /// Tells the agent that it is no longer a member.
    pub(crate) fn revoke(self) {
        self.streams.abort();
        self.connection.close(CloseCode::Revoked, "");
    }

    /// Cuts the connection as a crash would, but at once.
    pub(crate) fn cut(self) {
        self.streams.abort();
        self.connection.close(CloseCode::Internal, "cut by the test");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.streams.abort();
    }
}

/// Somebody at the join port who has said hello.
pub(crate) struct Newcomer {
    pub(crate) hello: JoinHello,
    joining: Joining,
    up: FrameWriter<ToJoiner>,
    down: FrameReader<FromJoiner>,
}

impl Newcomer {
    const NONCE: [u8; 32] = [5; 32];

    pub(crate) async fn next(endpoint: &JoinEndpoint) -> Self {
        let joining = soon("a newcomer", endpoint.accept()).await.expect("open");
        let (up, mut down) = soon("a stream", joining.accept_bi::<ToJoiner, FromJoiner>()).await.expect("opens");
        match soon("a hello", down.read()).await {
            Ok(Some(FromJoiner::Hello(hello))) => Self { hello, joining, up, down },
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Its request; `None` if it goes away instead.
    pub(crate) async fn challenge(&mut self) -> Option<JoinRequest> {
        let challenge = JoinChallenge { nonce: Self::NONCE, wall: wall() };
        soon("sending", self.up.write(&challenge.into())).await.expect("sends");
        match soon("a request", self.down.read()).await {
            Ok(Some(FromJoiner::Request(request))) => Some(request),
            Ok(Some(FromJoiner::Hello(_))) => panic!("a second hello"),
            Ok(None) | Err(_) => None,
        }
    }

    /// Says it, and waits until the newcomer has gone.
    pub(crate) async fn last(mut self, message: impl Into<ToJoiner>) {
        soon("sending", self.up.write(&message.into())).await.expect("sends");
        soon("the newcomer's end", self.joining.closed()).await;
    }
}

/// A request for a certificate, and the way to answer it.
pub(crate) struct RenewalAsked {
    pub(crate) request: RenewRequest,
    pub(crate) key: RequestedKey,
    up: FrameWriter<ToAgent>,
}

impl RenewalAsked {
    pub(crate) async fn answer(mut self, message: impl Into<ToAgent>) {
        soon("sending", self.up.write(&message.into())).await.expect("sends");
        self.up.finish().await.expect("finishes");
        soon("the answer's arrival", self.up.delivered()).await.expect("arrives");
    }

    pub(crate) async fn grant(self, world: &World, plan: &CertificatePlan) {
        let chain = world.chain(&self.key, plan);
        self.answer(Renewed { chain }).await;
    }

    pub(crate) async fn refuse(self) {
        self.answer(StreamRefused { why: Sentence::cut("not now"), retryable: true }).await;
    }
}

/// The stream of an attempt, opened by the agent.
pub(crate) struct AttemptStream {
    pub(crate) open: AttemptOpen,
    pub(crate) up: FrameWriter<ToAgent>,
    pub(crate) down: FrameReader<FromAgent>,
}

/// What came of an attempt's output.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl AttemptStream {
    pub(crate) async fn say(&mut self, message: impl Into<ToAgent>) {
        soon("sending", self.up.write(&message.into())).await.expect("sends");
    }

    pub(crate) async fn resume(&mut self, got: &Got) {
        self.say(AttemptResume { stdout: got.stdout.len() as u64, stderr: got.stderr.len() as u64 }).await;
    }

    /// Takes the next chunk, which must fit just where the last one ended; gives the end instead when it comes.
    pub(crate) async fn take(&mut self, got: &mut Got) -> Option<OutputEnd> {
        match soon("output", self.down.read()).await.expect("reads").expect("goes on") {
            FromAgent::OutputChunk(chunk) => {
                let bytes = match chunk.stream {
                    OutputStream::Out => &mut got.stdout,
                    OutputStream::Err => &mut got.stderr,
                    OutputStream::Note => panic!("agents send no notes"),
                };
                assert_eq!(chunk.offset, bytes.len() as u64, "no gap and no repeat");
                assert!(!chunk.data.is_empty() && chunk.at.0 > 0);
                bytes.extend_from_slice(&chunk.data);
                None
            }
            FromAgent::OutputEnd(end) => Some(end),
            other => panic!("not output: {other:?}"),
        }
    }

    /// Takes and acknowledges everything to the end.
    pub(crate) async fn take_all(&mut self, got: &mut Got) -> OutputEnd {
        loop {
            if let Some(end) = self.take(got).await {
                self.say(OutputAck { stdout: got.stdout.len() as u64, stderr: got.stderr.len() as u64 }).await;
                soon("the end of the stream", self.up.finish()).await.expect("finishes");
                return end;
            }
        }
    }
}

async fn take_streams(
    connection: Connection,
    blobs: HashMap<Digest, Vec<u8>>,
    (answers, beats): (Arc<AtomicBool>, Beats),
    blobs_asked: Arc<AtomicUsize>,
    attempts: mpsc::Sender<AttemptStream>,
    renewals: mpsc::Sender<RenewalAsked>,
) {
    let blobs = Arc::new(blobs);
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((mut up, mut down)) = connection.accept_bi::<ToAgent, FromAgent>().await {
        let (blobs, answers, beats, attempts) = (blobs.clone(), answers.clone(), beats.clone(), attempts.clone());
        let (blobs_asked, renewals) = (blobs_asked.clone(), renewals.clone());
        tasks.spawn(async move {
            match down.read().await {
                Ok(Some(FromAgent::Heartbeat(first))) => {
                    let mut beat = first;
                    loop {
                        let echo = HeartbeatEcho { number: beat.number, sent: beat.sent };
                        beats.lock().expect("nobody panics here").push(beat);
                        if answers.load(Ordering::Relaxed) && up.write(&echo.into()).await.is_err() {
                            return;
                        }
                        match down.read().await {
                            Ok(Some(FromAgent::Heartbeat(next))) => beat = next,
                            _ => return,
                        }
                    }
                }
                Ok(Some(FromAgent::AttemptOpen(open))) => {
                    let _ = attempts.send(AttemptStream { open, up, down }).await;
                }
                Ok(Some(FromAgent::Renew(request))) => {
                    let key = RequestedKey::read(&request.request).expect("a sound request");
                    let _ = renewals.send(RenewalAsked { request, key, up }).await;
                }
                Ok(Some(FromAgent::BlobGet(get))) => {
                    blobs_asked.fetch_add(1, Ordering::Relaxed);
                    let Some(blob) = blobs.get(&get.digest) else {
                        let why = Sentence::cut("there is no such blob");
                        let _ = up.write(&StreamRefused { why, retryable: false }.into()).await;
                        return;
                    };
                    let _ = up.write(&BlobHead { bytes: blob.len() as u64 }.into()).await;
                    for piece in blob.chunks(CHUNK_BYTES_MAX) {
                        let data = Chunk::new(piece.to_vec()).expect("fits");
                        let _ = up.write(&BlobChunk { data }.into()).await;
                    }
                    let _ = up.finish().await;
                    let _ = up.delivered().await;
                }
                _ => {}
            }
        });
    }
}
