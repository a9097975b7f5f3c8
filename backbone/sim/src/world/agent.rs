//! The shell around `Supervisor`: a disk that survives, a process that dies, and a connection that comes and goes.

use std::collections::BTreeMap;

use modchain_core::supervisor::{Recovered, Survivor};
use modchain_core::{Action, AgentArrival, NodeMessage, Supervisor, SupervisorConfig, SupervisorInput};
use modchain_types::{
    Adapter, Assignment, AttemptId, Capabilities, Ending, Exceptions, Fault, Fence, GpuInfo, InstanceId, List, Map,
    Micro, NodeId, Offer, OutputLengths, Report, ReportBody, Span, Tariff, Text, Timestamp, Usage,
};

use super::executor::Executor;
use super::network::{Connection, ConnectionId, Direction, FromAgent, ToAgent};
use super::{Happening, World};
use crate::auditor::Breach;
use crate::random::Random;
use crate::witness::Fenced;

/// A machine that stands still for so long may find, when it goes on, that its lease has ended and its jobs run elsewhere:
/// the margin of a lease is 5 s, of which its end takes 3, and clocks drift.
const STILL_HARMLESS: Span = Span::from_secs(1);
/// Silence after which a connection may be given up.
const IDLE: Span = Span::from_secs(15);

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) offer: Offer,
    clock: Clock,
    disk: Disk,
    /// What outlived the process that began it.
    containers: BTreeMap<AttemptId, Executor>,
    pub(super) process: Option<Process>,
    /// Whether the machine was taken away for good.
    gone: bool,
    /// Until then no connection can be made.
    pub(super) cut_off_until: Timestamp,
    /// Its machine stands still, and goes on after this moment.
    pub(super) stopped_until: Timestamp,
    /// Until then its disk takes nothing more.
    pub(super) full_until: Timestamp,
    /// Whether it says what is not true, for as long as things go wrong.
    pub(super) lies: bool,
}

/// What survives a crash.
#[derive(Debug, Default)]
struct Disk {
    attempts: BTreeMap<AttemptId, Kept>,
    highest_fence: Option<Fence>,
}

#[derive(Debug)]
struct Kept {
    fence: Fence,
    /// As it was assigned; `None` once its result is here.
    assignment: Option<Box<Assignment>>,
    result: Option<Report>,
}

/// One run of the agent program.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) instance: InstanceId,
    pub(super) supervisor: Supervisor,
    pub(super) session: Session,
    wakes_at: Option<Timestamp>,
    /// What could not be written down, to be tried again.
    unwritten: Vec<Action>,
    /// Children of the process, which die with it, and containers, which go on.
    pub(super) executors: BTreeMap<AttemptId, Executor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    None,
    /// The hello was sent then, by the agent's own clock.
    Hello {
        connection: ConnectionId,
        sent: Timestamp,
    },
    Open {
        connection: ConnectionId,
    },
}

impl Session {
    pub(super) fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::None => None,
            Self::Hello { connection, .. } | Self::Open { connection } => Some(connection),
        }
    }
}

/// A clock that began somewhere and runs a little fast or slow.
#[derive(Debug, Clone, Copy)]
struct Clock {
    base: u64,
    /// Millionths of its own time in a million of the world's.
    rate: u64,
}

impl Clock {
    fn local(self, world: Timestamp) -> Timestamp {
        let ran = u128::from(world.0) * u128::from(self.rate) / 1_000_000;
        Timestamp(self.base + u64::try_from(ran).expect("worlds are short"))
    }

