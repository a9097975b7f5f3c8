//! What is done over one connection: a stream for the state, one for each output that is followed, one for each input, and a short
//! one for each request. Each has its own task and waits for nobody but the console; what they have handed over is written down in
//! [`Kept`](super::kept::Kept) in the same breath, so they may be cut off anywhere.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use modchain_link::Backoff;
use modchain_types::{Digest, JobId, Text, WallTime};
use modchain_wire::agent::BlobChunk;
use modchain_wire::console::{EventsOpen, JobRef, LogsOpen, RefusalCode, StateOpen, WhoamiQuery};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromConsole, ToConsole};
use tokio::net::UdpSocket;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::kept::What;
use super::task::{Feeding, Input, Outbox, Shared};
use super::{AskId, FromLive, LinkState, LogItem};
use crate::client::Client;
use crate::client::feed::Pumped;
use crate::client::link::{Replies, unexpected};
use crate::exit::Failure;
use crate::text::wall_now;

/// Requests under way at once. With the outputs, the inputs and the streams for state and events they stay below what the
/// orchestrator allows on one connection.
const ASKS_MAX: usize = 8;
/// Outputs under way at once.
const FOLLOWS_MAX: usize = 12;
/// Inputs under way at once.
const INPUTS_MAX: usize = 4;
/// Time before a request goes out again that was not answered although the connection holds.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Shortest time between two words on the round trip.
const RTT_INTERVAL: Duration = Duration::from_secs(1);

/// Silence on the state stream after which it is looked whether anybody still listens.
const QUIET: Duration = Duration::from_secs(3);
/// Looks one after the other at which nothing at all has come since the one before, until that is told: three of the times within which
/// a connection that lives brings a datagram.
const SILENT_LOOKS: u32 = 4;
/// How long the system's word on that is waited for, and then an answer that proves the contrary.
const PROOF_TIME: Duration = Duration::from_secs(1);

/// How one of the tasks ended.
pub(super) enum Ended {
    /// There is no state stream any more.
    State(Failure),
    /// A request has its answer, or waits for its next try.
    Ask,
    /// An output has come to its end.
    Log(JobId),
    /// An input has come to its end.
    Input(JobId),
}

/// The tasks of one connection; all are gone when it is dropped.
pub(super) struct Session {
    worker: Worker,
    tasks: JoinSet<Ended>,
    asks: usize,
    logs: BTreeMap<JobId, AbortHandle>,
    inputs: BTreeMap<JobId, AbortHandle>,
}

/// What every task needs.
#[derive(Clone)]
struct Worker {
    client: Arc<Client>,
    shared: Shared,
    out: Outbox,
    log_places: Arc<Semaphore>,
    input_places: Arc<Semaphore>,
    /// When something last came over the state stream.
    heard: watch::Sender<Instant>,
}

impl Session {
    /// Starts with the state stream and what was going on before.
    pub(super) fn start(client: Client, shared: Shared, out: Outbox) -> Self {
        let worker = Worker {
            client: Arc::new(client),
            shared,
            out,
            log_places: Arc::new(Semaphore::new(FOLLOWS_MAX)),
            input_places: Arc::new(Semaphore::new(INPUTS_MAX)),
            heard: watch::Sender::new(Instant::now()),
        };
        let mut tasks = JoinSet::new();
        let state = worker.clone();
        tasks.spawn(async move { Ended::State(state.state().await) });
        let guard = worker.clone();
        tasks.spawn(async move { Ended::State(guard.guard().await) });
        Self { worker, tasks, asks: 0, logs: BTreeMap::new(), inputs: BTreeMap::new() }
    }

    /// Starts what is wanted and not under way, and ends what is not wanted any more.
    pub(super) fn tend(&mut self, inputs: &BTreeMap<JobId, Input>) {
        while self.asks < ASKS_MAX
            && let Some((id, what)) = self.worker.shared.with(|kept| kept.send_next())
        {
            self.asks += 1;
            let worker = self.worker.clone();
            self.tasks.spawn(async move {
                worker.ask(id, what).await;
                Ended::Ask
            });
        }
        let followed = self.worker.shared.with(|kept| kept.followed());
        self.logs.retain(|job, task| {
            let wanted = followed.contains(job);
            if !wanted {
                task.abort();
            }
            wanted
        });
        for job in followed {
            let worker = &self.worker;
            self.logs.entry(job).or_insert_with(|| {
                let worker = worker.clone();
                self.tasks.spawn(async move {
                    worker.log(job).await;
                    Ended::Log(job)
                })
            });
        }
        for (job, input) in inputs {
            let (job, feed) = (*job, &input.feed);
            self.inputs.entry(job).or_insert_with(|| {
                let (worker, feed) = (self.worker.clone(), feed.clone());
                self.tasks.spawn(async move {
                    worker.input(job, feed).await;
                    Ended::Input(job)
                })
            });
        }
    }

