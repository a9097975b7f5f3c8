//! The bytes of every kind of event are pinned. `MODCHAIN_GOLDEN=write cargo test -p modchain-orchestrator --test
//! golden_events` writes the files anew; do that only for a kind of event that was never released.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use modchain_core::{Event, EventBody};
use modchain_orchestrator::store::journal::segment::{self, Record, SegmentHeader};
use modchain_orchestrator::store::record::{self, RECORD_VERSION, RecordError};
use modchain_types::*;
use proptest::prelude::*;
use support::{bodies, kind, numbered};

fn check(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin"));
    if std::env::var("MODCHAIN_GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(path.parent().expect("has a parent")).expect("makes the directory");
        fs::write(&path, bytes).expect("writes");
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == bytes, "the bytes of {name} have changed: journals that exist could not be read any more");
}

#[test]
fn the_bytes_of_every_event_are_those_of_the_golden_files() {
    let mut kinds: BTreeMap<&str, Vec<EventBody>> = BTreeMap::new();
    for body in bodies() {
        kinds.entry(kind(&body)).or_default().push(body);
    }
    assert_eq!(kinds.len(), 26, "a kind of event has no sample");
    for (name, bodies) in kinds {
        let events = numbered(100, bodies);
        let bytes = record::encode(&events).expect("encodes");
        check(name, &bytes);
        let back = record::decode(RECORD_VERSION, 100, events.len() as u32, &bytes).expect("decodes");
        assert_eq!(back, events, "{name}");
    }
}

/// What joined a kind of event after its golden file was written has a file of its own: the older one must not change.
#[test]
fn what_joined_specifications_and_offers_later_has_bytes_of_its_own() {
    let spec = |input, policy| JobSpec { input, policy, ..support::bare_spec() };
    let specs = [
        spec(Input::None, Policy::Fastest),
        spec(Input::Stream, Policy::Fastest),
        spec(Input::None, Policy::Spread),
        spec(Input::Stream, Policy::Spread),
    ];
    let queued = |spec| EventBody::JobQueued {
        job: JobId([1; 16]),
        account: "alice".parse().expect("an account"),
        key: "key".parse().expect("a key"),
        spec: Box::new(spec),
        spec_digest: Digest([2; 32]),
        fee_basis_points: 500,
    };
    let images = List::new(["alpine:3", "me/tool"].map(ImageMark::of).to_vec()).expect("few");
    let connected = |paused| EventBody::NodeConnected {
        node: NodeId([1; 16]),
        offer: Some(Box::new(Offer { paused, images: images.clone(), ..support::offer() })),
    };
    for (name, bodies) in [
        ("job_queued_by_policy", specs.map(queued).to_vec()),
        ("node_connected_with_images", [false, true].map(connected).to_vec()),
    ] {
        let events = numbered(100, bodies);
        let bytes = record::encode(&events).expect("encodes");
        check(name, &bytes);
        let back = record::decode(RECORD_VERSION, 100, events.len() as u32, &bytes).expect("decodes");
        assert_eq!(back, events, "{name}");
    }
}

#[test]
fn the_bytes_of_headers_and_records_are_those_of_the_golden_file() {
    let header = SegmentHeader { journal: support::JOURNAL, asset: Asset::Usdc, first: 41, previous: [0xcc; 32] };
    let (frame, hash) = segment::frame(support::JOURNAL, 41, 2, RECORD_VERSION, b"payload", &header.hash());
    let bytes = [&header.encode()[..], &frame].concat();
    check("segment", &bytes);
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    let record = Record::parse(support::JOURNAL, &bytes[segment::HEADER_BYTES..]).expect("parses");
    assert_eq!((record.first, record.count, record.payload, record.hash), (41, 2, &b"payload"[..], hash));
    assert!(record.follows(&header.hash()));
    assert!(!record.follows(&hash));
}

#[test]
fn a_record_of_a_newer_version_and_bytes_after_the_last_event_are_refused() {
    let events = numbered(1, bodies());
    let mut bytes = record::encode(&events).expect("encodes");
    assert_eq!(record::decode(3, 1, events.len() as u32, &bytes), Err(RecordError::Version { got: 3 }));
    bytes.push(0);
    assert_eq!(record::decode(RECORD_VERSION, 1, events.len() as u32, &bytes), Err(RecordError::Trailing { extra: 1 }));
}

