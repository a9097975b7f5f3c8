//! One of every message, with every field away from its default, so that a field that moves or changes its width shows.

use std::collections::BTreeMap;

use modchain_types::*;
use modchain_wire::agent::*;
use modchain_wire::console::*;
use modchain_wire::join::*;
use modchain_wire::view::*;
use modchain_wire::{Data, FromAgent, FromConsole, FromJoiner, KnownTypes, ToAgent, ToConsole, ToJoiner};

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).expect("samples are short")
}

fn list<T, const MAX: usize>(items: Vec<T>) -> List<T, MAX> {
    List::new(items).map_err(|e| e.to_string()).expect("samples are short")
}

fn map<const K: usize, const V: usize, const MAX: usize>(key: &str, value: &str) -> Map<Text<K>, Text<V>, MAX> {
    Map::new(BTreeMap::from([(text(key), text(value))])).expect("samples are short")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn account(text: &str) -> AccountId {
    text.parse().expect("an account")
}

fn data(bytes: &'static [u8]) -> Data {
    Data::new(bytes).expect("samples are short")
}

const JOB: JobId = JobId([0x11; 16]);
const ATTEMPT: AttemptId = AttemptId { job: JOB, number: 2 };
const FENCE: Fence = Fence(70_000);
const JOURNAL: JournalId = JournalId([0x22; 16]);
const WALL: WallTime = WallTime(1_790_000_000_000);
const LENGTHS: OutputLengths = OutputLengths { stdout: 1, stderr: 300, dropped: 70_000 };
const USAGE: Usage = Usage {
    ran: Span(1_500_000),
    prompt_tokens: 5,
    output_tokens: 6,
    fuel: 7_000_000_000,
    load: Span(11),
    first_token: Span(300),
    generating: Span(70_000),
};

const TOKEN: TokenId = TokenId(*b"fooba");

fn claim() -> FenceClaim {
    FenceClaim { fence: FENCE, mac: [0x33; 16] }
}

fn offer() -> Offer {
    let gpu = GpuInfo {
        uuid: text("GPU-1"),
        vendor: text("nvidia"),
        model: text("H100"),
        memory_bytes: 80 << 30,
        driver: Text::cut("570.1"),
        compute: Text::cut("9.0"),
    };
    Offer {
        capabilities: Capabilities {
            adapters: list(vec![Adapter::Wasm, Adapter::Docker, Adapter::Llm, Adapter::Mcp]),
            cpu_milli: 8_000,
            memory_bytes: 16 << 30,
            disk_bytes: 100 << 30,
            slots: 16,
            gpus: list(vec![gpu]),
            models: list(vec![ModelInfo {
                name: text("smollm2:135m"),
                digest: text("ab"),
                bytes: 91_000_000,
                warm: true,
            }]),
            pullable: list(vec![text("llama3*")]),
            exceptions: Exceptions { writable_root: true, network: false },
            container_gpus: true,
            labels: map("pool", "a100"),
            region: text("eu"),
        },
        tariff: tariff(),
        agent_version: text("0.1.0"),
        paused: true,
        images: List::default(),
    }
}

fn gpu_sample() -> GpuSample {
    GpuSample {
        busy_pct: Some(97),
        memory_used_bytes: Some(79 << 30),
        temperature_c: Some(75),
        power_mw: Some(398_000),
    }
}

fn tick() -> GpuTick {
    GpuTick { ago: Span(1_500_000), gpus: list(vec![gpu_sample(), GpuSample::default()]) }
}

fn tariff() -> Tariff {
    Tariff {
        core_hour: Micro(30_000),
        gib_hour: Micro(4_000),
        gpu_hour: Map::new(BTreeMap::from([(text("*"), Micro(1_200_000))])).expect("short"),
        million_prompt_tokens: Micro(100),
        million_output_tokens: Micro(200),
        minimum: Micro(1_000),
    }
}

fn reservation() -> Reservation {
    let gpus = list(vec![(text("GPU-1"), text("H100"))]);
    Reservation { cpu_milli: 1_000, memory_bytes: 1 << 29, disk_bytes: 1 << 20, gpus }
}

/// A whole specification.
pub(crate) fn spec() -> JobSpec {
    JobSpec {
        name: text("primes"),
        body: TaskBody::Inline(Task::Wasm(WasmTask {
            module: Digest([0x44; 32]),
            module_bytes: 512,
            module_name: text("primes.wat"),
            args: list(vec![text("100")]),
            env: map("SEED", "7"),
        })),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1_000,
            memory_bytes: 1 << 29,
            disk_bytes: 1 << 20,
            gpus: GpuRequest { count: 1, memory_bytes_min: 40 << 30, model: Some(text("h100")) },
            labels: resources::Vec32::new(vec![(text("pool"), text("a100"))]).expect("short"),
            region: Some(text("eu")),
            node: Some(name("rig-1")),
            price_per_hour_max: Some(Micro(2_000_000)),
            model: Some(text("smollm2:135m")),
            exceptions: Exceptions { writable_root: false, network: true },
        },
        limits: Limits {
            time_limit: Some(Span::from_secs(600)),
            start_by: Some(Span::from_secs(60)),
            lost_after: Span::from_secs(60),
            on_disconnect: OnDisconnect::Stop,
            attempts_max: 3,
            output_bytes_max: 1 << 26,
        },
        max_cost: Micro(100_000),
        priority: -1,
        labels: map("sweep", "1"),
        input: Input::Stream,
        policy: Policy::Cheapest,
    }
}

