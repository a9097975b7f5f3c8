//! Containers, on a real engine.

mod endings;
mod harness;
mod image;
mod streams;
