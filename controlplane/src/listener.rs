//! A Unix socket that only this process listens on.
//!
//! Guarantees: mode 0600 from the first moment it can be seen; what a dead process left behind is
//! replaced, what a live one uses is refused; on drop it is removed, unless it is another's by
//! then.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::words;

/// Bytes of `sun_path` in linux/un.h without the final zero byte.
const MAX_PATH: usize = 107;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A process answers on it.
    #[error("control.socket {}: another process listens on it; stop that one first", .0.display())]
    InUse(PathBuf),
    /// It is something else.
    #[error("control.socket {}: exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// There is no path.
    #[error("control.socket is empty; name a path")]
    Empty,
    /// The kernel has no room for the path.
    #[error("control.socket {}: is longer than {MAX_PATH} bytes; choose a shorter path", .0.display())]
    TooLong(PathBuf),
    /// A step failed.
    #[error("control.socket {}: cannot {step}: {}", path.display(), words::plain(source))]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A bound socket and its file.
#[derive(Debug)]
pub struct OwnedListener {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl OwnedListener {
    /// Binds `path`; needs a tokio runtime.
    ///
    /// # Errors
    /// Another process listens there, something else stands there, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let fail = |step| {
            move |source| ListenError::Io {
                path: path.to_owned(),
                step,
                source,
            }
        };
        if path.as_os_str().is_empty() {
            return Err(ListenError::Empty);
        }
        // Bound under another name first, so that nobody meets it before its mode is set.
        let temporary = path.with_file_name(format!(".{}", std::process::id()));
        if path.as_os_str().len().max(temporary.as_os_str().len()) > MAX_PATH {
            return Err(ListenError::TooLong(path.to_owned()));
        }
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(fail("make its folder"))?;
        }
        refuse_if_taken(path)?;
        let _ = std::fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary).map_err(fail("listen"))?;
        let inode = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::metadata(&temporary))
            .and_then(|meta| std::fs::rename(&temporary, path).map(|()| inode(&meta)))
            .map_err(|source| {
                let _ = std::fs::remove_file(&temporary);
                fail("set its mode")(source)
            })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }
}

impl Drop for OwnedListener {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| inode(&m) == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn refuse_if_taken(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io {
        path: path.to_owned(),
        step: "look at it",
        source,
    };
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full backlog means that somebody listens.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse(path.to_owned()))
        }
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_is_named_with_its_reason() {
        let refused = |path: &str| {
            OwnedListener::bind(Path::new(path))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refused(""), "control.socket is empty; name a path");
        let long = format!("/tmp/{}", "a".repeat(150));
        assert!(
            refused(&long).ends_with("is longer than 107 bytes; choose a shorter path"),
            "{}",
            refused(&long)
        );
    }

    #[tokio::test]
    async fn a_path_of_the_full_length_works() {
        let home = tempfile::tempdir().unwrap();
        let room = MAX_PATH - home.path().as_os_str().len() - 1;
        let path = home.path().join("s".repeat(room));
        let listener = OwnedListener::bind(&path).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());
    }
}