fn attempt_view() -> AttemptView {
    AttemptView {
        number: 2,
        node: name("rig-1"),
        fence: FENCE,
        state: JobState::Failed,
        reason: Some(Reason::Trap),
        message: text("unreachable"),
        assigned_at: WALL,
        started_at: Some(WALL),
        ended_at: Some(WALL),
    }
}

fn job_view() -> JobView {
    JobView {
        id: JOB,
        name: text("primes"),
        account: account("alice"),
        adapter: Adapter::Wasm,
        what: text("primes.wat 100"),
        state: JobState::Failed,
        reason: Some(Reason::Trap),
        exit: Some(Exit { code: 134, from: ExitFrom::Job }),
        message: text("unreachable"),
        node: Some(name("rig-1")),
        attempts: list(vec![attempt_view()]),
        hold: Micro(100_000),
        cost: Micro(2_100),
        fee: Micro(105),
        refund: Micro(97_900),
        price_per_hour: Some(Micro(62_000)),
        labels: map("sweep", "1"),
        run_limit: Some(Span::from_secs(600)),
        time_limit: Some(Span::from_secs(600)),
        attempts_max: 3,
        usage: USAGE,
        output: LENGTHS,
        preparing: text("pulling"),
        image: Some(text("alpine@sha256:00")),
        model: Some(text("smollm2:135m")),
        gpus: reservation().gpus,
        created_at: WALL,
        started_at: Some(WALL),
        ended_at: Some(WALL),
    }
}

fn node_view() -> NodeView {
    NodeView {
        id: NodeId([0x55; 16]),
        name: name("rig-1"),
        account: account("owen"),
        state: NodeState::Suspect,
        offer: Some(offer()),
        reserved: reservation(),
        attempts: 1,
        load: Some(load()),
        rtt: Some(Span(900)),
        seen_at: Some(WALL),
        connected_at: Some(WALL),
        gpus: list(vec![gpu_sample()]),
        drains_at: Some(WALL),
    }
}

fn account_view() -> AccountView {
    AccountView {
        id: account("alice"),
        available: Micro(900_000),
        held: Micro(100_000),
        earned: Micro(5),
        open_jobs: 1,
        burn_per_hour: Micro(62_000),
    }
}

