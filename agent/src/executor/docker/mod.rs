//! The `docker` executor.

use std::path::PathBuf;

use modchain_types::{AttemptId, BootId, Digest, DockerTask, Fence};

use super::{Running, StartRequest};

/// Runs containers on the machine's engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DockerExecutor {}

/// A container of this node that was found.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// Of which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Of the specification that it was made for.
    pub spec_digest: Digest,
    /// The boot of the machine that it was made on.
    pub boot: BootId,
}

/// What is needed to take an attempt up again.
#[derive(Debug, Clone)]
pub struct ResumeRequest {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Where the marks in its output are.
    pub state: PathBuf,
    /// Bytes of standard output that are kept.
    pub stdout: u64,
    /// Bytes of standard error that are kept.
    pub stderr: u64,
}

impl DockerExecutor {
    /// Starts an attempt. Never fails: what cannot be started says so in its only event.
    pub fn start(&self, _request: StartRequest, _task: DockerTask) -> Running {
        Running::refused("not built yet")
    }

    /// Removes the attempt's container.
    pub async fn remove(&self, _attempt: AttemptId, _fence: Fence) {}

    /// Takes an attempt up again.
    pub fn resume(&self, _request: ResumeRequest) -> Running {
        Running::refused("not built yet")
    }
}
