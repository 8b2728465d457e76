//! The state machine and its checkpoints.

use super::facade::{Counter, Gauge, counter, gauge};

/// The fate of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CommandResult {
    Applied,
    Repeated,
    Refused,
}

/// The work of a state machine, gathered for a batch of entries and reported at its end.
pub(crate) struct StateTelemetry {
    commands: [Counter; 3],
    batch: [u64; 3],
    applied_index: Gauge,
    sessions: Gauge,
    sessions_expired: Counter,
    overlay_bytes: Gauge,
}

impl std::fmt::Debug for StateTelemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateTelemetry").finish_non_exhaustive()
    }
}

impl StateTelemetry {
    pub(crate) fn new() -> StateTelemetry {
        StateTelemetry {
            commands: ["applied", "repeated", "refused"]
                .map(|result| counter!("x0_kv_commands_total", "result" => result)),
            batch: [0; 3],
            applied_index: gauge!("x0_kv_applied_index"),
            sessions: gauge!("x0_kv_sessions"),
            sessions_expired: counter!("x0_kv_sessions_expired_total"),
            overlay_bytes: gauge!("x0_kv_overlay_bytes"),
        }
    }

    #[inline]
    pub(crate) fn command(&mut self, result: CommandResult) {
        self.batch[match result {
            CommandResult::Applied => 0,
            CommandResult::Repeated => 1,
            CommandResult::Refused => 2,
        }] += 1;
    }

    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn batch_applied(&mut self, index: u64, sessions: usize, expired: u64) {
        for (counter, count) in self.commands.iter().zip(&mut self.batch) {
            counter.increment(std::mem::take(count));
        }
        self.applied_index.set(index as f64);
        self.sessions.set(sessions as f64);
        if expired > 0 {
            self.sessions_expired.increment(expired);
        }
    }

    #[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only checkpoints shorten the overlay"))]
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn overlay(&self, len: usize) {
        self.overlay_bytes.set(len as f64);
    }
}
