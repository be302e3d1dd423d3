//! Settings of the files that announce Services as environment variables.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::load::Impossible;

/// `[environment]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Folder in which a file for each namespace and format is kept up to date. Absent: none is.
    pub folder: Option<PathBuf>,
    /// The formats, each once.
    pub formats: Vec<EnvironmentFormat>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            folder: None,
            formats: vec![EnvironmentFormat::Shell],
        }
    }
}

/// How environment variables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvironmentFormat {
    /// Commands for a POSIX shell.
    Shell,
    /// For `docker run --env-file`.
    Docker,
    /// For `EnvironmentFile=` of systemd.
    Systemd,
    /// A JSON object.
    Json,
}

impl Environment {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        let refuse = |key: String, message: &str| Err(Impossible::new(key, message.to_owned()));
        if self.formats.is_empty() {
            let message = "is empty; name shell, docker, systemd or json";
            return refuse("environment.formats".to_owned(), message);
        }
        for (place, format) in self.formats.iter().enumerate() {
            if self.formats.iter().take(place).any(|f| f == format) {
                let key = format!("environment.formats[{place}]");
                return refuse(key, "is there already; name each format once");
            }
        }
        Ok(())
    }
}
