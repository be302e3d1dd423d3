//! Where Sluice means to differ from the kernel, each with its reason.

use sluice_dataplane::wire::parse::TcpFlags;
use sluice_tests::differential::Side;

use super::script::{Special, What};
use super::{Case, Outcome};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A difference that is meant.
pub struct Known {
    /// What differs.
    pub name: &'static str,
    /// Why it is meant.
    pub reason: &'static str,
    /// Whether a case is one of these.
    pub is: fn(&Case<'_>) -> bool,
    /// Whether both remember the same afterwards, so that the flow can go on.
    pub goes_on: bool,
}

/// All of them; the first that fits counts.
pub const KNOWN: &[Known] = &[
    Known {
        name: "a segment of no connection is reset",
        reason: "the kernel drops it as invalid and the client waits for its timeout; a reset tells \
                 it at once that the connection is gone (RFC 9293 section 3.10.7.1)",
        is: |case| {
            let [(Side::Clients, reset)] = case.sluice.as_slice() else {
                return false;
            };
            case.step.side == Side::Clients && is_reset(reset) && case.kernel.is_empty()
        },
        goes_on: true,
    },
    Known {
        name: "a reset that its receiver would not believe is dropped",
        reason: "the kernel passes on every reset while it has not seen both sides' windows, and \
                 ends its record; Sluice wants it exact (RFC 5961 section 3.2), and of a SYN that \
                 it acknowledges it (RFC 9293 section 3.10.7.3)",
        is: |case| has_flag(case, RST) && case.sluice.is_empty() && case.kernel.len() == 1,
        goes_on: false,
    },
    Known {
        name: "a reset near the window is passed on",
        reason: "the kernel drops it when its idea of the window is narrower, as after a refused \
                 SYN; Sluice passes it on and changes nothing, for the receiver asks whether it \
                 is meant (RFC 5961 section 3.2)",
        is: |case| {
            let is_sound = case.step.special != Special::BadChecksum;
            has_flag(case, RST) && is_sound && is_passed(case)
        },
        goes_on: false,
    },
    Known {
        name: "a damaged packet of a connection is passed on as damaged",
        reason: "the kernel sums up every packet; Sluice only those that make or end a connection, \
                 and keeps the rest wrong by the same amount, so that the receiver drops them",
        is: |case| case.step.special == Special::BadChecksum && is_passed(case),
        goes_on: true,
    },
    Known {
        name: "a segment that comes too early or too late is passed on",
        reason: "the kernel drops as invalid what no state expects, such as an acknowledgement \
                 before the SYN-ACK; Sluice leaves that to the ends, translated: it may be the \
                 answer of a backend that still has the old connection of that tuple \
                 (RFC 9293 section 3.10.7.4)",
        is: |case| {
            let fits_nobody = match case.step.what {
                What::Segment { flags, .. } => !TcpFlags(flags).is_sound(),
                _ => true,
            };
            !fits_nobody && !has_flag(case, RST) && is_passed(case)
        },
        goes_on: false,
    },
    Known {
        name: "a complaint about a connection that was reset is passed on",
        reason: "the kernel forgets at once what is reset before it was answered; Sluice keeps its \
                 record for the seconds of a closed connection",
        is: |case| is_complaint(case.step.what) && is_passed(case),
        goes_on: false,
    },
    Known {
        name: "only the client opens",
        reason: "the kernel follows both sides opening at once, and takes a backend's SYN behind \
                 the end of the connection for one to the gateway itself, which it resets; no \
                 server does either, so Sluice drops what only the other side may send",
        is: |case| {
            let is_syn = has_flag(case, SYN) && !has_flag(case, RST);
            let is_of_other_side = has_flag(case, ACK) == (case.step.side == Side::Clients);
            let goes_nowhere = case.sluice.iter().all(|(side, _)| *side == case.step.side);
            is_syn && is_of_other_side && goes_nowhere
        },
        goes_on: false,
    },
    Known {
        name: "time exceeded is told of a packet that the kernel calls invalid",
        reason: "the kernel has not translated it, so it was for the gateway itself and went nowhere; \
                 Sluice looks at the hop limit first",
        is: |case| {
            let is_back = matches!(case.sluice.as_slice(), [(side, _)] if *side == case.step.side);
            case.step.special == Special::LastHop && is_back && case.kernel.is_empty()
        },
        goes_on: true,
    },
    Known {
        name: "a router's complaint keeps the router's address",
        reason: "the kernel gives it the address of the other end, so traceroute shows the Vip at \
                 every hop; Sluice shows the hop (RFC 5508 section 4)",
        is: |case| is_complaint(case.step.what) && are_alike(case, without_origin),
        goes_on: true,
    },
    Known {
        name: "time exceeded comes from the gateway",
        reason: "the kernel lets it come from the Vip, fit to be cut up; Sluice names the gateway, \
                 which is the hop that traceroute asks for",
        is: |case| case.step.special == Special::LastHop && are_alike(case, without_origin_and_cut),
        goes_on: true,
    },
    Known {
        name: "time exceeded quotes the first fragment",
        reason: "the kernel puts the packet together first and quotes the whole; Sluice never does",
        is: |case| {
            let is_back = |outcome: &Outcome| matches!(outcome.as_slice(), [(side, _)] if *side == case.step.side);
            matches!(case.step.what, What::Fragments { .. })
                && case.step.special == Special::LastHop
                && is_back(case.sluice)
                && is_back(case.kernel)
        },
        goes_on: true,
    },
    Known {
        name: "fragments go on as they come",
        reason: "the kernel puts the packet together, cuts it up again in order, and in IPv6 gives \
                 it a new identification; Sluice passes the first on at once and the others behind it",
        is: |case| {
            let sorted = |outcome: &Outcome| {
                let mut frames: Vec<_> =
                    outcome.iter().map(|(s, f)| (*s, without_name(f))).collect();
                frames.sort();
                frames
            };
            matches!(case.step.what, What::Fragments { .. })
                && sorted(case.sluice) == sorted(case.kernel)
        },
        goes_on: true,
    },
];

fn is_complaint(what: What) -> bool {
    matches!(
        what,
        What::PortUnreachable(_) | What::TooBig(_) | What::TimeExceeded(_)
    )
}

fn is_v6(frame: &[u8]) -> bool {
    frame.get(12) == Some(&0x86)
}

fn is_reset(frame: &[u8]) -> bool {
    let flags = if is_v6(frame) { 54 + 13 } else { 34 + 13 };
    frame.get(flags).is_some_and(|flags| flags & RST != 0)
}

fn has_flag(case: &Case<'_>, flag: u8) -> bool {
    matches!(case.step.what, What::Segment { flags, .. } if flags & flag != 0)
}

/// Whether Sluice alone lets the packet through.
fn is_passed(case: &Case<'_>) -> bool {
    let is_through = matches!(case.sluice.as_slice(), [(side, _)] if *side != case.step.side);
    is_through && case.kernel.is_empty()
}

/// Whether both let one frame out, the same without what `blank` takes out of it.
fn are_alike(case: &Case<'_>, blank: fn(&[u8]) -> Vec<u8>) -> bool {
    match (case.sluice.as_slice(), case.kernel.as_slice()) {
        ([(side, one)], [(other_side, other)]) => side == other_side && blank(one) == blank(other),
        _ => false,
    }
}

fn blanked(frame: &[u8], ranges: &[(usize, usize)]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (first, end) in ranges {
        if let Some(bytes) = frame.get_mut(*first..*end) {
            bytes.fill(0);
        }
    }
    frame
}

/// Without source address, and checksums over it.
fn without_origin(frame: &[u8]) -> Vec<u8> {
    match is_v6(frame) {
        true => blanked(frame, &[(22, 38), (56, 58)]),
        false => blanked(frame, &[(24, 30)]),
    }
}

/// Without source address, Don't Fragment (IPv6: flow label), and checksums over them.
fn without_origin_and_cut(frame: &[u8]) -> Vec<u8> {
    match is_v6(frame) {
        true => blanked(frame, &[(14, 18), (22, 38), (56, 58)]),
        false => blanked(frame, &[(20, 22), (24, 30)]),
    }
}

/// Without the identification of a fragment of IPv6.
fn without_name(frame: &[u8]) -> Vec<u8> {
    match is_v6(frame) {
        true => blanked(frame, &[(58, 62)]),
        false => frame.to_vec(),
    }
}
