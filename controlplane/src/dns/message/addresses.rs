//! Answers of nothing but addresses of the name that was asked for, as nearly all are.
//!
//! Guarantees: the bytes are those that the encoder of all records writes, and where not all fit as
//! many as do. That one would write the name once more for each record, to find out that it stands in
//! the question, and keeps a copy of all its ends.

use hickory_proto::ProtoError;
use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::Sections;

/// Where the name of the question stands, as a record refers to it (RFC 1035, section 4.1.4).
const QUESTION: [u8; 2] = [0xc0, 12];

/// Such an answer.
pub(super) struct Addresses<'a>(&'a [Record]);

/// The answer to a question about `name`, if it is of this kind.
pub(super) fn of<'a>(name: &Name, sections: &Sections<'a>) -> Option<Addresses<'a>> {
    let Sections {
        answers,
        authorities: [],
        additionals: [],
        ..
    } = sections
    else {
        return None;
    };
    let is_address = |record: &Record| {
        matches!(record.data, RData::A(_) | RData::AAAA(_)) && record.name.eq_case(name)
    };
    let all = !answers.is_empty() && answers.iter().all(is_address);
    // There is nothing that could refer to the root.
    (all && !name.is_root()).then_some(Addresses(answers))
}

impl Addresses<'_> {
    /// Writes the question, and as many records as fit; tells how many, and whether these are all.
    pub(super) fn write(
        &self,
        encoder: &mut BinEncoder<'_>,
        query: &Query,
    ) -> Result<(u16, bool), ProtoError> {
        for label in &query.name {
            encoder.emit_character_data(label)?;
        }
        encoder.emit(0)?;
        query.query_type.emit(encoder)?;
        query.query_class.emit(encoder)?;
        for (count, record) in (0..).zip(self.0) {
            match write(encoder, record) {
                Err(ProtoError::MaxBufferSizeExceeded(_)) => return Ok((count, false)),
                written => written?,
            }
        }
        Ok((u16::try_from(self.0.len()).unwrap_or(u16::MAX), true))
    }
}

/// Writes a record, all of it or nothing.
fn write(encoder: &mut BinEncoder<'_>, record: &Record) -> Result<(), ProtoError> {
    let mut address = [0; 16];
    let address = match &record.data {
        RData::AAAA(six) => {
            address = six.octets();
            &address[..]
        }
        RData::A(four) => {
            address[..4].copy_from_slice(&four.octets());
            &address[..4]
        }
        _ => &[],
    };
    let kind = u16::from(record.record_type()).to_be_bytes();
    let class = u16::from(record.dns_class).to_be_bytes();
    let ttl = record.ttl.to_be_bytes();
    let length = [0, address.len() as u8];
    let parts = [&QUESTION[..], &kind, &class, &ttl, &length, address];
    let mut bytes = [0; 28];
    let mut end = 0;
    for part in parts {
        bytes[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    encoder.emit_vec(&bytes[..end])
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_proto::op::Header;
    use hickory_proto::rr::rdata::{A, AAAA, TXT};
    use hickory_proto::rr::{DNSClass, RecordType};
    use proptest::prelude::*;

    use super::*;
    use crate::dns::message::some;

    fn sections(answers: &[Record]) -> Sections<'_> {
        Sections {
            answers,
            ..Sections::code(hickory_proto::op::ResponseCode::NoError)
        }
    }

    /// What is written behind a header into so many bytes, and what is told of it.
    fn written(
        most: u16,
        write: impl FnOnce(&mut BinEncoder<'_>) -> Result<(u16, bool), ProtoError>,
    ) -> Result<(Vec<u8>, (u16, bool)), TestCaseError> {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(most);
        let _header = encoder.place::<Header>().unwrap();
        let told = write(&mut encoder).map_err(|error| TestCaseError::fail(error.to_string()))?;
        Ok((bytes, told))
    }

    fn addresses() -> impl Strategy<Value = Vec<RData>> {
        let four = any::<u32>().prop_map(|bits| RData::A(A(Ipv4Addr::from_bits(bits))));
        let six = any::<u128>().prop_map(|bits| RData::AAAA(AAAA(Ipv6Addr::from_bits(bits))));
        prop::collection::vec(prop_oneof![four, six], 1..40)
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_all_records_are(
            name in "([A-Za-z0-9_]{1,63}\\.){1,3}",
            data in addresses(),
            ttl in any::<u32>(),
            most in 512..1232u16,
        ) {
            let name = Name::from_ascii(name).unwrap();
            let records = data.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data));
            let records: Vec<Record> = records.collect();
            let mut query = Query::query(name.clone(), RecordType::ANY);
            query.set_query_class(DNSClass::CH);
            let short = of(&name, &sections(&records)).unwrap();
            let short = written(most, |encoder| short.write(encoder, &query));
            let long = written(most, |encoder| {
                query.emit(encoder)?;
                some(encoder, &records)
            });
            let ((short, told), (long, all)) = (short?, long?);
            // That encoder needs room for the whole name before it finds that a reference will do.
            prop_assert!(short.starts_with(&long) && told >= all);
            prop_assert!(told > all || short == long);
            prop_assert!(short.len() <= most.into());
            prop_assert_eq!(told.1, usize::from(told.0) == records.len());
        }
    }

    #[test]
    fn whatever_else_an_answer_holds_it_is_not_of_this_kind() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let address = |text: &str| {
            let data = RData::A(A(Ipv4Addr::LOCALHOST));
            Record::from_rdata(name(text), 5, data)
        };
        let is = |asked: &str, sections: &Sections<'_>| of(&name(asked), sections).is_some();
        let (one, text) = (
            [address("a.b.")],
            RData::TXT(TXT::new(vec!["text".to_owned()])),
        );
        assert!(is("a.b.", &sections(&one)));
        assert!(!is("a.b.", &sections(&[])));
        assert!(!is("a.B.", &sections(&one)), "another case");
        assert!(!is(".", &sections(&[address(".")])), "the root");
        let mixed = [address("a.b."), Record::from_rdata(name("a.b."), 5, text)];
        assert!(!is("a.b.", &sections(&mixed)));
        let more = Sections {
            additionals: &one,
            ..sections(&one)
        };
        assert!(!is("a.b.", &more));
    }
}
