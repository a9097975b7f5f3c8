//! Pins the bytes of every message. A change here breaks every program already out there: it needs a new frame type.
//! After adding a message write its file with `MODCHAIN_GOLDEN=write cargo test -p modchain-wire --test golden`.

mod samples;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;

use modchain_wire::frame::spec_digest;
use modchain_wire::{FRAME_HEADER_BYTES, FromAgent, Message, WireError};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect();
    lines.join("\n") + "\n"
}

fn check<M: Message + PartialEq + Debug>(direction: &str, samples: Vec<M>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(direction);
    let mut seen = BTreeSet::new();
    for sample in samples {
        let (kind, name, cap) = M::TYPES.iter().find(|(kind, ..)| *kind == sample.kind()).expect("listed");
        assert!(seen.insert(*kind), "two samples of {name}");
        let frame = sample.to_frame().expect("samples are within their caps");
        assert!(frame.len() - FRAME_HEADER_BYTES <= *cap);
        let file = folder.join(format!("{kind:02x}-{name}.hex"));
        if std::env::var("MODCHAIN_GOLDEN").is_ok_and(|value| value == "write") {
            std::fs::create_dir_all(&folder).expect("the golden folder");
            std::fs::write(&file, hex(&frame)).expect("a golden file");
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(golden, hex(&frame), "the bytes of {name} changed");
        assert_eq!(M::from_frame(&frame).as_ref(), Ok(&sample), "{name} reads back");
    }
    let all: BTreeSet<u8> = M::TYPES.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(seen, all, "every type of {direction} has a sample");
}

#[test]
fn messages_from_agents_keep_their_bytes() {
    check("from_agent", samples::from_agent());
}

#[test]
fn messages_to_agents_keep_their_bytes() {
    check("to_agent", samples::to_agent());
}

#[test]
fn messages_from_consoles_keep_their_bytes() {
    check("from_console", samples::from_console());
}

#[test]
fn messages_to_consoles_keep_their_bytes() {
    check("to_console", samples::to_console());
}

#[test]
fn messages_from_joiners_keep_their_bytes() {
    check("from_joiner", samples::from_joiner());
}

#[test]
fn messages_to_joiners_keep_their_bytes() {
    check("to_joiner", samples::to_joiner());
}

#[test]
fn the_digest_of_a_specification_is_pinned_and_depends_on_every_part() {
    let spec = samples::spec();
    assert_eq!(
        spec_digest(&spec).to_string(),
        include_str!("golden/spec_digest.txt").trim(),
        "two programs would disagree about what the same job is"
    );
    let mut other = spec.clone();
    other.max_cost.0 += 1;
    assert_ne!(spec_digest(&other), spec_digest(&spec));
}

/// What joined the specification after its bytes were pinned changes neither the bytes nor the digest of one without it.
#[test]
fn a_policy_has_bytes_of_its_own_and_none_leaves_a_specification_as_it_was() {
    use modchain_types::{Input, JobSpec, Policy};
    use modchain_wire::FromConsole;
    use modchain_wire::console::QuoteRequest;
    let frame = |spec: JobSpec| FromConsole::from(QuoteRequest { spec }).to_frame().expect("fits").to_vec();
    let mut ends = BTreeSet::new();
    for input in [Input::None, Input::Stream] {
        for policy in Policy::ALL {
            let spec = JobSpec { input, policy, ..samples::spec() };
            let bytes = frame(spec.clone());
            assert_eq!(FromConsole::from_frame(&bytes), Ok(QuoteRequest { spec: spec.clone() }.into()));
            assert!(ends.insert(spec_digest(&spec).to_string()), "two of {input:?} and {policy:?} are one job");
            let tail: &[u8] = match (input, policy) {
                (Input::None, Policy::Cheapest) => &[0],
                (Input::Stream, Policy::Cheapest) => &[1],
                (Input::None, Policy::Fastest) => &[2, 1],
                (Input::None, Policy::Spread) => &[2, 2],
                (Input::Stream, Policy::Fastest) => &[3, 1],
                (Input::Stream, Policy::Spread) => &[3, 2],
            };
            assert!(bytes.ends_with(tail), "{input:?} and {policy:?} end with {tail:?}");
        }
    }
}

/// An agent that tells no images sends what it always sent.
#[test]
fn images_have_bytes_of_their_own_and_none_leave_an_offer_as_it_was() {
    use modchain_types::{ImageMark, List, Offer};
    use modchain_wire::agent::OfferChanged;
    let FromAgent::OfferChanged(OfferChanged { offer }) = samples::from_agent().swap_remove(2) else {
        panic!("the third is an offer");
    };
    for (images, paused, tail) in [(0, false, 0u8), (0, true, 1), (2, false, 2), (2, true, 3)] {
        let marks: Vec<ImageMark> = ["alpine", "me/tool:1"].map(ImageMark::of)[..images].to_vec();
        let images = List::new(marks.clone()).expect("few");
        let message = FromAgent::from(OfferChanged { offer: Offer { paused, images, ..offer.clone() } });
        let bytes = message.to_frame().expect("fits");
        assert_eq!(FromAgent::from_frame(&bytes), Ok(message));
        let mut expected = vec![tail];
        if !marks.is_empty() {
            expected.push(marks.len() as u8);
            expected.extend(marks.iter().flat_map(|mark| mark.to_bytes()));
        }
        assert!(bytes.ends_with(&expected), "{} images, paused {paused}", marks.len());
    }
}

#[test]
fn caps_versions_and_unknown_types_are_refused_by_name() {
    use modchain_wire::FrameHeader;
    let header = |body_bytes: u32, version, kind| {
        let [a, b, c, d] = body_bytes.to_le_bytes();
        FrameHeader::read([a, b, c, d, version, kind]).check::<FromAgent>()
    };
    assert_eq!(header(24_576, 1, 0x10), Ok(()));
    assert_eq!(header(24_577, 1, 0x10), Err(WireError::TooLong { kind: 0x10, got: 24_577, limit: 24_576 }));
    assert_eq!(header(u32::MAX, 1, 0x01).map_err(|e| matches!(e, WireError::TooLong { .. })), Err(true));
    assert_eq!(header(0, 2, 0x10), Err(WireError::Version { got: 2 }));
    assert_eq!(header(0, 1, 0x02), Err(WireError::Unsupported { kind: 0x02 }), "that one goes the other way");
    let mut frame = samples::from_agent()[4].to_frame().expect("fits").to_vec();
    frame.push(0);
    assert!(matches!(FromAgent::from_frame(&frame), Err(WireError::Trailing { extra: 1, .. })));
}

/// What decodes at all encodes again to something that decodes to the same: nothing is lost or doubled on the way.
fn survives<M: Message + PartialEq + Debug>(kind: u8, body: &[u8]) {
    let Ok(message) = M::decode_body(kind, body) else { return };
    let mut again = Vec::new();
    message.encode_body(&mut again).expect("what was decoded can be encoded");
    assert_eq!(M::decode_body(kind, &again).as_ref(), Ok(&message));
}

fn mutated<M: Message + PartialEq + Debug>(samples: &[M], pick: usize, cuts: &[(usize, u8)], length: usize) {
    let sample = &samples[pick % samples.len()];
    let mut body = Vec::new();
    sample.encode_body(&mut body).expect("samples encode");
    survives::<M>(sample.kind(), &body);
    for (at, byte) in cuts {
        let at = at % body.len().max(1);
        if let Some(place) = body.get_mut(at) {
            *place = *byte;
        }
    }
    body.truncate(length.max(1));
    survives::<M>(sample.kind(), &body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn damaged_messages_never_panic_and_honest_ones_round_trip(
        pick: usize,
        cuts in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        length in 0usize..2_000,
    ) {
        mutated(&samples::from_agent(), pick, &cuts, length);
        mutated(&samples::to_agent(), pick, &cuts, length);
        mutated(&samples::from_console(), pick, &cuts, length);
        mutated(&samples::from_joiner(), pick, &cuts, length);
        mutated(&samples::to_joiner(), pick, &cuts, length);
        mutated(&samples::to_console(), pick, &cuts, length);
    }

    #[test]
    fn random_bytes_are_refused_or_round_trip(kind: u8, body in prop::collection::vec(any::<u8>(), 0..600)) {
        survives::<modchain_wire::FromAgent>(kind, &body);
        survives::<modchain_wire::ToAgent>(kind, &body);
        survives::<modchain_wire::FromConsole>(kind, &body);
        survives::<modchain_wire::FromJoiner>(kind, &body);
        survives::<modchain_wire::ToJoiner>(kind, &body);
        survives::<modchain_wire::ToConsole>(kind, &body);
    }

    #[test]
    fn lengths_without_bytes_behind_them_are_refused_at_once(kind: u8, claim: u64, lead in 0usize..24) {
        let mut body = vec![1u8; lead];
        body.push(253);
        body.extend(claim.to_le_bytes());
        survives::<modchain_wire::FromAgent>(kind, &body);
        survives::<modchain_wire::ToAgent>(kind, &body);
        survives::<modchain_wire::FromConsole>(kind, &body);
        survives::<modchain_wire::FromJoiner>(kind, &body);
        survives::<modchain_wire::ToJoiner>(kind, &body);
        survives::<modchain_wire::ToConsole>(kind, &body);
    }
}
