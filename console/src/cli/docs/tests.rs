//! Golden files pin the documents: `MODCHAIN_GOLDEN=write cargo test -p modchain` writes them anew. Within v1 a difference
//! may only be a new field.

use std::path::Path;

use modchain_types::*;
use modchain_wire::agent::{GpuSample, HostLoad};
use modchain_wire::console::{ConsoleWelcome, Submitted};
use modchain_wire::view::*;
use serde_json::Value;

use super::about::CertificateDoc;
use super::*;
use crate::cli::yaml;

fn golden(name: &str, document: &impl Serialize) {
    let text = serde_json::to_string_pretty(document).expect("JSON") + "\n";
    golden_text(&format!("{name}.json"), &text);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let yaml = crate::cli::yaml::document(document).expect("YAML");
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).expect(&yaml), value, "the same in YAML");
    let schema = value["schema"].as_str().expect("a schema");
    assert!(schema.starts_with("modchain.") && schema.ends_with("/v1"), "{schema}");
    assert!(text.trim_start_matches(['{', '\n', ' ']).starts_with("\"schema\""), "the schema comes first");
    listed(schema, &value);
}

/// A text that must stay as it is in its golden file.
pub(crate) fn golden_text(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("MODCHAIN_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).expect("writes the golden file");
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, pinned, "{} differs", path.display());
}

/// Every field of the document stands in its schema file.
fn listed(schema: &str, value: &Value) {
    let file = schema.trim_start_matches("modchain.").replace('/', "-") + ".txt";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
    let mut fields = std::collections::BTreeSet::new();
    collect("", value, &mut fields);
    let text = fields.into_iter().map(|field| field + "\n").collect::<String>();
    if std::env::var_os("MODCHAIN_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &text).expect("writes the schema file");
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{} differs", path.display());
}

fn collect(prefix: &str, value: &Value, fields: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                collect(&format!("{prefix}.{name}"), value, fields);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(&format!("{prefix}[]"), item, fields)),
        Value::Null => drop(fields.insert(format!("{prefix}: any or null"))),
        Value::Bool(_) => drop(fields.insert(format!("{prefix}: true or false"))),
        Value::Number(number) => {
            let kind = if number.is_f64() { "number" } else { "integer" };
            fields.insert(format!("{prefix}: {kind}"));
        }
        Value::String(_) => drop(fields.insert(format!("{prefix}: string"))),
    }
}

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).expect("fits")
}

fn labels() -> BTreeMap<Text<64>, Text<256>> {
    BTreeMap::from([(text("sweep"), text("a"))])
}

fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

const JOB: JobId = JobId([7; 16]);
const GPU_SAMPLE: GpuSample = GpuSample {
    busy_pct: Some(92),
    memory_used_bytes: Some(78 << 30),
    temperature_c: Some(75),
    power_mw: Some(397_600),
};
const AT: WallTime = WallTime(1_795_356_201_114);

pub(crate) fn ended_job() -> JobView {
    JobView {
        id: JOB,
        name: text("primes"),
        account: "alice".parse().expect("an account"),
        adapter: Adapter::Wasm,
        what: text("primes.wat 1000"),
        state: JobState::Failed,
        reason: Some(Reason::Exit),
        exit: Some(Exit::job(3)),
        message: text(""),
        node: Some(name("zurich-01")),
        attempts: List::new(vec![AttemptView {
            number: 2,
            node: name("zurich-01"),
            fence: Fence(9),
            state: JobState::Failed,
            reason: Some(Reason::Exit),
            message: text("said so"),
            assigned_at: AT,
            started_at: Some(AT),
            ended_at: Some(AT.plus(Span::from_secs(2))),
        }])
        .expect("fits"),
        hold: Micro(100_000),
        cost: Micro(1_000),
        fee: Micro(50),
        refund: Micro(99_000),
        price_per_hour: Some(Micro(31_000)),
        labels: Map::new(labels()).expect("fits"),
        run_limit: Some(Span::from_secs(600)),
        time_limit: None,
        attempts_max: 3,
        usage: Usage {
            ran: Span::from_millis(1_987),
            prompt_tokens: 0,
            output_tokens: 0,
            fuel: 12_345,
            ..Usage::default()
        },
        output: OutputLengths { stdout: 10, stderr: 0, dropped: 0 },
        preparing: text(""),
        image: None,
        model: None,
        gpus: List::default(),
        created_at: AT,
        started_at: Some(AT),
        ended_at: Some(AT.plus(Span::from_secs(2))),
    }
}

