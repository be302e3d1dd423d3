//! Talking to the kernel: reading everything, reading changes, having an address resolved.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::NetlinkError;

/// Message types of linux/netlink.h and linux/rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
/// Set when something changed during a dump, so that it may be torn.
const NLM_F_DUMP_INTR: u16 = 0x10;
const MESSAGE_HEADER: usize = 16;

/// Groups of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// The kernel never sends more at once (NLMSG_GOODSIZE and the dump size of af_netlink.c).
const RECEIVE: usize = 64 << 10;

/// Changes that may wait in the kernel; a storm of neighbour changes fits.
const EVENT_BUFFER: usize = 4 << 20;

/// The kernel answers a request while it is made; longer means that the answer was lost.
const ANSWER_SECONDS: i64 = 2;

/// Everything at one moment.
#[derive(Debug, Default)]
pub(super) struct Dumped {
    pub(super) links: Vec<LinkMessage>,
    pub(super) addresses: Vec<AddressMessage>,
    pub(super) routes: Vec<RouteMessage>,
    pub(super) neighbours: Vec<NeighbourMessage>,
    /// It may be torn: read again.
    pub(super) interrupted: bool,
}

/// One change.
pub(super) enum Change {
    /// A neighbour came, changed, or (state none) went.
    Neighbour(NeighbourMessage),
    /// A link, address or route changed. The kernel removes the routes of a link that goes down
    /// without a word, so no attempt is made to follow these one by one.
    Other,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> NetlinkError {
    move |source| NetlinkError::Failed { what, source }
}

/// The subscribed socket.
pub(super) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Events {
    pub(super) fn subscribe() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_NEIGH,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
        ] {
            socket
                .add_membership(group)
                .map_err(failed("subscribe to changes"))?;
        }
        // Best effort: with a small buffer, everything is read again more often.
        let _ = socket.set_rx_buf_sz(EVENT_BUFFER as i32);
        socket
            .set_non_blocking(true)
            .map_err(failed("configure a socket"))?;
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE],
        })
    }

    /// Waits until there are changes, `wake` is readable, or `timeout` is over.
    pub(super) fn wait(&self, wake: BorrowedFd<'_>, timeout: Duration) {
        let mut fds = [
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Interrupted or not, the caller looks at everything next.
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// Reads all changes that are there.
    pub(super) fn read(&mut self, mut each: impl FnMut(Change)) -> io::Result<()> {
        loop {
            let len = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(len) => len.min(RECEIVE),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for (kind, _, message) in messages(&self.buffer[..len]) {
                if kind != RTM_NEWNEIGH && kind != RTM_DELNEIGH {
                    each(Change::Other);
                    continue;
                }
                match parse(message) {
                    Some(RouteNetlinkMessage::NewNeighbour(neighbour)) => {
                        each(Change::Neighbour(neighbour));
                    }
                    Some(RouteNetlinkMessage::DelNeighbour(mut neighbour)) => {
                        neighbour.header.state = NeighbourState::None;
                        each(Change::Neighbour(neighbour));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The socket for requests.
pub(crate) struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requests {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open a socket"))?;
        socket.bind_auto().map_err(failed("bind a socket"))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("reach the kernel"))?;
        // Lets the kernel pick table and family instead of sending all of them; old ones cannot.
        let _ = socket.set_netlink_get_strict_chk(true);
        socket
            .set_non_blocking(true)
            .map_err(failed("configure a socket"))?;
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE],
            sequence: 0,
        })
    }

    /// Reads links, and addresses, routes and neighbours of both families.
    pub(super) fn dump(&mut self) -> Result<Dumped, NetlinkError> {
        let mut requests = vec![RouteNetlinkMessage::GetLink(LinkMessage::default())];
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut address = AddressMessage::default();
            address.header.family = family;
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.family = family;
            requests.push(RouteNetlinkMessage::GetAddress(address));
            requests.push(get_routes(family));
            requests.push(RouteNetlinkMessage::GetNeighbour(neighbour));
        }
        let mut dumped = Dumped::default();
        for request in requests {
            self.exchange(request, NLM_F_DUMP, &mut dumped)
                .map_err(failed("read links, addresses, routes and neighbours"))?;
        }
        Ok(dumped)
    }

    /// Makes the kernel resolve or confirm an address, as if the host itself had a packet for it.
    pub(super) fn resolve(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(address);
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes = vec![NeighbourAttribute::Destination(address.into())];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.change(RouteNetlinkMessage::NewNeighbour(message), flags)
    }

    /// Routes of the main table of both families that carry this protocol number.
    pub(crate) fn routes_by(&mut self, protocol: u8) -> io::Result<Vec<RouteMessage>> {
        let mut dumped = Dumped::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            self.exchange(get_routes(family), NLM_F_DUMP, &mut dumped)?;
        }
        let is_of = |route: &RouteMessage| {
            u8::from(route.header.protocol) == protocol
                && route.header.table == RouteHeader::RT_TABLE_MAIN
        };
        dumped.routes.retain(is_of);
        Ok(dumped.routes)
    }

    /// Adds a route. One that is there already is no error.
    pub(crate) fn add_route(&mut self, route: RouteMessage) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.change(RouteNetlinkMessage::NewRoute(route), flags) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Removes a route. One that is not there is no error.
    pub(crate) fn remove_route(&mut self, route: RouteMessage) -> io::Result<()> {
        match self.change(RouteNetlinkMessage::DelRoute(route), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Changes a link.
    pub(crate) fn set_link(&mut self, link: LinkMessage) -> io::Result<()> {
        self.change(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
    }

    /// Gives a link an address that it does not have.
    pub(crate) fn add_address(&mut self, address: AddressMessage) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.change(RouteNetlinkMessage::NewAddress(address), flags)
    }

    fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(request, flags, &mut Dumped::default())
    }

    /// Sends a request and takes its answers in until the last.
    fn exchange(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        dumped: &mut Dumped,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let len = self.receive()?;
            for (kind, header, message) in messages(&self.buffer[..len]) {
                if header.sequence != self.sequence {
                    continue;
                }
                dumped.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return outcome(message),
                    _ => dumped.add(parse(message)),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(len) => return Ok(len.min(RECEIVE)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.await_answer()?,
                Err(error) => return Err(error),
            }
        }
    }

    fn await_answer(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: ANSWER_SECONDS,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Dumped {
    fn add(&mut self, message: Option<RouteNetlinkMessage>) {
        match message {
            Some(RouteNetlinkMessage::NewLink(link)) => self.links.push(link),
            Some(RouteNetlinkMessage::NewAddress(address)) => self.addresses.push(address),
            Some(RouteNetlinkMessage::NewRoute(route)) => self.routes.push(route),
            Some(RouteNetlinkMessage::NewNeighbour(neighbour)) => self.neighbours.push(neighbour),
            _ => {}
        }
    }
}

fn get_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(route)
}

/// The family as netlink names it.
pub(crate) fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u16,
    sequence: u32,
}

/// The messages in a datagram with their types; ends at the first that is cut off.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, Header, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<MESSAGE_HEADER>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let message = bytes
            .get(..len)
            .filter(|message| message.len() >= MESSAGE_HEADER)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        let flags = u16::from_ne_bytes([f0, f1]);
        let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
        Some((
            u16::from_ne_bytes([k0, k1]),
            Header { flags, sequence },
            message,
        ))
    })
}

