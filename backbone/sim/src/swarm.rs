//! Which faults a world has. Each seed draws its own set, so that rare faults also meet worlds in which nothing else happens
//! and are not always drowned by the common ones.

use modchain_types::Span;

use crate::random::Random;

/// Chances are in 100,000.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// Machines.
    pub nodes: u64,
    /// Client accounts.
    pub clients: u64,
    /// Steps of the workload.
    pub steps: u64,
    /// Longest time between two steps.
    pub pace: Span,
    /// Longest time that a message is on its way.
    pub delay_max: Span,
    /// That a connection is cut just when a message would arrive.
    pub cut_at_message: u32,
    /// Longest time until a side notices that its connection is dead.
    pub notice_max: Span,
    /// Longest time that a cut link stays cut.
    pub partition_max: Span,
    /// Longest time between two troubles.
    pub trouble_every: Span,
    /// What may befall the world, repeated by weight; empty for none.
    pub troubles: Vec<Trouble>,
    /// That an agent dies between two actions.
    pub crash_at_action: u32,
    /// That the orchestrator dies before its events are synced.
    pub crash_before_sync: u32,
    /// That the orchestrator dies after its events are synced and before anything is let out.
    pub crash_after_sync: u32,
    /// Longest time that decisions of which nobody waits for an answer wait for a common sync.
    pub commit_window: Span,
    /// That a look at the whole state leaves a snapshot behind, from which the next start goes on.
    pub snapshots: u32,
    /// Longest time that a process stands still.
    pub stop_max: Span,
    /// Longest time that a disk stays full.
    pub full_max: Span,
    /// Nodes whose agents say what is not true.
    pub liars: u64,
    /// That a client's request comes twice at once.
    pub request_twice: u32,
    /// That an agent says something twice.
    pub report_twice: u32,
    /// That the answer to a client is lost.
    pub answer_lost: u32,
    /// That an attempt's output never arrives.
    pub output_lost: u32,
    /// That somebody joins by a token, and not by a file.
    pub joins_by_token: u32,
    /// That a second key comes with a token.
    pub tokens_stolen: u32,
    /// That wrong proofs are given for a token.
    pub wrong_proofs: u32,
    /// Longest time between two renewals of a certificate.
    pub renew_every: Span,
    /// Largest drift of an agent's clock, in millionths.
    pub drift_ppm: u64,
    /// What executors do.
    pub executor: ExecutorOdds,
}

/// What executors do, with chances in 100,000.
#[derive(Debug, Clone, Copy)]
pub struct ExecutorOdds {
    /// The attempt cannot be started.
    pub cannot_start: u32,
    /// The engine dies under a running attempt.
    pub node_fault: u32,
    /// The program does not exit with 0.
    pub own_failure: u32,
    /// The program never ends by itself.
    pub endless: u32,
    /// Preparing takes up to some minutes.
    pub slow_prepare: u32,
    /// Preparing never ends.
    pub stuck_prepare: u32,
    /// A stop takes as long as it may.
    pub late_stop: u32,
    /// A stop does nothing, for as long as things go wrong.
    pub stuck_stop: u32,
    /// A container that outlived its agent is not found again.
    pub inspect_fails: u32,
    /// The program starts although it was told to stop while it was prepared.
    pub start_after_stop: u32,
    /// It is a container, and goes on when its agent dies.
    pub container: u32,
}

