//! Conversations through the gateway, every packet of them judged.

use std::net::{IpAddr, SocketAddr};

use sluice_conf::Protocol;

use super::gateway::{Fate, Gateway};
use super::wire::{self, Packet, Seen, Stage};

/// First source port of clients.
pub const FIRST_PORT: u16 = 1024;

/// Connections that are opened for each endpoint that should be met. Missing one of `n` by chance
/// has a probability below `n * exp(-64)`.
const PER_ENDPOINT: usize = 64;

/// How many connections are opened to meet so many endpoints.
pub fn enough(endpoints: usize) -> usize {
    let all = usize::from(u16::MAX - FIRST_PORT);
    endpoints.max(1).saturating_mul(PER_ENDPOINT).min(all)
}

/// Source ports of so many connections.
pub fn ports(count: usize) -> impl Iterator<Item = u16> {
    (FIRST_PORT..=u16::MAX).take(count)
}

/// A conversation of a client with the endpoint that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// Protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// What the client talks to.
    pub front: SocketAddr,
    /// Who serves it.
    pub endpoint: SocketAddr,
    /// Whom the endpoint believes to serve.
    pub source: SocketAddr,
}

/// Opens a connection, there and back and there again.
pub fn converse(
    gateway: &mut Gateway,
    protocol: Protocol,
    client: SocketAddr,
    front: SocketAddr,
) -> Result<Conversation, String> {
    let opened = open(gateway, protocol, client, front)?;
    opened.answer(gateway, Stage::Answer)?;
    opened.go_on(gateway)?;
    Ok(opened)
}

/// Opens a connection; only the first packet is sent.
pub fn open(
    gateway: &mut Gateway,
    protocol: Protocol,
    client: SocketAddr,
    front: SocketAddr,
) -> Result<Conversation, String> {
    let packet = Packet {
        protocol,
        from: client,
        to: front,
        stage: Stage::First,
    };
    let (source, endpoint) = translated(gateway, &packet)?;
    Ok(Conversation {
        protocol,
        client,
        front,
        endpoint,
        source,
    })
}

impl Conversation {
    /// The client's next packet; it must arrive where the first did, and be answered.
    pub fn go_on(&self, gateway: &mut Gateway) -> Result<(), String> {
        let packet = self.packet(Stage::Next);
        let ends = translated(gateway, &packet)?;
        if ends != (self.source, self.endpoint) {
            let (from, to) = ends;
            return Err(format!(
                "expected the connection to stay from {} to {}, seen {from} to {to}",
                self.source, self.endpoint
            ));
        }
        self.answer(gateway, Stage::Reply)
    }

    /// The client's packet of this stage.
    pub fn packet(&self, stage: Stage) -> Packet {
        Packet {
            protocol: self.protocol,
            from: self.client,
            to: self.front,
            stage,
        }
    }

    /// The endpoint's packet; it must reach the client from what the client talks to.
    fn answer(&self, gateway: &mut Gateway, stage: Stage) -> Result<(), String> {
        let packet = Packet {
            protocol: self.protocol,
            from: self.endpoint,
            to: self.source,
            stage,
        };
        let ends = translated(gateway, &packet)?;
        if ends != (self.front, self.client) {
            let (from, to) = ends;
            return Err(format!(
                "expected the reply of {} to arrive from {} at {}, seen from {from} at {to}",
                self.endpoint, self.front, self.client
            ));
        }
        Ok(())
    }
}

/// From whom and to whom a packet is after the gateway; nothing else of it may have changed.
fn translated(gateway: &mut Gateway, packet: &Packet) -> Result<(SocketAddr, SocketAddr), String> {
    let fate = gateway.send(packet)?;
    if let Fate::Sent(frames) = &fate
        && let [
            Seen::Segment {
                protocol,
                from,
                to,
                is_reset: false,
                payload,
            },
        ] = frames.as_slice()
    {
        if *protocol != packet.protocol || *payload != packet.payload() {
            return Err(format!("{} to {} lost its content", packet.from, packet.to));
        }
        return Ok((*from, *to));
    }
    let Packet { from, to, .. } = packet;
    Err(format!(
        "expected {from} to {to} to be forwarded, seen: {fate}"
    ))
}

/// A packet must be refused with port unreachable that quotes it.
pub fn refused(
    gateway: &mut Gateway,
    protocol: Protocol,
    client: SocketAddr,
    front: SocketAddr,
) -> Result<(), String> {
    let packet = Packet {
        protocol,
        from: client,
        to: front,
        stage: Stage::First,
    };
    let fate = gateway.send(&packet)?;
    let expected = "expected ICMP port unreachable";
    if let Fate::Sent(frames) = &fate
        && let [Seen::PortUnreachable { from, to, quote }] = frames.as_slice()
    {
        let is_right = (*from, *to) == (front.ip(), client.ip());
        return match is_right && wire::is_quoted(&gateway.frame(&packet), quote) {
            true => Ok(()),
            false => Err(format!(
                "{expected} from {} that quotes the packet, seen: {fate}, {} bytes quoted",
                front.ip(),
                quote.len()
            )),
        };
    }
    Err(format!("{expected} from {}, seen: {fate}", front.ip()))
}

/// What becomes of a first packet.
pub fn fate(
    gateway: &mut Gateway,
    protocol: Protocol,
    client: SocketAddr,
    front: SocketAddr,
) -> Result<Fate, String> {
    gateway.send(&Packet {
        protocol,
        from: client,
        to: front,
        stage: Stage::First,
    })
}

/// Clients like this one, itself first: of the same networks, and no address that a case names.
pub fn clients_like<'a>(
    client: IpAddr,
    networks: &'a [ipnet::IpNet],
    is_taken: impl Fn(&IpAddr) -> bool + 'a,
) -> impl Iterator<Item = IpAddr> + 'a {
    let neighbour = move |number: u32| -> Option<IpAddr> {
        match client {
            IpAddr::V4(v4) => Some(v4.to_bits().checked_add(number)?)
                .map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits))),
            IpAddr::V6(v6) => Some(v6.to_bits().checked_add(number.into())?)
                .map(|bits| IpAddr::from(std::net::Ipv6Addr::from_bits(bits))),
        }
    };
    let is_alike = move |other: &IpAddr| {
        let mut networks = networks.iter();
        networks.all(|network| network.contains(&client) == network.contains(other))
    };
    let others = (1..=4096).filter_map(neighbour);
    let others = others.filter(move |other| is_alike(other) && !is_taken(other));
    std::iter::once(client).chain(others)
}