fn event_view() -> EventView {
    EventView {
        number: 70_001,
        at: WALL,
        kind: EventKind::Job,
        job: Some(JOB),
        attempt: Some(ATTEMPT),
        node: Some(name("rig-1")),
        account: Some(account("alice")),
        from: Some(JobState::Assigned),
        to: Some(JobState::Running),
        reason: Some(Reason::Exit),
        text: text("started"),
    }
}

fn node_verdict() -> NodeVerdictView {
    let reasons = list(vec![text("cpus: 8 asked, it offers 4")]);
    NodeVerdictView { node: name("rig-1"), fits: false, reasons, price_per_hour: Some(Micro(62_000)) }
}

fn load() -> HostLoad {
    HostLoad { cpu_permille: Some(250), memory_used_bytes: 1, memory_total_bytes: 2, disk_free_bytes: 3 }
}

fn known() -> KnownTypes {
    list(vec![1, 2, 255])
}

fn bytes<const MAX: usize>(bytes: &'static [u8]) -> Chunk<MAX> {
    Chunk::new(bytes).expect("fits")
}

fn identity() -> Identity {
    Identity { id: IdentityId([0x88; 16]), role: Role::Client, name: name("alice"), account: account("alice") }
}

fn renew() -> RenewRequest {
    RenewRequest { request: bytes(b"request"), proof: bytes(b"proof") }
}

fn renewed() -> Renewed {
    Renewed { chain: list(vec![bytes(b"leaf"), bytes(b"issuer")]) }
}

fn identity_view() -> IdentityView {
    let certificate = CertificateView {
        serial: CertificateSerial([0x99; 16]),
        issued_at: WALL,
        expires_at: WallTime(WALL.0 + 86_400_000),
        renews_at: WallTime(WALL.0 + 57_000_000),
        used: true,
    };
    IdentityView {
        identity: identity(),
        state: IdentityState::Active,
        joined_at: WALL,
        certificates: list(vec![certificate]),
        renewals: 300,
        connections: 2,
        revoked_at: Some(WALL),
        why: text("sold"),
    }
}

fn token_view() -> TokenView {
    TokenView {
        id: TOKEN,
        role: Role::Node,
        name: Some(name("rig-1")),
        account: Some(account("alice")),
        issued_by: Some(name("alice")),
        issued_at: WALL,
        expires_at: WallTime(WALL.0 + 900_000),
        state: TokenState::Bound,
        identity: Some(name("rig-1")),
        from: Some(text("rig (linux) at 192.0.2.1")),
        alarms: list(vec![text("tried with another key from 192.0.2.2")]),
    }
}

pub(crate) fn from_joiner() -> Vec<FromJoiner> {
    let request = JoinRequest {
        role: Role::Node,
        request: bytes(b"request"),
        proof: bytes(b"proof"),
        name: Some(name("rig-1")),
        host: text("rig"),
        system: text("linux x86_64"),
    };
    vec![JoinHello { types: known(), version: text("0.1.0"), token: TOKEN, wall: WALL }.into(), request.into()]
}

pub(crate) fn to_joiner() -> Vec<ToJoiner> {
    let accept = JoinAccept {
        identity: identity(),
        chain: renewed().chain,
        pool: name("lab"),
        journal: JOURNAL,
        main_port: 7443,
        main_host: Some(text("pool.example")),
        existing: true,
    };
    let refused =
        JoinRefused { code: JoinRefusal::TokenUsed, message: text("it was used"), hint: text("ask for another") };
    vec![JoinChallenge { nonce: [0xaa; 32], wall: WALL }.into(), accept.into(), refused.into()]
}

