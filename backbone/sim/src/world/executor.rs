//! What jobs do: start late, never or not at all, end well, badly or only when they are stopped.

use modchain_core::SupervisorInput;
use modchain_types::{
    Assignment, AttemptId, Ending, Fault, Fence, InstanceId, NodeId, OnDisconnect, OutputLengths, Span, Text,
    Timestamp, Usage,
};

use super::{Happening, World};
use crate::auditor::Breach;

/// How much longer than its grace a stop may take: less than the margin that the orchestrator adds to a lease.
const KILL_WITHIN: Span = Span::from_secs(3);

#[derive(Debug)]
pub(super) struct Executor {
    fence: Fence,
    on_disconnect: OnDisconnect,
    /// Whether it goes on when its agent dies.
    is_container: bool,
    stage: Stage,
    /// What comes next by itself, if anything does.
    next: Option<(Timestamp, Next)>,
    /// Whether it was told to stop.
    told: bool,
    /// When it is gone because it was told to stop.
    killed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Preparing,
    Running { since: Timestamp },
}

#[derive(Debug, Clone)]
enum Next {
    Start,
    End(Ending),
}

impl Executor {
    /// When its own code began to run, by the world's clock.
    pub(super) fn runs_since(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Preparing => None,
            Stage::Running { since } => Some(since),
        }
    }

    /// What its attempt was assigned under.
    pub(super) fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether nobody has told it to stop.
    pub(super) fn is_untold(&self) -> bool {
        !self.told
    }

    /// Whether it goes on without its agent, which is just dying: then nobody is left to carry out an order to stop.
    pub(super) fn outlives_its_agent(&mut self) -> bool {
        (self.told, self.killed_at) = (false, None);
        self.is_container && self.runs_since().is_some()
    }
}

impl World {
    pub(super) fn executor_begins(&mut self, node: NodeId, assignment: &Assignment) -> Result<(), Breach> {
        let fence = assignment.claim.fence;
        self.witness.begins((assignment.attempt, fence))?;
        let odds = self.swarm.executor;
        let prepare = if self.random.chance(odds.slow_prepare) { Span::from_secs(180) } else { Span::from_secs(2) };
        let at = self.soon(prepare);
        let next = if self.random.chance(odds.stuck_prepare) {
            None
        } else if self.random.chance(odds.cannot_start) {
            let fault = self.random.pick(&[Fault::Job, Fault::NotFound, Fault::Command, Fault::Node, Fault::Node]);
            Some((at, Next::End(Ending::CannotStart { fault, message: Text::cut("cannot start") })))
        } else {
            Some((at, Next::Start))
        };
        let on_disconnect = assignment.spec.limits.on_disconnect;
        // A killed agent cannot end what was to end with its lease: that is said to whoever asks for it, so containers of
        // that kind are left out here.
        let is_container = on_disconnect == OnDisconnect::Keep && self.random.chance(odds.container);
        let stage = Stage::Preparing;
        let executor = Executor { fence, on_disconnect, is_container, stage, next, told: false, killed_at: None };
        let process = self.agent(node).process.as_mut().expect("only a process begins attempts");
        process.executors.insert(assignment.attempt, executor);
        self.plan_executor(node, assignment.attempt);
        Ok(())
    }

    /// A container that outlived its agent is watched again; what happened to it meanwhile is seen now.
    pub(super) fn executor_resumes(&mut self, node: NodeId, attempt: AttemptId, mut container: Executor) {
        let now = self.now;
        if let Some((at, _)) = &mut container.next {
            *at = now.max(*at);
        }
        let process = self.agent(node).process.as_mut().expect("only a process resumes attempts");
        process.executors.insert(attempt, container);
        self.plan_executor(node, attempt);
    }

    pub(super) fn executor_stops(&mut self, node: NodeId, attempt: AttemptId, grace: Span) {
        let latest =
            if self.random.chance(self.swarm.executor.late_stop) { KILL_WITHIN } else { Span::from_millis(200) };
        let at = self.soon(grace.saturating_add(latest));
        let starts_anyway = self.random.chance(self.swarm.executor.start_after_stop);
        let is_stuck = self.random.chance(self.swarm.executor.stuck_stop);
        let Some(executor) = self.executor(node, attempt) else { return };
        executor.told = true;
        if is_stuck && executor.killed_at.is_none() {
            // Nobody can promise anything of what cannot be killed.
            let fence = executor.fence;
            self.witness.excuse((attempt, fence));
            self.fault("stop that does nothing");
            return;
        }
        executor.killed_at = Some(executor.killed_at.map_or(at, |before| before.min(at)));
        if matches!(executor.stage, Stage::Preparing) && !starts_anyway {
            executor.next = None;
        }
        self.plan_executor(node, attempt);
    }

