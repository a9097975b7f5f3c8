//! The orchestrator under test, and scripts for its peers.

use std::path::PathBuf;
use std::time::Duration;

use modchain_certs::Credentials;
use modchain_link::{Connection, FrameReader, FrameWriter, Protocol, connect};
use modchain_orchestrator::config::{CERT_LIFE, Settings};
use modchain_orchestrator::init::{InitOptions, Initialised, init};
use modchain_orchestrator::serve::Orchestrator;
use modchain_types::{
    AccountId, Adapter, Assignment, AttemptId, BootId, Capabilities, Digest, Ending, Fence, GpuRequest, Input,
    InstanceId, InventoryItem, JobSpec, Limits, List, Map, Micro, Offer, OutputLengths, Report, ReportBody,
    Requirements, Span, Tariff, Task, TaskBody, Text, Usage, WallTime, WasmTask,
};
use modchain_wire::agent::{
    AgentHello, AttemptOpen, Heartbeat, HostLoad, OutputAck, OutputChunk, OutputEnd, OutputStream,
};
use modchain_wire::console::{
    AccountQuery, BlobPiece, BlobPut, ConsoleHello, Credit, JobQuery, LogsOpen, Refusal, Submit, Submitted,
};
use modchain_wire::view::{AccountView, JobView};
use modchain_wire::{Data, FromAgent, FromConsole, Message, ToAgent, ToConsole};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What a job may cost.
pub(crate) const HOLD: Micro = Micro(100_000);
/// What a job that ran costs at least.
pub(crate) const MINIMUM: Micro = Micro(1_000);
/// What each client is given.
pub(crate) const CREDIT: Micro = Micro(10_000_000);
/// Every job's module; nothing here runs it.
pub(crate) const MODULE: &[u8] = b"(module)";

pub(crate) type Out = FrameWriter<FromConsole>;
pub(crate) type In = FrameReader<ToConsole>;

pub(crate) struct World {
    pub(crate) data: tempfile::TempDir,
    pub(crate) orchestrator: Option<Orchestrator>,
    pub(crate) address: String,
    pub(crate) join_address: String,
    pub(crate) made: Initialised,
}

/// Puts a limit on something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

pub(crate) fn text<const MAX: usize>(text: impl Into<String>) -> Text<MAX> {
    Text::new(text).expect("it fits")
}

impl World {
    /// Clients alice and bob, the operator, and one node, whose earnings go to `owner`. Alice and bob have credit.
    pub(crate) async fn start() -> Self {
        let name = |name: &str| name.parse().expect("a name");
        let world = Self::found(InitOptions {
            clients: vec![name("alice"), name("bob"), name("owner")],
            operators: vec![name("boss")],
            nodes: vec![(name("rig-1"), Some("owner".parse().expect("an account")))],
            ..InitOptions::default()
        })
        .await;
        let boss = world.console("boss").await;
        for account in ["alice", "bob"] {
            let given = boss.credit(account, CREDIT, account).await.expect("credit");
            assert_eq!(given.available, CREDIT);
        }
        world
    }

