//! Private keys: ECDSA on P-256, in memory that is wiped when dropped.

use std::sync::Arc;

use rcgen::{KeyPair, PublicKeyData};
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

/// A private key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or PEM of something else.
    #[error("the file does not hold a private key in PKCS #8 PEM")]
    NotPem,
    /// Another algorithm, or damaged.
    #[error("the private key is not a sound ECDSA P-256 key")]
    NotP256,
}

/// An ECDSA P-256 key. Has no `Debug`, cannot be cloned, and is wiped when dropped.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// A new key from the system's random numbers.
    pub fn generate() -> Self {
        let pair = Zeroizing::new(KeyPair::generate().expect("the system's random numbers do not run out"));
        Self { pkcs8: Zeroizing::new(pair.serialized_der().to_vec()) }
    }

    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let mut parsed = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        let key = Self { pkcs8: Zeroizing::new(parsed.secret_pkcs8_der().to_vec()) };
        parsed.zeroize();
        key.signer().map_err(|_| KeyError::NotP256)?;
        Ok(key)
    }

    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair().serialize_pem())
    }

    /// The public half, as a DER `SubjectPublicKeyInfo`.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.pair().subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> Zeroizing<KeyPair> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&self.borrowed(), &rcgen::PKCS_ECDSA_P256_SHA256);
        Zeroizing::new(pair.expect("the key was checked when it was made"))
    }

    pub(crate) fn signer(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&PrivateKeyDer::Pkcs8(self.borrowed()))?;
        // The helper takes P-384 as well.
        match key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]) {
            Some(_) => Ok(key),
            None => Err(rustls::Error::General("not a P-256 key".into())),
        }
    }

    fn borrowed(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.pkcs8.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_stays_the_same_key() {
        let key = PrivateKey::generate();
        let back = PrivateKey::from_pem(key.pem().as_bytes()).expect("reads back");
        assert_eq!(key.public_key_der(), back.public_key_der());
        assert_ne!(key.public_key_der(), PrivateKey::generate().public_key_der());
    }

    #[test]
    fn other_algorithms_and_nonsense_are_refused() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let pem = KeyPair::generate_for(algorithm).expect("key").serialize_pem();
            assert_eq!(PrivateKey::from_pem(pem.as_bytes()).err(), Some(KeyError::NotP256));
        }
        assert_eq!(PrivateKey::from_pem(b"not a key").err(), Some(KeyError::NotPem));
    }
}
