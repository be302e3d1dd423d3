//! Frames as a pcapng file (draft-ietf-opsawg-pcapng), for Wireshark and tcpdump.
//!
//! The stream starts with a section header, then come the interfaces, then frames, each with its
//! direction and a comment that may say what became of it. Every block goes out in one write, so a
//! reader that follows meets whole blocks.

use std::io::{self, Write};

/// Bytes of a comment or name that are kept; the rest is cut off at a character.
pub const MAX_TEXT: usize = 1024;

// Types of blocks (sections 4.1 to 4.3).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

// Options (sections 3.5, 4.1, 4.2 and 4.3).
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// Tells the reader our byte order.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Section length that says nothing.
const UNKNOWN_LEN: u64 = u64::MAX;

const LINK_TYPE_ETHERNET: u16 = 1;

/// Times count in 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// Bytes of a block besides captured bytes and text, with room to spare.
const MAX_OVERHEAD: usize = 64;

/// Which way a frame went through its interface; the values are those of epb_flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Course {
    /// It came in.
    Inbound = 1,
    /// It was sent out.
    Outbound = 2,
}

/// A frame to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Number of the interface, as [`Writer::interface`] has returned it.
    pub interface: u32,
    /// Nanoseconds since the start of 1970, UTC.
    pub nanoseconds: u64,
    /// Which way it went.
    pub course: Course,
    /// The frame from its Ethernet header on, whole or its first bytes.
    pub bytes: &'a [u8],
    /// Bytes that the frame had on the wire.
    pub original_len: u32,
    /// What to say about it.
    pub comment: Option<&'a str>,
}

/// Writes one section. Nothing is allocated after construction; a failed write may leave half a
/// block behind, after which the stream is of no use.
pub struct Writer<W> {
    out: W,
    /// The block in the making.
    block: Vec<u8>,
    snap_len: u32,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Starts the section. `application` names what writes it; of each frame at most `snap_len`
    /// bytes are kept.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn new(out: W, application: &str, snap_len: u16) -> io::Result<Self> {
        let room = usize::from(snap_len) + MAX_TEXT + MAX_OVERHEAD;
        let mut writer = Self {
            out,
            block: Vec::with_capacity(room),
            snap_len: u32::from(snap_len),
            interfaces: 0,
        };
        writer.begin(SECTION_HEADER);
        writer.long(BYTE_ORDER_MAGIC);
        // Version 1.0.
        writer.short(1);
        writer.short(0);
        writer.block.extend(UNKNOWN_LEN.to_le_bytes());
        writer.option(SECTION_APPLICATION, bounded(application).as_bytes());
        writer.finish()?;
        Ok(writer)
    }

    /// Describes an Ethernet interface and returns its number, counted from 0.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn interface(&mut self, name: &str) -> io::Result<u32> {
        self.begin(INTERFACE_DESCRIPTION);
        self.short(LINK_TYPE_ETHERNET);
        self.short(0);
        self.long(self.snap_len);
        self.option(INTERFACE_NAME, bounded(name).as_bytes());
        self.option(INTERFACE_RESOLUTION, &[NANOSECONDS]);
        self.finish()?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// Those of the stream; `InvalidInput` when the interface has not been described.
    pub fn frame(&mut self, frame: &Captured<'_>) -> io::Result<()> {
        if frame.interface >= self.interfaces {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "interface {} of a captured frame: only {} are described in this file; \
                     describe it first",
                    frame.interface, self.interfaces
                ),
            ));
        }
        let len = frame.bytes.len().min(self.snap_len as usize);
        let bytes = frame.bytes.get(..len).unwrap_or_default();
        self.begin(ENHANCED_PACKET);
        self.long(frame.interface);
        self.long((frame.nanoseconds >> 32) as u32);
        self.long(frame.nanoseconds as u32);
        self.long(len as u32);
        self.long(frame.original_len.max(len as u32));
        self.padded(bytes);
        self.option(PACKET_FLAGS, &(frame.course as u32).to_le_bytes());
        if let Some(comment) = frame.comment {
            self.option(COMMENT, bounded(comment).as_bytes());
        }
        self.finish()
    }

    /// Flushes the stream and returns it.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Starts a block; its length follows when it is known.
    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.long(kind);
        self.long(0);
    }

    fn finish(&mut self) -> io::Result<()> {
        self.option(END_OF_OPTIONS, &[]);
        let len = (self.block.len() + 4) as u32;
        self.long(len);
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        self.out.write_all(&self.block)
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.short(code);
        // The longest value is a text, far below 65,536 bytes.
        self.short(value.len() as u16);
        self.padded(value);
    }

    /// Everything ends at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn long(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn short(&mut self, value: u16) {
        self.block.extend(value.to_le_bytes());
    }
}

fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A block as a reader sees it: type and body without the options, then the options.
    #[derive(Debug, PartialEq)]
    struct Block {
        kind: u32,
        body: Vec<u8>,
        options: Vec<(u16, Vec<u8>)>,
    }

    fn long(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn read_options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut options = Vec::new();
        loop {
            let (code, len) = (long(bytes, 0) as u16, long(bytes, 0) as usize >> 16);
            if code == 0 {
                assert_eq!((bytes.len(), len), (4, 0), "the end of options is the end");
                return options;
            }
            options.push((code, bytes[4..4 + len].to_vec()));
            let end = 4 + len.div_ceil(4) * 4;
            assert!(bytes[4 + len..end].iter().all(|b| *b == 0));
            bytes = &bytes[end..];
        }
    }

    /// Reads a whole stream by the draft's figures 9, 10 and 11.
    fn read(mut bytes: &[u8]) -> Vec<Block> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let (kind, len) = (long(bytes, 0), long(bytes, 4) as usize);
            assert_eq!(len % 4, 0);
            assert_eq!(long(bytes, len - 4) as usize, len);
            let inner = &bytes[8..len - 4];
            let fixed = match kind {
                0x0a0d_0d0a => 16,
                1 => 8,
                6 => 20 + (long(inner, 12) as usize).div_ceil(4) * 4,
                _ => panic!("block of type {kind}"),
            };
            blocks.push(Block {
                kind,
                body: inner[..fixed].to_vec(),
                options: read_options(&inner[fixed..]),
            });
            bytes = &bytes[len..];
        }
        blocks
    }

    fn captured(bytes: &[u8]) -> Captured<'_> {
        Captured {
            interface: 0,
            nanoseconds: 1_700_000_000_123_456_789,
            course: Course::Inbound,
            bytes,
            original_len: bytes.len() as u32,
            comment: None,
        }
    }

    /// The frame's block of a stream with one interface.
    fn written(snap_len: u16, frame: &Captured<'_>) -> Block {
        let mut writer = Writer::new(Vec::new(), "sluice", snap_len).unwrap();
        assert_eq!(writer.interface("eth0").unwrap(), 0);
        writer.frame(frame).unwrap();
        let room = writer.block.capacity();
        let mut blocks = read(&writer.into_inner().unwrap());
        assert_eq!(blocks.len(), 3);
        assert!(room <= usize::from(snap_len) + MAX_TEXT + MAX_OVERHEAD);
        blocks.remove(2)
    }

    #[test]
    fn a_stream_starts_with_its_section_and_its_interfaces() {
        let mut writer = Writer::new(Vec::new(), "sluice 1.0", 256).unwrap();
        assert_eq!(writer.interface("eth0").unwrap(), 0);
        assert_eq!(writer.interface("eth1.5").unwrap(), 1);
        let mut section = vec![0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
        section.extend([0xff; 8]);
        let interface = |name: &str| Block {
            kind: 1,
            body: vec![1, 0, 0, 0, 0, 1, 0, 0],
            options: vec![(2, name.into()), (9, vec![9])],
        };
        let expected = [
            Block {
                kind: 0x0a0d_0d0a,
                body: section,
                options: vec![(4, b"sluice 1.0".to_vec())],
            },
            interface("eth0"),
            interface("eth1.5"),
        ];
        assert_eq!(read(&writer.into_inner().unwrap()), expected);
    }

    #[test]
    fn a_frame_has_its_time_its_lengths_its_direction_and_its_comment() {
        let frame = Captured {
            course: Course::Outbound,
            original_len: 1500,
            comment: Some("verworfen: no_connection äöü"),
            ..captured(&[1, 2, 3, 4, 5])
        };
        let block = written(256, &frame);
        let time = 1_700_000_000_123_456_789u64;
        assert_eq!(long(&block.body, 0), 0);
        assert_eq!(long(&block.body, 4), (time >> 32) as u32);
        assert_eq!(long(&block.body, 8), (time & 0xffff_ffff) as u32);
        assert_eq!(long(&block.body, 12), 5);
        assert_eq!(long(&block.body, 16), 1500);
        assert_eq!(block.body[20..], [1, 2, 3, 4, 5, 0, 0, 0]);
        let comment = "verworfen: no_connection äöü".as_bytes().to_vec();
        assert_eq!(block.options, [(2, vec![2, 0, 0, 0]), (1, comment)]);
    }

    #[test]
    fn a_frame_is_cut_at_the_snap_length() {
        let block = written(4, &captured(&[1, 2, 3, 4, 5]));
        assert_eq!((long(&block.body, 12), long(&block.body, 16)), (4, 5));
        assert_eq!(block.body[20..], [1, 2, 3, 4]);
        assert_eq!(block.options, [(2, vec![1, 0, 0, 0])]);
    }

    #[test]
    fn a_long_comment_is_cut_at_a_character() {
        let comment = format!("x{}", "ä".repeat(MAX_TEXT));
        let frame = Captured {
            comment: Some(&comment),
            ..captured(&[0; 60])
        };
        let block = written(60, &frame);
        let kept = String::from_utf8(block.options[1].1.clone()).unwrap();
        assert_eq!(kept.len(), MAX_TEXT - 1);
        assert!(comment.starts_with(&kept));
    }

    #[test]
    fn a_frame_of_an_interface_that_was_never_described_is_an_error() {
        let mut writer = Writer::new(Vec::new(), "sluice", 256).unwrap();
        let error = writer.frame(&captured(&[0; 60])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read(&writer.into_inner().unwrap()).len(), 1);
    }

    #[test]
    fn the_error_of_the_stream_is_passed_on() {
        assert!(Writer::new(&mut [0u8; 10][..], "sluice", 256).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read_back(
            frames in proptest::collection::vec((
                any::<u64>(),
                any::<bool>(),
                proptest::collection::vec(any::<u8>(), 0..100),
                any::<Option<String>>(),
            ), 0..10),
            snap_len in 0..120u16,
        ) {
            let mut writer = Writer::new(Vec::new(), "sluice", snap_len).unwrap();
            writer.interface("eth0").unwrap();
            for (nanoseconds, is_inbound, bytes, comment) in &frames {
                let course = if *is_inbound { Course::Inbound } else { Course::Outbound };
                let comment = comment.as_deref();
                let nanoseconds = *nanoseconds;
                let frame = Captured { nanoseconds, course, comment, ..captured(bytes) };
                writer.frame(&frame).unwrap();
            }
            let blocks = read(&writer.into_inner().unwrap());
            prop_assert_eq!(blocks.len(), frames.len() + 2);
            for (block, (time, is_inbound, bytes, comment)) in blocks[2..].iter().zip(frames) {
                let kept = bytes.len().min(usize::from(snap_len));
                let (high, low) = (long(&block.body, 4), long(&block.body, 8));
                prop_assert_eq!(u64::from(high) << 32 | u64::from(low), time);
                prop_assert_eq!(long(&block.body, 12) as usize, kept);
                prop_assert_eq!(long(&block.body, 16) as usize, bytes.len());
                prop_assert_eq!(&block.body[20..20 + kept], &bytes[..kept]);
                let mut options = vec![(2, vec![2 - u8::from(is_inbound), 0, 0, 0])];
                options.extend(comment.map(|text| (1, text.into_bytes())));
                prop_assert_eq!(&block.options, &options);
            }
        }
    }
}
