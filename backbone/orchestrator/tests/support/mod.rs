//! Sample events, one or more of every kind, and small helpers.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use modchain_core::membership::{Certificate, TokenEnd, TokenGrant};
use modchain_core::{Event, EventBody, Outcome, Settlement};
use modchain_orchestrator::store::journal::{Disk, Journal};
use modchain_types::*;

pub const JOURNAL: JournalId = JournalId([0x5a; 16]);

pub fn text<const N: usize>(text: &str) -> Text<N> {
    Text::new(text).expect("fits")
}

pub fn wasm_task() -> Task {
    Task::Wasm(WasmTask {
        module: Digest([0xfe; 32]),
        module_bytes: 4321,
        module_name: text("primes.wat"),
        args: List::new(vec![text("--upto"), text("100")]).expect("fits"),
        env: Map::new(BTreeMap::from([(text("LANG"), text("C"))])).expect("fits"),
    })
}

/// Every kind of task but the first, with everything said and with as little as can be.
pub fn other_tasks() -> Vec<Task> {
    let docker = DockerTask {
        image: text("alpine:3"),
        command: List::new(vec![text("sh"), text("-c"), text("true")]).expect("fits"),
        entrypoint: Some(List::new(vec![text("/init")]).expect("fits")),
        env: Map::new(BTreeMap::from([(text("LANG"), text("C"))])).expect("fits"),
        workdir: Some(text("/work")),
        tmp_bytes: 1 << 28,
        pids_max: 512,
        pull_timeout: Span::from_secs(600),
    };
    let bare =
        DockerTask { command: List::default(), entrypoint: None, env: Map::default(), workdir: None, ..docker.clone() };
    let llm = |kind| {
        Task::Llm(LlmTask {
            model: text("smollm2:135m"),
            request: Digest([0xfd; 32]),
            request_bytes: 70_000,
            kind,
            temperature_milli: (kind == LlmKind::Chat).then_some(700),
            max_tokens: (kind == LlmKind::Chat).then_some(300),
            seed: (kind == LlmKind::Chat).then_some(7),
            json: kind == LlmKind::Chat,
        })
    };
    let docker = [Task::Docker(docker), Task::Docker(bare)];
    docker.into_iter().chain([LlmKind::Generate, LlmKind::Chat, LlmKind::Embed].map(llm)).collect()
}

pub fn spec(body: TaskBody) -> JobSpec {
    JobSpec {
        name: text("primes"),
        body,
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1000,
            memory_bytes: 64 << 20,
            disk_bytes: 1 << 20,
            gpus: GpuRequest { count: 1, memory_bytes_min: 8 << 30, model: Some(text("h100")) },
            labels: modchain_types::resources::Vec32::new(vec![(text("pool"), text("lab"))]).expect("fits"),
            region: Some(text("eu")),
            node: Some("rig-1".parse().expect("name")),
            price_per_hour_max: Some(Micro(2_000_000)),
            model: None,
            exceptions: Exceptions::default(),
        },
        limits: Limits {
            time_limit: Some(Span::from_secs(60)),
            start_by: Some(Span::from_secs(600)),
            on_disconnect: OnDisconnect::Stop,
            ..Limits::default()
        },
        max_cost: Micro(100_000),
        priority: -3,
        labels: Map::new(BTreeMap::from([(text("team"), text("ä"))])).expect("fits"),
        input: Input::Stream,
        policy: Policy::Cheapest,
    }
}

/// A specification that says as little as possible.
pub fn bare_spec() -> JobSpec {
    let body = TaskBody::Blob { digest: Digest([3; 32]), adapter: Adapter::Wasm };
    JobSpec {
        name: text(""),
        requirements: Requirements {
            gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
            labels: Default::default(),
            region: None,
            node: None,
            price_per_hour_max: None,
            model: None,
            exceptions: Exceptions::default(),
            ..spec(body.clone()).requirements
        },
        body,
        limits: Limits::default(),
        max_cost: Micro(1),
        priority: 0,
        labels: Map::default(),
        input: Input::None,
        policy: Policy::Cheapest,
    }
}

pub fn tariff() -> Tariff {
    Tariff {
        core_hour: Micro(10_000),
        gib_hour: Micro(1_000),
        gpu_hour: Map::new(BTreeMap::from([(text("*"), Micro(1_500_000))])).expect("fits"),
        million_prompt_tokens: Micro(1),
        million_output_tokens: Micro(2),
        minimum: Micro(1_000),
    }
}

