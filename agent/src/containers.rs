//! Containers that outlive their agent: found again when it starts, and swept away when nobody waits for them.

use std::time::Duration;

use modchain_types::BootId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::engine::{EngineInput, Survivors};
use crate::executor::docker::DockerExecutor;
use crate::outbox::Outbox;

/// How long a starting agent waits for the container engine when an earlier run has left attempts: both may come up together.
const ENGINE_MAX: Duration = Duration::from_secs(10);

/// Time between two tries to reach the container engine.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Time between two sweeps: what could not be removed at its end is removed by the next one.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What an earlier run of this node's agent left on the container engine. Attempts that are not found are the node's fault.
pub async fn survivors(docker: &DockerExecutor, outbox: &Outbox, boot: BootId) -> Survivors {
    let until = Instant::now() + ENGINE_MAX;
    loop {
        match docker.survivors().await {
            Ok(found) => return Survivors::new(found, boot),
            Err(error) if outbox.is_empty() || Instant::now() >= until => {
                tracing::debug!(%error, "no container of an earlier run is looked for");
                return Survivors::default();
            }
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

/// Removes the containers of this node that belong to no attempt that the engine holds. Runs for ever.
///
/// What is listed first and held by nobody afterwards is an orphan: an attempt is held before its container is made, so one
/// that was made meanwhile is not on the list.
pub async fn sweep(docker: DockerExecutor, engine: mpsc::Sender<EngineInput>) {
    loop {
        let pause = match docker.survivors().await {
            Ok(found) => {
                let (reply, sight) = oneshot::channel();
                if engine.send(EngineInput::Look(reply)).await.is_err() {
                    return;
                }
                let Ok(sight) = sight.await else { return };
                for one in found {
                    if sight.attempts.iter().any(|held| held.attempt == one.attempt && held.fence == one.fence) {
                        continue;
                    }
                    tracing::warn!(attempt = %one.attempt, fence = one.fence.0, "a container that nobody waits for is removed");
                    if let Err(error) = docker.remove(one.attempt, one.fence).await {
                        tracing::warn!(attempt = %one.attempt, %error, "it cannot be removed now");
                    }
                }
                SWEEP_EVERY
            }
            // Away: its first return is as good as a start.
            Err(_) => TRY_AGAIN * 10,
        };
        tokio::time::sleep(pause).await;
    }
}
