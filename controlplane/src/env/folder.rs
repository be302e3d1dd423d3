//! A folder with a file of variables for each namespace and format.
//!
//! Guarantees: a file is replaced as a whole, so that a reader sees the old text or the new one, and
//! only when its text changes; only files that this or an earlier process made are replaced or
//! removed: their names stand in a list beside them, which is written before them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::format::{Format, LeftOut};
use super::{Variable, format};
use crate::object::is_label;
use crate::words;

/// The names of the files that were made here, one a line.
const LIST: &str = ".sluice-files";

const FORMATS: [Format; 4] = [Format::Shell, Format::Docker, Format::Systemd, Format::Json];

/// Why a file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read, written or removed.
    #[error("environment.folder: cannot {what} {}: {}", path.display(), words::plain(source))]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else made it.
    #[error(
        "environment.folder: {} is somebody else's; move it away or choose another folder",
        .0.display()
    )]
    Foreign(PathBuf),
}

/// The folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    formats: Vec<Format>,
    /// Names of the files that were made here.
    own: BTreeSet<String>,
}

impl Folder {
    /// Opens the folder, which is made when missing.
    ///
    /// # Errors
    /// It cannot be made, or its list cannot be read.
    pub fn open(path: &Path, formats: &[Format]) -> Result<Self, FolderError> {
        fs::create_dir_all(path).map_err(failed("make the folder", path))?;
        let list = path.join(LIST);
        let own = match fs::read_to_string(&list) {
            Ok(text) => text
                .lines()
                .filter(|n| is_own(n))
                .map(str::to_owned)
                .collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(failed("read", &list)(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            formats: formats.to_vec(),
            own,
        })
    }

    /// Namespaces that there are files of.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let names = self.own.iter().filter_map(|name| name.split_once('.'));
        names.map(|(namespace, _)| namespace.to_owned()).collect()
    }

    /// Has the files of a namespace hold these variables; `None` has it without files. Returns what
    /// is left out of files whose text is new.
    ///
    /// # Errors
    /// The first file that is not as it should be; the others are.
    pub fn set(
        &mut self,
        namespace: &str,
        variables: Option<&[Variable]>,
    ) -> Result<Vec<(Format, LeftOut)>, FolderError> {
        let mut wanted = BTreeMap::new();
        // What is no name of a namespace could be the path of another file.
        if let Some(variables) = variables.filter(|_| is_label(namespace)) {
            for format in &self.formats {
                let name = format!("{namespace}.{}", extension(*format));
                wanted.insert(name, (*format, text(*format, namespace, variables)));
            }
        }
        let prefix = format!("{namespace}.");
        let mut first = Ok(());
        let old: Vec<String> = self
            .own
            .iter()
            .filter(|n| n.starts_with(&prefix))
            .cloned()
            .collect();
        for name in old.iter().filter(|name| !wanted.contains_key(*name)) {
            first = first.and(self.remove(name));
        }
        let mut left_out = Vec::new();
        for (name, (format, text)) in wanted {
            match self.put(&name, &text.text) {
                Ok(true) => left_out.extend(text.left_out.into_iter().map(|left| (format, left))),
                Ok(false) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first.map(|()| left_out)
    }

    /// Writes a file if its text is another one; returns whether it was.
    fn put(&mut self, name: &str, text: &str) -> Result<bool, FolderError> {
        let path = self.path.join(name);
        let found = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        if !self.own.contains(name) {
            if found.is_some() {
                return Err(FolderError::Foreign(path));
            }
            self.own.insert(name.to_owned());
            if let Err(error) = self.write_list() {
                self.own.remove(name);
                return Err(error);
            }
        }
        if found.as_deref() == Some(text.as_bytes()) {
            return Ok(false);
        }
        self.replace(name, text).map(|()| true)
    }

    fn remove(&mut self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
        self.own.remove(name);
        self.write_list()
    }

    fn write_list(&self) -> Result<(), FolderError> {
        let mut text = String::new();
        for name in &self.own {
            text.push_str(name);
            text.push('\n');
        }
        self.replace(LIST, &text)
    }

    /// Puts a whole text in the place of a file.
    fn replace(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let new = self.path.join(format!(".{name}.new"));
        let written = write_new(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| {
            // Left there it would only be in the way.
            let _ = fs::remove_file(&new);
            failed("write", &path)(error)
        })
    }
}

/// Writes a file that is made for it, never one that a link leads to.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    // Before the rename, or a power cut could leave an empty file in the place of a good one.
    file.sync_all()
}

/// The text of a file, with what is left out of it.
fn text(format: Format, namespace: &str, variables: &[Variable]) -> format::Text {
    let mut written = format::write(format, variables);
    if format == Format::Json {
        return written;
    }
    let mut head = format!(
        "# Services of the namespace {namespace}. Kept by sluice-controlplane: what is written here by hand is lost.\n"
    );
    for LeftOut { name, reason } in &written.left_out {
        // On one line, whatever the name is.
        head.push_str(&format!("# Left out: {}: {reason}.\n", name.escape_debug()));
    }
    written.text.insert_str(0, &head);
    written
}

const fn extension(format: Format) -> &'static str {
    match format {
        Format::Shell => "sh",
        Format::Docker => "env",
        Format::Systemd => "conf",
        Format::Json => "json",
    }
}

