//! Images: found, pulled, pinned, refused.

use std::collections::VecDeque;
use std::time::Duration;

use modchain_agent::executor::docker::DockerPolicy;
use modchain_types::{Fault, ImagePin, Span, Text};
use serde_json::{Value, json};

use crate::harness::*;
use crate::image::{IMAGE, docker, engine_is_there};
use crate::scripted::{Answer, DIGEST, Engine, Script};

const ID: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn named(image: &str) -> Container {
    Container::shell("true").with(|_, task| task.image = Text::new(image).unwrap())
}

fn missing() -> Answer {
    Answer::Json(404, json!({ "message": "No such image" }))
}

fn there() -> Answer {
    Answer::Json(
        200,
        json!({ "Id": ID, "Size": 1000, "RepoDigests": [format!("other@{ID}"), format!("registry.test/tool@{DIGEST}")] }),
    )
}

fn pulling(answer: Answer, then: Answer) -> Script {
    vec![
        ("/images/create", VecDeque::from([answer])),
        ("/images/", VecDeque::from([missing(), then])),
        ("/containers/create", VecDeque::from([Answer::Json(500, json!({ "message": "as far as this goes" }))])),
    ]
}

fn step(id: &str, status: &str, current: u64, total: u64) -> Value {
    json!({ "id": id, "status": status, "progressDetail": { "current": current, "total": total } })
}

#[tokio::test]
async fn a_pull_is_told_while_it_goes_on_and_the_tag_is_pinned_to_the_registrys_digest() {
    let pause = Duration::from_millis(150);
    let mut lines = vec![step("1", "Pulling from tool", 0, 0), step("aa", "Already exists", 0, 0)];
    lines.extend((0..=10).map(|part| step("bb", "Downloading", part << 20, 10 << 20)));
    lines.extend([step("bb", "Download complete", 0, 0), step("bb", "Pull complete", 0, 0)]);
    lines.push(json!({ "status": "Status: Downloaded newer image" }));
    let engine = Engine::start(pulling(Answer::Lines(pause, lines), there()));
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let story = named("registry.test/tool:1").start(&node).story().await;
    story.assert_cannot_start(Fault::Node, "as far as this goes");
    assert_eq!(story.pinned.as_ref().map(|pin| pin.as_str()), Some(&*format!("registry.test/tool@{DIGEST}")));
    assert!(story.preparing.len() >= 2, "{:?}", story.preparing);
    // Which lines of the engine's are told depends on the time, and the last layer is complete with one of them.
    let expected = |message: &String| {
        let counted = ["pulling: 1 of 2 layers, ", "pulling: 2 of 2 layers, "];
        counted.iter().any(|counted| message.starts_with(counted)) && message.ends_with(" of 10 MiB")
    };
    assert!(story.preparing.iter().skip(1).all(expected), "{:?}", story.preparing);
    let asked = engine.requests("/images/create");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("fromImage=registry.test%2Ftool") && asked[0].contains("tag=1"), "{asked:?}");
}

#[tokio::test]
async fn a_pin_is_pulled_by_its_digest_whatever_the_tag_means_by_now() {
    let engine = Engine::start(pulling(Answer::Lines(Duration::ZERO, vec![json!({ "status": "done" })]), there()));
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let pin = format!("registry.test/tool@{DIGEST}");
    let job = named("registry.test/tool:1").with(|request, _| request.image = Some(ImagePin::new(&pin).unwrap()));
    let story = job.start(&node).story().await;
    assert_eq!(story.pinned.as_ref().map(|pin| pin.as_str()), Some(&*pin));
    let asked = engine.requests("/images/create");
    assert!(asked[0].contains(&format!("tag={}", DIGEST.replace(':', "%3A"))), "{asked:?}");
}

#[tokio::test]
async fn what_the_client_named_exactly_no_pin_changes() {
    let engine = Engine::start(pulling(Answer::Lines(Duration::ZERO, vec![json!({ "status": "done" })]), there()));
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let other = format!("registry.test/tool@sha256:{}", "9".repeat(64));
    let job = named(&format!("registry.test/tool@{DIGEST}"))
        .with(|request, _| request.image = Some(ImagePin::new(other).unwrap()));
    let story = job.start(&node).story().await;
    assert_eq!(story.pinned.as_ref().map(|pin| pin.as_str()), Some(&*format!("registry.test/tool@{DIGEST}")));
    let asked = engine.requests("/images/create");
    assert!(asked[0].contains(&format!("tag={}", DIGEST.replace(':', "%3A"))), "{asked:?}");
}

