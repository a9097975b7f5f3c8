//! Which node is best, by each policy.

use super::*;
use modchain_types::{DockerTask, ImageMark, Policy};

type Change = Box<dyn FnOnce(&mut Offer)>;

/// One node after another, each with this price and this change of its offer.
fn world(offers: Vec<(u64, Change)>) -> (World, Vec<SessionId>) {
    let mut world = World::new();
    let mut sessions = Vec::new();
    for (number, (price, change)) in (1u8..).zip(offers) {
        let mut arrival = World::arrival(number, price);
        arrival.offer.capabilities.adapters = List::cut(vec![Adapter::Wasm, Adapter::Docker]);
        change(&mut arrival.offer);
        let (session, reply) = world.connect_with(node(number), arrival);
        assert_eq!(reply, Reply::Welcome);
        sessions.push(session);
    }
    (world, sessions)
}

fn plain() -> Box<dyn FnOnce(&mut Offer)> {
    Box::new(|_| {})
}

fn with_image(name: &'static str) -> Box<dyn FnOnce(&mut Offer)> {
    Box::new(move |offer| offer.images = List::cut(vec![ImageMark::of(name)]))
}

fn gpu(model: &str, compute: &str) -> GpuInfo {
    GpuInfo {
        uuid: Text::cut(compute),
        vendor: Text::cut("nvidia"),
        model: Text::cut(model),
        memory_bytes: 40 << 30,
        driver: Text::cut("570.1"),
        compute: Text::cut(compute),
    }
}

fn with_gpu(compute: &'static str) -> Box<dyn FnOnce(&mut Offer)> {
    Box::new(move |offer| offer.capabilities.gpus = List::cut(vec![gpu("any", compute)]))
}

/// An old GPU for half a unit an hour, and a new one for four.
fn with_old_and_new(offer: &mut Offer) {
    offer.capabilities.gpus = List::cut(vec![gpu("new", "9.0"), gpu("old", "8.6")]);
    let prices = [("new", 4_000_000), ("old", 500_000)];
    offer.tariff.gpu_hour =
        Map::new(prices.map(|(model, price)| (Text::cut(model), Micro(price))).into()).expect("two");
}

fn by(policy: Policy) -> impl Fn(&mut JobSpec) {
    move |spec| spec.policy = policy
}

fn runs(image: &'static str) -> impl Fn(&mut JobSpec) {
    move |spec| {
        spec.requirements.adapter = Adapter::Docker;
        spec.body = TaskBody::Inline(Task::Docker(DockerTask {
            image: Text::cut(image),
            command: List::default(),
            entrypoint: None,
            env: Map::default(),
            workdir: None,
            tmp_bytes: DockerTask::TMP_BYTES_DEFAULT,
            pids_max: DockerTask::PIDS_DEFAULT,
            pull_timeout: DockerTask::PULL_TIMEOUT_DEFAULT,
        }));
    }
}

fn places(world: &World, jobs: &[JobId]) -> Vec<u8> {
    let place =
        |job: &JobId| world.control.job(*job).and_then(Job::placement).map_or(0, |placement| placement.node.0[0]);
    jobs.iter().map(place).collect()
}

fn submit_four(world: &mut World, policy: Policy) -> Vec<JobId> {
    (0..4).map(|number| world.submit(&number.to_string(), by(policy))).collect()
}

#[test]
fn the_cheapest_node_is_filled_first_and_spreading_takes_the_emptiest() {
    let (mut cheap, _) = world(vec![(72_000, plain()), (36_000, plain())]);
    let jobs = submit_four(&mut cheap, Policy::Cheapest);
    assert_eq!(places(&cheap, &jobs), [2, 2, 2, 2]);

    let (mut spread, _) = world(vec![(72_000, plain()), (36_000, plain())]);
    let jobs = submit_four(&mut spread, Policy::Spread);
    assert_eq!(places(&spread, &jobs), [2, 1, 2, 1], "the cheaper one among equals");
}