    /// Whoever `init` is told to make, and nobody has credit.
    pub(crate) async fn found(options: InitOptions) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let options = InitOptions { data: data.path().join("orchestrator"), ..options };
        let made = init(&options).expect("a data directory");
        let mut world = Self { data, orchestrator: None, address: String::new(), join_address: String::new(), made };
        world.serve().await;
        world
    }

    /// Where the orchestrator has its data.
    pub(crate) fn place(&self) -> PathBuf {
        self.data.path().join("orchestrator")
    }

    pub(crate) async fn serve(&mut self) {
        let settings = Settings {
            data: self.place(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            join_listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: None,
            cert_life: CERT_LIFE,
            log: None,
        };
        let orchestrator = Orchestrator::start(&settings).await.expect("it starts");
        self.address = orchestrator.local_address().expect("it listens").to_string();
        self.join_address = orchestrator.join_address().expect("it listens").to_string();
        self.orchestrator = Some(orchestrator);
    }

    pub(crate) async fn stop(&mut self) {
        let running = self.orchestrator.take().expect("it runs");
        soon("shutdown", running.shutdown()).await.expect("a clean end");
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let issued =
            self.made.identities.iter().find(|issued| issued.identity.name.as_str() == name).expect("it was made");
        Credentials::load(&issued.dir).expect("its certificate")
    }

    pub(crate) async fn console(&self, name: &str) -> Console {
        Console::connect(&self.credentials(name), &self.address, name).await
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.agent_with(InstanceId([1; 16]), Vec::new(), None).await
    }

    pub(crate) async fn agent_with(
        &self,
        instance: InstanceId,
        inventory: Vec<InventoryItem>,
        journal: Option<modchain_types::JournalId>,
    ) -> Agent {
        let connection =
            connect(&self.credentials("rig-1"), &self.address, Protocol::Agent).await.expect("a connection");
        let (mut out, mut control) = connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        let hello = AgentHello {
            types: ToAgent::known_types(),
            instance,
            boot: BootId([1; 16]),
            highest_fence: None,
            journal,
            inventory: List::new(inventory).expect("it fits"),
            offer: offer(),
            wall: WallTime(0),
        };
        out.write(&hello.into()).await.expect("it is taken");
        match soon("welcome", control.read()).await {
            Ok(Some(ToAgent::Welcome(_))) => Agent { connection, out, control },
            other => panic!("no welcome: {other:?}, {:?}", connection.close_reason()),
        }
    }
}

pub(crate) fn offer() -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::new(vec![Adapter::Wasm]).expect("it fits"),
            cpu_milli: 8_000,
            memory_bytes: 8 << 30,
            disk_bytes: 8 << 30,
            slots: 8,
            gpus: List::default(),
            labels: Map::default(),
            region: text(""),
        },
        tariff: Tariff { core_hour: Micro(1_000), minimum: MINIMUM, ..Tariff::default() },
        agent_version: text("0"),
    }
}

pub(crate) fn spec(name: &str) -> JobSpec {
    let task = WasmTask {
        module: Digest::of(MODULE),
        module_bytes: MODULE.len() as u64,
        module_name: text("hello.wat"),
        args: List::default(),
        env: Map::default(),
    };
    JobSpec {
        name: text(name),
        body: TaskBody::Inline(Task::Wasm(task)),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1_000,
            memory_bytes: 64 << 20,
            disk_bytes: 0,
            gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
            labels: Default::default(),
            region: None,
            node: None,
            price_per_hour_max: None,
        },
        limits: Limits::default(),
        max_cost: HOLD,
        priority: 0,
        labels: Map::default(),
        input: Input::None,
    }
}

pub(crate) struct Console {
    pub(crate) connection: Connection,
}

impl Console {
    /// Connects and is welcomed by this name.
    pub(crate) async fn connect(credentials: &Credentials, address: &str, name: &str) -> Self {
        let connection = connect(credentials, address, Protocol::Console).await.expect("a connection");
        let (mut out, mut input) = connection.open_bi::<FromConsole, ToConsole>().await.expect("a stream");
        let hello = ConsoleHello { types: ToConsole::known_types(), version: text("0"), wall: WallTime(0) };
        out.write(&hello.into()).await.expect("it is taken");
        match soon("welcome", input.read()).await {
            Ok(Some(ToConsole::Welcome(welcome))) => assert_eq!(welcome.identity.name.as_str(), name),
            other => panic!("no welcome: {other:?}"),
        }
        Self { connection }
    }

    /// Opens a stream with a request.
    pub(crate) async fn open(&self, request: impl Into<FromConsole>) -> (Out, In) {
        let (mut out, input) = self.connection.open_bi::<FromConsole, ToConsole>().await.expect("a stream");
        out.write(&request.into()).await.expect("it is taken");
        (out, input)
    }