#[tokio::test]
async fn each_failure_of_a_pull_is_told_as_what_it_is() {
    let failed = |message: &str| {
        Answer::Lines(
            Duration::ZERO,
            vec![step("aa", "Downloading", 1, 10), json!({ "error": message, "errorDetail": { "message": message } })],
        )
    };
    let refused = |status: u16, message: &str| Answer::Json(status, json!({ "message": message }));
    let cases = [
        (refused(404, "manifest for a:1 not found: manifest unknown: manifest unknown"), Fault::NotFound, "not found"),
        (refused(404, "pull access denied for a, repository does not exist"), Fault::NotFound, "denied"),
        (refused(500, "dial tcp 192.0.2.1:443: i/o timeout"), Fault::Node, "i/o timeout"),
        (failed("write /var/lib/x: no space left on device"), Fault::Node, "no space left"),
        (failed("unexpected EOF"), Fault::Node, "unexpected EOF"),
        (Answer::Silence, Fault::Node, "was not pulled within 1.0s"),
        (
            Answer::Lines(Duration::ZERO, vec![step("aa", "Downloading", 1, 50 << 30)]),
            Fault::Node,
            "this node's owner allows 20480 MiB",
        ),
    ];
    for (answer, fault, message) in cases {
        // Only where no answer comes is the time to run out.
        let limit = Span::from_secs(if matches!(answer, Answer::Silence) { 1 } else { 60 });
        let engine = Engine::start(pulling(answer, missing()));
        let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
        let job = named("a:1").with(|_, task| task.pull_timeout = limit);
        let story = job.start(&node).story().await;
        story.assert_cannot_start(fault, message);
        assert!(story.pinned.is_none());
    }
}