pub fn offer() -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::new(vec![Adapter::Wasm, Adapter::Docker, Adapter::Llm, Adapter::Mcp]).expect("fits"),
            cpu_milli: 16_000,
            memory_bytes: 64 << 30,
            disk_bytes: 1 << 40,
            slots: 8,
            gpus: List::new(vec![GpuInfo {
                uuid: text("GPU-1"),
                vendor: text("nvidia"),
                model: text("NVIDIA H100 80GB HBM3"),
                memory_bytes: 80 << 30,
                driver: Text::cut("570.1"),
                compute: Text::cut("9.0"),
            }])
            .expect("fits"),
            models: List::new(vec![ModelInfo {
                name: text("smollm2:135m"),
                digest: text("ab"),
                bytes: 91_000_000,
                warm: true,
            }])
            .expect("fits"),
            pullable: List::new(vec![text("llama3*")]).expect("fits"),
            exceptions: Exceptions { writable_root: true, network: false },
            container_gpus: true,
            labels: Map::new(BTreeMap::from([(text("pool"), text("lab"))])).expect("fits"),
            region: text("eu"),
        },
        tariff: tariff(),
        agent_version: text("0.1.0"),
        paused: true,
        images: List::default(),
    }
}

pub fn endings() -> Vec<Ending> {
    let message = text("why");
    vec![
        Ending::Exited { code: 3 },
        Ending::Signalled { signal: 11 },
        Ending::Trapped { message: text("unreachable") },
        Ending::MemoryLimit,
        Ending::RunLimit,
        Ending::Stopped,
        Ending::CannotStart { fault: Fault::Job, message: message.clone() },
        Ending::CannotStart { fault: Fault::NotFound, message: message.clone() },
        Ending::CannotStart { fault: Fault::Node, message: message.clone() },
        Ending::NodeFault { message },
        Ending::LeaseEnded,
        Ending::PidsLimit { code: 2 },
        Ending::CannotStart { fault: Fault::Command, message: text("no such file") },
    ]
}

/// The name of an event's golden file. Exhaustive: a new kind of event does not compile until it has one.
pub fn kind(body: &EventBody) -> &'static str {
    match body {
        EventBody::EngineStarted { .. } => "engine_started",
        EventBody::IdentityAdded { .. } => "identity_added",
        EventBody::Deposited { .. } => "deposited",
        EventBody::JobQueued { .. } => "job_queued",
        EventBody::AttemptAssigned { .. } => "attempt_assigned",
        EventBody::AttemptStarting { .. } => "attempt_starting",
        EventBody::AttemptStarted { .. } => "attempt_started",
        EventBody::CancelRequested { .. } => "cancel_requested",
        EventBody::ResultRecorded { .. } => "result_recorded",
        EventBody::AttemptEnded { .. } => "attempt_ended",
        EventBody::JobFinished { .. } => "job_finished",
        EventBody::NodeConnected { .. } => "node_connected",
        EventBody::NodeLost { .. } => "node_lost",
        EventBody::InputFailed { .. } => "input_failed",
        EventBody::TokenCreated { .. } => "token_created",
        EventBody::MemberJoined { .. } => "member_joined",
        EventBody::TokenEnded { .. } => "token_ended",
        EventBody::TokenAlarm { .. } => "token_alarm",
        EventBody::CertificateIssued { .. } => "certificate_issued",
        EventBody::CertificateUsed { .. } => "certificate_used",
        EventBody::CertificateRetired { .. } => "certificate_retired",
        EventBody::IdentityRevoked { .. } => "identity_revoked",
        EventBody::ImagePinned { .. } => "image_pinned",
        EventBody::NodeSet { .. } => "node_set",
        EventBody::RestoreAccepted { .. } => "restore_accepted",
        EventBody::JobsForgotten { .. } => "jobs_forgotten",
    }
}

