//! What the machine does, case by case: inputs at whole seconds, and every action that follows, in words.

use modchain_types::{
    Adapter, Assignment, AttemptId, Capabilities, Digest, Ending, Exceptions, Fault, Fence, FenceClaim, GpuInfo,
    GpuRequest, Input as Stdin, ItemState, JobId, JobSpec, Limits, List, Map, Micro, OnDisconnect, OutputLengths,
    Policy, Reason, Report, ReportBody, Requirements, Reservation, Span, StopCause, Tariff, Task, TaskBody, Text,
    Timestamp, Usage, Verdict, WasmTask,
};

use super::{Action, Input, Recovered, Supervisor, SupervisorConfig, Survivor};

/// Feeds each step to a machine with room for two attempts and compares all of its actions.
fn check<'a>(steps: impl IntoIterator<Item = (u64, Input, &'a str)>) -> Supervisor {
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    check_from(&mut supervisor, steps);
    supervisor
}

fn check_from<'a>(supervisor: &mut Supervisor, steps: impl IntoIterator<Item = (u64, Input, &'a str)>) {
    for (index, (second, input, expected)) in steps.into_iter().enumerate() {
        let shown = format!("step {index} at {second} s, {input:?}");
        let actions = supervisor.handle(at(second), input);
        assert_eq!(words(&actions), expected, "{shown}");
    }
}

fn words(actions: &[Action]) -> String {
    let words: Vec<String> = actions.iter().map(word).collect();
    words.join("; ")
}

fn word(action: &Action) -> String {
    match action {
        Action::Resume { assignment, .. } => format!("resume {}", short(assignment.attempt)),
        Action::Begin(assignment) => format!("begin {}", short(assignment.attempt)),
        Action::Stop { attempt, grace } => format!("stop {} in {}s", short(*attempt), grace.0 / 1_000_000),
        Action::Record(report) => format!("record {}", told(report)),
        Action::Send(report) => format!("send {}", told(report)),
        Action::Discard { attempt } => format!("discard {}", short(*attempt)),
        Action::RememberFence(claim) => format!("fence {}", claim.fence.0),
    }
}

fn told(report: &Report) -> String {
    let what = match &report.body {
        ReportBody::Refused { message } => format!("refused: {message}"),
        ReportBody::Starting => "starting".into(),
        ReportBody::Preparing { message } => format!("preparing: {message}"),
        ReportBody::Pinned { image } => format!("pinned: {image}"),
        ReportBody::Started => "started".into(),
        ReportBody::Ended { ending, usage, .. } => {
            let ending = match ending {
                Ending::NodeFault { message } => format!("node fault: {message}"),
                Ending::CannotStart { fault, .. } => format!("cannot start: {fault:?}"),
                Ending::Exited { code } => format!("exited {code}"),
                other => format!("{other:?}"),
            };
            format!("{ending} after {}s", usage.ran.0 / 1_000_000)
        }
    };
    format!("{} {what}", short(report.attempt))
}

/// `a/1`: the job by the letter it was made of.
fn short(attempt: AttemptId) -> String {
    format!("{}/{}", char::from(attempt.job.0[0]), attempt.number)
}

fn at(second: u64) -> Timestamp {
    Timestamp(second * 1_000_000)
}

fn attempt(job: char, number: u32) -> AttemptId {
    AttemptId { job: JobId([job as u8; 16]), number }
}

fn capabilities() -> Capabilities {
    let gpu = |uuid: &str| GpuInfo {
        uuid: text(uuid),
        vendor: text("nvidia"),
        model: text("H100"),
        memory_bytes: 80 << 30,
        driver: Text::cut("570.1"),
        compute: Text::cut("9.0"),
    };
    Capabilities {
        adapters: List::cut(vec![Adapter::Wasm]),
        cpu_milli: 4_000,
        memory_bytes: 4 << 30,
        disk_bytes: 10 << 30,
        slots: 2,
        gpus: List::cut(vec![gpu("g0"), gpu("g1")]),
        models: List::default(),
        pullable: List::default(),
        exceptions: Exceptions::default(),
        container_gpus: false,
        labels: Map::default(),
        region: text("here"),
    }
}

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).expect("short")
}

fn gpus(uuids: &[&str]) -> List<(Text<64>, Text<64>), 64> {
    List::cut(uuids.iter().map(|uuid| (text(uuid), text("H100"))).collect())
}

