//! Random lives of jobs and money against a naive reference: maps, whole seconds, and arithmetic without any of core's types.
//! `MODEL_CASES` sets how many lives there are and `MODEL_STEPS` how long each is.

use proptest::prelude::*;

use super::*;

/// Seconds of silence after which a node's attempts are lost.
const LOST_AFTER: u64 = 60;
/// Seconds between two heartbeats.
const BEAT: u64 = 5;
/// Micro-units that a second of the one core costs which every job has here, and the least that a run costs.
const PRICE: u64 = 10;
const MINIMUM: u64 = 1_000;
const COSTS: [u64; 3] = [100_000, 300_000, 600_000];
const CLIENTS: [&str; 2] = ["alice", "bob"];

/// One step. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Credit {
        client: usize,
        key: u8,
        amount: u64,
    },
    Submit {
        client: usize,
        key: u8,
        cost: usize,
    },
    Cancel {
        by: usize,
        job: usize,
    },
    Report {
        job: usize,
        report: Told,
        fence_off: bool,
        older: bool,
    },
    RefuseNext,
    Wait {
        secs: u64,
    },
    LoseNode {
        node: u8,
    },
    /// This job and every third one after it, whatever their states.
    Forget {
        job: usize,
    },
    Restart,
}

/// What an agent says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Starting,
    Started,
    Refused,
    Ended { how: How, ran: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Exited(u8),
    Stopped,
    CannotStart { own_fault: bool },
    NodeFault,
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        4 => Just(How::Exited(0)),
        2 => Just(How::Exited(3)),
        2 => Just(How::Stopped),
        1 => any::<bool>().prop_map(|own_fault| How::CannotStart { own_fault }),
        2 => Just(How::NodeFault),
    ];
    let told = prop_oneof![
        1 => Just(Told::Starting),
        3 => Just(Told::Started),
        1 => Just(Told::Refused),
        4 => (how, prop::sample::select(vec![0u64, 1, 100, 5_000, 1_000_000])).prop_map(|(how, ran)| Told::Ended { how, ran }),
    ];
    let step = prop_oneof![
        1 => (0..2usize, 0u8..6, 1u64..500_000).prop_map(|(client, key, amount)| Step::Credit { client, key, amount }),
        8 => (0..2usize, 0u8..24, 0..3usize).prop_map(|(client, key, cost)| Step::Submit { client, key, cost }),
        4 => (0..3usize, any::<usize>()).prop_map(|(by, job)| Step::Cancel { by, job }),
        14 => (any::<usize>(), told, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(job, report, fence_off, older)| Step::Report { job, report, fence_off, older }),
        1 => Just(Step::RefuseNext),
        3 => (0u64..=BEAT).prop_map(|secs| Step::Wait { secs }),
        1 => (1u8..=2).prop_map(|node| Step::LoseNode { node }),
        1 => any::<usize>().prop_map(|job| Step::Forget { job }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, length)
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Queued,
    On(Run),
    Ended(JobState),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    node: u8,
    since: u64,
    running: bool,
    stopping: bool,
}

#[derive(Debug, Clone)]
struct ReferenceJob {
    client: &'static str,
    cost: u64,
    attempts_max: u32,
    attempts: u32,
    counted: u32,
    place: Place,
}

/// The books and the jobs, in whole seconds and micro-units.
#[derive(Debug, Default)]
struct Reference {
    now: u64,
    free: BTreeMap<&'static str, u64>,
    credits: BTreeMap<u8, (&'static str, u64)>,
    jobs: BTreeMap<JobId, ReferenceJob>,
    earned: u64,
    fees: u64,
    came_in: u64,
}

impl Reference {
    fn new() -> Self {
        let free = CLIENTS.into_iter().map(|client| (client, 1_000_000)).collect();
        Self { free, came_in: 2_000_000, ..Self::default() }
    }

