//! The vocabulary of Modchain: ids, time, money, resources, jobs, nodes, instructions and reports.
//!
//! Every other crate may use this one; it uses none of them and does no I/O. Types here are parsed at the boundary
//! ("parse, don't validate"): a value that exists is within its bounds, and nobody checks it again.
//!
//! Types that cross the wire derive serde. Their bytes are pinned by the golden files of `modchain-wire`; the journal has
//! its own copies in the orchestrator's `store/record`. No attribute that changes the shape of the bytes
//! (`skip_serializing_if`, `flatten`, `untagged`) is allowed here: the codec is not self-describing.
//!
//! Reading order: [`bounded`], [`id`], [`time`], [`money`], [`resources`], [`task`], [`job`], [`node`], [`usage`], [`tariff`],
//! [`instruction`], [`report`].

pub mod base32;
pub mod bounded;
pub mod hidden;
pub mod id;
pub mod identity;
pub mod image;
pub mod instruction;
pub mod job;
pub mod money;
pub mod node;
pub mod report;
pub mod resources;
pub mod tariff;
pub mod task;
pub mod time;
pub mod usage;

pub use bounded::{Chunk, List, Map, Text, TooLong};
pub use hidden::is_hidden;
pub use id::{
    AccountId, AttemptId, BootId, CertificateSerial, Digest, Fence, IdentityId, InstanceId, JobId, JournalId,
    KeyDigest, Name, NodeId, SubmitKey, TokenId,
};
pub use identity::{Identity, Role};
pub use image::{IMAGE_MARKS_MAX, ImageMark};
pub use instruction::{Assignment, FenceClaim, InventoryItem, ItemState, StopCause, Verdict};
pub use job::{Exit, ExitFrom, Input, JobSpec, JobState, Limits, OnDisconnect, Policy, Reason, TaskBody};
pub use money::{Asset, Micro};
pub use node::{NodeState, NodeWish, Offer};
pub use report::{Ending, Fault, OutputLengths, Report, ReportBody};
pub use resources::{
    Adapter, Capabilities, Exceptions, GpuInfo, GpuRequest, ModelInfo, ModelPlace, Requirements, Reservation,
};
pub use tariff::Tariff;
pub use task::{DockerTask, ImagePin, LlmKind, LlmMessage, LlmRequest, LlmRole, LlmTask, Task, WasmTask};
pub use time::{Span, Timestamp, WallTime};
pub use usage::Usage;