/// An assignment of one core and one GiB without a run limit, changed by `odd`.
fn assign_with(job: char, number: u32, fence: u64, odd: impl FnOnce(&mut Assignment)) -> Input {
    let task = WasmTask {
        module: Digest([0; 32]),
        module_bytes: 1,
        module_name: text("m.wasm"),
        args: List::default(),
        env: Map::default(),
    };
    let reservation =
        Reservation { cpu_milli: 1_000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: List::default() };
    let spec = JobSpec {
        name: text(""),
        body: TaskBody::Inline(Task::Wasm(task)),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: reservation.cpu_milli,
            memory_bytes: reservation.memory_bytes,
            disk_bytes: reservation.disk_bytes,
            gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
            labels: Default::default(),
            region: None,
            node: None,
            price_per_hour_max: None,
            model: None,
            exceptions: Exceptions::default(),
        },
        limits: Limits::default(),
        max_cost: Micro::UNIT,
        priority: 0,
        labels: Map::default(),
        input: Stdin::None,
        policy: Policy::Cheapest,
    };
    let mut assignment = Assignment {
        attempt: attempt(job, number),
        claim: FenceClaim { fence: Fence(fence), mac: [0; 16] },
        spec,
        reservation,
        tariff: Tariff::default(),
        run_limit: Span::MAX,
        run_limit_reason: Reason::TimeLimit,
        image: None,
        output_tokens_max: None,
    };
    odd(&mut assignment);
    Input::Assign(Box::new(assignment))
}

fn assign(job: char, number: u32, fence: u64) -> Input {
    assign_with(job, number, fence, |_| {})
}

fn assign_limited(job: char, number: u32, fence: u64, seconds: u64) -> Input {
    assign_with(job, number, fence, |assignment| assignment.run_limit = Span::from_secs(seconds))
}

fn assign_leased(job: char, number: u32, fence: u64) -> Input {
    assign_with(job, number, fence, |assignment| assignment.spec.limits.on_disconnect = OnDisconnect::Stop)
}

fn connected(sent: u64) -> Input {
    Input::Connected { lease: Span::from_secs(30), sent: at(sent) }
}

fn answered(sent: u64) -> Input {
    Input::HeartbeatAnswered { sent: at(sent) }
}

fn started(job: char, number: u32) -> Input {
    Input::Started { attempt: attempt(job, number) }
}

/// Ended after running for `ran` seconds by the executor's watch.
fn ended(job: char, number: u32, ending: Ending, ran: u64) -> Input {
    let usage = Usage { ran: Span::from_secs(ran), ..Usage::default() };
    Input::Ended { attempt: attempt(job, number), ending, usage, output: OutputLengths::default() }
}

fn exited(job: char, number: u32, ran: u64) -> Input {
    ended(job, number, Ending::Exited { code: 0 }, ran)
}

fn stopped(job: char, number: u32, ran: u64) -> Input {
    ended(job, number, Ending::Stopped, ran)
}

fn stop(job: char, number: u32, fence: u64, grace: u64, cause: StopCause) -> Input {
    Input::Stop { attempt: attempt(job, number), fence: Fence(fence), grace: Span::from_secs(grace), cause }
}

fn verdict(job: char, number: u32, fence: u64, verdict: Verdict) -> Input {
    Input::Reconcile(vec![(attempt(job, number), Fence(fence), verdict)])
}

fn ack(job: char, number: u32, fence: u64) -> Input {
    Input::Ack { attempt: attempt(job, number), fence: Fence(fence) }
}

const TAKEN: &str = "fence 7; begin a/1; send a/1 starting";

#[test]
fn an_attempt_is_remembered_before_it_is_confirmed_and_forgotten_only_when_acknowledged() {
    let supervisor = check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (2, started('a', 1), "send a/1 started"),
        (2, started('a', 1), ""),
        (6, exited('a', 1, 4), "record a/1 exited 0 after 4s"),
        (6, exited('a', 1, 4), ""),
        (7, ack('a', 1, 6), ""),
    ]);
    assert_eq!((supervisor.live_attempts(), supervisor.unacknowledged().len()), (0, 1));
    let mut supervisor = supervisor;
    check_from(&mut supervisor, [(8, ack('a', 1, 7), "discard a/1"), (8, ack('a', 1, 7), "")]);
    assert_eq!(
        (supervisor.inventory(), supervisor.unacknowledged(), supervisor.next_deadline()),
        (vec![], vec![], None)
    );
}

