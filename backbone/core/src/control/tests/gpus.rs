//! Which GPUs a job gets, and what it pays for them.

use super::*;

const H100: &str = "NVIDIA H100 80GB HBM3";
const L4: &str = "NVIDIA L4";

fn gpu(uuid: &str, model: &str, gib: u64) -> GpuInfo {
    GpuInfo {
        uuid: Text::cut(uuid),
        vendor: Text::cut("nvidia"),
        model: Text::cut(model),
        memory_bytes: gib << 30,
        driver: Text::cut("570.1"),
        compute: Text::cut("9.0"),
    }
}

/// A node with these GPUs: an H100 costs 2.00 for an hour, any other 0.50, and cores are free.
fn connect(world: &mut World, number: u8, gpus: Vec<GpuInfo>) -> SessionId {
    let mut arrival = World::arrival(number, 0);
    arrival.offer.capabilities.gpus = List::new(gpus).expect("few");
    let prices = BTreeMap::from([(Text::cut(H100), Micro(2_000_000)), (Text::cut("*"), Micro(500_000))]);
    arrival.offer.tariff.gpu_hour = Map::new(prices).expect("few");
    let (session, reply) = world.connect_with(node(number), arrival);
    assert_eq!(reply, Reply::Welcome);
    session
}

fn wants(count: u32, gib: u64, model: Option<&str>) -> impl FnOnce(&mut JobSpec) {
    let asked = GpuRequest { count, memory_bytes_min: gib << 30, model: model.map(Text::cut) };
    |spec| spec.requirements.gpus = asked
}

fn holds(world: &World, job: JobId) -> Vec<String> {
    let placement = world.control.job(job).and_then(Job::placement).expect("placed");
    placement.reservation.gpus.iter().map(|(uuid, _)| uuid.to_string()).collect()
}

fn reasons(world: &World, job: JobId) -> Vec<String> {
    let fits = world.control.fitness(world.now, world.control.spec(job).expect("open"));
    fits.into_iter().find(|fit| fit.node == node(1)).expect("the node is judged").reasons
}

#[test]
fn a_gpu_belongs_to_one_attempt_at_a_time_and_the_next_job_waits_for_it() {
    let mut world = World::new();
    let session = connect(&mut world, 1, vec![gpu("GPU-a", H100, 80), gpu("GPU-b", H100, 80)]);
    let (first, second) = (world.submit("1", wants(1, 0, None)), world.submit("2", wants(1, 0, None)));
    let third = world.submit("3", wants(1, 0, None));
    let mut held = [holds(&world, first), holds(&world, second)].concat();
    held.sort();
    assert_eq!(held, ["GPU-a", "GPU-b"]);
    assert_eq!(world.state(third), JobState::Queued);
    assert_eq!(reasons(&world, third), ["GPUs: 1 asked, 0 free now"]);
    let none = world.submit("4", |_| {});
    assert_eq!(world.state(none), JobState::Assigned, "who asks for none does not wait");
    let freed = holds(&world, second);
    world.run(second, session);
    world.report(second, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    assert_eq!(world.state(second), JobState::Completed);
    assert_eq!((world.state(third), holds(&world, third)), (JobState::Assigned, freed));
}

#[test]
fn memory_and_model_choose_and_what_no_node_has_is_said() {
    let mut world = World::new();
    connect(&mut world, 1, vec![gpu("GPU-l4", L4, 24), gpu("GPU-h100", H100, 80)]);
    let by_model = world.submit("model", wants(1, 0, Some("h100")));
    assert_eq!(holds(&world, by_model), ["GPU-h100"], "any case, any part of the name");
    let big = world.submit("big", wants(1, 40, None));
    assert_eq!(reasons(&world, big), ["GPUs: 1 asked, 0 free now"], "the only one with so much memory is taken");
    let unknown = world.submit("unknown", wants(1, 0, Some("MI300")));
    assert_eq!(reasons(&world, unknown), ["GPUs: 1 asked, it has 0 that match"]);
    let too_many = world.submit("many", wants(3, 0, None));
    assert_eq!(reasons(&world, too_many), ["GPUs: 3 asked, it has 2 that match"]);
    let small = world.submit("small", wants(1, 24, None));
    assert_eq!(holds(&world, small), ["GPU-l4"], "just enough is enough");
}

#[test]
fn each_model_has_its_price_and_who_names_none_gets_the_cheapest() {
    let mut world = World::new();
    // The dear ones come first by their ids.
    let gpus = vec![gpu("GPU-a", H100, 80), gpu("GPU-b", H100, 80), gpu("GPU-c", L4, 24)];
    let session = connect(&mut world, 1, gpus);
    let price = |world: &World, job: JobId| {
        let placement = world.control.job(job).and_then(Job::placement).expect("placed");
        crate::meter::price_per_hour(&placement.tariff, &placement.reservation)
    };
    let (any, dear) = (world.submit("any", wants(1, 0, None)), world.submit("dear", wants(2, 0, Some("H100"))));
    assert_eq!((holds(&world, any), price(&world, any)), (vec!["GPU-c".to_owned()], Micro(500_000)));
    assert_eq!((holds(&world, dear).len(), price(&world, dear)), (2, Micro(4_000_000)));
    for job in [any, dear] {
        world.run(job, session);
    }
    world.wait_heard(Span::from_secs(36), node(1), session);
    for (job, cost) in [(any, 5_000), (dear, 40_000)] {
        world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(36)));
        assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, cost));
    }
    let capped = world.submit("capped", |spec| {
        wants(1, 0, Some("H100"))(spec);
        spec.requirements.price_per_hour_max = Some(Micro(1_000_000));
    });
    assert_eq!(reasons(&world, capped), ["price: 2.00 per hour is over the cap of 1.00"]);
}
