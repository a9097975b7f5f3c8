//! The join port over real QUIC: who trusts whom, what a newcomer may use up, and what it is told.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::{World, address, beat, echo, is_retry, join_address, pair, soon, until};
use modchain_certs::{RootPin, Subject};
use modchain_link::settings::{JOIN_BYTES, JOIN_LIFE};
use modchain_link::{
    CloseCode, CloseReason, ConnectError, FrameReader, FrameWriter, JoinEndpoint, JoinLink, Joining, OpenError,
    Protocol, ReadError, Refusal, StreamCode, connect, join_connect,
};
use modchain_types::Role;
use modchain_wire::{ALPN_JOIN, FromAgent, Message, ToAgent};
use quinn::VarInt;

/// Any message will do: the port knows bytes and peers, not what is said.
type Here = (FrameWriter<FromAgent>, FrameReader<ToAgent>);
type There = (FrameWriter<ToAgent>, FrameReader<FromAgent>);

async fn both(world: &World, endpoint: &JoinEndpoint) -> (JoinLink, Joining) {
    let (pin, address) = (world.pin(), join_address(endpoint));
    let (link, joining) = soon(async { tokio::join!(join_connect(pin, &address), endpoint.accept()) }).await;
    (link.expect("connects"), joining.expect("accepts"))
}

async fn refusal(pin: RootPin, address: &str) -> ConnectError {
    soon(join_connect(pin, address)).await.err().expect("refused")
}

#[tokio::test]
async fn a_newcomer_learns_the_root_and_the_two_talk_on_one_stream() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (link, joining) = both(&world, &endpoint).await;
    assert_eq!(link.root(), world.authority.root());
    assert_eq!(link.remote_address(), endpoint.local_address().expect("bound"));
    assert!(joining.remote.ip().is_loopback());
    let mut here: Here = link.open_bi().await.expect("opens");
    here.0.write(&beat(1)).await.expect("writes");
    let mut there: There = soon(joining.accept_bi()).await.expect("accepts");
    assert_eq!(soon(there.1.read()).await, Ok(Some(beat(1))));
    there.0.write(&echo(1)).await.expect("writes");
    there.0.finish().await.expect("finishes");
    assert_eq!(soon(here.1.read()).await, Ok(Some(echo(1))));
    assert_eq!(soon(here.1.read()).await, Ok(None));
    assert_eq!(soon(there.0.delivered()).await, Ok(()));
    let stats = endpoint.stats();
    assert_eq!((stats.connections, stats.handshakes, stats.refused_in_all()), (1, 0, 0));
    assert!(stats.retries >= 1, "whoever waits too long for the answer asks again");
    joining.close(CloseCode::Done, "");
    assert_eq!(soon(link.closed()).await.code(), Some(CloseCode::Done));
    drop((joining, there));
    until("the place is free", || endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn what_is_exported_is_the_same_at_both_ends_and_nowhere_else() {
    let world = World::new();
    let (join, main) = (world.listen_join(), world.listen());
    let mut exported = Vec::new();
    for _ in 0..2 {
        let (link, joining) = both(&world, &join).await;
        assert_eq!(link.exporter().0, joining.exporter.0);
        exported.push(link.exporter().0);
        let (client, accepted) = pair(&world, &main, Role::Node, Protocol::Agent).await;
        assert_eq!(client.exporter().0, accepted.connection.exporter().0);
        assert_eq!(client.exporter().0, client.clone().exporter().0, "asked twice it says the same");
        exported.push(client.exporter().0);
    }
    exported.sort();
    exported.dedup();
    assert_eq!(exported.len(), 4);
    assert!(!exported.contains(&[0; 32]));
}

/// The label and the contexts are a promise to programs that are out there: a quinn of its own exports the same.
#[tokio::test]
async fn the_exporters_label_and_context_are_the_promised_ones() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (client, joining, _socket) = raw(&world, &endpoint).await;
    let mut bytes = [0; 32];
    client.export_keying_material(&mut bytes, b"EXPORTER-modchain", b"join").expect("exports");
    assert_eq!(bytes, joining.exporter.0);
}

