//! A whole world on a virtual clock, from one seed: one [`Control`](modchain_core::Control), several
//! [`Supervisor`](modchain_core::Supervisor)s, clients, executors that fail in every way that they can, and a network that
//! delays and cuts. For tests only.
//!
//! The machines are the real ones. What stands around them in production (sockets, disks, containers) is played here by
//! [`world`]; [`swarm`] draws which faults a seed has and how often. [`auditor`] keeps its own naive books from the events
//! alone, with other formulae than core's; [`witness`] knows what the executors really did. A world first lives through its
//! workload and its faults, then everything heals, and then every job must end, with nothing held, reserved or running.
//!
//! Nothing here reads a clock, draws true randomness or iterates in an order of chance: a seed is a complete bug report.

pub mod auditor;
pub mod coverage;
pub mod random;
pub mod swarm;
pub mod witness;
pub mod world;

use std::collections::BTreeMap;
use std::fmt;

use modchain_core::Event;
use modchain_types::{Span, Timestamp};

pub use auditor::{Auditor, Breach, Edge, Rule};
pub use coverage::EndingMet;

/// What worlds that kept every rule went through.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// How many there were.
    pub worlds: u64,
    /// How often each move of the state table was made.
    pub edges: BTreeMap<Edge, u64>,
    /// How often each row of the table of endings was met.
    pub endings: BTreeMap<EndingMet, u64>,
    /// How often each fault befell them.
    pub faults: BTreeMap<&'static str, u64>,
    /// Jobs that were forgotten.
    pub forgotten: u64,
    /// How often the key of a forgotten job made another one.
    pub made_again: u64,
    /// Events in their journals at the end.
    pub events: u64,
    /// Virtual time that passed.
    pub elapsed: Span,
}

impl Tally {
    /// Adds what others went through.
    pub fn absorb(&mut self, other: Self) {
        fn add<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
            from.into_iter().for_each(|(key, count)| *to.entry(key).or_default() += count);
        }
        add(&mut self.edges, other.edges);
        add(&mut self.endings, other.endings);
        add(&mut self.faults, other.faults);
        self.forgotten += other.forgotten;
        self.made_again += other.made_again;
        self.worlds += other.worlds;
        self.events += other.events;
        self.elapsed = self.elapsed.saturating_add(other.elapsed);
    }
}

/// A rule that was broken, with the way there.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Repeats it.
    pub seed: u64,
    /// When it was noticed, in virtual time.
    pub at: Timestamp,
    /// What was broken.
    pub breach: Breach,
    /// The last things that happened, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{:.6} s: {}", self.at.0 as f64 / 1e6, self.breach)?;
        write!(f, "repeat with: SEED={} cargo test -p modchain-sim", self.seed)
    }
}

/// Lives through the world of a seed. A failure is lived through once more to write down the way there.
pub fn check(seed: u64) -> Result<Tally, Box<Failure>> {
    match world::World::new(seed, world::Trace::Off).live() {
        Ok(world) => Ok(world.tally()),
        Err(_) => match world::World::new(seed, world::Trace::On).live() {
            Ok(_) => panic!("seed {seed} failed once and then not: the world is not deterministic"),
            Err(failure) => Err(failure),
        },
    }
}

/// The journal of a world that kept every rule, for tests that break one on purpose.
pub fn journal(seed: u64) -> Result<Vec<Event>, Box<Failure>> {
    world::World::new(seed, world::Trace::Off).live().map(world::World::into_journal)
}
