//! What a job runs, one type per executor.

use serde::{Deserialize, Serialize};

use crate::bounded::{List, Map, Text};
use crate::id::Digest;
use crate::resources::Adapter;
use crate::time::Span;

/// What to run, one variant per executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// A WebAssembly module with WASI preview 1.
    Wasm(WasmTask),
    /// A container.
    Docker(DockerTask),
    /// A request to a language model.
    Llm(LlmTask),
}

impl Task {
    /// The executor that runs it.
    pub fn adapter(&self) -> Adapter {
        match self {
            Self::Wasm(_) => Adapter::Wasm,
            Self::Docker(_) => Adapter::Docker,
            Self::Llm(_) => Adapter::Llm,
        }
    }
}

/// A WebAssembly module and what it is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmTask {
    /// The module, `.wasm` or `.wat`, in the blob store of the job's account.
    pub module: Digest,
    /// Bytes of the module.
    pub module_bytes: u64,
    /// File name of the module, for people and as the program's `argv[0]`.
    pub module_name: Text<256>,
    /// Arguments after `argv[0]`.
    pub args: List<Text<4096>, 256>,
    /// Environment.
    pub env: Map<Text<256>, Text<4096>, 256>,
}

/// A container image and what it is started with. Everything that is not said here is the image's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerTask {
    /// As the client wrote it: `NAME[:TAG]`, `NAME@sha256:…` or the id of an image. A tag is resolved once for the whole job,
    /// see [`ImagePin`].
    pub image: Text<512>,
    /// Command and arguments in place of the image's; empty leaves those.
    pub command: List<Text<4096>, 256>,
    /// In place of the image's entry point; an empty list means none at all.
    pub entrypoint: Option<List<Text<4096>, 256>>,
    /// Environment beside the image's.
    pub env: Map<Text<256>, Text<4096>, 256>,
    /// Absolute path of the working directory.
    pub workdir: Option<Text<4096>>,
    /// Bytes that `/tmp`, which is in memory, may hold. They count as the job's memory.
    pub tmp_bytes: u64,
    /// Processes and threads that may exist at once, 2 to [`DockerTask::PIDS_MAX`].
    pub pids_max: u32,
    /// Longest pull of the image; apart from the run's limits, and never billed.
    pub pull_timeout: Span,
}

impl DockerTask {
    /// Size of `/tmp` unless the client says otherwise: 256 MiB.
    pub const TMP_BYTES_DEFAULT: u64 = 256 << 20;
    /// Processes unless the client says otherwise.
    pub const PIDS_DEFAULT: u32 = 512;
    /// Most processes that may be asked for.
    pub const PIDS_MAX: u32 = 4096;
    /// Longest pull unless the client says otherwise.
    pub const PULL_TIMEOUT_DEFAULT: Span = Span::from_secs(600);
    /// Longest pull that may be asked for: less than a node may take for all preparing, two hours.
    pub const PULL_TIMEOUT_MAX: Span = Span::from_secs(90 * 60);
}

/// The one image that every attempt of a job runs, whatever its tag means by now: `NAME@sha256:…`, or `sha256:…`, the
/// image's own id, where a node has an image that came from no registry.
pub type ImagePin = Text<640>;

/// A request to a language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LlmTask {
    /// As the server names it: `NAME[:TAG]`.
    pub model: Text<256>,
    /// The [`LlmRequest`] as JSON, in the blob store of the job's account: prompts are long and nobody else's business.
    pub request: Digest,
    /// Bytes of it.
    pub request_bytes: u64,
    /// What is asked for.
    pub kind: LlmKind,
    /// Thousandths of the sampling temperature, 0 to 10,000; `None` leaves the model's own.
    pub temperature_milli: Option<u32>,
    /// Most tokens to make.
    pub max_tokens: Option<u32>,
    /// Makes sampling repeatable.
    pub seed: Option<u32>,
    /// Whether the answer must be one JSON document.
    pub json: bool,
}

impl LlmTask {
    /// Largest [`LlmRequest`], as JSON: 1 MiB.
    pub const REQUEST_BYTES_MAX: u64 = 1 << 20;
    /// Highest temperature in thousandths.
    pub const TEMPERATURE_MILLI_MAX: u32 = 10_000;
}

/// What a language model is asked for. Nothing else of a model server is ever reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LlmKind {
    /// A text that goes on from a prompt.
    Generate,
    /// The next message of a conversation.
    Chat,
    /// Vectors of texts.
    Embed,
}

/// What is said to a language model. Crosses as JSON in a blob, never in a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LlmRequest {
    /// For [`LlmKind::Generate`].
    Generate {
        /// What to go on from.
        prompt: String,
        /// How to behave.
        system: Option<String>,
    },
    /// For [`LlmKind::Chat`].
    Chat {
        /// The conversation so far, oldest first.
        messages: Vec<LlmMessage>,
    },
    /// For [`LlmKind::Embed`].
    Embed {
        /// One vector each.
        inputs: Vec<String>,
    },
}

/// One message of a conversation with a language model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmMessage {
    /// Who says it.
    pub role: LlmRole,
    /// What.
    pub content: String,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LlmRole {
    /// How to behave.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}