#[test]
fn an_acknowledgement_never_ends_what_runs() {
    let supervisor = check([(0, connected(0), ""), (1, assign('a', 1, 7), TAKEN), (2, ack('a', 1, 7), "")]);
    assert_eq!(supervisor.live_attempts(), 1);
}

#[test]
fn the_same_assignment_again_starts_nothing_and_brings_the_result_if_there_is_one() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (1, assign('a', 1, 7), ""),
        (2, started('a', 1), "send a/1 started"),
        (3, assign('a', 1, 7), ""),
        (4, exited('a', 1, 2), "record a/1 exited 0 after 2s"),
        (5, assign('a', 1, 7), "send a/1 exited 0 after 2s"),
    ]);
}

#[test]
fn a_higher_fence_replaces_an_older_attempt_of_the_job_and_a_lower_one_is_ignored() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (2, started('a', 1), "send a/1 started"),
        (3, assign('a', 2, 9), "stop a/1 in 0s; fence 9; begin a/2; send a/2 starting"),
        (4, assign('a', 1, 7), ""),
        (4, assign('a', 3, 8), ""),
        (4, assign('a', 3, 9), ""),
        // The older one ends unseen, however it ended.
        (5, exited('a', 1, 3), "discard a/1"),
        (6, exited('a', 2, 0), "record a/2 exited 0 after 0s"),
        // A result that was never asked for goes with it.
        (7, assign('a', 3, 10), "discard a/2; fence 10; begin a/3; send a/3 starting"),
    ]);
}

#[test]
fn fences_of_different_jobs_are_independent() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (1, assign('b', 1, 5), "begin b/1; send b/1 starting"),
    ]);
}

#[test]
fn an_attempt_number_under_a_new_fence_waits_for_its_older_run() {
    let refused = "stop a/1 in 0s; fence 70; send a/1 refused: an older run of this attempt is still being stopped";
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (2, assign('a', 1, 70), refused),
        (3, stopped('a', 1, 0), "discard a/1"),
        (4, assign('a', 1, 70), "begin a/1; send a/1 starting"),
    ]);
}

#[test]
fn what_the_node_does_not_have_is_refused_with_a_reason() {
    type Odd = fn(&mut Assignment);
    let refusals: [(Odd, &str); 9] = [
        (|a| a.reservation.cpu_milli = 3_001, "needs 3001 thousandths of a core, 3000 of 4000 are free"),
        (
            |a| a.reservation.memory_bytes = (3 << 30) + 1,
            "needs 3221225473 bytes of memory, 3221225472 of 4294967296 are free",
        ),
        (
            |a| a.reservation.memory_bytes = u64::MAX,
            "needs 18446744073709551615 bytes of memory, 3221225472 of 4294967296 are free",
        ),
        (
            |a| a.reservation.disk_bytes = 10 << 30,
            "needs 10737418240 bytes of disk, 9663676416 of 10737418240 are free",
        ),
        (|a| a.reservation.gpus = gpus(&["g0"]), "GPU g0 is in use"),
        (|a| a.reservation.gpus = gpus(&["g1", "g1"]), "GPU g1 is in use"),
        (|a| a.reservation.gpus = gpus(&["g2"]), "this node has no GPU g2"),
        (
            |a| a.spec.body = TaskBody::Blob { digest: Digest([1; 32]), adapter: Adapter::Wasm },
            "the assignment came without its task",
        ),
        (
            |a| a.spec.limits.on_disconnect = OnDisconnect::Stop,
            "the lease has ended: the orchestrator was silent for too long",
        ),
    ];
    for (odd, why) in refusals {
        let mut supervisor =
            check([(0, connected(0), ""), (1, assign_with('a', 1, 7, |a| a.reservation.gpus = gpus(&["g0"])), TAKEN)]);
        let refused = format!("fence 8; send b/1 refused: {why}");
        check_from(&mut supervisor, [(40, assign_with('b', 1, 8, odd), refused.as_str())]);
        assert_eq!(supervisor.live_attempts(), 1, "{why}");
    }
    // What just fits is taken, and then every slot is in use.
    check([
        (0, connected(0), ""),
        (1, assign_with('a', 1, 7, |a| a.reservation.gpus = gpus(&["g0"])), TAKEN),
        (
            1,
            assign_with('b', 1, 8, |a| {
                a.reservation.cpu_milli = 3_000;
                a.reservation.memory_bytes = 3 << 30;
                a.reservation.disk_bytes = 9 << 30;
                a.reservation.gpus = gpus(&["g1"]);
            }),
            "fence 8; begin b/1; send b/1 starting",
        ),
        (
            1,
            assign_with('c', 1, 9, |a| a.reservation = Reservation::default()),
            "fence 9; send c/1 refused: all 2 slots are in use",
        ),
        // An ended attempt holds nothing, even before it is acknowledged.
        (
            2,
            ended('b', 1, Ending::CannotStart { fault: Fault::Node, message: text("x") }, 0),
            "record b/1 cannot start: Node after 0s",
        ),
        (3, assign('c', 1, 10), "fence 10; begin c/1; send c/1 starting"),
    ]);
}

