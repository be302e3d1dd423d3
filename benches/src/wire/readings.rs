//! What scenarios read, figure by figure, until it is reported.

use crate::report::Report;

/// Readings of many figures, in the order in which figures were first read.
#[derive(Debug, Default)]
pub struct Readings {
    figures: Vec<Figure>,
    left_out: Vec<(String, String)>,
}

#[derive(Debug)]
struct Figure {
    section: &'static str,
    name: String,
    unit: &'static str,
    readings: Vec<f64>,
}

impl Readings {
    /// Adds one reading to a figure.
    pub fn add(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        reading: f64,
    ) {
        self.readings(section, name.into(), unit).push(reading);
    }

    /// Adds a reading to a figure of which only the worst counts: the largest.
    pub fn add_worst(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        reading: f64,
    ) {
        let readings = self.readings(section, name.into(), unit);
        let worst = readings.iter().copied().fold(reading, f64::max);
        *readings = vec![worst];
    }

    /// The readings of a figure, which is there from now on.
    fn readings(
        &mut self,
        section: &'static str,
        name: String,
        unit: &'static str,
    ) -> &mut Vec<f64> {
        let figures = &mut self.figures;
        let known = figures.iter().position(|figure| figure.name == name);
        let place = known.unwrap_or(figures.len());
        if known.is_none() {
            figures.push(Figure {
                section,
                name,
                unit,
                readings: Vec::new(),
            });
        }
        &mut figures[place].readings
    }

    /// Notes what is not measured, and why.
    pub fn leave_out(&mut self, what: String, why: impl Into<String>) {
        if !self.left_out.iter().any(|(known, _)| *known == what) {
            self.left_out.push((what, why.into()));
        }
    }

    /// The readings of a figure.
    pub fn of(&self, name: &str) -> &[f64] {
        let found = self.figures.iter().find(|figure| figure.name == name);
        found.map_or(&[], |figure| &figure.readings)
    }

    /// Adds all figures to a report, section by section.
    pub fn tell(&self, report: &mut Report) {
        let mut sections: Vec<&'static str> = Vec::new();
        for figure in &self.figures {
            if !sections.contains(&figure.section) {
                sections.push(figure.section);
            }
        }
        for section in sections {
            report.section(section);
            let own = self.figures.iter();
            for figure in own.filter(|figure| figure.section == section) {
                report.add(&figure.name, figure.unit, &figure.readings);
            }
        }
        for (what, why) in &self.left_out {
            report.leave_out(what, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Machine;

    #[test]
    fn readings_of_one_figure_come_together_and_figures_of_one_section_too() {
        let mut readings = Readings::default();
        readings.add("one", "a", "ms", 3.0);
        readings.add("two", "b", "%", 1.0);
        readings.add("one", "a", "ms", 5.0);
        readings.add("one", "c", "ms", 7.0);
        for _ in 0..2 {
            readings.leave_out("d".into(), "no room");
        }
        assert_eq!(readings.of("a"), [3.0, 5.0]);
        assert!(readings.of("nothing").is_empty());
        for reading in [2.0, 9.0, 4.0] {
            readings.add_worst("two", "e", "flows", reading);
        }
        assert_eq!(readings.of("e"), [9.0]);
        let mut report = Report::new(Machine::default(), &[]);
        readings.tell(&mut report);
        assert_eq!(report.value("a"), Some(4.0));
        let text = report.to_markdown();
        let place = |part| text.find(part).unwrap();
        assert!(
            place("## one") < place("| c |") && place("| c |") < place("## two"),
            "{text}"
        );
        assert_eq!(text.matches("- d: no room").count(), 1);
    }
}