/// Every kind of event, with every variant that one can hold.
pub fn bodies() -> Vec<EventBody> {
    let (job, node) = (JobId([1; 16]), NodeId([2; 16]));
    let attempt = AttemptId { job, number: 7 };
    let usage = Usage {
        ran: Span(1_234_567),
        prompt_tokens: 5,
        output_tokens: 6,
        fuel: 7_000_000_000,
        load: Span(11),
        first_token: Span(300),
        generating: Span(70_000),
    };
    let output = OutputLengths { stdout: 300, stderr: 70_000, dropped: 9 };
    let account: AccountId = "alice".parse().expect("account");
    let key: SubmitKey = "key/1".parse().expect("key");
    let mut bodies = vec![
        EventBody::EngineStarted {
            boot: BootId([9; 16]),
            boot_clock: Span(u64::MAX),
            wall: WallTime(-1),
            version: text("0.1.0"),
        },
        EventBody::Deposited {
            provider: text("credit"),
            key: key.clone(),
            account: account.clone(),
            amount: Micro(5_000_000),
            why: text("welcome"),
        },
        EventBody::AttemptAssigned {
            attempt,
            node,
            tariff: Box::new(tariff()),
            reservation: Reservation {
                cpu_milli: 1000,
                memory_bytes: 1 << 30,
                disk_bytes: 0,
                gpus: List::new(vec![(text("GPU-1"), text("H100"))]).expect("fits"),
            },
            run_limit: Span::from_secs(60),
            run_limit_reason: Reason::Budget,
        },
        EventBody::AttemptStarting { attempt },
        EventBody::AttemptStarted { attempt },
        EventBody::CancelRequested { job, grace: Span::from_secs(10), why: text("changed my mind") },
        EventBody::NodeConnected { node, offer: None },
        EventBody::NodeConnected { node, offer: Some(Box::new(offer())) },
        EventBody::NodeLost { node },
        EventBody::InputFailed { job, message: text("over its cap") },
        EventBody::ImagePinned { attempt, image: text("alpine@sha256:00") },
        EventBody::RestoreAccepted { journal: JournalId([0x77; 16]), fence_base: 1 << 40 },
        EventBody::JobsForgotten { jobs: vec![job, JobId([0x88; 16])] },
    ];
    for wish in [
        NodeWish::Open,
        NodeWish::Cordon,
        NodeWish::Drain { within: None },
        NodeWish::Drain { within: Some(Span::from_secs(600)) },
    ] {
        bodies.push(EventBody::NodeSet { node, by: IdentityId([4; 16]), wish, why: text("new disks") });
    }
    for role in [Role::Operator, Role::Client, Role::Node, Role::Orchestrator] {
        let identity =
            Identity { id: IdentityId([4; 16]), role, name: "rig-1".parse().expect("name"), account: account.clone() };
        bodies.push(EventBody::IdentityAdded { identity });
    }
    let token = TokenId([5; 5]);
    let serial = CertificateSerial([0x7f; 16]);
    let certificate = Certificate {
        serial,
        key: KeyDigest([0xee; 32]),
        not_before: WallTime(1_790_000_000_000),
        not_after: WallTime(1_790_086_400_000),
    };
    for rejoins in [None, Some(IdentityId([4; 16]))] {
        let name = rejoins.map(|_| "rig-1".parse().expect("name"));
        let grant = TokenGrant { role: Role::Node, name, account: rejoins.map(|_| account.clone()), rejoins };
        let (verifier, by, ttl) = ([6; 32], rejoins, Span::from_secs(900));
        bodies.push(EventBody::TokenCreated { token, verifier, grant, by, ttl });
        bodies.push(EventBody::CertificateIssued {
            identity: IdentityId([4; 16]),
            certificate,
            beside: rejoins.map(|_| serial),
        });
        bodies.push(EventBody::IdentityRevoked { identity: IdentityId([4; 16]), by, why: text("sold") });
    }
    bodies.push(EventBody::MemberJoined {
        token,
        identity: Identity {
            id: IdentityId([4; 16]),
            role: Role::Node,
            name: "rig-1".parse().expect("name"),
            account: account.clone(),
        },
        certificate,
        from: text("rig (linux) at 192.0.2.1"),
    });
    for end in [TokenEnd::Spent, TokenEnd::Expired, TokenEnd::Revoked, TokenEnd::Misused] {
        bodies.push(EventBody::TokenEnded { token, end });
    }
    bodies.push(EventBody::TokenAlarm { token, from: text("192.0.2.2") });
    bodies.push(EventBody::CertificateUsed { identity: IdentityId([4; 16]), serial });
    bodies.push(EventBody::CertificateRetired { identity: IdentityId([4; 16]), serial });
    let others = other_tasks().into_iter().map(|task| {
        let (model, exceptions) = match &task {
            Task::Llm(task) => (Some(task.model.clone()), Exceptions::default()),
            Task::Wasm(_) | Task::Docker(_) => (None, Exceptions { writable_root: true, network: false }),
        };
        let body = TaskBody::Inline(task);
        let requirements = Requirements { model, exceptions, ..spec(body.clone()).requirements };
        JobSpec { requirements, ..spec(body) }
    });
    for spec in [spec(TaskBody::Inline(wasm_task())), bare_spec()].into_iter().chain(others) {
        bodies.push(EventBody::JobQueued {
            job,
            account: account.clone(),
            key: key.clone(),
            spec: Box::new(spec),
            spec_digest: Digest([8; 32]),
            fee_basis_points: 500,
        });
    }
    for ending in endings() {
        bodies.push(EventBody::ResultRecorded { attempt, ending, usage, output });
    }
    for reason in Reason::ALL {
        bodies.push(EventBody::AttemptEnded { attempt, reason, message: text("silent for 60 s") });
    }
    let froms = [ExitFrom::Job, ExitFrom::Limit, ExitFrom::Node, ExitFrom::Modchain, ExitFrom::Client];
    for (state, from) in JobState::ALL.into_iter().zip(froms.into_iter().cycle()) {
        bodies.push(EventBody::JobFinished {
            job,
            attempt: (from == ExitFrom::Job).then_some(7),
            outcome: Outcome {
                state,
                reason: Reason::Exit,
                exit: Exit { code: 255, from },
                message: text(""),
                usage,
                output,
            },
            settlement: Settlement {
                gross: Micro(2_100),
                fee: Micro(105),
                net: Micro(1_995),
                refund: Micro(97_900),
                owner: (from == ExitFrom::Job).then(|| account.clone()),
            },
        });
    }
    bodies
}