#[tokio::test]
async fn every_newcomer_must_prove_its_address_on_an_idle_port_too() {
    let world = World::new();
    let endpoint = world.listen_join();
    // A first datagram, from a client that talks to nobody.
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
    nobody.set_read_timeout(Some(common::PATIENCE)).expect("a limit");
    let (pin, silent) = (world.pin(), nobody.local_addr().expect("bound").to_string());
    let client = tokio::spawn(async move { join_connect(pin, &silent).await.is_ok() });
    let first = tokio::task::spawn_blocking(move || {
        loop {
            let mut datagram = vec![0; 2048];
            let length = match nobody.recv(&mut datagram) {
                // A machine that stands still for a moment interrupts a wait that has a limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received.expect("a datagram"),
            };
            if length >= 1200 {
                datagram.truncate(length);
                return datagram;
            }
        }
    });
    let first = first.await.expect("a first datagram");
    client.abort();
    let knocking = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("socket");
    knocking.connect(join_address(&endpoint)).await.expect("connects");
    for round in 1..=5 {
        knocking.send(&first).await.expect("sends");
        let mut answer = [0; 2048];
        let length = soon(knocking.recv(&mut answer)).await.expect("an answer");
        assert!(is_retry(&answer[..length]) && length < first.len(), "{length} bytes");
        let stats = endpoint.stats();
        assert_eq!((stats.retries, stats.handshakes, stats.connections), (round, 0, 0));
    }
}

#[tokio::test]
async fn another_orchestrator_than_the_tokens_is_named_and_hears_nothing() {
    let (world, other) = (World::new(), World::new());
    let endpoint = world.listen_join();
    let address = join_address(&endpoint);
    let error = refusal(other.pin(), &address).await;
    assert!(matches!(error, ConnectError::OtherThanToken { .. }) && !error.retryable(), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("the orchestrator at {address} is not the one that this token was made for; check the address")
    );
    until("the orchestrator has noticed", || endpoint.stats().refused_for(Refusal::BrokenOff) == 1).await;
    // It never was a newcomer: the next one that comes out is another.
    let (link, joining) = both(&world, &endpoint).await;
    assert_eq!(link.exporter().0, joining.exporter.0);
    assert_eq!(endpoint.stats().connections, 1);
}

#[tokio::test]
async fn an_orchestrator_whose_certificate_is_over_is_told_from_a_foreign_one() {
    let world = World::new();
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    let expired = world.authority.issue(Subject::ORCHESTRATOR, Duration::from_secs(3600), long_ago).expect("issues");
    let endpoint = JoinEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &expired).expect("listens");
    let error = refusal(world.pin(), &join_address(&endpoint)).await;
    assert!(matches!(error, ConnectError::OrchestratorExpired { .. }) && error.retryable(), "{error:?}");
    assert!(error.to_string().contains("not valid at this machine's time"), "{error}");
}

