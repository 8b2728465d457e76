//! Signals.

use anyhow::{Context, Result};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to stop: Ctrl-C and, on Unix, SIGTERM. No request after the construction is missed.
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

    /// Waits for the next request.
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

/// SIGHUP, on Unix: a service reads its files again; a program in a terminal has lost the terminal.
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

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}