/// Whether it can be the name of a file that was made here.
fn is_own(name: &str) -> bool {
    let parts = name.split_once('.');
    parts.is_some_and(|(namespace, of)| {
        is_label(namespace) && FORMATS.into_iter().any(|format| extension(format) == of)
    })
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn one(value: &str) -> Vec<Variable> {
        vec![Variable::new("WEB_PORT", value)]
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != LIST).collect();
        names.sort();
        names
    }

    #[test]
    fn there_is_a_file_for_each_namespace_and_format() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("made/when/missing");
        let mut folder = Folder::open(&path, &[Format::Shell, Format::Json]).unwrap();
        folder.set("shop", Some(&one("1"))).unwrap();
        folder.set("mail", Some(&[])).unwrap();
        assert_eq!(
            names(&path),
            ["mail.json", "mail.sh", "shop.json", "shop.sh"]
        );
        let text = fs::read_to_string(path.join("shop.sh")).unwrap();
        assert!(
            text.starts_with("# Services of the namespace shop."),
            "{text}"
        );
        assert!(text.ends_with("\nexport WEB_PORT='1'\n"), "{text}");
        let text = fs::read_to_string(path.join("mail.json")).unwrap();
        assert_eq!(text, "{}\n");
        folder.set("shop", None).unwrap();
        assert_eq!(names(&path), ["mail.json", "mail.sh"]);
    }

    #[test]
    fn a_file_is_written_only_when_its_text_changes_and_then_replaced() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path(), &[Format::Docker]).unwrap();
        let inode = || fs::metadata(place.path().join("shop.env")).unwrap().ino();
        folder.set("shop", Some(&one("1"))).unwrap();
        let first = inode();
        folder.set("shop", Some(&one("1"))).unwrap();
        assert_eq!(inode(), first);
        // Held open, so that its number is not given again.
        let _held = File::open(place.path().join("shop.env")).unwrap();
        folder.set("shop", Some(&one("2"))).unwrap();
        assert_ne!(inode(), first);
        assert_eq!(names(place.path()), ["shop.env"]);
    }

    #[test]
    fn what_a_format_cannot_express_stands_in_the_file_and_is_returned_once() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path(), &[Format::Shell]).unwrap();
        let variables = [Variable::new("1WEB_PORT", "x")];
        let told = folder.set("shop", Some(&variables)).unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(folder.set("shop", Some(&variables)).unwrap(), []);
        let text = fs::read_to_string(place.path().join("shop.sh")).unwrap();
        assert!(text.contains("# Left out: 1WEB_PORT: "), "{text}");
    }

    #[test]
    fn a_later_process_removes_what_an_earlier_one_made_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let foreign = place.path().join("foreign.sh");
        fs::write(&foreign, "mine").unwrap();
        let both = [Format::Shell, Format::Json];
        let mut folder = Folder::open(place.path(), &both).unwrap();
        folder.set("shop", Some(&one("1"))).unwrap();
        let mut folder = Folder::open(place.path(), &[Format::Shell]).unwrap();
        assert_eq!(folder.namespaces(), BTreeSet::from(["shop".to_owned()]));
        folder.set("shop", Some(&one("1"))).unwrap();
        assert_eq!(names(place.path()), ["foreign.sh", "shop.sh"]);
        folder.set("foreign", None).unwrap();
        folder.set("shop", None).unwrap();
        assert_eq!(names(place.path()), ["foreign.sh"]);
        let error = folder.set("foreign", Some(&one("1"))).unwrap_err();
        assert!(matches!(error, FolderError::Foreign(path) if path == foreign));
        assert_eq!(fs::read_to_string(foreign).unwrap(), "mine");
    }

    #[test]
    fn a_list_that_names_other_files_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("folder");
        let outside = place.path().join("outside.sh");
        fs::write(&outside, "mine").unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(
            path.join(LIST),
            "../outside.sh\nshop.sh\nshop.exe\n\n/etc/passwd\n",
        )
        .unwrap();
        let mut folder = Folder::open(&path, &[Format::Shell]).unwrap();
        assert_eq!(folder.namespaces(), BTreeSet::from(["shop".to_owned()]));
        folder.set("../outside", None).unwrap();
        folder.set("../outside", Some(&one("1"))).unwrap();
        assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_the_others_are_written() {
        let place = tempfile::tempdir().unwrap();
        let both = [Format::Docker, Format::Shell];
        let mut folder = Folder::open(place.path(), &both).unwrap();
        fs::create_dir(place.path().join("shop.env")).unwrap();
        let error = folder.set("shop", Some(&one("1"))).unwrap_err().to_string();
        assert!(
            error.starts_with("environment.folder: cannot read "),
            "{error}"
        );
        assert!(error.contains("shop.env: "), "{error}");
        assert_eq!(names(place.path()), ["shop.env", "shop.sh"]);
        let file = place.path().join("shop.sh");
        let error = Folder::open(&file, &both).unwrap_err().to_string();
        assert!(
            error.starts_with("environment.folder: cannot make the folder "),
            "{error}"
        );
    }
}
