//! A member that speaks QUIC without our rules: what a hostile or a careless one can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use modchain_certs::{Credentials, ORCHESTRATOR_NAME};
use modchain_link::{CloseReason, Protocol};
use modchain_types::WallTime;
use modchain_wire::console::ConsoleHello;
use modchain_wire::{FromConsole, Message, ToConsole};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::ClientConfig;

use crate::peers::{soon, text};

/// Keeps its connections from being found dead while nothing is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(crate) struct Raw {
    config: quinn::ClientConfig,
    endpoint: quinn::Endpoint,
    remote: SocketAddr,
}

impl Raw {
    /// `change` may take back what our own settings forbid.
    pub(crate) fn new(credentials: &Credentials, remote: &str, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut tls = modchain_certs::client_config(credentials, &[Protocol::Console.alpn()]).expect("settings");
        change(&mut tls);
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        Self { config, endpoint, remote: remote.parse().expect("an address") }
    }

    /// Connects and is welcomed, or learns why not. Nobody may be in a position to send anything before that is judged.
    pub(crate) async fn enter(&self) -> Result<quinn::Connection, CloseReason> {
        let connecting = self.endpoint.connect_with(self.config.clone(), self.remote, ORCHESTRATOR_NAME);
        // One try for both questions: whoever begins a handshake uses up what was kept for it.
        let connecting = match connecting.expect("it begins").into_0rtt() {
            Ok(_) => panic!("there is a session to send early data with"),
            Err(connecting) => connecting,
        };
        let connection = soon("a handshake", connecting).await?;
        let hello = ConsoleHello { types: ToConsole::known_types(), version: text("0"), wall: WallTime(0) };
        let frame = FromConsole::from(hello).to_frame().expect("it fits");
        let welcomed = async {
            let (mut send, mut recv) = connection.open_bi().await.ok()?;
            send.write_all(&frame).await.ok()?;
            send.finish().ok()?;
            recv.read_to_end(64 * 1024).await.ok().filter(|answer| !answer.is_empty())
        };
        match soon("a welcome", welcomed).await {
            Some(_) => Ok(connection),
            None => Err(soon("the reason", connection.closed()).await.into()),
        }
    }
}
