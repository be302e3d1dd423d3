//! The listening Unix socket: its path, its mode, who may connect.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process serves it.
    #[error("control socket {0}: another process serves it; stop that one or set control.socket")]
    InUse(PathBuf),
    /// Something that is no socket stands there.
    #[error("control socket {0}: a file that is no socket is in the way; move it")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("control socket {path}: {reason}; check the folder's owner or set control.socket")]
    Refused {
        /// The path.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

/// A listening socket whose file goes away with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, mode 0600. Its folder is made when missing; the socket of a process that
    /// has died is replaced.
    ///
    /// # Errors
    /// The path is in use or cannot be used.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refused = |reason| SocketError::Refused {
            path: path.to_owned(),
            reason,
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::create_dir_all(folder).map_err(refused)?;
        }
        clear(path)?;
        let socket = UnixListener::bind(path).map_err(refused)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    /// The socket.
    pub fn socket(&self) -> &UnixListener {
        &self.socket
    }

    /// Takes the file away, while the socket may still be listened on.
    pub fn remove(&self) {
        // Whether the file could be removed matters to nobody: the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes what a dead process left at `path`.
fn clear(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    let refused = |reason| SocketError::Refused {
        path: path.to_owned(),
        reason,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

/// Whether the process at the other end may talk to this one: root, or the same user.
pub(super) fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|error| error.to_string())?;
    if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(format!(
        "user {} may not use the control socket",
        peer.uid.as_raw()
    ))
}
