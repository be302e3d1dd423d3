//! The report of all parts: each goal with its value, when and of which commit it was measured.
//!
//! A part is what one program measures: `memory`, `wire`, `control` or `dns`. Its values are those of its last whole
//! run; floors and goals are today's. Goals of a part that never ran have no value and are not
//! reached.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::goals::{CONTROL, DNS, Goal, MEMORY, WIRE};
use super::markdown::row;

/// Parts and their goals.
const PARTS: [(&str, &[Goal]); 4] = [
    ("memory", MEMORY),
    ("wire", WIRE),
    ("control", CONTROL),
    ("dns", DNS),
];

/// Writes `report.json` and `report.md` from the parts that are in `folder`.
///
/// # Errors
/// A part's report is no JSON, or a file cannot be read or written.
pub fn write(folder: &Path) -> Result<()> {
    let mut parts = Map::new();
    for (part, _) in PARTS {
        let path = folder.join(format!("report-{part}.json"));
        if path.exists() {
            let text = fs::read_to_string(&path);
            let text = text.with_context(|| format!("reading {}", path.display()))?;
            let report = serde_json::from_str(&text);
            let report = report.with_context(|| format!("{} is no JSON", path.display()))?;
            parts.insert(part.into(), report);
        }
    }
    let json = serde_json::to_string_pretty(&to_json(&parts))? + "\n";
    super::write(folder, "report.json", &json)?;
    super::write(folder, "report.md", &to_markdown(&parts))
}

/// All goals by the order of their numbers, each with the part that measures it and its value.
fn outcomes(parts: &Map<String, Value>) -> Vec<(&'static Goal, &'static str, Option<f64>)> {
    let all = PARTS.iter().flat_map(|(part, goals)| {
        goals.iter().map(|goal| {
            let value = parts.get(*part).map(|report| &report[goal.number]["value"]);
            (goal, *part, value.and_then(Value::as_f64))
        })
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(goal, ..)| number(goal.number));
    all
}

/// 13 of "G13 p99".
fn number(name: &str) -> u32 {
    let digits = name.trim_start_matches('G').split(' ').next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(u32::MAX)
}

/// Goals by number, then `parts` with the machine, time and commit of each.
fn to_json(parts: &Map<String, Value>) -> Value {
    let mut all = Map::new();
    for (goal, part, value) in outcomes(parts) {
        let mut entry = goal.judged(value);
        entry["part"] = part.into();
        all.insert(goal.number.into(), entry);
    }
    let machine = |part| {
        parts
            .get(part)
            .map_or(Value::Null, |report| report["machine"].clone())
    };
    let machines = PARTS
        .iter()
        .map(|(part, _)| ((*part).into(), machine(*part)));
    all.insert("parts".into(), Value::Object(machines.collect()));
    Value::Object(all)
}

/// One table of all goals, and what was measured when.
fn to_markdown(parts: &Map<String, Value>) -> String {
    let mut lines = Vec::new();
    for (part, _) in PARTS {
        let Some(report) = parts.get(part) else {
            lines.push(format!("- {part}: never measured"));
            continue;
        };
        let machine = |key| report["machine"][key].as_str().unwrap_or("unknown");
        lines.push(format!(
            "- {part}: measured {} at commit {} on {} cores of {}, Linux {}",
            machine("time"),
            machine("commit"),
            report["machine"]["cores"],
            machine("processor"),
            machine("kernel"),
        ));
    }
    lines.push(String::new());
    lines.push("| goal | what | value | floor | goal | reached | part |".into());
    lines.push("|---|---|---:|---:|---:|---|---|".into());
    for (goal, part, value) in outcomes(parts) {
        lines.push(format!("{} {part} |", row(goal, value)));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Machine, Report};

    fn machine(time: &str) -> Machine {
        Machine {
            time: time.into(),
            commit: format!("commit of {time}"),
            ..Machine::default()
        }
    }

    fn of_memory(nanoseconds: f64) -> Report {
        let mut report = Report::new(machine("Monday"), MEMORY);
        report.add(MEMORY[0].figure, MEMORY[0].unit, &[nanoseconds]);
        report
    }

    fn read(folder: &Path) -> (Value, String) {
        let text = |name| fs::read_to_string(folder.join(name)).unwrap();
        let json = serde_json::from_str(&text("report.json")).unwrap();
        (json, text("report.md"))
    }

    #[test]
    fn goals_of_a_part_that_never_ran_are_null_and_not_reached() {
        let folder = tempfile::tempdir().unwrap();
        let report = of_memory(20.0);
        report
            .write(folder.path(), "memory", Map::new(), "")
            .unwrap();
        let (json, text) = read(folder.path());
        assert_eq!(json["G1"]["value"], 20.0);
        assert_eq!(json["G1"]["reached"], true);
        assert_eq!(json["G1"]["part"], "memory");
        for goal in WIRE {
            let entry = &json[goal.number];
            assert_eq!(entry["value"], Value::Null, "{}", goal.number);
            assert_eq!(entry["reached"], false, "{}", goal.number);
            assert_eq!(
                (&entry["floor"], &entry["goal"]),
                (&goal.floor.into(), &goal.goal.into())
            );
        }
        assert_eq!(json["parts"]["wire"], Value::Null);
        assert_eq!(json["parts"]["memory"]["commit"], "commit of Monday");
        assert_eq!(
            json.as_object().unwrap().len(),
            MEMORY.len() + WIRE.len() + CONTROL.len() + DNS.len() + 1
        );
        assert!(text.contains("- wire: never measured"), "{text}");
        assert!(
            text.contains("| 20.0 ns | 45 | 25 | yes | memory |"),
            "{text}"
        );
    }

    #[test]
    fn each_part_replaces_its_own_goals_and_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        of_memory(30.0)
            .write(folder.path(), "memory", Map::new(), "")
            .unwrap();
        let mut wire = Report::new(machine("Tuesday"), WIRE);
        let flood = WIRE.iter().find(|goal| goal.number == "G21").unwrap();
        wire.add(flood.figure, flood.unit, &[0.25]);
        let more = Map::from_iter([("rounds".to_owned(), Value::from(7))]);
        wire.write(folder.path(), "wire", more, "behind\n").unwrap();
        of_memory(24.0)
            .write(folder.path(), "memory", Map::new(), "")
            .unwrap();
        let (json, text) = read(folder.path());
        assert_eq!(json["G1"]["value"], 24.0);
        assert_eq!(json["G21"]["value"], 0.25);
        assert_eq!(json["G21"]["reached"], true);
        assert_eq!(json["parts"]["wire"]["time"], "Tuesday");
        assert_eq!(json["parts"]["memory"]["time"], "Monday");
        let own = fs::read_to_string(folder.path().join("report-wire.json")).unwrap();
        let own: Value = serde_json::from_str(&own).unwrap();
        assert_eq!(own["rounds"], 7);
        assert_eq!(own["G21"]["value"], 0.25);
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| G"))
            .collect();
        let place = |number| rows.iter().position(|row| row.starts_with(number)).unwrap();
        assert!(place("| G1 |") < place("| G2 |") && place("| G9 |") < place("| G10 |"));
        assert!(place("| G18 |") < place("| G21 |"));
    }

    #[test]
    fn a_part_that_is_no_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("report-wire.json"), "{").unwrap();
        let error = format!("{:#}", write(folder.path()).unwrap_err());
        assert!(error.contains("report-wire.json is no JSON"), "{error}");
    }
}
