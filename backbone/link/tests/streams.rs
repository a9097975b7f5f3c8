//! Frames over real QUIC: what arrives, what is refused, and what that costs.

mod common;

use std::time::Duration;

use common::{World, beat, echo, pair, soon};
use modchain_link::settings::{self, AGENT_STREAMS_MAX};
use modchain_link::{
    Accepted, CloseCode, Connection, Endpoint, FrameReader, FrameWriter, Priority, Protocol, ReadError, StreamCode,
    WriteError,
};
use modchain_types::{Role, WallTime};
use modchain_wire::agent::{OutputChunk, OutputStream};
use modchain_wire::{Data, FromAgent, Message, ToAgent, WIRE_VERSION};
use quinn::VarInt;

struct Both {
    _world: World,
    _endpoint: Endpoint,
    client: Connection,
    server: Accepted,
}

async fn both() -> Both {
    let world = World::new();
    let endpoint = world.listen();
    let (client, server) = pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
    server.connection.authorise(AGENT_STREAMS_MAX);
    Both { _world: world, _endpoint: endpoint, client, server }
}

type Here = (FrameWriter<FromAgent>, FrameReader<ToAgent>);
type There = (FrameWriter<ToAgent>, FrameReader<FromAgent>);

/// One stream's two ends, with its first frame through.
async fn stream(both: &Both) -> (Here, There) {
    let mut here: Here = both.client.open_bi().await.expect("opens");
    here.0.write(&beat(0)).await.expect("writes");
    let mut there: There = soon(both.server.connection.accept_bi()).await.expect("accepts");
    assert_eq!(soon(there.1.read()).await, Ok(Some(beat(0))));
    (here, there)
}

fn chunk(bytes: usize) -> FromAgent {
    FromAgent::OutputChunk(OutputChunk {
        stream: OutputStream::Out,
        offset: 0,
        at: WallTime(0),
        data: Data::new(vec![7; bytes]).expect("fits"),
    })
}

#[tokio::test]
async fn frames_pass_in_both_directions_to_a_clean_end() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    here.0.set_priority(Priority::Heartbeat);
    for number in 1..100 {
        here.0.write(&beat(number)).await.expect("writes");
        assert_eq!(soon(there.1.read()).await, Ok(Some(beat(number))));
        there.0.write(&echo(number)).await.expect("writes");
        assert_eq!(soon(here.1.read()).await, Ok(Some(echo(number))));
    }
    here.0.finish().await.expect("finishes");
    assert_eq!(soon(there.1.read()).await, Ok(None));
    assert_eq!(soon(there.1.read()).await, Ok(None), "the end stays the end");
    assert_eq!(soon(here.0.delivered()).await, Ok(()));
    assert_eq!(here.0.write(&beat(1)).await, Err(WriteError::Ended));
}

#[tokio::test]
async fn queued_frames_of_every_size_arrive_in_order() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    let messages: Vec<_> =
        [0, 1, 1300, 1400, 5000, 60_000].into_iter().flat_map(|size| [beat(size as u64), chunk(size)]).collect();
    let sent = messages.clone();
    let sender = tokio::spawn(async move {
        sent.iter().for_each(|message| here.0.queue(message).expect("fits"));
        here.0.finish().await.expect("sends");
        here
    });
    for message in messages {
        assert_eq!(soon(there.1.read()).await, Ok(Some(message)));
    }
    assert_eq!(soon(there.1.read()).await, Ok(None));
    sender.await.expect("sent");
}

#[tokio::test]
async fn a_cancelled_read_or_write_loses_nothing() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    // Far more than the windows take: writes block and are cancelled half-way, again and again.
    let count = 40;
    let sender = tokio::spawn(async move {
        for _ in 0..count {
            let message = chunk(60_000);
            let _ = tokio::time::timeout(Duration::from_micros(200), here.0.write(&message)).await;
        }
        here.0.finish().await.expect("sends the rest");
        here
    });
    let mut read = 0;
    loop {
        match tokio::time::timeout(Duration::from_micros(50), there.1.read()).await {
            Ok(Ok(Some(message))) => {
                assert_eq!(message, chunk(60_000));
                read += 1;
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) => panic!("{error:?}"),
            Err(_) => {}
        }
    }
    // A write that was cancelled before its turn was never begun; every one that was begun arrived whole.
    assert!((1..=count).contains(&read), "{read}");
    soon(sender).await.expect("sent");
}

/// The bytes of a header with this body length and type.
fn header(body_bytes: u32, version: u8, kind: u8) -> Vec<u8> {
    [&body_bytes.to_le_bytes()[..], &[version, kind]].concat()
}

