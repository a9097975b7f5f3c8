//! What this machine is and how busy it is. A sensor that is missing is an answer, not a failure.
//!
//! Each probe looks again and again and keeps its part of the [`Findings`] up to date; the offer follows from them.

use modchain_types::{Exceptions, GpuInfo, ImageMark, ModelInfo};

pub mod docker;
pub mod nvml;
pub mod ollama;
pub mod system;

pub use nvml::GpuTicks;
pub use system::{Machine, SystemProbe};

/// What the probes have found, as far as it changes what the node offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// The container engine: `None` while it is away or may not be used.
    pub docker: Option<DockerFound>,
    /// The models that the model server holds: `None` while it is away or may not be used.
    pub models: Option<Vec<ModelInfo>>,
    /// The GPUs, in the order in which they are offered and sampled.
    pub gpus: Vec<GpuInfo>,
}

/// A container engine that jobs can run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerFound {
    /// Version of the engine.
    pub version: String,
    /// What of the owner's exceptions can be had here.
    pub exceptions: Exceptions,
    /// Whether containers can be given GPUs.
    pub gpus: bool,
    /// The images that are there and that the owner allows, as far as there is room to tell them.
    pub images: Vec<ImageMark>,
}