#[tokio::test]
async fn input_that_never_left_the_agent_is_not_said_to_have_been_handed_over() {
    let engine = Engine::start(pulling(Answer::Silence, missing()));
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let mut attempt = named("a:1").input().start(&node);
    let mut stdin = attempt.stdin.take().expect("it reads");
    stdin.write(b"all of it").await.expect("there is room");
    let closing = tokio::spawn(stdin.close());
    while engine.requests("/images/create").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    attempt.control.kill();
    assert_eq!(*attempt.story().await.ending(), modchain_types::Ending::Stopped);
    assert!(closing.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_pull_ends_at_once_when_the_job_is_stopped() {
    let engine = Engine::start(pulling(Answer::Silence, missing()));
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let attempt = named("a:1").start(&node);
    while engine.requests("/images/create").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    attempt.control.stop(modchain_agent::executor::StopAs::Stopped, Span::from_secs(1000));
    let story = attempt.story().await;
    assert_eq!((story.ending(), story.started), (&modchain_types::Ending::Stopped, false));
}

#[tokio::test]
async fn what_the_owner_does_not_allow_is_not_even_looked_for() {
    let engine = Engine::start(pulling(Answer::Silence, there()));
    let strict = DockerPolicy { images: vec!["registry.test/*".into()], ..DockerPolicy::default() };
    let node = Node::at(Some(engine.host.clone()), strict);
    named("alpine").start(&node).story().await.assert_cannot_start(Fault::Node, "does not allow the image alpine");
    // Nor by way of a pin that another node made up.
    let pin = ImagePin::new(format!("evil@{DIGEST}")).unwrap();
    let job = named("registry.test/tool").with(|request, _| request.image = Some(pin));
    job.start(&node).story().await.assert_cannot_start(Fault::Node, "is not an image of the name");
    assert_eq!(engine.requests("/images/"), [] as [String; 0]);
    let own = Node::at(Some(engine.host.clone()), DockerPolicy { pull: false, ..DockerPolicy::default() });
    named("alpine").start(&own).story().await.assert_cannot_start(Fault::Node, "lets none be pulled");
    named("a b").start(&own).story().await.assert_cannot_start(Fault::Job, "not the name of an image");
}

#[tokio::test]
async fn a_container_that_is_not_what_was_asked_for_is_removed_before_it_starts() {
    let made = json!({
        "Id": "c", "Image": ID, "Path": "/bin/sh",
        "Config": { "User": "65534:65534", "Tty": false },
        "HostConfig": { "Privileged": true },
        "State": { "Status": "created" },
    });
    let script: Script = vec![
        ("/images/", VecDeque::from([there()])),
        ("POST /containers/create", VecDeque::from([Answer::Json(201, json!({ "Id": "c", "Warnings": [] }))])),
        ("DELETE /containers/", VecDeque::from([Answer::Json(404, json!({ "message": "gone" }))])),
        ("GET /containers/", VecDeque::from([Answer::Json(200, made)])),
    ];
    let engine = Engine::start(script);
    let node = Node::at(Some(engine.host.clone()), DockerPolicy::default());
    let story = named("registry.test/tool").start(&node).story().await;
    story.assert_cannot_start(Fault::Node, "HostConfig.");
    assert_eq!(engine.requests("/start"), [] as [String; 0]);
    assert_eq!(engine.requests("DELETE").len(), 2, "by the executor, and once more by this test as by the agent");
}

#[tokio::test]
async fn an_image_is_run_by_its_id_and_pinned_to_it_where_it_came_from_no_registry() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
    let pin = |pin: &str| named(IMAGE).with(|request, _| request.image = Some(ImagePin::new(pin).unwrap()));
    let story = pin(&id).run(&node).await;
    assert_eq!((story.ending(), story.pinned.as_ref().map(|pin| pin.as_str())), (&EXITED_0, Some(&*id)));
    pin(DIGEST).run(&node).await.assert_cannot_start(Fault::Node, "is not on this node");
    assert_eq!(*named(&id).run(&node).await.ending(), EXITED_0);
    let small = DockerPolicy { image_bytes_max: 1 << 10, ..DockerPolicy::default() };
    named(IMAGE).run(&Node::with(small)).await.assert_cannot_start(Fault::Node, "this node's owner allows 0 MiB");
}

#[tokio::test]
async fn a_registry_out_of_reach_is_the_nodes_fault() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    // A port of the machine itself that nothing listens on.
    let story = named("127.0.0.1:9/no/such:1").run(&node).await;
    story.assert_cannot_start(Fault::Node, "cannot be pulled");
    println!("the real engine says: {:?}", story.ending());
}

#[tokio::test]
async fn entry_point_command_and_volumes_of_an_image_are_what_the_job_makes_of_them() {
    if !engine_is_there() {
        return;
    }
    let node = Node::new();
    let name = format!("modchain-test/variant:{}", std::process::id());
    let base = docker(&["create", "--label", "modchain.test=variant", IMAGE]);
    docker(&[
        "commit",
        "--change",
        "ENTRYPOINT [\"/bin/echo\", \"entry\"]",
        "--change",
        "CMD [\"cmd\"]",
        "--change",
        "VOLUME /var/open",
        "--change",
        "HEALTHCHECK CMD true",
        "--change",
        "USER root",
        &base,
        &name,
    ]);
    docker(&["rm", &base]);
    let variant =
        |command: &[&str]| Container::command(command).with(|_, task| task.image = Text::new(&*name).unwrap());
    let own = variant(&[]).run(&node).await;
    let command = variant(&["x"]).run(&node).await;
    let none = variant(&["/bin/echo", "y"]).with(|_, task| task.entrypoint = Some(list(&[]))).run(&node).await;
    let other = variant(&["-c", "id -u; df /var/open | tail -1; echo z > /var/open/z && cat /var/open/z"])
        .with(|_, task| task.entrypoint = Some(list(&["/bin/sh"])))
        .run(&node)
        .await;
    docker(&["rmi", &name]);
    assert_eq!((own.out(), command.out(), none.out()), ("entry cmd\n", "entry x\n", "y\n"));
    let lines: Vec<&str> = other.out().lines().collect();
    assert!(lines.len() == 3 && lines[0] == "65534" && lines[1].starts_with("tmpfs") && lines[2] == "z", "{other:?}");
}
