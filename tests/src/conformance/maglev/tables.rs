//! Tables of numbered backends, and what can be counted in them.

use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;
use sluice_dataplane::maglev::{Candidate, Maglev, Turn, permutation};

use super::form::{Backends, Given};

/// Largest table of a case, in rows: far above what anybody builds, and filled in a second.
const MAX_ROWS: usize = 2_000_000;

/// A backend: its key and its weight.
pub type Keyed = (u64, u16);

/// The address of the backend with this key.
pub fn address(key: u64) -> IpAddr {
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(key)).into()
}

const PORT: u16 = 80;

/// Offset and skip of the backend with this key.
pub fn walk(key: u64, rows: usize) -> (usize, usize) {
    permutation(address(key), PORT, rows)
}

/// Refuses numbers of rows and backends that no table can have.
pub fn check_size(rows: usize, backends: usize) -> Result<(), String> {
    let prime = |n: usize| {
        n > 1
            && (2..)
                .take_while(|d| d * d <= n)
                .all(|d| !n.is_multiple_of(d))
    };
    if rows > MAX_ROWS || !prime(rows) {
        return Err(format!(
            "table_size {rows} is not a prime of at most {MAX_ROWS}"
        ));
    }
    match backends > usize::from(u16::MAX) {
        true => Err(format!(
            "{backends} backends; at most {} are possible",
            u16::MAX
        )),
        false => Ok(()),
    }
}

/// The table of these backends: for each row the place of its backend in the list; `None` for a row
/// without one.
pub fn table(backends: &[Keyed], rows: usize) -> Result<Vec<Option<usize>>, String> {
    check_size(rows, backends.len())?;
    let candidates = (0..).zip(backends).map(|(index, (key, weight))| Candidate {
        index,
        address: address(*key),
        port: PORT,
        weight: *weight,
    });
    let candidates: Vec<Candidate> = candidates.collect();
    let is_empty = backends.iter().all(|(_, weight)| *weight == 0);
    match Maglev::with_rows(&candidates, rows) {
        Some(table) => Ok(table
            .rows()
            .iter()
            .map(|row| Some(usize::from(*row)))
            .collect()),
        None if is_empty => Ok(vec![None; rows]),
        None => Err("there is no table".to_owned()),
    }
}

/// The table of given walks: for each row the place of its backend in the list.
pub fn given(given: &Given) -> Result<Vec<usize>, String> {
    check_size(given.table_size, given.backends.len())?;
    let walkers = (0..).zip(&given.backends);
    let turns = walkers.map(|(index, walker)| Turn::new(index, 1, (walker.offset, walker.skip)));
    let table = Maglev::of_turns(&turns.collect::<Vec<_>>(), given.table_size);
    let table = table.ok_or("no table: an offset or a skip lies outside of it")?;
    Ok(table.rows().iter().map(|row| usize::from(*row)).collect())
}

/// What the paper's own words make of backends with equal weights that take turns in the order of
/// their keys (section 3.4): the reference that tables are compared with.
pub fn reference(backends: &[Keyed], rows: usize) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..backends.len()).collect();
    order.sort_by_key(|place| backends[*place].0);
    let mut next = vec![0; backends.len()];
    let mut table = vec![None; rows];
    let mut left = if order.is_empty() { 0 } else { rows };
    while left > 0 {
        for place in order.iter().copied().take(left) {
            let (offset, skip) = walk(backends[place].0, rows);
            let mut row = (offset + next[place] * skip) % rows;
            while table[row].is_some() {
                next[place] += 1;
                row = (offset + next[place] * skip) % rows;
            }
            table[row] = Some(place);
            next[place] += 1;
        }
        left = left.saturating_sub(order.len());
    }
    table
}

/// Rows of each backend.
pub fn counts(table: &[Option<usize>], backends: usize) -> Vec<usize> {
    let mut counts = vec![0; backends];
    for place in table.iter().flatten() {
        counts[*place] += 1;
    }
    counts
}

/// Backends of a case with their keys: what it says, else their places.
pub fn keyed(backends: &Backends) -> Result<Vec<Keyed>, String> {
    match backends {
        Backends::Listed(listed) => {
            let places = (0..).zip(listed);
            Ok(places
                .map(|(place, one)| (one.id.unwrap_or(place), one.weight))
                .collect())
        }
        Backends::Alike { count, weight, key } => {
            check_size(2, *count)?;
            let factor = factor(key.as_deref().unwrap_or("index"))?;
            let keys = (0..*count as u64).map(|index| (index.saturating_mul(factor), *weight));
            Ok(keys.collect())
        }
    }
}

/// The factor in `10 * index`.
fn factor(key: &str) -> Result<u64, String> {
    let wrong = || format!("key {key:?}: write NUMBER * index");
    match key.split_once('*') {
        None if key.trim() == "index" => Ok(1),
        Some((factor, index)) if index.trim() == "index" => {
            factor.trim().parse().map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

/// The place of the backend that leaves.
pub fn removed(backends: &[Keyed], remove: &Value) -> Result<usize, String> {
    let key = remove.as_u64();
    let place = match remove.as_str() {
        Some("last") => backends.len().checked_sub(1),
        _ => backends.iter().position(|(other, _)| Some(*other) == key),
    };
    place.ok_or_else(|| format!("remove {remove}: there is no such backend"))
}
