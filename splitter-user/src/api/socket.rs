//! The unix socket's file: its permissions, stale ones, and the agent that is there already.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Gid, Group},
};

/// Owner and group may connect, others may not.
pub const SOCKET_MODE: u32 = 0o660;
/// Of its directory, where the agent makes it.
const DIRECTORY_MODE: u32 = 0o755;

/// A socket that is bound and belongs to this process. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent has it.
    #[error("another agent{} runs with the socket {}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), socket.display())]
    SecondAgent {
        /// The socket.
        socket: PathBuf,
        /// That agent's process, where it answered.
        pid: Option<i32>,
    },
    /// Something else is there, which isn't ours to remove.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The group of the configuration isn't there.
    #[error("there is no group `{group}` that the socket {} could belong to", socket.display())]
    NoGroup {
        /// The group.
        group: String,
        /// The socket.
        socket: PathBuf,
    },
    /// The agent isn't root, and can give its files only to groups that it's in itself.
    #[error("the agent's user is not in the group `{group}`, so the socket {} cannot be given to it", socket.display())]
    NotInGroup {
        /// The group.
        group: String,
        /// The socket.
        socket: PathBuf,
    },
    /// The system refused.
    #[error("could not {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl SocketError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::SecondAgent { .. } => "stop that one first, or give this one another socket with `--socket`".to_owned(),
            Self::NotASocket { path } => {
                format!("remove {} yourself, or name another socket with `--socket`", path.display())
            }
            Self::NoGroup { group, .. } => format!("make it with `groupadd --system {group}`, or name another"),
            Self::NotInGroup { group, .. } => {
                format!("`SupplementaryGroups={group}` in the agent's unit puts it there")
            }
            Self::Io { path, .. } => {
                let directory = path.parent().unwrap_or(path);
                format!("the agent must be able to write to {}", directory.display())
            }
        }
    }
}

impl Socket {
    /// Binds the socket with mode 0660 and, if one is named, with a group whose members may connect. A stale file is
    /// replaced; the directory is made if it isn't there.
    ///
    /// # Errors
    /// Another agent has the socket; the path is taken by something else; the group isn't there; the system refuses.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| SocketError::Io { what, path, source }
        };
        let gid = group.map(|group| group_id(group, path)).transpose()?;
        if let Some(directory) = path.parent()
            && !directory.exists()
        {
            fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
            // Whatever the agent's umask is: whom the socket is for has to get to it.
            fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE))
                .map_err(failed("set the mode of", directory))?;
        }
        let lock = lock(path)?;
        refuse_if_taken(path)?;

        // Bound under another name and moved when its permissions are right: nobody meets a socket that is too open, and
        // a stale file is replaced in one step.
        let fresh = beside(path, "new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &fresh)(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed("bind the socket", &fresh))?;
        let file = SocketFile { path: fresh.clone(), _lock: lock };
        fs::set_permissions(&fresh, Permissions::from_mode(SOCKET_MODE)).map_err(failed("set the mode of", &fresh))?;
        if let Some(gid) = gid {
            chown(&fresh, None, Some(gid.as_raw())).map_err(|source| match (source.kind(), group) {
                (io::ErrorKind::PermissionDenied, Some(group)) => {
                    SocketError::NotInGroup { group: group.to_owned(), socket: path.to_owned() }
                }
                _ => failed("set the group of", &fresh)(source),
            })?;
        }
        listener.set_nonblocking(true).map_err(failed("prepare", &fresh))?;
        let file = file.renamed(path).map_err(failed("put the socket at", path))?;
        Ok(Self { listener, file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener for the runtime, and the file, to be kept for as long as the listener is.
    ///
    /// # Errors
    /// There is no runtime, or it refuses.
    pub fn into_parts(self) -> io::Result<(tokio::net::UnixListener, SocketFile)> {
        Ok((tokio::net::UnixListener::from_std(self.listener)?, self.file))
    }
}

/// The file of a socket, removed at the end, and the lock that keeps other agents off.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Given back by the kernel with the process, however it ends. The lock's own file stays: removing it would let two
    /// agents hold locks on two files of the same name.
    _lock: Flock<File>,
}

impl SocketFile {
    fn renamed(mut self, to: &Path) -> io::Result<Self> {
        fs::rename(&self.path, to)?;
        to.clone_into(&mut self.path);
        Ok(self)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, socket = %self.path.display(), "the socket's file could not be removed");
        }
    }
}

fn group_id(group: &str, socket: &Path) -> Result<Gid, SocketError> {
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        Ok(None) => Err(SocketError::NoGroup { group: group.to_owned(), socket: socket.to_owned() }),
        Err(errno) => {
            Err(SocketError::Io { what: "look up the group of", path: socket.to_owned(), source: io::Error::from(errno) })
        }
    }
}

/// Of two agents that start at the same moment, one gets the lock.
fn lock(socket: &Path) -> Result<Flock<File>, SocketError> {
    let path = beside(socket, "lock");
    let file = File::create(&path).map_err(|source| SocketError::Io { what: "open", path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            SocketError::SecondAgent { socket: socket.to_owned(), pid: answering(socket).ok().flatten() }
        } else {
            SocketError::Io { what: "lock", path, source: io::Error::from(errno) }
        }
    })
}

/// Somebody may answer who doesn't hold the lock (its file was removed), and the path may be something else altogether.
fn refuse_if_taken(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(SocketError::Io { what: "look at", path: path.to_owned(), source });
        }
        Ok(_) | Err(_) => {}
    }
    match answering(path) {
        Ok(pid) => Err(SocketError::SecondAgent { socket: path.to_owned(), pid }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(()),
        Err(source) => Err(SocketError::Io { what: "try", path: path.to_owned(), source }),
    }
}

/// The process that answers, where the kernel knows it; an error where nobody does.
fn answering(socket: &Path) -> io::Result<Option<i32>> {
    let stream = UnixStream::connect(socket)?;
    Ok(getsockopt(&stream, PeerCredentials).ok().map(|credentials| credentials.pid()))
}

/// A hidden neighbour of the socket: `.agent.sock.lock`.
fn beside(socket: &Path, suffix: &str) -> PathBuf {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    socket.with_file_name(format!(".{name}.{suffix}"))
}
