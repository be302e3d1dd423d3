//! What became of the cases.

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that it expects was seen.
    Passed,
    /// Something else was seen: what was expected, and what was seen.
    Failed(String),
    /// It cannot be judged here: why.
    NotApplicable(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Outcome::Passed,
            Err(reason) => Outcome::Failed(reason),
        }
    }
}

/// What became of all cases, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    cases: Vec<(String, Outcome)>,
    notes: Vec<String>,
}

impl Report {
    /// Adds a case.
    pub fn add(&mut self, id: &str, outcome: Outcome) {
        self.cases.push((id.to_owned(), outcome));
    }

    /// Adds something that the reader should know and that decides nothing.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Cases with their outcomes.
    pub fn cases(&self) -> &[(String, Outcome)] {
        &self.cases
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Passed)
    }

    /// How many cases failed.
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// How many cases could not be judged.
    pub fn not_applicable(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::NotApplicable(_)))
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.cases.iter().filter(|(_, outcome)| is(outcome)).count()
    }

    /// The report as lines; those of cases that did not fail only when `verbose`. The last line is
    /// `N passed, N failed`.
    pub fn lines(&self, verbose: bool) -> Vec<String> {
        let mut lines: Vec<String> = self.notes.iter().map(|n| format!("note: {n}")).collect();
        lines.extend(self.cases.iter().filter_map(|(id, outcome)| match outcome {
            Outcome::Failed(reason) => Some(format!("FAILED {id}: {reason}")),
            Outcome::Passed => verbose.then(|| format!("passed {id}")),
            Outcome::NotApplicable(why) => verbose.then(|| format!("not applicable {id}: {why}")),
        }));
        if self.not_applicable() > 0 {
            lines.push(format!("{} not applicable", self.not_applicable()));
        }
        lines.push(format!(
            "{} passed, {} failed",
            self.passed(),
            self.failed()
        ));
        // A value of the file may hold a line break; a case has one line all the same.
        lines
            .iter()
            .map(|line| line.replace(['\n', '\r'], " "))
            .collect()
    }
}