#[tokio::test]
async fn the_two_ports_do_not_take_each_others_and_say_so() {
    let world = World::new();
    let (main, join) = (world.listen(), world.listen_join());
    let error = refusal(world.pin(), &address(&main)).await;
    assert!(matches!(error, ConnectError::NotJoinPort { .. }) && !error.retryable(), "{error:?}");
    assert!(error.to_string().contains("main port") && error.to_string().contains("7444"), "{error}");
    until("the main port counts it", || main.stats().refused_for(Refusal::Protocol) == 1).await;
    let error = soon(connect(&world.member(Role::Node, 1), &join_address(&join), Protocol::Agent)).await;
    let error = error.err().expect("refused");
    assert!(matches!(error, ConnectError::Version { .. }), "{error:?}");
    assert!(error.to_string().contains("join port"), "{error}");
    until("the join port counts it", || join.stats().refused_for(Refusal::Protocol) == 1).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_said_as_to_everybody_else() {
    let world = World::new();
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let error = refusal(world.pin(), &free.to_string()).await;
    assert!(matches!(error, ConnectError::Refused { .. }) && error.retryable(), "{error:?}");
    assert!(error.to_string().starts_with(&format!("nothing listens at {free}")), "{error}");
    let mute = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let error = refusal(world.pin(), &mute.local_addr().expect("bound").to_string()).await;
    assert!(matches!(error, ConnectError::Silent { .. }) && error.retryable(), "{error:?}");
    let error = refusal(world.pin(), "127.0.0.1").await;
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
}

/// A newcomer made of quinn alone, with windows of quinn's own and all that they allow.
async fn raw(world: &World, endpoint: &JoinEndpoint) -> (quinn::Connection, Joining, quinn::Endpoint) {
    let tls = modchain_certs::join_client_config(world.pin(), &[ALPN_JOIN]).expect("settings");
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
    let client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("socket");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let remote = endpoint.local_address().expect("bound");
    let connecting = client.connect_with(config, remote, modchain_certs::ORCHESTRATOR_NAME).expect("connects");
    let (connection, joining) = soon(async { tokio::join!(connecting, endpoint.accept()) }).await;
    (connection.expect("connects"), joining.expect("accepts"), client)
}

/// Long enough for a packet to go and come back many times; only a wait that must be in vain ends by it.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_newcomer_has_one_stream_in_its_life() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (client, joining, _socket) = raw(&world, &endpoint).await;
    let (mut send, mut recv) = soon(client.open_bi()).await.expect("one");
    assert!(tokio::time::timeout(A_WHILE, client.open_bi()).await.is_err(), "a second beside it");
    send.write_all(&beat(1).to_frame().expect("a frame")).await.expect("writes");
    send.finish().expect("finishes");
    let (mut writer, mut reader): There = soon(joining.accept_bi()).await.expect("accepts");
    assert_eq!(soon(reader.read()).await, Ok(Some(beat(1))));
    assert_eq!(soon(reader.read()).await, Ok(None));
    writer.finish().await.expect("finishes");
    assert_eq!(soon(recv.read_to_end(10)).await.expect("the end"), b"");
    assert_eq!(soon(writer.delivered()).await, Ok(()));
    drop((writer, reader, send, recv));
    assert!(tokio::time::timeout(A_WHILE, client.open_bi()).await.is_err(), "a second after it");
    assert!(tokio::time::timeout(A_WHILE, client.open_uni()).await.is_err(), "one of the other kind");
    // Ours, which never waits for a second one in vain but by mistake, is told so in time.
    let (link, _joining) = both(&world, &endpoint).await;
    let _first: Here = link.open_bi().await.expect("one");
    let second = tokio::time::timeout(JOIN_LIFE + common::PATIENCE, link.open_bi::<FromAgent, ToAgent>());
    let error = second.await.expect("in time").err();
    // Whichever comes first: the end of the wait or of the connection's life.
    assert!(matches!(error, Some(OpenError::NoStream | OpenError::Closed(_))), "{error:?}");
}

#[tokio::test]
async fn a_newcomer_has_64_kib_in_its_life_however_fast_it_is_read() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (client, joining, _socket) = raw(&world, &endpoint).await;
    let (mut send, _recv) = soon(client.open_bi()).await.expect("one");
    let frame = beat(1).to_frame().expect("a frame");
    let bytes = frame.repeat(2 * JOIN_BYTES as usize / frame.len());
    let (all, more) = bytes.split_at(JOIN_BYTES as usize);
    soon(send.write_all(all)).await.expect("alive");
    let (_writer, mut reader): There = soon(joining.accept_bi()).await.expect("accepts");
    for _ in 0..all.len() / frame.len() {
        assert_eq!(soon(reader.read()).await, Ok(Some(beat(1))), "all that fits arrives");
    }
    let (sent, read) =
        tokio::join!(tokio::time::timeout(A_WHILE, send.write(more)), tokio::time::timeout(A_WHILE, reader.read()));
    assert!(sent.is_err() && read.is_err(), "{sent:?} {read:?}");
}

