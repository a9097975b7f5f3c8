//! The models of the machine's model server: which it holds, and which are in memory now.

use std::time::Duration;

use modchain_types::{ModelInfo, Text};
use ollama_rs::models::LocalModel;
use serde::Deserialize;
use tokio::sync::watch;

use super::Findings;
use crate::executor::llm::server::{Look, ServerError};
use crate::executor::llm::{LlmExecutor, is_model_name};

/// How often to look. A run's end is looked at besides, because it may have changed what is in memory.
const EVERY: Duration = Duration::from_secs(5);

/// Longest wait for an answer; a server that is slower counts as away.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Most bytes of an answer: a model takes some 400, so this is thousands of them.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Models that are told at most; an offer has room for no more.
const MODELS_MAX: usize = 256;

/// The first version without the known holes in creating and pushing models. Nothing that is asked here gets there, but the
/// server listens to others as well.
const SAFE_VERSION: [u32; 3] = [0, 17, 1];

/// One look, for whoever does not stay: the models, or why there are none.
pub async fn look_once(executor: &LlmExecutor) -> Result<Vec<ModelInfo>, String> {
    look(executor).await.map_err(|error| error.to_string())
}

/// Keeps the models of the findings up to date, for ever. They are `None` while the server is away.
pub async fn watch(executor: LlmExecutor, findings: watch::Sender<Findings>) {
    let mut version: Option<String> = None;
    let mut away = false;
    loop {
        let models = match look(&executor).await {
            Ok(models) => {
                if version.is_none() {
                    version = known_version(&executor).await;
                }
                if std::mem::replace(&mut away, false) {
                    tracing::info!("the model server is back");
                }
                Some(models)
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::info!(%error, "no models are offered");
                }
                None
            }
        };
        findings.send_if_modified(|findings| {
            let changed = findings.models != models;
            findings.models = models;
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = executor.changed() => {}
        }
    }
}

/// A model on disk: ollama-rs's, and what it leaves out.
#[derive(Debug, Deserialize)]
struct Tag {
    #[serde(flatten)]
    model: LocalModel,
    #[serde(default)]
    digest: String,
    /// Where the server would pass questions on to.
    #[serde(default)]
    remote_host: String,
}

#[derive(Debug, Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

/// A model in memory.
#[derive(Debug, Deserialize)]
struct Loaded {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Ps {
    models: Vec<Loaded>,
}

async fn look(executor: &LlmExecutor) -> Result<Vec<ModelInfo>, ServerError> {
    let tags = executor.server().look(Look::Tags, ANSWER_MAX, ANSWER_BYTES_MAX).await?;
    let ps = executor.server().look(Look::Ps, ANSWER_MAX, ANSWER_BYTES_MAX).await?;
    models(&tags, &ps).map_err(|error| ServerError::Nonsense(error.to_string()))
}

/// What is offered of what the server says, in the order of the names, so that two looks at the same models are equal.
fn models(tags: &[u8], ps: &[u8]) -> Result<Vec<ModelInfo>, serde_json::Error> {
    let Tags { models } = serde_json::from_slice(tags)?;
    let Ps { models: loaded } = serde_json::from_slice(ps)?;
    let mut models: Vec<ModelInfo> = models
        .into_iter()
        // What is passed on to somebody else is not held here.
        .filter(|tag| tag.remote_host.is_empty())
        .filter_map(|Tag { model, digest, remote_host: _ }| {
            Some(ModelInfo {
                warm: loaded.iter().any(|loaded| loaded.name == model.name),
                // A name that no job could use is left out.
                name: Text::new(model.name).ok().filter(|name| is_model_name(name))?,
                digest: Text::new(digest).ok()?,
                bytes: model.size,
            })
        })
        .collect();
    models.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    models.truncate(MODELS_MAX);
    Ok(models)
}

/// The version, told once, with a warning if it is one with known holes.
async fn known_version(executor: &LlmExecutor) -> Option<String> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let answer = executor.server().look(Look::Version, ANSWER_MAX, ANSWER_BYTES_MAX).await.ok()?;
    let Version { version } = serde_json::from_slice(&answer).ok()?;
    if is_unsafe(&version) {
        let safe = SAFE_VERSION.map(|number| number.to_string()).join(".");
        tracing::warn!(version, "this model server has known holes: keep it from other users, or update it to {safe}");
    } else {
        tracing::info!(version, "the model server is there");
    }
    Some(version)
}

/// Whether the version is known to be older than [`SAFE_VERSION`].
fn is_unsafe(version: &str) -> bool {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Result<Vec<u32>, _> = plain.split('.').map(str::parse).collect();
    numbers.is_ok_and(|numbers| numbers.as_slice() < SAFE_VERSION.as_slice() && numbers != [0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, more: &str) -> String {
        format!(
            r#"{{"name":"{name}","model":"{name}","modified_at":"2026-01-01T00:00:00Z","size":7,"digest":"d"{more}}}"#
        )
    }

    #[test]
    fn models_are_told_by_name_with_what_is_in_memory() {
        let long = "m".repeat(300);
        let tags =
            [tag("b:1", ""), tag("a:1", ""), tag("far", r#","remote_host":"h""#), tag(&long, ""), tag("a b", "")];
        let tags = format!(r#"{{"models":[{}]}}"#, tags.join(","));
        let ps = format!(r#"{{"models":[{}]}}"#, tag("b:1", ""));
        let told = models(tags.as_bytes(), ps.as_bytes()).expect("reads");
        let told: Vec<_> =
            told.iter().map(|model| (model.name.as_str(), model.digest.as_str(), model.bytes, model.warm)).collect();
        assert_eq!(told, [("a:1", "d", 7, false), ("b:1", "d", 7, true)]);
    }

    #[test]
    fn a_server_with_any_number_of_models_fills_an_offer_at_most() {
        let many: Vec<_> = (0..MODELS_MAX + 9).map(|number| tag(&format!("m{number:04}"), "")).collect();
        let tags = format!(r#"{{"models":[{}]}}"#, many.join(","));
        let told = models(tags.as_bytes(), br#"{"models":[]}"#).expect("reads");
        assert_eq!((told.len(), told[MODELS_MAX - 1].name.as_str()), (MODELS_MAX, "m0255"));
        assert!(models(b"{}", br#"{"models":[]}"#).is_err());
    }

    #[test]
    fn old_versions_are_known_and_strange_ones_are_not_blamed() {
        for (version, old) in [
            ("0.5.4-ipexllm-20250407", true),
            ("0.17.0", true),
            ("0.17.1", false),
            ("0.18.0-rc1", false),
            ("1.0.0", false),
            ("0.0.0", false),
            ("main", false),
            ("", false),
        ] {
            assert_eq!(is_unsafe(version), old, "{version}");
        }
    }
}