#[test]
fn spreading_goes_by_the_part_of_a_node_and_not_by_the_number_of_jobs() {
    let large: Box<dyn FnOnce(&mut Offer)> = Box::new(|offer| {
        offer.capabilities.cpu_milli = 16_000;
        offer.capabilities.memory_bytes = 64 << 30;
        offer.capabilities.slots = 16;
    });
    let (mut world, _) = world(vec![(36_000, plain()), (36_000, large)]);
    let jobs = submit_four(&mut world, Policy::Spread);
    assert_eq!(places(&world, &jobs), [2, 2, 2, 1], "a quarter of the one is a core, of the other four");
}

#[test]
fn an_image_that_is_there_decides_among_equals_and_for_the_fastest_before_the_price() {
    let name = "docker.io/library/tool:1";
    let (mut equal, _) = world(vec![(36_000, plain()), (36_000, with_image(name))]);
    let job = equal.submit("1", runs("tool:1"));
    assert_eq!(places(&equal, &[job]), [2], "by whatever name");
    let job = equal.submit("2", runs("tool:2"));
    assert_eq!(places(&equal, &[job]), [1], "another image is not there, and the first by name is as good");

    let (mut dearer, _) = world(vec![(36_000, plain()), (36_001, with_image(name))]);
    let job = dearer.submit("1", runs("tool:1"));
    assert_eq!(places(&dearer, &[job]), [1]);
    let job = dearer.submit("2", |spec| {
        runs("tool:1")(spec);
        spec.policy = Policy::Fastest;
    });
    assert_eq!(places(&dearer, &[job]), [2]);
}

#[test]
fn an_image_that_came_meanwhile_is_known_and_the_pinned_one_is_asked_for() {
    let (mut world, sessions) = world(vec![(36_000, plain()), (36_000, plain())]);
    let pin = format!("tool@sha256:{}", "a".repeat(64));
    let first = world.submit("1", runs("tool:1"));
    assert_eq!(places(&world, &[first]), [1]);
    world.report(first, sessions[0], ReportBody::Starting);
    world.report(first, sessions[0], ReportBody::Pinned { image: Text::cut(pin.as_str()) });
    let mut offer = world.control.node(node(2)).and_then(|node| node.offer.clone()).expect("an offer");
    offer.images = List::cut(vec![ImageMark::of("tool:1"), ImageMark::of(&pin)]);
    world.done(Command::OfferChanged { node: node(2), session: sessions[1], offer });
    let second = world.submit("2", runs("tool:1"));
    assert_eq!(places(&world, &[second]), [2]);
    let job = world.control.job(first).expect("open");
    assert_eq!(job.needs.image, Some(ImageMark::of(&pin)), "another attempt goes where just that image is");
}

#[test]
fn the_fastest_has_the_newest_gpus_and_then_the_most_to_itself() {
    let wants = |spec: &mut JobSpec| {
        spec.policy = Policy::Fastest;
        spec.requirements.gpus.count = 1;
    };
    let (mut gpus, _) = world(
        vec![(36_000, with_gpu("8.6")), (72_000, with_gpu("10.0")), (36_000, with_gpu("9.0"))]
            .into_iter()
            .take(2)
            .collect(),
    );
    let jobs = [gpus.submit("1", wants), gpus.submit("2", wants)];
    assert_eq!(places(&gpus, &jobs), [2, 1], "whatever it costs; then the other");

    let (mut mixed, _) = world(vec![(36_000, Box::new(with_old_and_new))]);
    let capped = mixed.submit("1", |spec| {
        wants(spec);
        spec.requirements.price_per_hour_max = Some(Micro(1_000_000));
    });
    assert_eq!(places(&mixed, &[capped]), [1], "the old one will do for whoever cannot pay for the new one");
    let rich = mixed.submit("2", wants);
    assert_eq!(places(&mixed, &[rich]), [1]);
    let of = |job| mixed.control.job(job).and_then(|job| job.placement()).map(|placement| &placement.reservation.gpus);
    assert_eq!(of(capped).map(|gpus| gpus[0].1.as_str()), Some("old"));
    assert_eq!(of(rich).map(|gpus| gpus[0].1.as_str()), Some("new"));

    let (mut cores, _) = world(vec![(36_000, plain()), (72_000, plain())]);
    let jobs = submit_four(&mut cores, Policy::Fastest);
    assert_eq!(places(&cores, &jobs), [1, 2, 1, 2]);
}