pub(crate) fn node_view() -> NodeView {
    NodeView {
        id: NodeId([1; 16]),
        name: name("zurich-01"),
        account: "owner".parse().expect("an account"),
        state: NodeState::Ready,
        offer: Some(Offer {
            capabilities: Capabilities {
                adapters: List::new(vec![Adapter::Wasm]).expect("fits"),
                cpu_milli: 8_000,
                memory_bytes: 16 << 30,
                disk_bytes: 1 << 40,
                slots: 8,
                gpus: List::new(vec![GpuInfo {
                    uuid: text("GPU-1"),
                    vendor: text("nvidia"),
                    model: text("H100"),
                    memory_bytes: 80 << 30,
                    driver: Text::cut("570.1"),
                    compute: Text::cut("9.0"),
                }])
                .expect("fits"),
                models: List::new(vec![ModelInfo {
                    name: text("smollm2:135m"),
                    digest: text("9077fe9d2ae1a4a41a868836b56b8163731a8fe16621397028c2c76f838c6907"),
                    bytes: 270_898_672,
                    warm: true,
                }])
                .expect("fits"),
                pullable: List::new(vec![text("smollm2:*")]).expect("fits"),
                exceptions: Exceptions::default(),
                container_gpus: false,
                labels: Map::new(BTreeMap::from([(text("pool"), text("cpu"))])).expect("fits"),
                region: text(""),
            },
            tariff: Tariff {
                core_hour: Micro(30_000),
                gib_hour: Micro(4_000),
                gpu_hour: Map::new(BTreeMap::from([(text("*"), Micro(1_200_000))])).expect("fits"),
                minimum: Micro(1_000),
                ..Tariff::default()
            },
            agent_version: text("0.1.0"),
            paused: false,
            images: List::default(),
        }),
        reserved: Reservation { cpu_milli: 1_000, ..Reservation::default() },
        attempts: 1,
        load: Some(HostLoad {
            cpu_permille: Some(125),
            memory_used_bytes: 1 << 30,
            memory_total_bytes: 16 << 30,
            disk_free_bytes: 1 << 40,
        }),
        rtt: Some(Span::from_millis(9)),
        seen_at: Some(AT),
        connected_at: None,
        gpus: List::new(vec![GPU_SAMPLE]).expect("fits"),
        drains_at: Some(AT.plus(Span::from_secs(600))),
    }
}

fn account_view() -> AccountView {
    AccountView {
        id: "alice".parse().expect("an account"),
        available: Micro(412_700_000),
        held: Micro(63_100_000),
        earned: Micro::ZERO,
        open_jobs: 24,
        burn_per_hour: Micro(6_020_000),
    }
}

fn verdict_view() -> NodeVerdictView {
    NodeVerdictView {
        node: name("oslo-02"),
        fits: false,
        reasons: List::new(vec![text("needs 2 cores, 1 is free")]).expect("fits"),
        price_per_hour: None,
    }
}

#[test]
fn a_job_keeps_its_form() {
    golden("job", &job(&ended_job(), Asset::Test));
    let queued = JobView {
        name: text(""),
        state: JobState::Queued,
        reason: None,
        exit: None,
        node: None,
        attempts: List::default(),
        price_per_hour: None,
        started_at: None,
        ended_at: None,
        ..ended_job()
    };
    let queued = serde_json::to_value(job(&queued, Asset::Usdc)).expect("JSON");
    for field in ["name", "reason", "exit", "node", "price_per_hour", "started_at", "ended_at"] {
        assert_eq!(queued[field], Value::Null, "{field}: what is not known is null");
    }
    assert_eq!(queued["hold"]["currency"], "USDC");
}

