//! What is kept on disk.

pub mod blobs;
pub mod input;
pub mod journal;
pub mod output;