/// Bodies as events numbered from `first` on.
pub fn numbered(first: u64, bodies: impl IntoIterator<Item = EventBody>) -> Vec<Event> {
    (first..)
        .zip(bodies)
        .map(|(number, body)| Event { number, at: Timestamp(number.saturating_mul(1_000)), body })
        .collect()
}

/// A journal with these batches, and its events.
pub fn journal_with(dir: &Path, batches: &[usize], segment_bytes_max: u64) -> Vec<Vec<Event>> {
    Journal::create(dir, JOURNAL, Asset::Test).expect("makes a journal");
    let mut journal = Journal::open_with(dir, |_| {}, Box::new(TestDisk::default()), segment_bytes_max).expect("opens");
    let mut bodies = bodies().into_iter().cycle();
    let mut written = Vec::new();
    for &count in batches {
        let events = numbered(journal.last_number() + 1, bodies.by_ref().take(count));
        journal.append(&events).expect("appends");
        written.push(events);
    }
    written
}

/// A disk that does not sync, so that thousands of small journals cost little; it can be told to fail.
#[derive(Clone, Default)]
pub struct TestDisk {
    pub log: Arc<Mutex<Vec<&'static str>>>,
    /// Fails the sync of this number, counted from 0.
    pub fail_sync: Option<usize>,
    /// Writes only half of it and fails, likewise.
    pub fail_write: Option<usize>,
    /// No file can grow and no write has room for more than half of it as long as this is set.
    pub full: Arc<AtomicBool>,
}

impl TestDisk {
    pub fn count(&self, what: &str) -> usize {
        self.log.lock().expect("lock").iter().filter(|entry| **entry == what).count()
    }

    fn note(&self, what: &'static str) -> usize {
        let before = self.count(what);
        self.log.lock().expect("lock").push(what);
        before
    }
}

impl Disk for TestDisk {
    fn write(&mut self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if Some(self.note("write")) == self.fail_write {
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(io::Error::other("no space left"));
        }
        if self.full.load(Ordering::Relaxed) {
            self.note("refused");
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(bytes, at)
    }

    fn prepare(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            self.note("refused");
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(&vec![0; (to - from) as usize], from)
    }

    fn sync(&mut self, _file: &File) -> io::Result<()> {
        if Some(self.note("sync")) == self.fail_sync {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }
}
