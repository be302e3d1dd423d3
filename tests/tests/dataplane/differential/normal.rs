//! Frames in a form in which two gateways can be compared: without what each may choose for itself.
//!
//! - The masquerade port becomes one and the same, in headers and in quoted packets; checksums
//!   follow (RFC 1624), so a wrong one stays wrong by the same amount.
//! - The identification of an IPv4 packet becomes 0, unless it is a fragment.
//! - A ones' complement sum of 0xffff becomes 0, which means the same.

/// What every masquerade port becomes.
const PORT: [u8; 2] = [0xbe, 0xef];
const ETHERNET: usize = 14;
/// The gateway on the backends' side, of both families.
const GATEWAY_V4: [u8; 4] = [10, 0, 2, 1];
const GATEWAY_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Header places of an IP packet.
struct Layout {
    source: std::ops::Range<usize>,
    destination: std::ops::Range<usize>,
    transport: usize,
    protocol: u8,
    is_v4: bool,
    /// Whether the transport header stands here.
    is_first: bool,
    is_fragment: bool,
}

fn layout(packet: &[u8]) -> Option<Layout> {
    if packet.first()? >> 4 == 4 {
        let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]);
        return Some(Layout {
            source: 12..16,
            destination: 16..20,
            transport: usize::from(packet[0] & 0xf) * 4,
            protocol: packet[9],
            is_v4: true,
            is_first: fragment & 0x1fff == 0,
            is_fragment: fragment & 0x3fff != 0,
        });
    }
    let (mut transport, mut protocol) = (40, *packet.get(6)?);
    let is_fragment = protocol == 44;
    let mut is_first = true;
    if is_fragment {
        (protocol, is_first) = (
            *packet.get(40)?,
            *packet.get(42)? == 0 && *packet.get(43)? < 8,
        );
        transport = 48;
    }
    Some(Layout {
        source: 8..24,
        destination: 24..40,
        transport,
        protocol,
        is_v4: false,
        is_first,
        is_fragment,
    })
}

impl Layout {
    fn checksum(&self) -> Option<usize> {
        let offset = match self.protocol {
            6 => 16,
            17 => 6,
            1 | 58 => 2,
            _ => return None,
        };
        Some(self.transport + offset)
    }
}

/// The masquerade port of a packet towards the backend.
pub fn masquerade_port(frame: &[u8]) -> Option<u16> {
    let packet = frame.get(ETHERNET..)?;
    let layout = layout(packet)?;
    let is_translated =
        is_gateway(packet.get(layout.source.clone())?) && matches!(layout.protocol, 6 | 17);
    let at = layout.transport;
    (is_translated && layout.is_first)
        .then_some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

fn is_gateway(address: &[u8]) -> bool {
    address == GATEWAY_V4 || address == GATEWAY_V6
}

/// The frame in its normal form.
pub fn normal(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(packet) = frame.get_mut(ETHERNET..) {
        let _ = outer(packet);
    }
    frame
}

fn outer(packet: &mut [u8]) -> Option<()> {
    let layout = layout(packet)?;
    if layout.is_v4 && !layout.is_fragment {
        replace(packet, 4, [0, 0], &[10]);
    }
    let is_error = matches!(
        (layout.protocol, packet.get(layout.transport)?),
        (1, 3 | 11 | 12) | (58, 1..=4)
    );
    if is_error {
        let quote = layout.transport + 8;
        let before = packet.to_vec();
        inner(packet.get_mut(quote..)?);
        // The sum over the message takes in every change of the quote.
        let checksum = layout.transport + 2;
        for at in (quote..packet.len().saturating_sub(1)).step_by(2) {
            follow(
                packet,
                checksum,
                [before[at], before[at + 1]],
                [packet[at], packet[at + 1]],
            );
        }
    } else {
        inner(packet);
    }
    canonical(packet, layout.checksum()?)
}

/// Makes the masquerade port of a packet the usual one.
fn inner(packet: &mut [u8]) -> Option<()> {
    let layout = layout(packet)?;
    if !layout.is_first || !matches!(layout.protocol, 6 | 17) {
        return None;
    }
    let checksum = layout.checksum()?;
    for (address, at) in [
        (layout.source, layout.transport),
        (layout.destination, layout.transport + 2),
    ] {
        if is_gateway(packet.get(address)?) {
            let has_sum = layout.protocol == 6 || packet.get(checksum..checksum + 2)? != [0, 0];
            let sums: &[usize] = if has_sum { &[checksum] } else { &[] };
            replace(packet, at, PORT, sums)?;
        }
    }
    canonical(packet, checksum)
}

fn replace(packet: &mut [u8], at: usize, new: [u8; 2], checksums: &[usize]) -> Option<()> {
    let old = *packet.get(at..)?.first_chunk::<2>()?;
    packet.get_mut(at..at + 2)?.copy_from_slice(&new);
    for checksum in checksums {
        follow(packet, *checksum, old, new);
    }
    Some(())
}

/// RFC 1624, equation 3.
fn follow(packet: &mut [u8], checksum: usize, old: [u8; 2], new: [u8; 2]) -> Option<()> {
    let field = packet.get_mut(checksum..checksum + 2)?;
    let word = u16::from_be_bytes;
    let mut sum =
        u32::from(!word([field[0], field[1]])) + u32::from(!word(old)) + u32::from(word(new));
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(())
}

fn canonical(packet: &mut [u8], checksum: usize) -> Option<()> {
    let field = packet.get_mut(checksum..checksum + 2)?;
    if field == [0xff, 0xff] {
        field.fill(0);
    }
    Some(())
}
