//! What this machine is and how busy it is. A sensor that is missing is an answer, not a failure.

pub mod system;

pub use system::{Machine, SystemProbe};
