//! Why connections and streams end: the numbers on the wire, and what they mean to people.

use std::fmt;

use quinn::VarInt;

/// Longest text of a peer's that is kept with the reason of a close, in characters.
const TEXT_CHARS_MAX: usize = 200;

macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $word:literal, $sentence:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)*
        }

        impl $name {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code of this number, or `None` for one that this program does not know.
            pub fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub fn number(self) -> u32 {
                self as u32
            }

            /// The word for logs.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What happened, in words: a fragment without a final dot.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl From<$name> for VarInt {
            fn from(code: $name) -> Self {
                Self::from_u32(code.number())
            }
        }
    };
}

codes! {
    /// Why one side closed a connection. Numbers are never reused.
    CloseCode {
        /// Whoever held the connection let go of it without a word; what QUIC sends by itself.
        Dropped = 0x0, "dropped", "the other side let go of the connection; try again";
        /// The program stops; come back.
        GoingAway = 0x1000, "going_away", "the other side is shutting down; try again in a moment";
        /// The certificate or its identity was revoked.
        Revoked = 0x1001, "revoked", "this certificate was revoked; ask the operator for a new token";
        /// The certificate's role may not speak this protocol.
        WrongRole = 0x1002, "wrong_role", "this certificate's role may not do that: nodes use the agent, clients and operators the console";
        /// The identity has as many connections as it may.
        TooManyConnections = 0x1003, "too_many_connections", "this identity has too many connections at once; end one of them, or try again in a moment";
        /// A second bad frame within a short time.
        BadFrame = 0x1004, "bad_frame", "the other side could not read what this program sent; update the older one of the two";
        /// The first frame did not come in time, or was another.
        HelloExpected = 0x1005, "hello_expected", "the other side waited in vain for the first message; try again, and if that does not help update the older program";
        /// A newer connection of the same node took over.
        Superseded = 0x1006, "superseded", "a newer connection of the same node took over; nothing is to be done, unless two machines share one certificate";
        /// Another live agent uses the same certificate.
        DuplicateInstance = 0x1007, "duplicate_instance", "another live agent uses the same certificate; join this machine with a token of its own";
        /// The two programs have no version in common.
        Version = 0x1008, "version", "the two programs have no protocol version in common; update the older one";
        /// Nothing more to do.
        Done = 0x1009, "done", "the other side was done; connect again if there is more to do";
        /// A bug or a lack on the side that closed.
        Internal = 0x100a, "internal", "the other side had an internal error; try again, and look at its log";
        /// The certificate is sound, but the orchestrator's journal does not know its identity.
        UnknownIdentity = 0x100b, "unknown_identity", "the orchestrator does not know this identity; ask the operator for a token and join again";
        /// The time for the whole connection is over, as on the join port.
        TimeUp = 0x100c, "time_up", "the time for this connection is over; try again";
    }
}

impl CloseCode {
    /// Whether the same program with the same certificate may succeed later.
    pub fn retryable(self) -> bool {
        match self {
            Self::Dropped
            | Self::GoingAway
            | Self::TooManyConnections
            | Self::BadFrame
            | Self::HelloExpected
            | Self::Superseded
            | Self::Done
            | Self::Internal
            | Self::TimeUp => true,
            Self::Revoked | Self::WrongRole | Self::DuplicateInstance | Self::Version | Self::UnknownIdentity => false,
        }
    }
}

codes! {
    /// Why one side gave up a stream. Numbers are never reused.
    StreamCode {
        /// Whoever held the stream let go of it; what QUIC sends by itself.
        Dropped = 0x0, "dropped", "the other side let go of the stream";
        /// A frame was too long, did not decode, or had bytes after its end.
        BadFrame = 0x2000, "bad_frame", "a frame on the stream could not be read; update the older one of the two programs";
        /// A frame's type is not known here.
        Unsupported = 0x2001, "unsupported", "the other side does not know this kind of message; its program is older or of another kind";
        /// A frame began and did not go on.
        Stalled = 0x2002, "stalled", "a message on the stream stopped half-way; try again";
        /// The one who wanted it no longer does.
        Cancelled = 0x2003, "cancelled", "the stream was cancelled";
        /// Not at this moment of the conversation, or not for this peer.
        Refused = 0x2004, "refused", "the other side refused the stream";
        /// A bug or a lack on the side that gave up.
        Internal = 0x2005, "internal", "the other side had an internal error; try again, and look at its log";
    }
}

/// One end of a connection, as seen from this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This program.
    Here,
    /// The peer.
    There,
}

