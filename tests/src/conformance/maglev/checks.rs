//! The properties that tables must have.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde_json::{Map, Value};

use super::form::{
    Backends, Disruption, Distribution, EqualWeights, Given, Parameters, Permutations,
};
use super::tables::{self, Keyed, check_size, counts, keyed, table, walk};
use crate::conformance::Outcome;

/// Threads that fill a table at the same time, at most.
const MAX_WORKERS: usize = 128;

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, seen: &T) -> Result<(), String> {
    match expected == seen {
        true => Ok(()),
        false => Err(format!("expected {what} {expected:?}, seen {seen:?}")),
    }
}

/// A table of given walks.
pub fn given(given: &Given, known: &BTreeMap<String, Given>) -> Outcome {
    is_given(given, known).into()
}

fn is_given(given: &Given, known: &BTreeMap<String, Given>) -> Result<(), String> {
    let table = names(given)?;
    for walker in &given.backends {
        let step = |j: usize| (walker.offset + j * walker.skip) % given.table_size;
        let walk: Vec<usize> = (0..given.table_size).map(step).collect();
        let written = walker.permutation.as_ref().unwrap_or(&walk);
        equal(&format!("permutation of {}", walker.name), written, &walk)?;
    }
    equal("table", &given.table, &table)?;
    let Some(other) = &given.compared_with else {
        return Ok(());
    };
    let other = known
        .get(other)
        .ok_or_else(|| format!("there is no case {other:?} before it"))?;
    let before = names(other)?;
    equal("table_size", &before.len(), &table.len())?;
    let remains = |name: &String| given.backends.iter().any(|walker| walker.name == *name);
    let moved = before
        .iter()
        .zip(&table)
        .filter(|(before, after)| before != after);
    let (between, from): (Vec<_>, Vec<_>) = moved.partition(|(before, _)| remains(before));
    let (between, from) = (between.len(), from.len());
    equal(
        "entries_moved_from_removed",
        &given.entries_moved_from_removed.unwrap_or(from),
        &from,
    )?;
    let expected = given.entries_moved_between_survivors.unwrap_or(between);
    equal("entries_moved_between_survivors", &expected, &between)
}

fn names(given: &Given) -> Result<Vec<String>, String> {
    let table = tables::given(given)?;
    let name = |place: usize| given.backends.get(place).map(|walker| walker.name.clone());
    Ok(table.into_iter().filter_map(name).collect())
}

/// Properties of walks.
pub fn permutations(case: &Permutations) -> Outcome {
    are_permutations(case).into()
}

fn are_permutations(case: &Permutations) -> Result<(), String> {
    let rows = case.table_size;
    let keys = match (&case.keys, case.backends) {
        (Some(keys), _) => keys.clone(),
        (None, Some(count)) => {
            check_size(rows, count)?;
            (0..count as u64).collect()
        }
        (None, None) => return Err("neither keys nor backends are written".to_owned()),
    };
    check_size(rows, keys.len())?;
    case.expect.iter().try_for_each(|property| {
        holds(property, &keys, rows, &case.workers).map_err(|error| format!("{property}: {error}"))
    })
}

fn holds(property: &str, keys: &[u64], rows: usize, workers: &[usize]) -> Result<(), String> {
    let property = property.split_whitespace().collect::<Vec<_>>().join(" ");
    let walks: Vec<_> = keys.iter().map(|key| walk(*key, rows)).collect();
    let backends: Vec<Keyed> = keys.iter().map(|key| (*key, 1)).collect();
    let all = |is: &dyn Fn(usize, usize) -> bool| match walks.iter().find(|(o, s)| !is(*o, *s)) {
        None => Ok(()),
        Some((offset, skip)) => Err(format!("seen offset {offset} and skip {skip}")),
    };
    match property.as_str() {
        "the same key gives the same offset and skip" => equal(
            "walks",
            &walks,
            &keys.iter().map(|key| walk(*key, rows)).collect(),
        ),
        "1 <= skip < table_size" => all(&|_, skip| (1..rows).contains(&skip)),
        "0 <= offset < table_size" => all(&|offset, _| offset < rows),
        "the two keys differ in offset or in skip" => {
            let distinct: BTreeSet<_> = walks.iter().collect();
            equal("different walks", &keys.len(), &distinct.len())
        }
        "every backend permutation visits each slot once" => all(&|offset, skip| {
            let rows_of: BTreeSet<usize> = (0..rows).map(|j| (offset + j * skip) % rows).collect();
            rows_of.len() == rows
        }),
        // That the walk is this one can be seen from the table alone: it must be the one that the
        // paper's words make of such walks.
        "step j of backend i is (offset_i + j * skip_i) mod table_size" => {
            match table(&backends, rows)? == tables::reference(&backends, rows) {
                true => Ok(()),
                false => Err("the table is not the one that such walks fill".to_owned()),
            }
        }
        "the result does not depend on the number of workers" => {
            let alone = table(&backends, rows)?;
            workers
                .iter()
                .try_for_each(|workers| fill_at_once(*workers, &backends, rows, &alone))
        }
        _ => Err("is no property that this runner knows".to_owned()),
    }
}

