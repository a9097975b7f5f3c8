//! What follows from all that is known and takes a look at all of it: pools, money that was spent, the jobs of one node. Worked out
//! when something has changed that is on the screen, never at every frame.

use modchain_types::{JobId, Micro, Name};

use super::super::app::{App, Ctx, Place};
use super::nodes;
use crate::client::mirror::{Spending, midnight};
use crate::client::series::{STEP_MS, percent};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// What was worked out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Nodes by pool, those without one last.
    pub(crate) pools: Vec<Pool>,
    /// What all nodes together do.
    pub(crate) whole: Whole,
    /// What was spent.
    pub(crate) spending: Spending,
    /// The jobs that are on the node that is looked at.
    pub(crate) node_jobs: Vec<JobId>,
    pools_of: Option<u64>,
    lines_of: Option<i64>,
    spending_of: Option<(u64, i64, bool)>,
    node_jobs_of: Option<(u64, Name)>,
}

/// The nodes that have the same label `pool`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    /// The label; `None` for nodes without one.
    pub(crate) name: Option<String>,
    /// How many there are.
    pub(crate) nodes: u64,
    /// Those that take jobs.
    pub(crate) ready: u64,
    /// Their GPUs.
    pub(crate) gpus: u64,
    /// Those that no job holds.
    pub(crate) free: u64,
    /// Mean busy share of the GPUs that tell it, in percent.
    pub(crate) busy: Option<u64>,
    /// The lowest price of a GPU for an hour, or of a core where there is no GPU.
    pub(crate) price: Option<Micro>,
}

/// What all nodes together do now, and did in the last five minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    /// Memory of GPUs that is in use, in percent.
    pub(crate) vram: Option<u8>,
    /// Mean busy share of the processors, in percent.
    pub(crate) cpu: Option<u8>,
    /// Busy shares of GPUs.
    pub(crate) gpu_line: Vec<Option<u8>>,
    /// Used shares of their memory.
    pub(crate) vram_line: Vec<Option<u8>>,
    /// Busy shares of processors.
    pub(crate) cpu_line: Vec<Option<u8>>,
}

/// Works out anew what is on the screen and has changed.
pub(crate) fn settle(app: &mut App) {
    super::overview::settle(app);
    let place = app.place();
    let mut known = std::mem::take(&mut app.ui.known);
    let ctx = app.ctx();
    if place == Place::Overview {
        known.pools(&ctx);
    }
    if matches!(place, Place::Overview | Place::Account) {
        known.spending(&ctx);
    }
    if let Some(node) = nodes::shown(app) {
        known.node_jobs(&ctx, node);
    }
    app.ui.known = known;
}

impl Known {
    fn pools(&mut self, ctx: &Ctx<'_>) {
        let revision = ctx.mirror.node_changes.revision();
        if self.pools_of != Some(revision) {
            self.pools_of = Some(revision);
            let all = ctx.mirror.pools();
            let pools = all.by_name.iter().map(|(name, pool)| Pool {
                name: name.as_deref().map(crate::text::one_line),
                nodes: pool.nodes,
                ready: pool.ready,
                gpus: pool.gpus,
                free: pool.free,
                busy: pool.busy.0.checked_div(pool.busy.1),
                price: pool.prices.keys().next().copied(),
            });
            self.pools = pools.collect();
            self.pools.sort_by(|one, two| two.gpus.cmp(&one.gpus).then_with(|| two.nodes.cmp(&one.nodes)));
            self.whole.vram = percent(all.memory.0, all.memory.1);
            self.whole.cpu = percent(all.cpu.0.into(), all.cpu.1.into());
        }
        let step = ctx.local_now.0.div_euclid(STEP_MS);
        if self.lines_of != Some(step) {
            self.lines_of = Some(step);
            self.whole.gpu_line = ctx.mirror.series.gpu(ctx.local_now);
            self.whole.vram_line = ctx.mirror.series.vram(ctx.local_now);
            self.whole.cpu_line = ctx.mirror.series.cpu(ctx.local_now);
        }
    }

    fn spending(&mut self, ctx: &Ctx<'_>) {
        let of = (ctx.mirror.ledger_revision, ctx.now.0.div_euclid(HOUR_MS), ctx.utc);
        if self.spending_of != Some(of) {
            self.spending_of = Some(of);
            self.spending = ctx.mirror.spending(ctx.now, midnight(ctx.now, ctx.utc));
        }
    }

    fn node_jobs(&mut self, ctx: &Ctx<'_>, node: Name) {
        let of = (ctx.mirror.job_changes.revision(), node);
        if self.node_jobs_of.as_ref() != Some(&of) {
            self.node_jobs = ctx.mirror.jobs_on(&of.1).collect();
            self.node_jobs_of = Some(of);
        }
    }
}
