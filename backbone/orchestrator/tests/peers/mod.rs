//! Scripts for the orchestrator's peers: consoles and agents that speak the protocols by hand, over real connections.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod joiner;

use std::time::Duration;

use modchain_certs::Credentials;
use modchain_link::{ConnectError, Connection, FrameReader, FrameWriter, Protocol, connect};
use modchain_types::{
    AccountId, Adapter, Assignment, AttemptId, BootId, Capabilities, Digest, Ending, Exceptions, Fence, GpuRequest,
    Identity, Input, InstanceId, InventoryItem, JobSpec, JournalId, Limits, List, Map, Micro, Offer, OutputLengths,
    Policy, Report, ReportBody, Requirements, Span, Tariff, Task, TaskBody, Text, Usage, WallTime, WasmTask,
};
use modchain_wire::agent::{
    AgentHello, AgentWelcome, AttemptOpen, Heartbeat, HostLoad, OutputAck, OutputChunk, OutputEnd, OutputStream,
};
use modchain_wire::console::{
    AccountQuery, BlobFetch, BlobPiece, BlobPut, ConsoleHello, ConsoleWelcome, Credit, JobQuery, LogsOpen, Refusal,
    Revoke, SpecQuery, SpecView, Submit, Submitted,
};
use modchain_wire::view::{AccountView, JobView, RevokedView};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromAgent, FromConsole, Message, ToAgent, ToConsole};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Tries to connect where the machine may be too busy for one to end in time.
const TRIES: usize = 6;
/// Time between two tries where the orchestrator was too busy.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(20);
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

/// Puts a limit on something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Then every program of ours tries again: a test machine may be busy with something else.
fn too_slow(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Silent { .. } | ConnectError::Busy { .. })
}

/// Joins, again where that was too slow.
async fn patiently<T, F: Future<Output = Result<T, ConnectError>>>(join: impl Fn() -> F) -> Result<T, ConnectError> {
    for _ in 1..TRIES {
        match join().await {
            Err(error) if too_slow(&error) => tokio::time::sleep(BUSY_PAUSE).await,
            other => return other,
        }
    }
    join().await
}

pub(crate) fn text<const MAX: usize>(text: impl Into<String>) -> Text<MAX> {
    Text::new(text).expect("it fits")
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
            models: List::default(),
            pullable: List::default(),
            exceptions: Exceptions::default(),
            container_gpus: false,
            labels: Map::default(),
            region: text(""),
        },
        tariff: Tariff { core_hour: Micro(1_000), minimum: MINIMUM, ..Tariff::default() },
        agent_version: text("0"),
        paused: false,
        images: List::default(),
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
            model: None,
            exceptions: Exceptions::default(),
        },
        limits: Limits::default(),
        max_cost: HOLD,
        priority: 0,
        labels: Map::default(),
        input: Input::None,
        policy: Policy::Cheapest,
    }
}

pub(crate) struct Console {
    pub(crate) connection: Connection,
    pub(crate) welcome: ConsoleWelcome,
}

impl Console {
    /// Connects and says hello. An error is what the orchestrator's refusal means to people.
    pub(crate) async fn join(credentials: &Credentials, address: &str) -> Result<Self, ConnectError> {
        patiently(|| Self::join_once(credentials, address)).await
    }

    async fn join_once(credentials: &Credentials, address: &str) -> Result<Self, ConnectError> {
        let connection = connect(credentials, address, Protocol::Console).await?;
        let hello = ConsoleHello { types: ToConsole::known_types(), version: text("0"), wall: WallTime(0) };
        let welcome = async {
            let (mut out, mut input) = connection.open_bi::<FromConsole, ToConsole>().await.ok()?;
            out.write(&hello.into()).await.ok()?;
            match input.read().await.ok()? {
                Some(ToConsole::Welcome(welcome)) => Some(welcome),
                other => panic!("no welcome: {other:?}"),
            }
        };
        match soon("welcome", welcome).await {
            Some(welcome) => Ok(Self { connection, welcome }),
            None => Err(soon("the reason", connection.why_refused()).await),
        }
    }

