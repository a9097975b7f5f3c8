//! The console as a whole: every view at every size in every state of the link, and whatever may come in any order.

mod forms;
mod pool;
mod random;
mod sizes;
pub(super) mod world;