/// A client made of quinn alone, which sends any bytes.
async fn raw(world: &World, endpoint: &Endpoint) -> (quinn::Connection, quinn::Endpoint, Accepted) {
    let tls = modchain_certs::client_config(&world.member(Role::Node, 1), &[Protocol::Agent.alpn()]).expect("settings");
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
    let client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("socket");
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let remote = endpoint.local_address().expect("bound");
    let connecting = client.connect_with(config, remote, modchain_certs::ORCHESTRATOR_NAME).expect("connects");
    let (connection, accepted) = soon(async { tokio::join!(connecting, endpoint.accept()) }).await;
    let accepted = accepted.expect("accepted");
    accepted.connection.authorise(AGENT_STREAMS_MAX);
    (connection.expect("connects"), client, accepted)
}

#[tokio::test]
async fn a_bad_frame_ends_its_stream_alone_and_a_second_the_connection() {
    let whole = beat(1).to_frame().expect("a frame");
    let kind = beat(1).kind();
    let body = &whole[6..];
    let cap = FromAgent::cap(kind).expect("known") as u32;
    let cases: Vec<(&str, Vec<u8>, StreamCode, bool)> = vec![
        ("too long", header(cap + 1, WIRE_VERSION, kind), StreamCode::BadFrame, true),
        ("four gigabytes", header(u32::MAX, WIRE_VERSION, kind), StreamCode::BadFrame, true),
        ("another version", header(0, WIRE_VERSION + 1, kind), StreamCode::BadFrame, true),
        ("garbled", [header(4, WIRE_VERSION, kind), vec![0xff; 4]].concat(), StreamCode::BadFrame, true),
        (
            "trailing bytes",
            [header(body.len() as u32 + 1, WIRE_VERSION, kind), body.to_vec(), vec![0]].concat(),
            StreamCode::BadFrame,
            true,
        ),
        ("an unknown type", header(0, WIRE_VERSION, 0xee), StreamCode::Unsupported, false),
    ];
    let world = World::new();
    for (what, bytes, code, counted) in cases {
        // Each its own: whoever sends five of them is kept out for a while.
        let endpoint = world.listen();
        let (client, _socket, server) = raw(&world, &endpoint).await;
        let (mut good, _) = client.open_bi().await.expect("opens");
        good.write_all(&whole).await.expect("writes");
        let (_w, mut good_reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
        assert_eq!(soon(good_reader.read()).await, Ok(Some(beat(1))), "{what}");
        for round in 1..=2 {
            let (mut bad, _) = client.open_bi().await.expect("opens");
            bad.write_all(&whole).await.expect("writes");
            bad.write_all(&bytes).await.expect("writes");
            let (_w, mut reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
            assert_eq!(soon(reader.read()).await, Ok(Some(beat(1))), "{what}: what came before is good");
            let error = soon(reader.read()).await.expect_err(what);
            assert_eq!(error.stream_code(), Some(code), "{what}");
            assert!(matches!(error, ReadError::Frame(_)), "{what}");
            assert_eq!(soon(reader.read()).await, Err(error), "{what}: the error stays");
            if round == 2 && counted {
                let reason = soon(client.closed()).await;
                assert!(
                    matches!(&reason, quinn::ConnectionError::ApplicationClosed(close)
                        if close.error_code == VarInt::from(CloseCode::BadFrame)),
                    "{what}: {reason}"
                );
            } else {
                let stopped = soon(bad.stopped()).await.expect("alive");
                assert_eq!(stopped, Some(VarInt::from(code)), "{what}");
                good.write_all(&whole).await.expect("writes");
                assert_eq!(soon(good_reader.read()).await, Ok(Some(beat(1))), "{what}: the other stream goes on");
            }
        }
        client.close(VarInt::from_u32(0), b"");
        soon(server.connection.closed()).await;
    }
}

#[tokio::test]
async fn an_end_in_mid_frame_is_no_clean_end() {
    let world = World::new();
    let endpoint = world.listen();
    let (client, _socket, server) = raw(&world, &endpoint).await;
    let whole = beat(1).to_frame().expect("a frame");
    for length in [3, whole.len() - 1] {
        let (mut send, _) = client.open_bi().await.expect("opens");
        send.write_all(&whole[..length]).await.expect("writes");
        send.finish().expect("finishes");
        let (_w, mut reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
        assert_eq!(soon(reader.read()).await, Err(ReadError::Truncated));
    }
    assert!(soon(client.closed()).await.to_string().contains("middle of a frame"));
}

#[tokio::test]
async fn a_frame_that_stops_half_way_is_given_up_and_a_silent_stream_is_not() {
    let world = World::new();
    let endpoint = world.listen();
    let (client, _socket, server) = raw(&world, &endpoint).await;
    let whole = beat(1).to_frame().expect("a frame");
    let (mut silent, _) = client.open_bi().await.expect("opens");
    silent.write_all(&whole).await.expect("writes");
    let (_w, mut silent_reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
    assert_eq!(soon(silent_reader.read()).await, Ok(Some(beat(1))));
    let (mut stalled, _) = client.open_bi().await.expect("opens");
    stalled.write_all(&whole[..7]).await.expect("writes");
    let (_w, mut reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
    let started = std::time::Instant::now();
    let reading = async {
        tokio::select! {
            result = reader.read() => result,
            other = silent_reader.read() => panic!("between frames a stream may be silent: {other:?}"),
        }
    };
    let result = tokio::time::timeout(2 * settings::FRAME_STALL_TIMEOUT, reading).await.expect("in time");
    assert_eq!(result, Err(ReadError::Stalled));
    assert!(started.elapsed() + Duration::from_secs(1) > settings::FRAME_STALL_TIMEOUT);
    assert_eq!(soon(stalled.stopped()).await, Ok(Some(VarInt::from(StreamCode::Stalled))));
    silent.write_all(&whole).await.expect("the connection lives");
    assert_eq!(soon(silent_reader.read()).await, Ok(Some(beat(1))));
}

#[tokio::test]
async fn a_frame_that_begins_behind_another_and_stops_is_given_up_too() {
    let world = World::new();
    let endpoint = world.listen();
    let (client, _socket, server) = raw(&world, &endpoint).await;
    let whole = beat(1).to_frame().expect("a frame");
    let (mut stalled, _) = client.open_bi().await.expect("opens");
    // One write, one packet: no byte comes after the whole frame was taken.
    stalled.write_all(&[&whole[..], &whole[..3]].concat()).await.expect("writes");
    let (_w, mut reader): There = soon(server.connection.accept_bi()).await.expect("accepts");
    assert_eq!(soon(reader.read()).await, Ok(Some(beat(1))));
    let result = tokio::time::timeout(2 * settings::FRAME_STALL_TIMEOUT, reader.read()).await.expect("in time");
    assert_eq!(result, Err(ReadError::Stalled));
}

#[tokio::test]
async fn a_reset_and_a_stop_carry_their_reason() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    here.0.reset(StreamCode::Cancelled);
    assert_eq!(soon(there.1.read()).await, Err(ReadError::Reset(Some(StreamCode::Cancelled))));
    here.1.stop(StreamCode::Refused);
    assert_eq!(soon(there.0.delivered()).await, Err(WriteError::Stopped(Some(StreamCode::Refused))));
    assert_eq!(there.0.write(&echo(1)).await, Err(WriteError::Stopped(Some(StreamCode::Refused))));
    // The connection is none the worse for it.
    stream(&both).await;
}

#[tokio::test]
async fn a_writer_with_nothing_to_say_learns_that_nobody_reads_any_more() {
    let both = both().await;
    let (here, there) = stream(&both).await;
    let (_idle, quiet) = stream(&both).await;
    let (unwanted, still_wanted) = (there.0.unwanted(), quiet.0.unwanted());
    drop(here);
    soon(unwanted).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), quiet.0.unwanted()).await.is_err(), "this one is read");
    both.client.close(CloseCode::Done, "");
    soon(still_wanted).await;
}

#[tokio::test]
async fn a_writer_dropped_in_mid_frame_resets_and_between_frames_ends() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    // The other side does not read, so this fills the window and stops in the middle of a frame.
    while tokio::time::timeout(Duration::from_millis(200), here.0.write(&chunk(60_000))).await.is_ok() {}
    drop(here.0);
    let end = loop {
        match soon(there.1.read()).await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end, Err(ReadError::Reset(Some(StreamCode::Cancelled))));
    let (here, mut there) = stream(&both).await;
    drop(here.0);
    assert_eq!(soon(there.1.read()).await, Ok(None));
}

