//! An orchestrator's endpoint on a free port, and the credentials of everybody else.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use modchain_certs::{Authority, Credentials, DenyList, RootPin, Subject};
use modchain_link::{Accepted, Connection, Endpoint, EndpointKeys, JoinEndpoint, Protocol, connect};
use modchain_types::{IdentityId, List, Role, Timestamp};
use modchain_wire::agent::{Heartbeat, HeartbeatEcho, HostLoad};
use modchain_wire::{FromAgent, ToAgent};
use tempfile::TempDir;

/// Longest that anything here may take: far above what it does take, so that a slow machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("authority");
        Self { dir, authority }
    }

    pub(crate) fn member(&self, role: Role, number: u8) -> Credentials {
        self.member_at(role, number, SystemTime::now())
    }

    pub(crate) fn member_at(&self, role: Role, number: u8, now: SystemTime) -> Credentials {
        let subject = Subject::member(role, id(number)).expect("a member");
        self.authority.issue(subject, Duration::from_secs(3600), now).expect("issues")
    }

    pub(crate) fn keys(&self) -> EndpointKeys {
        EndpointKeys::load_or_create(&self.dir.path().join("quic")).expect("keys")
    }

    pub(crate) fn listen(&self) -> Endpoint {
        self.listen_with((Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    pub(crate) fn listen_with(&self, address: SocketAddr, deny: Option<Arc<dyn DenyList>>) -> Endpoint {
        Endpoint::bind(address, &self.orchestrator(), &self.keys(), deny).expect("listens")
    }

    pub(crate) fn listen_join(&self) -> JoinEndpoint {
        JoinEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &self.orchestrator()).expect("listens")
    }

    pub(crate) fn orchestrator(&self) -> Credentials {
        self.authority.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), SystemTime::now()).expect("issues")
    }

    /// What a token says of the root.
    pub(crate) fn pin(&self) -> RootPin {
        let root = rustls::server::ParsedCertificate::try_from(self.authority.root()).expect("a certificate");
        let digest = ring::digest::digest(&ring::digest::SHA256, &root.subject_public_key_info());
        RootPin(digest.as_ref().try_into().expect("32 bytes"))
    }
}

pub(crate) fn id(number: u8) -> IdentityId {
    IdentityId([number; 16])
}

pub(crate) fn address(endpoint: &Endpoint) -> String {
    endpoint.local_address().expect("bound").to_string()
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) fn join_address(endpoint: &JoinEndpoint) -> String {
    endpoint.local_address().expect("bound").to_string()
}

/// Waits until something holds, [`PATIENCE`] at most.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection's two ends.
pub(crate) async fn pair(world: &World, endpoint: &Endpoint, role: Role, protocol: Protocol) -> (Connection, Accepted) {
    let credentials = world.member(role, 1);
    let address = address(endpoint);
    let (client, accepted) =
        soon(async { tokio::join!(connect(&credentials, &address, protocol), endpoint.accept()) }).await;
    (client.expect("connects"), accepted.expect("accepts"))
}

/// Whether a datagram is a retry (RFC 9000, 17.2.5): a long header of type 3.
pub(crate) fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0
}

pub(crate) fn beat(number: u64) -> FromAgent {
    FromAgent::Heartbeat(Heartbeat {
        number,
        sent: Timestamp(number),
        rtt: None,
        load: HostLoad::default(),
        gpus: List::default(),
    })
}

pub(crate) fn echo(number: u64) -> ToAgent {
    ToAgent::HeartbeatEcho(HeartbeatEcho { number, sent: Timestamp(number) })
}
