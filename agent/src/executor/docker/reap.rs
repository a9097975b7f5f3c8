//! The containers of this node that are on its engine: those of an agent that died, and those that nobody waits for any more.
//!
//! A container is taken for ours when its labels say so and its name is the one that follows from them. The name is given once
//! by the engine, and an image made of a job's container inherits the labels only.

use std::collections::HashMap;

use bollard::models::{ContainerStateStatusEnum, ContainerSummary};
use bollard::query_parameters::ListContainersOptions;
use modchain_types::{AttemptId, BootId, Digest, Fence, ImagePin, JobId, NodeId, Span, Timestamp, WallTime};

use super::engine::{Engine, Trouble};
use super::{Survivor, container_name, label};
use crate::clock;

/// What the labels of one of our containers say.
struct Ours {
    attempt: AttemptId,
    fence: Fence,
    spec_digest: Digest,
    boot: BootId,
    image: Option<ImagePin>,
}

pub(super) async fn survivors(engine: &Engine, node: NodeId) -> Result<Vec<Survivor>, Trouble> {
    let here = clock::boot_id().ok();
    let mut survivors = Vec::new();
    for Ours { attempt, fence, spec_digest, boot, image } in list(engine, node).await? {
        let Some(container) = engine.inspect(&container_name(attempt, fence)).await? else { continue };
        let state = container.state.unwrap_or_default();
        let ran = !matches!(state.status, Some(ContainerStateStatusEnum::CREATED) | None);
        let started_ago = if ran && here == Some(boot) { started_ago(&state) } else { None };
        survivors.push(Survivor { attempt, fence, spec_digest, started_ago, boot, image });
    }
    Ok(survivors)
}

async fn list(engine: &Engine, node: NodeId) -> Result<Vec<Ours>, Trouble> {
    let (docker, _) = engine.reach().await?;
    let filters = HashMap::from([("label".to_owned(), vec![format!("{}={node}", label::NODE)])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    match docker.list_containers(Some(options)).await {
        Ok(containers) => Ok(containers.iter().filter_map(ours).collect()),
        Err(error) => Err(engine.trouble(error).await),
    }
}

/// `None` for a container that is not what its labels say.
fn ours(container: &ContainerSummary) -> Option<Ours> {
    let labels = container.labels.as_ref()?;
    let said = |name: &str| labels.get(name).map(String::as_str);
    let job: JobId = said(label::JOB)?.parse().ok()?;
    let attempt = AttemptId { job, number: said(label::ATTEMPT)?.parse().ok()? };
    let fence = Fence(said(label::FENCE)?.parse().ok()?);
    let name = format!("/{}", container_name(attempt, fence));
    container.names.as_ref()?.contains(&name).then_some(())?;
    Some(Ours {
        attempt,
        fence,
        spec_digest: said(label::SPEC_DIGEST)?.parse().ok()?,
        boot: said(label::BOOT)?.parse().ok()?,
        image: said(label::IMAGE).and_then(|pin| ImagePin::new(pin).ok()),
    })
}

/// From the start of a container's first process until now, by the clock that counts from the machine's start; by the
/// calendar where the process is gone or not to be seen.
fn started_ago(state: &bollard::models::ContainerState) -> Option<Span> {
    if state.running == Some(true)
        && let Some(started) = state.pid.and_then(process_started)
    {
        return Some(clock::now().since(started));
    }
    let started = moment(state.started_at.as_deref())?;
    Some(clock::wall().since(started))
}

/// When a process of this machine started, by [`clock::now`].
fn process_started(pid: i64) -> Option<Timestamp> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some(Timestamp(ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1)))
}

/// A time as the engine writes it; `None` for its word for never, which is the year 1.
pub(super) fn moment(text: Option<&str>) -> Option<WallTime> {
    let at: jiff::Timestamp = text?.parse().ok()?;
    (at.as_millisecond() > 0).then(|| WallTime(at.as_millisecond()))
}