/// Something that befalls the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A link is cut and stays so for a while.
    Partition,
    /// An agent dies; its disk survives.
    AgentCrash,
    /// An agent is told to stop, and comes back later.
    AgentShutDown,
    /// An owner changes the offer.
    OfferChange,
    /// The orchestrator dies; its journal survives.
    OrchestratorCrash,
    /// A job's body cannot be read.
    BodyUnreadable,
    /// A job's input cannot be completed.
    InputFailed,
    /// A node or a client is revoked.
    Revocation,
    /// Somebody closes a node to new jobs, drains it, or opens it again.
    NodeSet,
    /// Nothing arrives any more in one direction of a link.
    OneWayLoss,
    /// An agent's machine stands still.
    AgentStandsStill,
    /// The orchestrator's process stands still.
    OrchestratorStandsStill,
    /// The orchestrator's machine boots again, and its wall clock may be wrong then.
    OrchestratorReboot,
    /// Somebody moves the orchestrator's wall clock.
    WallJump,
    /// An agent's disk is full for a while.
    AgentDiskFull,
    /// The orchestrator's disk is full for a while: nearly, so that nothing new is taken, or wholly.
    OrchestratorDiskFull,
    /// A node that lies does so.
    Lie,
}

impl Trouble {
    /// Every trouble, with how often it comes beside the others.
    const WEIGHTS: [(Self, usize); 16] = [
        (Self::Partition, 6),
        (Self::AgentCrash, 4),
        (Self::AgentShutDown, 2),
        (Self::OfferChange, 2),
        (Self::OrchestratorCrash, 2),
        (Self::BodyUnreadable, 1),
        (Self::InputFailed, 2),
        (Self::Revocation, 1),
        (Self::NodeSet, 3),
        (Self::OneWayLoss, 3),
        (Self::AgentStandsStill, 3),
        (Self::OrchestratorStandsStill, 2),
        (Self::OrchestratorReboot, 1),
        (Self::WallJump, 1),
        (Self::AgentDiskFull, 2),
        (Self::OrchestratorDiskFull, 1),
    ];

    /// Every trouble.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::WEIGHTS.into_iter().map(|(trouble, _)| trouble).chain([Self::Lie])
    }

    /// What it is called in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Partition => "link cut for a while",
            Self::AgentCrash => "agent killed",
            Self::AgentShutDown => "agent told to stop",
            Self::OfferChange => "offer changed",
            Self::OrchestratorCrash => "orchestrator killed",
            Self::BodyUnreadable => "body unreadable",
            Self::InputFailed => "input failed",
            Self::Revocation => "revocation",
            Self::NodeSet => "node cordoned, drained or opened",
            Self::OneWayLoss => "one direction lost",
            Self::AgentStandsStill => "agent stands still",
            Self::OrchestratorStandsStill => "orchestrator stands still",
            Self::OrchestratorReboot => "orchestrator's machine booted",
            Self::WallJump => "wall clock moved",
            Self::AgentDiskFull => "agent's disk full",
            Self::OrchestratorDiskFull => "orchestrator's disk full",
            Self::Lie => "node lies",
        }
    }

    /// Whether it is something that the orchestrator's own process takes part in.
    pub(crate) fn asks_the_orchestrator(self) -> bool {
        match self {
            Self::BodyUnreadable | Self::InputFailed | Self::Revocation | Self::OrchestratorStandsStill => true,
            Self::Partition
            | Self::AgentCrash
            | Self::AgentShutDown
            | Self::OfferChange
            | Self::OrchestratorCrash
            | Self::NodeSet
            | Self::OneWayLoss
            | Self::AgentStandsStill
            | Self::OrchestratorReboot
            | Self::WallJump
            | Self::AgentDiskFull
            | Self::OrchestratorDiskFull
            | Self::Lie => false,
        }
    }
}