    /// A request with one answer.
    pub(crate) async fn ask(&self, request: impl Into<FromConsole>) -> ToConsole {
        let (mut out, mut input) = self.open(request).await;
        out.finish().await.expect("it ends");
        soon("an answer", input.read()).await.expect("it can be read").expect("there is one")
    }

    pub(crate) async fn credit(&self, account: &str, amount: Micro, key: &str) -> Result<AccountView, Refusal> {
        let credit = Credit {
            account: account.parse().expect("an account"),
            amount,
            key: key.parse().expect("a key"),
            why: text(""),
        };
        match self.ask(credit).await {
            ToConsole::Account(view) => Ok(view),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn put(&self, bytes: &[u8], digest: Digest) -> Result<bool, Refusal> {
        let (mut out, mut input) = self.open(BlobPut { digest, bytes: bytes.len() as u64 }).await;
        // Errors mean that the answer is there already.
        let _ = out.write(&BlobPiece { data: Data::new(bytes.to_vec()).expect("it fits") }.into()).await;
        let _ = out.finish().await;
        match soon("stored", input.read()).await {
            Ok(Some(ToConsole::BlobStored(stored))) => Ok(stored.existing),
            Ok(Some(ToConsole::Refusal(refusal))) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn submit_spec(&self, key: &str, spec: JobSpec) -> Result<Submitted, Refusal> {
        match self.ask(Submit { key: key.parse().expect("a key"), spec, no_queue: false }).await {
            ToConsole::Submitted(submitted) => Ok(submitted),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Puts the module and submits a job.
    pub(crate) async fn submit(&self, key: &str) -> Submitted {
        self.put(MODULE, Digest::of(MODULE)).await.expect("it is stored");
        self.submit_spec(key, spec(key)).await.expect("it is accepted")
    }

    pub(crate) async fn job(&self, job: &str) -> Result<JobView, Refusal> {
        match self.ask(JobQuery { job: text(job) }).await {
            ToConsole::Job(view) => Ok(view),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Asks until the job is as wanted.
    pub(crate) async fn job_until(&self, job: &str, wanted: impl Fn(&JobView) -> bool) -> JobView {
        soon("the job's state", async {
            loop {
                let view = self.job(job).await.expect("its own job");
                if wanted(&view) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub(crate) async fn account(&self) -> AccountView {
        match self.ask(AccountQuery { account: None }).await {
            ToConsole::Account(view) => view,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn account_named(&self, account: &str) -> ToConsole {
        let account: AccountId = account.parse().expect("an account");
        self.ask(AccountQuery { account: Some(account) }).await
    }

    pub(crate) async fn logs(&self, job: &str, follow: bool) -> (Out, In) {
        self.open(LogsOpen { job: text(job), follow, from: None, since: None }).await
    }
}

/// Reads chunks until so many bytes of standard output came, or the stream ends.
pub(crate) async fn read_output(input: &mut In, bytes: usize) -> Vec<u8> {
    let mut output = Vec::new();
    soon("output", async {
        while output.len() < bytes {
            match input.read().await.expect("it can be read") {
                Some(ToConsole::LogChunk(chunk)) if chunk.stream == OutputStream::Out => {
                    assert_eq!(chunk.offset, output.len() as u64, "no gap and no repeat");
                    output.extend_from_slice(&chunk.data);
                }
                Some(ToConsole::LogChunk(_) | ToConsole::CaughtUp(_)) => {}
                Some(ToConsole::LogEnd(_)) | None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
    })
    .await;
    output
}

pub(crate) struct Agent {
    pub(crate) connection: Connection,
    pub(crate) out: FrameWriter<FromAgent>,
    pub(crate) control: FrameReader<ToAgent>,
}

impl Agent {
    /// The next instruction of some kind; others are skipped.
    pub(crate) async fn next<T>(&mut self, what: &str, wanted: impl Fn(ToAgent) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let message = self.control.read().await.expect("it can be read").expect("it goes on");
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        self.next("an assignment", |message| match message {
            ToAgent::Assign(assignment) => Some(assignment),
            _ => None,
        })
        .await
    }

    pub(crate) async fn report(&mut self, attempt: AttemptId, fence: Fence, body: ReportBody) {
        self.out.write(&Report { attempt, fence, body }.into()).await.expect("it is taken");
    }

    /// Accepts an assignment and says that its code runs.
    pub(crate) async fn run(&mut self) -> Assignment {
        let assignment = self.assignment().await;
        let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
        self.report(attempt, fence, ReportBody::Starting).await;
        self.report(attempt, fence, ReportBody::Started).await;
        assignment
    }

    pub(crate) async fn exited(&mut self, assignment: &Assignment, code: u8, stdout: u64) {
        let usage = Usage { ran: Span::from_millis(5), ..Usage::default() };
        let output = OutputLengths { stdout, stderr: 0, dropped: 0 };
        let body = ReportBody::Ended { ending: Ending::Exited { code }, usage, output };
        self.report(assignment.attempt, assignment.claim.fence, body).await;
    }

    /// Opens the stream of an attempt; gives what the orchestrator has already.
    pub(crate) async fn attempt(
        &self,
        assignment: &Assignment,
        input_from: Option<u64>,
    ) -> (FrameWriter<FromAgent>, FrameReader<ToAgent>, u64) {
        let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
        let (mut out, mut input) = self.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        out.write(&AttemptOpen { attempt, fence, input_from }.into()).await.expect("it is taken");
        match soon("resume", input.read()).await {
            Ok(Some(ToAgent::AttemptResume(resume))) => (out, input, resume.stdout),
            other => panic!("{other:?}"),
        }
    }

    /// Sends all output of an attempt and its end.
    pub(crate) async fn finish(&mut self, assignment: &Assignment, output: &[u8], code: u8) {
        let (mut out, mut input, have) = self.attempt(assignment, None).await;
        send(&mut out, have, &output[have as usize..]).await;
        let end = OutputEnd { stdout: output.len() as u64, stderr: 0, dropped: 0 };
        out.write(&end.into()).await.expect("it is taken");
        out.finish().await.expect("it ends");
        acked(&mut input, output.len() as u64).await;
        self.exited(assignment, code, output.len() as u64).await;
        self.next("an acknowledgement", |message| match message {
            ToAgent::ReportAck(ack) => (ack.attempt == assignment.attempt).then_some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn heartbeat(&self, used: u64) -> (FrameWriter<FromAgent>, FrameReader<ToAgent>) {
        let (mut out, mut input) = self.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        let load = HostLoad { memory_used_bytes: used, ..HostLoad::default() };
        let beat = Heartbeat { number: 1, sent: modchain_types::Timestamp(7), rtt: None, load };
        out.write(&beat.into()).await.expect("it is taken");
        match soon("an echo", input.read()).await {
            Ok(Some(ToAgent::HeartbeatEcho(echo))) => assert_eq!((echo.number, echo.sent.0), (1, 7)),
            other => panic!("{other:?}"),
        }
        (out, input)
    }
}

/// Sends output from an offset on, in pieces.
pub(crate) async fn send(out: &mut FrameWriter<FromAgent>, mut offset: u64, output: &[u8]) {
    for piece in output.chunks(16 * 1024) {
        let data = Data::new(piece.to_vec()).expect("it fits");
        let chunk = OutputChunk { stream: OutputStream::Out, offset, at: WallTime(1), data };
        out.write(&chunk.into()).await.expect("it is taken");
        offset += piece.len() as u64;
    }
}

/// Waits until so much standard output is acknowledged.
pub(crate) async fn acked(input: &mut FrameReader<ToAgent>, bytes: u64) {
    soon("acknowledgements", async {
        loop {
            match input.read().await.expect("it can be read") {
                Some(ToAgent::OutputAck(OutputAck { stdout, .. })) if stdout >= bytes => return,
                Some(ToAgent::OutputAck(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
