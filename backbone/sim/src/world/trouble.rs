//! Faults that come from outside.

use modchain_core::{Command, SupervisorInput};
use modchain_types::{AttemptId, Fence, JobId, NodeId, Span, Text};

use super::log::Fate;
use super::network::ConnectionId;
use super::{Happening, World};
use crate::auditor::Breach;
use crate::swarm::Trouble;

/// Silence after which a connection may be given up.
const IDLE: Span = Span::from_secs(15);

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
        if self.agent_is_still(node) || (trouble.asks_the_orchestrator() && self.orchestrator_is_still()) {
            return Ok(());
        }
        self.fault(trouble.word());
        match trouble {
            Trouble::Partition => {
                let until = self.soon(self.swarm.partition_max);
                self.partition(node, until);
            }
            Trouble::OneWayLoss => {
                let until = self.soon(self.swarm.partition_max);
                self.loses_one_direction(node, until);
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
            Trouble::AgentStandsStill => {
                let span = self.soon(self.swarm.stop_max).since(self.now);
                self.agent_stands_still(node, span);
            }
            Trouble::AgentDiskFull => {
                let until = self.soon(self.swarm.full_max);
                self.agent(node).full_until = until;
            }
            Trouble::OfferChange => self.offer_changes(node),
            Trouble::Lie => self.somebody_lies(),
            Trouble::OrchestratorCrash => {
                self.compare_with_replay()?;
                let fate = self.random.pick(&[Fate::Lost, Fate::Kept]);
                self.orchestrator_dies("killed", fate)?;
            }
            Trouble::OrchestratorReboot => {
                let fate = self.random.pick(&[Fate::Lost, Fate::Kept]);
                self.orchestrator_dies("its machine boots again", fate)?;
                self.orchestrator.timeline.reboot(self.now);
                self.wall_jumps();
            }
            Trouble::WallJump => self.wall_jumps(),
            Trouble::OrchestratorStandsStill => {
                let span = self.soon(self.swarm.stop_max).since(self.now);
                self.orchestrator_stands_still(span);
            }
            Trouble::OrchestratorDiskFull => {
                let until = self.soon(self.swarm.full_max);
                self.orchestrator.nearly_full_until = until;
                self.orchestrator_looks_at_its_disk();
                self.at(until, Happening::OrchestratorDiskFrees);
                if self.random.chance(30_000) {
                    self.orchestrator.full_until = until;
                }
            }
            Trouble::BodyUnreadable => {
                if self.commit()?
                    && let Some((attempt, fence)) = self.some_attempt()
                {
                    let message = Text::cut("bad sector");
                    self.command(Command::BodyUnreadable { attempt, fence, message })?;
                }
            }
            Trouble::Revocation => self.revocation()?,
            Trouble::NodeSet => self.node_is_set(node),
            Trouble::InputFailed => {
                for _ in 0..self.random.between(1, 4) {
                    if self.commit()?
                        && let Some(job) = self.some_job()
                    {
                        let message = Text::cut("the input is too long");
                        self.command(Command::InputFailed { job, message })?;
                    }
                }
            }
        }
        Ok(())
    }

    fn agent_is_still(&self, node: NodeId) -> bool {
        self.now <= self.agents[&node].stopped_until
    }

    fn orchestrator_is_still(&self) -> bool {
        self.now <= self.orchestrator.stopped_until
    }

    /// By minutes or by a day, there or back.
    fn wall_jumps(&mut self) {
        let by = self.random.pick(&[10 * 60_000, -10 * 60_000, 86_400_000, -86_400_000, 0]);
        self.orchestrator.timeline.move_wall(by);
    }

    /// The process stands still, and meets afterwards what came meanwhile; a long while costs it some connections.
    fn orchestrator_stands_still(&mut self, span: Span) {
        let stopped_at = self.engine_now();
        self.orchestrator.stopped_at = stopped_at;
        self.orchestrator.stopped_until = self.now + span;
        // Before all that waits for it.
        self.at(self.orchestrator.stopped_until, Happening::OrchestratorGoesOn);
        if span < IDLE {
            return;
        }
        let open: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for connection in open {
            if self.random.chance(50_000) {
                self.cut(connection);
            }
        }
    }

    /// A job that is open now.
    fn some_job(&mut self) -> Option<JobId> {
        let open: Vec<JobId> = self.orchestrator.control.as_ref()?.jobs().map(|job| job.id).collect();
        (!open.is_empty()).then(|| self.random.pick(&open))
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
