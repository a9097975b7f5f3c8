//! This program's side of the console protocol, and what it keeps on disk for its user. Knows no terminal.

pub(crate) mod colour;
pub(crate) mod config;
pub(crate) mod feed;
pub(crate) mod identities;
pub(crate) mod link;
pub(crate) mod live;
pub(crate) mod log_buffer;
pub(crate) mod mirror;
pub(crate) mod renewal;
#[cfg(test)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../../tests/common/samples.rs"]
pub(crate) mod samples;
pub(crate) mod series;
pub(crate) mod state;

pub(crate) use link::Client;
