//! A bad network between the programs: a relay of datagrams that loses, repeats, holds back and reorders them, sends them slowly,
//! changes its ports as address translators do, and can be cut in one direction or both. What becomes of the n-th datagram of a
//! direction follows from the seed alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use modchain_fuzz::Random;

/// How often a thread that hears nothing looks whether the relay has ended.
const LOOK: Duration = Duration::from_millis(200);
/// A sender that says nothing for longer is forgotten, as address translators do; longer than connections live without a word.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
/// Longest queue of a slow direction. What does not fit is lost.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// What the network does. Nothing bad by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Profile {
    /// Of a thousand datagrams, how many are lost.
    pub(crate) loss_permille: usize,
    /// How many come twice.
    pub(crate) twice_permille: usize,
    /// How many are held back by up to [`Profile::late`], so that later ones overtake them.
    pub(crate) late_permille: usize,
    /// How much late ones are late at most.
    pub(crate) late: Duration,
    /// How long each takes.
    pub(crate) delay: Duration,
    /// Bytes a second in each direction of each sender; any number if 0.
    pub(crate) rate: u32,
    /// Largest datagram that gets through; any if 0.
    pub(crate) mtu: usize,
    /// How long a sender is seen under the same port; for ever if zero.
    pub(crate) rebind_every: Duration,
    /// Nothing gets to the server.
    pub(crate) cut_to_server: bool,
    /// Nothing gets back.
    pub(crate) cut_to_client: bool,
}

impl Profile {
    /// Cut in both directions.
    pub(crate) fn cut() -> Self {
        Self { cut_to_server: true, cut_to_client: true, ..Self::default() }
    }
}

/// What the relay has done.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) relayed: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) rebound: AtomicU64,
}

/// A relay to one server. It ends with this value.
pub(crate) struct Chaos {
    /// Where its senders send to.
    pub(crate) address: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    front: UdpSocket,
    seed: u64,
    profile: Mutex<Profile>,
    counts: Counts,
    ended: AtomicBool,
}

/// A datagram on its way, by the time that it is due.
struct Sent {
    due: Instant,
    /// Datagrams of the same time go in the order in which they came.
    number: u64,
    from: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Sent {}

impl PartialOrd for Sent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// One direction of one sender.
struct Direction {
    random: Random,
    /// When the last datagram has left a slow line.
    free_at: Instant,
}

impl Direction {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), free_at: Instant::now() }
    }

    /// When copies of a datagram of this length come out at the other end: once, never, or twice.
    fn fate(&mut self, bytes: usize, profile: &Profile, cut: bool, counts: &Counts) -> Vec<Instant> {
        // Always the same number of draws, so that one's fate does not depend on another's.
        let [lost, twice, late, by] = [(); 4].map(|()| self.random.below(1000));
        if cut || lost < profile.loss_permille || (profile.mtu > 0 && bytes > profile.mtu) {
            counts.lost.fetch_add(1, Relaxed);
            return Vec::new();
        }
        let now = Instant::now();
        let mut due = now;
        if profile.rate > 0 {
            let free_at = self.free_at.max(now) + Duration::from_secs_f64(bytes as f64 / f64::from(profile.rate));
            if free_at > now + QUEUE_MAX {
                counts.lost.fetch_add(1, Relaxed);
                return Vec::new();
            }
            self.free_at = free_at;
            due = free_at;
        }
        due += profile.delay;
        if late < profile.late_permille {
            counts.late.fetch_add(1, Relaxed);
            due += profile.late.mul_f64(by as f64 / 1000.0);
        }
        counts.relayed.fetch_add(1, Relaxed);
        if twice < profile.twice_permille {
            counts.repeated.fetch_add(1, Relaxed);
            return vec![due, due + profile.late];
        }
        vec![due]
    }
}

/// A sender as the server sees it.
struct Flow {
    socket: Arc<UdpSocket>,
    bound: Instant,
    heard: Instant,
    /// Whether its present port is still its port.
    current: Arc<AtomicBool>,
    to_server: Direction,
    to_client: Arc<Mutex<Direction>>,
}

