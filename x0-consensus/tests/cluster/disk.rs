//! A node's disk: how its log is opened, and how the power fails.

use std::collections::VecDeque;
use std::sync::Arc;

use x0_consensus::driver::{LogJob, LogWorker};
use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_consensus::{Wal, WalOptions};

use crate::network::Random;

/// Opens the log. A new folder gets this incarnation, and a copy is adopted with it.
pub(crate) fn open(directory: &SimDirectory, incarnation: u64) -> Wal {
    let mut options = WalOptions::default();
    options.segment_len = 32 * 1024;
    options.spare_in_background = false;
    options.incarnation = incarnation;
    options.accepts_copy = true;
    let mut log = Wal::open(Arc::new(directory.clone()), options).unwrap();
    if log.is_copy().is_some() {
        log.adopt(incarnation).unwrap();
    }
    log
}

/// The power fails, perhaps during the write that is due.
pub(crate) fn crash(
    mut log: LogWorker<Wal>,
    mut jobs: VecDeque<LogJob>,
    directory: &SimDirectory,
    random: &mut Random,
) {
    if random.chance(500) && matches!(jobs.front(), Some(LogJob::Write { .. })) {
        directory.plant(directory.operations() + random.below(3), Fault::PowerLoss);
        // The write may be durable nevertheless: the result is lost with the process.
        let _ = log.work(&mut jobs);
    }
    drop(log);
    directory.crash(match random.below(4) {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        2 => Unsynced::Sectors(random.next_u64()),
        _ => Unsynced::Cut(random.next_u64()),
    });
}
