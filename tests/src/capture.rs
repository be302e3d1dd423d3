//! What passed an interface: tcpdump in a namespace, and its file read back.
//!
//! A capture that lost packets is an error, so that "nothing bad was seen" never means "nothing was
//! seen".

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::clock;
use crate::netns::Netns;
use crate::packets::{self, Judged, Packet};
use crate::process::Process;

/// How long tcpdump may take to start or to end.
const LIMIT: Duration = Duration::from_secs(20);
/// Kernel buffer of a capture, in KiB.
const BUFFER_KIB: &str = "65536";
/// Bytes of the header of a pcap file and of each record in it.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// First word of a little-endian pcap file with microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// What a capture saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// IP packets without a mistake, in order.
    pub packets: Vec<Packet>,
    /// A sentence for each packet with a mistake.
    pub bad: Vec<String>,
    /// Frames that are neither IPv4 nor IPv6.
    pub others: usize,
}

impl Capture {
    /// Starts capturing on `interface` of `namespace` what matches `filter` (tcpdump's language;
    /// empty: everything), and returns when packets are being recorded.
    ///
    /// # Errors
    /// tcpdump cannot be started or complains.
    pub fn start(namespace: &Netns, interface: &str, filter: &str, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{}-{interface}.pcap", namespace.name()));
        let log = dir.join(format!("{}-{interface}.tcpdump.log", namespace.name()));
        // A log of an earlier capture on the same interface would look like readiness.
        let _ = fs::remove_file(&log);
        let path = file.to_string_lossy();
        let mut words = vec![
            "tcpdump",
            // Else packets stay in the kernel's block until it is full, and are lost at the end.
            "--immediate-mode",
            "-i",
            interface,
            "-n",
            "-s",
            "0",
            "-B",
            BUFFER_KIB,
            "-U",
            "-Z",
            "root",
            "-w",
            &path,
        ];
        words.extend(filter.split_whitespace());
        let mut process = namespace.start("tcpdump", &words, &log)?;
        clock::wait_for("start of the capture", LIMIT, || {
            process.still_running()?;
            Ok(process.log().contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// Waits until at least one packet was recorded.
    ///
    /// # Errors
    /// None is.
    pub fn wait(&self) -> Result<()> {
        clock::wait_for("a packet in the capture", LIMIT, || {
            let bytes = fs::read(&self.file).context("the capture's file")?;
            let whole = bytes.len() > FILE_HEADER && !frames(&bytes)?.is_empty();
            Ok(whole.then_some(()))
        })
    }

    /// Ends the capture and judges what it saw.
    ///
    /// # Errors
    /// tcpdump does not end, lost packets, or wrote a file that cannot be read.
    pub fn finish(mut self) -> Result<Seen> {
        self.process.end(Signal::SIGINT, LIMIT)?;
        let log = self.process.log();
        if !log.contains("\n0 packets dropped by kernel") {
            bail!("the capture lost packets: {log}");
        }
        let bytes = fs::read(&self.file).context("the capture's file")?;
        let mut seen = Seen::default();
        for frame in frames(&bytes)? {
            match packets::judge(frame) {
                Judged::Other => seen.others += 1,
                Judged::Good(packet) => seen.packets.push(packet),
                Judged::Bad(mistake) => seen.bad.push(mistake),
            }
        }
        Ok(seen)
    }
}

/// The frames in a pcap file, in order; a record cut off at the end is left out.
fn frames(file: &[u8]) -> Result<Vec<&[u8]>> {
    let number = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if number(file, 0) != Some(MAGIC) {
        bail!("not a little-endian pcap file with microseconds");
    }
    let mut rest = file.get(FILE_HEADER..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some(length) = number(rest, 8) {
        let end = RECORD_HEADER + length as usize;
        let Some(frame) = rest.get(RECORD_HEADER..end) else {
            break;
        };
        frames.push(frame);
        rest = &rest[end..];
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_of_a_file_as_they_went_in() {
        let mut file = MAGIC.to_le_bytes().to_vec();
        file.resize(FILE_HEADER, 0);
        for frame in [b"one".as_slice(), b"three"] {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            file.extend([0; 8]);
            file.extend(length);
            file.extend(length);
            file.extend(frame);
        }
        assert_eq!(frames(&file).unwrap(), [b"one".as_slice(), b"three"]);
        file.pop();
        assert_eq!(frames(&file).unwrap(), [b"one".as_slice()]);
        assert!(frames(b"GIF89a").is_err());
    }
}
