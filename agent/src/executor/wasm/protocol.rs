//! What the agent and its WebAssembly child tell each other, over the one socket between them.
//!
//! Up: framed [`Notice`]s, of which [`Notice::Compiled`] is followed by bytes of its own. Down, once there is a job: one framed
//! [`Orders`] and the module; later perhaps the single byte [`STOP`]. A frame is a `u32` length in big-endian order and that
//! many bytes of JSON. Both ends are the same program, started from the same file, so there are no versions. The end of the
//! socket means that the other side is gone: the child then ends at once.
//!
//! Results come this way and not as an exit status, because a status cannot tell a trap from an exit, nor the child's own
//! death from the guest's code.

use std::collections::BTreeMap;

use modchain_types::{Fault, Input, Text};
use serde::{Deserialize, Serialize};

/// Asks the guest to end.
pub(super) const STOP: u8 = b'S';

/// Largest orders: 2 MiB of arguments and environment are allowed, and JSON may write each byte as six.
pub(super) const ORDERS_BYTES_MAX: usize = 16 << 20;

/// Largest notice: a message of 512 bytes and a few numbers, with room for escapes.
pub(super) const NOTICE_BYTES_MAX: usize = 16 << 10;

/// Longest compiled module that is kept. Machine code is some times as long as the module that it was made from.
pub(super) const COMPILED_BYTES_MAX: u64 = 64 << 20;

/// What the child is to run. The module's bytes follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    /// In which form the module comes.
    pub form: Form,
    /// Bytes of the module.
    pub module_bytes: u64,
    /// All arguments, the program's name first.
    pub args: Vec<String>,
    /// The guest's environment. The child's own is empty.
    pub env: BTreeMap<String, String>,
    /// Most linear memory, in bytes.
    pub memory_bytes: u64,
    /// Thousandths of a core that the guest may burn.
    pub cpu_milli: u32,
    /// Whether there is a pipe on standard input.
    pub input: Input,
}

/// What the agent asks of a template. Fixed bytes, because descriptors come with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Another child, under this number. With it come the child's socket, and the guest's input, output and error output.
    Fork {
        /// Chosen by the agent, once.
        child: u64,
    },
    /// To kill this one, if it has not ended.
    Kill {
        /// Its number.
        child: u64,
    },
}

/// Bytes of a [`Request`].
pub(super) const REQUEST_BYTES: usize = 9;

impl Request {
    pub(super) fn to_bytes(self) -> [u8; REQUEST_BYTES] {
        let (kind, child) = match self {
            Self::Fork { child } => (b'F', child),
            Self::Kill { child } => (b'K', child),
        };
        let mut bytes = [kind; REQUEST_BYTES];
        bytes[1..].copy_from_slice(&child.to_be_bytes());
        bytes
    }

    /// `None` if they are none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, child) = bytes.split_first()?;
        let child = u64::from_be_bytes(child.try_into().ok()?);
        match kind {
            b'F' => Some(Self::Fork { child }),
            b'K' => Some(Self::Kill { child }),
            _ => None,
        }
    }
}

/// What a template tells about a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It has ended and was waited for.
    Ended {
        /// Its number.
        child: u64,
        /// As the system gave it.
        status: i32,
    },
    /// There is none.
    NotForked {
        /// Its number.
        child: u64,
        /// The system's number for why.
        error: i32,
    },
}

/// Bytes of [`Told`].
pub(super) const TOLD_BYTES: usize = 13;

impl Told {
    pub(super) fn to_bytes(self) -> [u8; TOLD_BYTES] {
        let (kind, child, value) = match self {
            Self::Ended { child, status } => (b'E', child, status),
            Self::NotForked { child, error } => (b'N', child, error),
        };
        let mut bytes = [kind; TOLD_BYTES];
        bytes[1..9].copy_from_slice(&child.to_be_bytes());
        bytes[9..].copy_from_slice(&value.to_be_bytes());
        bytes
    }

    /// `None` if they are none.
    pub(super) fn from_bytes(bytes: &[u8; TOLD_BYTES]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (child, value) = rest.split_first_chunk()?;
        let (child, value) = (u64::from_be_bytes(*child), i32::from_be_bytes(value.try_into().ok()?));
        match kind {
            b'E' => Some(Self::Ended { child, status: value }),
            b'N' => Some(Self::NotForked { child, error: value }),
            _ => None,
        }
    }
}

/// In which form a module comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Form {
    /// As its author made it: a stranger's bytes.
    Source {
        /// Whether the agent wants what it is compiled to.
        keep: bool,
    },
    /// As a child compiled it before: machine code, which is trusted.
    Compiled,
}

/// What the child tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Notice {
    /// It is locked in and waits for its orders.
    Ready {
        /// Names the compiler with its version, its settings and this machine's processor: what was compiled under one name
        /// runs under that name alone.
        compiler: u64,
        /// What protects the node beside the sandbox itself.
        lockdown: LockdownReport,
    },
    /// The compiled module follows, of so many bytes. Before the start, and only if it was asked for.
    Compiled {
        /// At most [`COMPILED_BYTES_MAX`].
        bytes: u64,
    },
    /// The guest's code is about to run.
    Started {
        /// The child's clock, [`boot_micros`](super::boot_micros).
        at: u64,
    },
    /// It is over; the child exits now.
    Ended {
        /// The child's clock.
        at: u64,
        /// Fuel burnt.
        fuel: u64,
        /// How it went.
        outcome: Outcome,
    },
}

/// How the guest ended, as its child saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// By itself.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// In a trap.
    Trapped {
        /// What the engine said.
        message: Text<512>,
    },
    /// It asked for more memory than it has.
    MemoryLimit,
    /// As it was told to.
    Stopped,
    /// It could not be started.
    CannotStart {
        /// Whose fault.
        fault: Fault,
        /// Why.
        message: Text<512>,
    },
    /// The child itself failed.
    Broken {
        /// In what.
        message: Text<512>,
    },
}

/// Which of the kernel's protections this machine has. One that is missing is an answer, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockdownReport {
    /// Landlock: no file can be opened.
    pub landlock: bool,
    /// seccomp: only the system calls of a running guest.
    pub seccomp: bool,
}

/// A frame that holds `value`.
pub(super) fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let body = serde_json::to_vec(value).expect("these types have string keys and no failing serializer");
    let length = u32::try_from(body.len()).expect("orders and notices are far below 4 GiB");
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}
