//! The figures of a run with what they are measured against, as JSON and as Markdown.
//!
//! Every value is a reading of this run. A goal whose figure was not taken has no value and counts
//! as not reached; what was left out is said with its reason.
//!
//! Each part of the benchmarks writes a report of its own, `report-PART.json` and `report-PART.md`;
//! `report.json` and `report.md` show the goals of all parts, see [`merged`].

pub mod goals;
mod machine;
mod markdown;
pub mod merged;

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::statistics::Summary;
use goals::Goal;
pub use machine::{Machine, field};

/// One figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Under what heading it stands.
    pub section: &'static str,
    /// Name, unique in the report.
    pub name: String,
    /// Unit of its readings.
    pub unit: &'static str,
    /// The readings.
    pub summary: Summary,
}

/// All figures of a run.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    goals: &'static [Goal],
    figures: Vec<Figure>,
    left_out: Vec<(String, String)>,
    section: &'static str,
}

impl Report {
    /// A report without figures about `goals`.
    pub fn new(machine: Machine, goals: &'static [Goal]) -> Self {
        Self {
            machine,
            goals,
            figures: Vec::new(),
            left_out: Vec::new(),
            section: "",
        }
    }

    /// Begins a section and says so.
    pub fn section(&mut self, title: &'static str) {
        println!("\n{title}");
        self.section = title;
    }

    /// Adds a figure of these readings and prints it; nothing without readings.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, readings: &[f64]) {
        if let Some(summary) = Summary::of(readings) {
            self.add_summary(name, unit, summary);
        }
    }

    /// Adds a figure whose readings are summed up already, and prints it.
    pub fn add_summary(&mut self, name: impl Into<String>, unit: &'static str, summary: Summary) {
        let name = name.into();
        let Summary { median, q1, q3, .. } = summary;
        println!("  {name:<58} {median:>12.4} {unit:<22} ({q1:.4} to {q3:.4})");
        self.figures.push(Figure {
            section: self.section,
            name,
            unit,
            summary,
        });
    }

    /// Notes what was not measured, and why.
    pub fn leave_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        println!("  {what}: left out, {why}");
        self.left_out.push((what, why));
    }

    /// The median of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name)?;
        Some(figure.summary.median)
    }

    /// Each goal with its value.
    fn outcomes(&self) -> impl Iterator<Item = (&Goal, Option<f64>)> {
        let goals = self.goals.iter();
        goals.map(|goal| (goal, self.value(goal.figure)))
    }

    /// Goals by number, then `machine`, `figures` and `left_out`.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        for (goal, value) in self.outcomes() {
            all.insert(goal.number.into(), goal.judged(value));
        }
        let figures = self.figures.iter().map(|figure| {
            let mut entry = json!(figure.summary);
            entry["unit"] = figure.unit.into();
            entry["section"] = figure.section.into();
            (figure.name.clone(), entry)
        });
        let left_out = self.left_out.iter();
        let left_out = left_out.map(|(what, why)| (what.clone(), why.clone().into()));
        all.insert("figures".into(), Value::Object(figures.collect()));
        all.insert("left_out".into(), Value::Object(left_out.collect()));
        all.insert("machine".into(), json!(self.machine));
        Value::Object(all)
    }

    /// Writes it as the report of a part, with `more` in the JSON beside goals and figures and
    /// `text` in the Markdown behind them; then the report of all parts that are there.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(
        &self,
        folder: &Path,
        part: &str,
        more: Map<String, Value>,
        text: &str,
    ) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut json = self.to_json();
        if let Some(all) = json.as_object_mut() {
            all.extend(more);
        }
        let json = serde_json::to_string_pretty(&json)? + "\n";
        write(folder, &format!("report-{part}.json"), &json)?;
        let markdown = self.to_markdown() + text;
        write(folder, &format!("report-{part}.md"), &markdown)?;
        merged::write(folder)
    }

    /// The same for readers.
    pub fn to_markdown(&self) -> String {
        markdown::of(self)
    }
}

/// Writes a file and says so.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::goals::Better;
    use super::*;

    const GOALS: &[Goal] = &[
        Goal {
            number: "G1",
            what: "a packet",
            figure: "packet",
            unit: "ns",
            floor: 45.0,
            goal: 25.0,
            better: Better::Lower,
        },
        Goal {
            number: "G9",
            what: "connections",
            figure: "opened",
            unit: "million/s",
            floor: 2.0,
            goal: 5.0,
            better: Better::Higher,
        },
    ];

    fn report() -> Report {
        let mut report = Report::new(Machine::default(), GOALS);
        report.section("Path");
        report.add("packet", "ns", &[30.0, 20.0, 90.0]);
        report.add("nothing", "ns", &[]);
        report.leave_out("opened", "there is no memory for it");
        report
    }

    #[test]
    fn json_has_goals_by_number_with_value_unit_floor_goal_and_whether_reached() {
        let json = report().to_json();
        let keys = ["value", "unit", "floor", "goal", "reached"];
        let found = keys.map(|key| json["G1"][key].clone());
        assert_eq!(
            found,
            [
                json!(30.0),
                json!("ns"),
                json!(45.0),
                json!(25.0),
                json!(false)
            ]
        );
        assert_eq!(json["figures"]["packet"]["median"], 30.0);
        assert_eq!(json["figures"]["packet"]["max"], 90.0);
        assert_eq!(json["figures"]["packet"]["section"], "Path");
        assert_eq!(json["figures"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn a_goal_without_a_figure_has_no_value_and_is_not_reached() {
        let json = report().to_json();
        assert_eq!(json["G9"]["value"], Value::Null);
        assert_eq!(json["G9"]["reached"], false);
        assert_eq!(json["left_out"]["opened"], "there is no memory for it");
    }

    #[test]
    fn markdown_shows_each_goal_and_each_figure() {
        let text = report().to_markdown();
        assert!(
            text.contains("| G1 | a packet | 30.0 ns | 45 | 25 | floor |"),
            "{text}"
        );
        assert!(
            text.contains("| G9 | connections | not measured | 2 | 5 | no |"),
            "{text}"
        );
        assert!(
            text.contains("| packet | ns | 30.0 | 20.0 | 25.0 | 60.0 | 90.0 |"),
            "{text}"
        );
        assert!(text.contains("opened: there is no memory for it"), "{text}");
    }
}
