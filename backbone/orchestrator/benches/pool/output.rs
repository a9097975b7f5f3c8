//! Output from a job to its client, beside one bare stream.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use modchain_certs::{Authority, Credentials, Subject};
use modchain_types::{Digest, IdentityId, JobState, Role};
use modchain_wire::ToConsole;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use crate::peers::soon;
use crate::pool::Pool;
use crate::programs::{RealAgent, client, module, run};
use crate::report;

/// What a job may print at most.
const BYTES: usize = 64 << 20;
/// How often each is measured; the middle one counts.
const ROUNDS: usize = 5;

/// Prints 64,000,000 bytes in writes of 32,000, as fast as it can.
const PRINTER: &[u8] = br#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (func (export "_start") (local $left i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (local.set $left (i32.const 64000000))
    (loop $more
      (i32.store (i32.const 4) (select (i32.const 32000) (local.get $left) (i32.gt_u (local.get $left) (i32.const 32000))))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 1))))
      (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
      (br_if $more (local.get $left)))))"#;
/// What the two ends of the bare stream speak.
const ALPN: &[u8] = b"bench";
/// What it prints.
const PRINTED: usize = 64_000_000;

pub(crate) async fn measure() {
    let pool = Pool::start(&["client"], &["node"]);
    let _agent = RealAgent::start(&pool, "node");
    let console = client(&pool, "client").await;
    console.put(PRINTER, Digest::of(PRINTER)).await.expect("it is stored");
    run(&console, "warm-up", crate::programs::nothing(1_000)).await;
    let (mut jobs, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(bare_stream().await);
        let spec = module(PRINTER, 1_000);
        let submitted = console.submit_spec(&format!("print-{round}"), spec).await.expect("it is accepted");
        let (_out, mut input) = console.logs(&submitted.job.to_string(), true).await;
        let (mut first, mut got) = (None, 0);
        let job = loop {
            match soon("output", input.read()).await.expect("it can be read") {
                Some(ToConsole::LogChunk(chunk)) => {
                    first.get_or_insert_with(Instant::now);
                    got += chunk.data.len();
                }
                Some(ToConsole::LogEnd(end)) => break end.job,
                Some(_) => {}
                None => panic!("the log has no end"),
            }
        };
        assert_eq!((job.state, got), (JobState::Completed, PRINTED), "{}", job.message);
        jobs.push(rate(PRINTED, first.expect("it has printed").elapsed()));
    }
    let (jobs, bare) = (middle(jobs), middle(bare));
    report::line("output from a job to its client, on disk at both", &format!("{jobs:.0} MB/s"));
    report::line("one QUIC stream, mutual TLS, nothing else", &format!("{bare:.0} MB/s"));
    report::line("ratio", &format!("{:.2}", jobs / bare));
}

fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn listen(credentials: &Credentials) -> (quinn::Endpoint, SocketAddr) {
    let tls = modchain_certs::server_config(credentials, &[ALPN], None).expect("TLS");
    let crypto = Arc::new(QuicServerConfig::try_from(tls).expect("QUIC"));
    let config = quinn::ServerConfig::with_crypto(crypto);
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("an endpoint");
    let address = endpoint.local_addr().expect("an address");
    (endpoint, address)
}

async fn connect(endpoint: &quinn::Endpoint, credentials: &Credentials, address: SocketAddr) -> quinn::Connection {
    let tls = modchain_certs::client_config(credentials, &[ALPN]).expect("TLS");
    let crypto = Arc::new(QuicClientConfig::try_from(tls).expect("QUIC"));
    let connecting =
        endpoint.connect_with(quinn::ClientConfig::new(crypto), address, modchain_certs::ORCHESTRATOR_NAME);
    connecting.expect("it begins").await.expect("it is let in")
}

/// Megabytes a second of one stream between two endpoints in this process, each authenticated to the other.
pub(crate) async fn bare_stream() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).expect("an authority");
    let issue =
        |subject: Subject| authority.issue(subject, Duration::from_secs(3600), SystemTime::now()).expect("issued");
    let server = issue(Subject::ORCHESTRATOR);
    let client = issue(Subject::member(Role::Client, IdentityId([1; 16])).expect("a member"));
    let (receiver, address) = listen(&server);
    let sending = tokio::spawn(async move {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("an endpoint");
        let connection = connect(&endpoint, &client, address).await;
        let mut stream = connection.open_uni().await.expect("a stream");
        let piece = vec![7; 64 * 1024];
        for _ in 0..BYTES / piece.len() {
            stream.write_all(&piece).await.expect("it is taken");
        }
        stream.finish().expect("it ends");
        connection.closed().await;
    });
    let connection = receiver.accept().await.expect("one comes").await.expect("it is let in");
    let mut stream = connection.accept_uni().await.expect("a stream");
    let (begun, mut got) = (Instant::now(), 0);
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.expect("it can be read") {
        got += chunk.bytes.len();
    }
    let took = begun.elapsed();
    assert_eq!(got, BYTES);
    connection.close(0u32.into(), b"");
    sending.await.expect("it ends");
    rate(got, took)
}
