//! VLAN tags of a frame that leaves (IEEE 802.1Q, 802.1ad).

use super::parse::ETHERNET_LEN;
use crate::io::PacketIo;
use crate::neighbour::Tags;

/// Type of the outer of two tags, and of all others.
const OUTER: u16 = 0x88a8;
const TAG: u16 = 0x8100;

/// Bytes in front of the tags: two Ethernet addresses.
const ADDRESSES: usize = 12;

/// Gives a frame that carries `from` the tags `to`. Its Ethernet addresses mean nothing afterwards.
///
/// False, and nothing changed, when its slot has no room in front.
pub fn retag<Io: PacketIo>(io: &mut Io, frame: &mut Io::Frame, from: Tags, to: Tags) -> bool {
    if from == to {
        return true;
    }
    let Some(kind) = frame_kind(io.bytes(frame), from) else {
        return false;
    };
    if !io.shift(frame, to.len() as isize - from.len() as isize) {
        return false;
    }
    write_tags(io.bytes_mut(frame), to, kind)
}

fn frame_kind(frame: &[u8], tags: Tags) -> Option<[u8; 2]> {
    let at = ETHERNET_LEN - 2 + tags.len();
    frame.get(at..)?.first_chunk::<2>().copied()
}

/// Writes tags and type behind the Ethernet addresses. False when the frame is too short.
pub fn write_tags(frame: &mut [u8], tags: Tags, kind: [u8; 2]) -> bool {
    let Some(header) = frame.get_mut(ADDRESSES..ETHERNET_LEN + tags.len()) else {
        return false;
    };
    let (written, last) = header.split_at_mut(tags.len());
    let both = tags.count() == 2;
    let present = tags.0.into_iter().filter(|tag| *tag != 0);
    for ((bytes, tag), is_first) in written.chunks_mut(4).zip(present).zip([true, false]) {
        let protocol = if both && is_first { OUTER } else { TAG };
        bytes[..2].copy_from_slice(&protocol.to_be_bytes());
        bytes[2..].copy_from_slice(&tag.to_be_bytes());
    }
    last.copy_from_slice(&kind);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_outermost_first_and_the_type_behind_them() {
        let mut frame = vec![0xee; 24];
        assert!(write_tags(&mut frame, Tags([100, 7]), [0x08, 0x00]));
        assert_eq!(
            frame[12..22],
            [0x88, 0xa8, 0, 100, 0x81, 0x00, 0, 7, 0x08, 0x00]
        );
        assert!(write_tags(&mut frame, Tags([100, 0]), [0x86, 0xdd]));
        assert_eq!(frame[12..18], [0x81, 0x00, 0, 100, 0x86, 0xdd]);
        assert!(write_tags(&mut frame, Tags::default(), [0x08, 0x06]));
        assert_eq!(frame[12..14], [0x08, 0x06]);
        assert!(!write_tags(&mut frame[..20], Tags([100, 7]), [0x08, 0x00]));
    }
}
