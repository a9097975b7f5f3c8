//! From the image's name in the job to the one image that runs: allowed by the owner, here or pulled, and pinned.
//!
//! A name is resolved once for a whole job. Who resolves it says so as an [`ImagePin`], and every later attempt of the job
//! runs exactly that image or none. The container is then made from the image's id, so that a tag which moves in between
//! changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{CreateImageInfo, ImageInspect, ImageSummary};
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions};
use futures::StreamExt;
use modchain_types::{DockerTask, Ending, Fault, IMAGE_MARKS_MAX, ImageMark, ImagePin, Text};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::{Engine, Trouble};
use super::{DockerPolicy, printable};
use crate::executor::ExecutorEvent;

/// Shortest time between two reports on a pull.
const REPORT_EVERY: Duration = Duration::from_millis(400);

/// How much longer the connection waits than the pull, so that it is the pull that is told to have taken too long.
const PATIENCE_BEYOND: Duration = Duration::from_secs(30);

/// Layers that are told apart in the progress of a pull; no image has as many (the engine stops at 127).
const LAYERS_MAX: usize = 256;

/// An image that may run and is here.
#[derive(Debug)]
pub(super) struct Image {
    /// `sha256:…`, the engine's own name of it.
    pub(super) id: String,
    /// What the job's name means from here on.
    pub(super) pin: ImagePin,
    /// As the engine describes it.
    pub(super) inspect: ImageInspect,
}

/// Finds the image or pulls it, and tells how far it is.
pub(super) async fn ensure(
    engine: &Engine,
    policy: &DockerPolicy,
    task: &DockerTask,
    pin: Option<&ImagePin>,
    events: &mpsc::Sender<ExecutorEvent>,
) -> Result<Image, Ending> {
    let name = task.image.as_str();
    let reference = Reference::parse(name)
        .ok_or_else(|| cannot(Fault::Job, format!("`{}` is not the name of an image", printable(name))))?;
    if !reference.allowed_by(&policy.images) {
        return Err(cannot(Fault::Node, format!("this node's owner does not allow the image {}", printable(name))));
    }
    let wanted = match pin {
        // What the client itself named exactly, no node can change the meaning of.
        Some(_) if reference.digest.is_some() => reference.clone(),
        None => reference.clone(),
        Some(pin) => {
            let pinned = Reference::parse(pin.as_str())
                .ok_or_else(|| cannot(Fault::Node, format!("`{}` is not an image", printable(pin))))?;
            // Whoever pinned it says which image of that name, never another name.
            if !pinned.is_id() && pinned.repository != reference.repository {
                let why = format!("{} is not an image of the name {}", printable(pin), printable(name));
                return Err(cannot(Fault::Node, why));
            }
            pinned
        }
    };
    let inspect = match find(engine, &wanted).await? {
        Some(inspect) => inspect,
        None => {
            pull(engine, policy, task, &wanted, events).await?;
            find(engine, &wanted).await?.ok_or_else(|| {
                cannot(Fault::Node, format!("{} was pulled and is not there", printable(&wanted.to_string())))
            })?
        }
    };
    let id = inspect.id.clone().filter(|id| id.starts_with("sha256:"));
    let id = id.ok_or_else(|| cannot(Fault::Node, "the container engine does not tell the image's id"))?;
    if pin.is_some() && wanted.is_id() && id != wanted.to_string() {
        // The engine takes the beginning of an id for the id.
        return Err(cannot(Fault::Node, format!("{wanted} is not an image of this node")));
    }
    if wanted.is_id() && !reference.is_id() && !may_have_been(&reference, &inspect) {
        // Another node says that this id is what the name means. The owner allowed the name, not every image that is here.
        let why = format!("{wanted} is not an image of the name {} on this node", printable(name));
        return Err(cannot(Fault::Node, why));
    }
    let bytes = u64::try_from(inspect.size.unwrap_or(0)).unwrap_or(0);
    if bytes > policy.image_bytes_max {
        return Err(too_large(bytes, policy.image_bytes_max));
    }
    let pin = pin_of(&wanted, &inspect, &id);
    Ok(Image { id, pin, inspect })
}

