//! Containers, on a real engine.

mod adoption;
mod endings;
mod harness;
mod image;
mod streams;
mod walls;
