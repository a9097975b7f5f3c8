//! Every reader of this crate against mutants of honest messages, and against the bombs in `corpus/bombs`. How to run it for
//! longer: `README.md` of `modchain-fuzz`.

mod targets;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use modchain_fuzz::{Counting, Fuzz, read_bombs, read_hex, spend};
use modchain_types::{
    Adapter, Capabilities, Exceptions, Fence, GpuInfo, List, Map, Micro, ModelInfo, Offer, Span, Tariff, TaskBody,
    Text, Timestamp, WallTime,
};
use modchain_wire::agent::{GpuSample, GpuTick, Heartbeat, HostLoad, OfferChanged};
use modchain_wire::console::{JobsPage, NodesPage};
use modchain_wire::view::AttemptView;
use modchain_wire::{
    FRAME_HEADER_BYTES, FromAgent, FromConsole, FromJoiner, Message, ToAgent, ToConsole, ToJoiner, WireError,
    decode_task, encode_task,
};
use targets::{SLACK_BYTES, memory_of_cap};

#[global_allocator]
static MEMORY: Counting = Counting;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn golden_frames(direction: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(tests().join("golden").join(direction))
        .expect("the golden folder")
        .map(|entry| entry.expect("listed").path())
        .collect();
    files.sort();
    files.iter().map(|file| read_hex(&std::fs::read_to_string(file).expect("a golden file"))).collect()
}

/// A golden frame without its length and version.
fn without_length(frame: Vec<u8>) -> Vec<u8> {
    frame[FRAME_HEADER_BYTES - 1..].to_vec()
}

fn fuzz(target: &str) -> Fuzz {
    Fuzz::target(target)
        .corpus(tests().join("corpus").join(target))
        .words(&[&b"j-"[..], b"rig-1", b"\x01\x00", b"\x00\x01", b"\xfb\xff\xff", b"\xc3\xa4", b"\xff"])
        .executions(30_000)
        .longest(16 * 1024)
        // The targets measure the reading itself, and more strictly; this is for all that they do besides.
        .memory(|_| 64 << 20)
}

fn messages<M: Message + PartialEq + Debug>(direction: &str) {
    fuzz(direction).seed_inputs(golden_frames(direction).into_iter().map(without_length)).run(targets::message::<M>);
}

#[test]
fn messages_from_agents() {
    messages::<FromAgent>("from_agent");
}

#[test]
fn messages_to_agents() {
    messages::<ToAgent>("to_agent");
}

#[test]
fn messages_from_consoles() {
    messages::<FromConsole>("from_console");
}

#[test]
fn messages_to_consoles() {
    messages::<ToConsole>("to_console");
}

#[test]
fn messages_from_joiners() {
    messages::<FromJoiner>("from_joiner");
}

#[test]
fn messages_to_joiners() {
    messages::<ToJoiner>("to_joiner");
}

#[test]
fn frames() {
    let directions = ["from_agent", "to_agent", "from_console", "to_console", "from_joiner", "to_joiner"];
    let golden = directions.into_iter().flat_map(golden_frames);
    fuzz("frame").seed_inputs(golden).run(targets::frame);
}

#[test]
fn tasks() {
    let submit = golden_frames("from_console").iter().find_map(|frame| match FromConsole::from_frame(frame) {
        Ok(FromConsole::Submit(submit)) => Some(submit),
        _ => None,
    });
    let TaskBody::Inline(task) = submit.expect("a golden submit").spec.body else { panic!("the task is inline") };
    fuzz("task").seed_input(encode_task(&task)).run(targets::task);
}

#[test]
fn bombs_are_refused_for_the_right_reason_within_their_memory() {
    fn message<M: Message>(input: &[u8]) -> Result<usize, WireError> {
        let (kind, body) = input.split_first().expect("a bomb has a type");
        M::decode_body(*kind, body).map(|_| M::cap(*kind).expect("it was read"))
    }
    for bomb in read_bombs(&tests().join("corpus/bombs")) {
        let input = bomb.input.as_slice();
        let (said, spent) = spend(|| match bomb.reader.as_str() {
            "from_agent" => message::<FromAgent>(input),
            "to_agent" => message::<ToAgent>(input),
            "from_console" => message::<FromConsole>(input),
            "to_console" => message::<ToConsole>(input),
            "from_joiner" => message::<FromJoiner>(input),
            "to_joiner" => message::<ToJoiner>(input),
            "frame" => FromAgent::from_frame(input).map(|_| 0),
            "task" => decode_task(input).map(|_| 0),
            other => panic!("{}: there is no reader {other}", bomb.name),
        });
        // Eight times the smallest cap, and what an honest message of these bytes may take.
        let bound = 8 * modchain_wire::frame::CONTROL_BYTES_MAX + SLACK_BYTES + 8 * input.len();
        assert!(spent.peak_bytes <= bound, "{} takes {} bytes", bomb.name, spent.peak_bytes);
        bomb.check(said.map(|_| ()).map_err(|error| error.to_string()));
    }
}