/// Why a TLS handshake was refused, by the number in RFC 8446.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    /// The certificate is garbled, or its names do not fit.
    pub const BAD_CERTIFICATE: Self = Self(42);
    /// The certificate is of a kind that is not supported.
    pub const UNSUPPORTED_CERTIFICATE: Self = Self(43);
    /// The certificate was revoked.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// The certificate's time is over, or has not come.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// The certificate is unacceptable for another reason: one of ours, see `modchain_certs::IdentityError`.
    pub const CERTIFICATE_UNKNOWN: Self = Self(46);
    /// The certificate was issued by an authority that is not trusted.
    pub const UNKNOWN_CA: Self = Self(48);
    /// The certificate is sound but not welcome.
    pub const ACCESS_DENIED: Self = Self(49);
    /// A signature is wrong: an authority of the same name with another key.
    pub const DECRYPT_ERROR: Self = Self(51);
    /// There was no certificate.
    pub const CERTIFICATE_REQUIRED: Self = Self(116);
    /// No application protocol in common.
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);

    /// Whether it is about a certificate.
    pub fn about_certificate(self) -> bool {
        matches!(
            self,
            Self::BAD_CERTIFICATE
                | Self::UNSUPPORTED_CERTIFICATE
                | Self::CERTIFICATE_REVOKED
                | Self::CERTIFICATE_EXPIRED
                | Self::CERTIFICATE_UNKNOWN
                | Self::UNKNOWN_CA
                | Self::ACCESS_DENIED
                | Self::DECRYPT_ERROR
                | Self::CERTIFICATE_REQUIRED
        )
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This program closed it.
    #[error("this side closed the connection")]
    Here,
    /// The other side closed it with one of our codes.
    #[error("{}{}", code.sentence(), and(text))]
    There {
        /// Its code.
        code: CloseCode,
        /// What it added, cleaned of control characters.
        text: String,
    },
    /// The other side closed it with a code that this program does not know: it is newer.
    #[error("the other side closed the connection with code {number:#x}{}", and(text))]
    ThereUnknown {
        /// Its code.
        number: u64,
        /// What it added, cleaned of control characters.
        text: String,
    },
    /// The handshake was refused.
    #[error("{}", handshake_sentence(*alert, *by))]
    Handshake {
        /// Why.
        alert: Alert,
        /// By whom.
        by: Side,
    },
    /// The other side takes no more connections now.
    #[error("the other side is too busy to take another connection")]
    Busy,
    /// The other side restarted and knows nothing of the connection.
    #[error("the other side restarted")]
    Restarted,
    /// Nothing was heard for too long.
    #[error("the other side went silent")]
    Silent,
    /// The two speak no common version of QUIC.
    #[error("the two programs have no QUIC version in common")]
    QuicVersion,
    /// Somebody broke the rules of QUIC.
    #[error("the connection broke: {what}")]
    Broken {
        /// What the transport said.
        what: String,
    },
}

impl CloseReason {
    /// The other side's code, if it gave one that is known.
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::There { code, .. } => Some(*code),
            Self::Here
            | Self::ThereUnknown { .. }
            | Self::Handshake { .. }
            | Self::Busy
            | Self::Restarted
            | Self::Silent
            | Self::QuicVersion
            | Self::Broken { .. } => None,
        }
    }

    /// Whether connecting again later may succeed with nothing changed on this side.
    pub fn retryable(&self) -> bool {
        match self {
            Self::There { code, .. } => code.retryable(),
            Self::Here
            | Self::ThereUnknown { .. }
            | Self::Busy
            | Self::Restarted
            | Self::Silent
            | Self::Broken { .. } => true,
            Self::Handshake { .. } | Self::QuicVersion => false,
        }
    }

    /// What happened, in words: a fragment without a final dot.
    pub fn sentence(&self) -> String {
        self.to_string()
    }
}

impl From<quinn::ConnectionError> for CloseReason {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::LocallyClosed => Self::Here,
            E::Reset => Self::Restarted,
            E::TimedOut => Self::Silent,
            E::VersionMismatch => Self::QuicVersion,
            E::CidsExhausted => Self::Broken { what: "no more connection ids".into() },
            E::ApplicationClosed(close) => {
                let (number, text) = (close.error_code.into_inner(), clean(&close.reason));
                match CloseCode::from_number(number) {
                    Some(code) => Self::There { code, text },
                    None => Self::ThereUnknown { number, text },
                }
            }
            E::ConnectionClosed(close) => {
                transport_reason(close.error_code, Side::There, || clean(close.to_string().as_bytes()))
            }
            E::TransportError(error) => {
                transport_reason(error.code, Side::Here, || clean(error.to_string().as_bytes()))
            }
        }
    }
}

