//! Problems as the log and sluicectl tell them: each once when it appears and once when it is gone.

use std::collections::{BTreeMap, BTreeSet};

use sluice_conf::message::controlplane::Problem;
use tracing::{info, warn};

use crate::object::describe;
use crate::words;

/// Problems that appear or go at once and are logged one by one.
pub const MAX_LOGGED: usize = 20;

/// Remembers the order in which problems appeared. A problem whose line changed, because something
/// was written above it, is the same problem.
#[derive(Debug, Clone, Default)]
pub(super) struct ProblemLog {
    known: BTreeMap<Problem, Appeared>,
    next: u64,
    ordered: Vec<Problem>,
}

#[derive(Debug, Clone, Copy)]
struct Appeared {
    order: u64,
    line: Option<u32>,
}

impl ProblemLog {
    /// What there is, oldest first.
    pub(super) fn all(&self) -> &[Problem] {
        &self.ordered
    }

    /// Logs what is new and what is gone.
    pub(super) fn update(&mut self, now: BTreeSet<Problem>) {
        let mut lines: BTreeMap<Problem, Option<u32>> = BTreeMap::new();
        for mut problem in now.iter().cloned() {
            let line = problem.line.take();
            lines.entry(problem).or_insert(line);
        }
        let mut solved = Vec::new();
        self.known.retain(|problem, appeared| {
            let line = lines.get(problem);
            match line {
                Some(line) => appeared.line = *line,
                None => solved.push(describe_at(problem, appeared.line)),
            }
            line.is_some()
        });
        let mut new = Vec::new();
        for (problem, line) in lines {
            if !self.known.contains_key(&problem) {
                new.push(describe_at(&problem, line));
                let order = self.next;
                self.known.insert(problem, Appeared { order, line });
                self.next += 1;
            }
        }
        for text in solved.iter().take(MAX_LOGGED) {
            info!("solved: {text}");
        }
        if let Some(more) = solved
            .len()
            .checked_sub(MAX_LOGGED)
            .filter(|more| *more > 0)
        {
            info!("solved: {}", words::count(more, "more problem"));
        }
        for text in new.iter().take(MAX_LOGGED) {
            warn!("{text}");
        }
        if let Some(more) = new.len().checked_sub(MAX_LOGGED).filter(|more| *more > 0) {
            let more = words::count(more, "more problem");
            warn!("{more}; sluicectl status lists all");
        }
        let mut ordered: Vec<Problem> = now.into_iter().collect();
        ordered.sort_by_cached_key(|problem| {
            let mut key = problem.clone();
            key.line = None;
            let order = self.known.get(&key).map(|appeared| appeared.order);
            (order, problem.line)
        });
        self.ordered = ordered;
    }
}

fn describe_at(problem: &Problem, line: Option<u32>) -> String {
    describe(&Problem {
        line,
        ..problem.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &str, line: u32) -> Problem {
        Problem {
            file: file.into(),
            line: Some(line),
            object: None,
            field: None,
            message: "is wrong".into(),
        }
    }

    #[test]
    fn problems_are_listed_in_the_order_in_which_they_appeared() {
        let mut log = ProblemLog::default();
        log.update(BTreeSet::from([problem("b", 1)]));
        let both = BTreeSet::from([problem("a", 1), problem("b", 1), problem("b", 7)]);
        let listed = [problem("b", 1), problem("b", 7), problem("a", 1)];
        log.update(both);
        assert_eq!(log.all(), listed);
    }

    #[test]
    fn a_problem_that_only_moved_is_the_same_problem() {
        let mut log = ProblemLog::default();
        log.update(BTreeSet::from([problem("b", 1)]));
        log.update(BTreeSet::from([problem("a", 1), problem("b", 1)]));
        let moved = BTreeSet::from([problem("a", 1), problem("b", 3)]);
        log.update(moved);
        assert_eq!(log.all(), [problem("b", 3), problem("a", 1)]);
        assert_eq!(log.next, 2);
        log.update(BTreeSet::new());
        assert!(log.all().is_empty());
        assert!(log.known.is_empty());
    }
}
