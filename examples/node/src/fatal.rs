//! The ways in which a node's process ends although nothing can be waited for: a panic in any thread, and a
//! stop that takes too long. Each ends with exit code 1 and a message, also if standard error or the event
//! loop is blocked.

use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Notify;

use crate::log::Log;
use crate::signals::Stops;

/// The time from a signal to the end of the process. An orderly stop must be complete by then.
pub(crate) const STOP_LIMIT: Duration = Duration::from_millis(4500);
/// The time for the last lines of the log.
pub(crate) const LOG_LIMIT: Duration = Duration::from_millis(200);
/// The time in which the node may report the error itself after a panic, before the process ends because of
/// the panic.
const PANIC_GRACE: Duration = Duration::from_secs(2);

/// The first panic of any thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panics {
    first: Arc<Mutex<Option<String>>>,
    noted: Arc<Notify>,
}

impl Panics {
    /// Notes panics of all threads from now on and logs them, instead of writing them to standard error,
    /// which may block.
    pub(crate) fn watch(log: &Log) -> Panics {
        let panics = Panics::default();
        let (noted, log) = (panics.clone(), log.clone());
        std::panic::set_hook(Box::new(move |panic| {
            let text = describe(panic);
            log.event("panic", &text);
            noted.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
            noted.noted.notify_one();
        }));
        panics
    }

    /// Returns some time after the first panic, so that an error of the node that it caused is reported
    /// first.
    pub(crate) async fn happened(&self) {
        while self.first.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.noted.notified().await;
        }
        tokio::time::sleep(PANIC_GRACE).await;
    }

    /// Forgets a panic of the storage engine whose file was set aside: nothing of it is used any more.
    pub(crate) fn forget(&self) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// An error if any thread has panicked.
    pub(crate) fn check(&self, data: &Path) -> Result<()> {
        match &*self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(panic) => Err(anyhow::anyhow!(
                "stopped by an internal error ({panic}); acknowledged writes are in {}: start the node again, and if the error \
                 repeats, keep a copy of that folder, check the disk and report this message",
                data.display()
            )),
        }
    }
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let payload = panic.payload();
    let message = payload.downcast_ref::<String>().map(String::as_str);
    let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    format!("thread `{}` panicked{place}: {message}", thread.name().unwrap_or("unnamed"))
}

/// Ends the process some seconds after a signal to stop, in case that the orderly stop does not complete. The
/// thread has a runtime of its own and works while the node's event loop is blocked.
pub(crate) fn end_after_stop(log: &Log) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the signal thread")?;
    let mut stops = {
        let _entered = runtime.enter();
        Stops::new()?
    };
    let log = log.clone();
    let wait = move || {
        runtime.block_on(async {
            stops.next().await;
            tokio::time::sleep(STOP_LIMIT).await;
        });
        log.event("stop-forced", format!("why=the node did not stop within {STOP_LIMIT:?}"));
        log.flush(LOG_LIMIT);
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .context("cannot start the signal thread")?;
    Ok(())
}
