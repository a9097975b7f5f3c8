//! Whether the orchestrator can be reached from here, asked so that nobody who is connected is disturbed: for commands that
//! look into what is amiss.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use modchain_certs::{Credentials, RootPin};
use modchain_types::{Text, TokenId, WallTime};
use modchain_wire::join::JoinHello;
use modchain_wire::{FromJoiner, Message, ToJoiner};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use crate::code::{Alert, CloseCode, CloseReason, Side};
use crate::connection::Connection;
use crate::dial::{self, ConnectError, Dialed, connect};
use crate::join::join_connect;
use crate::settings::{Protocol, client_transport};
use crate::socket::{Buffers, bind_socket};

/// Longest wait for the orchestrator to refuse a connection, which it does within a round trip.
const REFUSAL_MAX: Duration = Duration::from_secs(2);

/// Longest wait for the orchestrator's time.
const TIME_MAX: Duration = Duration::from_secs(2);

/// How many round trips a refusal may take, and the least time for it.
const REFUSAL_ROUND_TRIPS: u32 = 4;
const REFUSAL_MIN: Duration = Duration::from_millis(250);

/// Whether the orchestrator of these credentials answers on its main port. It proves who it is; this side shows no
/// certificate and is refused, so that it takes no place that a running program of this identity may need.
pub async fn main_port(credentials: &Credentials, address: &str, protocol: Protocol) -> Result<(), ConnectError> {
    let tls = modchain_certs::anonymous_client_config(credentials, &[protocol.alpn()])?;
    let crypto = QuicClientConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    let mut config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    config.transport_config(std::sync::Arc::new(client_transport(protocol)));
    // Once this is done the other side has proved who it is; only then it hears that there is no certificate.
    let Dialed { quinn, endpoint } = dial::dial(&config, address, ConnectError::from_close).await?;
    let result = match timeout(REFUSAL_MAX, quinn.closed()).await.map(CloseReason::from) {
        Ok(CloseReason::Handshake { alert: Alert::CERTIFICATE_REQUIRED, by: Side::There }) | Err(_) => Ok(()),
        Ok(reason) => Err(ConnectError::from_close(address, reason)),
    };
    quinn.close(CloseCode::Done.into(), b"");
    // Kept to here, because it sends the last packets.
    drop(endpoint);
    result
}

/// Whether the orchestrator takes this certificate, with no hello: it takes one of the identity's few places for a moment, so
/// ask it only where no other program uses the identity.
pub async fn certificate(credentials: &Credentials, address: &str, protocol: Protocol) -> Result<(), ConnectError> {
    let connection: Connection = connect(credentials, address, protocol).await?;
    let limit = (connection.rtt() * REFUSAL_ROUND_TRIPS).clamp(REFUSAL_MIN, REFUSAL_MAX);
    match timeout(limit, connection.why_refused()).await {
        Ok(refused) => Err(refused),
        Err(_) => {
            connection.close_and_wait(CloseCode::Done, "only looking").await;
            Ok(())
        }
    }
}

/// Whether the orchestrator with this root answers on its join port, and what time it is there. It tells the time to whoever
/// names a token; without one the answer is `None`, as it is if it does not know the token any more. Nobody joins by this.
pub async fn join_port(
    pin: RootPin,
    address: &str,
    token: Option<TokenId>,
    wall: WallTime,
) -> Result<Option<WallTime>, ConnectError> {
    let link = join_connect(pin, address).await?;
    let time = match token {
        Some(token) => {
            let ask = async {
                let (mut up, mut down) = link.open_bi::<FromJoiner, ToJoiner>().await.ok()?;
                let hello = JoinHello {
                    types: ToJoiner::known_types(),
                    version: Text::cut(env!("CARGO_PKG_VERSION")),
                    token,
                    wall,
                };
                up.write(&hello.into()).await.ok()?;
                match down.read().await {
                    Ok(Some(ToJoiner::Challenge(challenge))) => Some(challenge.wall),
                    Ok(Some(ToJoiner::Accept(_) | ToJoiner::Refused(_)) | None) | Err(_) => None,
                }
            };
            timeout(TIME_MAX, ask).await.unwrap_or(None)
        }
        None => None,
    };
    link.close_and_wait(CloseCode::Done, "only looking").await;
    Ok(time)
}

/// What the system gives a UDP socket that asks for as much as the orchestrator's does.
pub fn buffers() -> io::Result<Buffers> {
    bind_socket((Ipv4Addr::LOCALHOST, 0).into()).map(|(_, buffers)| buffers)
}
