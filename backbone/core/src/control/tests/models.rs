//! Language models and images: where their jobs go, what they cost, and what a name means for all attempts of a job.

use super::*;
use modchain_types::{DockerTask, Fault, LlmKind, LlmTask, ModelInfo};

const MODEL: &str = "smollm2:135m";

fn asks(spec: &mut JobSpec) {
    spec.body = TaskBody::Inline(Task::Llm(LlmTask {
        model: Text::cut(MODEL),
        request: Digest([1; 32]),
        request_bytes: 100,
        kind: LlmKind::Generate,
        temperature_milli: None,
        max_tokens: None,
        seed: None,
        json: false,
    }));
    spec.requirements.adapter = Adapter::Llm;
    spec.requirements.model = Some(Text::cut(MODEL));
}

fn runs_image(spec: &mut JobSpec) {
    spec.body = TaskBody::Inline(Task::Docker(DockerTask {
        image: Text::cut("tool:1"),
        command: List::default(),
        entrypoint: None,
        env: Map::default(),
        workdir: None,
        tmp_bytes: DockerTask::TMP_BYTES_DEFAULT,
        pids_max: DockerTask::PIDS_DEFAULT,
        pull_timeout: DockerTask::PULL_TIMEOUT_DEFAULT,
    }));
    spec.requirements.adapter = Adapter::Docker;
}

impl World {
    /// Connects a node with every executor and this change of its offer.
    fn connect_offering(&mut self, number: u8, price: u64, change: impl FnOnce(&mut Offer)) -> SessionId {
        let mut arrival = Self::arrival(number, price);
        let adapters = vec![Adapter::Wasm, Adapter::Docker, Adapter::Llm];
        arrival.offer.capabilities.adapters = List::new(adapters).expect("few");
        change(&mut arrival.offer);
        let (session, reply) = self.connect_with(node(number), arrival);
        assert_eq!(reply, Reply::Welcome);
        session
    }

    fn placed_on(&self, job: JobId) -> Option<NodeId> {
        self.control.job(job).and_then(Job::placement).map(|placement| placement.node)
    }
}

fn holding(warm: bool) -> impl FnOnce(&mut Offer) {
    move |offer| {
        let model = ModelInfo { name: Text::cut(MODEL), digest: Text::cut("ab"), bytes: 1, warm };
        offer.capabilities.models = List::new(vec![model]).expect("few");
    }
}

fn pulling(pattern: &'static str) -> impl FnOnce(&mut Offer) {
    move |offer| offer.capabilities.pullable = List::new(vec![Text::cut(pattern)]).expect("few")
}

#[test]
fn a_model_that_is_there_goes_before_one_to_be_pulled_and_a_warm_one_before_a_cold_one_of_the_same_price() {
    let mut world = World::new();
    world.connect_offering(1, 10, pulling("smollm2*"));
    world.connect_offering(2, 36_000, holding(false));
    let cold = world.submit("cold", asks);
    assert_eq!(world.placed_on(cold), Some(node(2)), "although the other is cheaper");

    let mut world = World::new();
    world.connect_offering(1, 36_000, holding(false));
    world.connect_offering(2, 36_000, holding(true));
    let warm = world.submit("warm", asks);
    assert_eq!(world.placed_on(warm), Some(node(2)));

    let mut world = World::new();
    world.connect_offering(1, 36_000, holding(false));
    world.connect_offering(2, 36_001, holding(true));
    let cheap = world.submit("cheap", asks);
    assert_eq!(world.placed_on(cheap), Some(node(1)), "warmth decides among equals only");

    let mut world = World::new();
    world.connect_offering(1, 36_000, pulling(MODEL));
    let pulled = world.submit("pulled", asks);
    assert_eq!(world.placed_on(pulled), Some(node(1)));
}