    fn credit(&mut self, client: &'static str, key: u8, amount: u64) -> &'static str {
        match self.credits.get(&key) {
            Some(before) if *before == (client, amount) => "done",
            Some(_) => "invalid",
            None => {
                self.credits.insert(key, (client, amount));
                *self.free.get_mut(client).expect("a client") += amount;
                self.came_in += amount;
                "done"
            }
        }
    }

    fn submit(&mut self, id: JobId, client: &'static str, key: u8, cost: u64) -> &'static str {
        if let Some(job) = self.jobs.get(&id) {
            return if job.cost == cost { "existing" } else { "conflict" };
        }
        let free = self.free.get_mut(client).expect("a client");
        if *free < cost {
            return "insufficient";
        }
        *free -= cost;
        let attempts_max = attempts_max(key);
        let job = ReferenceJob { client, cost, attempts_max, attempts: 0, counted: 0, place: Place::Queued };
        self.jobs.insert(id, job);
        "accepted"
    }

    fn cancel(&mut self, by: Option<&str>, id: JobId) -> &'static str {
        let job = self.jobs.get_mut(&id).expect("one of them");
        if by.is_some_and(|by| by != job.client) {
            return "unknown";
        }
        match &mut job.place {
            Place::Ended(_) => "ended",
            Place::On(run) => {
                run.stopping = true;
                "cancelling"
            }
            Place::Queued => {
                self.end(id, JobState::Cancelled, 0);
                "cancelling"
            }
        }
    }

    /// The job is over, for so much.
    fn end(&mut self, id: JobId, state: JobState, gross: u64) {
        let job = self.jobs.get_mut(&id).expect("one of them");
        let fee = gross / 20;
        self.fees += fee;
        self.earned += gross - fee;
        *self.free.get_mut(job.client).expect("a client") += job.cost - gross;
        job.place = Place::Ended(state);
    }

    /// The attempt came to nothing and nobody pays.
    fn again(&mut self, id: JobId) {
        let job = self.jobs.get_mut(&id).expect("one of them");
        let Place::On(run) = job.place else { panic!("it is on a node") };
        if run.stopping {
            self.end(id, JobState::Cancelled, 0);
        } else if job.counted < job.attempts_max {
            job.place = Place::Queued;
        } else {
            self.end(id, JobState::Failed, 0);
        }
    }

    fn told(&mut self, id: JobId, told: Told) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).expect("one of them");
        let Place::On(run) = &mut job.place else { return };
        match told {
            Told::Starting => {}
            Told::Started => run.running = true,
            Told::Refused if run.running => {}
            Told::Refused => self.again(id),
            Told::Ended { how, ran } => {
                let (running, stopping) = (run.running, run.stopping);
                let seen = ran.min(now - run.since);
                let bill = (seen * PRICE).max(MINIMUM).min(job.cost);
                match how {
                    How::Exited(_) if stopping => self.end(id, JobState::Cancelled, bill),
                    How::Exited(0) => self.end(id, JobState::Completed, bill),
                    How::Exited(_) => self.end(id, JobState::Failed, bill),
                    How::Stopped if stopping => {
                        let bill = if running || ran > 0 { bill } else { 0 };
                        self.end(id, JobState::Cancelled, bill);
                    }
                    How::CannotStart { own_fault: true } if !stopping => self.end(id, JobState::Failed, 0),
                    How::Stopped | How::CannotStart { .. } | How::NodeFault => self.again(id),
                }
            }
        }
    }
}

fn attempts_max(key: u8) -> u32 {
    1 + u32::from(key) % 3
}

fn key(number: u8) -> SubmitKey {
    format!("k{number}").parse().expect("a key")
}

/// Both sides, and the connections between.
struct Lives {
    world: World,
    reference: Reference,
    sessions: BTreeMap<u8, SessionId>,
    refuse_next: bool,
}

impl Lives {
    fn new() -> Self {
        let mut world = World::new();
        let sessions = [1, 2].into_iter().map(|number| (number, world.connect(number, PRICE * 3_600))).collect();
        Self { world, reference: Reference::new(), sessions, refuse_next: false }
    }