#[test]
fn a_message_cut_off_anywhere_is_refused() {
    fn cut<M: Message + Debug>(direction: &str) {
        for frame in golden_frames(direction) {
            let (kind, body) = (frame[FRAME_HEADER_BYTES - 1], &frame[FRAME_HEADER_BYTES..]);
            for length in 0..body.len() {
                let said = M::decode_body(kind, &body[..length]);
                assert!(
                    matches!(said, Err(WireError::Garbled { .. })),
                    "{direction} {kind:#04x} at {length}: {said:?}"
                );
            }
            for length in 0..frame.len() {
                assert!(M::from_frame(&frame[..length]).is_err());
            }
        }
    }
    cut::<FromAgent>("from_agent");
    cut::<ToAgent>("to_agent");
    cut::<FromConsole>("from_console");
    cut::<ToConsole>("to_console");
    cut::<FromJoiner>("from_joiner");
    cut::<ToJoiner>("to_joiner");
}

/// The items of a page are many times larger in memory than on the wire. Their number is what bounds them.
#[test]
fn the_messages_that_take_most_memory_stay_within_their_bound() {
    fn text<const MAX: usize>(number: usize) -> Text<MAX> {
        Text::new(char::from(b'!' + number as u8).to_string()).expect("one character")
    }
    fn page<M: Message>(kind: u8, page: M) {
        let frame = page.to_frame().expect("fits");
        let (said, spent) = spend(|| M::decode_body(kind, &frame[FRAME_HEADER_BYTES..]));
        assert!(said.is_ok());
        println!("{kind:#04x}: {} bytes on the wire, {} in memory", frame.len(), spent.peak_bytes);
        let cap = M::cap(kind).expect("a kind of ours");
        assert!(spent.peak_bytes <= memory_of_cap(cap), "{} bytes for a frame of {cap}", spent.peak_bytes);
    }
    let golden: Vec<ToConsole> =
        golden_frames("to_console").iter().map(|frame| ToConsole::from_frame(frame).expect("golden")).collect();
    let mut job = golden.iter().find_map(|one| if let ToConsole::Job(job) = one { Some(job.clone()) } else { None });
    let mut node = golden.iter().find_map(|one| match one {
        ToConsole::Nodes(page) => page.items.first().cloned(),
        _ => None,
    });
    let (job, node) = (job.as_mut().expect("a golden job"), node.as_mut().expect("a golden node"));

    let attempt = AttemptView {
        message: Text::default(),
        fence: Fence(0),
        reason: None,
        assigned_at: WallTime(0),
        started_at: None,
        ended_at: None,
        ..job.attempts[0].clone()
    };
    job.attempts = List::new(vec![attempt; 64]).expect("as many as may be");
    job.labels = Map::new((0..32).map(|number| (text(number), text(number))).collect()).expect("as many as may be");
    let mut jobs = vec![job.clone(); 500];
    while ToConsole::from(JobsPage { items: List::new(jobs.clone()).expect("few"), total: 0, more: false })
        .to_frame()
        .is_err()
    {
        jobs.truncate(jobs.len() - 10);
    }
    page(0x57, ToConsole::from(JobsPage { items: List::new(jobs).expect("few"), total: 0, more: false }));

    let offer = node.offer.as_mut().expect("an offer");
    let gpu = GpuInfo {
        uuid: Text::default(),
        vendor: Text::default(),
        model: Text::default(),
        memory_bytes: 0,
        driver: Text::default(),
        compute: Text::default(),
    };
    offer.capabilities.gpus = List::new(vec![gpu; 64]).expect("as many as may be");
    let model = ModelInfo { name: Text::default(), digest: Text::default(), bytes: 0, warm: false };
    offer.capabilities.models = List::new(vec![model; 256]).expect("as many as may be");
    offer.capabilities.pullable = List::new(vec![Text::default(); 64]).expect("as many as may be");
    offer.capabilities.labels = Map::new((0..64).map(|n| (text(n), text(n))).collect()).expect("as many as may be");
    offer.tariff.gpu_hour = Map::new((0..64).map(|n| (text(n), Micro(0))).collect()).expect("as many as may be");
    let gpus = vec![(Text::default(), Text::default()); 64];
    node.reserved.gpus = List::new(gpus).expect("as many as may be");
    node.gpus = List::new(vec![GpuSample::default(); 64]).expect("as many as may be");
    let mut nodes = vec![node.clone(); 500];
    while ToConsole::from(NodesPage { items: List::new(nodes.clone()).expect("few"), total: 0, more: false })
        .to_frame()
        .is_err()
    {
        nodes.truncate(nodes.len() - 10);
    }
    page(0x5d, ToConsole::from(NodesPage { items: List::new(nodes).expect("few"), total: 0, more: false }));

    let hello = golden_frames("from_agent").into_iter().find_map(|frame| match FromAgent::from_frame(&frame) {
        Ok(FromAgent::Hello(hello)) => Some(hello),
        _ => None,
    });
    let mut hello = hello.expect("a golden hello");
    hello.inventory = List::new(vec![hello.inventory[0]; 4096]).expect("as many as may be");
    hello.offer = node.offer.take().expect("an offer");
    page(0x08, FromAgent::from(OfferChanged { offer: hello.offer.clone() }));
    page(0x01, FromAgent::from(hello));

    let tick = GpuTick { ago: Span::ZERO, gpus: List::new(vec![GpuSample::default(); 64]).expect("as many as may be") };
    let gpus = List::new(vec![tick; 16]).expect("as many as may be");
    let beat = Heartbeat { number: 0, sent: Timestamp::ZERO, rtt: None, load: HostLoad::default(), gpus };
    page(0x10, FromAgent::from(beat));
}

