//! Many agents as far as connections go: they come, beat, and come back whenever they are lost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use modchain_certs::Credentials;
use modchain_link::backoff::BACKOFF_FIRST;
use modchain_link::{Backoff, rcvbuf_errors};
use modchain_types::InstanceId;
use modchain_wire::ToAgent;
use modchain_wire::agent::ProbeAnswer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::heart::beat;
use super::{Pool, Spread};
use crate::peers::Agent;

/// All must be back by then.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// A connection that served for less is made again after a wait of its own, as the agent does it: so whoever has just
/// connected is back later than others, which are seen with `MODCHAIN_TEST_SETTLED` set to more seconds than this.
const SHORT_LIVED: Duration = Duration::from_secs(10);
/// What that wait is of the usual first one: up to 2 s.
const SHORT_LIVED_WAIT: u32 = 10;
/// How much heartbeats wobble, of their interval.
const WOBBLE: u32 = 10;

/// How a connection ended.
enum End {
    Away(Duration),
    Lost,
}

/// An agent as far as connections go: what `agent/src/session` does.
struct Simulated {
    number: usize,
    credentials: Credentials,
    address: String,
    /// Told each time that it is welcomed.
    welcomed: mpsc::UnboundedSender<usize>,
}

impl Simulated {
    async fn live(self) {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let end = self.connect_and_serve().await;
            if end.is_some() {
                backoff.reset();
            }
            let wait = match end {
                Some(End::Away(after)) => after,
                Some(End::Lost) if began.elapsed() < SHORT_LIVED => Backoff::new().next_delay() * SHORT_LIVED_WAIT,
                Some(End::Lost) | None => backoff.next_delay(),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// `None` if it does not get as far as the welcome.
    async fn connect_and_serve(&self) -> Option<End> {
        let instance = InstanceId([1; 16]);
        let agent = match Agent::join(&self.credentials, &self.address, instance, Vec::new(), None).await {
            Ok(agent) => agent,
            Err(error) => {
                assert!(error.retryable(), "{error}");
                return None;
            }
        };
        let _ = self.welcomed.send(self.number); // nobody asks any more at the end
        let connection = agent.connection.clone();
        let every = Duration::from(agent.welcome.heartbeat);
        let end = tokio::select! {
            biased; // what was said before the close comes first
            end = obey(agent) => end,
            _ = beat(&connection, || wobbling(every), |_| {}) => End::Lost,
            _ = connection.closed() => End::Lost,
        };
        Some(end)
    }
}

fn wobbling(every: Duration) -> Duration {
    let tenth = every / WOBBLE;
    // Evenly from nothing to 200 ms, made into two tenths.
    let drawn = Backoff::new().next_delay().as_secs_f64() / BACKOFF_FIRST.as_secs_f64();
    every - tenth + (2 * tenth).mul_f64(drawn)
}

async fn obey(mut agent: Agent) -> End {
    loop {
        match agent.control.read().await {
            Ok(Some(ToAgent::GoAway(away))) => return End::Away(away.after.into()),
            Ok(Some(ToAgent::Probe(probe))) => {
                if agent.out.write(&ProbeAnswer { number: probe.number }.into()).await.is_err() {
                    return End::Lost;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return End::Lost,
        }
    }
}

/// Agents that live until they are dropped.
pub(crate) struct Herd {
    living: JoinSet<()>,
    welcomed: mpsc::UnboundedReceiver<usize>,
    agents: usize,
}

impl Herd {
    /// Lets agents of these names come, all at once.
    pub(crate) fn start(pool: &Pool, nodes: &[String]) -> Self {
        let (sender, welcomed) = mpsc::unbounded_channel();
        let simulated: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let (credentials, address) = (pool.credentials(name), pool.main.clone());
                Simulated { number, credentials, address, welcomed: sender.clone() }
            })
            .collect();
        let mut living = JoinSet::new();
        simulated.into_iter().for_each(|agent| drop(living.spawn(agent.live())));
        Self { living, welcomed, agents: nodes.len() }
    }

    /// Waits until each has been welcomed once more.
    pub(crate) async fn all_back(&mut self, since: Return) -> Return {
        since.of_all(self.agents, &mut self.welcomed).await
    }

    /// Whether none has given up.
    pub(crate) fn all_live(&mut self) -> bool {
        self.living.try_join_next().is_none()
    }
}

/// When so many percent of the agents had been welcomed since `from`.
pub(crate) struct Return {
    pub(crate) from: Instant,
    lost: Option<u64>,
    times: Vec<Duration>,
}

impl Return {
    pub(crate) fn begin() -> Self {
        Self { from: Instant::now(), lost: rcvbuf_errors(), times: Vec::new() }
    }

    /// Waits until each agent has been welcomed once more.
    async fn of_all(mut self, agents: usize, welcomed: &mut mpsc::UnboundedReceiver<usize>) -> Self {
        let mut back = HashSet::new();
        while back.len() < agents {
            let left = BACK_WITHIN.saturating_sub(self.from.elapsed());
            let next = tokio::time::timeout(left, welcomed.recv()).await;
            let number = next.unwrap_or_else(|_| panic!("{} of {agents} are back", back.len())).expect("they live");
            if back.insert(number) {
                self.times.push(self.from.elapsed());
            }
        }
        self
    }

    /// When so many percent were back.
    pub(crate) fn percent(&self, percent: usize) -> Duration {
        Spread::of(self.times.iter().copied()).percent(percent)
    }

    pub(crate) fn print(&self, what: &str, again: Option<Duration>) {
        let spread = Spread::of(self.times.iter().copied());
        let seconds = |percent| spread.percent(percent).as_secs_f64();
        let lost = match (self.lost, rcvbuf_errors()) {
            (Some(before), Some(now)) => format!("{}", now.saturating_sub(before)),
            _ => "not told".to_owned(),
        };
        println!(
            "herd: {} agents {what}: 50 % in {:.2} s, 99 % in {:.2} s, 100 % in {:.2} s; RcvbufErrors +{lost}{}",
            self.times.len(),
            seconds(50),
            seconds(99),
            seconds(100),
            again.map_or(String::new(), |again| format!(
                "; the orchestrator served again after {:.2} s",
                again.as_secs_f64()
            )),
        );
    }
}