    fn pick(&self, number: usize) -> Option<JobId> {
        self.reference.jobs.keys().nth(number % self.reference.jobs.len().max(1)).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Credit { client, key: number, amount } => {
                let account = account(CLIENTS[client]);
                let key = format!("c{number}").parse().expect("a key");
                let why = Text::default();
                let reply =
                    self.world.tell(Command::Credit { by: operator(), account, amount: Micro(amount), key, why });
                assert_eq!(word(&reply), self.reference.credit(CLIENTS[client], number, amount));
            }
            Step::Submit { client, key: number, cost } => {
                let (client, cost) = (CLIENTS[client], COSTS[cost]);
                let mut spec = spec();
                spec.max_cost = Micro(cost);
                spec.limits.attempts_max = attempts_max(number);
                let reply = self.world.submit_as(client, &format!("k{number}"), spec);
                let id = JobId::derive(&account(client), &key(number));
                assert_eq!(word(&reply), self.reference.submit(id, client, number, cost));
            }
            Step::Cancel { by, job } => {
                let Some(id) = self.pick(job) else { return };
                let who = CLIENTS.get(by).copied();
                let by = who.map_or_else(operator, client);
                let reply = self.world.tell(Command::Cancel { by, job: id, grace: Span::ZERO, why: Text::default() });
                assert_eq!(word(&reply), self.reference.cancel(who, id));
            }
            Step::Report { job, report, fence_off, older } => {
                let Some(id) = self.pick(job) else { return };
                let placed = self.world.control.job(id).and_then(Job::placement).cloned();
                let Some(placed) = placed else { return };
                let attempt = AttemptId { number: placed.attempt.number - u32::from(older), ..placed.attempt };
                let fence = Fence(placed.fence.0 - u64::from(fence_off));
                self.say(placed.node, attempt, fence, report);
                if !(fence_off || older) {
                    self.reference.told(id, report);
                }
            }
            Step::RefuseNext => self.refuse_next = true,
            Step::Wait { secs } => self.wait(secs),
            Step::LoseNode { node } => self.lose(node),
            Step::Forget { job } => self.forget(job),
            Step::Restart => {
                self.world.control = self.world.replayed();
                self.world.start();
                for number in [1, 2] {
                    let held = self.held(number);
                    let session = self.world.connect_holding(number, held);
                    self.sessions.insert(number, session);
                }
            }
        }
    }

    /// Those that have ended are gone, and nobody hears of them again; but for those of this very moment.
    fn forget(&mut self, job: usize) {
        let first = job % self.reference.jobs.len().max(1);
        let jobs: Vec<JobId> = self.reference.jobs.keys().skip(first).step_by(3).copied().collect();
        let now = self.world.now;
        let is_old = |id: &JobId| self.world.control.ended(*id).is_some_and(|ended| ended.at < now);
        let ended = |id: &JobId| matches!(self.reference.jobs[id].place, Place::Ended(_));
        let old: Vec<JobId> = jobs.iter().filter(|id| ended(id) && is_old(id)).copied().collect();
        let reply = self.world.tell(Command::ForgetJobs { jobs });
        assert_eq!(reply, Reply::Forgotten { jobs: old.len() });
        for id in old {
            self.reference.jobs.remove(&id);
            assert_eq!(self.world.control.ended(id), None);
            // What an agent had kept of it all the time.
            let (attempt, fence) = (AttemptId { job: id, number: 1 }, Fence(1));
            self.say(node(1), attempt, fence, Told::Ended { how: How::Exited(0), ran: 100 });
        }
    }

    fn say(&mut self, node: NodeId, attempt: AttemptId, fence: Fence, told: Told) {
        let message = || Text::cut("so it is");
        let body = match told {
            Told::Starting => ReportBody::Starting,
            Told::Started => ReportBody::Started,
            Told::Refused => ReportBody::Refused { message: message() },
            Told::Ended { how, ran } => World::ended(
                match how {
                    How::Exited(code) => Ending::Exited { code },
                    How::Stopped => Ending::Stopped,
                    How::CannotStart { own_fault } => {
                        let fault = if own_fault { Fault::Job } else { Fault::Node };
                        Ending::CannotStart { fault, message: Text::cut("so it is") }
                    }
                    How::NodeFault => Ending::NodeFault { message: message() },
                },
                Span::from_secs(ran),
            ),
        };
        let session = self.sessions[&node.0[0]];
        self.world.done(Command::Report { node, session, report: Report { attempt, fence, body } });
    }

    /// What a node says of its attempts when it connects.
    fn held(&self, number: u8) -> Vec<InventoryItem> {
        let on = |job: &ReferenceJob| match job.place {
            Place::On(run) if run.node == number => Some(run.running),
            _ => None,
        };
        let jobs = self.reference.jobs.iter().filter_map(|(id, job)| Some((*id, on(job)?)));
        let state = |running| if running { ItemState::Running } else { ItemState::Starting };
        jobs.map(|(id, running)| self.world.item(id, state(running))).collect()
    }

    /// Takes over where the queued jobs went. Agents accept at once what they are told, unless one is to refuse.
    fn look_where_jobs_went(&mut self) {
        loop {
            let queued = self.reference.jobs.iter().filter(|(_, job)| job.place == Place::Queued);
            let placed = queued.filter_map(|(id, _)| Some((*id, self.world.control.job(*id)?.placement()?.clone())));
            let Some((id, placement)) = placed.into_iter().next() else { return };
            let job = self.reference.jobs.get_mut(&id).expect("one of them");
            job.attempts += 1;
            assert_eq!(placement.attempt.number, job.attempts);
            let refuses = std::mem::take(&mut self.refuse_next);
            if !refuses {
                job.counted += 1;
                let since = placement.assigned_at.0 / 1_000_000;
                job.place = Place::On(Run { node: placement.node.0[0], since, running: false, stopping: false });
            }
            let told = if refuses { Told::Refused } else { Told::Starting };
            self.say(placement.node, placement.attempt, placement.fence, told);
        }
    }

    fn wait(&mut self, secs: u64) {
        self.world.wait(Span::from_secs(secs));
        self.reference.now += secs;
        self.beat(&[1, 2]);
    }

    fn beat(&mut self, nodes: &[u8]) {
        for number in nodes {
            let (node, session) = (node(*number), self.sessions[number]);
            self.world.done(Command::AgentHeard { node, session });
        }
    }

    /// A node is silent until what is on it is lost, and comes back with nothing.
    fn lose(&mut self, number: u8) {
        // An agent that is there ends what it is told to end; that it may not is another test's.
        let stopping = |job: &ReferenceJob| matches!(job.place, Place::On(run) if run.stopping);
        let ids: Vec<JobId> = self.reference.jobs.iter().filter(|(_, job)| stopping(job)).map(|(id, _)| *id).collect();
        for id in ids {
            let placed = self.world.control.job(id).and_then(Job::placement).expect("it is on a node").clone();
            let told = Told::Ended { how: How::Stopped, ran: 1 };
            self.say(placed.node, placed.attempt, placed.fence, told);
            self.reference.told(id, told);
        }
        self.look_where_jobs_went();
        self.beat(&[number]);
        self.world.done(Command::AgentDisconnected { node: node(number), session: self.sessions[&number] });
        for _ in 0..LOST_AFTER / BEAT {
            self.world.wait(Span::from_secs(BEAT));
            self.reference.now += BEAT;
            self.beat(&[3 - number]);
            if self.world.control.node(node(number)).is_some_and(|node| node.lost) {
                break;
            }
            self.look_where_jobs_went();
        }
        let there = |job: &ReferenceJob| matches!(job.place, Place::On(run) if run.node == number);
        let ids: Vec<JobId> = self.reference.jobs.iter().filter(|(_, job)| there(job)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.reference.again(id));
        self.look_where_jobs_went();
        let session = self.world.connect_holding(number, Vec::new());
        self.sessions.insert(number, session);
    }

    /// Both sides have the same jobs in the same states, and the same money.
    fn compare(&self) {
        let control = &self.world.control;
        for (id, job) in &self.reference.jobs {
            let got = control.job(*id).map(Job::state).or_else(|| control.ended(*id).map(|ended| ended.state));
            let expected = match job.place {
                Place::Queued => JobState::Queued,
                Place::On(run) if run.stopping => JobState::Cancelling,
                Place::On(run) if run.running => JobState::Running,
                Place::On(_) => JobState::Starting,
                Place::Ended(state) => state,
            };
            assert_eq!(got, Some(expected), "{id}: {job:?}");
            let held = if matches!(job.place, Place::Ended(_)) { 0 } else { job.cost };
            assert_eq!(control.ledger().held(*id), Micro(held), "{id}");
        }
        for client in CLIENTS {
            assert_eq!(self.world.available(client), self.reference.free[client], "{client}");
        }
        let (earnings, fees) = (Account::Earnings(account("owen")), Account::Fees);
        assert_eq!(control.ledger().balance(&earnings), i128::from(self.reference.earned));
        assert_eq!(control.ledger().balance(&fees), i128::from(self.reference.fees));
        assert_eq!(control.ledger().balance(&Account::Custody), -i128::from(self.reference.came_in));
    }
}

