//! The way to the container engine: connecting, agreeing on a version of its interface, and telling apart an engine that
//! refuses from one that is away.
//!
//! A connection is nothing but an agreed version and what was found out about the engine (every request opens a socket of its
//! own), so losing it costs nothing: it is forgotten when a request does not get through, and the next one asks again.
//! bollard 0.21 agrees on a version and then leaves it out of its addresses, which makes an engine speak its newest.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::SystemInfo;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions, RemoveContainerOptions};
use modchain_types::ImageMark;
use tokio::sync::Notify;

use crate::probe::DockerFound;

/// Where the engine listens unless said otherwise.
const HOST_DEFAULT: &str = "unix:///var/run/docker.sock";

/// Longest wait for the head of an answer that does not depend on a registry or on a job. An engine on a busy machine takes
/// seconds; one that takes longer than this is as good as away.
const REQUEST_MAX: Duration = Duration::from_secs(120);

/// Longest wait for an answer to the first question of a connection.
const GREETING_MAX: Duration = Duration::from_secs(20);

/// A request to the engine that did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be reached, or broke off.
    #[error("the container engine is away: {0}")]
    Away(String),
    /// It answered, and the answer is no.
    #[error("{message}")]
    Refused {
        /// As in HTTP.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// It can be reached and is not fit for strangers' containers, or not understood.
    #[error("{0}")]
    Unfit(String),
}

impl Trouble {
    /// Whether what was asked about does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Refused { status: status_code, message },
            Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => {
                Self::Refused { status: 500, message: error }
            }
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::APIVersionParseError {} => {
                Self::Unfit(format!("the container engine's answer cannot be understood: {error}"))
            }
            Error::RequestTimeoutError => Self::Away("it does not answer".into()),
            Error::SocketNotFoundError(path) => Self::Away(format!("there is no socket at {path}")),
            other => Self::Away(chain(&other)),
        }
    }
}

/// An error with its causes: "error in the client" alone helps nobody.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What does not change while an engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) version: String,
    /// `linux/amd64`, as images are named for it.
    pub(super) platform: String,
    /// Why strangers' containers may not run here, if so.
    pub(super) unfit: Option<String>,
    /// Whether it knows how to give GPUs to containers.
    pub(super) gpus: bool,
}

impl Facts {
    fn of(info: &SystemInfo) -> Self {
        let yes = |flag: Option<bool>| flag == Some(true);
        let mut missing = Vec::new();
        if !yes(info.memory_limit) {
            missing.push("limits on memory");
        }
        if !yes(info.swap_limit) {
            missing.push("limits on swap");
        }
        if !yes(info.pids_limit) {
            missing.push("limits on processes");
        }
        if !yes(info.cpu_cfs_quota) {
            missing.push("limits on processor time");
        }
        let security = info.security_options.as_deref().unwrap_or_default();
        let filtered = |option: &String| option.contains("name=seccomp") && !option.contains("unconfined");
        if !security.iter().any(filtered) {
            missing.push("a filter of system calls");
        }
        let unfit = match info.os_type.as_deref() {
            Some("linux") if missing.is_empty() => None,
            Some("linux") => Some(format!("the container engine lacks {}", missing.join(", "))),
            other => Some(format!("the container engine runs {} containers", other.unwrap_or("unknown"))),
        };
        let runtimes = info.runtimes.iter().flatten().any(|(name, _)| name.starts_with("nvidia"));
        let hook = std::path::Path::new("/usr/bin/nvidia-container-runtime-hook").exists();
        let architecture = match info.architecture.as_deref() {
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            other => other.unwrap_or_default(),
        };
        Self {
            version: info.server_version.clone().unwrap_or_default(),
            platform: format!("{}/{architecture}", info.os_type.as_deref().unwrap_or_default()),
            unfit,
            gpus: runtimes || hook,
        }
    }
}

/// The engine, near or away. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    host: String,
    client: tokio::sync::Mutex<Option<(Docker, Facts)>>,
    lost: Notify,
    /// Containers that could not be removed when they had to be.
    left: Mutex<BTreeSet<String>>,
}

impl Engine {
    /// At `host`, as in `DOCKER_HOST`; `None` means what that variable says, or the usual socket. Does not connect.
    pub(super) fn new(host: Option<String>) -> Self {
        let host = host
            .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
            .unwrap_or_else(|| HOST_DEFAULT.into());
        let host = if host.starts_with('/') { format!("unix://{host}") } else { host };
        Self { shared: Arc::new(Shared { host, ..Shared::default() }) }
    }

    /// A client of the engine that strangers' containers may run on.
    pub(super) async fn docker(&self) -> Result<(Docker, Facts), Trouble> {
        let (docker, facts) = self.reach().await?;
        match &facts.unfit {
            None => Ok((docker, facts)),
            Some(why) => Err(Trouble::Unfit(why.clone())),
        }
    }

