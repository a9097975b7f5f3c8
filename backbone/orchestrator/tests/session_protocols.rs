//! A real orchestrator in this process (journal, stores, QUIC on loopback), with scripted agents and consoles that speak the
//! protocols by hand.

mod peers;
#[path = "session/world.rs"]
mod world;

#[path = "session/jobs.rs"]
mod jobs;
#[path = "session/output.rs"]
mod output;
#[path = "session/strangers.rs"]
mod strangers;
#[path = "session/watching.rs"]
mod watching;
