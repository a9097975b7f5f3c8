//! The `llm` executor.

use modchain_types::LlmTask;

use super::{Running, StartRequest};

/// Asks the machine's model server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LlmExecutor {}

impl LlmExecutor {
    /// Starts an attempt. Never fails: what cannot be started says so in its only event.
    pub fn start(&self, _request: StartRequest, _task: LlmTask) -> Running {
        Running::refused("not built yet")
    }
}