    pub(super) fn executor_due(
        &mut self,
        node: NodeId,
        instance: InstanceId,
        attempt: AttemptId,
    ) -> Result<(), Breach> {
        let now = self.now;
        let Some(process) = self.process(node, instance) else { return Ok(()) };
        let Some(executor) = process.executors.get_mut(&attempt) else { return Ok(()) };
        let due = executor.next.as_ref().is_some_and(|(at, _)| *at <= now);
        let killed = executor.killed_at.is_some_and(|at| at <= now);
        match executor.next.take_if(|_| due) {
            Some((_, Next::Start)) => self.executor_starts(node, attempt),
            Some((_, Next::End(ending))) => self.executor_ends(node, attempt, ending),
            None if killed => self.executor_ends(node, attempt, Ending::Stopped),
            None => Ok(()), // planned for something that has changed since
        }
    }

    fn executor_starts(&mut self, node: NodeId, attempt: AttemptId) -> Result<(), Breach> {
        let now = self.now;
        let odds = self.swarm.executor;
        let runs = self.random.pick(&[Span::from_millis(20), Span::from_secs(5), Span::from_secs(60)]);
        let at = self.soon(runs);
        let ending = if self.random.chance(odds.endless) {
            None
        } else if self.random.chance(odds.node_fault) {
            Some(Ending::NodeFault { message: Text::cut("the engine died") })
        } else if self.random.chance(odds.own_failure) {
            Some(match self.random.below(5) {
                0 => Ending::Signalled { signal: 11 },
                1 => Ending::Trapped { message: Text::cut("unreachable") },
                2 => Ending::MemoryLimit,
                3 => Ending::PidsLimit { code: self.random.between(1, 255) as u8 },
                _ => Ending::Exited { code: self.random.between(1, 255) as u8 },
            })
        } else {
            Some(Ending::Exited { code: 0 })
        };
        let executor = self.executor(node, attempt).expect("only a prepared executor starts");
        executor.stage = Stage::Running { since: now };
        executor.next = ending.map(|ending| (at, Next::End(ending)));
        let (fence, on_disconnect) = (executor.fence, executor.on_disconnect);
        self.witness.starts(now, (attempt, fence), on_disconnect)?;
        self.plan_executor(node, attempt);
        self.supervise(node, SupervisorInput::Started { attempt })
    }

    fn executor_ends(&mut self, node: NodeId, attempt: AttemptId, ending: Ending) -> Result<(), Breach> {
        self.did_not_run_in_vain(node, attempt)?;
        let now = self.now;
        let agent = self.agent(node);
        let process = agent.process.as_mut().expect("executors die with their process");
        let executor = process.executors.remove(&attempt).expect("only an executor ends");
        let (ran, stdout) = match executor.stage {
            Stage::Preparing => (Span::ZERO, 0),
            Stage::Running { since } => (agent.measures(since, now), self.random.pick(&[0, 0, 1, 5_000])),
        };
        self.witness.ends(now, (attempt, executor.fence), ending.clone());
        let usage = Usage { ran, ..Usage::default() };
        let output = OutputLengths { stdout, ..OutputLengths::default() };
        self.supervise(node, SupervisorInput::Ended { attempt, ending, usage, output })
    }

    /// What would not stop stops now.
    pub(super) fn stuck_stops_end(&mut self) {
        let stuck: Vec<(NodeId, AttemptId)> = self
            .agents
            .iter()
            .flat_map(|(node, agent)| agent.process.iter().map(move |process| (*node, process)))
            .flat_map(|(node, process)| {
                process.executors.iter().map(move |(attempt, executor)| (node, *attempt, executor))
            })
            .filter(|(_, _, executor)| executor.told && executor.killed_at.is_none())
            .map(|(node, attempt, _)| (node, attempt))
            .collect();
        for (node, attempt) in stuck {
            self.executor_stops(node, attempt, Span::ZERO);
        }
    }

    /// Whether an attempt runs there that nobody has told to stop.
    pub(super) fn runs_untold(&self, node: NodeId, attempt: AttemptId) -> bool {
        let process = self.agents[&node].process.as_ref();
        process.and_then(|process| process.executors.get(&attempt)).is_some_and(Executor::is_untold)
    }

    fn executor(&mut self, node: NodeId, attempt: AttemptId) -> Option<&mut Executor> {
        self.agent(node).process.as_mut()?.executors.get_mut(&attempt)
    }

    fn plan_executor(&mut self, node: NodeId, attempt: AttemptId) {
        let Some(process) = &self.agent(node).process else { return };
        let instance = process.instance;
        let executor = &process.executors[&attempt];
        let due = [executor.next.as_ref().map(|(at, _)| *at), executor.killed_at];
        for at in due.into_iter().flatten() {
            self.at(at, Happening::Executor(node, instance, attempt));
        }
    }
}