/// The images that are here and that the owner allows, those that were made last first among those that there is room for.
/// An engine that does not tell them has none to tell: they only decide between equal nodes.
pub(super) async fn kept(engine: &Engine, policy: &DockerPolicy) -> Vec<ImageMark> {
    let listed = match engine.docker().await {
        Ok((docker, _)) => docker.list_images(None::<ListImagesOptions>).await,
        Err(_) => return Vec::new(),
    };
    match listed {
        Ok(images) => marks(images, policy),
        Err(error) => {
            let trouble = engine.trouble(error).await;
            tracing::debug!(%trouble, "the images that are here are not known");
            Vec::new()
        }
    }
}

fn marks(mut images: Vec<ImageSummary>, policy: &DockerPolicy) -> Vec<ImageMark> {
    images.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
    let allowed = |name: &String| Reference::parse(name).is_some_and(|name| name.allowed_by(&policy.images));
    let names = images.into_iter().flat_map(|image| {
        let ImageSummary { id, repo_tags, repo_digests, .. } = image;
        repo_tags.into_iter().chain(repo_digests).chain([id])
    });
    let mut marks: Vec<ImageMark> =
        names.filter(allowed).map(|name| ImageMark::of(&name)).take(IMAGE_MARKS_MAX).collect();
    // In an order that does not change with what the engine says first.
    marks.sort_unstable();
    marks.dedup();
    marks
}

/// The image, if it is here.
async fn find(engine: &Engine, wanted: &Reference) -> Result<Option<ImageInspect>, Ending> {
    let (docker, _) = engine.docker().await.map_err(node)?;
    match docker.inspect_image(&wanted.to_string()).await {
        Ok(inspect) => Ok(Some(inspect)),
        Err(error) => match engine.trouble(error).await {
            trouble if trouble.is_missing() => Ok(None),
            Trouble::Refused { status: 400, message } => Err(cannot(Fault::Job, printable(&message))),
            trouble => Err(node(trouble)),
        },
    }
}

async fn pull(
    engine: &Engine,
    policy: &DockerPolicy,
    task: &DockerTask,
    wanted: &Reference,
    events: &mpsc::Sender<ExecutorEvent>,
) -> Result<(), Ending> {
    let shown = printable(&wanted.to_string());
    if wanted.is_id() {
        // An id means something only where the image is.
        return Err(cannot(Fault::Node, format!("the image {shown} is not on this node")));
    }
    if !policy.pull {
        let why = format!("the image {shown} is not on this node, whose owner lets none be pulled");
        return Err(cannot(Fault::Node, why));
    }
    let timeout = Duration::from(task.pull_timeout);
    match tokio::time::timeout(timeout, pull_now(engine, policy, timeout, wanted, events)).await {
        Ok(pulled) => pulled,
        // Dropping the stream has told the engine to stop.
        Err(_) => Err(cannot(Fault::Node, format!("the image {shown} was not pulled within {}", task.pull_timeout))),
    }
}