fn word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "done",
        Reply::Submitted { existing: true, .. } => "existing",
        Reply::Submitted { existing: false, .. } => "accepted",
        Reply::Cancelling { .. } => "cancelling",
        Reply::Refused(Refused::Invalid { .. }) => "invalid",
        Reply::Refused(Refused::IdempotencyConflict { .. }) => "conflict",
        Reply::Refused(Refused::InsufficientFunds { .. }) => "insufficient",
        Reply::Refused(Refused::UnknownJob) => "unknown",
        Reply::Refused(Refused::AlreadyEnded { .. }) => "ended",
        reply => panic!("nobody expects {reply:?}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no decision of the core's")]
fn number(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn any_life_of_jobs_and_money_is_what_a_naive_reference_says() {
    let (cases, length) = (number("MODEL_CASES", 2_000), number("MODEL_STEPS", 100) as usize);
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(cases) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let run = runner.run(&steps(length), |steps| {
        let mut lives = Lives::new();
        for step in steps {
            lives.take(step);
            lives.look_where_jobs_went();
            lives.beat(&[1, 2]);
            lives.look_where_jobs_went();
            lives.compare();
        }
        lives.world.check_replay();
        Ok(())
    });
    if let Err(failed) = run {
        panic!("{failed}");
    }
}
