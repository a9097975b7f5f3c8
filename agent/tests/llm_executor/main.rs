//! The llm executor, story by story: with a real Ollama server and a real small model, and with a scripted server for what the
//! real one will not do.

mod answers;
mod failures;
mod harness;
mod models;
#[path = "../support/ollama.rs"]
mod ollama;
mod scripted;
mod stops;