pub(crate) fn from_agent() -> Vec<FromAgent> {
    let hello = AgentHello {
        types: known(),
        instance: InstanceId([0x66; 16]),
        boot: BootId([0x77; 16]),
        highest_fence: Some(claim()),
        journal: Some(JOURNAL),
        inventory: list(vec![InventoryItem { attempt: ATTEMPT, fence: FENCE, state: ItemState::Running }]),
        offer: offer(),
        wall: WALL,
    };
    let body =
        ReportBody::Ended { ending: Ending::Trapped { message: text("unreachable") }, usage: USAGE, output: LENGTHS };
    vec![
        hello.into(),
        Report { attempt: ATTEMPT, fence: FENCE, body }.into(),
        OfferChanged { offer: offer() }.into(),
        ProbeAnswer { number: 3 }.into(),
        Heartbeat {
            number: 9,
            sent: Timestamp(5_000_000),
            rtt: Some(Span(900)),
            load: load(),
            gpus: list(vec![tick()]),
        }
        .into(),
        AttemptOpen { attempt: ATTEMPT, fence: FENCE, input_from: Some(300) }.into(),
        OutputChunk { stream: OutputStream::Err, offset: 300, at: WALL, data: data(b"warning\n") }.into(),
        OutputEnd { stdout: 1, stderr: 300, dropped: 70_000 }.into(),
        BlobGet { attempt: ATTEMPT, fence: FENCE, digest: Digest([0x44; 32]) }.into(),
        renew().into(),
    ]
}

pub(crate) fn to_agent() -> Vec<ToAgent> {
    let welcome = AgentWelcome {
        types: known(),
        version: text("0.1.0"),
        journal: JOURNAL,
        heartbeat: Span::from_secs(5),
        lease: Span::from_secs(30),
        streams_max: 24,
        wall: WALL,
    };
    let assignment = Assignment {
        attempt: ATTEMPT,
        claim: claim(),
        spec: spec(),
        reservation: reservation(),
        tariff: tariff(),
        run_limit: Span::from_secs(600),
        run_limit_reason: Reason::TimeLimit,
        image: Some(text("alpine@sha256:00")),
        output_tokens_max: Some(70_000),
    };
    let stop = Stop { attempt: ATTEMPT, fence: FENCE, grace: Span::from_secs(10), cause: StopCause::Superseded };
    vec![
        welcome.into(),
        Reconcile { verdicts: list(vec![(ATTEMPT, FENCE, Verdict::SendResult)]) }.into(),
        assignment.into(),
        stop.into(),
        ReportAck { attempt: ATTEMPT, fence: FENCE }.into(),
        GoAway { after: Span::from_secs(2), why: text("restart") }.into(),
        Probe { number: 3 }.into(),
        HeartbeatEcho { number: 9, sent: Timestamp(5_000_000) }.into(),
        AttemptResume { stdout: 1, stderr: 300 }.into(),
        OutputAck { stdout: 1, stderr: 300 }.into(),
        InputChunk { offset: 300, data: data(b"hi\n") }.into(),
        InputEnd { offset: 303 }.into(),
        BlobHead { bytes: 512 }.into(),
        BlobChunk { data: data(b"(module)") }.into(),
        renewed().into(),
        StreamRefused { why: text("not your attempt"), retryable: true }.into(),
    ]
}

