//! Strangers who begin a handshake and do not go on.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, World, address, is_retry, soon};
use modchain_link::settings::{HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY};
use modchain_link::{Endpoint, Protocol, connect};
use modchain_types::Role;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A client's first packet fills a datagram of at least this many bytes (RFC 9000, 14.1).
const FIRST_BYTES_MIN: usize = 1200;

/// The first datagrams of this many clients, which talk to nobody.
async fn first_datagrams(world: &World, count: usize) -> Vec<Vec<u8>> {
    let credentials = Arc::new(world.member(Role::Node, 1));
    let mut clients = JoinSet::new();
    let mut firsts = Vec::new();
    for _ in 0..count {
        // Each talks to a port of its own, so that no datagram is another's retransmission.
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("socket");
        let address = nobody.local_addr().expect("bound").to_string();
        let credentials = credentials.clone();
        let client = clients.spawn(async move { connect(&credentials, &address, Protocol::Agent).await.is_ok() });
        loop {
            let mut datagram = vec![0; 2048];
            let length = soon(nobody.recv(&mut datagram)).await.expect("a datagram");
            if length >= FIRST_BYTES_MIN {
                datagram.truncate(length);
                firsts.push(datagram);
                break;
            }
        }
        client.abort();
        while clients.join_next().await.is_some() {}
    }
    firsts
}

/// Sends a first datagram from a place of its own; gives the kind of the answer and how many bytes came at once.
async fn knock(orchestrator: &str, first: &[u8]) -> (UdpSocket, bool) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("socket");
    socket.connect(orchestrator).await.expect("connects");
    socket.send(first).await.expect("sends");
    let mut answer = [0; 2048];
    let length = soon(socket.recv(&mut answer)).await.expect("an answer");
    let retry = is_retry(&answer[..length]);
    (socket, retry)
}

/// Sends all of them to one endpoint before it forgets the first; to another one where this machine was too slow for that.
async fn in_time(world: &World, firsts: &[Vec<u8>]) -> (Endpoint, Instant, Vec<(UdpSocket, bool)>) {
    let first_try = Instant::now();
    loop {
        let endpoint = world.listen();
        let (began, mut knocked) = (Instant::now(), Vec::new());
        for first in firsts {
            knocked.push(knock(&address(&endpoint), first).await);
        }
        if began.elapsed() < HANDSHAKE_TIMEOUT * 3 / 4 {
            return (endpoint, began, knocked);
        }
        assert!(first_try.elapsed() < PATIENCE, "this machine is too slow for so many newcomers");
    }
}

#[tokio::test]
async fn under_load_a_newcomer_must_prove_its_address_and_the_silent_are_dropped_in_time() {
    let world = World::new();
    let firsts = first_datagrams(&world, HANDSHAKES_BEFORE_RETRY + 3).await;
    let (last, firsts) = firsts.split_last().expect("some");
    let (endpoint, began, knocked) = in_time(&world, firsts).await;
    let orchestrator = address(&endpoint);
    let mut silent = Vec::new();
    for (number, (socket, retry)) in knocked.into_iter().enumerate() {
        assert_eq!(retry, number > HANDSHAKES_BEFORE_RETRY, "newcomer {number}");
        silent.push(socket);
    }
    // What the silent have begun is forgotten after the time for a handshake, and newcomers are trusted again.
    loop {
        let (_socket, retry) = knock(&orchestrator, last).await;
        if !retry {
            break;
        }
        assert!(began.elapsed() < HANDSHAKE_TIMEOUT + PATIENCE, "the silent are still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() + Duration::from_millis(500) > HANDSHAKE_TIMEOUT, "they were given their time");
    // Nobody is sent more than three times what it has sent.
    for socket in &silent {
        let mut bytes = 0;
        while let Ok(length) = socket.try_recv(&mut [0; 2048]) {
            bytes += length;
        }
        assert!(bytes <= 3 * FIRST_BYTES_MAX, "{bytes} bytes were sent to an address that proved nothing");
    }
}

/// The most that a first datagram of ours has.
const FIRST_BYTES_MAX: usize = 1472;