#[test]
fn an_offer_that_changed_counts_for_later_assignments() {
    let mut supervisor = check([(0, connected(0), "")]);
    supervisor.set_capabilities(Capabilities { adapters: List::default(), ..capabilities() });
    check_from(&mut supervisor, [(1, assign('a', 1, 7), "fence 7; send a/1 refused: this node has no wasm executor")]);
}

#[test]
fn the_run_limit_counts_from_the_start_and_stops_with_grace() {
    let mut supervisor = check([
        (0, connected(0), ""),
        (1, assign_limited('a', 1, 7, 60), TAKEN),
        (50, started('a', 1), "send a/1 started"),
    ]);
    assert_eq!(supervisor.next_deadline(), Some(at(110)));
    check_from(
        &mut supervisor,
        [(109, Input::Tick, ""), (110, Input::Tick, "stop a/1 in 10s"), (111, Input::Tick, "")],
    );
    assert_eq!(supervisor.next_deadline(), None);
    check_from(&mut supervisor, [(115, stopped('a', 1, 65), "record a/1 RunLimit after 65s")]);
}

#[test]
fn a_client_that_gives_a_long_grace_gets_no_more_than_the_run_limit_and_its_grace() {
    let mut supervisor = check([
        (0, connected(0), ""),
        (0, assign_limited('a', 1, 7, 60), TAKEN),
        (0, started('a', 1), "send a/1 started"),
        (50, stop('a', 1, 7, 600, StopCause::Cancelled), "stop a/1 in 600s"),
    ]);
    assert_eq!(supervisor.next_deadline(), Some(at(60)));
    // Late by two seconds, which it does not get either.
    check_from(&mut supervisor, [(62, Input::Tick, "stop a/1 in 8s"), (63, Input::Tick, "")]);
    assert_eq!(supervisor.next_deadline(), None);
    check_from(&mut supervisor, [(70, stopped('a', 1, 70), "record a/1 Stopped after 70s")]);

    let supervisor = check([
        (0, connected(0), ""),
        (0, assign_limited('a', 1, 7, 60), TAKEN),
        (0, started('a', 1), "send a/1 started"),
        (50, stop('a', 1, 7, 15, StopCause::Cancelled), "stop a/1 in 15s"),
    ]);
    assert_eq!(supervisor.next_deadline(), None, "it is gone before that");
}

#[test]
fn an_attempt_that_ends_by_itself_keeps_its_own_ending() {
    for told in [stop('a', 1, 7, 10, StopCause::Cancelled), Input::Tick, Input::ShutDown { grace: Span::from_secs(10) }]
    {
        check([
            (0, connected(0), ""),
            (0, assign_limited('a', 1, 7, 5), TAKEN),
            (1, started('a', 1), "send a/1 started"),
            (6, told, "stop a/1 in 10s"),
            (7, exited('a', 1, 6), "record a/1 exited 0 after 6s"),
        ]);
    }
}

#[test]
fn the_end_of_an_attempt_is_heard_before_its_limit() {
    check([
        (0, connected(0), ""),
        (0, assign_limited('a', 1, 7, 5), TAKEN),
        (0, started('a', 1), "send a/1 started"),
        (9, exited('a', 1, 5), "record a/1 exited 0 after 5s"),
    ]);
}

#[test]
fn what_is_reported_as_run_is_never_longer_than_since_the_start() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (3, started('a', 1), "send a/1 started"),
        (5, exited('a', 1, 90), "record a/1 exited 0 after 2s"),
    ]);
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (5, stopped('a', 1, 90), "record a/1 node fault: stopped without being told to after 0s"),
    ]);
}