    /// A client of the engine, fit or not: enough for looking and for removing.
    pub(super) async fn reach(&self) -> Result<(Docker, Facts), Trouble> {
        let mut client = self.shared.client.lock().await;
        if let Some(known) = &*client {
            return Ok(known.clone());
        }
        let greeting = async {
            let docker = Docker::connect_with_host(&self.shared.host)?.with_timeout(REQUEST_MAX);
            let docker = docker.negotiate_version().await?;
            let facts = Facts::of(&docker.info().await?);
            Ok::<_, Error>((docker, facts))
        };
        let known = match tokio::time::timeout(GREETING_MAX, greeting).await {
            Ok(known) => known?,
            Err(_) => return Err(Trouble::Away("it does not answer".into())),
        };
        tracing::debug!(version = known.1.version, api = %known.0.client_version(), "connected to the container engine");
        *client = Some(known.clone());
        Ok(known)
    }

    /// Looks at the engine anew.
    pub(super) async fn look(&self) -> Result<Facts, Trouble> {
        *self.shared.client.lock().await = None;
        Ok(self.docker().await?.1)
    }

    /// Passes an error on, and remembers when it means that the engine is away.
    pub(super) async fn trouble(&self, error: impl Into<Trouble>) -> Trouble {
        let trouble = error.into();
        if matches!(trouble, Trouble::Away(_)) {
            *self.shared.client.lock().await = None;
            self.shared.lost.notify_one();
        }
        trouble
    }

    /// Waits until a request finds the engine away.
    pub(super) async fn lost(&self) {
        self.shared.lost.notified().await;
    }

    /// A container's state and settings; `None` when it does not exist.
    pub(super) async fn inspect(
        &self,
        name: &str,
    ) -> Result<Option<bollard::models::ContainerInspectResponse>, Trouble> {
        let (docker, _) = self.reach().await?;
        match docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(container) => Ok(Some(container)),
            Err(error) => match self.trouble(error).await {
                trouble if trouble.is_missing() => Ok(None),
                trouble => Err(trouble),
            },
        }
    }

    /// Sends a signal. Whether there was a running container to get it.
    pub(super) async fn signal(&self, name: &str, signal: &str) -> Result<bool, Trouble> {
        let (docker, _) = self.reach().await?;
        match docker.kill_container(name, Some(KillContainerOptions { signal: signal.into() })).await {
            Ok(()) => Ok(true),
            Err(error) => match self.trouble(error).await {
                // Not there, or not running.
                Trouble::Refused { status: 404 | 409, .. } => Ok(false),
                trouble => Err(trouble),
            },
        }
    }

    /// Makes a container stand still, or go on. An engine that was away may have done it or not.
    pub(super) async fn pause(&self, name: &str, still: bool) -> Result<(), Trouble> {
        let (docker, _) = self.reach().await?;
        let done = match still {
            true => docker.pause_container(name).await,
            false => docker.unpause_container(name).await,
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                // Such as: it has ended.
                let trouble = self.trouble(error).await;
                tracing::debug!(name, still, %trouble, "a container was not paused or not let go");
                Err(trouble)
            }
        }
    }

    /// Kills and removes a container with its volumes, and looks whether it is gone. One that is not there is gone.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Trouble> {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        let mut last = None;
        for attempt in 0..REMOVALS_MAX {
            tokio::time::sleep(REMOVAL_PAUSE * attempt).await;
            let (docker, _) = self.reach().await?;
            match docker.remove_container(name, Some(options.clone())).await {
                Ok(()) => {}
                Err(error) => match self.trouble(error).await {
                    away @ Trouble::Away(_) => return Err(away),
                    trouble if trouble.is_missing() => return Ok(()),
                    // Such as: somebody else removes it at this moment.
                    trouble => last = Some(trouble),
                },
            }
            if self.inspect(name).await?.is_none() {
                return Ok(());
            }
        }
        Err(last.unwrap_or_else(|| Trouble::Unfit("the container engine does not remove the container".into())))
    }

    /// Remembers a container that could not be removed.
    pub(super) fn leave(&self, name: String) {
        let mut left = self.shared.left.lock().expect("no holder of this lock panics");
        if left.len() < LEFT_MAX {
            left.insert(name);
        }
    }

    /// Removes what could not be removed before. To be called when the engine is back.
    pub(super) async fn sweep(&self) {
        let left = std::mem::take(&mut *self.shared.left.lock().expect("no holder of this lock panics"));
        for name in left {
            match self.remove(&name).await {
                Ok(()) => tracing::info!(name, "a container that was left is removed"),
                Err(_) => self.leave(name),
            }
        }
    }

    /// What the probe reports.
    pub(super) fn found(facts: &Facts, policy: &super::DockerPolicy, images: Vec<ImageMark>) -> DockerFound {
        DockerFound { version: facts.version.clone(), exceptions: policy.exceptions, gpus: facts.gpus, images }
    }
}

/// Times that a removal is tried before it is left to the next look or sweep.
const REMOVALS_MAX: u32 = 5;

/// Containers that are remembered for removal. What is beyond them is found by its labels at the agent's next start.
const LEFT_MAX: usize = 1024;

/// Pause before the second try; it grows with each.
const REMOVAL_PAUSE: Duration = Duration::from_millis(300);
