//! Spans and log lines of a loop, with the feature `tracing`.
//!
//! | span | level | fields |
//! |---|---|---|
//! | `mapek.monitor` | trace | `signal` |
//! | `mapek.round` | debug | `round`; holds the next three |
//! | `mapek.analyze`, `mapek.plan` | debug | `round` |
//! | `mapek.guard` | debug | `round`, `kind` |
//! | `mapek.execute`, `mapek.verify` | debug | `action`, `round` |
//!
//! Each [`Record`](crate::Record) is a log line of level info with the fields `record`, `round`, `action`,
//! `kind`, `subject`, `cause` and `event`. The numbers are those of the record.

#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "trace/noop.rs"]
mod spans;

pub(crate) use self::spans::{analyze, execute, guard, monitor, plan, record, round, verify};