    /// Ends all tasks, and with them the connection.
    pub(super) async fn end(mut self) {
        self.tasks.shutdown().await;
    }

    /// Waits for the next thing that ends: a task, or the connection itself.
    pub(super) async fn next(&mut self) -> Ended {
        let ended = tokio::select! {
            biased;
            failure = self.worker.client.closed() => return Ended::State(failure),
            Some(ended) = self.tasks.join_next() => ended,
        };
        match ended {
            Ok(ended) => {
                match ended {
                    Ended::Ask => self.asks -= 1,
                    // A newer one may have taken its place.
                    Ended::Log(job) => drop_finished(&mut self.logs, job),
                    Ended::Input(job) => drop_finished(&mut self.inputs, job),
                    Ended::State(_) => {}
                }
                ended
            }
            // An output that nobody wants any more.
            Err(error) if error.is_cancelled() => Ended::Ask,
            Err(error) => Ended::State(Failure::lost(format!("the link's own work broke off: {error}"))),
        }
    }
}

impl Worker {
    /// The state, for as long as the connection lasts.
    async fn state(&self) -> Failure {
        match self.watch().await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    /// Misses an orchestrator that died without a word: QUIC believes in it for half a minute, but its machine knows better. One that
    /// is there and stands still is believed in too, and what it said last is old all the same.
    async fn guard(&self) -> Failure {
        let remote = self.client.remote_address();
        let socket = connected_socket(remote).await.ok();
        let mut silence = Silence::new(self.client.datagrams_received(), wall_now());
        loop {
            let heard = *self.heard.borrow();
            tokio::time::sleep_until(heard + QUIET).await;
            if *self.heard.borrow() != heard {
                continue;
            }
            if let Some(socket) = &socket
                // A wall between the two may refuse newcomers and let the connection through: only an answer over it tells.
                && is_refused(socket).await
                && !self.answers().await
            {
                return Failure::lost(format!("no program listens on {remote} any more"));
            }
            if let Some(state) = silence.look(self.client.datagrams_received(), wall_now()) {
                self.out.say(FromLive::Link(state)).await;
            }
            self.heard.send_replace(Instant::now());
        }
    }

    async fn answers(&self) -> bool {
        let asked = self.client.request(WhoamiQuery { detail: false }.into());
        match tokio::time::timeout(PROOF_TIME, asked).await {
            Ok(Ok(_)) => true,
            Ok(Err(failure)) => !failure.lost,
            Err(_) => false,
        }
    }

    async fn watch(&self) -> Result<Infallible, Failure> {
        let journal = self.client.welcome().journal;
        let mut resume = self.shared.with(|kept| kept.resume(journal));
        let mut events: Option<Replies> = None;
        let mut rtt_at = Instant::now();
        loop {
            let mut states = self.client.open(StateOpen { job: None, resume }).await?;
            loop {
                if events.is_none()
                    && let Some(after) = self.shared.with(|kept| kept.owed())
                {
                    let open = EventsOpen {
                        after: Some(after),
                        since: None,
                        kind: None,
                        job: None,
                        node: None,
                        follow: false,
                    };
                    events = Some(self.client.open(open).await?);
                }
                self.heard.send_replace(Instant::now());
                tokio::select! {
                    reply = states.next() => match reply? {
                        ToConsole::StateSnapshot(page) => {
                            let whole = page.last.then_some((page.journal, page.upto));
                            self.out.say(FromLive::Snapshot(Box::new(page))).await;
                            if let Some((journal, upto)) = whole {
                                self.shared.with(|kept| kept.snapshot_taken(journal, upto));
                            }
                        }
                        ToConsole::StateDelta(delta) if self.shared.with(|kept| kept.fits(delta.prev)) => {
                            let upto = delta.upto;
                            self.out.say(FromLive::Delta(Box::new(delta))).await;
                            self.shared.with(|kept| kept.delta_taken(upto));
                            if rtt_at <= Instant::now() {
                                rtt_at = Instant::now() + RTT_INTERVAL;
                                self.out.say(FromLive::Rtt(self.client.rtt().into())).await;
                            }
                        }
                        // Something is missing in between: everything anew.
                        ToConsole::StateDelta(_) => break,
                        other => return Err(unexpected(Some(&other))),
                    },
                    reply = next_of(&mut events) => match reply {
                        Ok(ToConsole::Events(page)) => {
                            let upto = page.items.last().map(|event| event.number);
                            self.out.say(FromLive::Events(page.items.into_vec())).await;
                            self.shared.with(|kept| upto.into_iter().for_each(|upto| kept.events_taken(upto)));
                        }
                        Ok(ToConsole::CaughtUp(_)) => {
                            events = None;
                            self.shared.with(|kept| kept.events_done());
                        }
                        Ok(other) => return Err(unexpected(Some(&other))),
                        Err(failure) if failure.lost => return Err(failure),
                        // The journal was set back meanwhile: the next snapshot says so.
                        Err(_) => {
                            events = None;
                            self.shared.with(|kept| kept.events_done());
                        }
                    },
                }
            }
            resume = None;
        }
    }

    /// One request, up to its answer. What is not answered because the connection broke is kept.
    async fn ask(&self, id: AskId, what: What) {
        let result = match what.clone() {
            What::Ask(request) => match *request {
                FromConsole::BlobFetch(fetch) => self.blob(fetch.digest).await,
                request => self.client.request(request).await,
            },
            What::Submit(submit, blob) => self.submit(*submit, blob.as_ref()).await,
        };
        if let Err(failure) = &result
            && failure.lost
            && failure.code != RefusalCode::Busy.word()
        {
            if self.client.is_closed() {
                return;
            }
            tokio::time::sleep(ASK_PAUSE).await;
            if self.shared.with(|kept| kept.answer_lost(id)) {
                return;
            }
        }
        self.out.say(FromLive::Answer(id, what.request(), result.map(Box::new))).await;
        self.shared.with(|kept| kept.answered(id));
    }

    /// A blob that is no longer than one piece of it.
    async fn blob(&self, digest: Digest) -> Result<ToConsole, Failure> {
        let bytes = self.client.fetch_blob(digest, CHUNK_BYTES_MAX as u64).await?;
        let bytes = bytes.ok_or_else(|| Failure::not_found(format!("{digest} is not kept any more")))?;
        Ok(BlobChunk { data: Data::new(bytes).expect("a piece is no longer than a chunk") }.into())
    }

    async fn submit(
        &self,
        submit: modchain_wire::console::Submit,
        blob: Option<&bytes::Bytes>,
    ) -> Result<ToConsole, Failure> {
        if let Some(blob) = blob {
            self.client.put_blob(blob).await?;
        }
        self.client.request(FromConsole::Submit(submit)).await
    }

    /// One output, to its end, over as many streams as it takes.
    async fn log(&self, job: JobId) {
        let _place = self.log_places.acquire().await.expect("is never closed");
        let mut backoff = Backoff::new();
        loop {
            match self.read_log(job, &mut backoff).await {
                Ok(()) => return,
                Err(failure) if failure.lost => {
                    self.shared.with(|kept| kept.log_broke(job, wall_now()));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(failure) => {
                    self.out.log(job, LogItem::Refused(failure)).await;
                    self.shared.with(|kept| kept.unfollow(job));
                    return;
                }
            }
        }
    }

    async fn read_log(&self, job: JobId, backoff: &mut Backoff) -> Result<(), Failure> {
        let Some(from) = self.shared.with(|kept| kept.cursor(job)) else { return Ok(()) };
        let mut replies = self.client.open(LogsOpen { job: job_ref(job), follow: true, from, since: None }).await?;
        loop {
            let reply = replies.next().await?;
            backoff.reset();
            if let Some(since) = self.shared.with(|kept| kept.interrupted(job)) {
                self.out.log(job, LogItem::Resumed(since)).await;
                self.shared.with(|kept| kept.log_resumed(job));
            }
            match reply {
                ToConsole::LogChunk(chunk) => {
                    let cursor = chunk.cursor;
                    self.out.log(job, LogItem::Chunk(Box::new(chunk))).await;
                    self.shared.with(|kept| kept.log_taken(job, Some(cursor)));
                }
                ToConsole::CaughtUp(_) => {
                    self.out.log(job, LogItem::CaughtUp).await;
                    self.shared.with(|kept| kept.log_taken(job, None));
                }
                ToConsole::LogEnd(end) if end.job.state.is_ended() => {
                    self.out.log(job, LogItem::End(Box::new(end.job))).await;
                    self.shared.with(|kept| kept.unfollow(job));
                    return Ok(());
                }
                ToConsole::LogEnd(_) => return Err(Failure::lost("the output ended before the job")),
                other => return Err(unexpected(Some(&other))),
            }
        }
    }

    /// One input, until all of it is stored.
    async fn input(&self, job: JobId, feed: Feeding) {
        let _place = self.input_places.acquire().await.expect("is never closed");
        let mut feed = feed.lock().await;
        let mut backoff = Backoff::new();
        let (told, mut stored) = watch::channel(None);
        let result = loop {
            let pump = feed.pump(&self.client, job_ref(job), |now| {
                told.send_if_modified(|before| before.replace(now) != Some(now));
            });
            let tell = async {
                while stored.changed().await.is_ok() {
                    let now = *stored.borrow_and_update();
                    if let Some(now) = now {
                        self.out.say(FromLive::Input(job, Ok((now, false)))).await;
                    }
                }
                pending::<Infallible>().await
            };
            let pumped = tokio::select! {
                pumped = pump => pumped,
                never = tell => match never {},
            };
            match pumped {
                Ok(Pumped::Stored(all)) => break Ok((all, true)),
                Ok(Pumped::Unwanted(why)) => break Err(why),
                Err(failure) if failure.lost => tokio::time::sleep(backoff.next_delay()).await,
                Err(failure) => break Err(failure),
            }
        };
        self.out.say(FromLive::Input(job, result)).await;
    }
}

/// Notices that nothing comes any more. It counts looks and not the time between them, in which this program may have been stopped.
struct Silence {
    /// Datagrams that had come at the last look.
    received: u64,
    /// When that was first so.
    since: WallTime,
    /// Looks since then.
    looks: u32,
}

impl Silence {
    fn new(received: u64, now: WallTime) -> Self {
        Self { received, since: now, looks: 0 }
    }

    /// Looks at how many datagrams have come; gives the state of the link if it is another one now.
    fn look(&mut self, received: u64, now: WallTime) -> Option<LinkState> {
        if received == self.received {
            self.looks = self.looks.saturating_add(1);
            return (self.looks == SILENT_LOOKS).then_some(LinkState::Silent { since: self.since });
        }
        let was_silent = self.looks >= SILENT_LOOKS;
        *self = Self::new(received, now);
        was_silent.then_some(LinkState::Live)
    }
}

/// A socket of its own, because QUIC's belongs to no one peer and hears nothing of closed ports.
async fn connected_socket(remote: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(remote).await?;
    Ok(socket)
}

/// Whether the system says that no program has this port. One byte is no QUIC packet, so whoever listens drops it.
async fn is_refused(socket: &UdpSocket) -> bool {
    let asked = async {
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match tokio::time::timeout(PROOF_TIME, asked).await {
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

fn drop_finished(tasks: &mut BTreeMap<JobId, AbortHandle>, job: JobId) {
    if tasks.get(&job).is_some_and(AbortHandle::is_finished) {
        tasks.remove(&job);
    }
}

async fn next_of(replies: &mut Option<Replies>) -> Result<ToConsole, Failure> {
    match replies {
        Some(replies) => replies.next().await,
        None => pending().await,
    }
}

fn job_ref(job: JobId) -> JobRef {
    Text::cut(job.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_after_some_looks_and_ends_with_the_first_datagram() {
        let at = |secs: i64| WallTime(secs * 1_000);
        let mut silence = Silence::new(5, at(0));
        assert_eq!(silence.look(6, at(4)), None);
        for look in 1..SILENT_LOOKS {
            assert_eq!(silence.look(6, at(4 + 4 * i64::from(look))), None);
        }
        assert_eq!(silence.look(6, at(20)), Some(LinkState::Silent { since: at(4) }));
        assert_eq!(silence.look(6, at(24)), None);
        assert_eq!(silence.look(7, at(28)), Some(LinkState::Live));
        assert_eq!(silence.look(8, at(32)), None);
        // What stops this program for a while is no silence of the other one.
        assert_eq!(silence.look(8, at(3_600)), None);
        assert_eq!(silence.look(9, at(3_604)), None);
    }
}