fn fill_at_once(
    workers: usize,
    backends: &[Keyed],
    rows: usize,
    alone: &[Option<usize>],
) -> Result<(), String> {
    if workers > MAX_WORKERS {
        return Err(format!(
            "{workers} workers; at most {MAX_WORKERS} are possible"
        ));
    }
    thread::scope(|scope| {
        let fill = || table(backends, rows).is_ok_and(|table| table == alone);
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(fill)).collect();
        match threads
            .into_iter()
            .all(|thread| thread.join().unwrap_or(false))
        {
            true => Ok(()),
            false => Err(format!("{workers} workers fill another table")),
        }
    })
}

/// How many rows each backend gets.
pub fn distribution(case: &Distribution) -> Outcome {
    let backends = match keyed(&case.backends) {
        Ok(backends) => backends,
        Err(error) => return Outcome::Failed(error),
    };
    let weights: usize = backends
        .iter()
        .map(|(_, weight)| usize::from(*weight))
        .sum();
    let alike = backends.iter().all(|(_, weight)| *weight == backends[0].1);
    match case.weighting.as_deref() {
        None | Some("accumulator") => {}
        Some("round-robin" | "proportional") if alike && weights <= case.table_size => {}
        Some(other) => {
            let why = format!("weighting {other}: Sluice's Maglev honours weights by accumulators");
            return Outcome::NotApplicable(why);
        }
    }
    let seen = table(&backends, case.table_size);
    seen.and_then(|table| {
        let mut expected = case.expect.iter();
        expected.try_for_each(|(key, value)| is_distributed(key, value, &table, &backends))
    })
    .into()
}

fn is_distributed(
    key: &str,
    value: &Value,
    table: &[Option<usize>],
    backends: &[Keyed],
) -> Result<(), String> {
    let counts = counts(table, backends.len());
    let sorted = || {
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        sorted
    };
    let (least, most) = (counts.iter().min(), counts.iter().max());
    let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
    let holes = table.iter().filter(|row| row.is_none()).count();
    let more = counts.first() > counts.get(1);
    match key {
        "counts" => equal(key, &read(key, value)?, &counts),
        "counts_sorted" => equal(key, &read(key, value)?, &sorted()),
        "empty_slots" => equal(key, &read(key, value)?, &holes),
        "max_minus_min" => equal(key, &read(key, value)?, &(most - least)),
        "min_count" => equal(key, &read(key, value)?, &least),
        "max_count" => equal(key, &read(key, value)?, &most),
        "min_count_greater_than" => {
            let bound: usize = read(key, value)?;
            equal(
                &format!("more than {bound} rows for each"),
                &true,
                &(least > bound),
            )
        }
        "first_greater_than_second" => equal(key, &read(key, value)?, &more),
        "repeatable" => {
            let again = tables::table(backends, table.len())?;
            equal(key, &read(key, value)?, &(again == table))
        }
        _ => Err(format!("unknown expectation {key}")),
    }
}

fn read<T: serde::de::DeserializeOwned>(key: &str, value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("expect.{key}: {error}"))
}

/// Rows of backends that are all alike.
pub fn equal_weights(case: &EqualWeights) -> Outcome {
    let alike = Backends::Alike {
        count: case.backends,
        weight: 1,
        key: None,
    };
    let seen = keyed(&alike).and_then(|backends| {
        let table = table(&backends, case.table_size)?;
        let counts = counts(&table, backends.len());
        let most = counts.iter().max().copied().unwrap_or(0);
        let least = counts.iter().min().copied().unwrap_or(0);
        let with_most = counts.iter().filter(|count| **count == most).count();
        equal("min_count", &case.min_count.unwrap_or(least), &least)?;
        equal("max_count", &case.max_count.unwrap_or(most), &most)?;
        let expected = case.backends_with_max_count.unwrap_or(with_most);
        equal("backends_with_max_count", &expected, &with_most)
    });
    seen.into()
}