#[test]
fn containers_and_language_models_show_what_they_hold_and_took() {
    let asked = JobView {
        adapter: Adapter::Llm,
        model: Some(text("smollm2:135m")),
        image: Some(text("alpine@sha256:00")),
        preparing: text("loading the model"),
        gpus: List::new(vec![(text("GPU-1"), text("H100"))]).expect("fits"),
        usage: Usage {
            ran: Span::from_secs(4),
            prompt_tokens: 31,
            output_tokens: 55,
            load: Span::from_millis(900),
            first_token: Span::from_millis(120),
            generating: Span::from_millis(3_880),
            ..Usage::default()
        },
        ..ended_job()
    };
    let of = |view: &JobView| serde_json::to_value(job(view, Asset::Test)).expect("JSON");
    let document = of(&asked);
    assert_eq!((&document["model"], &document["image"]), (&"smollm2:135m".into(), &"alpine@sha256:00".into()));
    assert_eq!(document["preparing"], "loading the model");
    assert_eq!(document["gpus"], serde_json::json!([{"uuid": "GPU-1", "model": "H100"}]));
    assert_eq!(
        document["usage"],
        serde_json::json!({"ran_ms": 4000, "prompt_tokens": 31, "output_tokens": 55, "fuel": 0, "load_ms": 900,
            "first_token_ms": 120, "generating_ms": 3880, "tokens_per_s": 14.1})
    );
    let embedded = Usage { output_tokens: 0, first_token: Span::ZERO, generating: Span::ZERO, ..asked.usage };
    let document = of(&JobView { usage: embedded, ..asked.clone() });
    assert_eq!((&document["usage"]["load_ms"], &document["usage"]["prompt_tokens"]), (&900.into(), &31.into()));
    for field in ["first_token_ms", "generating_ms", "tokens_per_s"] {
        assert_eq!(document["usage"][field], Value::Null, "{field}: no token was made");
    }
    let document = of(&JobView { usage: Usage::default(), ..asked });
    assert_eq!(document["usage"]["load_ms"], Value::Null, "it has not answered");
}

#[test]
fn lists_and_answers_keep_their_form() {
    let items = vec![job(&ended_job(), Asset::Test)];
    golden("jobs", &ListDoc { schema: "modchain.jobs/v1", items, total: Some(1) });
    let made = Submitted { job: JOB, state: JobState::Queued, held: Micro(2_000_000), existing: false };
    golden("submitted", &submitted(&made, "key-1", Asset::Test));
    golden("cancelled", &cancelled(&ended_job(), Asset::Test));
    golden("log_end", &log_end(&ended_job(), Asset::Test));
    let item = |offset| serde_json::to_string(&log(&JOB, 1, offset, AT, "out", b"line\n")).expect("JSON");
    let end = logs_end(&log_end(&ended_job(), Asset::Test), false).expect("JSON");
    let whole = format!("{}{},{}{end}", logs_begin(&JOB, false), item(0), item(5));
    let whole: Value = serde_json::from_str(&whole).expect("one document");
    listed("modchain.logs/v1", &whole);
    let item = |offset| yaml::item(&log(&JOB, 1, offset, AT, "out", b"line\n")).expect("YAML");
    let end = logs_end(&log_end(&ended_job(), Asset::Test), true).expect("YAML");
    let pieces = format!("{}{}{}{end}", logs_begin(&JOB, true), item(0), item(5));
    assert_eq!(serde_saphyr::from_str::<Value>(&pieces).expect(&pieces), whole, "the same in YAML");
    golden("log", &log(&JOB, 1, 81_284, AT, "out", b"eval 12/57\n"));
    let bytes = serde_json::to_value(log(&JOB, 1, 0, AT, "err", b"\xff")).expect("JSON");
    assert_eq!((bytes["bytes"].as_str(), bytes.get("text")), (Some("/w=="), None));
}

#[test]
fn the_pool_keeps_its_form() {
    let ticks = vec![GpuTickView { at: AT, gpus: List::new(vec![GPU_SAMPLE]).expect("fits") }];
    let history = NodeHistoryView { node: node_view(), ticks: List::new(ticks).expect("fits") };
    golden("node", &node_history(&history, Asset::Test));
    let listed = serde_json::to_value(node(&node_view(), Asset::Test)).expect("JSON");
    assert_eq!(listed["history"], serde_json::Value::Null, "only `node show` tells it");
    golden("node_change", &node_change("change", &node_view(), Asset::Test));
    golden("job_change", &job_change("remove", &ended_job(), Asset::Test));
    let mut blind = node_view();
    blind.gpus = List::default();
    let told = serde_json::to_value(node(&blind, Asset::Test)).expect("JSON");
    for field in ["busy_pct", "vram_used", "temp_c", "power_w"] {
        assert_eq!(told["gpus"][0][field], serde_json::Value::Null, "{field} is not known, and not zero");
    }
    let view = StatusView {
        version: text("0.1.0"),
        uptime: Span::from_secs(60),
        at: AT,
        nodes: List::new(vec![(NodeState::Ready, 2), (NodeState::Lost, 1)]).expect("fits"),
        jobs: List::new(vec![(JobState::Queued, 6)]).expect("fits"),
        oldest_queued: Some(Span::from_secs(720)),
        gpus: 4,
        gpus_reserved: 1,
        gpus_busy_pct: Some(71),
        account: Some(account_view()),
        problems: List::new(vec![text("node oslo-02 is lost")]).expect("fits"),
    };
    golden("status", &status(&view, "orch:7443", Some(Span::from_millis(14)), Asset::Test));
    golden("status_change", &status_change("add", &view, "orch:7443", Asset::Test));
}

