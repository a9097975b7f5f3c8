//! The agent protocol, `modchain-agent/1`. All streams are bidirectional and opened by the agent; the first frame tells what
//! a stream is for:
//!
//! | first frame | stream | then up | then down |
//! |---|---|---|---|
//! | [`AgentHello`] | control, exactly one | [`Report`], [`OfferChanged`], [`ProbeAnswer`] | [`AgentWelcome`], [`Reconcile`], then instructions |
//! | [`Heartbeat`] | heartbeats, exactly one | more of them | [`HeartbeatEcho`] each |
//! | [`AttemptOpen`] | one per live attempt | [`OutputChunk`]s, [`OutputEnd`] | [`AttemptResume`], [`OutputAck`]s, [`InputChunk`]s, [`InputEnd`] |
//! | [`BlobGet`] | one per blob | | [`BlobHead`], [`BlobChunk`]s; ends with the stream |
//! | [`RenewRequest`] | one per renewal | | [`Renewed`]; ends with the stream |

use modchain_types::{
    Assignment, AttemptId, BootId, Digest, Fence, FenceClaim, InstanceId, InventoryItem, JournalId, List, Offer,
    Report, Span, StopCause, Text, Timestamp, Verdict, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::join::{RenewRequest, Renewed};
use crate::protocol::protocol;
use crate::{Data, KnownTypes, Sentence};

protocol! {
    /// From an agent to the orchestrator.
    FromAgent {
        0x01 Hello(AgentHello) PAGE_BYTES_MAX,
        0x07 Report(Report) CONTROL_BYTES_MAX,
        0x08 OfferChanged(OfferChanged) SPEC_BYTES_MAX,
        0x0b ProbeAnswer(ProbeAnswer) CONTROL_BYTES_MAX,
        0x10 Heartbeat(Heartbeat) SAMPLES_BYTES_MAX,
        0x20 AttemptOpen(AttemptOpen) CONTROL_BYTES_MAX,
        0x22 OutputChunk(OutputChunk) DATA_BYTES_MAX,
        0x24 OutputEnd(OutputEnd) CONTROL_BYTES_MAX,
        0x30 BlobGet(BlobGet) CONTROL_BYTES_MAX,
        0x38 Renew(RenewRequest) HEARTBEAT_BYTES_MAX,
    }
}

protocol! {
    /// From the orchestrator to an agent.
    ToAgent {
        0x02 Welcome(AgentWelcome) CONTROL_BYTES_MAX,
        0x03 Reconcile(Reconcile) PAGE_BYTES_MAX,
        0x04 Assign(Assignment) SPEC_BYTES_MAX,
        0x05 Stop(Stop) CONTROL_BYTES_MAX,
        0x06 ReportAck(ReportAck) CONTROL_BYTES_MAX,
        0x09 GoAway(GoAway) CONTROL_BYTES_MAX,
        0x0a Probe(Probe) CONTROL_BYTES_MAX,
        0x11 HeartbeatEcho(HeartbeatEcho) HEARTBEAT_BYTES_MAX,
        0x21 AttemptResume(AttemptResume) CONTROL_BYTES_MAX,
        0x23 OutputAck(OutputAck) CONTROL_BYTES_MAX,
        0x25 InputChunk(InputChunk) DATA_BYTES_MAX,
        0x26 InputEnd(InputEnd) CONTROL_BYTES_MAX,
        0x31 BlobHead(BlobHead) CONTROL_BYTES_MAX,
        0x32 BlobChunk(BlobChunk) DATA_BYTES_MAX,
        0x39 Renewed(Renewed) CONTROL_BYTES_MAX,
        0x3f Refused(StreamRefused) CONTROL_BYTES_MAX,
    }
}

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHello {
    /// Frame types that this agent understands ([`ToAgent`]).
    pub types: KnownTypes,
    /// This start of the program.
    pub instance: InstanceId,
    /// This boot of the machine.
    pub boot: BootId,
    /// The highest fence ever given to this node, with the orchestrator's mark: one above the orchestrator's own means that
    /// it was rolled back.
    pub highest_fence: Option<FenceClaim>,
    /// The journal that the fence belongs to.
    pub journal: Option<JournalId>,
    /// Every attempt that the agent still knows of.
    pub inventory: List<InventoryItem, 4096>,
    /// What the node offers.
    pub offer: Offer,
    /// For showing clock skew; nothing depends on it.
    pub wall: WallTime,
}

/// The connection counts from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentWelcome {
    /// Frame types that the orchestrator understands ([`FromAgent`]).
    pub types: KnownTypes,
    /// Version of the orchestrator program.
    pub version: Text<64>,
    /// The journal behind it.
    pub journal: JournalId,
    /// Time between heartbeats.
    pub heartbeat: Span,
    /// How long attempts with `on_disconnect = stop` may go on, counted from the sending of the last answered heartbeat.
    pub lease: Span,
    /// Streams that the agent may have open at once.
    pub streams_max: u32,
    /// For showing clock skew.
    pub wall: WallTime,
}

