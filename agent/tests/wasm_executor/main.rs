//! The wasm executor with real child processes, story by story.

mod confinement;
mod endings;
mod harness;
mod kept;
mod stops;
mod streams;