fn transport_reason(code: quinn::TransportErrorCode, by: Side, what: impl FnOnce() -> String) -> CloseReason {
    // RFC 9001, 4.8: a TLS alert is the transport error 0x100 + its number.
    match u64::from(code) {
        number @ 0x100..=0x1ff => CloseReason::Handshake { alert: Alert(number as u8), by },
        _ if code == quinn::TransportErrorCode::CONNECTION_REFUSED => CloseReason::Busy,
        _ => CloseReason::Broken { what: what() },
    }
}

fn handshake_sentence(alert: Alert, by: Side) -> String {
    let (subject, renewal) = match by {
        Side::Here => ("the orchestrator's certificate", "set the clock, or have the orchestrator renew it"),
        Side::There => ("this program's certificate", "join again with a new token"),
    };
    match alert {
        Alert::NO_APPLICATION_PROTOCOL => {
            "the two programs have no protocol version in common; update the older one".into()
        }
        Alert::CERTIFICATE_REQUIRED => {
            "the other side wants a certificate and got none; join with a token first".into()
        }
        Alert::CERTIFICATE_REVOKED => format!("{subject} was revoked; ask the operator for a new token"),
        Alert::CERTIFICATE_EXPIRED => format!("{subject} has expired (or a clock is wrong): {renewal}"),
        Alert::UNKNOWN_CA | Alert::DECRYPT_ERROR => format!("{subject} was issued by another certificate authority"),
        alert if alert.about_certificate() => format!("{subject} was refused (TLS alert {})", alert.0),
        alert => format!("the handshake was refused (TLS alert {})", alert.0),
    }
}

fn and(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// A peer's words for our terminal: no control, formatting or bidirectional characters, and not too many.
fn clean(bytes: &[u8]) -> String {
    let seen = |c: &char| !(c.is_control() || modchain_types::is_hidden(*c));
    String::from_utf8_lossy(bytes).chars().filter(seen).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_no_two_share_a_number_or_a_word() {
        let mut numbers = std::collections::HashSet::new();
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number().into()), Some(*code));
            assert!(numbers.insert(code.number()) && !code.word().is_empty() && !code.sentence().ends_with('.'));
        }
        // What QUIC sends by itself is the same number on both.
        assert!(numbers.remove(&0));
        for code in StreamCode::ALL {
            assert_eq!(StreamCode::from_number(code.number().into()), Some(*code));
            assert!(numbers.insert(code.number()) && !code.word().is_empty() && !code.sentence().ends_with('.'));
        }
        assert_eq!(CloseCode::from_number(0xfff), None);
        assert_eq!(CloseCode::Revoked.number(), 0x1001, "told to peers since the first version");
    }

    #[test]
    fn every_close_says_what_helps() {
        for code in CloseCode::ALL {
            let (what, next) = code.sentence().split_once([';', ':']).unwrap_or_else(|| panic!("{code}: what next?"));
            assert!(what.len() > 5 && next.len() > 5, "{code}");
        }
        for (alert, by, help) in [
            (Alert::CERTIFICATE_EXPIRED, Side::There, "join again with a new token"),
            (Alert::CERTIFICATE_REVOKED, Side::There, "a new token"),
            (Alert::CERTIFICATE_REQUIRED, Side::There, "join with a token"),
            (Alert::CERTIFICATE_EXPIRED, Side::Here, "set the clock"),
        ] {
            let sentence = CloseReason::Handshake { alert, by }.sentence();
            assert!(sentence.contains(help), "{sentence}");
        }
    }

    #[test]
    fn a_peers_words_cannot_steer_the_terminal() {
        let words = "a\u{1b}[31mb\r\nc\u{202e}d\u{200b}e\u{85}".as_bytes();
        assert_eq!(clean(words), "a[31mbcde");
        assert_eq!(clean(&[b'x'; 1000]).len(), TEXT_CHARS_MAX);
        assert_eq!(clean(&[0xff, b'x']), "\u{fffd}x");
    }

    #[test]
    fn every_reason_has_a_sentence() {
        let there = CloseReason::There { code: CloseCode::GoingAway, text: "upgrade".into() };
        assert_eq!(there.sentence(), "the other side is shutting down; try again in a moment (upgrade)");
        assert!(there.retryable() && there.code() == Some(CloseCode::GoingAway));
        let revoked = CloseReason::Handshake { alert: Alert::CERTIFICATE_REVOKED, by: Side::There };
        assert_eq!(revoked.sentence(), "this program's certificate was revoked; ask the operator for a new token");
        assert!(!revoked.retryable());
    }
}
