//! Open descriptors, handed from one process to another over the socket between them, with a few bytes that say what for.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Most descriptors at once.
const DESCRIPTORS_MAX: usize = 4;

/// Sends the bytes, at least one, with these descriptors, four at most, which stay open here. Waits for nothing: fails when
/// there is no room.
pub(super) fn hand_over(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fit = descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors));
    assert!(fit, "no more than {DESCRIPTORS_MAX} are handed over");
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(io::Error::other("only a part could be sent")),
    }
}

/// Waits for bytes, as many as fit at most, and what came with them, which no other program will inherit. No bytes are the end.
pub(super) fn take_over(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((received.bytes, descriptors.flatten().collect()))
}
