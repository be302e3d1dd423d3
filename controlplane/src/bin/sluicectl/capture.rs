//! `capture`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use sluice_conf::message::dataplane::tap::{Fate, MAX_SNAP_LEN, Side, TappedPacket};
use sluice_controlplane::pcapng::{Captured, Course, Writer};

use crate::follow::{Stream, Which};
use crate::trace;
use crate::{Answer, Common};

pub fn run(common: &Common, which: &Which, path: &Path) -> anyhow::Result<Answer> {
    let cannot = || format!("cannot write {}; choose another --write", path.display());
    // Before the file: who is refused must not lose an older capture.
    let stream = Stream::open(common, which, MAX_SNAP_LEN)?;
    let file = BufWriter::new(File::create(path).with_context(cannot)?);
    let mut pages = Pages::new(file).with_context(cannot)?;
    let tally = stream.follow(|packet| {
        // What comes again is written only then.
        let counts = !packet.fate.comes_again();
        if counts {
            pages.write(packet).with_context(cannot)?;
        }
        Ok(ControlFlow::Continue(counts))
    })?;
    pages.writer.into_inner().with_context(cannot)?;
    Ok(Answer {
        text: String::new(),
        remark: Some(tally.words(&format!("written to {}", path.display()))),
        code: 0,
    })
}

/// A capture in the making.
struct Pages<W: Write> {
    writer: Writer<W>,
    interfaces: HashMap<String, u32>,
}

impl<W: Write> Pages<W> {
    fn new(out: W) -> std::io::Result<Self> {
        let application = concat!("sluicectl ", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            writer: Writer::new(out, application, MAX_SNAP_LEN)?,
            interfaces: HashMap::new(),
        })
    }

    /// The frame that came in, with what became of it, and the one that left.
    fn write(&mut self, packet: &TappedPacket) -> std::io::Result<()> {
        let comment = comment(packet);
        if let Some(side) = &packet.before {
            self.frame(packet, side, Course::Inbound, &comment)?;
        }
        if let Some(side) = &packet.after {
            self.frame(packet, side, Course::Outbound, &comment)?;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        packet: &TappedPacket,
        side: &Side,
        course: Course,
        comment: &str,
    ) -> std::io::Result<()> {
        let interface = match self.interfaces.get(&side.interface) {
            Some(number) => *number,
            None => {
                let number = self.writer.interface(&side.interface)?;
                self.interfaces.insert(side.interface.clone(), number);
                number
            }
        };
        self.writer.frame(&Captured {
            interface,
            nanoseconds: packet.nanoseconds,
            course,
            bytes: &side.bytes,
            original_len: side.len,
            comment: Some(comment),
        })
    }
}

fn comment(packet: &TappedPacket) -> String {
    let mut comment = format!("worker {}", packet.worker);
    if let Some(service) = &packet.service {
        comment.push_str(&format!(", {service}"));
    }
    if let Some(backend) = packet.backend {
        comment.push_str(&format!(" at {backend}"));
    }
    comment.push_str(&format!(": {}", trace::fate(&packet.fate)));
    if let Fate::Drop(reason) = &packet.fate {
        comment.push_str(&format!(" What to do: {}", reason.remedy));
    }
    comment
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_conf::message::dataplane::explain::Reason;

    fn side(interface: &str) -> Side {
        Side {
            interface: interface.into(),
            headers: None,
            len: 60,
            bytes: vec![7; 60],
        }
    }

    fn packet(fate: Fate) -> TappedPacket {
        TappedPacket {
            nanoseconds: 1,
            worker: 0,
            service: None,
            backend: None,
            before: Some(side("eth0")),
            after: None,
            fate,
        }
    }

    fn written(packets: &[TappedPacket]) -> Vec<u8> {
        let mut pages = Pages::new(Vec::new()).unwrap();
        for packet in packets {
            pages.write(packet).unwrap();
        }
        pages.writer.into_inner().unwrap()
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }

    #[test]
    fn a_dropped_frame_says_why_and_what_to_do() {
        let bytes = written(&[packet(Fate::Drop(Reason {
            name: "no_route".into(),
            sentence: "There is none.".into(),
            remedy: "Add one.".into(),
        }))]);
        let comment = "worker 0: DROP no_route: There is none. What to do: Add one.";
        assert!(holds(&bytes, comment));
    }

    #[test]
    fn a_forwarded_frame_is_written_on_both_sides() {
        let both = TappedPacket {
            after: Some(side("eth1")),
            ..packet(Fate::Forward)
        };
        let bytes = written(&[both]);
        assert!(holds(&bytes, "eth0") && holds(&bytes, "eth1"));
    }
}
