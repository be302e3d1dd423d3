//! Instructions as callgrind counts them, and what was counted before.
//!
//! Instructions have no neighbours and no clock: the same program counts the same on every machine
//! of a kind, give or take the random keys of std's hash maps. Valgrind's processor knows AVX2 at
//! most, so a path for AVX-512 is never taken there, whatever the machine; without AVX2 the counts
//! are others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Instructions in a profile that callgrind has written; `None` when it is none.
pub fn total(profile: &str) -> Option<u64> {
    let mut lines = profile.lines().rev();
    lines.find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// Instructions of each function itself, without what it calls, most first ("Callgrind Format
/// Specification" of the Valgrind manual).
pub fn by_function(profile: &str) -> Vec<(&str, u64)> {
    let (mut names, mut costs) = (HashMap::new(), HashMap::new());
    let (mut current, mut is_call) = ("", false);
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            current = learn(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            learn(name, &mut names);
        } else if line.starts_with("calls=") {
            // The next line is what the call costs, which the callee has counted itself.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.rsplit(' ').next().and_then(|cost| cost.parse().ok());
            if !std::mem::take(&mut is_call) {
                *costs.entry(current).or_insert(0) += cost.unwrap_or(0u64);
            }
        }
    }
    let named = |(number, cost)| (*names.get(number).unwrap_or(&number), cost);
    let mut functions: Vec<_> = costs.into_iter().map(named).collect();
    functions.sort_by_key(|(name, cost)| (Reverse(*cost), *name));
    functions
}

/// The number in `(number) name`; the name is there only the first time.
fn learn<'a>(text: &'a str, names: &mut HashMap<&'a str, &'a str>) -> &'a str {
    if let Some((number, name)) = text.split_once(' ') {
        names.insert(number, name);
        return number;
    }
    text
}

/// What was counted before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Percent by which a count may differ.
    pub tolerance_percent: f64,
    /// Instructions by case: of one packet or of one turn of a worker.
    pub instructions: BTreeMap<String, f64>,
}

impl Kept {
    /// Compares a count with what was kept.
    ///
    /// # Errors
    /// What has changed. Fewer instructions are a change, too: kept, they are what the next change is
    /// measured against.
    pub fn judge(&self, case: &str, counted: f64) -> Result<(), String> {
        let Some(kept) = self.instructions.get(case) else {
            return Err(format!(
                "{case}: {counted:.1} instructions, nothing was kept"
            ));
        };
        let change = 100.0 * (counted - kept) / kept;
        if change.abs() <= self.tolerance_percent {
            return Ok(());
        }
        Err(format!(
            "{case}: {counted:.1} instructions, {change:+.1} % to the {kept:.1} that were kept"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_read() {
        let profile = "version: 1\nevents: Ir\nsummary: 77\n\nfn=(1) main\n3 77\n\ntotals: 77\n";
        assert_eq!(total(profile), Some(77));
        assert_eq!(total("version: 1\nevents: Ir\n"), None);
    }

    #[test]
    fn each_function_has_its_own_instructions_and_not_those_of_its_callees() {
        let profile = "events: Ir\n\nfn=(1) main\n16 4\n+1 1\ncfn=(2) look up <u32>\n\
            calls=3 50\n+3 900\n\nfn=(2)\n50 800\n* 100\n\ntotals: 905\n";
        assert_eq!(by_function(profile), [("look up <u32>", 900), ("main", 5)]);
        assert_eq!(by_function(""), []);
    }

    #[test]
    fn a_count_within_the_tolerance_is_no_change() {
        let kept = Kept {
            tolerance_percent: 3.0,
            instructions: [("a packet".into(), 200.0)].into(),
        };
        for counted in [194.0, 200.0, 206.0] {
            assert_eq!(kept.judge("a packet", counted), Ok(()));
        }
        let more = kept.judge("a packet", 210.0).unwrap_err();
        assert_eq!(
            more,
            "a packet: 210.0 instructions, +5.0 % to the 200.0 that were kept"
        );
        assert!(kept.judge("a packet", 190.0).is_err());
        assert!(kept.judge("another", 200.0).is_err());
    }

    #[test]
    fn what_is_kept_is_one_json_object() {
        let text = r#"{"tolerance_percent": 3.0, "instructions": {"x": 12.5}}"#;
        let kept: Kept = serde_json::from_str(text).unwrap();
        assert_eq!(kept.instructions["x"], 12.5);
        assert_eq!(serde_json::from_str::<Kept>("{}").ok(), None);
    }
}