#[tokio::test]
async fn a_message_over_its_cap_is_refused_and_the_stream_goes_on() {
    let both = both().await;
    let (mut here, mut there) = stream(&both).await;
    let big = FromAgent::OutputChunk(OutputChunk {
        stream: OutputStream::Out,
        offset: u64::MAX,
        at: WallTime(i64::MAX),
        data: Data::new(vec![7; modchain_wire::CHUNK_BYTES_MAX]).expect("fits"),
    });
    here.0.write(&big).await.expect("the largest chunk fits its frame");
    assert_eq!(soon(there.1.read()).await, Ok(Some(big)));
    here.0.write(&beat(3)).await.expect("writes");
    assert_eq!(soon(there.1.read()).await, Ok(Some(beat(3))));
}

#[tokio::test]
async fn a_stranger_has_one_stream_until_it_is_authorised() {
    let world = World::new();
    let endpoint = world.listen();
    let (client, server) = pair(&world, &endpoint, Role::Node, Protocol::Agent).await;
    let mut first: Here = client.open_bi().await.expect("one is allowed");
    first.0.write(&beat(1)).await.expect("writes");
    let second = client.open_bi::<FromAgent, ToAgent>();
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err(), "a second is not");
    assert_eq!(server.connection.authorise(u32::MAX), AGENT_STREAMS_MAX);
    let mut second: Here = soon(second).await.expect("now it is");
    second.0.write(&beat(2)).await.expect("writes");
    // The orchestrator may open none at all.
    let opened = tokio::time::timeout(Duration::from_millis(200), server.connection.open_bi::<ToAgent, FromAgent>());
    assert!(opened.await.is_err());
}
