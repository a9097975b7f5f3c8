//! Heartbeats: one stream of small frames with the machine's load, each of them answered. An answer renews the lease; no
//! answer for three intervals means that the link is dead, whatever the transport thinks.
//!
//! Each carries the looks at the GPUs that this connection has not carried yet. A look is kept until a heartbeat that carried
//! it was answered, so that the next connection repeats what may be lost; the orchestrator tells repetitions by their time.

use std::collections::VecDeque;
use std::time::Duration;

use modchain_link::{Connection, Priority};
use modchain_types::{List, Span, Timestamp};
use modchain_wire::agent::{FromAgent, GpuTick, Heartbeat, HostLoad, ToAgent};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::chain;
use crate::clock;
use crate::engine::EngineInput;
use crate::probe::GpuTicks;

/// Intervals without an answer after which the link is dead: 15 s with the usual 5 s, when the orchestrator thinks so too.
const SILENT_INTERVALS: u64 = 3;

/// The welcome may ask for intervals from here …
const INTERVAL_MIN: Span = Span::from_millis(100);
/// … to here.
const INTERVAL_MAX: Span = Span::from_secs(15);

/// Heartbeats that may be under way: more than can be within the silence that ends the connection.
const UNANSWERED_MAX: usize = 8;

/// The heartbeats of one connection.
pub(super) struct Heartbeats {
    pub(super) connection: Connection,
    pub(super) interval: Span,
    pub(super) load: watch::Receiver<HostLoad>,
    pub(super) gpus: GpuTicks,
    pub(super) engine: mpsc::Sender<EngineInput>,
}

/// A heartbeat that was not answered yet.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    number: u64,
    sent: Timestamp,
    /// The newest look at the GPUs that it or one before it carries.
    carried: Option<Timestamp>,
}

impl Heartbeats {
    /// Runs until the link is dead; gives the reason.
    pub(super) async fn run(self) -> String {
        match self.beat().await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn beat(self) -> Result<std::convert::Infallible, String> {
        let interval = self.interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let silence = Span(interval.0 * SILENT_INTERVALS);
        let (mut up, mut down) =
            self.connection.open_bi::<FromAgent, ToAgent>().await.map_err(|error| chain(&error))?;
        up.set_priority(Priority::Heartbeat);
        let mut under_way: VecDeque<UnderWay> = VecDeque::new();
        let mut carried = None;
        let (mut number, mut rtt, mut answered) = (0, None, clock::now());
        let mut next = Instant::now();
        let mut unsent = false;
        // The clock counts sleep and timers do not, so the silence is measured by looking at the clock often.
        let mut look = tokio::time::interval(Duration::from(interval));
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next), if !unsent => {
                    number += 1;
                    let sent = clock::now();
                    let looks = self.gpus.after(carried);
                    carried = looks.last().map(|look| look.at).or(carried);
                    let gpus = looks.into_iter().map(|look| GpuTick { ago: sent.since(look.at), gpus: look.gpus });
                    let gpus = List::cut(gpus.collect());
                    let beat = Heartbeat { number, sent, rtt, load: *self.load.borrow(), gpus };
                    up.queue(&beat.into()).map_err(|error| chain(&error))?;
                    unsent = true;
                    if under_way.len() == UNANSWERED_MAX {
                        under_way.pop_front();
                    }
                    under_way.push_back(UnderWay { number, sent, carried });
                    next = Instant::now() + wobble(interval);
                }
                flushed = up.flush(), if unsent => {
                    flushed.map_err(|error| chain(&error))?;
                    unsent = false;
                }
                echo = down.read() => match echo.map_err(|error| chain(&error))? {
                    Some(ToAgent::HeartbeatEcho(echo)) => {
                        // Our own note of the time counts, not what comes back: the lease hangs on it.
                        let Some(place) = under_way.iter().position(|beat| beat.number == echo.number) else {
                            continue;
                        };
                        let UnderWay { sent, carried, .. } = under_way[place];
                        under_way.drain(..=place);
                        if let Some(carried) = carried {
                            self.gpus.forget(carried);
                        }
                        answered = clock::now();
                        rtt = Some(answered.since(sent));
                        if self.engine.send(EngineInput::HeartbeatAnswered { sent }).await.is_err() {
                            return Err("the engine is gone".into());
                        }
                    }
                    Some(_) => return Err("a frame came among the heartbeats that does not belong there".into()),
                    None => return Err("the stream of heartbeats ended".into()),
                },
                _ = look.tick() => {
                    let silent = clock::now().since(answered);
                    if silent >= silence {
                        return Err(format!("no heartbeat was answered for {silent}"));
                    }
                }
            }
        }
    }
}

/// The interval ± 10 %, so that a thousand agents do not beat in step.
fn wobble(interval: Span) -> Duration {
    let tenth = Span(interval.0 / 10);
    Duration::from(interval.saturating_sub(tenth).saturating_add(clock::jitter(Span(2 * tenth.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_wobble_by_a_tenth() {
        let drawn: Vec<Duration> = (0..200).map(|_| wobble(Span::from_secs(5))).collect();
        assert!(drawn.iter().all(|wait| (4500..5500).contains(&wait.as_millis())));
        assert!(drawn.iter().any(|wait| wait.as_millis() < 4900) && drawn.iter().any(|wait| wait.as_millis() > 5100));
    }
}
