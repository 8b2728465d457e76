//! What the world tells a process.

use anyhow::{Context, Result};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Wishes that the process stops: Ctrl-C and, where there is such a thing, SIGTERM. From when this is made none is missed.
#[derive(Debug)]
pub(crate) struct Stops {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Stops {
    pub(crate) fn new() -> Result<Stops> {
        Ok(Stops {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGHUP, where there is such a thing: a service reads its files anew, a program in a terminal has lost it.
#[derive(Debug)]
pub(crate) struct HangUps {
    #[cfg(unix)]
    signal: Signal,
}

impl HangUps {
    pub(crate) fn new() -> Result<HangUps> {
        Ok(HangUps {
            #[cfg(unix)]
            signal: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}