/// One backend leaves.
pub fn disruption(case: &Disruption) -> Outcome {
    let seen = keyed(&case.backends).and_then(|before| {
        let gone = tables::removed(&before, &case.remove)?;
        let mut after = before.clone();
        after.remove(gone);
        let old = table(&before, case.table_size)?;
        let new = table(&after, case.table_size)?;
        let key = |backends: &[Keyed], row: &Option<usize>| row.map(|place| backends[place].0);
        let rows = old
            .iter()
            .zip(&new)
            .map(|(a, b)| (key(&before, a), key(&after, b)));
        are_little_disturbed(&case.expect, before[gone].0, rows.collect())
    });
    seen.into()
}

type Rows = Vec<(Option<u64>, Option<u64>)>;

fn are_little_disturbed(expect: &Map<String, Value>, gone: u64, rows: Rows) -> Result<(), String> {
    let survivors = rows
        .iter()
        .filter(|(before, after)| *before != Some(gone) && before != after);
    let percent = 100.0 * survivors.count() as f64 / rows.len() as f64;
    let lost = |(before, after): &&(Option<u64>, Option<u64>)| {
        *before == Some(gone) && (after.is_none() || *after == Some(gone))
    };
    for (key, value) in expect {
        match key.as_str() {
            "slots_of_removed" if value.as_str() == Some("all go to survivors") => {
                equal(
                    "rows left to the removed",
                    &0,
                    &rows.iter().filter(lost).count(),
                )?;
            }
            "survivor_slots_changed_percent_of_table_below" => {
                let bound: f64 = read(key, value)?;
                if percent >= bound {
                    return Err(format!("expected below {bound} %, seen {percent:.2} %"));
                }
            }
            // A measuring tool upstream, which asserts nothing.
            "report" => {}
            _ => return Err(format!("unknown expectation {key}: {value}")),
        }
    }
    Ok(())
}

/// Rules about sizes and hashes.
pub fn parameters(case: &Parameters) -> Outcome {
    let rule = case.rule.as_deref().unwrap_or_default();
    let rule = rule.split_whitespace().collect::<Vec<_>>().join(" ");
    if rule.starts_with("offset = h1(name) mod M; skip = h2(name) mod (M - 1) + 1") {
        return are_independent().into();
    }
    if rule.starts_with("filling takes O(M log M) steps on average and O(M^2) at worst") {
        return ends_at_worst().into();
    }
    if case.table_sizes.is_empty() {
        let why = match rule.is_empty() {
            true => "without table sizes and without a rule there is nothing to judge".to_owned(),
            false => format!("Sluice has no such setting: {rule}"),
        };
        return Outcome::NotApplicable(why);
    }
    let backends: Vec<Keyed> = (0..case.backends.unwrap_or(10) as u64)
        .map(|key| (key, 1))
        .collect();
    let mut sizes = case.table_sizes.iter();
    sizes
        .try_for_each(|rows| {
            let counts = counts(&table(&backends, *rows)?, backends.len());
            let (least, most) = (counts.iter().min(), counts.iter().max());
            let spread = most.zip(least).map_or(0, |(most, least)| most - least);
            match spread <= 1 {
                true => Ok(()),
                false => Err(format!("{rows} rows: counts differ by {spread}")),
            }
        })
        .into()
}

/// Offset and skip lie in their ranges, and neither tells the other: of backends with one offset
/// the skips differ.
fn are_independent() -> Result<(), String> {
    const ROWS: usize = 251;
    const KEYS: u64 = 16 * ROWS as u64;
    let mut skips: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for key in 0..KEYS {
        let (offset, skip) = walk(key, ROWS);
        if offset >= ROWS || !(1..ROWS).contains(&skip) {
            return Err(format!(
                "seen offset {offset} and skip {skip} of {ROWS} rows"
            ));
        }
        skips.entry(offset).or_default().insert(skip);
    }
    equal("offsets that occur", &ROWS, &skips.len())?;
    let fewest = skips.values().map(BTreeSet::len).min().unwrap_or(0);
    equal("several skips for each offset", &true, &(fewest > 1))
}

/// As many backends as rows, all with the same walk.
fn ends_at_worst() -> Result<(), String> {
    const ROWS: usize = 251;
    let walker = |number: usize| super::form::Walker {
        name: number.to_string(),
        offset: 3,
        skip: 4,
        permutation: None,
    };
    let given = Given {
        table_size: ROWS,
        backends: (0..ROWS).map(walker).collect(),
        table: Vec::new(),
        compared_with: None,
        entries_moved_from_removed: None,
        entries_moved_between_survivors: None,
    };
    let distinct: BTreeSet<usize> = tables::given(&given)?.into_iter().collect();
    equal("backends with a row", &ROWS, &distinct.len())
}
