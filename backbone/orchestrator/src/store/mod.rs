//! What is kept on disk. The journal is the truth; the rest is bulk that the journal's events refer to.
//!
//! * [`journal`]: every event, hash-chained, in segments; [`record`]: their bytes
//! * [`blobs`]: modules and large tasks, content-addressed per account
//! * [`output`], [`input`]: what jobs print and read, on top of [`pieces`], an append-only file of small records
//!
//! * [`snapshot`]: the state behind an event, so that a start need not replay everything
//! * [`view`]: what has ended, for queries; made from the journal, and made anew when it is lost
//! * [`removed`]: up to where output of ended jobs is gone
//! * [`space`]: how much room there is, and what happens when it runs out
//!
//! One process serves one data directory: whoever writes holds [`lock::DataLock`].

pub mod blobs;
pub mod input;
pub mod journal;
pub mod lock;
pub mod output;
pub mod pieces;
pub mod record;
pub mod removed;
pub mod snapshot;
pub mod space;
pub mod view;
