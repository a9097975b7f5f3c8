//! What a node's owner allows jobs that ask language models.

use modchain_types::{Span, Text};

/// Tokens of context that a model gets unless the owner says otherwise.
pub const CONTEXT_TOKENS_DEFAULT: u32 = 4_096;

/// What the owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmPolicy {
    /// Models that may be pulled for a job: names, or beginnings of names that end with `*`. None unless the owner says so.
    pub pullable: Vec<Text<256>>,
    /// How long a model stays in memory after a job, [`Span::MAX`] for ever; `None` leaves it to the server.
    pub keep_alive: Option<Span>,
    /// Tokens that prompt and answer may have together; `None` leaves it to the model and the server. The same for all jobs,
    /// because a server loads a model again when it changes; what jobs ask for has no say in it.
    pub context_tokens: Option<u32>,
}

impl Default for LlmPolicy {
    fn default() -> Self {
        Self { pullable: Vec::new(), keep_alive: None, context_tokens: Some(CONTEXT_TOKENS_DEFAULT) }
    }
}

impl LlmPolicy {
    /// Whether the model of this name may be pulled: the rule that the offer is judged by too.
    pub(super) fn may_pull(&self, model: &str) -> bool {
        modchain_types::resources::may_pull(&self.pullable, model)
    }
}
