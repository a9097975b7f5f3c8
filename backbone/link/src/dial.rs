//! Connecting to an orchestrator, and what may go wrong on the way, in words that say what to do.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use modchain_certs::{Credentials, IdentityError, ORCHESTRATOR_NAME, PeerIdentity, TlsError};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;

use crate::code::{Alert, CloseCode, CloseReason, Side};
use crate::connection::{Connection, Origin};
use crate::settings::{ADDRESSES_TRIED_MAX, CONNECT_TIMEOUT, Protocol, client_transport};

/// Why there is no connection. After a connection was made but before the frame of welcome, see
/// [`Connection::why_refused`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address, or there is no name service.
    #[error("cannot find the address of {address}; write HOST:PORT")]
    Resolve {
        /// What was asked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This machine has no socket for it.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// Our own key and certificate cannot be used.
    #[error("cannot use this identity")]
    Credentials(#[from] TlsError),
    /// Nothing listens there.
    #[error("nothing listens at {address}; is the orchestrator running?")]
    Refused {
        /// What was tried.
        address: String,
    },
    /// No answer came.
    #[error("nothing answers at {address} (UDP); is the orchestrator running, and does a firewall let UDP through?")]
    Silent {
        /// What was tried.
        address: String,
    },
    /// Somebody answers there who cannot prove to be the orchestrator of this identity.
    #[error("the orchestrator at {address} is not the one that this identity belongs to ({why})")]
    NotTrusted {
        /// What was tried.
        address: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// Somebody answers there, but not the orchestrator whose root the token names.
    #[error("the orchestrator at {address} is not the one that this token was made for; check the address")]
    OtherThanToken {
        /// What was tried.
        address: String,
    },
    /// The orchestrator's own certificate is not valid at this time.
    #[error(
        "the certificate of the orchestrator at {address} is not valid at this machine's time: its clock or that of the \
         orchestrator is wrong, or the certificate has ended and the orchestrator has to renew it"
    )]
    OrchestratorExpired {
        /// What was tried.
        address: String,
    },
    /// Somebody listens there, but not for newcomers.
    #[error(
        "nobody can join at {address}: it may be the orchestrator's main port (give the join port, 7444 unless the \
         operator chose another), or one of the two programs is too old"
    )]
    NotJoinPort {
        /// What was tried.
        address: String,
    },
    /// The orchestrator did not take our certificate.
    #[error("the orchestrator at {address} refused this identity: {}", why.sentence())]
    CertificateRefused {
        /// What was tried.
        address: String,
        /// Its reason.
        why: CertificateRefusal,
    },
    /// The certificate's role may not speak this protocol.
    #[error("{}", CloseCode::WrongRole.sentence())]
    WrongRole,
    /// The identity has as many connections as it may.
    #[error("{}", CloseCode::TooManyConnections.sentence())]
    TooManyConnections,
    /// The orchestrator takes nobody now.
    #[error("the orchestrator at {address} is too busy to take another connection")]
    Busy {
        /// What was tried.
        address: String,
    },
    /// No common protocol version.
    #[error(
        "this program and the orchestrator at {address} have no protocol version in common: update the older one, or \
         give the main port (7443 unless the operator chose another) if that is the join port"
    )]
    Version {
        /// What was tried.
        address: String,
    },
    /// It ended for another reason.
    #[error("the connection to {address} ended")]
    Closed {
        /// What was tried.
        address: String,
        /// The reason.
        #[source]
        reason: CloseReason,
    },
}

/// Why the orchestrator did not take a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateRefusal {
    /// None was sent.
    Missing,
    /// Another authority issued it.
    OtherAuthority,
    /// It has expired or is not yet valid, by the orchestrator's clock.
    Expired,
    /// It was revoked.
    Revoked,
    /// The orchestrator's records do not know the identity.
    Unknown,
    /// Something else about it.
    Other,
}