/// One that cannot be understood is skipped: a newer kernel may say more than we know.
fn parse(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(inner),
            ..
        }) => Some(inner),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "netlink message not understood");
            None
        }
    }
}

/// What an acknowledgement says: 0 or a negative error number behind the header.
fn outcome(message: &[u8]) -> io::Result<()> {
    let code = message
        .get(MESSAGE_HEADER..)
        .and_then(|body| body.first_chunk::<4>());
    match code.map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((MESSAGE_HEADER + body.len()) as u32)
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let mut bytes = message(28, b"abcde");
        bytes.extend(message(3, b""));
        let kinds: Vec<_> = messages(&bytes)
            .map(|(kind, _, whole)| (kind, whole.len()))
            .collect();
        assert_eq!(kinds, [(28, 21), (3, 16)]);
    }

    #[test]
    fn a_message_that_is_cut_off_or_shorter_than_its_header_ends_the_datagram() {
        let bytes = message(28, b"abcdefgh");
        assert_eq!(messages(&bytes[..20]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[]).count(), 0);
    }

    #[test]
    fn an_acknowledgement_is_success_or_the_error_that_it_names() {
        assert!(outcome(&message(NLMSG_ERROR, &0i32.to_ne_bytes())).is_ok());
        let refused = outcome(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(outcome(&message(NLMSG_ERROR, b"")).is_err());
    }
}
