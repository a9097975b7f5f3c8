//! Whether there is a container engine that jobs may run on.

use std::time::Duration;

use tokio::sync::watch;

use super::{DockerFound, Findings};
use crate::executor::docker::DockerExecutor;

/// Time between two looks. A run that finds the engine away makes the next look come at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One look, for whoever does not stay: the engine, or why there is none to use.
pub async fn look_once(executor: &DockerExecutor) -> Result<DockerFound, String> {
    executor.look().await.map_err(|trouble| trouble.to_string())
}

/// Keeps [`Findings::docker`] up to date, for ever.
pub async fn watch(executor: DockerExecutor, findings: watch::Sender<Findings>) {
    let mut said = None;
    loop {
        let (found, why) = match executor.look().await {
            Ok(found) => (Some(found), None),
            Err(trouble) => (None, Some(trouble.to_string())),
        };
        if said.as_ref() != Some(&why) {
            match &why {
                // A machine without an engine is an answer; one that loses its engine is not what it was.
                Some(why) if said == Some(None) => tracing::warn!(why, "no containers are offered any more"),
                Some(why) => tracing::info!(why, "no containers are offered"),
                None => tracing::info!("containers are offered"),
            }
            said = Some(why);
        }
        findings.send_if_modified(|findings| {
            let changed = findings.docker != found;
            findings.docker = found;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = executor.engine_lost() => {}
        }
    }
}
