//! Faults that come from outside.

use modchain_core::{Command, SupervisorInput};
use modchain_types::{AttemptId, Fence, NodeId, Span, Text};

use super::{Happening, World};
use crate::auditor::Breach;
use crate::swarm::Trouble;

impl World {
    pub(super) fn trouble(&mut self) -> Result<(), Breach> {
        if self.swarm.troubles.is_empty() {
            return Ok(());
        }
        let next = self.soon(self.swarm.trouble_every);
        self.at(next, Happening::Trouble);
        let trouble = self.swarm.troubles[self.random.below(self.swarm.troubles.len() as u64) as usize];
        let whole = |node: &&NodeId| !self.auditor.is_revoked((**node).into());
        let nodes: Vec<NodeId> = self.agents.keys().filter(whole).copied().collect();
        if nodes.is_empty() {
            return Ok(()); // a new one is on its way
        }
        let node = self.random.pick(&nodes);
        self.note(|| format!("trouble: {trouble:?} for {node}"));
        match trouble {
            Trouble::Partition => {
                let until = self.soon(self.swarm.partition_max);
                self.partition(node, until);
            }
            Trouble::AgentCrash => {
                let restart_within = Span::from_secs(self.random.pick(&[0, 5, 200]));
                self.agent_dies(node, restart_within);
            }
            Trouble::AgentShutDown => {
                let Some(process) = &self.agent(node).process else { return Ok(()) };
                let instance = process.instance;
                let grace = Span::from_secs(self.random.below(10));
                self.supervise(node, SupervisorInput::ShutDown { grace })?;
                self.at(self.now + grace + Span::from_secs(5), Happening::AgentStops(node, instance));
            }
            Trouble::OfferChange => self.offer_changes(node),
            Trouble::OrchestratorCrash => {
                self.note(|| "the orchestrator dies".into());
                self.compare_with_replay()?;
                self.orchestrator_dies();
            }
            Trouble::BodyUnreadable => {
                if let Some((attempt, fence)) = self.some_attempt() {
                    let message = Text::cut("bad sector");
                    self.command(Command::BodyUnreadable { attempt, fence, message })?;
                }
            }
            Trouble::Revocation => self.revocation()?,
            Trouble::NodeSet => self.node_is_set(node),
            Trouble::InputFailed => {
                if let Some((attempt, _)) = self.some_attempt() {
                    let message = Text::cut("the input is too long");
                    self.command(Command::InputFailed { job: attempt.job, message })?;
                }
            }
        }
        Ok(())
    }

    /// An attempt that is placed now.
    fn some_attempt(&mut self) -> Option<(AttemptId, Fence)> {
        let control = self.orchestrator.control.as_ref()?;
        let placed: Vec<(AttemptId, Fence)> = control
            .jobs()
            .filter_map(|job| job.placement())
            .map(|placement| (placement.attempt, placement.fence))
            .collect();
        (!placed.is_empty()).then(|| self.random.pick(&placed))
    }
}