impl CertificateRefusal {
    /// What happened and what helps.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "it wants a certificate and got none; join with a token first",
            Self::OtherAuthority => {
                "the certificate was issued by another certificate authority; join this orchestrator with a token of its own"
            }
            Self::Expired => "the certificate has expired (or a clock is wrong): join again with a new token",
            Self::Revoked => "the certificate was revoked; ask the operator for a new token",
            Self::Unknown => "it does not know this identity; ask the operator for a token and join again",
            Self::Other => "the certificate is not one that it accepts; join again with a new token",
        }
    }
}

impl ConnectError {
    /// Whether trying again later may succeed with nothing changed on this side.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Socket(_)
            | Self::Refused { .. }
            | Self::Silent { .. }
            | Self::OrchestratorExpired { .. }
            | Self::TooManyConnections
            | Self::Busy { .. } => true,
            Self::Credentials(_)
            | Self::NotTrusted { .. }
            | Self::OtherThanToken { .. }
            | Self::NotJoinPort { .. }
            | Self::CertificateRefused { .. }
            | Self::WrongRole
            | Self::Version { .. } => false,
            Self::Closed { reason, .. } => reason.retryable(),
        }
    }

    /// The failure to connect that this end of a connection means, when it comes before the frame of welcome.
    pub fn from_close(address: &str, reason: CloseReason) -> Self {
        let address = address.to_owned();
        let refused = |why| Self::CertificateRefused { address: address.clone(), why };
        match reason {
            CloseReason::Silent => Self::Silent { address },
            CloseReason::Busy => Self::Busy { address },
            CloseReason::QuicVersion => Self::Version { address },
            CloseReason::Handshake { alert: Alert::NO_APPLICATION_PROTOCOL, .. } => Self::Version { address },
            CloseReason::Handshake { alert: Alert::CERTIFICATE_EXPIRED, by: Side::Here } => {
                Self::OrchestratorExpired { address }
            }
            CloseReason::Handshake { alert, by: Side::Here } if alert.about_certificate() => {
                Self::NotTrusted { address, why: reason.sentence() }
            }
            CloseReason::Handshake { alert, by: Side::There } if alert.about_certificate() => refused(match alert {
                Alert::CERTIFICATE_REQUIRED => CertificateRefusal::Missing,
                Alert::UNKNOWN_CA | Alert::DECRYPT_ERROR => CertificateRefusal::OtherAuthority,
                Alert::CERTIFICATE_EXPIRED => CertificateRefusal::Expired,
                Alert::CERTIFICATE_REVOKED => CertificateRefusal::Revoked,
                _ => CertificateRefusal::Other,
            }),
            CloseReason::There { code: CloseCode::Revoked, .. } => refused(CertificateRefusal::Revoked),
            CloseReason::There { code: CloseCode::UnknownIdentity, .. } => refused(CertificateRefusal::Unknown),
            CloseReason::There { code: CloseCode::WrongRole, .. } => Self::WrongRole,
            CloseReason::There { code: CloseCode::TooManyConnections, .. } => Self::TooManyConnections,
            CloseReason::There { code: CloseCode::Version, .. } => Self::Version { address },
            reason @ (CloseReason::Here
            | CloseReason::There { .. }
            | CloseReason::ThereUnknown { .. }
            | CloseReason::Handshake { .. }
            | CloseReason::Restarted
            | CloseReason::Broken { .. }) => Self::Closed { address, reason },
        }
    }
}

/// A connection that was dialed, and the endpoint that was made for it.
pub(crate) struct Dialed {
    pub(crate) quinn: quinn::Connection,
    pub(crate) endpoint: quinn::Endpoint,
}

/// What the end of a handshake means to the one who dialed this address.
pub(crate) type Meaning = fn(&str, CloseReason) -> ConnectError;

