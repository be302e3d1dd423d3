//! A table as it lies on the wire: every Service a run of bytes of its own.
//!
//! ```text
//!   generation | networks | length of all, varint | length, u32 LE | Service | length | Service ...
//! ```
//!
//! A table always travels whole. But equal bytes are equal Services, so whoever has the table before
//! looks only into those that differ, and whoever sends encodes only those. [`ServiceTable`] and
//! [`EncodedTable`] are the same bytes.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, CodecError};
use crate::service::Service;
use crate::table::{Generation, Networks, ServiceTable};

/// Bytes of the length in front of each Service.
const LENGTH: usize = 4;

/// A table whose Services have not been looked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedTable<'a> {
    /// Version of this table.
    pub generation: Generation,
    /// Networks of the cluster.
    pub networks: Networks,
    /// One entry per Service port.
    #[serde(borrow)]
    pub services: EncodedServices<'a>,
}

/// The Services of a table, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedServices<'a>(pub &'a [u8]);

impl<'a> EncodedServices<'a> {
    /// The bytes of the first Service and what follows them; `None` when there is none.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] when it is longer than what is there.
    pub fn split_first(self) -> Result<Option<(&'a [u8], Self)>, CodecError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let cut = || {
            let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
            rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        };
        match cut() {
            Some((service, rest)) => Ok(Some((service, Self(rest)))),
            None => Err(CodecError::Malformed("a service is cut off".into())),
        }
    }
}

impl Serialize for EncodedServices<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for EncodedServices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

/// Encodes one table after the other; a Service that has not changed is not encoded again.
#[derive(Debug, Default)]
pub struct TableEncoder {
    table: Arc<ServiceTable>,
    bytes: Vec<u8>,
    /// Where each Service of `table` ends in `bytes`.
    ends: Vec<usize>,
}

impl TableEncoder {
    /// The table on the wire.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] for a Service longer than a message may be.
    pub fn encode(&mut self, table: &Arc<ServiceTable>) -> Result<EncodedTable<'_>, CodecError> {
        let old = std::mem::take(self);
        self.bytes.reserve(old.bytes.len());
        self.ends.reserve(table.services.len());
        let mut place = 0;
        for service in &table.services {
            // Both are sorted: what is passed over here is gone or not listed yet.
            let ahead = old.table.services.get(place..).unwrap_or_default();
            place += ahead
                .iter()
                .take_while(|old| old.name < service.name)
                .count();
            match old.table.services.get(place) {
                Some(same) if same == service => self.bytes.extend_from_slice(old.entry(place)),
                _ => append(&mut self.bytes, service)?,
            }
            self.ends.push(self.bytes.len());
        }
        self.table = Arc::clone(table);
        Ok(EncodedTable {
            generation: table.generation,
            networks: table.networks.clone(),
            services: EncodedServices(&self.bytes),
        })
    }

    /// What stands for the Service at a place, its length included.
    fn entry(&self, place: usize) -> &[u8] {
        let start = place
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        let (start, end) = (start.copied().unwrap_or(0), self.ends.get(place));
        let range = end.and_then(|end| self.bytes.get(start..*end));
        range.unwrap_or_default()
    }
}

fn append(bytes: &mut Vec<u8>, service: &Service) -> Result<(), CodecError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; LENGTH]);
    *bytes = codec::append(service, std::mem::take(bytes))?;
    let length = bytes.len() - start - LENGTH;
    let written =
        u32::try_from(length).map_err(|_| CodecError::TooLong(length, codec::MAX_BODY))?;
    bytes[start..start + LENGTH].copy_from_slice(&written.to_le_bytes());
    Ok(())
}

/// How the Services of a [`ServiceTable`] are written and read, for `#[serde(with)]`.
pub(crate) mod services {
    use super::*;

    pub fn serialize<S: Serializer>(services: &[Service], to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        for service in services {
            append(&mut bytes, service).map_err(serde::ser::Error::custom)?;
        }
        to.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Service>, D::Error> {
        from.deserialize_bytes(Services)
    }

    struct Services;

    impl Visitor<'_> for Services {
        type Value = Vec<Service>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the bytes of services")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            let mut services = Vec::new();
            let mut rest = EncodedServices(bytes);
            while let Some((service, more)) = rest.split_first().map_err(E::custom)? {
                services.push(codec::decode(service).map_err(E::custom)?);
                rest = more;
            }
            Ok(services)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{HEADER_LEN, decode, encode};
    use crate::message::dataplane::{EncodedRequest, Request};
    use crate::service::{Access, Frontend, FrontendKind, Protocol, ServiceName};
    use proptest::prelude::*;

    fn service(number: u8, port: u16) -> Service {
        let name = ServiceName {
            namespace: "default".into(),
            name: format!("s{number:03}"),
            port: String::new(),
            protocol: Protocol::Tcp,
        };
        let address = [192, 0, 2, number].into();
        let kind = FrontendKind::LoadBalancer;
        Service {
            frontends: vec![Frontend::new(address, port, kind, Access::default())],
            ..Service::new(name)
        }
    }

    fn table(generation: u64, services: Vec<Service>) -> Arc<ServiceTable> {
        Arc::new(ServiceTable {
            generation: Generation(generation),
            services,
            ..ServiceTable::default()
        })
    }

    #[test]
    fn a_table_and_its_encoded_form_are_the_same_bytes() {
        let table = table(7, vec![service(1, 80), service(2, 443)]);
        let mut encoder = TableEncoder::default();
        let encoded = encoder.encode(&table).unwrap();
        let bytes = encode(&EncodedRequest::Push(encoded.clone())).unwrap();
        let whole = Request::Push((*table).clone());
        assert_eq!(encode(&whole).unwrap(), bytes);
        assert_eq!(decode::<Request>(&bytes[HEADER_LEN..]), Ok(whole));
        let again = decode::<EncodedRequest<'_>>(&bytes[HEADER_LEN..]);
        assert_eq!(again, Ok(EncodedRequest::Push(encoded)));
    }

    #[test]
    fn a_service_that_is_cut_off_makes_the_table_malformed() {
        let mut encoder = TableEncoder::default();
        let table = table(7, vec![service(1, 80)]);
        let encoded = encoder.encode(&table).unwrap();
        let bytes = encoded.services.0;
        for cut in 1..bytes.len() {
            let short = EncodedTable {
                services: EncodedServices(&bytes[..cut]),
                ..encoded.clone()
            };
            let sent = encode(&short).unwrap();
            let error = decode::<ServiceTable>(&sent[HEADER_LEN..]).unwrap_err();
            assert!(matches!(error, CodecError::Malformed(_)), "{cut}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_before_never_shows(
            tables in proptest::collection::vec(
                proptest::collection::btree_map(0u8..12, 1u16..4, 0..12), 1..8
            ),
            reversed in any::<bool>(),
        ) {
            let mut encoder = TableEncoder::default();
            for (generation, services) in (1..).zip(tables) {
                let mut services: Vec<_> = services.into_iter().map(|(n, p)| service(n, p)).collect();
                if reversed {
                    services.reverse();
                }
                let table = table(generation, services);
                let sent = encode(&encoder.encode(&table).unwrap()).unwrap();
                prop_assert_eq!(&sent, &encode(&*table).unwrap());
            }
        }
    }
}