#[test]
fn a_cancelled_attempt_reports_that_it_was_stopped() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (2, stop('a', 1, 6, 5, StopCause::Cancelled), ""),
        (2, stop('b', 1, 7, 5, StopCause::Cancelled), ""),
        (2, stop('a', 1, 7, 5, StopCause::Cancelled), "stop a/1 in 5s"),
        // Said again after a reconnect: not slower, not twice.
        (3, stop('a', 1, 7, 5, StopCause::Cancelled), ""),
        (3, stop('a', 1, 7, 1, StopCause::Cancelled), "stop a/1 in 1s"),
        // It began just before the order reached it.
        (3, started('a', 1), "send a/1 started"),
        (4, stopped('a', 1, 1), "record a/1 Stopped after 1s"),
        (5, stop('a', 1, 7, 5, StopCause::Cancelled), ""),
    ]);
}

#[test]
fn a_void_attempt_ends_at_once_and_nobody_hears_of_it() {
    for (void, told) in [
        (stop('a', 1, 7, 2, StopCause::Superseded), "stop a/1 in 2s"),
        (stop('a', 1, 7, 0, StopCause::Overdue), "stop a/1 in 0s"),
        (verdict('a', 1, 7, Verdict::Kill), "stop a/1 in 0s"),
        (verdict('a', 1, 7, Verdict::Forget), "stop a/1 in 0s"),
    ] {
        check([
            (0, connected(0), ""),
            (1, assign('a', 1, 7), TAKEN),
            (2, stop('a', 1, 7, 30, StopCause::Cancelled), "stop a/1 in 30s"),
            (3, void.clone(), told),
            (3, started('a', 1), ""),
            (3, verdict('a', 1, 7, Verdict::Keep), ""),
            (4, exited('a', 1, 1), "discard a/1"),
        ]);
        check([
            (0, connected(0), ""),
            (1, assign('a', 1, 7), TAKEN),
            (2, exited('a', 1, 0), "record a/1 exited 0 after 0s"),
            (3, void, "discard a/1"),
        ]);
    }
}

#[test]
fn verdicts_are_carried_out_only_under_the_fence_they_name() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (2, verdict('a', 1, 6, Verdict::Kill), ""),
        (2, verdict('a', 2, 7, Verdict::Kill), ""),
        (2, verdict('a', 1, 7, Verdict::Keep), ""),
        (2, verdict('a', 1, 7, Verdict::SendResult), ""),
        (3, started('a', 1), "send a/1 started"),
        // The start may have been said into a connection that was not open yet.
        (3, verdict('a', 1, 7, Verdict::Keep), "send a/1 started"),
        (4, exited('a', 1, 1), "record a/1 exited 0 after 1s"),
        (4, verdict('a', 1, 7, Verdict::Keep), "send a/1 exited 0 after 1s"),
        (4, verdict('a', 1, 7, Verdict::SendResult), "send a/1 exited 0 after 1s"),
        (4, verdict('a', 1, 6, Verdict::Forget), ""),
        (4, verdict('a', 1, 7, Verdict::Forget), "discard a/1"),
    ]);
}

#[test]
fn a_leased_attempt_ends_with_its_lease_counted_from_the_sending_of_the_last_answered_heartbeat() {
    let mut supervisor = check([
        (2, connected(1), ""),
        (2, assign_leased('a', 1, 7), TAKEN),
        (3, started('a', 1), "send a/1 started"),
        (10, answered(6), ""),
        // Answers that overtook one another do not shorten it.
        (10, answered(4), ""),
        (12, Input::Disconnected, ""),
    ]);
    assert_eq!(supervisor.next_deadline(), Some(at(36)));
    check_from(&mut supervisor, [(35, Input::Tick, ""), (36, Input::Tick, "stop a/1 in 0s")]);
    assert_eq!(supervisor.next_deadline(), None);
    check_from(
        &mut supervisor,
        [(37, stopped('a', 1, 34), "record a/1 LeaseEnded after 34s"), (60, connected(59), "")],
    );
    assert_eq!(supervisor.inventory()[0].state, ItemState::Ended);
}

#[test]
fn an_ended_lease_is_not_brought_back_by_the_answer_to_an_old_heartbeat() {
    for late in [answered(29), connected(39)] {
        check([(0, connected(0), ""), (0, assign_leased('a', 1, 7), TAKEN), (40, late, "stop a/1 in 0s")]);
    }
}