async fn pull_now(
    engine: &Engine,
    policy: &DockerPolicy,
    timeout: Duration,
    wanted: &Reference,
    events: &mpsc::Sender<ExecutorEvent>,
) -> Result<(), Ending> {
    let (docker, facts) = engine.docker().await.map_err(node)?;
    // The engine answers only when the registry has: its own patience must not be shorter than the pull's.
    let docker = docker.with_timeout(timeout + PATIENCE_BEYOND);
    let options = CreateImageOptions {
        from_image: Some(wanted.repository_full.clone()),
        // Without a tag the engine would pull every one of them.
        tag: Some(wanted.version().to_owned()),
        platform: facts.platform,
        ..CreateImageOptions::default()
    };
    let mut stream = docker.create_image(Some(options), None, None);
    let mut progress = Progress::default();
    let mut report_at = Instant::now();
    while let Some(item) = stream.next().await {
        let info = match item {
            Ok(info) => info,
            Err(error) => return Err(pull_failed(wanted, engine.trouble(error).await)),
        };
        progress.note(&info);
        if progress.bytes_total > policy.image_bytes_max {
            // Packed; unpacked it is larger still.
            return Err(too_large(progress.bytes_total, policy.image_bytes_max));
        }
        if Instant::now() >= report_at && !progress.layers.is_empty() {
            report_at = Instant::now() + REPORT_EVERY;
            // For people: when nobody has time for it, the next one will do.
            let _ = events.try_send(ExecutorEvent::Preparing { message: Text::cut(progress.message()) });
        }
    }
    Ok(())
}

/// Whose fault it is that a pull failed, by the engine's words: it passes on what the registry said, with a status of 404 or
/// 500 before the first layer and none at all after it.
fn pull_failed(wanted: &Reference, trouble: Trouble) -> Ending {
    let shown = printable(&wanted.to_string());
    let (status, message) = match trouble {
        Trouble::Refused { status, message } => (status, message),
        trouble => return node(trouble),
    };
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let fault = if says(&["no matching manifest", "does not match the specified platform", "toomanyrequests"]) {
        // Another node may be another machine, or have asked less.
        Fault::Node
    } else if says(&["manifest unknown", "name unknown", "repository does not exist", "not found: does not exist"])
        || (says(&["manifest for"]) && says(&["not found"]))
        || (status == 404 && !says(&["dial ", "lookup "]))
    {
        Fault::NotFound
    } else if status == 400 || says(&["invalid reference format"]) {
        Fault::Job
    } else {
        // Out of reach, out of time, out of disk, not logged in: here.
        Fault::Node
    };
    cannot(fault, format!("the image {shown} cannot be pulled: {}", printable(&message)))
}

/// Whether an image has a name of this repository, or none any more, because its tag has moved on.
fn may_have_been(reference: &Reference, inspect: &ImageInspect) -> bool {
    let names =
        || inspect.repo_tags.iter().chain(&inspect.repo_digests).flatten().filter_map(|name| Reference::parse(name));
    names().next().is_none() || names().any(|name| name.repository == reference.repository)
}

/// What the job's name means here: the registry's digest, or the image's own id when it came from no registry.
fn pin_of(wanted: &Reference, inspect: &ImageInspect, id: &str) -> ImagePin {
    let digests = inspect.repo_digests.as_deref().unwrap_or_default();
    let own = digests.iter().find(|digest| {
        Reference::parse(digest).is_some_and(|reference| {
            reference.repository == wanted.repository
                && wanted.digest.as_ref().is_none_or(|digest| reference.digest.as_ref() == Some(digest))
        })
    });
    own.and_then(|digest| ImagePin::new(digest.clone()).ok()).unwrap_or_else(|| ImagePin::cut(id))
}

/// How far a pull is.
#[derive(Debug, Default)]
struct Progress {
    layers: BTreeMap<String, Layer>,
    bytes_total: u64,
}

#[derive(Debug, Default)]
struct Layer {
    done: bool,
    bytes: u64,
    bytes_total: u64,
}

impl Progress {
    fn note(&mut self, info: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&info.id, &info.status) else { return };
        let (counted, done) = match status.as_str() {
            "Pulling fs layer" | "Waiting" | "Verifying Checksum" | "Extracting" => (false, false),
            "Downloading" => (true, false),
            "Download complete" => (false, false),
            "Pull complete" | "Already exists" => (false, true),
            // Such as `Pulling from library/alpine`, whose id is a tag.
            _ => return,
        };
        if !self.layers.contains_key(id) && self.layers.len() >= LAYERS_MAX {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        layer.done |= done;
        if counted && let Some(detail) = &info.progress_detail {
            let bytes = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
            layer.bytes = bytes(detail.current);
            layer.bytes_total = bytes(detail.total).max(layer.bytes);
        }
        if status == "Download complete" || done {
            layer.bytes = layer.bytes_total;
        }
        self.bytes_total = self.layers.values().map(|layer| layer.bytes_total).sum();
    }