#[test]
fn where_no_owner_lets_a_model_be_pulled_its_job_waits_and_says_so() {
    let mut world = World::new();
    world.connect_offering(1, 36_000, pulling("llama3*"));
    world.connect(2, 36_000);
    let job = world.submit("k", asks);
    assert_eq!(world.placed_on(job), None);
    let fits = world.control.fitness(world.now, world.control.spec(job).expect("waits"));
    let reasons: Vec<_> = fits.iter().map(|fit| fit.reasons.join("; ")).collect();
    let no_model = "it does not hold the model smollm2:135m, and its owner does not let it be pulled";
    assert_eq!(reasons, [no_model.to_owned(), format!("it does not run llm jobs; {no_model}")]);
    assert!(fits.iter().all(|fit| !fit.may_pass), "waiting does not help");
    // It starts as soon as a node has it.
    let session = world.connect_offering(1, 36_000, |_| {});
    let mut offer = world.control.node(node(1)).and_then(|node| node.offer.clone()).expect("an offer");
    holding(true)(&mut offer);
    world.done(Command::OfferChanged { node: node(1), session, offer });
    assert_eq!(world.placed_on(job), Some(node(1)));
}

#[test]
fn tokens_are_paid_within_what_the_texts_that_went_through_can_have() {
    let mut world = World::new();
    let priced = |offer: &mut Offer| {
        holding(true)(offer);
        offer.tariff.core_hour = Micro::ZERO;
        offer.tariff.minimum = Micro::ZERO;
        offer.tariff.million_prompt_tokens = Micro(1_000_000);
        offer.tariff.million_output_tokens = Micro(10_000_000);
    };
    let session = world.connect_offering(1, 0, priced);
    let bill = |world: &mut World, key: &str, prompt: u64, output: u64, stdout: u64| {
        let job = world.submit(key, asks);
        let told = world.sent().into_iter().find_map(|(_, message)| match message {
            NodeMessage::Assign(assignment) => assignment.output_tokens_max,
            _ => None,
        });
        assert_eq!(told, Some(HOLD / 10), "what the hold pays for at 10 micro-units a token");
        world.run(job, session);
        let usage = Usage { prompt_tokens: prompt, output_tokens: output, ..Usage::default() };
        let lengths = OutputLengths { stdout, stderr: 0, dropped: 0 };
        let placement = world.control.job(job).and_then(Job::placement).expect("placed").clone();
        let (attempt, fence) = (placement.attempt, placement.fence);
        world.done(Command::OutputStored { attempt, fence, stored: lengths });
        let ended = ReportBody::Ended { ending: Ending::Exited { code: 0 }, usage, output: lengths };
        world.report(job, session, ended);
        let (outcome, settlement) = world.finished(job);
        (outcome.usage.prompt_tokens, outcome.usage.output_tokens, settlement.gross.0)
    };
    assert_eq!(bill(&mut world, "honest", 30, 50, 200), (30, 50, 530));
    // A request of 100 bytes has no million tokens, and 200 bytes of answer no thousand.
    assert_eq!(bill(&mut world, "greedy", 1_000_000, 1_000, 200), (2_148, 200, 4_148));
    assert_eq!(bill(&mut world, "silent", 10, 1_000, 0), (10, 0, 10));
}

#[test]
fn tokens_are_paid_only_to_nodes_that_asked_a_model_and_for_text_that_is_here() {
    let mut world = World::new();
    let priced = |offer: &mut Offer| {
        holding(true)(offer);
        offer.tariff.core_hour = Micro::ZERO;
        offer.tariff.minimum = Micro::ZERO;
        offer.tariff.million_prompt_tokens = Micro(1_000_000_000_000);
        offer.tariff.million_output_tokens = Micro(1_000_000_000_000);
    };
    let session = world.connect_offering(1, 0, priced);
    let usage = Usage { prompt_tokens: u64::MAX, output_tokens: u64::MAX, ..Usage::default() };
    let lengths = |stdout, dropped| OutputLengths { stdout, stderr: 0, dropped };
    let ended = |output| ReportBody::Ended { ending: Ending::Exited { code: 0 }, usage, output };
    let stored = |world: &mut World, job, stored| {
        let item = world.item(job, ItemState::Ended);
        world.done(Command::OutputStored { attempt: item.attempt, fence: item.fence, stored });
    };
    // A module has no tokens, whatever it prints.
    let module = world.submit("module", |_| {});
    world.run(module, session);
    stored(&mut world, module, lengths(1_000, 0));
    world.report(module, session, ended(lengths(1_000, 0)));
    assert_eq!(world.finished(module).1.gross, Micro::ZERO);
    let unasked = |spec: &mut JobSpec| {
        asks(spec);
        if let TaskBody::Inline(Task::Llm(task)) = &mut spec.body {
            task.request_bytes = 0;
        }
    };
    // What is said to have been dropped is nowhere to be seen.
    let dropped = world.submit("dropped", unasked);
    world.run(dropped, session);
    stored(&mut world, dropped, lengths(0, u64::MAX));
    world.report(dropped, session, ended(lengths(0, u64::MAX)));
    assert_eq!(world.finished(dropped).1.gross, Micro::ZERO);
    // Nor is what never comes.
    let never = world.submit("never", unasked);
    world.run(never, session);
    world.report(never, session, ended(lengths(u64::MAX / 4, 0)));
    world.wait_heard(Span::from_secs(60), node(1), session);
    assert_eq!((world.fate(never).0, world.finished(never).1.gross), (JobState::Completed, Micro::ZERO));
}