#[tokio::test]
async fn nobody_stays_longer_than_ten_seconds_whatever_it_does() {
    let world = World::new();
    let endpoint = world.listen_join();
    let began = Instant::now();
    let (idle, idle_there) = both(&world, &endpoint).await;
    let (busy, busy_there) = both(&world, &endpoint).await;
    let mut here: Here = busy.open_bi().await.expect("opens");
    here.0.write(&beat(0)).await.expect("writes");
    let (writer, mut reader): There = soon(busy_there.accept_bi()).await.expect("accepts");
    let talking = tokio::spawn(async move {
        let mut number = 0;
        while here.0.write(&beat(number)).await.is_ok() {
            number += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        number
    });
    let reading = tokio::spawn(async move {
        loop {
            match reader.read().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    // One that nobody takes.
    let waiting = soon(join_connect(world.pin(), &join_address(&endpoint))).await.expect("connects");
    for (what, link) in [("idle", &idle), ("busy", &busy), ("waiting", &waiting)] {
        let reason = tokio::time::timeout(JOIN_LIFE + common::PATIENCE, link.closed()).await.expect("in time");
        assert_eq!(reason.code(), Some(CloseCode::TimeUp), "{what}: {reason:?}");
        assert!(reason.retryable() && reason.sentence().ends_with("try again"));
        println!("{what}: closed after {:?}", began.elapsed());
        assert!(began.elapsed() + Duration::from_secs(1) > JOIN_LIFE, "{what}");
    }
    assert!(soon(talking).await.expect("ended") > 10, "it did talk");
    assert!(matches!(soon(reading).await.expect("ended"), Err(ReadError::Closed(CloseReason::Here))));
    let taken = soon(endpoint.accept()).await.expect("the one that waited");
    assert_eq!(soon(taken.closed()).await, CloseReason::Here);
    drop((idle_there, busy_there, writer, taken));
    until("the places are free", || endpoint.stats().connections == 0).await;
}

#[tokio::test]
async fn a_bad_frame_ends_the_stream_with_its_code() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (client, joining, _socket) = raw(&world, &endpoint).await;
    let (mut send, _recv) = soon(client.open_bi()).await.expect("one");
    send.write_all(&[0xff; 6]).await.expect("writes");
    let (_writer, mut reader): There = soon(joining.accept_bi()).await.expect("accepts");
    let error = soon(reader.read()).await.expect_err("no frame");
    assert!(matches!(error, ReadError::Frame(_)), "{error:?}");
    assert_eq!(soon(send.stopped()).await, Ok(Some(VarInt::from(error.stream_code().expect("a code")))));
    assert!(matches!(error.stream_code(), Some(StreamCode::BadFrame | StreamCode::Unsupported)));
}

#[tokio::test]
async fn a_closing_port_tells_its_newcomers_and_takes_no_more() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (link, _joining) = both(&world, &endpoint).await;
    soon(endpoint.close(CloseCode::GoingAway, "", Duration::from_secs(5))).await;
    assert_eq!(soon(link.closed()).await.code(), Some(CloseCode::GoingAway));
    assert!(soon(endpoint.accept()).await.is_none());
    let endpoint = world.listen_join();
    let (link, _joining) = both(&world, &endpoint).await;
    drop(endpoint);
    assert_eq!(soon(link.closed()).await.code(), Some(CloseCode::GoingAway), "dropped it says so as well");
}

#[tokio::test]
async fn a_newcomer_that_is_let_go_of_without_a_word_hears_it_at_once() {
    let world = World::new();
    let endpoint = world.listen_join();
    let (link, joining) = both(&world, &endpoint).await;
    drop(joining);
    assert_eq!(soon(link.closed()).await.code(), Some(CloseCode::Dropped));
    until("the place is free", || endpoint.stats().connections == 0).await;
}