pub(crate) fn from_console() -> Vec<FromConsole> {
    let jobs = JobsQuery {
        states: list(vec![JobState::Running, JobState::TimedOut]),
        ended: true,
        account: Some(account("alice")),
        labels: list(vec![(text("sweep"), text("1"))]),
        prefix: text("pri"),
        since: Some(WALL),
        limit: 100,
        after: Some(JOB),
    };
    let ledger = LedgerQuery {
        account: Some(account("alice")),
        since: Some(WALL),
        kind: Some(LedgerKind::Settle),
        job: Some(text("j-111")),
        limit: 100,
        before: Some(70_000),
    };
    let events = EventsOpen {
        after: Some(70_000),
        since: Some(WALL),
        kind: Some(EventKind::Node),
        job: Some(text("j-111")),
        node: Some(name("rig-1")),
        follow: true,
    };
    let logs = LogsOpen {
        job: text("j-111"),
        follow: true,
        from: Some(LogCursor { attempt: 2, records: 300 }),
        since: Some(WALL),
    };
    let token = TokenCreate {
        token: TOKEN,
        verifier: [0xbb; 32],
        role: Role::Node,
        name: Some(name("rig-1")),
        account: Some(account("alice")),
        rejoin: true,
        ttl: Span::from_secs(900),
    };
    let key: SubmitKey = "key-1".parse().expect("a key");
    let credit = Credit { account: account("alice"), amount: Micro(1_000_000), key: key.clone(), why: text("gift") };
    vec![
        ConsoleHello { types: known(), version: text("0.1.0"), wall: WALL }.into(),
        Submit { key, spec: spec(), no_queue: true }.into(),
        QuoteRequest { spec: spec() }.into(),
        Cancel { job: text("j-111"), grace: Span::from_secs(10), why: text("enough") }.into(),
        jobs.into(),
        JobQuery { job: text("primes") }.into(),
        ExplainQuery { job: text("primes") }.into(),
        NodesQuery { limit: 100, after: Some(name("rig-1")) }.into(),
        AccountQuery { account: Some(account("alice")) }.into(),
        ledger.into(),
        events.into(),
        StatusQuery { detail: false }.into(),
        credit.into(),
        logs.into(),
        StateOpen { job: Some(text("j-111")), resume: Some((JOURNAL, 70_000)) }.into(),
        BlobPut { digest: Digest([0x44; 32]), bytes: 512 }.into(),
        BlobPiece { data: data(b"(module)") }.into(),
        InputOpen { job: text("j-111") }.into(),
        InputPiece { offset: 300, data: data(b"hi\n") }.into(),
        InputDone { offset: 303 }.into(),
        renew().into(),
        WhoamiQuery { detail: false }.into(),
        IdentitiesQuery { role: Some(Role::Node), revoked: true, limit: 100, after: Some(name("rig-1")) }.into(),
        Revoke { identity: text("node/rig-1"), why: text("sold") }.into(),
        token.into(),
        TokensQuery { ended: true }.into(),
        TokenRevoke { token: TOKEN }.into(),
        LinkQuery { detail: false }.into(),
        NodeSet {
            node: name("rig-1"),
            wish: NodeWish::Drain { within: Some(Span::from_secs(600)) },
            why: text("new disks"),
        }
        .into(),
        NodeQuery { node: name("rig-1") }.into(),
        SpecQuery { job: text("primes") }.into(),
        BlobFetch { digest: Digest([0x44; 32]) }.into(),
    ]
}

