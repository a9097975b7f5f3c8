//! Heartbeats of a scripted agent, with the time that each took.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use modchain_link::{Connection, Priority};
use modchain_types::{List, Timestamp};
use modchain_wire::agent::{Heartbeat, HostLoad};
use modchain_wire::{FromAgent, ToAgent};
use tokio::task::JoinHandle;

use crate::peers::PATIENCE;

/// One answered heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
}

/// Beats and waits for each answer, until the connection is lost; gives what was wrong.
pub(crate) async fn beat(
    connection: &Connection,
    mut pause: impl FnMut() -> Duration,
    mut answered: impl FnMut(Beat),
) -> String {
    let Ok((mut out, mut input)) = connection.open_bi::<FromAgent, ToAgent>().await else {
        return "no stream".to_owned();
    };
    out.set_priority(Priority::Heartbeat);
    for number in 0.. {
        let sent = Instant::now();
        let beat =
            Heartbeat { number, sent: Timestamp(number), rtt: None, load: HostLoad::default(), gpus: List::default() };
        if let Err(error) = out.write(&beat.into()).await {
            return error.to_string();
        }
        match tokio::time::timeout(PATIENCE, input.read()).await {
            Ok(Ok(Some(ToAgent::HeartbeatEcho(echo)))) if echo.number == number => {}
            other => return format!("no echo: {other:?}"),
        }
        answered(Beat { sent, took: sent.elapsed() });
        tokio::time::sleep(pause()).await;
    }
    unreachable!("nobody beats for that long")
}

/// Beats until it is stopped. Every beat must be answered.
pub(crate) struct Heart {
    beats: Arc<Mutex<Vec<Beat>>>,
    beating: JoinHandle<String>,
}

impl Heart {
    pub(crate) fn start(connection: &Connection, every: Duration) -> Self {
        let beats: Arc<Mutex<Vec<Beat>>> = Arc::default();
        let (connection, noted) = (connection.clone(), beats.clone());
        let beating = tokio::spawn(async move {
            beat(&connection, || every, |beat| noted.lock().expect("nobody panics here").push(beat)).await
        });
        Self { beats, beating }
    }

    /// Stops it; gives every beat. Panics if one was not answered.
    pub(crate) async fn stop(self) -> Vec<Beat> {
        // One that is on its way must be answered too.
        let (sent, before) = (Instant::now(), self.beats.lock().expect("nobody panics here").len());
        while self.beats.lock().expect("nobody panics here").len() == before {
            assert!(!self.beating.is_finished(), "the heart stopped: {:?}", self.beating.await);
            assert!(sent.elapsed() < PATIENCE, "the last heartbeat was not answered");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.beating.abort();
        std::mem::take(&mut self.beats.lock().expect("nobody panics here"))
    }
}
