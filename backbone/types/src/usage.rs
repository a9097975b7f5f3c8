//! What an attempt used.

use serde::{Deserialize, Serialize};

use crate::time::Span;

/// Measured by the agent. What is billed is never more than the orchestrator saw itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// From the moment the job's own code started to its confirmed end.
    pub ran: Span,
    /// Tokens read by a model.
    pub prompt_tokens: u64,
    /// Tokens made by a model.
    pub output_tokens: u64,
    /// WebAssembly fuel burnt. Shown, not billed.
    pub fuel: u64,
    /// Loading the model, before the start. Shown, not billed.
    pub load: Span,
    /// From the start to the first token; zero where no token was made. Shown.
    pub first_token: Span,
    /// Time in which the output tokens were made, by the model server's own clock. Shown.
    pub generating: Span,
}
