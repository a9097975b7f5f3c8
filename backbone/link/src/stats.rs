//! What the operator may want to know of a port: who is there, who was refused and why, and whether packets are lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::code::{Alert, CloseCode, CloseReason, Side};
use crate::socket::Buffers;

/// One port at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointStats {
    /// Connections that are established and not closed.
    pub connections: usize,
    /// Handshakes in progress.
    pub handshakes: usize,
    /// How often a newcomer was asked to prove its address, since the port was opened.
    pub retries: u64,
    /// How many were refused, by reason, since the port was opened. Each reason once, in the order of [`Refusal::ALL`].
    pub refused: [(Refusal, u64); Refusal::ALL.len()],
    /// What the system gave for the socket's buffers.
    pub buffers: Buffers,
}

impl EndpointStats {
    /// How many were refused for this reason.
    pub fn refused_for(&self, why: Refusal) -> u64 {
        self.refused[why as usize].1
    }

    /// How many were refused for whatever reason.
    pub fn refused_in_all(&self) -> u64 {
        self.refused.iter().map(|(_, count)| count).sum()
    }
}

/// Why somebody did not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Too many handshakes from one address or network at once.
    Source,
    /// The handshake did not end in time.
    TooSlow,
    /// The certificate is missing, foreign, expired or garbled.
    Certificate,
    /// The certificate or its identity is revoked.
    Revoked,
    /// No application protocol or version in common.
    Protocol,
    /// The role may not speak the protocol.
    WrongRole,
    /// The identity has as many connections as it may.
    TooManyConnections,
    /// The identity sent too many bad frames a short time ago.
    CoolingOff,
    /// The handshake broke off for another reason; often the newcomer did not trust this side.
    BrokenOff,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Source,
        Self::TooSlow,
        Self::Certificate,
        Self::Revoked,
        Self::Protocol,
        Self::WrongRole,
        Self::TooManyConnections,
        Self::CoolingOff,
        Self::BrokenOff,
    ];

    /// The word for logs and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::TooSlow => "too_slow",
            Self::Certificate => "certificate",
            Self::Revoked => "revoked",
            Self::Protocol => "protocol",
            Self::WrongRole => "wrong_role",
            Self::TooManyConnections => "too_many_connections",
            Self::CoolingOff => "cooling_off",
            Self::BrokenOff => "broken_off",
        }
    }

    /// What the end of a handshake counts as.
    pub(crate) fn of_handshake(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Handshake { alert: Alert::CERTIFICATE_REVOKED, by: Side::Here } => Self::Revoked,
            CloseReason::Handshake { alert: Alert::NO_APPLICATION_PROTOCOL, by: Side::Here } => Self::Protocol,
            CloseReason::Handshake { alert, by: Side::Here } if alert.about_certificate() => Self::Certificate,
            CloseReason::Handshake { .. }
            | CloseReason::Here
            | CloseReason::There { .. }
            | CloseReason::ThereUnknown { .. }
            | CloseReason::Busy
            | CloseReason::Restarted
            | CloseReason::Silent
            | CloseReason::QuicVersion
            | CloseReason::Broken { .. } => Self::BrokenOff,
        }
    }

    /// What the newcomer is told, where there is a connection to tell it on.
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::Revoked => CloseCode::Revoked,
            Self::Protocol => CloseCode::Version,
            Self::WrongRole | Self::Certificate => CloseCode::WrongRole,
            Self::TooManyConnections | Self::Source => CloseCode::TooManyConnections,
            Self::CoolingOff => CloseCode::BadFrame,
            Self::TooSlow => CloseCode::TimeUp,
            Self::BrokenOff => CloseCode::Internal,
        }
    }
}

/// Counts of one port; they only grow.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    retries: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Tally {
    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self, connections: usize, handshakes: usize, buffers: Buffers) -> EndpointStats {
        EndpointStats {
            connections,
            handshakes,
            retries: self.retries.load(Relaxed),
            refused: Refusal::ALL.map(|why| (why, self.refused[why as usize].load(Relaxed))),
            buffers,
        }
    }
}

/// Packets that this machine's UDP sockets lost, since it started, because their receive buffers were full; all programs of
/// the network namespace together. `None` where the system does not tell. When it grows, raise `net.core.rmem_max`.
pub fn rcvbuf_errors() -> Option<u64> {
    // IPv6 packets are counted apart, in a file that a system without IPv6 does not have.
    let ipv6 = std::fs::read_to_string("/proc/net/snmp6").ok().and_then(|text| read_snmp6(&text));
    let ipv4 = std::fs::read_to_string("/proc/net/snmp").ok().and_then(|text| read_snmp(&text))?;
    Some(ipv4.saturating_add(ipv6.unwrap_or(0)))
}

/// Two lines of each protocol: the names and the numbers.
fn read_snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let position = names.split_whitespace().position(|name| name == "RcvbufErrors")?;
    numbers.split_whitespace().nth(position)?.parse().ok()
}

/// One line of each number.
fn read_snmp6(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_own_name() {
        let tally = Tally::default();
        for (count, why) in Refusal::ALL.into_iter().enumerate() {
            (0..count).for_each(|_| tally.refuse(why));
        }
        tally.retry();
        let buffers = Buffers { receive_bytes: 1, send_bytes: 2 };
        let stats = tally.stats(3, 4, buffers);
        for (count, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!((stats.refused_for(why), stats.refused[count].0), (count as u64, why));
        }
        assert_eq!((stats.connections, stats.handshakes, stats.retries, stats.refused_in_all()), (3, 4, 1, 36));
        assert_eq!(stats.buffers, buffers);
        let words: std::collections::HashSet<_> = Refusal::ALL.map(Refusal::word).into();
        assert_eq!(words.len(), Refusal::ALL.len());
    }

    #[test]
    fn lost_packets_are_read_from_the_systems_table() {
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams NoPorts RcvbufErrors MemErrors\nUdp: 25 3 2346 0\nUdpLite: \
                    InDatagrams RcvbufErrors\nUdpLite: 7 7\n";
        assert_eq!(read_snmp(snmp), Some(2346));
        for broken in ["", "Udp: RcvbufErrors\n", "Udp: RcvbufErrors\nUdp: x\n", "Udp: InDatagrams\nUdp: 1\n"] {
            assert_eq!(read_snmp(broken), None, "{broken}");
        }
        assert_eq!(read_snmp6("Udp6InErrors  9\nUdp6RcvbufErrors                \t17\n"), Some(17));
        assert_eq!(read_snmp6("Ip6InReceives 1\n"), None);
    }

    #[test]
    fn a_socket_that_is_not_read_is_seen_to_lose_packets() {
        // A system without these tables has nothing to show.
        let Some(before) = rcvbuf_errors() else { return };
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let small = socket2::SockRef::from(&receiver);
        small.set_recv_buffer_size(4096).expect("a small buffer");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = receiver.local_addr().expect("bound");
        for _ in 0..200 {
            sender.send_to(&[0; 1000], address).expect("sends");
        }
        let lost = || rcvbuf_errors().expect("it was there") - before;
        // They may be counted a moment later.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while lost() <= 100 && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let lost = lost();
        println!("200 packets into a small buffer: {lost} lost");
        assert!(lost > 100, "{lost}");
    }
}