pub(crate) fn ledger_entry_view() -> LedgerEntryView {
    LedgerEntryView {
        number: 12,
        at: AT,
        kind: LedgerKind::Hold,
        amount: -2_000_000,
        balance: Micro(98_000_000),
        job: Some(JOB),
        text: text(""),
    }
}

#[test]
fn money_keeps_its_form() {
    golden("account", &account(&account_view(), Asset::Test));
    golden("account_change", &account_change("change", &account_view(), Asset::Test));
    let items = vec![ledger_entry(&ledger_entry_view(), Asset::Test)];
    golden("ledger", &LedgerDoc { schema: "modchain.ledger/v1", account: "alice".into(), items });
    golden("ledger_entry", &ledger_entry(&ledger_entry_view(), Asset::Test));
}

pub(crate) fn event_view() -> EventView {
    EventView {
        number: 88_214,
        at: AT,
        kind: EventKind::Job,
        job: Some(JOB),
        attempt: Some(AttemptId { job: JOB, number: 1 }),
        node: Some(name("zurich-01")),
        account: None,
        from: Some(JobState::Assigned),
        to: Some(JobState::Running),
        reason: None,
        text: text("runs on zurich-01"),
    }
}

#[test]
fn events_explanations_and_quotes_keep_their_form() {
    golden("event", &event(&event_view()));
    golden("events", &ListDoc { schema: "modchain.events/v1", items: vec![event(&event_view())], total: None });
    let why = ExplanationView {
        job: ended_job(),
        summary: text("no node fits"),
        queue: Some(QueueView {
            ahead: 2,
            ahead_own: 1,
            priority: 5,
            counts_as: 0,
            starts_within: Some(Span::from_secs(90)),
        }),
        nodes: List::new(vec![verdict_view()]).expect("fits"),
    };
    golden("explanation", &explanation(&why, Asset::Test));
    let view = QuoteView {
        hold: Micro(2_000_000),
        available: Micro(98_000_000),
        affordable: true,
        offers: List::new(vec![OfferView {
            node: name("zurich-01"),
            price_per_hour: Micro(31_000),
            minimum: Micro(1_000),
            run_limit: Span::from_secs(600),
            budget_bound: true,
            million_prompt_tokens: None,
            million_output_tokens: None,
            model: None,
        }])
        .expect("fits"),
        refusals: List::new(vec![verdict_view()]).expect("fits"),
        fee_basis_points: 500,
    };
    let of = JobSpec {
        name: text("primes"),
        body: TaskBody::Inline(Task::Wasm(WasmTask {
            module: Digest([0xab; 32]),
            module_bytes: 8,
            module_name: text("primes.wat"),
            args: List::new(vec![text("1000")]).expect("fits"),
            env: Map::new(BTreeMap::from([(text("A"), text("1"))])).expect("fits"),
        })),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1_000,
            memory_bytes: 256 << 20,
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
        max_cost: Micro(2_000_000),
        priority: 0,
        labels: Map::new(labels()).expect("fits"),
        input: Input::None,
        policy: Policy::Cheapest,
    };
    golden("quote", &quote(&view, Some(&of), Asset::Test));
    let request = LlmRequest::Generate { prompt: "hi".into(), system: None };
    golden("spec", &job_spec(JOB, &of, Some(request), Asset::Test));
    kinds_of_specifications(&view, of);
    assert_eq!((percent(500), percent(250), percent(5)), ("5".into(), "2.5".into(), "0.05".into()));
}

