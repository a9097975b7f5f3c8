//! The console as a whole: every view at every size in every state of the link, and whatever may come in any order.

mod filters;
mod forms;
mod frames;
mod jobs;
mod link;
mod order;
mod output;
mod pool;
mod random;
mod sizes;
mod snapshots;
pub(super) mod world;
