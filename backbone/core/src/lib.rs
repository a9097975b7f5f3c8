//! The two machines that decide everything: [`Control`] in the orchestrator, [`Supervisor`] in each agent.
//!
//! This crate is pure. It has no clock, no I/O, no threads, no randomness and no maps without an order: what comes in decides
//! what comes out, so a journal replays to the same state and a simulation repeats from its seed.
//!
//! Start with [`command`], [`event`] and [`effect`]: what comes in, what is remembered, what must be done. Then [`control`]
//! ties them together; [`job`], [`node`] and [`membership`] hold the states, [`scheduler`] chooses nodes, [`ledger`], [`meter`] and
//! [`settle`] handle money, [`deadline`] lists every timer, and [`audit`] checks the lot.

pub mod audit;
pub mod command;
pub mod control;
pub mod deadline;
pub mod effect;
pub mod event;
pub mod job;
pub mod ledger;
pub mod membership;
pub mod meter;
pub mod node;
#[cfg(feature = "planted")]
pub mod planted;
pub mod scheduler;
pub mod settle;
pub mod supervisor;

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("planted bugs are for tests, and for builds that check themselves");

pub use command::{Actor, AgentArrival, Command, Redemption, Refused, Reply, SessionId};
pub use control::{Control, ControlConfig, Decision};
pub use effect::{Effect, NodeMessage, SessionEnd};
pub use event::{Event, EventBody, Outcome, Settlement};
pub use scheduler::explain::NodeFit;
pub use scheduler::outlook::Outlook;
pub use scheduler::queue::Ceilings;
pub use supervisor::{Action, Input as SupervisorInput, Supervisor, SupervisorConfig};
