//! The agent's program renews its certificate while it serves: nothing that runs notices, and whatever dies or fails at
//! whatever step, the node goes on with the certificate that it has.

mod scripted;

use std::time::Duration;

use modchain_certs::Credentials;
use modchain_types::{Ending, Input, ItemState, ReportBody, Verdict};
use scripted::modules::{FLOOD, HELLO, flood};
use scripted::{Got, World, soon};

/// A life of which the agent finds four fifths over: it is to renew at once, and has a minute for it.
const LIFE: Duration = Duration::from_secs(300);
const AGE: Duration = Duration::from_secs(240);

fn on_disk(world: &World) -> modchain_certs::PeerIdentity {
    *Credentials::load(&world.dir.path().join("node")).expect("loads").identity()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_in_the_middle_of_an_attempt_loses_no_byte_and_stops_nothing() {
    let mut world = World::with_certificate(LIFE, AGE);
    let assignment = world.assignment(1, FLOOD, Input::None);
    let _agent = world.start_agent();
    let mut old = world.welcome(Verdict::Forget).await;
    let asked = old.renewal().await;
    old.say(assignment.clone()).await;
    let mut got = Got::default();
    let mut stream = old.attempt().await;
    stream.resume(&got).await;
    assert!(stream.take(&mut got).await.is_none(), "there is much more to come");
    let plan = world.plan(Duration::from_secs(3600));
    asked.grant(&world, &plan).await;

    // The second connection shows the new certificate and is the same agent; the first one serves on.
    let mut new = world.knock().await;
    assert_eq!((old.shown.id, new.shown.id), (scripted::NODE, scripted::NODE));
    assert_eq!(new.shown.serial, plan.serial);
    assert_ne!(old.shown.serial, new.shown.serial);
    assert_eq!(new.hello.instance, old.hello.instance);
    let held: Vec<_> = new.hello.inventory.iter().map(|item| item.attempt).collect();
    assert_eq!(held, [assignment.attempt]);
    for _ in 0..3 {
        assert!(stream.take(&mut got).await.is_none(), "output flows on over the first connection");
    }
    // Half of the last piece did not reach the disk.
    got.stdout.truncate(got.stdout.len() - 1000);
    // An agent does not wait for long to have its inventory judged, however slow the machine is.
    new.say_welcome().await;
    new.reconcile(Verdict::Keep).await;
    soon("the end of the first connection", old.connection.closed()).await;
    let mut stream = new.attempt().await;
    stream.resume(&got).await;
    let end = stream.take_all(&mut got).await;
    assert_eq!((end.stdout, end.dropped), (flood().len() as u64, 0));
    assert!(got.stdout == flood(), "every byte once, in order");
    let (report, ending) = new.ending().await;
    assert_eq!(ending, Ending::Exited { code: 0 });
    new.ack(&report).await;
    new.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_costs_nothing_and_is_tried_again_with_the_same_key() {
    let mut world = World::with_certificate(LIFE, AGE);
    let assignment = world.assignment(1, HELLO, Input::None);
    let _agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    let before = on_disk(&world);
    let asked = peer.renewal().await;
    let digest = asked.key.key_digest();
    asked.refuse().await;
    peer.say(assignment).await;
    assert_eq!(peer.ending().await.1, Ending::Exited { code: 0 });
    peer.is_served().await;
    assert_eq!(on_disk(&world), before);
    let asked = peer.renewal().await;
    assert_eq!(asked.key.key_digest(), digest);
    let plan = world.plan(Duration::from_secs(3600));
    asked.grant(&world, &plan).await;
    let mut new = world.welcome(Verdict::Keep).await;
    assert_eq!(new.shown.serial, plan.serial);
    new.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_that_is_not_welcome_leaves_the_old_connection_serving() {
    let mut world = World::with_certificate(LIFE, AGE);
    let assignment = world.assignment(1, HELLO, Input::None);
    let _agent = world.start_agent();
    let mut old = world.welcome(Verdict::Forget).await;
    let plan = world.plan(LIFE);
    old.renewal().await.grant(&world, &plan).await;
    let knocking = world.knock().await;
    assert_eq!(knocking.shown.serial, plan.serial);
    // An order that came meanwhile is not lost.
    old.say(assignment.clone()).await;
    knocking.cut();
    let (report, ending) = old.ending().await;
    assert_eq!((report.attempt, ending), (assignment.attempt, Ending::Exited { code: 0 }));
    old.is_served().await;
    // It comes again, without asking for another certificate.
    let mut new = world.welcome(Verdict::SendResult).await;
    assert_eq!(new.shown.serial, plan.serial);
    let (again, _) = new.ending().await;
    assert_eq!(again, report);
    new.is_served().await;
    assert_eq!(on_disk(&world).serial, plan.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_on_the_old_connection_after_the_new_ones_hello_is_not_carried_out_twice() {
    let mut world = World::with_certificate(LIFE, AGE);
    let assignment = world.assignment(1, HELLO, Input::None);
    let _agent = world.start_agent();
    let mut old = world.welcome(Verdict::Forget).await;
    old.renewal().await.grant(&world, &world.plan(Duration::from_secs(3600))).await;
    let mut new = world.knock().await;
    assert!(new.hello.inventory.is_empty());
    // The orchestrator sent it before it had read the hello, and so it sends it again.
    old.say(assignment.clone()).await;
    // Who acts on it says so at once; who waits longer learns no more.
    let said = tokio::time::timeout(Duration::from_millis(500), old.down.read()).await;
    assert!(said.is_err(), "it began something: {said:?}");
    new.say_welcome().await;
    new.reconcile(Verdict::Keep).await;
    soon("the end of the first connection", old.connection.closed()).await;
    new.say(assignment.clone()).await;
    let report = new.report().await;
    assert_eq!((report.attempt, report.body), (assignment.attempt, ReportBody::Starting));
    assert_eq!(new.ending().await.1, Ending::Exited { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_while_it_renews_comes_back_with_what_it_had_or_with_what_it_got() {
    let mut world = World::with_certificate(LIFE, AGE);
    let assignment = world.assignment(1, FLOOD, Input::None);
    // Before the answer: the old certificate, and the same key is asked for again.
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    let first = peer.shown.serial;
    let digest = peer.renewal().await.key.key_digest();
    agent.kill();
    drop(peer);
    let mut agent = world.start_agent();
    let mut peer = world.welcome(Verdict::Forget).await;
    assert_eq!(peer.shown.serial, first);
    let asked = peer.renewal().await;
    assert_eq!(asked.key.key_digest(), digest);
    // After it, before the welcome: the new certificate. What ran is over, as after every death.
    peer.say(assignment.clone()).await;
    peer.started().await;
    let plan = world.plan(Duration::from_secs(3600));
    asked.grant(&world, &plan).await;
    let knocking = world.knock().await;
    assert_eq!(knocking.shown.serial, plan.serial);
    agent.kill();
    drop((knocking, peer));
    let _agent = world.start_agent();
    let peer = world.welcome(Verdict::SendResult).await;
    assert_eq!(peer.shown.serial, plan.serial);
    let held: Vec<_> = peer.hello.inventory.iter().map(|item| (item.attempt, item.state)).collect();
    assert_eq!(held, [(assignment.attempt, ItemState::Ended)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_somebody_else_renewed_is_shown_without_asking_for_another() {
    let world = World::new();
    let _agent = world.start_agent();
    let mut old = world.welcome(Verdict::Forget).await;
    old.is_served().await;
    let new = {
        let node = modchain_certs::Subject::member(modchain_types::Role::Node, scripted::NODE).expect("a member");
        world.authority.issue(node, LIFE, std::time::SystemTime::now()).expect("issues")
    };
    new.save(&world.dir.path().join("node")).expect("saves");
    // It is seen at the next look, or by the next connection: cut, so that the test need not wait a minute.
    old.cut();
    let peer = world.welcome(Verdict::Forget).await;
    assert_eq!(peer.shown.serial, new.identity().serial);
}