/// The orchestrator's verdict on every line of the inventory, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// One verdict a line.
    pub verdicts: List<(AttemptId, Fence, Verdict), 4096>,
}

/// End an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Time between asking and killing.
    pub grace: Span,
    /// Why.
    pub cause: StopCause,
}

/// The report of this attempt's end is in the journal: drop everything that is kept about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAck {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
}

/// The owner changed prices or capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferChanged {
    /// The whole new offer.
    pub offer: Offer,
}

/// The orchestrator is about to stop: come back after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoAway {
    /// Wait this long before connecting again.
    pub after: Span,
    /// For the agent's log.
    pub why: Sentence,
}

/// Another agent with the same certificate is knocking: say that you are alive, at once, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// To be returned.
    pub number: u64,
}

/// The answer to a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// As in the probe.
    pub number: u64,
}

/// Sent every 5 s ± 10 %.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up from 1 on each connection.
    pub number: u64,
    /// The agent's monotonic clock at sending.
    pub sent: Timestamp,
    /// Round trip of the last answered heartbeat.
    pub rtt: Option<Span>,
    /// The machine's load.
    pub load: HostLoad,
    /// One look at the GPUs a second since the heartbeat before, oldest first.
    pub gpus: List<GpuTick, 16>,
}

/// One look at all GPUs of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuTick {
    /// How long before the sending of the heartbeat.
    pub ago: Span,
    /// In the order of the node's offer. A GPU that did not answer has a sample without values.
    pub gpus: List<GpuSample, 64>,
}

/// How one GPU is at one moment. What its driver does not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GpuSample {
    /// Share of the last sample period in which it worked, in percent.
    pub busy_pct: Option<u8>,
    /// Bytes of its memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Degrees Celsius.
    pub temperature_c: Option<u8>,
    /// Thousandths of a watt.
    pub power_mw: Option<u32>,
}

/// Load of a whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostLoad {
    /// Busy share of all cores, in thousandths; `None` until it is known.
    pub cpu_permille: Option<u16>,
    /// Bytes of memory in use.
    pub memory_used_bytes: u64,
    /// Bytes of memory in all.
    pub memory_total_bytes: u64,
    /// Free bytes where the agent keeps its data.
    pub disk_free_bytes: u64,
}

/// The answer to one heartbeat: what renews the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatEcho {
    /// As in the heartbeat.
    pub number: u64,
    /// As in the heartbeat.
    pub sent: Timestamp,
}

/// Opens the stream of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptOpen {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Where the input is to begin, or `None` if the attempt reads none (any more).
    pub input_from: Option<u64>,
}

/// What the orchestrator has on disk already: send from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptResume {
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

/// Where a piece of output belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// A remark of Modchain's own, such as the beginning of a new attempt; shown on standard error.
    Note,
}

impl OutputStream {
    /// The word used in JSON and prefixes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Note => "note",
        }
    }
}

/// A piece of output. Pieces of one attempt keep the order in which the agent saw them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputChunk {
    /// `Out` or `Err`.
    pub stream: OutputStream,
    /// Bytes of this stream before this piece.
    pub offset: u64,
    /// By the node's wall clock, for display.
    pub at: WallTime,
    /// The bytes, at least one.
    pub data: Data,
}

/// Everything has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEnd {
    /// Bytes of standard output in all.
    pub stdout: u64,
    /// Bytes of standard error in all.
    pub stderr: u64,
    /// Bytes dropped over the cap.
    pub dropped: u64,
}

/// What is synced to the orchestrator's disk: the agent may drop it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputAck {
    /// Bytes of standard output.
    pub stdout: u64,
    /// Bytes of standard error.
    pub stderr: u64,
}

/// A piece of the job's standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputChunk {
    /// Bytes before this piece.
    pub offset: u64,
    /// The bytes, at least one.
    pub data: Data,
}

/// The input is at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEnd {
    /// Bytes of input in all.
    pub offset: u64,
}

/// Asks for a blob that an assignment names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobGet {
    /// The attempt that needs it: a digest alone opens nothing.
    pub attempt: AttemptId,
    /// Under which fence.
    pub fence: Fence,
    /// Which blob.
    pub digest: Digest,
}

/// The blob follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHead {
    /// Bytes of it.
    pub bytes: u64,
}

/// A piece of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobChunk {
    /// The bytes, at least one.
    pub data: Data,
}

/// This stream cannot be served; others are untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRefused {
    /// For the agent's log.
    pub why: Sentence,
    /// Whether trying again later can help.
    pub retryable: bool,
}