#[test]
fn the_end_of_the_lease_cuts_a_longer_grace_short() {
    let mut supervisor = check([
        (0, connected(0), ""),
        (0, assign_leased('a', 1, 7), TAKEN),
        (25, stop('a', 1, 7, 60, StopCause::Cancelled), "stop a/1 in 60s"),
        (30, Input::Tick, "stop a/1 in 0s"),
        (31, Input::Tick, ""),
    ]);
    assert_eq!(supervisor.next_deadline(), None);
    check_from(&mut supervisor, [(32, stopped('a', 1, 0), "record a/1 Stopped after 0s")]);
}

#[test]
fn attempts_that_keep_going_have_no_limit_but_their_own() {
    let supervisor = check([
        (0, connected(0), ""),
        (0, assign('a', 1, 7), TAKEN),
        (1, started('a', 1), "send a/1 started"),
        (2, Input::Disconnected, ""),
        (1_000_000, Input::Tick, ""),
    ]);
    assert_eq!(supervisor.live_attempts(), 1);
}

#[test]
fn a_shutdown_stops_what_runs_and_takes_nothing_new() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (1, assign('b', 1, 8), "fence 8; begin b/1; send b/1 starting"),
        (2, started('a', 1), "send a/1 started"),
        (3, stop('b', 1, 8, 5, StopCause::Cancelled), "stop b/1 in 5s"),
        (3, Input::ShutDown { grace: Span::from_secs(3) }, "stop a/1 in 3s; stop b/1 in 3s"),
        (4, assign('c', 1, 9), "fence 9; send c/1 refused: this agent is shutting down"),
        (5, stopped('a', 1, 3), "record a/1 node fault: agent shut down after 3s"),
        // The client's wish came first.
        (5, stopped('b', 1, 0), "record b/1 Stopped after 0s"),
    ]);
}

#[test]
fn an_eviction_ends_what_runs_as_the_nodes_fault_and_leaves_the_door_open() {
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 7), TAKEN),
        (1, assign('b', 1, 8), "fence 8; begin b/1; send b/1 starting"),
        (2, started('a', 1), "send a/1 started"),
        (3, stop('b', 1, 8, 5, StopCause::Cancelled), "stop b/1 in 5s"),
        (3, Input::Evict { grace: Span::from_secs(9) }, "stop a/1 in 9s"),
        (5, stopped('a', 1, 3), "record a/1 node fault: its node was drained by its owner after 3s"),
        // The client's wish came first.
        (5, stopped('b', 1, 0), "record b/1 Stopped after 0s"),
        (6, assign('c', 1, 9), "fence 9; begin c/1; send c/1 starting"),
    ]);
}

#[test]
fn what_crosses_the_owners_pause_is_refused_until_the_pause_is_over() {
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    supervisor.handle(at(0), connected(0));
    supervisor.handle(at(1), assign('a', 1, 7));
    supervisor.set_paused(true);
    assert_eq!(supervisor.live_attempts(), 1, "what runs goes on");
    let refused = supervisor.handle(at(2), assign('b', 1, 8));
    let is_refusal = |action: &Action| matches!(action, Action::Send(Report { body: ReportBody::Refused { .. }, .. }));
    assert!(refused.iter().any(is_refusal) && supervisor.live_attempts() == 1, "{refused:?}");
    supervisor.set_paused(false);
    supervisor.handle(at(3), assign('c', 1, 9));
    assert_eq!(supervisor.live_attempts(), 2);
}