impl Chaos {
    /// A relay to this server, which does nothing bad yet.
    pub(crate) fn start(server: &str, seed: u64) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").expect("a port");
        front.set_read_timeout(Some(LOOK)).expect("a time");
        let address = front.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            server: server.parse().expect("an address"),
            front: front.try_clone().expect("a second handle"),
            seed,
            profile: Mutex::default(),
            counts: Counts::default(),
            ended: AtomicBool::new(false),
        });
        let (line, waiting) = mpsc::channel();
        let relay = shared.clone();
        let threads =
            vec![thread::spawn(move || deliver(&waiting)), thread::spawn(move || take_in(&front, &relay, &line))];
        Self { address, shared, threads }
    }

    /// From now on the network is so.
    pub(crate) fn set(&self, profile: Profile) {
        *self.shared.profile() = profile;
    }

    /// What it has done so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        // A thread that broke has said why.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn profile(&self) -> MutexGuard<'_, Profile> {
        self.profile.lock().expect("nobody broke")
    }
}

/// Takes what comes from senders, each of which has a port of its own on the server's side.
fn take_in(front: &UdpSocket, shared: &Arc<Shared>, line: &Sender<Sent>) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let (mut number, mut made) = (0, 0);
    while !shared.ended.load(Relaxed) {
        let Some((length, client)) = receive(front, &mut buffer) else {
            flows.retain(|_, flow| {
                let is_known = flow.heard.elapsed() < FORGOTTEN;
                flow.current.store(is_known, Relaxed);
                is_known
            });
            continue;
        };
        let profile = *shared.profile();
        let flow = flows.entry(client).or_insert_with(|| {
            made += 2;
            let to_client = Arc::new(Mutex::new(Direction::new(shared.seed.wrapping_add(made + 1))));
            let (socket, current) = bind(client, shared, &to_client, line);
            let to_server = Direction::new(shared.seed.wrapping_add(made));
            Flow { socket, bound: Instant::now(), heard: Instant::now(), current, to_server, to_client }
        });
        flow.heard = Instant::now();
        if profile.rebind_every > Duration::ZERO && flow.bound.elapsed() >= profile.rebind_every {
            flow.current.store(false, Relaxed);
            (flow.socket, flow.current) = bind(client, shared, &flow.to_client, line);
            flow.bound = Instant::now();
            shared.counts.rebound.fetch_add(1, Relaxed);
        }
        for due in flow.to_server.fate(length, &profile, profile.cut_to_server, &shared.counts) {
            number += 1;
            let (from, to, bytes) = (flow.socket.clone(), shared.server, buffer[..length].to_vec());
            // At the end nobody waits any more.
            let _ = line.send(Sent { due, number, from, to, bytes });
        }
    }
    flows.values().for_each(|flow| flow.current.store(false, Relaxed));
}

/// A new port towards the server for this sender, and a thread that takes what the server sends there.
fn bind(
    client: SocketAddr,
    shared: &Arc<Shared>,
    direction: &Arc<Mutex<Direction>>,
    line: &Sender<Sent>,
) -> (Arc<UdpSocket>, Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(LOOK)).expect("a time");
    let (socket, current) = (Arc::new(socket), Arc::new(AtomicBool::new(true)));
    let front = Arc::new(shared.front.try_clone().expect("another handle"));
    let (shared, direction, line) = (shared.clone(), direction.clone(), line.clone());
    let (own, is_current) = (socket.clone(), current.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut number = 0;
        while is_current.load(Relaxed) && !shared.ended.load(Relaxed) {
            let Some((length, _)) = receive(&own, &mut buffer) else { continue };
            let profile = *shared.profile();
            let mut direction = direction.lock().expect("nobody broke");
            for due in direction.fate(length, &profile, profile.cut_to_client, &shared.counts) {
                number += 1;
                let bytes = buffer[..length].to_vec();
                // At the end nobody waits any more.
                let _ = line.send(Sent { due, number, from: front.clone(), to: client, bytes });
            }
        }
    });
    (socket, current)
}

/// The next datagram, if one comes soon. A peer that is not there is no error of this socket, nor is a signal.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer) {
        Ok(received) => Some(received),
        Err(error) => {
            let expected =
                [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused, ErrorKind::Interrupted];
            assert!(expected.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// Sends each datagram when it is due.
fn deliver(waiting: &Receiver<Sent>) {
    let mut heap = BinaryHeap::new();
    loop {
        let wait = heap
            .peek()
            .map_or(LOOK, |Reverse(next): &Reverse<Sent>| next.due.saturating_duration_since(Instant::now()));
        match waiting.recv_timeout(wait) {
            Ok(sent) => heap.push(Reverse(sent)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while heap.peek().is_some_and(|Reverse(next)| next.due <= Instant::now()) {
            let Reverse(Sent { from, to, bytes, .. }) = heap.pop().expect("just seen");
            // Whoever is gone loses it, as on any network.
            let _ = from.send_to(&bytes, to);
        }
    }
}
