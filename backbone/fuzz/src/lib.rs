//! A small fuzzer for the readers of bytes that came from strangers. For tests only: nothing that is shipped depends on it.
//!
//! A target is a function over bytes. The fuzzer feeds it the corpus, then mutants of the corpus, and fails the test when
//! the function panics, takes more memory than its bound allows, or does not come back. It must never decide by time how much
//! it does unless it was asked to, and with one seed it must always do the same.
//!
//! ```
//! use modchain_fuzz::{Counting, Fuzz, signature};
//!
//! #[global_allocator]
//! static MEMORY: Counting = Counting;
//!
//! Fuzz::target("number").seed_input("12").executions(1_000).memory(|input| 1024 + input.len()).run(|input| {
//!     let number = std::str::from_utf8(input).ok().and_then(|text| text.parse::<u8>().ok());
//!     signature(&number.is_some())
//! });
//! ```
//!
//! The target returns a signature: what kind of input it was, in as few words as possible (which type, which error, how long
//! in powers of two). The shortest input of every signature is in the pool that mutants are made of, and so the fuzzer finds
//! its way into a format without instrumentation of the code.
//!
//! How to run it: `README.md` beside this crate. Reading order: [`target`], [`mutate`], [`memory`], [`corpus`].

pub mod corpus;
pub mod memory;
pub mod mutate;
pub mod target;

mod random;

pub use corpus::{Bomb, read_bombs, read_folder, read_hex};
pub use memory::{Counting, Spent, spend};
pub use random::Random;
pub use target::{Fuzz, Report, signature};
