//! The end: nothing goes wrong any more, and everything must come to rest.

use modchain_core::node::Standing;
use modchain_types::{InventoryItem, ItemState, NodeId, Span};

use super::World;
use crate::auditor::{Breach, Rule, rule};

/// Longer than any silence, restart, cool-down and wait for output that the storm may have left behind.
const QUIET: Span = Span::from_secs(15 * 60);
/// Longer than a drained node may take to let go of what it had, once nothing goes wrong any more.
const DRAINED_WITHIN: Span = Span::from_secs(3 * 60);
/// Longer than anything is on its way.
const IN_FLIGHT: Span = Span::from_secs(30);
/// Longer than any grace time with its margin, twice.
const LAST_ORDERS: Span = Span::from_secs(10 * 60);

impl World {
    pub(super) fn healing(&mut self) -> Result<(), Breach> {
        self.note(|| "everything heals".into());
        self.swarm.heal();
        let now = self.now;
        for agent in self.agents.values_mut() {
            (agent.cut_off_until, agent.full_until) = (now, agent.full_until.min(now));
        }
        (self.orchestrator.full_until, self.orchestrator.nearly_full_until) = (now, now);
        self.orchestrator_looks_at_its_disk();
        self.stuck_stops_end();
        self.liars_become_honest();
        self.take_revoked_machines_away();
        self.live_for(QUIET)?;
        // The last commands may still wait to be committed, and what they make room for to be placed.
        self.advance()?;
        match self.nothing_waits_in_vain() {
            // In a slow network something has just been given up, and the word that it is to end is on its way.
            Err(breach) if breach.rule == Rule::EverythingEnds => {
                self.live_for(IN_FLIGHT)?;
                self.advance()?;
                self.nothing_waits_in_vain()?;
            }
            looked => looked?,
        }
        self.cancel_everything()?;
        self.live_for(LAST_ORDERS)?;
        self.advance()?;
        self.everything_has_ended()?;
        self.everybody_comes_in()?;
        self.look_at_the_whole()?;
        self.compare_with_replay()
    }

    fn live_for(&mut self, span: Span) -> Result<(), Breach> {
        let end = self.now + span;
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.next()?;
        }
        self.now = end;
        Ok(())
    }

    /// What is queued fits nowhere; what is placed is on its node, and nothing else is.
    fn nothing_waits_in_vain(&mut self) -> Result<(), Breach> {
        let now = self.engine_now();
        let control = self.orchestrator.control.as_ref().expect("it came back");
        for job in control.jobs() {
            match job.placement() {
                None => {
                    let fits = control.fitness_of(now, job.id).expect("it is queued");
                    let fit = fits.iter().find(|fit| fit.reasons.is_empty());
                    rule(Rule::NothingWaitsInVain, fit.is_none(), || format!("{} waits, and {fit:?} fits", job.id))?;
                }
                Some(placement) => {
                    let drained = control.node(placement.node).is_some_and(|node| match node.standing {
                        Standing::Draining(Some(until)) => until + DRAINED_WITHIN <= now,
                        Standing::Draining(None) | Standing::Cordoned | Standing::Open => false,
                    });
                    rule(Rule::NothingWaitsInVain, !drained, || {
                        format!("{} is {:?} on a node that was drained", placement.attempt, placement.progress)
                    })?;
                    let on_its_way = now.since(placement.assigned_at) < IN_FLIGHT;
                    let held = self.on_node(placement.node).iter().any(|item| item.attempt == placement.attempt);
                    rule(Rule::NothingWaitsInVain, held || on_its_way, || {
                        format!(
                            "{} is {:?} on {}, which does not know it",
                            placement.attempt, placement.progress, placement.node
                        )
                    })?;
                }
            }
        }
        for node in self.agents.keys() {
            // What has ended may wait for an acknowledgement that is on its way.
            for item in self.on_node(*node).iter().filter(|item| item.state != ItemState::Ended) {
                let placed = control.job(item.attempt.job).and_then(|job| job.placement());
                let ours = placed.is_some_and(|placed| placed.attempt == item.attempt && placed.node == *node);
                rule(Rule::EverythingEnds, ours, || format!("{item:?} is still on {node}, and not placed there"))?;
            }
        }
        Ok(())
    }

    fn on_node(&self, node: NodeId) -> Vec<InventoryItem> {
        self.agents[&node].process.as_ref().map_or(Vec::new(), |process| process.supervisor.inventory())
    }

    fn everything_has_ended(&mut self) -> Result<(), Breach> {
        let ends = |holds: bool, what: &dyn Fn() -> String| rule(Rule::EverythingEnds, holds, what);
        let control = self.orchestrator.control.as_ref().expect("nothing crashes any more");
        let open: Vec<_> = control.jobs().map(|job| (job.id, job.state())).collect();
        ends(open.is_empty(), &|| format!("open: {open:?}"))?;
        let held = &self.auditor.books().held;
        ends(held.is_empty(), &|| format!("held: {held:?}"))?;
        for node in control.nodes() {
            ends(node.taken == Default::default(), &|| format!("reserved on {}: {:?}", node.name, node.taken))?;
        }
        for (node, agent) in &self.agents {
            let left = self.on_node(*node);
            let running = agent.process.as_ref().map_or(0, |process| process.executors.len());
            ends(left.is_empty() && running == 0 && agent.kept() == 0, &|| {
                format!("{node} has {left:?}, {running} executors and {} attempts on disk", agent.kept())
            })?;
        }
        let missing = self.accepted().find(|job| self.auditor.ended(*job).is_none());
        rule(Rule::AnswersKept, missing.is_none(), || format!("{missing:?} was accepted and has not ended"))?;
        let unanswered = self.unanswered();
        ends(unanswered.is_empty(), &|| format!("never answered: {unanswered:?}"))
    }
}
