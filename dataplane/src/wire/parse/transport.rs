//! Transport headers: TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260).

use etherparse::{TcpHeaderSlice, TcpOptionElement, TcpOptionsIterator, UdpHeaderSlice};
use sluice_conf::Protocol;

use super::{Segment, Signal, TcpFlags};
use crate::verdict::DropReason;

type Ports = (u16, u16);

/// Ports and meaning of a transport header. `is_first` says that `bytes` are the first fragment of
/// more.
pub(super) fn parse(
    protocol: Protocol,
    bytes: &[u8],
    is_first: bool,
) -> Result<(Ports, Signal), DropReason> {
    let parsed = match protocol {
        Protocol::Tcp => tcp(bytes),
        Protocol::Udp => udp(bytes, is_first),
        Protocol::Sctp => sctp(bytes),
    };
    let parsed = parsed.map_err(|reason| match (reason, is_first) {
        (DropReason::Truncated, true) => DropReason::FragmentTiny,
        (reason, _) => reason,
    })?;
    let ((source, destination), _) = parsed;
    if source == 0 || destination == 0 {
        return Err(DropReason::BadHeader);
    }
    Ok(parsed)
}

fn tcp(bytes: &[u8]) -> Result<(Ports, Signal), DropReason> {
    use etherparse::err::tcp::HeaderSliceError;
    let tcp = TcpHeaderSlice::from_slice(bytes).map_err(|error| match error {
        HeaderSliceError::Len(_) => DropReason::Truncated,
        HeaderSliceError::Content(_) => DropReason::BadHeader,
    })?;
    let header_len = tcp.slice().len();
    let flags = TcpFlags(tcp.slice().get(13).copied().unwrap_or_default());
    let segment = Segment {
        flags,
        sequence: tcp.sequence_number(),
        acknowledgement: tcp.acknowledgment_number(),
        window: tcp.window_size(),
        header_len: header_len as u8,
        data_len: bytes.len().saturating_sub(header_len) as u16,
        scale: window_scale(flags, tcp.options()),
    };
    Ok((
        (tcp.source_port(), tcp.destination_port()),
        Signal::Tcp(segment),
    ))
}

/// Window scale that the options of a segment with these flags announce.
#[inline]
pub(in crate::wire) fn window_scale(flags: TcpFlags, options: &[u8]) -> Option<u8> {
    match flags.any(TcpFlags::SYN) && !options.is_empty() {
        true => find_window_scale(options),
        false => None,
    }
}

fn find_window_scale(options: &[u8]) -> Option<u8> {
    TcpOptionsIterator::from_slice(options)
        .map_while(Result::ok)
        .find_map(|option| match option {
            TcpOptionElement::WindowScale(shift) => Some(shift),
            _ => None,
        })
}

fn udp(bytes: &[u8], is_first: bool) -> Result<(Ports, Signal), DropReason> {
    let udp = UdpHeaderSlice::from_slice(bytes).map_err(|_| DropReason::Truncated)?;
    let length = usize::from(udp.length());
    if length < 8 {
        return Err(DropReason::BadHeader);
    }
    if length > bytes.len() && !is_first {
        return Err(DropReason::Truncated);
    }
    Ok(((udp.source_port(), udp.destination_port()), Signal::Plain))
}

/// The common header, and the type of the first chunk behind it.
fn sctp(bytes: &[u8]) -> Result<(Ports, Signal), DropReason> {
    let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, rest @ ..] = bytes else {
        return Err(DropReason::Truncated);
    };
    // A chunk has at least its own header of four bytes.
    let [chunk, _, _, _, ..] = rest else {
        return Err(DropReason::BadHeader);
    };
    let ports = (
        u16::from_be_bytes([*s0, *s1]),
        u16::from_be_bytes([*d0, *d1]),
    );
    Ok((ports, Signal::Sctp(*chunk)))
}
