//! The report as Markdown.

use super::Report;
use super::goals::Goal;
use crate::statistics::Summary;

pub(super) fn of(report: &Report) -> String {
    let mut lines = vec![format!("Measured on {}.", report.machine), String::new()];
    goals(report, &mut lines);
    let mut section = "";
    for figure in &report.figures {
        if figure.section != section {
            section = figure.section;
            lines.extend(["".into(), format!("## {section}"), "".into()]);
            lines.push("| what | unit | median | min | 1/4 | 3/4 | max |".into());
            lines.push("|---|---|---:|---:|---:|---:|---:|".into());
        }
        let Summary {
            median,
            min,
            q1,
            q3,
            max,
            ..
        } = figure.summary;
        let numbers = [median, min, q1, q3, max].map(shown).join(" | ");
        lines.push(format!("| {} | {} | {numbers} |", figure.name, figure.unit));
    }
    if !report.left_out.is_empty() {
        lines.extend(["".into(), "Left out:".into(), "".into()]);
    }
    for (what, why) in &report.left_out {
        lines.push(format!("- {what}: {why}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn goals(report: &Report, lines: &mut Vec<String>) {
    lines.push("| goal | what | value | floor | goal | reached |".into());
    lines.push("|---|---|---:|---:|---:|---|".into());
    lines.extend(report.outcomes().map(|(goal, value)| row(goal, value)));
}

/// A goal beside its value, as a row of a table.
pub(super) fn row(goal: &Goal, value: Option<f64>) -> String {
    let measured = value.map(|value| format!("{} {}", shown(value), goal.unit));
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        goal.number,
        goal.what,
        measured.unwrap_or("not measured".into()),
        goal.floor,
        goal.goal,
        goal.verdict(value)
    )
}

/// A number with as many digits as its size is worth.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 || size == 0.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_some_three_digits() {
        let texts = [123_456.7, 45.67, 4.567, 0.4567, 0.004567, 0.0].map(shown);
        assert_eq!(texts, ["123457", "45.7", "4.57", "0.46", "0.0046", "0.0"]);
    }
}
