//! Where the server listens.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;

use crate::output;

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Net(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("no path; valid: unix:/run/lsbuf.sock".to_owned())
            } else {
                Ok(Address::Unix(path.into()))
            };
        }
        text.parse()
            .map(Address::Net)
            .map_err(|_| "valid: ADDRESS:PORT such as 127.0.0.1:9747 or [::1]:9747, or unix:PATH".to_owned())
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Net(TcpListener),
    Unix(UnixListener),
}

/// As people type it.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Net(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}/"),
                Err(_) => f.write_str("a socket"),
            },
            Listener::Unix(listener) => match listener.local_addr() {
                Ok(address) => match address.as_pathname() {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("a Unix socket"),
                },
                Err(_) => f.write_str("a Unix socket"),
            },
        }
    }
}

/// The sockets that systemd has handed over, or else one that is made.
pub(super) fn all(address: &Address, allow_remote: bool) -> Result<Vec<Listener>> {
    let mut listeners = handed_over()?;
    if listeners.is_empty() {
        listeners.push(bind(address)?);
    }
    for listener in &listeners {
        let Listener::Net(socket) = listener else { continue };
        let local = socket.local_addr().context("a socket has no address")?;
        if local.ip().is_loopback() {
            continue;
        }
        if !allow_remote {
            bail!(
                "{local} can be reached from other machines, which would see every process that holds a buffer; \
                 if that is wanted, add --allow-remote"
            );
        }
        output::say(&format!("warning: whoever can reach {local} sees every process that holds a buffer"));
    }
    Ok(listeners)
}

fn handed_over() -> Result<Vec<Listener>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for nth in 0..passed.len() {
        // One that is of the other sort is an error of this one.
        if let Ok(Some(socket)) = passed.take_tcp_listener(nth) {
            listeners.push(Listener::Net(socket));
        } else if let Ok(Some(socket)) = passed.take_unix_listener(nth) {
            listeners.push(Listener::Unix(socket));
        } else {
            bail!("fd {} that was handed over is no listening stream socket", 3 + nth);
        }
    }
    Ok(listeners)
}

fn bind(address: &Address) -> Result<Listener> {
    match address {
        Address::Net(address) => {
            let socket = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
            Ok(Listener::Net(socket))
        }
        Address::Unix(path) => {
            remove_dead(path);
            let socket =
                UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
            Ok(Listener::Unix(socket))
        }
    }
}

/// Removes the socket of a server that has ended.
fn remove_dead(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which texts are addresses, and that others have a line that says what is valid.
    #[test]
    fn addresses() {
        assert_eq!(Address::parse("unix:/run/x"), Ok(Address::Unix("/run/x".into())));
        assert!(matches!(Address::parse("[::1]:80"), Ok(Address::Net(_))));
        for text in ["", "9747", "localhost:80", "127.0.0.1", "127.0.0.1:99999", "unix:"] {
            assert!(Address::parse(text).is_err_and(|says| says.contains("valid: ")), "{text}");
        }
    }

    /// Check that the socket of a server that has ended is replaced, and no other.
    #[test]
    fn sockets() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("x"));
        let first = bind(&address).unwrap();
        assert!(bind(&address).is_err());
        drop(first);
        let second = bind(&address).unwrap();
        assert!(second.to_string().starts_with("unix:/"));
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(bind(&Address::Unix(file.clone())).is_err());
        assert_eq!(std::fs::read(file).unwrap(), b"x");
    }
}