pub(crate) fn to_console() -> Vec<ToConsole> {
    let welcome = ConsoleWelcome {
        types: known(),
        version: text("0.1.0"),
        pool: name("lab"),
        identity: identity(),
        journal: JOURNAL,
        asset: Asset::Usdc,
        streams_max: 32,
        wall: WALL,
    };
    let quote = QuoteView {
        hold: Micro(100_000),
        available: Micro(900_000),
        affordable: true,
        offers: list(vec![OfferView {
            node: name("rig-1"),
            price_per_hour: Micro(62_000),
            minimum: Micro(1_000),
            run_limit: Span::from_secs(5_806),
            budget_bound: true,
            million_prompt_tokens: Some(Micro(100_000)),
            million_output_tokens: Some(Micro(400_000)),
            model: Some(ModelPlace::Pull),
        }]),
        refusals: list(vec![node_verdict()]),
        fee_basis_points: 500,
    };
    let explanation = ExplanationView {
        job: job_view(),
        summary: text("waits: no node fits"),
        queue: Some(QueueView {
            ahead: 3,
            ahead_own: 1,
            priority: 7,
            counts_as: -1,
            starts_within: Some(Span::from_secs(600)),
        }),
        nodes: list(vec![node_verdict()]),
    };
    let entry = LedgerEntryView {
        number: 70_000,
        at: WALL,
        kind: LedgerKind::Settle,
        amount: -2_100,
        balance: Micro(997_900),
        job: Some(JOB),
        text: text("primes"),
    };
    let status = StatusView {
        version: text("0.1.0"),
        uptime: Span::from_secs(60),
        at: WALL,
        nodes: list(vec![(NodeState::Ready, 42), (NodeState::Lost, 1)]),
        jobs: list(vec![(JobState::Queued, 300)]),
        oldest_queued: Some(Span::from_secs(720)),
        gpus: 96,
        gpus_reserved: 69,
        gpus_busy_pct: Some(71),
        account: Some(account_view()),
        problems: list(vec![text("node oslo-02 is lost")]),
    };
    let snapshot = StateSnapshot {
        journal: JOURNAL,
        upto: 70_001,
        jobs: list(vec![job_view()]),
        nodes: list(vec![node_view()]),
        account: Some(account_view()),
        last: true,
    };
    let delta = StateDelta {
        prev: 70_000,
        upto: 70_001,
        jobs: list(vec![job_view()]),
        nodes: list(vec![node_view()]),
        gone: list(vec![name("rig-2")]),
        account: Some(account_view()),
        events: list(vec![event_view()]),
    };
    let chunk = LogChunk {
        cursor: LogCursor { attempt: 2, records: 301 },
        stream: OutputStream::Note,
        offset: 300,
        at: WALL,
        data: data(b"attempt 2\n"),
    };
    let revoked = RevokedView {
        identity: identity_view(),
        connections_closed: 2,
        jobs: 300,
        tokens: 1,
        took: Span::from_millis(4),
    };
    let link = LinkView {
        main: text("0.0.0.0:7443"),
        join: text("0.0.0.0:7444"),
        receive_buffer_bytes: 425_984,
        send_buffer_bytes: 425_984,
        asked_buffer_bytes: 8_388_608,
        receive_buffer_errors: Some(300),
        connections: 44,
        handshakes: 1,
        expires_at: WALL,
    };
    vec![
        welcome.into(),
        Submitted { job: JOB, state: JobState::Queued, held: Micro(100_000), existing: true }.into(),
        quote.into(),
        JobsPage { items: list(vec![job_view()]), total: 300, more: true }.into(),
        job_view().into(),
        explanation.into(),
        NodesPage { items: list(vec![node_view()]), total: 44, more: true }.into(),
        account_view().into(),
        LedgerPage { account: account("alice"), items: list(vec![entry]), more: true }.into(),
        EventsPage { items: list(vec![event_view()]) }.into(),
        CaughtUp { upto: 70_001 }.into(),
        status.into(),
        chunk.into(),
        LogEnd { job: job_view() }.into(),
        snapshot.into(),
        delta.into(),
        BlobStored { digest: Digest([0x44; 32]), existing: true }.into(),
        InputReady { offset: 300, done: true }.into(),
        InputStored { offset: 303, done: true }.into(),
        GoingAway { after: Span::from_secs(2) }.into(),
        renewed().into(),
        identity_view().into(),
        IdentitiesPage { items: list(vec![identity_view()]), total: 300, more: true }.into(),
        revoked.into(),
        token_view().into(),
        TokensPage { items: list(vec![token_view()]), total: 300 }.into(),
        link.into(),
        ToConsole::NodeIs(node_view()),
        NodeHistoryView {
            node: node_view(),
            ticks: list(vec![GpuTickView { at: WALL, gpus: list(vec![gpu_sample()]) }]),
        }
        .into(),
        SpecView { job: JOB, spec: spec() }.into(),
        BlobHead { bytes: 512 }.into(),
        BlobChunk { data: data(b"(module)") }.into(),
        Refusal { code: RefusalCode::NoFit, message: text("no node fits"), hint: text("ask for less") }.into(),
    ]
}
