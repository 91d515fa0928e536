//! `lsbuf serve`: the figures over HTTP, for Prometheus, programs and people.
//!
//! | module | what |
//! |---|---|
//! | `listen` | where it listens: an address, a Unix socket, or what systemd hands over |
//! | `connections` | who may connect, and for how long |
//! | `requests` | what is asked, and whether it may be |
//! | `scans` | one scan at a time, for all who wait for it |
//!
//! It scans only when somebody asks, and at most once in `--min-interval`. A connection is for one
//! request. What it takes is bounded: connections, the size of a request, the time of each.
//!
//! Limits: it has neither TLS nor users. Whoever can connect sees what lsbuf sees. A reverse proxy
//! has both, and systemd can give the socket to a group.

mod connections;
mod listen;
mod requests;
mod scans;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lsbuf::history::duration;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use self::listen::Address;
use self::requests::{Hosts, Site};
use self::scans::Scans;
use crate::args::ReadingArgs;
use crate::metrics::{self, SeriesArg};
use crate::output::{self, Ending};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen: ADDRESS:PORT, or unix:PATH. Sockets that systemd hands over come first
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:9747", value_parser = Address::parse)]
    listen: Address,
    /// Listen where other machines can connect. They see every process that holds a buffer: its
    /// pid, command, user and cgroup
    #[arg(long)]
    allow_remote: bool,
    /// Answer requests for these names of hosts, too. Without it only for localhost and for
    /// addresses, so that no web page can reach this server by a name of its own
    #[arg(long = "allow-host", value_name = "NAME,…", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Scan at most once in this time; who asks earlier gets the last answer again
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    min_interval: Duration,
    #[command(flatten)]
    limit: SeriesArg,
    #[command(flatten)]
    reading: ReadingArgs,
}

pub(crate) fn run(args: &ServeArgs) -> Result<Ending> {
    let scans = Scans::start(metrics::options(&args.reading), args.min_interval, args.limit.most())?;
    let listeners = listen::all(&args.listen, args.allow_remote)?;
    let site = Arc::new(Site::new(scans, Hosts::new(&args.hosts))?);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the server cannot be started")?;
    runtime.block_on(async {
        let stop = Arc::new(Notify::new());
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut ends = signal(kind).context("signals cannot be received")?;
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                ends.recv().await;
                stop.notify_one();
            });
        }
        let serving = connections::serve(listeners, site)?;
        stop.notified().await;
        serving.end().await;
        output::say("stopped");
        Ok(Ending::Answered)
    })
}
