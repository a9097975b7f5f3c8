//! The orchestrator's mark on fences, so that no node can claim one that it was never given.

use std::path::Path;

use modchain_certs::files;
use modchain_types::{Fence, FenceClaim, JournalId};

/// File of the key in the data directory.
pub const FENCE_KEY_FILE: &str = "fence.key";

const KEY_BYTES: usize = 32;

/// Marks fences of one journal. The key never leaves this machine.
#[derive(Clone)]
pub struct FenceKey {
    key: [u8; KEY_BYTES],
    journal: JournalId,
}

impl FenceKey {
    /// Draws a key and keeps it in `data`, unless there is one.
    pub fn ensure(data: &Path) -> anyhow::Result<()> {
        let path = data.join(FENCE_KEY_FILE);
        if !path.try_exists()? {
            files::write_atomic(&path, &crate::init::random::<KEY_BYTES>()?, 0o600)?;
        }
        Ok(())
    }

    /// The key in `data`, for the fences of `journal`.
    pub fn load(data: &Path, journal: JournalId) -> anyhow::Result<Self> {
        let path = data.join(FENCE_KEY_FILE);
        let bytes = files::read_private(&path, 0o600)?;
        let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice())
            .map_err(|_| anyhow::anyhow!("{} is not a key of {KEY_BYTES} bytes", path.display()))?;
        Ok(Self { key, journal })
    }

    /// The fence with its mark, for handing out.
    pub fn claim(&self, fence: Fence) -> FenceClaim {
        FenceClaim { fence, mac: self.mac(fence) }
    }

    /// The fence of an authentic claim; `None` if this orchestrator never handed it out in this journal.
    pub fn verify(&self, claim: &FenceClaim) -> Option<Fence> {
        // Every byte is looked at, whatever the first ones are: how long it takes tells nothing about the mark.
        let different =
            self.mac(claim.fence).iter().zip(claim.mac).fold(0, |seen, (mine, theirs)| seen | (mine ^ theirs));
        (different == 0).then_some(claim.fence)
    }

    fn mac(&self, fence: Fence) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"modchain fence");
        hasher.update(&self.journal.0);
        hasher.update(&fence.0.to_le_bytes());
        let mut mac = [0; 16];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        mac
    }
}

/// Shows no key.
impl std::fmt::Debug for FenceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FenceKey").field("journal", &self.journal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fences_that_were_marked_with_this_key_for_this_journal_are_authentic() {
        let key = FenceKey { key: [7; 32], journal: JournalId([1; 16]) };
        let claim = key.claim(Fence(42));
        assert_eq!(key.verify(&claim), Some(Fence(42)));
        assert_eq!(key.verify(&FenceClaim { fence: Fence(43), ..claim }), None);
        for byte in 0..16 {
            let mut forged = claim;
            forged.mac[byte] ^= 1;
            assert_eq!(key.verify(&forged), None);
        }
        assert_eq!(FenceKey { key: [8; 32], ..key.clone() }.verify(&claim), None);
        assert_eq!(FenceKey { journal: JournalId([2; 16]), ..key }.verify(&claim), None);
    }
}
