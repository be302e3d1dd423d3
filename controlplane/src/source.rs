//! Where objects come from. Every source speaks in the same events, so the index cannot tell a
//! folder of manifests from a live API.

mod batch;
pub mod document;
pub(crate) mod files;
pub mod folder;
pub mod kubernetes;
pub mod manifest;
mod scan;
mod typed;

use sluice_conf::message::controlplane::Problem;

use crate::object::{Issue, Lines, Object, ObjectId, Origin};

/// Which source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A folder of manifests.
    Folder,
    /// A live Kubernetes API.
    Kubernetes,
}

/// What a source tells the index.
#[derive(Debug)]
pub enum Event {
    /// The object was found; it replaces what the same file said of it before.
    Apply {
        /// Which object.
        id: ObjectId,
        /// Where it stands.
        origin: Origin,
        /// The object; `None` when it is malformed, which an issue tells.
        object: Option<Object>,
        /// What the source itself found wrong with it.
        issues: Vec<Issue>,
        /// The lines of its fields.
        lines: Lines,
        /// Whether an API server has admitted it, so that nothing may be changed or given to it.
        admitted: bool,
    },
    /// The file changed, and whether it still holds the object cannot be told (yet): nothing that
    /// was said of the object is true any more, but it stays in use.
    Doubt {
        /// Which object.
        id: ObjectId,
        /// The file that held it.
        file: String,
    },
    /// The file does not hold the object any more.
    Delete {
        /// Which object.
        id: ObjectId,
        /// The file that held it.
        file: String,
    },
    /// Everything that is wrong with a file beside its objects; replaces what was reported of this
    /// file before.
    Report {
        /// The file.
        file: String,
        /// What is wrong; empty when nothing is.
        problems: Vec<Problem>,
    },
    /// The events so far are a state that was written: compile it now. Before each source has said
    /// so once nothing may be compiled, or a restart would take Services away.
    Synced {
        /// Which source.
        source: Source,
    },
}
