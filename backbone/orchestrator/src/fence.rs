//! The orchestrator's mark on fences, so that no node can claim one that it was never given.

use modchain_types::{Fence, FenceClaim, JournalId};

/// Marks fences of one journal. The key is in `DATA/fence.key` and never leaves this machine.
#[derive(Clone)]
pub struct FenceKey {
    _key: [u8; 32],
    _journal: JournalId,
}

impl FenceKey {
    /// The fence with its mark, for handing out.
    pub fn claim(&self, _fence: Fence) -> FenceClaim {
        todo!()
    }

    /// The fence of an authentic claim; `None` if this orchestrator never handed it out in this journal.
    pub fn verify(&self, _claim: &FenceClaim) -> Option<Fence> {
        todo!()
    }
}