/// Connects to the orchestrator at `address`, written as `HOST:PORT` with the brackets of IPv6. Tries the first
/// [`ADDRESSES_TRIED_MAX`] addresses of the name in turn, each for [`CONNECT_TIMEOUT`].
pub async fn connect(credentials: &Credentials, address: &str, protocol: Protocol) -> Result<Connection, ConnectError> {
    let config = client_config(credentials, protocol)?;
    let Dialed { quinn, endpoint } = dial(&config, address, ConnectError::from_close).await?;
    let not_trusted =
        |error: IdentityError| ConnectError::NotTrusted { address: address.to_owned(), why: error.to_string() };
    let peer = peer_identity(&quinn, credentials).map_err(not_trusted)?;
    Ok(Connection::new(quinn, peer, protocol, Origin::Dialed { address: address.to_owned(), endpoint }))
}

/// Tries the addresses of a name in turn.
pub(crate) async fn dial(
    config: &quinn::ClientConfig,
    address: &str,
    meaning: Meaning,
) -> Result<Dialed, ConnectError> {
    let unresolved = |source| ConnectError::Resolve { address: address.to_owned(), source };
    let found = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(address))
        .await
        .map_err(|_| unresolved(io::ErrorKind::TimedOut.into()))?
        .map_err(unresolved)?;
    let mut failure = None;
    for remote in found.take(ADDRESSES_TRIED_MAX) {
        match dial_one(config, remote, address, meaning).await {
            Ok(dialed) => return Ok(dialed),
            // Somebody who answers and refuses says more than an address where nobody is.
            Err(error @ (ConnectError::Refused { .. } | ConnectError::Silent { .. } | ConnectError::Socket(_))) => {
                failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failure.unwrap_or_else(|| unresolved(io::ErrorKind::NotFound.into())))
}

fn client_config(credentials: &Credentials, protocol: Protocol) -> Result<quinn::ClientConfig, ConnectError> {
    let tls = modchain_certs::client_config(credentials, &[protocol.alpn()])?;
    let crypto = QuicClientConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(client_transport(protocol)));
    Ok(config)
}

async fn dial_one(
    config: &quinn::ClientConfig,
    remote: SocketAddr,
    address: &str,
    meaning: Meaning,
) -> Result<Dialed, ConnectError> {
    let endpoint = quinn::Endpoint::client(any_port_like(remote)).map_err(ConnectError::Socket)?;
    let closed = |reason| meaning(address, reason);
    let connecting = endpoint
        .connect_with(config.clone(), remote, ORCHESTRATOR_NAME)
        .map_err(|error| closed(CloseReason::Broken { what: error.to_string() }))?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
        tokio::select! {
            connected = connecting => connected.map_err(|error| closed(error.into())),
            () = port_is_closed(remote) => Err(ConnectError::Refused { address: address.to_owned() }),
        }
    });
    let quinn = connected.await.unwrap_or_else(|_| Err(closed(CloseReason::Silent)))?;
    Ok(Dialed { quinn, endpoint })
}

/// Reads again what the handshake has judged already.
fn peer_identity(connection: &quinn::Connection, credentials: &Credentials) -> Result<PeerIdentity, IdentityError> {
    let leaf = peer_leaf(connection).ok_or(IdentityError::Garbled)?;
    PeerIdentity::from_certificate(&leaf, credentials.trust_domain())
}

/// The certificate that the peer proved to hold.
pub(crate) fn peer_leaf(connection: &quinn::Connection) -> Option<CertificateDer<'static>> {
    peer_chain(connection)?.into_iter().next()
}

/// All certificates that the peer sent, its own first.
pub(crate) fn peer_chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    Some(*connection.peer_identity()?.downcast().ok()?)
}

/// Returns when the system says that no program has this port; else never. QUIC's own socket cannot hear that, because it
/// belongs to no one peer. One byte is no QUIC packet, so whoever listens drops it.
async fn port_is_closed(remote: SocketAddr) {
    let probe = async {
        let socket = UdpSocket::bind(any_port_like(remote)).await?;
        socket.connect(remote).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match probe.await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(_) | Err(_) => std::future::pending().await,
    }
}

fn any_port_like(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
