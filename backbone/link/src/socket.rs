//! The UDP socket of a port that others connect to.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::settings::SOCKET_BUFFER_BYTES;

/// What the system gave for the socket's buffers, in bytes as it counts them; Linux counts its own overhead and says double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// For packets that nobody has read yet.
    pub receive_bytes: usize,
    /// For packets that are not on the wire yet.
    pub send_bytes: usize,
}

impl Buffers {
    /// Whether it is as much as was asked for. If not, raise `net.core.rmem_max` and `net.core.wmem_max`: many agents that
    /// connect at once lose packets otherwise.
    pub fn ample(&self) -> bool {
        self.receive_bytes >= SOCKET_BUFFER_BYTES && self.send_bytes >= SOCKET_BUFFER_BYTES
    }
}

pub(crate) fn bind_socket(address: SocketAddr) -> io::Result<(std::net::UdpSocket, Buffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        // The address for everybody takes IPv4 as well.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The system gives what it allows, and says so below.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    let buffers = Buffers { receive_bytes: socket.recv_buffer_size()?, send_bytes: socket.send_buffer_size()? };
    let Buffers { receive_bytes, send_bytes } = buffers;
    tracing::info!(
        receive_bytes,
        send_bytes,
        asked_bytes = SOCKET_BUFFER_BYTES,
        ample = buffers.ample(),
        "UDP buffers"
    );
    Ok((socket.into(), buffers))
}