    fn message(&self) -> String {
        let done = self.layers.values().filter(|layer| layer.done).count();
        let bytes: u64 = self.layers.values().map(|layer| layer.bytes).sum();
        let mut message = format!("pulling: {done} of {} layers", self.layers.len());
        if self.bytes_total > 0 {
            message += &format!(", {} of {} MiB", bytes >> 20, self.bytes_total.div_ceil(1 << 20));
        }
        message
    }
}

/// A name of an image, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    /// In its shortest form, as people write it: `alpine`, `ghcr.io/acme/tool`. Empty for an id.
    repository: String,
    /// As written.
    repository_full: String,
    tag: Option<String>,
    /// `sha256:…`
    digest: Option<String>,
}

impl Reference {
    /// `None` for what can be no name. Whether it is a good one is the engine's to say.
    fn parse(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
        // The name becomes part of an address: it must not lead anywhere else in the engine's interface.
        let stays = text.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
        if !stays || !text.chars().all(plain) {
            return None;
        }
        if is_digest(text) {
            let nothing = String::new();
            return Some(Self {
                repository: nothing.clone(),
                repository_full: nothing,
                tag: None,
                digest: Some(text.into()),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (full, tag) = match rest.rsplit_once(':') {
            Some((full, tag)) if !tag.contains('/') => (full, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if full.is_empty() || tag.as_ref().is_some_and(String::is_empty) {
            return None;
        }
        Some(Self { repository: familiar(full).to_owned(), repository_full: full.to_owned(), tag, digest })
    }

    fn is_id(&self) -> bool {
        self.repository.is_empty()
    }

    /// What to pull of the repository.
    fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Whether one of the owner's patterns covers it; no patterns allow everything.
    fn allowed_by(&self, patterns: &[String]) -> bool {
        if patterns.is_empty() {
            return true;
        }
        let name = if self.is_id() {
            self.version().to_owned()
        } else {
            match &self.digest {
                Some(digest) => format!("{}@{digest}", self.repository),
                None => format!("{}:{}", self.repository, self.version()),
            }
        };
        patterns.iter().any(|pattern| {
            let pattern = familiar(pattern);
            match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                // A repository alone means all that is in it.
                None => pattern == name || (!self.is_id() && pattern == self.repository),
            }
        })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.digest, &self.tag) {
            (Some(digest), _) if self.is_id() => f.write_str(digest),
            (Some(digest), _) => write!(f, "{}@{digest}", self.repository_full),
            (None, Some(tag)) => write!(f, "{}:{tag}", self.repository_full),
            (None, None) => write!(f, "{}:latest", self.repository_full),
        }
    }
}

/// A repository's name without what everybody leaves out.
fn familiar(name: &str) -> &str {
    let rest = name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/")).unwrap_or(name);
    rest.strip_prefix("library/").unwrap_or(rest)
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn cannot(fault: Fault, message: impl AsRef<str>) -> Ending {
    Ending::CannotStart { fault, message: Text::cut(message.as_ref()) }
}

fn node(trouble: Trouble) -> Ending {
    cannot(Fault::Node, printable(&trouble.to_string()))
}

fn too_large(bytes: u64, bytes_max: u64) -> Ending {
    let why = format!(
        "the image has {} MiB, and this node's owner allows {} MiB",
        bytes.div_ceil(1 << 20),
        bytes_max / (1 << 20)
    );
    cannot(Fault::Node, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn reference(text: &str) -> Reference {
        Reference::parse(text).expect(text)
    }

    #[test]
    fn images_are_told_by_every_name_as_far_as_the_owner_allows_them_and_there_is_room() {
        let image = |name: &str, created: i64| ImageSummary {
            id: format!("sha256:{}", "0".repeat(64)),
            repo_tags: vec![format!("{name}:1"), "<none>:<none>".into()],
            repo_digests: vec![format!("{name}@sha256:{}", "ab".repeat(32))],
            created,
            ..ImageSummary::default()
        };
        let policy = |images: &[&str]| DockerPolicy {
            images: images.iter().map(|image| (*image).to_owned()).collect(),
            ..DockerPolicy::default()
        };
        let here = vec![image("alpine", 1), image("ghcr.io/acme/tool", 2)];
        let told = marks(here.clone(), &policy(&[]));
        let id = format!("sha256:{}", "0".repeat(64));
        let pinned = format!("alpine@sha256:{}", "ab".repeat(32));
        for name in ["docker.io/library/alpine:1", &pinned, "ghcr.io/acme/tool:1", &id] {
            assert!(told.contains(&ImageMark::of(name)), "{name}");
        }
        assert_eq!(told.len(), 5);
        let told = marks(here, &policy(&["alpine"]));
        assert_eq!(told.len(), 2, "the other, and ids, are nobody's business: {told:?}");
        let many = (0..500).map(|number| image(&format!("tool-{number}"), number)).collect();
        let told = marks(many, &policy(&[]));
        assert!(told.len() <= IMAGE_MARKS_MAX && told.contains(&ImageMark::of("tool-499:1")), "the newest are told");
        assert!(!told.contains(&ImageMark::of("tool-0:1")));
    }

    #[test]
    fn an_id_stands_for_a_name_only_where_the_image_has_it_or_has_none() {
        let named = |tags: &[&str]| ImageInspect {
            repo_tags: Some(tags.iter().map(|tag| (*tag).to_owned()).collect()),
            ..ImageInspect::default()
        };
        let asked = reference("tool:1");
        assert!(may_have_been(&asked, &named(&["secret:1", "docker.io/library/tool:7"])));
        assert!(may_have_been(&asked, &named(&[])), "its tag has moved on");
        assert!(!may_have_been(&asked, &named(&["secret:1"])), "nobody asked for the owner's own images");
        let by_digest = format!("tool@sha256:{}", "ab".repeat(32));
        let inspect = ImageInspect { repo_digests: Some(vec![by_digest]), ..named(&["secret:1"]) };
        assert!(may_have_been(&asked, &inspect));
    }

    #[test]
    fn names_are_taken_apart_as_the_engine_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, repository, version, shown) in [
            ("alpine", "alpine", "latest", "alpine:latest"),
            ("alpine:3", "alpine", "3", "alpine:3"),
            ("docker.io/library/alpine:3", "alpine", "3", "docker.io/library/alpine:3"),
            ("registry.test:5000/a/b", "registry.test:5000/a/b", "latest", "registry.test:5000/a/b:latest"),
            ("registry.test:5000/a/b:c", "registry.test:5000/a/b", "c", "registry.test:5000/a/b:c"),
            (&format!("a/b@{digest}"), "a/b", &digest, &format!("a/b@{digest}")),
            (&format!("a/b:t@{digest}"), "a/b", &digest, &format!("a/b@{digest}")),
            (&digest, "", &digest, &digest),
        ] {
            let parsed = reference(text);
            assert_eq!((parsed.repository.as_str(), parsed.version()), (repository, version), "{text}");
            assert_eq!(parsed.to_string(), shown, "{text}");
        }
        for text in ["", "/a", "-a", "a b", "a@sha256:12", "a:", "a?b=c", "a\nb", "@", ":x", "a/../b", "..", "a//b"] {
            assert_eq!(Reference::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_owners_list_covers_what_it_names_and_nothing_beside_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let allowed = |patterns: &[&str], name: &str| {
            let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            reference(name).allowed_by(&patterns)
        };
        assert!(allowed(&[], "anything/at:all"));
        assert!(allowed(&["alpine"], "docker.io/library/alpine:3"));
        assert!(allowed(&["alpine"], &format!("alpine@{digest}")));
        assert!(allowed(&["docker.io/library/alpine:3"], "alpine:3"));
        assert!(allowed(&["ghcr.io/acme/*"], "ghcr.io/acme/tool:1"));
        assert!(allowed(&["alpine:*"], "alpine"));
        assert!(allowed(&["x", &digest], &digest));
        assert!(!allowed(&["alpine"], "alpine-evil"));
        assert!(!allowed(&["alpine:3"], "alpine:4"));
        assert!(!allowed(&["ghcr.io/acme/*"], "ghcr.io/acmeevil/tool"));
        assert!(!allowed(&["alpine"], &digest));
    }

    #[test]
    fn the_pin_is_the_registrys_digest_of_this_name_or_the_images_own_id() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let (id, inspect) = (
            digest("00"),
            ImageInspect {
                repo_digests: Some(vec![format!("b@{}", digest("bb")), format!("a@{}", digest("aa"))]),
                ..ImageInspect::default()
            },
        );
        assert_eq!(pin_of(&reference("a:1"), &inspect, &id).as_str(), format!("a@{}", digest("aa")));
        assert_eq!(pin_of(&reference("c:1"), &inspect, &id).as_str(), id);
        assert_eq!(pin_of(&reference("c:1"), &ImageInspect::default(), &id).as_str(), id);
    }

    #[test]
    fn a_pull_is_told_in_layers_and_bytes() {
        let mut progress = Progress::default();
        let mut note = |id: &str, status: &str, current: i64, total: i64| {
            progress.note(&CreateImageInfo {
                id: Some(id.into()),
                status: Some(status.into()),
                progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
                ..CreateImageInfo::default()
            });
            progress.message()
        };
        note("3", "Pulling from library/alpine", 0, 0);
        assert_eq!(note("a", "Already exists", 0, 0), "pulling: 1 of 1 layers");
        note("b", "Pulling fs layer", 0, 0);
        assert_eq!(note("c", "Downloading", 5 << 20, 10 << 20), "pulling: 1 of 3 layers, 5 of 10 MiB");
        // Unpacking counts other bytes.
        assert_eq!(note("c", "Extracting", 1 << 20, 99 << 20), "pulling: 1 of 3 layers, 5 of 10 MiB");
        assert_eq!(note("c", "Pull complete", 0, 0), "pulling: 2 of 3 layers, 10 of 10 MiB");
    }

    #[test]
    fn a_failed_pull_is_the_fault_of_whoever_can_do_something_about_it() {
        let cases = [
            (404, "manifest for a:9 not found: manifest unknown: manifest unknown", Fault::NotFound),
            (
                404,
                "pull access denied for a, repository does not exist or may require 'docker login': denied",
                Fault::NotFound,
            ),
            (500, "Get \"https://registry.test/v2/\": dial tcp: lookup registry.test: no such host", Fault::Node),
            (404, "Get \"https://registry.test/v2/\": dial tcp 192.0.2.1:443: i/o timeout", Fault::Node),
            (500, "toomanyrequests: You have reached your pull rate limit", Fault::Node),
            (404, "no matching manifest for linux/amd64 in the manifest list entries", Fault::Node),
            (500, "write /var/lib/docker/tmp/x: no space left on device", Fault::Node),
            (400, "invalid reference format", Fault::Job),
        ];
        for (status, message, expected) in cases {
            let trouble = Trouble::Refused { status, message: message.into() };
            let Ending::CannotStart { fault, message: told } = pull_failed(&reference("a:9"), trouble) else {
                panic!("{message}")
            };
            assert_eq!(fault, expected, "{message}");
            assert!(told.starts_with("the image a:9 cannot be pulled: "), "{told}");
        }
    }
}
