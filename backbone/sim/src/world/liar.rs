//! Agents that say what is not true: of their own attempts and of others', under fences that they guess, with usage and
//! output that never was, and offers that no machine can keep.

use modchain_types::{
    AttemptId, Ending, Fault, Fence, InventoryItem, ItemState, JobId, Micro, NodeId, OutputLengths, Report, ReportBody,
    Span, Text, Usage,
};

use super::World;
use super::network::FromAgent;

impl World {
    /// One of the nodes that lie does so.
    pub(super) fn somebody_lies(&mut self) {
        let lies: Vec<NodeId> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.lies && agent.process.is_some())
            .map(|(node, _)| *node)
            .collect();
        if lies.is_empty() {
            return;
        }
        let node = self.random.pick(&lies);
        for _ in 0..self.random.between(1, 4) {
            if self.random.chance(10_000) {
                self.lies_about_its_offer(node);
            } else {
                self.lies_about_an_attempt(node);
            }
        }
    }

    fn lies_about_an_attempt(&mut self, node: NodeId) {
        let (attempt, fence) = self.attempt_to_lie_about(node);
        let body = self.draw_lie();
        self.fault("lie about an attempt");
        if let ReportBody::Ended { output, .. } = body
            && self.random.chance(50_000)
        {
            self.send_if_open(node, FromAgent::OutputEnd { attempt, fence, lengths: output });
        }
        self.send_if_open(node, FromAgent::Report(Report { attempt, fence, body }));
    }

    /// Mostly one of its own, by its true fence, and rather one that is told to stop; else another node's, one that is over, or
    /// none at all.
    fn attempt_to_lie_about(&mut self, node: NodeId) -> (AttemptId, Fence) {
        let others = self.random.chance(30_000);
        let jobs = self.orchestrator.control.iter().flat_map(|control| control.jobs());
        let mut fits: Vec<(AttemptId, Fence, bool)> = jobs
            .filter_map(|job| job.placement().map(|placement| (placement, job.stop.is_some())))
            .filter(|(placement, _)| (placement.node == node) != others)
            .map(|(placement, stops)| (placement.attempt, placement.fence, stops))
            .collect();
        if self.random.chance(50_000) && fits.iter().any(|(_, _, stops)| *stops) {
            fits.retain(|(_, _, stops)| *stops);
        }
        if fits.is_empty() {
            return (AttemptId { job: JobId(self.random.bytes()), number: 1 }, Fence(self.random.below(10_000)));
        }
        let (attempt, fence, _) = self.random.pick(&fits);
        match self.random.below(10) {
            0 => (attempt, Fence(fence.0 - 1)),
            1 => (attempt, Fence(fence.0 + 1)),
            2 => (AttemptId { number: attempt.number - 1, ..attempt }, fence),
            3 => (AttemptId { number: attempt.number + 1, ..attempt }, fence),
            _ => (attempt, fence),
        }
    }

    fn draw_lie(&mut self) -> ReportBody {
        let text = || Text::cut("so it is");
        match self.random.below(8) {
            0 => ReportBody::Refused { message: text() },
            1 => ReportBody::Starting,
            2 => ReportBody::Started,
            3 => ReportBody::Pinned { image: Text::cut("elsewhere@sha256:0") },
            _ => {
                let ran = self.random.pick(&[Span::ZERO, Span::from_secs(1), Span::from_secs(3_600), Span::MAX]);
                let tokens = self.random.pick(&[0, 1_000, u64::MAX]);
                let usage = Usage { ran, prompt_tokens: tokens, output_tokens: tokens, ..Usage::default() };
                let stdout = self.random.pick(&[0, 0, 1_000, u64::MAX]);
                let output = OutputLengths { stdout, ..OutputLengths::default() };
                ReportBody::Ended { ending: self.draw_ending(), usage, output }
            }
        }
    }

    fn draw_ending(&mut self) -> Ending {
        let text = || Text::cut("so it ended");
        let fault = self.random.pick(&[Fault::Job, Fault::NotFound, Fault::Command, Fault::Node]);
        match self.random.below(12) {
            0 => Ending::Exited { code: 1 },
            1 => Ending::Signalled { signal: 255 },
            2 => Ending::Trapped { message: text() },
            3 => Ending::MemoryLimit,
            4 => Ending::PidsLimit { code: 255 },
            5 => Ending::RunLimit,
            6 => Ending::Stopped,
            7 => Ending::CannotStart { fault, message: text() },
            8 => Ending::NodeFault { message: text() },
            9 => Ending::LeaseEnded,
            _ => Ending::Exited { code: 0 },
        }
    }

    /// More than any machine has, at prices that nobody asks.
    fn lies_about_its_offer(&mut self, node: NodeId) {
        let mut offer = self.agent(node).offer.clone();
        offer.capabilities.cpu_milli = self.random.pick(&[0, 1, u32::MAX]);
        offer.capabilities.memory_bytes = self.random.pick(&[0, 1 << 30, u64::MAX]);
        offer.capabilities.slots = self.random.pick(&[0, 1, 64]);
        offer.tariff.core_hour = Micro(self.random.pick(&[0, 1 << 40]));
        offer.tariff.minimum = Micro(self.random.pick(&[0, 1 << 40]));
        self.fault("lie about an offer");
        self.send_if_open(node, FromAgent::Offer(Box::new(offer)));
    }

    /// What it says in its hello: some of what it has, in some state, and what it never had.
    pub(super) fn inventory_told(&mut self, node: NodeId, mut inventory: Vec<InventoryItem>) -> Vec<InventoryItem> {
        if self.swarm.liars == 0 || !self.agents[&node].lies || self.random.chance(50_000) {
            return inventory;
        }
        self.fault("lie about an inventory");
        inventory.retain(|_| self.random.chance(50_000));
        let states = [ItemState::Starting, ItemState::Running, ItemState::Ended];
        for item in &mut inventory {
            item.state = self.random.pick(&states);
        }
        let (attempt, fence) = self.attempt_to_lie_about(node);
        inventory.push(InventoryItem { attempt, fence, state: self.random.pick(&states) });
        inventory
    }

    /// From now on everybody tells what is, and begins with a new hello.
    pub(super) fn liars_become_honest(&mut self) {
        let lie: Vec<NodeId> = self.agents.iter().filter(|(_, agent)| agent.lies).map(|(node, _)| *node).collect();
        for node in lie {
            let process = self.agents[&node].process.as_ref();
            if let Some(connection) = process.and_then(|process| process.session.connection()) {
                self.cut(connection);
            }
        }
    }
}
