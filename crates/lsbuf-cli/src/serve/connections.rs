//! Who may connect, and for how long.
//!
//! A connection is for one request, and ends [`LIFE`] after it began at the latest. There are at
//! most [`MOST`]. If one more comes, the oldest one that has not sent its request yet is closed: so
//! clients that say nothing, or say it slowly, cannot keep others out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinHandle};

use super::listen::Listener;
use super::requests::Site;
use crate::output;

/// How many connections there are at most.
const MOST: usize = 256;

/// How long a client may take to send its request.
const HEADERS: Duration = Duration::from_secs(5);

/// How long a connection may take in all, with the scan.
const LIFE: Duration = Duration::from_secs(60);

/// How many bytes the head of a request may have.
const LARGEST_HEAD: usize = 16 << 10;

/// How many headers.
const MOST_HEADERS: usize = 64;

/// How long connections have to end when the server does.
const LAST: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted, such as when there are no more fds.
const PAUSE: Duration = Duration::from_millis(100);

/// The running server.
#[derive(Debug)]
pub(super) struct Serving {
    accepting: Vec<JoinHandle<()>>,
    open: Arc<Open>,
}

/// What there is of connections.
#[derive(Debug)]
struct Open {
    site: Arc<Site>,
    room: Arc<Semaphore>,
    /// Those that have not sent their request yet, in the order in which they came.
    silent: Mutex<BTreeMap<u64, AbortHandle>>,
}

impl Open {
    fn silent(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection. `None`: all others are being answered.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(permit);
        }
        let (_, oldest) = self.silent().pop_first()?;
        oldest.abort();
        Arc::clone(&self.room).acquire_owned().await.ok()
    }
}

/// Starts to accept connections.
pub(super) fn serve(listeners: Vec<Listener>, site: Arc<Site>) -> Result<Serving> {
    let open = Arc::new(Open { site, room: Arc::new(Semaphore::new(MOST)), silent: Mutex::default() });
    let mut accepting = Vec::new();
    for listener in listeners {
        let address = listener.to_string();
        let open = Arc::clone(&open);
        let cannot = || format!("cannot listen on {address}");
        accepting.push(match listener {
            Listener::Net(socket) => {
                socket.set_nonblocking(true).with_context(cannot)?;
                let socket = TcpListener::from_std(socket).with_context(cannot)?;
                tokio::spawn(async move {
                    for id in 0.. {
                        match socket.accept().await {
                            Ok((stream, _)) => take(&open, id, stream, true).await,
                            Err(_) => tokio::time::sleep(PAUSE).await,
                        }
                    }
                })
            }
            Listener::Unix(socket) => {
                socket.set_nonblocking(true).with_context(cannot)?;
                let socket = UnixListener::from_std(socket).with_context(cannot)?;
                tokio::spawn(async move {
                    // Other numbers than those of the network's connections.
                    for id in (1 << 63).. {
                        match socket.accept().await {
                            Ok((stream, _)) => take(&open, id, stream, false).await,
                            Err(_) => tokio::time::sleep(PAUSE).await,
                        }
                    }
                })
            }
        });
        output::say(&format!("serving {address}"));
    }
    Ok(Serving { accepting, open })
}

impl Serving {
    /// Accepts no more connections, and waits for those that are being answered.
    pub(super) async fn end(self) {
        self.accepting.iter().for_each(JoinHandle::abort);
        let silent = std::mem::take(&mut *self.open.silent());
        silent.values().for_each(AbortHandle::abort);
        let all = u32::try_from(MOST).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(LAST, self.open.room.acquire_many(all)).await;
    }
}

/// Starts to answer one connection.
async fn take<S>(open: &Arc<Open>, id: u64, stream: S, is_net: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(permit) = open.room().await else { return };
    let opened = Arc::clone(open);
    // It is in the list before it can be answered.
    let mut silent = open.silent();
    let task = tokio::spawn(async move {
        let answered = answer(&opened, id, stream, is_net);
        let _ = tokio::time::timeout(LIFE, answered).await;
        opened.silent().remove(&id);
        drop(permit);
    });
    silent.insert(id, task.abort_handle());
}

async fn answer<S>(open: &Arc<Open>, id: u64, stream: S, is_net: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| async move {
        open.silent().remove(&id);
        Ok::<_, Infallible>(open.site.answer(&request, is_net).await)
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that breaks off, or sends what is no HTTP, is no matter of the server.
    drop(served);
}
