//! Bytes to questions, and answers to bytes.
//!
//! Guarantees: any bytes are read without a panic and in memory in proportion to them; a response is
//! never answered; what is written is no longer than the client takes, and marked as truncated when
//! a record of the answer is missing. Missing glue is not marked (RFC 2181, section 9).

use hickory_proto::ProtoError;
use hickory_proto::op::{
    Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable, BinDecoder, BinEncodable, BinEncoder, DecodeError,
};

mod addresses;

/// Length of a header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// What every client takes by UDP (RFC 1035, section 2.3.4).
const SMALLEST: u16 = 512;
/// What is sent by UDP at most, and what this server takes: it passes every usual path in one piece
/// (DNS Flag Day 2020).
pub const LARGEST_UDP: u16 = 1232;
/// What a message can be by TCP.
const LARGEST: u16 = u16::MAX;
/// Length of an OPT record without options (RFC 6891, section 6.1.2).
const OPT: u16 = 11;
/// Length of the shortest record: a pointer for the name, and an IPv4 address.
const SHORTEST_RECORD: u16 = 16;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a stream.
    Tcp,
}

/// A question as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What its answer has of its header.
    metadata: Metadata,
    /// The question.
    pub query: Query,
    /// Whether the client speaks EDNS, and how much it takes by UDP.
    edns: Option<u16>,
    transport: Transport,
}

/// What a message is.
#[derive(Debug)]
pub enum Incoming {
    /// A question.
    Asked(Asked),
    /// Something that is answered at once, with this code.
    Refused(Vec<u8>, ResponseCode),
    /// Nothing that is answered.
    Garbage,
}

/// The sections of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Sections<'a> {
    /// Response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: &'a [Record],
    /// Authority section.
    pub authorities: &'a [Record],
    /// Additional section.
    pub additionals: &'a [Record],
    /// Whether there are more records.
    pub truncated: bool,
    /// Whether this server is the authority.
    pub authoritative: bool,
    /// Whether it asks others.
    pub recursive: bool,
}

impl Sections<'static> {
    /// Only a code.
    pub const fn code(code: ResponseCode) -> Self {
        Self {
            code,
            answers: &[],
            authorities: &[],
            additionals: &[],
            truncated: false,
            authoritative: false,
            recursive: false,
        }
    }
}

/// Reads a message.
pub fn read(bytes: &[u8], transport: Transport) -> Incoming {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
        return Incoming::Garbage;
    };
    let is_response = header[2] & 0x80 != 0;
    if is_response {
        return Incoming::Garbage;
    }
    let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let id = u16::from_be_bytes([header[0], header[1]]);
    let mut metadata = Metadata::new(id, MessageType::Response, op_code);
    metadata.recursion_desired = header[2] & 0x01 != 0;
    let refuse = |code| match bare(metadata, code) {
        Some(bytes) => Incoming::Refused(bytes, code),
        None => Incoming::Garbage,
    };
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let questions = u16::from_be_bytes([header[4], header[5]]);
    // Checked before anything is read: memory is reserved by that number.
    if questions != 1 {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(Parts {
        header,
        query,
        edns,
    }) = parts(bytes)
    else {
        return refuse(ResponseCode::FormErr);
    };
    metadata.checking_disabled = header.metadata.checking_disabled;
    let asked = Asked {
        metadata,
        query,
        edns: edns.as_ref().map(Edns::max_payload),
        transport,
    };
    let refusal = match edns.as_ref().map(Edns::version) {
        Some(version) if version > 0 => Some(ResponseCode::BADVERS),
        _ if asked.query.query_class != DNSClass::IN => Some(ResponseCode::Refused),
        _ => None,
    };
    match refusal {
        Some(code) => Incoming::Refused(asked.answer(&Sections::code(code)), code),
        None => Incoming::Asked(asked),
    }
}

/// What counts of a message with one question.
struct Parts {
    header: Header,
    query: Query,
    edns: Option<Edns>,
}

