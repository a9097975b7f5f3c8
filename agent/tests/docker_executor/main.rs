//! Containers, on a real engine.

mod adoption;
mod endings;
mod engine_away;
mod harness;
mod image;
mod images;
mod scripted;
mod streams;
mod walls;
