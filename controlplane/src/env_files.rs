//! Keeps the files up to date that announce Services as environment variables.
//!
//! Guarantees: what has changed is in the files after one question to the engine; trouble with the
//! folder is told once, and when it is over, and nothing else waits for it.

use std::path::PathBuf;
use std::time::Duration;

use sluice_conf::settings::controlplane::Environment;
use tracing::{info, warn};

use crate::engine::Questions;
use crate::env::concerned::{Concerned, Whose};
use crate::env::folder::{Folder, FolderError};
use crate::env::format::Format;
use crate::env::{Announced, Announcements, Variable, Workload, environment};

/// How long to wait before what could not be written is written again.
const RETRY: Duration = Duration::from_secs(5);

/// The files, and which of them are not as they should be.
#[derive(Debug)]
struct Keeper {
    path: PathBuf,
    formats: Vec<Format>,
    folder: Option<Folder>,
    due: Whose,
    trouble: Option<String>,
}

/// Keeps the files that the settings ask for; goes on until the engine ends, for ever without any.
pub async fn keep(settings: Environment, questions: Questions, concerned: Concerned) {
    let Some(path) = settings.folder else {
        return std::future::pending().await;
    };
    let mut keeper = Keeper {
        path,
        formats: settings.formats,
        folder: None,
        due: Whose::default(),
        trouble: None,
    };
    loop {
        tokio::select! {
            news = concerned.next() => keeper.due.add(news),
            () = tokio::time::sleep(RETRY), if !keeper.due.is_empty() => {}
        }
        let wanted = (!keeper.due.all).then(|| keeper.due.namespaces.clone());
        let Ok(answer) = questions.announced(wanted).await else {
            return;
        };
        let Some(known) = answer else { continue };
        // Nothing of it waits for anything but the disk.
        let round = tokio::task::spawn_blocking(move || keeper.round(&known));
        keeper = match round.await {
            Ok(after) => after,
            // Whatever went wrong with files must not end the control plane.
            Err(error) => {
                warn!("environment.folder is not kept up to date any more: {error}");
                return std::future::pending().await;
            }
        };
    }
}

impl Keeper {
    /// Brings what is due up to what is known.
    fn round(mut self, known: &Announcements) -> Self {
        let result = self.write(known);
        let trouble = result.err().map(|error| error.to_string());
        match &trouble {
            Some(why) if self.trouble != trouble => warn!("{why}; it is tried again"),
            None if self.trouble.is_some() => {
                info!(
                    "environment.folder {}: is up to date again",
                    self.path.display()
                );
            }
            _ => {}
        }
        self.trouble = trouble;
        self
    }

    /// Returns the first error; what could not be written stays due.
    fn write(&mut self, known: &Announcements) -> Result<(), FolderError> {
        let mut folder = match self.folder.take() {
            Some(folder) => folder,
            None => Folder::open(&self.path, &self.formats)?,
        };
        let mut due = std::mem::take(&mut self.due);
        if due.all {
            due.namespaces.extend(known.namespaces.iter().cloned());
            due.namespaces.append(&mut folder.namespaces());
        }
        let mut first = Ok(());
        for namespace in due.namespaces {
            let is_there = known.namespaces.contains(&namespace);
            let variables = is_there.then(|| variables(&namespace, &known.services));
            match folder.set(&namespace, variables.as_deref()) {
                Ok(left_out) => {
                    for (format, left) in left_out {
                        let name = left.name;
                        warn!(
                            "environment of the namespace {namespace}, {format:?}: {name} is left out: {}",
                            left.reason
                        );
                    }
                }
                Err(error) => {
                    self.due.namespaces.insert(namespace);
                    first = first.and(Err(error));
                }
            }
        }
        self.folder = Some(folder);
        first
    }
}

/// What a workload of a namespace is told.
fn variables(namespace: &str, services: &[Announced]) -> Vec<Variable> {
    let workload = Workload {
        namespace,
        service_links: true,
        waits: true,
    };
    // Services are known: nobody has to wait.
    environment(&workload, &[], Some(services)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::env::AnnouncedPort;

    fn keeper(path: &Path) -> Keeper {
        Keeper {
            path: path.to_owned(),
            formats: vec![Format::Docker],
            folder: None,
            due: Whose::everybody(),
            trouble: None,
        }
    }

    fn known(services: &[(&str, &str)]) -> Announcements {
        let announced = |(namespace, name): &(&str, &str)| Announced {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            cluster_ip: "10.96.0.1".to_owned(),
            ports: vec![AnnouncedPort {
                name: String::new(),
                port: 80,
                protocol: sluice_conf::Protocol::Tcp,
            }],
        };
        Announcements {
            services: services.iter().map(announced).collect(),
            namespaces: services.iter().map(|(n, _)| (*n).to_owned()).collect(),
        }
    }

    fn hosts(path: &Path, namespace: &str) -> Option<Vec<String>> {
        let text = std::fs::read_to_string(path.join(format!("{namespace}.env"))).ok()?;
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("_SERVICE_HOST="));
        Some(lines.map(|(name, _)| name.to_owned()).collect())
    }

    #[test]
    fn files_follow_the_services_of_what_is_due() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path();
        let both = known(&[("shop", "web"), ("mail", "imap"), ("default", "kubernetes")]);
        let mut keeper = keeper(path).round(&both);
        assert_eq!(hosts(path, "shop").unwrap(), ["KUBERNETES", "WEB"]);
        assert_eq!(hosts(path, "mail").unwrap(), ["IMAP", "KUBERNETES"]);
        assert!(keeper.due.is_empty());
        keeper.due.namespaces.insert("mail".to_owned());
        let without = known(&[("default", "kubernetes")]);
        let mut keeper = keeper.round(&without);
        assert_eq!(hosts(path, "mail"), None);
        assert_eq!(hosts(path, "shop").unwrap().len(), 2, "was not due");
        keeper.due.all = true;
        keeper.round(&without);
        assert_eq!(hosts(path, "shop"), None);
        assert_eq!(hosts(path, "default").unwrap(), ["KUBERNETES"]);
    }

    #[test]
    fn a_folder_that_cannot_be_had_is_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("folder");
        std::fs::write(&path, "a file").unwrap();
        let known = known(&[("shop", "web")]);
        let keeper = keeper(&path).round(&known);
        assert!(keeper.due.all);
        assert!(keeper.trouble.is_some());
        std::fs::remove_file(&path).unwrap();
        let keeper = keeper.round(&known);
        assert_eq!((keeper.due.is_empty(), keeper.trouble), (true, None));
        assert_eq!(hosts(&path, "shop").unwrap(), ["WEB"]);
    }
}