#[test]
fn an_answer_that_is_cut_because_the_hold_pays_for_no_more_tokens_has_used_up_its_budget() {
    let mut world = World::new();
    let priced = |offer: &mut Offer| {
        holding(true)(offer);
        offer.tariff.million_output_tokens = Micro(1_000_000_000);
    };
    let session = world.connect_offering(1, 0, priced);
    for (key, tokens, reason) in [("all", HOLD / 1_000, Reason::Budget), ("fewer", 5, Reason::TimeLimit)] {
        let job = world.submit(key, |spec| {
            asks(spec);
            spec.limits.time_limit = Some(Span::from_secs(60));
        });
        world.run(job, session);
        let lengths = OutputLengths { stdout: 1_000, stderr: 0, dropped: 0 };
        let placement = world.control.job(job).and_then(Job::placement).expect("placed").clone();
        world.done(Command::OutputStored { attempt: placement.attempt, fence: placement.fence, stored: lengths });
        let usage = Usage { output_tokens: tokens, ..Usage::default() };
        world.report(job, session, ReportBody::Ended { ending: Ending::RunLimit, usage, output: lengths });
        assert_eq!((world.fate(job).0, world.fate(job).1), (JobState::TimedOut, reason), "{key}");
    }
}

#[test]
fn the_first_meaning_of_an_image_name_is_the_one_of_every_attempt() {
    let mut world = World::new();
    let first = world.connect_offering(1, 36_000, |_| {});
    let second = world.connect_offering(2, 72_000, |_| {});
    let job = world.submit("k", runs_image);
    let image_of = |sent: &[(NodeId, NodeMessage)]| {
        let mut assigned = sent.iter().filter_map(|(_, message)| match message {
            NodeMessage::Assign(assignment) => Some(assignment.image.clone()),
            _ => None,
        });
        assigned.next_back().expect("assigned")
    };
    assert_eq!(image_of(&world.sent()), None);
    let pin = Text::cut("tool@sha256:11");
    world.report(job, first, ReportBody::Starting);
    world.report(job, first, ReportBody::Preparing { message: Text::cut("pulling") });
    world.report(job, first, ReportBody::Pinned { image: pin.clone() });
    world.report(job, first, ReportBody::Started);
    world.report(job, first, ReportBody::Pinned { image: Text::cut("tool@sha256:22") });
    world.report(job, first, World::ended(Ending::NodeFault { message: Text::default() }, Span::ZERO));
    assert_eq!(image_of(&world.sent()), Some(pin.clone()), "the next attempt is told");
    assert_eq!(world.placed_on(job), Some(node(2)));
    world.report(job, second, ReportBody::Pinned { image: Text::cut("tool@sha256:33") });
    assert_eq!(world.control.job(job).and_then(|job| job.image.clone()), Some(pin.clone()));
    assert_eq!(world.replayed().job(job).and_then(|job| job.image.clone()), Some(pin));
}

