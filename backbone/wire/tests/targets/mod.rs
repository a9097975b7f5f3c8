//! What must hold for every input, for the tests and for the coverage-guided fuzzer alike. Each gives the input's signature.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each program uses its part")]

use std::fmt::Debug;

use modchain_fuzz::{signature, spend};
use modchain_wire::frame::{PAGE_BYTES_MAX, SPEC_BYTES_MAX};
use modchain_wire::{
    FRAME_HEADER_BYTES, FrameHeader, FromAgent, FromConsole, FromJoiner, Message, ToAgent, ToConsole, ToJoiner,
    WireError, decode_task, encode_task,
};

/// Memory that a frame may take, in times of its cap. The decoder's own limit is eight: it counts what the bytes claim, and
/// not what lists and maps have ready for their next item.
pub const MEMORY_PER_CAP: usize = 10;
/// The same for inventories and pages: an item of a list within an item, such as a model without a name, is four bytes in the
/// frame, 25 to the decoder and 64 in memory, so a page that is full of nothing else would take twenty. Only an orchestrator
/// sends those; what an agent sends in such a frame holds one offer.
pub const MEMORY_PER_PAGE_CAP: usize = 20;
/// Memory beyond that: the error's text, and the first items of lists that are not there after all.
pub const SLACK_BYTES: usize = 64 * 1024;

/// Memory that a frame with this cap may take.
pub fn memory_of_cap(cap: usize) -> usize {
    cap * if cap == PAGE_BYTES_MAX { MEMORY_PER_PAGE_CAP } else { MEMORY_PER_CAP }
}

/// A type and a body: within its memory, and back to the same message.
pub fn message<M: Message + PartialEq + Debug>(input: &[u8]) -> u64 {
    let Some((&kind, body)) = input.split_first() else { return 0 };
    let header = FrameHeader { body_bytes: body.len(), version: modchain_wire::WIRE_VERSION, kind };
    // Streams ask this before they read a body.
    if let Err(error) = header.check::<M>() {
        return refused(kind, body.len(), &error);
    }
    let cap = M::cap(kind).expect("it was just checked");
    let (decoded, spent) = spend(|| M::decode_body(kind, body));
    assert!(spent.peak_bytes <= memory_of_cap(cap) + SLACK_BYTES, "{} bytes for a frame of {cap}", spent.peak_bytes);
    match decoded {
        Ok(message) => {
            let frame = message.to_frame().expect("what was read can be sent");
            assert!(frame.len() - FRAME_HEADER_BYTES <= body.len(), "the shortest form is no longer than any other");
            assert_eq!(M::from_frame(&frame).as_ref(), Ok(&message));
            signature(&(kind, body.len().checked_ilog2()))
        }
        Err(error) => refused(kind, body.len(), &error),
    }
}

/// Whole frames, in every direction.
pub fn frame(input: &[u8]) -> u64 {
    fn one<M: Message>(input: &[u8]) -> u64 {
        match M::from_frame(input) {
            Ok(message) => {
                let header = FrameHeader::read(*input.first_chunk().expect("a frame has a header"));
                assert_eq!(header.body_bytes, input.len() - FRAME_HEADER_BYTES);
                assert_eq!(header.check::<M>(), Ok(()));
                signature(&message.kind())
            }
            Err(error) => refused(0, input.len(), &error),
        }
    }
    signature(&[
        one::<FromAgent>(input),
        one::<ToAgent>(input),
        one::<FromConsole>(input),
        one::<ToConsole>(input),
        one::<FromJoiner>(input),
        one::<ToJoiner>(input),
    ])
}

/// A task as the blob store keeps it.
pub fn task(input: &[u8]) -> u64 {
    let (decoded, spent) = spend(|| decode_task(input));
    assert!(spent.peak_bytes <= MEMORY_PER_CAP * SPEC_BYTES_MAX + SLACK_BYTES, "{} bytes for a task", spent.peak_bytes);
    match decoded {
        Ok(task) => {
            let again = encode_task(&task);
            assert!(again.len() <= input.len());
            assert_eq!(decode_task(&again).as_ref(), Ok(&task));
            signature(&input.len().checked_ilog2())
        }
        Err(error) => refused(0, input.len(), &error),
    }
}

/// The kind of an error, without the numbers and names in it.
fn refused(kind: u8, bytes: usize, error: &WireError) -> u64 {
    match error {
        WireError::Version { .. } => signature(&"version"),
        WireError::Unsupported { .. } => signature(&"unsupported"),
        WireError::TooLong { .. } => signature(&"too long"),
        WireError::Trailing { .. } => signature(&(kind, "trailing")),
        // What stands between back quotes came from the input.
        WireError::Garbled { why, .. } => {
            let said = why.split('`').step_by(2).flat_map(str::chars);
            let words: String = said.filter(|c| c.is_ascii_alphabetic()).take(60).collect();
            signature(&(kind, bytes.checked_ilog2().map(|log| log / 3), words))
        }
    }
}
