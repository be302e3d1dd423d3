//! The Services in force as they came over the socket, to hold the next table against.
//!
//! Of a table only the bytes between the first and the last difference are looked into. A table that
//! says the same in other bytes is compiled all the same.

use sluice_conf::{EncodedServices, EncodedTable, codec};

use super::draft::{Draft, Drafting};
use super::{MapError, ServiceMap};

/// Bytes that are compared at once.
const STRIDE: usize = 4096;

/// The Services of a map in their encoded form.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    /// Where each Service begins, and the end of all.
    bounds: Vec<usize>,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            bounds: vec![0],
        }
    }
}

/// How many Services at the beginning and at the end of a table are byte for byte as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Same {
    first: usize,
    last: usize,
}

impl Received {
    /// What a table changes, if these are the bytes of `map`; otherwise all of it is looked into.
    ///
    /// # Errors
    /// When the bytes are no Services.
    pub fn draft(
        &self,
        table: &EncodedTable<'_>,
        map: &ServiceMap,
    ) -> Result<(Draft, Same), MapError> {
        let nothing = Self::default();
        let is_of_map = self.len() == map.services.len();
        let known = if is_of_map { self } else { &nothing };
        let mut drafting = Drafting::beside(map);
        let same = known.walk(table.services, &mut drafting)?;
        let draft = drafting.finish(table.generation, table.networks.clone());
        // Nothing of what is held here stays when it is not the map's.
        let none = Same { first: 0, last: 0 };
        Ok((draft, if is_of_map { same } else { none }))
    }

    fn walk(
        &self,
        services: EncodedServices<'_>,
        drafting: &mut Drafting<'_>,
    ) -> Result<Same, MapError> {
        let (old, new) = (&self.bytes[..], services.0);
        let equal = common_prefix(old, new);
        let first = self.bounds.partition_point(|bound| *bound <= equal) - 1;
        let head = self.bounds[first];
        let equal = common_suffix(&old[head..], &new[head..]);
        let tail = self
            .bounds
            .partition_point(|bound| *bound < old.len() - equal);
        let tail = tail.max(first);
        let tail_bytes = old.len() - self.bounds[tail];
        let mut same = Same { first, last: 0 };
        drafting.keep(0..first);
        let mut rest = EncodedServices(&new[head..]);
        // Only where a Service begins can the same bytes be the same Services.
        while rest.0.len() != tail_bytes {
            let Some((bytes, more)) = rest.split_first()? else {
                return Ok(same);
            };
            match self.get(drafting.next()) {
                Some(known) if known == bytes => {
                    drafting.keep(drafting.next()..drafting.next() + 1)
                }
                _ => drafting.take(codec::decode(bytes)?),
            }
            rest = more;
        }
        drafting.keep(tail..self.len());
        same.last = self.len() - tail;
        Ok(same)
    }

    /// Takes over the Services of a table that is in force now.
    pub fn adopt(&mut self, services: EncodedServices<'_>, same: Same) {
        let (head, place) = (self.bounds[same.first], self.len() - same.last);
        let old_tail = self.bounds[place];
        let new_tail = services.0.len() - (self.bytes.len() - old_tail);
        let middle = EncodedServices(&services.0[head..new_tail]);
        self.bytes.splice(head..old_tail, middle.0.iter().copied());
        let moved = self.bounds.split_off(place);
        self.bounds.truncate(same.first);
        let mut rest = middle;
        while let Ok(Some((_, more))) = rest.split_first() {
            self.bounds.push(new_tail - rest.0.len());
            rest = more;
        }
        let moved = moved.iter().map(|bound| bound - old_tail + new_tail);
        self.bounds.extend(moved);
    }

    fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The encoded Service at a place.
    fn get(&self, place: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(*self.bounds.get(place)?..)?;
        let first = EncodedServices(bytes).split_first();
        first.ok().flatten().map(|(bytes, _)| bytes)
    }
}

/// Bytes at the beginning that are equal.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let strides = a.chunks(STRIDE).zip(b.chunks(STRIDE));
    let whole = STRIDE * strides.take_while(|(a, b)| a == b).count();
    let whole = whole.min(a.len()).min(b.len());
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}

/// Bytes at the end that are equal.
fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let strides = a.rchunks(STRIDE).zip(b.rchunks(STRIDE));
    let whole = STRIDE * strides.take_while(|(a, b)| a == b).count();
    let whole = whole.min(a.len()).min(b.len());
    let (a, b) = (&a[..a.len() - whole], &b[..b.len() - whole]);
    let rest = a.iter().rev().zip(b.iter().rev());
    whole + rest.take_while(|(a, b)| a == b).count()
}