#[test]
fn after_a_restart_lost_attempts_are_recorded_as_the_nodes_fault_and_results_are_kept() {
    let output = OutputLengths { stdout: 5, stderr: 0, dropped: 0 };
    let result = Report {
        attempt: attempt('b', 2),
        fence: Fence(8),
        body: ReportBody::Ended { ending: Ending::Exited { code: 3 }, usage: Usage::default(), output },
    };
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    let actions = supervisor.recover(
        at(0),
        vec![
            Recovered { attempt: attempt('a', 1), fence: Fence(9), result: None, survivor: None, output },
            Recovered {
                attempt: attempt('b', 2),
                fence: Fence(8),
                result: Some(result.clone()),
                survivor: None,
                output,
            },
        ],
    );
    assert_eq!(words(&actions), "record a/1 node fault: agent restarted while it ran after 0s");
    let Action::Record(Report { body: ReportBody::Ended { output: kept, .. }, .. }) = &actions[0] else {
        panic!("not a result: {actions:?}");
    };
    assert_eq!(*kept, output);
    assert!(supervisor.unacknowledged().contains(&result));
    assert!(supervisor.inventory().iter().all(|item| item.state == ItemState::Ended));
    check_from(
        &mut supervisor,
        [
            (1, connected(0), ""),
            (2, verdict('a', 1, 9, Verdict::SendResult), "send a/1 node fault: agent restarted while it ran after 0s"),
            (2, verdict('b', 2, 8, Verdict::Forget), "discard b/2"),
            // The highest fence was found on the disk.
            (3, assign('c', 1, 9), "begin c/1; send c/1 starting"),
        ],
    );
}

/// A container that the agent found again: assigned under the fence, and running since that second.
fn survivor(job: char, fence: u64, since: u64, odd: impl FnOnce(&mut Assignment)) -> Recovered {
    let Input::Assign(assignment) = assign_with(job, 1, fence, odd) else { unreachable!("it is one") };
    let survivor = Some(Survivor { assignment, since: at(since) });
    let output = OutputLengths::default();
    Recovered { attempt: attempt(job, 1), fence: Fence(fence), result: None, survivor, output }
}

#[test]
fn what_survived_a_restart_goes_on_under_its_fence_and_its_limit_goes_on_where_it_was() {
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    let limited = survivor('a', 9, 5, |assignment| assignment.run_limit = Span::from_secs(60));
    assert_eq!(words(&supervisor.recover(at(20), vec![limited])), "resume a/1");
    assert_eq!(supervisor.inventory()[0].state, ItemState::Running);
    assert_eq!(supervisor.next_deadline(), Some(at(65)));
    check_from(
        &mut supervisor,
        [
            (21, connected(20), ""),
            (22, verdict('a', 1, 9, Verdict::Keep), "send a/1 started"),
            (23, assign('a', 1, 9), ""),
            (65, Input::Tick, "stop a/1 in 10s"),
            (66, stopped('a', 1, 61), "record a/1 RunLimit after 61s"),
        ],
    );
}

#[test]
fn what_was_to_end_with_its_lease_does_not_survive_its_agent() {
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    let leased = survivor('a', 9, 5, |assignment| assignment.spec.limits.on_disconnect = OnDisconnect::Stop);
    assert_eq!(words(&supervisor.recover(at(20), vec![leased])), "resume a/1; stop a/1 in 0s");
    check_from(&mut supervisor, [(21, stopped('a', 1, 16), "record a/1 LeaseEnded after 16s")]);
}

#[test]
fn a_result_on_disk_counts_more_than_a_container_that_is_still_there() {
    let mut supervisor = Supervisor::new(SupervisorConfig { capabilities: capabilities() });
    let ended = ReportBody::Ended {
        ending: Ending::Exited { code: 0 },
        usage: Usage::default(),
        output: OutputLengths::default(),
    };
    let result = Some(Report { attempt: attempt('a', 1), fence: Fence(9), body: ended });
    let found = Recovered { result, ..survivor('a', 9, 5, |_| {}) };
    assert_eq!(words(&supervisor.recover(at(20), vec![found])), "");
    assert_eq!(supervisor.inventory()[0].state, ItemState::Ended);
}

#[test]
fn what_an_image_name_means_is_said_before_the_start_and_again_to_a_new_connection() {
    let pinned = || Input::Pinned { attempt: attempt('a', 1), image: text("alpine@sha256:00") };
    let preparing = || Input::Preparing { attempt: attempt('a', 1), message: text("3 of 7 layers") };
    check([
        (0, connected(0), ""),
        (1, assign('a', 1, 9), "fence 9; begin a/1; send a/1 starting"),
        (2, preparing(), "send a/1 preparing: 3 of 7 layers"),
        (3, pinned(), "send a/1 pinned: alpine@sha256:00"),
        (4, started('a', 1), "send a/1 started"),
        (5, preparing(), ""),
        (6, verdict('a', 1, 9, Verdict::Keep), "send a/1 pinned: alpine@sha256:00; send a/1 started"),
        (7, exited('a', 1, 3), "record a/1 exited 0 after 3s"),
        (8, pinned(), ""),
    ]);
}