#[test]
fn a_missing_image_and_a_missing_command_cost_nothing_and_have_their_own_codes() {
    let mut world = World::new();
    let session = world.connect_offering(1, 36_000, |_| {});
    for (key, fault, reason, code) in
        [("i", Fault::NotFound, Reason::NotFound, 126), ("c", Fault::Command, Reason::CommandNotFound, 127)]
    {
        let job = world.submit(key, runs_image);
        world.report(job, session, ReportBody::Starting);
        let ending = Ending::CannotStart { fault, message: Text::cut("no such thing") };
        world.report(job, session, World::ended(ending, Span::ZERO));
        assert_eq!(world.fate(job), (JobState::Failed, reason, 0));
        assert_eq!(world.finished(job).0.exit.code, code);
    }
    let job = world.submit("p", runs_image);
    world.run(job, session);
    world.report(job, session, World::ended(Ending::PidsLimit { code: 2 }, Span::ZERO));
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Pids, 1_000), "it ran: the minimum");
    assert_eq!(world.finished(job).0.exit, modchain_types::Exit { code: 2, from: modchain_types::ExitFrom::Limit });
}

#[test]
fn an_image_that_cannot_be_pulled_costs_its_own_job_its_attempts_and_others_nothing() {
    let mut world = World::new();
    let session = world.connect_offering(1, 36_000, |_| {});
    let bad = world.submit("bad", runs_image);
    for attempt in 1..=3 {
        assert_eq!(world.control.job(bad).and_then(Job::placement).map(|p| p.attempt.number), Some(attempt));
        world.report(bad, session, ReportBody::Starting);
        let ending = Ending::CannotStart { fault: Fault::Node, message: Text::cut("no such host") };
        world.report(bad, session, World::ended(ending, Span::ZERO));
        // Whoever comes in between is placed at once.
        let other = world.submit(&format!("other-{attempt}"), |spec| spec.requirements.cpu_milli = 100);
        assert_eq!(world.placed_on(other), Some(node(1)));
    }
    assert_eq!(world.fate(bad), (JobState::Failed, Reason::Attempts, 0));
    let exit = world.finished(bad).0.exit;
    assert_eq!(exit, modchain_types::Exit { code: 126, from: modchain_types::ExitFrom::Node }, "it never ran");
}

#[test]
fn what_goes_beyond_the_sandbox_runs_only_where_the_owner_allows_it() {
    let mut world = World::new();
    world.connect_offering(1, 36_000, |_| {});
    let asks = |exceptions: Exceptions| {
        move |spec: &mut JobSpec| {
            runs_image(spec);
            spec.requirements.exceptions = exceptions;
        }
    };
    let (writable_root, network) = (true, true);
    let job = world.submit("k", asks(Exceptions { writable_root, network }));
    let fits = world.control.fitness(world.now, world.control.spec(job).expect("waits"));
    assert_eq!(
        fits[0].reasons,
        ["its owner does not allow containers a writable root", "its owner does not allow containers a network"]
    );
    world.connect_offering(2, 36_000, |offer| offer.capabilities.exceptions = Exceptions { writable_root, network });
    assert_eq!(world.placed_on(job), Some(node(2)));
    // GPUs only where the engine can hand them on.
    let gpu = |offer: &mut Offer, handed_on: bool| {
        let gpu = modchain_types::GpuInfo {
            uuid: Text::cut("GPU-1"),
            vendor: Text::default(),
            model: Text::default(),
            memory_bytes: 1,
            driver: Text::default(),
            compute: Text::default(),
        };
        offer.capabilities.gpus = List::new(vec![gpu]).expect("few");
        offer.capabilities.container_gpus = handed_on;
    };
    world.connect_offering(1, 36_000, |offer| gpu(offer, false));
    let with_gpu = world.submit("g", |spec| {
        runs_image(spec);
        spec.requirements.gpus.count = 1;
    });
    let fits = world.control.fitness(world.now, world.control.spec(with_gpu).expect("waits"));
    let first = fits.iter().find(|fit| fit.node == node(1)).expect("known");
    assert_eq!(first.reasons, ["its container engine gives containers no GPUs"]);
    world.connect_offering(1, 36_000, |offer| gpu(offer, true));
    assert_eq!(world.placed_on(with_gpu), Some(node(1)));
    // And not for other executors.
    let refused = JobSpec {
        requirements: Requirements { exceptions: Exceptions { writable_root, network: false }, ..spec().requirements },
        ..spec()
    };
    let what = "only containers can have a writable root or a network".into();
    assert_eq!(world.submit_as("alice", "w", refused), Reply::Refused(Refused::Invalid { what }));
}