    /// When the clock will show `local` at the earliest.
    fn world(self, local: Timestamp) -> Timestamp {
        let ran = u128::from(local.0.saturating_sub(self.base));
        Timestamp(u64::try_from((ran * 1_000_000).div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }
}

impl Agent {
    /// The attempts that its disk knows of.
    pub(super) fn kept(&self) -> usize {
        self.disk.attempts.len()
    }

    /// How long an interval of the world's is by this agent's clock.
    pub(super) fn measures(&self, from: Timestamp, to: Timestamp) -> Span {
        self.clock.local(to).since(self.clock.local(from))
    }
}

impl World {
    pub(super) fn populate_agents(&mut self) {
        let with_gpus = self.random.chance(30_000);
        for _ in 0..self.swarm.nodes {
            self.add_machine(with_gpus);
        }
    }

    /// One more, in place of one that was revoked.
    pub(super) fn new_machine(&mut self) -> NodeId {
        let with_gpus = self.random.chance(30_000);
        self.add_machine(with_gpus)
    }

    fn add_machine(&mut self, with_gpus: bool) -> NodeId {
        let number = self.agents.len() as u64;
        let drift = self.swarm.drift_ppm;
        let agent = Agent {
            offer: draw_offer(&mut self.random, with_gpus, number),
            clock: Clock {
                base: self.random.below(1 << 40),
                rate: self.random.between(1_000_000 - drift, 1_000_000 + drift),
            },
            disk: Disk::default(),
            containers: BTreeMap::new(),
            process: None,
            gone: false,
            cut_off_until: Timestamp::ZERO,
            stopped_until: Timestamp::ZERO,
            full_until: Timestamp::ZERO,
            lies: number < self.swarm.liars,
        };
        let node = NodeId([number as u8 + 1; 16]);
        if agent.lies {
            self.witness.doubt_node(node);
        }
        self.agents.insert(node, agent);
        let at = self.soon(Span::from_secs(2));
        self.at(at, Happening::AgentStarts(node));
        node
    }

    /// The machine is never seen again, with all that ran on it.
    pub(super) fn take_away(&mut self, node: NodeId) {
        self.agent_dies(node, Span::ZERO);
        let agent = self.agent(node);
        agent.gone = true;
        agent.disk = Disk::default();
        self.containers_end(node);
    }

    pub(super) fn agent_starts(&mut self, node: NodeId) -> Result<(), Breach> {
        let instance = InstanceId(self.random.bytes());
        let now = self.now;
        self.some_containers_are_not_found(node);
        let agent = self.agent(node);
        if agent.process.is_some() || agent.gone {
            return Ok(());
        }
        let capabilities = agent.offer.capabilities.clone();
        let mut supervisor = Supervisor::new(SupervisorConfig { capabilities });
        let (clock, containers) = (agent.clock, &agent.containers);
        let survivor = |attempt: &AttemptId, kept: &Kept| {
            let since = clock.local(containers.get(attempt)?.runs_since()?);
            Some(Survivor { assignment: kept.assignment.clone()?, since })
        };
        let found = agent
            .disk
            .attempts
            .iter()
            .map(|(attempt, kept)| Recovered {
                attempt: *attempt,
                fence: kept.fence,
                result: kept.result.clone(),
                survivor: survivor(attempt, kept),
                output: OutputLengths::default(),
            })
            .collect();
        let actions = supervisor.recover(clock.local(now), found);
        agent.process = Some(Process {
            instance,
            supervisor,
            session: Session::None,
            wakes_at: None,
            unwritten: Vec::new(),
            executors: BTreeMap::new(),
        });
        self.note(|| format!("{node} starts"));
        self.perform(node, actions)?;
        if self.process(node, instance).is_none() {
            return Ok(()); // died again on the way
        }
        // What was not taken up again belongs to nobody.
        self.containers_end(node);
        self.plan_to_wake(node);
        self.at(now, Happening::Connect(node, instance));
        Ok(())
    }

    /// Looking for a container fails: it belongs to nobody then, and is removed.
    fn some_containers_are_not_found(&mut self, node: NodeId) {
        let there: Vec<AttemptId> = self.agent(node).containers.keys().copied().collect();
        for attempt in there {
            if self.random.chance(self.swarm.executor.inspect_fails) {
                self.fault("container not found again");
                let container = self.agent(node).containers.remove(&attempt).expect("it is there");
                let run = (attempt, container.fence());
                self.witness.ends(self.now, run, Ending::NodeFault { message: Text::default() });
            }
        }
    }

    fn containers_end(&mut self, node: NodeId) {
        for (attempt, container) in std::mem::take(&mut self.agent(node).containers) {
            let run = (attempt, container.fence());
            self.witness.ends(self.now, run, Ending::NodeFault { message: Text::default() });
        }
    }

    /// The process dies, and every executor with it that is not a container.
    pub(super) fn agent_dies(&mut self, node: NodeId, restart_within: Span) {
        let Some(process) = self.agent(node).process.take() else { return };
        self.note(|| format!("{node} dies"));
        self.agent(node).stopped_until = self.now;
        for (attempt, mut executor) in process.executors {
            if executor.outlives_its_agent() {
                self.agent(node).containers.insert(attempt, executor);
            } else {
                let run = (attempt, executor.fence());
                self.witness.ends(self.now, run, Ending::NodeFault { message: Text::default() });
            }
        }
        if let Some(connection) = process.session.connection() {
            self.cut(connection);
        }
        let at = self.soon(restart_within);
        self.at(at, Happening::AgentStarts(node));
    }

    pub(super) fn agent_stops(&mut self, node: NodeId, instance: InstanceId) -> Result<(), Breach> {
        if self.process(node, instance).is_some() {
            self.agent_dies(node, Span::from_secs(60));
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, node: NodeId, instance: InstanceId) -> Result<(), Breach> {
        let now = self.now;
        let down = self.orchestrator.control.is_none();
        let is_in = self.is_in(node.into());
        let agent = self.agent(node);
        let out_of_reach = down || now < agent.cut_off_until || !is_in;
        let (offer, highest_fence) = (agent.offer.clone(), agent.disk.highest_fence);
        let sent = agent.clock.local(now);
        let Some(process) = self.process(node, instance).filter(|process| process.session == Session::None) else {
            return Ok(());
        };
        if out_of_reach {
            self.connect_later(node, instance);
            return Ok(());
        }
        let inventory = process.supervisor.inventory();
        let inventory = self.inventory_told(node, inventory);
        self.last_connection += 1;
        let connection = self.last_connection;
        self.process(node, instance).expect("just seen").session = Session::Hello { connection, sent };
        self.connections.insert(connection, Connection::new(node));
        self.note(|| format!("{node} says hello on {connection} with {inventory:?}"));
        let arrival = AgentArrival { instance, highest_fence, inventory, offer };
        self.send_up(connection, FromAgent::Hello(Box::new(arrival)));
        Ok(())
    }

    fn connect_later(&mut self, node: NodeId, instance: InstanceId) {
        // Who was revoked is refused however often it tries; seldom is enough to see that.
        let patience = if self.auditor.is_revoked(node.into()) { 120 } else { 4 };
        let at = self.soon(Span::from_secs(patience)) + Span::from_millis(200);
        self.at(at, Happening::Connect(node, instance));
    }

    pub(super) fn agent_notices(&mut self, connection: ConnectionId) -> Result<(), Breach> {
        let node = self.connections[&connection].node;
        let Some(process) = &mut self.agent(node).process else { return Ok(()) };
        if process.session.connection() != Some(connection) {
            return Ok(());
        }
        process.session = Session::None;
        let instance = process.instance;
        self.supervise(node, SupervisorInput::Disconnected)?;
        self.connect_later(node, instance);
        Ok(())
    }

    pub(super) fn heartbeat(&mut self, connection: ConnectionId) -> Result<(), Breach> {
        let now = self.now;
        let node = self.connections[&connection].node;
        let agent = self.agent(node);
        let sent = agent.clock.local(now);
        let open = agent.process.as_ref().is_some_and(|process| process.session == Session::Open { connection });
        if open {
            self.send_up(connection, FromAgent::Heartbeat { sent });
            let next = self.soon(Span::from_secs(1)) + Span::from_millis(4_500);
            self.at(next, Happening::Heartbeat(connection));
        }
        Ok(())
    }

    pub(super) fn arrives_at_agent(&mut self, connection: ConnectionId, message: ToAgent) -> Result<(), Breach> {
        if !self.gets_through(connection, Direction::Down) {
            return Ok(());
        }
        let node = self.connections[&connection].node;
        let Some(process) = &mut self.agent(node).process else { return Ok(()) };
        if process.session.connection() != Some(connection) {
            return Ok(());
        }
        match message {
            ToAgent::Welcome { lease } => {
                let Session::Hello { sent, .. } = process.session else { return Ok(()) };
                process.session = Session::Open { connection };
                self.supervise(node, SupervisorInput::Connected { lease, sent })?;
                let first = self.soon(Span::from_secs(1));
                self.at(first, Happening::Heartbeat(connection));
                let ended: Vec<Report> =
                    self.agent(node).disk.attempts.values().filter_map(|kept| kept.result.clone()).collect();
                ended.iter().for_each(|report| self.hand_over_output(node, report));
                Ok(())
            }
            ToAgent::Close => {
                self.cut(connection);
                self.agent_notices(connection)
            }
            ToAgent::HeartbeatEcho { sent } => self.supervise(node, SupervisorInput::HeartbeatAnswered { sent }),
            ToAgent::Node(NodeMessage::Probe) => {
                self.send_up(connection, FromAgent::ProbeAnswer);
                Ok(())
            }
            ToAgent::Node(NodeMessage::Reconcile(verdicts)) => {
                self.supervise(node, SupervisorInput::Reconcile(verdicts))
            }
            ToAgent::Node(NodeMessage::Assign(assignment)) => self.supervise(node, SupervisorInput::Assign(assignment)),
            ToAgent::Node(NodeMessage::Stop { attempt, fence, grace, cause }) => {
                self.supervise(node, SupervisorInput::Stop { attempt, fence, grace, cause })
            }
            ToAgent::Node(NodeMessage::Ack { attempt, fence }) => {
                self.supervise(node, SupervisorInput::Ack { attempt, fence })
            }
        }
    }

    pub(super) fn supervisor_wakes(&mut self, node: NodeId, instance: InstanceId) -> Result<(), Breach> {
        let Some(process) = self.process(node, instance) else { return Ok(()) };
        process.wakes_at = None;
        self.supervise(node, SupervisorInput::Tick)
    }

    /// Gives an input to the supervisor and does what it says.
    pub(super) fn supervise(&mut self, node: NodeId, input: SupervisorInput) -> Result<(), Breach> {
        let now = self.now;
        self.note(|| format!("{node} gets {input:?}"));
        let agent = self.agent(node);
        let local = agent.clock.local(now);
        let Some(process) = &mut agent.process else { return Ok(()) };
        let actions = process.supervisor.handle(local, input);
        self.perform(node, actions)?;
        self.plan_to_wake(node);
        Ok(())
    }

    fn plan_to_wake(&mut self, node: NodeId) {
        let now = self.now;
        let agent = self.agent(node);
        let clock = agent.clock;
        let Some(process) = &mut agent.process else { return };
        let Some(deadline) = process.supervisor.next_deadline() else { return };
        let at = clock.world(deadline).max(now + Span(1));
        if process.wakes_at.is_none_or(|planned| at < planned) {
            process.wakes_at = Some(at);
            let instance = process.instance;
            self.at(at, Happening::SupervisorWakes(node, instance));
        }
    }

    fn perform(&mut self, node: NodeId, actions: Vec<Action>) -> Result<(), Breach> {
        // What follows from it comes after what was decided before it.
        let mut follows = Vec::new();
        for action in actions {
            if self.random.chance(self.swarm.crash_at_action) {
                self.fault("agent killed between two actions");
                self.agent_dies(node, Span::from_secs(30));
                return Ok(());
            }
            self.note(|| format!("  {node} does {action:?}"));
            let now = self.now;
            let agent = self.agent(node);
            let is_full = now < agent.full_until;
            match action {
                Action::Begin(assignment) if is_full => {
                    let message = Text::cut("the node cannot write the attempt down");
                    follows.push(SupervisorInput::Ended {
                        attempt: assignment.attempt,
                        ending: Ending::CannotStart { fault: Fault::Node, message },
                        usage: Usage::default(),
                        output: OutputLengths::default(),
                    });
                }
                Action::RememberFence(_) | Action::Record(_) if is_full => {
                    let at = agent.full_until;
                    if let Some(process) = &mut agent.process {
                        let instance = process.instance;
                        process.unwritten.push(action);
                        // Once for all of them: it may be full again by then.
                        if process.unwritten.len() == 1 {
                            self.at(at, Happening::AgentDiskFrees(node, instance));
                        }
                    }
                }
                Action::RememberFence(claim) => {
                    agent.disk.highest_fence = agent.disk.highest_fence.max(Some(claim.fence));
                }
                Action::Begin(assignment) => {
                    let fence = assignment.claim.fence;
                    let kept = Kept { fence, assignment: Some(assignment.clone()), result: None };
                    agent.disk.attempts.insert(assignment.attempt, kept);
                    self.executor_begins(node, &assignment)?;
                }
                Action::Resume { assignment, since: _ } => {
                    let container = agent.containers.remove(&assignment.attempt).expect("only a survivor is resumed");
                    self.executor_resumes(node, assignment.attempt, container);
                }
                Action::Stop { attempt, grace } => self.executor_stops(node, attempt, grace),
                Action::Record(report) => {
                    let kept = Kept { fence: report.fence, assignment: None, result: Some(report.clone()) };
                    agent.disk.attempts.insert(report.attempt, kept);
                    self.witness.has_result((report.attempt, report.fence));
                    self.send_if_open(node, FromAgent::Report(report.clone()));
                    self.hand_over_output(node, &report);
                }
                Action::Send(report) => self.send_if_open(node, FromAgent::Report(report)),
                Action::Discard { attempt } => {
                    agent.disk.attempts.remove(&attempt);
                    if let Some(process) = &mut agent.process {
                        process
                            .unwritten
                            .retain(|later| !matches!(later, Action::Record(report) if report.attempt == attempt));
                    }
                }
            }
        }
        follows.into_iter().try_for_each(|input| self.supervise(node, input))
    }

    /// What could not be written down is tried again.
    pub(super) fn agent_disk_frees(&mut self, node: NodeId, instance: InstanceId) -> Result<(), Breach> {
        let Some(process) = self.process(node, instance) else { return Ok(()) };
        let unwritten = std::mem::take(&mut process.unwritten);
        self.perform(node, unwritten)
    }

    /// The machine stands still, and nothing of it sees time pass; a long while costs it some connections.
    pub(super) fn agent_stands_still(&mut self, node: NodeId, span: Span) {
        let now = self.now;
        let agent = self.agent(node);
        agent.stopped_until = now + span;
        let Some(process) = &agent.process else { return };
        let connection = process.session.connection();
        let runs: Vec<Fenced> =
            process.executors.iter().map(|(attempt, executor)| (*attempt, executor.fence())).collect();
        if span > STILL_HARMLESS {
            // What it runs is behind the time when it goes on, and ends as soon as that is noticed.
            runs.into_iter().for_each(|run| self.witness.excuse(run));
        }
        if let Some(connection) = connection.filter(|_| span > IDLE && self.random.chance(50_000)) {
            self.cut(connection);
        }
    }

    /// The spool of an ended attempt goes up on a stream of its own.
    fn hand_over_output(&mut self, node: NodeId, report: &Report) {
        let ReportBody::Ended { output, .. } = report.body else { return };
        if !self.random.chance(self.swarm.output_lost) {
            let (attempt, fence) = (report.attempt, report.fence);
            self.send_if_open(node, FromAgent::OutputEnd { attempt, fence, lengths: output });
        }
    }

    /// An owner changed the offer.
    pub(super) fn offer_changes(&mut self, node: NodeId) {
        let with_gpus = !self.agent(node).offer.capabilities.gpus.is_empty();
        let number = u64::from(node.0[0]);
        let offer = draw_offer(&mut self.random, with_gpus, number);
        let agent = self.agent(node);
        agent.offer = offer.clone();
        if let Some(process) = &mut agent.process {
            process.supervisor.set_capabilities(offer.capabilities.clone());
        }
        self.send_if_open(node, FromAgent::Offer(Box::new(offer)));
    }

    /// Cuts the agent off for a while.
    pub(super) fn partition(&mut self, node: NodeId, until: Timestamp) {
        let agent = self.agent(node);
        agent.cut_off_until = agent.cut_off_until.max(until);
        if let Some(connection) = agent.process.as_ref().and_then(|process| process.session.connection()) {
            self.cut(connection);
        }
    }

    /// The link loses one direction, and no new connection can be made meanwhile.
    pub(super) fn loses_one_direction(&mut self, node: NodeId, until: Timestamp) {
        let agent = self.agent(node);
        agent.cut_off_until = agent.cut_off_until.max(until);
        if let Some(connection) = agent.process.as_ref().and_then(|process| process.session.connection()) {
            self.loses_a_direction(connection);
        }
    }

    /// Whether nothing need be true of what this node says and does.
    pub(super) fn is_excused(&self, node: NodeId) -> bool {
        let agent = &self.agents[&node];
        agent.lies || agent.stopped_until + Span::from_secs(60) > self.now
    }

    pub(super) fn send_if_open(&mut self, node: NodeId, message: FromAgent) {
        let session = self.agent(node).process.as_ref().map(|process| process.session);
        if let Some(Session::Open { connection }) = session {
            self.send_up(connection, message);
        }
    }

    pub(super) fn agent(&mut self, node: NodeId) -> &mut Agent {
        self.agents.get_mut(&node).expect("every node of the world has an agent")
    }

    /// The run of the agent that something was planned for, if it is still the same.
    pub(super) fn process(&mut self, node: NodeId, instance: InstanceId) -> Option<&mut Process> {
        self.agent(node).process.as_mut().filter(|process| process.instance == instance)
    }
}

fn draw_offer(random: &mut Random, with_gpus: bool, number: u64) -> Offer {
    let text = |text: String| Text::cut(text);
    let gpus = if with_gpus { random.between(1, 3) } else { 0 };
    let gpus = (0..gpus).map(|index| GpuInfo {
        uuid: Text::cut(format!("gpu-{number}-{index}")),
        vendor: Text::cut("nvidia"),
        model: Text::cut("H100"),
        memory_bytes: 80 << 30,
        driver: Text::default(),
        compute: Text::default(),
    });
    let capabilities = Capabilities {
        adapters: List::cut(vec![Adapter::Wasm]),
        cpu_milli: random.pick(&[1_000, 4_000, 16_000]),
        memory_bytes: random.pick(&[1, 8, 64]) << 30,
        disk_bytes: random.pick(&[1, 100]) << 30,
        slots: random.pick(&[1, 2, 8]),
        gpus: List::cut(gpus.collect()),
        models: List::default(),
        pullable: List::default(),
        exceptions: Exceptions::default(),
        container_gpus: false,
        labels: Map::default(),
        region: text("here".into()),
    };
    let gpu_hour = Map::new(BTreeMap::from([(text("*".into()), Micro(random.pick(&[0, 2_000_000])))]));
    let tariff = Tariff {
        core_hour: Micro(random.pick(&[0, 30_000, 3_000_000, 360_000_000])),
        gib_hour: Micro(random.pick(&[0, 4_000, 7_777_777])),
        gpu_hour: gpu_hour.expect("one entry"),
        minimum: Micro(random.pick(&[0, 1, 1_000])),
        // No job here asks a model: nobody ever pays this.
        million_prompt_tokens: Micro(1_000_000),
        million_output_tokens: Micro(1_000_000),
    };
    Offer { capabilities, tariff, agent_version: text("sim".into()), paused: false, images: List::default() }
}
