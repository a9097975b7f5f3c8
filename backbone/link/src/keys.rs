//! The two keys of the orchestrator's endpoint that must outlive a restart: with them it can tell peers of its predecessor,
//! in answer to their first packet, that the connection is gone.

use std::path::Path;

use modchain_certs::FileError;
use modchain_certs::files::{self, KEY_MODE};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

const FILE: &str = "quic.key";
const RESET_KEY_BYTES: usize = 64;
const CID_KEY_BYTES: usize = 8;

/// The keys for stateless resets and connection ids. Has no `Debug`.
pub struct EndpointKeys {
    reset: hmac::Key,
    cid: u64,
}

impl EndpointKeys {
    /// Loads the keys from `quic.key` (0600) in `dir`, or makes them there. A file of another length is made anew: all that
    /// is lost is that old peers notice the restart later.
    pub fn load_or_create(dir: &Path) -> Result<Self, FileError> {
        let path = dir.join(FILE);
        match files::read_private(&path, KEY_MODE) {
            Ok(bytes) => {
                if let Some(keys) = Self::from_bytes(&bytes) {
                    return Ok(keys);
                }
                tracing::warn!(path = %path.display(), "the endpoint's keys are damaged and are made anew");
            }
            Err(FileError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; RESET_KEY_BYTES + CID_KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the system's random numbers do not run out");
        // The mode of a directory that is there already is its owner's affair: the file has its own.
        if !dir.is_dir() {
            files::ensure_private_dir(dir)?;
        }
        files::write_atomic(&path, &bytes, KEY_MODE)?;
        Ok(Self::from_bytes(&bytes).expect("the length is right"))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (reset, cid) = bytes.split_first_chunk::<RESET_KEY_BYTES>()?;
        let cid: [u8; CID_KEY_BYTES] = cid.try_into().ok()?;
        Some(Self { reset: hmac::Key::new(hmac::HMAC_SHA256, reset), cid: u64::from_le_bytes(cid) })
    }

    pub(crate) fn reset_key(&self) -> hmac::Key {
        self.reset.clone()
    }

    pub(crate) fn cid_key(&self) -> u64 {
        self.cid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_and_a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let sign = |keys: &EndpointKeys| hmac::sign(&keys.reset_key(), b"x").as_ref().to_vec();
        let first = EndpointKeys::load_or_create(dir.path()).expect("makes");
        let second = EndpointKeys::load_or_create(dir.path()).expect("loads");
        assert_eq!((sign(&first), first.cid_key()), (sign(&second), second.cid_key()));
        files::write_atomic(&dir.path().join(FILE), b"short", KEY_MODE).expect("writes");
        let third = EndpointKeys::load_or_create(dir.path()).expect("replaces");
        assert_ne!(sign(&first), sign(&third));
    }
}