impl Swarm {
    /// Draws the faults of a world.
    pub fn draw(random: &mut Random) -> Self {
        let mut sometimes = |chances: &[u32]| if random.chance(50_000) { random.pick(chances) } else { 0 };
        let cut_at_message = sometimes(&[20, 200, 2_000]);
        let crash_at_action = sometimes(&[50, 500]);
        let crash_before_sync = sometimes(&[20, 200]);
        let crash_after_sync = sometimes(&[20, 200]);
        let answer_lost = sometimes(&[1_000, 20_000, 50_000]);
        let output_lost = sometimes(&[500, 10_000, 50_000]);
        let tokens_stolen = sometimes(&[5_000, 50_000]);
        let wrong_proofs = sometimes(&[10_000, 50_000]);
        let request_twice = sometimes(&[1_000, 20_000]);
        let report_twice = sometimes(&[1_000, 20_000]);
        let executor = ExecutorOdds {
            cannot_start: sometimes(&[1_000, 20_000]),
            node_fault: sometimes(&[1_000, 20_000]),
            own_failure: sometimes(&[10_000, 50_000]),
            endless: sometimes(&[2_000, 30_000]),
            slow_prepare: sometimes(&[1_000, 20_000]),
            stuck_prepare: sometimes(&[200, 2_000]),
            late_stop: sometimes(&[10_000, 90_000]),
            stuck_stop: sometimes(&[500, 5_000]),
            inspect_fails: sometimes(&[10_000, 90_000]),
            start_after_stop: sometimes(&[50_000]),
            container: sometimes(&[50_000, 90_000]),
        };
        let mut troubles = Vec::new();
        for (trouble, weight) in Trouble::WEIGHTS {
            if random.chance(50_000) {
                troubles.extend([trouble].repeat(weight));
            }
        }
        let nodes = random.between(1, 8);
        let delay_max = Span::from_millis(random.pick(&[1, 50, 500, 500, 5_000, 15_000]));
        if delay_max > Span::from_secs(10) {
            // Only where answers are on their way for longer than a lease has margin does it matter when a lease begins.
            troubles.extend([Trouble::OneWayLoss].repeat(12));
        }
        let liars = if random.chance(30_000) { random.between(1, nodes) } else { 0 };
        if liars > 0 {
            troubles.extend([Trouble::Lie].repeat(8));
        }
        Self {
            nodes,
            clients: random.between(1, 5),
            steps: random.between(400, 500),
            pace: Span::from_millis(random.pick(&[300, 2_000, 8_000])),
            delay_max,
            cut_at_message,
            notice_max: Span::from_millis(random.pick(&[10, 2_000, 15_000])),
            partition_max: Span::from_secs(random.pick(&[5, 60, 400])),
            trouble_every: Span::from_secs(random.pick(&[4, 20, 100])),
            troubles,
            crash_at_action,
            crash_before_sync,
            crash_after_sync,
            commit_window: Span::from_millis(random.pick(&[0, 0, 5, 100])),
            snapshots: random.pick(&[0, 10_000, 50_000]),
            stop_max: Span::from_secs(random.pick(&[1, 10, 60, 100])),
            full_max: Span::from_secs(random.pick(&[1, 30, 200])),
            liars,
            request_twice,
            report_twice,
            answer_lost,
            output_lost,
            joins_by_token: random.pick(&[0, 50_000, 100_000]),
            tokens_stolen,
            wrong_proofs,
            renew_every: Span::from_secs(random.pick(&[400, 2_000, 6_000])),
            drift_ppm: random.pick(&[0, 100, 10_000]),
            executor,
        }
    }

    /// The same world with nothing going wrong any more.
    pub fn heal(&mut self) {
        self.cut_at_message = 0;
        self.troubles.clear();
        self.crash_at_action = 0;
        self.crash_before_sync = 0;
        self.crash_after_sync = 0;
        self.request_twice = 0;
        self.report_twice = 0;
        self.liars = 0;
        self.answer_lost = 0;
        self.output_lost = 0;
        self.tokens_stolen = 0;
        self.wrong_proofs = 0;
        self.executor = ExecutorOdds {
            cannot_start: 0,
            node_fault: 0,
            own_failure: 0,
            endless: 0,
            slow_prepare: 0,
            stuck_prepare: 0,
            late_stop: 0,
            stuck_stop: 0,
            inspect_fails: 0,
            start_after_stop: 0,
            container: 0,
        };
    }
}
