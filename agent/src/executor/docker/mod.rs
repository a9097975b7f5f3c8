//! The `docker` executor.

use modchain_types::DockerTask;

use super::{Running, StartRequest};

/// Runs containers on the machine's engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerExecutor {}

impl DockerExecutor {
    /// Starts an attempt. Never fails: what cannot be started says so in its only event.
    pub fn start(&self, _request: StartRequest, _task: DockerTask) -> Running {
        Running::refused("not built yet")
    }
}
