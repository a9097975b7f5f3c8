//! A real orchestrator in this process (journal, stores, QUIC on loopback), with scripted agents and consoles that speak the
//! protocols by hand.

mod peers;
#[path = "session/world.rs"]
mod world;

#[path = "session/archive.rs"]
mod archive;
#[path = "session/eavesdropper.rs"]
mod eavesdropper;
#[path = "session/forgetting.rs"]
mod forgetting;
#[path = "session/joiner.rs"]
mod joiner;
#[path = "session/needles.rs"]
mod needles;

#[path = "session/jobs.rs"]
mod jobs;
#[path = "session/joining.rs"]
mod joining;
#[path = "session/nodes.rs"]
mod nodes;
#[path = "session/output.rs"]
mod output;
#[path = "session/retention.rs"]
mod retention;
#[path = "session/secrets.rs"]
mod secrets;
#[path = "session/strangers.rs"]
mod strangers;
#[path = "session/watching.rs"]
mod watching;
