//! What ties a proof to one TLS channel, so that a proof that was overheard or passed on is worth nothing on another.

/// The label of the exporter (RFC 8446, section 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-modchain";
/// The exporter's context where somebody joins.
pub const JOIN_CONTEXT: &[u8] = b"join";
/// The exporter's context where a member renews its certificate.
pub const RENEWAL_CONTEXT: &[u8] = b"renew";

/// What the two ends of one TLS channel, and nobody else, can export with [`EXPORTER_LABEL`] and a context. Has no
/// `Debug`: it is no secret to guard, but it belongs in no log either.
#[derive(Clone, Copy)]
pub struct Exporter(pub [u8; 32]);
