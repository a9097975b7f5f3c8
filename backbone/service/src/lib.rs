//! The agent and the orchestrator as services of systemd: what they tell it while they run, and the units that run them.
//!
//! Without systemd none of this does anything: a program that nobody manages tells nobody. It must never fail a program because
//! its manager cannot be told. Reading order: [`notify`] (ready, status and watchdog), [`mod@unit`] (what
//! a unit says, and why), [`machine`] (puts a unit in place and takes it away).

pub mod machine;
pub mod notify;
pub mod unit;