    /// Connects and is welcomed by this name.
    pub(crate) async fn connect(credentials: &Credentials, address: &str, name: &str) -> Self {
        let console = Self::join(credentials, address).await.expect("a welcome");
        assert_eq!(console.identity().name.as_str(), name);
        console
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.welcome.identity
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

    /// As [`Console::ask`]; `None` where the connection ends before the answer comes.
    pub(crate) async fn try_ask(&self, request: impl Into<FromConsole>) -> Option<ToConsole> {
        let asked = async {
            let (mut out, mut input) = self.connection.open_bi::<FromConsole, ToConsole>().await.ok()?;
            out.write(&request.into()).await.ok()?;
            out.finish().await.ok()?;
            input.read().await.ok()?
        };
        soon("an answer", asked).await
    }

    pub(crate) async fn revoke(&self, who: &str) -> Result<RevokedView, Refusal> {
        match self.ask(Revoke { identity: text(who), why: text("sold") }).await {
            ToConsole::Revoked(view) => Ok(view),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
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
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            let _ = out.write(&BlobPiece { data: Data::new(piece.to_vec()).expect("it fits") }.into()).await;
        }
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

    /// A blob of its account, and how many pieces it came in.
    pub(crate) async fn fetch(&self, digest: Digest) -> Result<(Vec<u8>, usize), Refusal> {
        let (_out, mut input) = self.open(BlobFetch { digest }).await;
        let head = match soon("the head", input.read()).await {
            Ok(Some(ToConsole::BlobHead(head))) => head,
            Ok(Some(ToConsole::Refusal(refusal))) => return Err(refusal),
            other => panic!("{other:?}"),
        };
        let (mut bytes, mut pieces) = (Vec::new(), 0);
        loop {
            match soon("a piece", input.read()).await {
                Ok(Some(ToConsole::BlobChunk(chunk))) => bytes.extend_from_slice(&chunk.data),
                Ok(None) => break,
                other => panic!("{other:?}"),
            }
            pieces += 1;
        }
        assert_eq!(head.bytes, bytes.len() as u64);
        Ok((bytes, pieces))
    }

    pub(crate) async fn spec(&self, job: &str) -> Result<SpecView, Refusal> {
        match self.ask(SpecQuery { job: text(job) }).await {
            ToConsole::Spec(view) => Ok(view),
            ToConsole::Refusal(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
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

    /// Somebody's account, which only an operator sees.
    pub(crate) async fn account_of(&self, account: &str) -> AccountView {
        match self.account_named(account).await {
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
    pub(crate) welcome: AgentWelcome,
}

impl Agent {
    /// Connects and says hello, as `instance` and with what it still knows of. An error is what the orchestrator's refusal
    /// means to people.
    pub(crate) async fn join(
        credentials: &Credentials,
        address: &str,
        instance: InstanceId,
        inventory: Vec<InventoryItem>,
        journal: Option<JournalId>,
    ) -> Result<Self, ConnectError> {
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
        Self::greet(credentials, address, hello).await
    }

    /// Connects and says this hello.
    pub(crate) async fn greet(
        credentials: &Credentials,
        address: &str,
        hello: AgentHello,
    ) -> Result<Self, ConnectError> {
        patiently(|| Self::greet_once(credentials, address, hello.clone())).await
    }

    async fn greet_once(credentials: &Credentials, address: &str, hello: AgentHello) -> Result<Self, ConnectError> {
        let connection = connect(credentials, address, Protocol::Agent).await?;
        let welcome = async {
            let (mut out, mut control) = connection.open_bi::<FromAgent, ToAgent>().await.ok()?;
            out.write(&hello.into()).await.ok()?;
            match control.read().await.ok()? {
                Some(ToAgent::Welcome(welcome)) => Some((out, control, welcome)),
                other => panic!("no welcome: {other:?}, {:?}", connection.close_reason()),
            }
        };
        match soon("welcome", welcome).await {
            Some((out, control, welcome)) => Ok(Self { connection, out, control, welcome }),
            None => Err(soon("the reason", connection.why_refused()).await),
        }
    }

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
        self.ended(assignment, Ending::Exited { code }, stdout).await;
    }

    /// Says that it ended as it was told to.
    pub(crate) async fn stopped(&mut self, assignment: &Assignment) {
        self.ended(assignment, Ending::Stopped, 0).await;
    }

    async fn ended(&mut self, assignment: &Assignment, ending: Ending, stdout: u64) {
        let usage = Usage { ran: Span::from_millis(5), ..Usage::default() };
        let output = OutputLengths { stdout, stderr: 0, dropped: 0 };
        let body = ReportBody::Ended { ending, usage, output };
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
        let beat = Heartbeat { number: 1, sent: modchain_types::Timestamp(7), rtt: None, load, gpus: List::default() };
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