fn name() -> impl Strategy<Value = AccountId> {
    "[a-z0-9][a-z0-9-]{0,31}".prop_map(|text| text.parse().expect("a name"))
}

fn text<const N: usize>() -> impl Strategy<Value = Text<N>> {
    ".{0,60}".prop_map(Text::cut)
}

fn pairs<const N: usize>() -> impl Strategy<Value = Map<Text<64>, Text<256>, N>> {
    proptest::collection::btree_map(text(), text(), 0..5).prop_map(|map| Map::new(map).expect("fits"))
}

fn body() -> impl Strategy<Value = EventBody> {
    let attempt = (any::<[u8; 16]>(), any::<u32>()).prop_map(|(job, number)| AttemptId { job: JobId(job), number });
    let task =
        (any::<[u8; 32]>(), any::<u64>(), proptest::collection::vec(text(), 0..9)).prop_map(|(digest, bytes, args)| {
            let Task::Wasm(task) = support::wasm_task() else { unreachable!("it is one") };
            Task::Wasm(WasmTask {
                module: Digest(digest),
                module_bytes: bytes,
                args: List::new(args).expect("fits"),
                ..task
            })
        });
    let policy = (0..Policy::ALL.len()).prop_map(|policy| Policy::ALL[policy]);
    let queued = (name(), "[!-~]{1,128}", task, pairs(), any::<i8>(), any::<u64>(), text(), any::<u16>(), policy)
        .prop_map(|(account, key, task, labels, priority, cost, name, fee, policy)| EventBody::JobQueued {
            job: JobId([1; 16]),
            account,
            key: key.parse().expect("a key"),
            spec: Box::new(JobSpec {
                name,
                labels,
                priority,
                policy,
                max_cost: Micro(cost),
                ..support::spec(TaskBody::Inline(task))
            }),
            spec_digest: Digest([2; 32]),
            fee_basis_points: fee,
        });
    let connected = (any::<[u8; 16]>(), any::<u32>(), any::<u64>(), pairs(), text()).prop_map(
        |(node, cpu_milli, memory_bytes, labels, region)| {
            let mut offer = support::offer();
            offer.capabilities = Capabilities { cpu_milli, memory_bytes, labels, region, ..offer.capabilities };
            EventBody::NodeConnected { node: NodeId(node), offer: Some(Box::new(offer)) }
        },
    );
    let ended = (attempt.clone(), 0..Reason::ALL.len(), text()).prop_map(|(attempt, reason, message)| {
        EventBody::AttemptEnded { attempt, reason: Reason::ALL[reason], message }
    });
    let result = (attempt, 0..support::endings().len(), any::<[u64; 10]>()).prop_map(|(attempt, ending, n)| {
        EventBody::ResultRecorded {
            attempt,
            ending: support::endings().swap_remove(ending),
            usage: Usage {
                ran: Span(n[0]),
                prompt_tokens: n[1],
                output_tokens: n[2],
                fuel: n[3],
                load: Span(n[7]),
                first_token: Span(n[8]),
                generating: Span(n[9]),
            },
            output: OutputLengths { stdout: n[4], stderr: n[5], dropped: n[6] },
        }
    });
    prop_oneof![queued, connected, ended, result]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn events_read_back_as_they_were_written(bodies in proptest::collection::vec(body(), 1..8), first in 1u64..1 << 60, at: u64) {
        let events: Vec<Event> =
            numbered(first, bodies).into_iter().map(|event| Event { at: Timestamp(at), ..event }).collect();
        let bytes = record::encode(&events).expect("encodes");
        prop_assert_eq!(record::decode(RECORD_VERSION, first, events.len() as u32, &bytes).expect("decodes"), events);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_take_memory_without_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), count: u32) {
        let _ = record::decode(RECORD_VERSION, 1, count, &bytes);
        let _ = SegmentHeader::decode(&bytes);
        let _ = Record::parse(support::JOURNAL, &bytes);
        let _ = segment::find_record(support::JOURNAL, &bytes);
    }
}