#[test]
fn the_program_about_itself_keeps_its_form() {
    let welcome = ConsoleWelcome {
        types: List::default(),
        version: text("0.1.0"),
        pool: name("lab"),
        identity: Identity {
            id: IdentityId([2; 16]),
            role: Role::Client,
            name: name("alice"),
            account: "alice".parse().expect("an account"),
        },
        journal: JournalId([3; 16]),
        asset: Asset::Test,
        streams_max: 32,
        wall: AT,
    };
    let certificate = || CertificateDoc {
        expires_at: time(AT.plus(Span::from_secs(86_400))),
        renews_at: time(AT.plus(Span::from_secs(57_600))),
        renewals: Some(3),
        serial: "0f".repeat(16),
        trust_domain: "mzxw6ytboi2dgnbv.modchain".into(),
    };
    golden("whoami", &whoami(&welcome, "local", "127.0.0.1:7443", certificate()));
    let version =
        version(Some(ServerVersionDoc { addr: "orch:7443".into(), version: "0.1.0".into(), pool: "lab".into() }));
    let mut version = serde_json::to_value(version).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    version["version"] = "X".into();
    assert_eq!(version["schema"], "modchain.version/v1");
    assert_eq!((&version["program"], version["wire"].as_u64()), (&"modchain".into(), Some(1)));
    let one = || ContextDoc {
        schema: "modchain.context/v1",
        name: "local".into(),
        orchestrator: "127.0.0.1:7443".into(),
        pool: Some("lab".into()),
        identity: "/id".into(),
        current: true,
        join: Some("127.0.0.1:7444".into()),
        role: Some("client"),
        trust_domain: Some(certificate().trust_domain),
        expires_at: Some(certificate().expires_at),
        renews_at: Some(certificate().renews_at),
    };
    golden("context", &one());
    golden("contexts", &ListDoc { schema: "modchain.contexts/v1", items: vec![one()], total: Some(1) });
    let up = UpDoc {
        schema: "modchain.up/v1",
        orchestrator: "127.0.0.1:7443".into(),
        data: "/data".into(),
        contexts: vec!["local".into()],
        nodes: vec!["local-1".into()],
        pid: 1,
    };
    golden("up", &up);
    let settings =
        vec![SettingDoc { key: "utc", value: Some("true".into()) }, SettingDoc { key: "theme", value: None }];
    golden("config", &ConfigDoc { schema: "modchain.config/v1", path: "/config.toml".into(), settings });
    let check = |status, hint: Option<&str>| CheckDoc {
        name: "clock",
        status,
        detail: "is 1m00s behind the orchestrator's".into(),
        hint: hint.map(str::to_owned),
    };
    let checks = vec![check("warn", Some("set the clock"))];
    golden("doctor", &DoctorDoc { schema: "modchain.doctor/v1", checks, ok: true });
}

pub(crate) fn identity_view() -> IdentityView {
    IdentityView {
        identity: Identity {
            id: IdentityId([2; 16]),
            role: Role::Node,
            name: name("rig-1"),
            account: "alice".parse().expect("an account"),
        },
        state: IdentityState::Active,
        joined_at: AT,
        certificates: List::new(vec![CertificateView {
            serial: CertificateSerial([0x0f; 16]),
            issued_at: AT,
            expires_at: AT.plus(Span::from_secs(86_400)),
            renews_at: AT.plus(Span::from_secs(57_600)),
            used: true,
        }])
        .expect("fits"),
        renewals: 3,
        connections: 1,
        revoked_at: None,
        why: text(""),
    }
}

pub(crate) fn token_view() -> TokenView {
    TokenView {
        id: TokenId(*b"fooba"),
        role: Role::Node,
        name: Some(name("rig-1")),
        account: Some("alice".parse().expect("an account")),
        issued_by: Some(name("alice")),
        issued_at: AT,
        expires_at: AT.plus(Span::from_secs(900)),
        state: TokenState::Spent,
        identity: Some(name("rig-1")),
        from: Some(text("rig-1 at 192.0.2.7")),
        alarms: List::new(vec![text("a second key asked with it")]).expect("fits"),
    }
}