/// An offer that has all that it may have, each as long as it may be.
#[test]
fn the_largest_offer_fits_into_its_frame() {
    fn longest<const MAX: usize>(number: usize) -> Text<MAX> {
        Text::new(format!("{number:0>MAX$}")).expect("as long as may be")
    }
    let all = |count: usize| 0..count;
    let offer = Offer {
        capabilities: Capabilities {
            adapters: List::new(vec![Adapter::Wasm; 16]).expect("as many as may be"),
            cpu_milli: u32::MAX,
            memory_bytes: u64::MAX,
            disk_bytes: u64::MAX,
            slots: u32::MAX,
            gpus: List::new(
                all(64)
                    .map(|number| GpuInfo {
                        uuid: longest(number),
                        vendor: longest(number),
                        model: longest(number),
                        memory_bytes: u64::MAX,
                        driver: longest(number),
                        compute: longest(number),
                    })
                    .collect(),
            )
            .expect("as many as may be"),
            models: List::new(
                all(256)
                    .map(|number| ModelInfo {
                        name: longest(number),
                        digest: longest(number),
                        bytes: u64::MAX,
                        warm: true,
                    })
                    .collect(),
            )
            .expect("as many as may be"),
            pullable: List::new(all(64).map(longest).collect()).expect("as many as may be"),
            exceptions: Exceptions { writable_root: true, network: true },
            container_gpus: false,
            labels: Map::new(all(64).map(|number| (longest(number), longest(number))).collect()).expect("fits"),
            region: longest(0),
        },
        tariff: Tariff {
            gpu_hour: Map::new(all(64).map(|number| (longest(number), Micro(u64::MAX))).collect()).expect("fits"),
            ..Tariff::default()
        },
        agent_version: longest(0),
        paused: true,
        images: List::default(),
    };
    let frame = FromAgent::from(OfferChanged { offer: offer.clone() }).to_frame().expect("it fits");
    println!("{} bytes", frame.len());
    assert_eq!(FromAgent::from_frame(&frame), Ok(FromAgent::OfferChanged(OfferChanged { offer })));
}

/// What an agent gathers while it has no connection must fit into its first heartbeat, whatever the numbers are.
#[test]
fn sixteen_seconds_of_sixty_four_gpus_fit_into_one_heartbeat() {
    let sample = GpuSample {
        busy_pct: Some(u8::MAX),
        memory_used_bytes: Some(u64::MAX),
        temperature_c: Some(u8::MAX),
        power_mw: Some(u32::MAX),
    };
    let tick = GpuTick { ago: Span(u64::MAX), gpus: List::new(vec![sample; 64]).expect("as many as may be") };
    let beat = Heartbeat {
        number: u64::MAX,
        sent: Timestamp(u64::MAX),
        rtt: Some(Span(u64::MAX)),
        load: HostLoad {
            cpu_permille: Some(u16::MAX),
            memory_used_bytes: u64::MAX,
            memory_total_bytes: u64::MAX,
            disk_free_bytes: u64::MAX,
        },
        gpus: List::new(vec![tick; 16]).expect("as many as may be"),
    };
    let frame = FromAgent::from(beat.clone()).to_frame().expect("it fits");
    assert_eq!(FromAgent::from_frame(&frame), Ok(FromAgent::Heartbeat(beat)));
}
