//! The folder that the control plane watches. A file is put there in one step, written beside it and
//! renamed, so that nobody ever reads half of one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Service;

/// The folder that the control plane watches.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).context("the manifest folder")?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file of a Service.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, service: &Service) -> Result<()> {
        self.write_text(&format!("{}.yaml", service.name), &service.yaml())
    }

    /// Writes a file of any content in one step.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_text(&self, file: &str, text: &str) -> Result<()> {
        // No manifest by its ending, on the same file system by its place.
        let draft = self.path.join(format!(".{file}.draft"));
        fs::write(&draft, text).with_context(|| format!("{}", draft.display()))?;
        fs::rename(&draft, self.path.join(file)).with_context(|| format!("manifest {file}"))
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.path.join(file)).with_context(|| format!("manifest {file}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_leaves_only_the_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path().join("services")).unwrap();
        folder.write_text("a.yaml", "one").unwrap();
        folder.write_text("a.yaml", "two").unwrap();
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["a.yaml"]);
        folder.remove("a.yaml").unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