#[test]
fn who_is_in_and_how_keeps_its_form() {
    golden("cert", &cert(&identity_view()));
    golden("certs", &ListDoc { schema: "modchain.certs/v1", items: vec![cert(&identity_view())], total: Some(1) });
    let gone = IdentityView {
        state: IdentityState::Revoked,
        certificates: List::default(),
        connections: 0,
        revoked_at: Some(AT),
        why: text("sold"),
        ..identity_view()
    };
    let ended = serde_json::to_value(cert(&gone)).expect("JSON");
    for field in ["serial", "issued_at", "expires_at", "renews_at", "used"] {
        assert_eq!(ended[field], Value::Null, "{field}: there is no certificate to tell of");
    }
    let view =
        RevokedView { identity: gone, connections_closed: 1, jobs: 2, tokens: 0, took: Span::from_micros(3_100) };
    golden("revoked", &revoked(&view));
    golden("token", &token(&token_view(), Some("MCJ1-n-the-text")));
    golden(
        "tokens",
        &ListDoc { schema: "modchain.tokens/v1", items: vec![token(&token_view(), None)], total: Some(1) },
    );
    let listed = serde_json::to_value(token(&token_view(), None)).expect("JSON");
    assert!(listed.get("token").is_none(), "nobody but its maker ever sees the text");
    let joined = JoinedDoc {
        schema: "modchain.joined/v1",
        name: "alice".into(),
        role: "client",
        account: "alice".into(),
        pool: "lab".into(),
        context: "alice".into(),
        orchestrator: "orch:7443".into(),
        identity: "/identities/alice".into(),
        expires_at: time(AT),
        renews_at: time(AT),
        trust_domain: "mzxw6ytboi2dgnbv.modchain".into(),
    };
    golden("joined", &joined);
}

/// What a container and a question look like in a quote.
fn kinds_of_specifications(view: &QuoteView, mut of: JobSpec) {
    of.requirements.exceptions = Exceptions { writable_root: false, network: true };
    of.requirements.gpus = GpuRequest { count: 2, memory_bytes_min: 40 << 30, model: Some(text("H100")) };
    of.requirements.adapter = Adapter::Docker;
    of.body = TaskBody::Inline(Task::Docker(DockerTask {
        image: text("alpine:3"),
        command: List::new(vec![text("ls"), text("-l")]).expect("fits"),
        entrypoint: Some(List::default()),
        env: Map::new(BTreeMap::from([(text("A"), text("1"))])).expect("fits"),
        workdir: Some(text("/srv")),
        tmp_bytes: 1 << 20,
        pids_max: 64,
        pull_timeout: Span::from_secs(60),
    }));
    let document = serde_json::to_value(quote(view, Some(&of), Asset::Test)).expect("JSON");
    let (spec, offer) = (&document["spec"], &document["offers"][0]);
    let container = serde_json::json!({"image": "alpine:3", "entrypoint": [], "command": ["ls", "-l"], "env": {"A": "1"},
        "workdir": "/srv", "tmp_bytes": 1 << 20, "pids_max": 64, "pull_timeout_ms": 60_000, "writable_root": false,
        "network": true});
    assert_eq!((&spec["type"], &spec["container"], &spec["module"]), (&"docker".into(), &container, &Value::Null));
    assert_eq!(spec["gpus"], serde_json::json!({"count": 2, "memory_bytes_min": 40u64 << 30, "model": "H100"}));
    assert_eq!(offer["million_prompt_tokens"], Value::Null);

    of.requirements.adapter = Adapter::Llm;
    of.body = TaskBody::Inline(Task::Llm(LlmTask {
        model: text("smollm2:135m"),
        request: Digest([0xab; 32]),
        request_bytes: 8,
        kind: LlmKind::Chat,
        temperature_milli: Some(700),
        max_tokens: Some(9),
        seed: None,
        json: false,
    }));
    let mut view = view.clone();
    let offer = OfferView {
        million_prompt_tokens: Some(Micro(100_000)),
        million_output_tokens: Some(Micro(400_000)),
        model: Some(ModelPlace::Warm),
        ..view.offers[0].clone()
    };
    view.offers = List::new(vec![offer]).expect("fits");
    let document = serde_json::to_value(quote(&view, Some(&of), Asset::Test)).expect("JSON");
    let (spec, offer) = (&document["spec"], &document["offers"][0]);
    let llm = serde_json::json!({"model": "smollm2:135m", "kind": "chat", "request_digest": "ab".repeat(32),
        "request_bytes": 8, "temperature": 0.7, "max_tokens": 9, "seed": null, "json": false});
    assert_eq!((&spec["type"], &spec["llm"], &spec["container"]), (&"llm".into(), &llm, &Value::Null));
    assert_eq!((&offer["model"], &offer["million_output_tokens"]["micro"]), (&"warm".into(), &400_000.into()));
}
