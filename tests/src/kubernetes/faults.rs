//! What can go wrong with an API server, on demand.

use std::collections::VecDeque;

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Lists, page by page.
    List,
    /// Watches, those that begin with a list among them.
    Watch,
    /// Reading one object.
    Get,
    /// Everything that writes.
    Write,
}

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and perhaps asked to come back after so many seconds.
    Refuse {
        /// HTTP status.
        code: u16,
        /// `Retry-After`.
        after: Option<u64>,
    },
    /// It is answered by these bytes, as if all were well.
    Say(Vec<u8>),
    /// It is answered by the same byte again and again.
    Endless(u8),
    /// The connection breaks in the middle of the answer.
    Break,
}

/// What goes wrong with every watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits {
    /// Every event comes twice.
    pub doubled: bool,
    /// Of the events that come together, the newest come first.
    pub reversed: bool,
    /// No event comes until this ends.
    pub held: bool,
    /// Every answer comes in small pieces.
    pub slow: bool,
    /// Lists cannot be streamed.
    pub paged: bool,
}

/// How the watches that stand are ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As watches end.
    Close,
    /// Their connections break.
    Break,
    /// The version is too old: an ERROR event with 410, then the end.
    Expire,
    /// These bytes come, then the end.
    Say(Vec<u8>),
}

/// Faults that wait for their request.
#[derive(Debug, Default)]
pub struct Faults(VecDeque<(Verb, &'static str, Fault)>);

impl Faults {
    /// The next request of this kind goes wrong.
    pub fn add(&mut self, verb: Verb, plural: &'static str, fault: Fault) {
        self.0.push_back((verb, plural, fault));
    }

    /// What goes wrong with this request.
    pub fn take(&mut self, verb: Verb, plural: &str) -> Option<Fault> {
        let mut waiting = self.0.iter();
        let at = waiting.position(|(v, p, _)| (*v, *p) == (verb, plural))?;
        self.0.remove(at).map(|(_, _, fault)| fault)
    }

    /// How many wait.
    pub fn left(&self) -> usize {
        self.0.len()
    }
}