/// Takes a message apart; records that are of no use are checked and forgotten.
fn parts(bytes: &[u8]) -> Result<Parts, DecodeError> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder)?;
    let query = Query::read(&mut decoder)?;
    let HeaderCounts {
        answers,
        authorities,
        additionals,
        ..
    } = header.counts;
    let op_code = header.metadata.op_code;
    let mut records = |count: u16, is_additional| {
        let (_, edns, _) =
            Message::read_records(&mut decoder, count.into(), is_additional, op_code)?;
        Ok::<_, DecodeError>(edns)
    };
    records(answers, false)?;
    records(authorities, false)?;
    let edns = records(additionals, true)?;
    Ok(Parts {
        header,
        query,
        edns,
    })
}

impl Asked {
    /// Whether others are to be asked.
    pub fn wants_recursion(&self) -> bool {
        self.metadata.recursion_desired
    }

    /// The type that is asked for.
    pub fn kind(&self) -> RecordType {
        self.query.query_type
    }

    /// Most bytes that the client takes.
    fn largest(&self) -> u16 {
        match self.transport {
            Transport::Tcp => LARGEST,
            Transport::Udp => self.edns.unwrap_or_default().clamp(SMALLEST, LARGEST_UDP),
        }
    }

    /// Most records that fit.
    pub fn most(&self) -> usize {
        usize::from(self.largest() / SHORTEST_RECORD) + 1
    }

    /// Writes the answer.
    pub fn answer(&self, sections: &Sections<'_>) -> Vec<u8> {
        let mut metadata = self.metadata;
        metadata.response_code = sections.code;
        metadata.truncation = sections.truncated;
        metadata.authoritative = sections.authoritative;
        metadata.recursion_available = sections.recursive;
        // All names were read or made by the same rules: this always succeeds.
        let written = self.write(metadata, sections);
        written.unwrap_or_else(|_| bare(metadata, ResponseCode::ServFail).unwrap_or_default())
    }

    fn write(
        &self,
        mut metadata: Metadata,
        sections: &Sections<'_>,
    ) -> Result<Vec<u8>, ProtoError> {
        let mut bytes = Vec::with_capacity(usize::from(SMALLEST));
        let mut encoder = BinEncoder::new(&mut bytes);
        let opt = self.edns.map_or(0, |_| OPT);
        encoder.set_max_size(self.largest() - opt);
        let header = encoder.place::<Header>()?;
        let (answers, no_answer_cut) = match addresses::of(&self.query.name, sections) {
            Some(addresses) => addresses.write(&mut encoder, &self.query)?,
            None => {
                self.query.emit(&mut encoder)?;
                some(&mut encoder, sections.answers)?
            }
        };
        let rest = |encoder: &mut BinEncoder<'_>, records: &[Record]| match no_answer_cut {
            true => some(encoder, records),
            false => Ok((0, true)),
        };
        let (authorities, no_authority_cut) = rest(&mut encoder, sections.authorities)?;
        let (mut additionals, _) = rest(&mut encoder, sections.additionals)?;
        if self.edns.is_some() {
            encoder.set_max_size(self.largest());
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_UDP);
            edns.set_rcode_high(sections.code.high());
            edns.emit(&mut encoder)?;
            additionals += 1;
        }
        metadata.truncation |= !no_answer_cut || !no_authority_cut;
        let counts = HeaderCounts {
            queries: 1,
            answers,
            authorities,
            additionals,
        };
        header.replace(&mut encoder, Header { metadata, counts })?;
        Ok(bytes)
    }
}

/// Writes as many records as fit; tells how many, and whether these are all.
fn some(encoder: &mut BinEncoder<'_>, records: &[Record]) -> Result<(u16, bool), ProtoError> {
    let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    match encoder.emit_all(records.iter()) {
        Ok(all) => Ok((count(all), true)),
        Err(ProtoError::NotAllRecordsWritten { count: some, .. }) => {
            // The encoder goes back to before the record that did not fit, and leaves its beginning.
            encoder.trim();
            Ok((count(some), false))
        }
        Err(error) => Err(error),
    }
}

/// An answer without a question.
fn bare(mut metadata: Metadata, code: ResponseCode) -> Option<Vec<u8>> {
    metadata.response_code = code;
    let header = Header {
        metadata,
        counts: HeaderCounts::default(),
    };
    header.to_bytes().ok()
}

#[cfg(test)]
mod tests;
