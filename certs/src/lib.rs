//! Who may speak to whom: the certificate authority, the identities it issues, and the TLS settings of both ends.
//!
//! Everything that touches a private key is in this crate, and no private key leaves it: keys are written to files with
//! strict modes, handed to rustls as signers, and wiped when dropped. It must never log or print a key, never take a name or
//! a role from a signing request, and never build a TLS setting that resumes a session, because a resumed session skips the
//! check of the certificate.
//!
//! The role and the id of a peer come from the one URI in its certificate, `spiffe://<trust domain>/node/<id>` and so on, and
//! from nowhere else. The trust domain is derived from the root's public key, so two orchestrators never share one.
//!
//! Reading order: [`identity`] (what a certificate says), [`token`] (how one gets the first), [`request`] (a key on its
//! way to one), [`authority`] and [`leaf`] (issuing), [`key`], [`credentials`] (what one program holds), [`verify`] and
//! [`tls`] (judging the other side), [`channel`], [`files`], [`process`].

pub mod authority;
pub mod channel;
pub mod credentials;
pub mod files;
pub mod identity;
pub mod key;
pub mod leaf;
pub mod process;
pub mod request;
pub mod tls;
pub mod token;
pub mod verify;

mod encoding;

pub use authority::{Authority, AuthorityError};
pub use channel::Exporter;
pub use credentials::{Credentials, CredentialsError};
pub use files::FileError;
pub use identity::{IdentityError, ORCHESTRATOR_ID, ORCHESTRATOR_NAME, PeerIdentity, RootPin, TrustDomain};
pub use key::PrivateKey;
pub use leaf::{CertificatePlan, Issued, Subject};
pub use process::harden_process;
pub use request::{AcceptError, BadRequest, KeyRequest, RequestedKey};
pub use tls::{
    TlsError, anonymous_client_config, client_config, install_crypto_provider, join_client_config, join_server_config,
    server_config,
};
pub use token::{JoinToken, TokenError};
pub use verify::DenyList;
