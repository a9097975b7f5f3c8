//! The `llm` executor: questions to the language models of the machine's own model server, an Ollama.
//!
//! ```text
//!   LlmExecutor::start ── task ──▶ run::Attempt                                 model server
//!                                    │ load: the model, nothing asked  ───────▶ 404? pull it, if the owner lets it
//!        Preparing, Started ◀────────┤
//!                                    │ generate, chat or embed ───────────────▶
//!        Output, token by token ◀────┤ ◀─── one line of JSON a token ──────────
//!        Ended ◀─────────────────────┘ ◀─── a last line with `done` and counts
//! ```
//!
//! The model is loaded before the billing clock runs. What cancels an attempt closes its connection, and the server stops with
//! the token that it is at. An answer counts as whole only with its last record: a stream that ends without one is the node's
//! fault.
//!
//! Nothing of a model server is ever reached for a job but [`server::Verb`], and nothing that a client says becomes a path, a
//! header or an option that is not named in [`request`]. The attempts share the server, which queues them as its owner set it
//! up; nothing is locked here.
//!
//! Requests are made with ollama-rs's types. Answers are read here ([`lines`], [`answer`]): that crate loses what a chunk splits
//! and leaves out why an answer ended, how many tokens an embedding took, and a model's digest.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use modchain_types::LlmTask;
use tokio::sync::{Notify, mpsc};

use super::{EVENTS_WAITING_MAX, RunControl, Running, StartRequest};

mod answer;
mod lines;
mod policy;
mod pull;
mod request;
mod run;
pub(crate) mod server;

pub use policy::{CONTEXT_TOKENS_DEFAULT, LlmPolicy};
pub use server::UrlError;

pub(crate) use request::is_model_name;
use server::Server;

/// Where a model server listens unless its owner says otherwise.
pub const URL_DEFAULT: &str = "http://127.0.0.1:11434";

/// Which model server, and what its owner allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmSettings {
    /// `http://HOST[:PORT]`.
    pub url: String,
    /// What the owner allows.
    pub policy: LlmPolicy,
}

impl Default for LlmSettings {
    fn default() -> Self {
        Self { url: URL_DEFAULT.to_owned(), policy: LlmPolicy::default() }
    }
}

/// How long to wait for a model server. There is no limit on a whole answer: the supervisor has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a model to be in memory. Large ones come from slow disks.
    pub load: Duration,
    /// For the next sign of life of a pull.
    pub pull: Duration,
    /// For the first token: a long prompt is read before it, and other attempts may be served first.
    pub first: Duration,
    /// For each token after it.
    pub next: Duration,
}

impl Default for Patience {
    /// 5 minutes for loading and for a pull that stands still, 10 for the first token, 2 for each after it.
    fn default() -> Self {
        Self {
            load: Duration::from_secs(300),
            pull: Duration::from_secs(300),
            first: Duration::from_secs(600),
            next: Duration::from_secs(120),
        }
    }
}

/// Asks the machine's model server. Cheap to clone; the clones are one executor.
#[derive(Clone)]
pub struct LlmExecutor {
    server: Server,
    patience: Patience,
    policy: Arc<Mutex<LlmPolicy>>,
    /// Told when the server's models may have changed: one was loaded, pulled, or let go.
    changed: Arc<Notify>,
}

impl LlmExecutor {
    /// For the server that the settings name. Does not connect: a server may come and go.
    pub fn new(settings: LlmSettings) -> Result<Self, UrlError> {
        Ok(Self {
            server: Server::at(&settings.url)?,
            patience: Patience::default(),
            policy: Arc::new(Mutex::new(settings.policy)),
            changed: Arc::default(),
        })
    }

    /// With another patience. For tests.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// What the owner allows from now on. Attempts that have begun keep what they began with.
    pub fn set_policy(&self, policy: LlmPolicy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Starts an attempt. Never fails: what cannot be started says so in its only event. To be called within a tokio runtime.
    pub fn start(&self, request: StartRequest, task: LlmTask) -> Running {
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (control, wish) = RunControl::new();
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let attempt = run::Attempt::new(self.clone(), policy, request, task, events_in);
        tokio::spawn(attempt.supervise(wish));
        Running { events, control, stdin: None }
    }

    /// The server, to look at what it holds.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Waits until the server's models may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl fmt::Debug for LlmExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmExecutor").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A server's words for people: what it passes on may steer terminals or hide text.
fn printable(message: &str) -> String {
    let hidden = |c: char| c.is_control() || modchain_types::is_hidden(c);
    message.trim().chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}
