//! Whether a link works, in each direction.
//!
//! [`Liveness`] is a protocol engine for one end of one link. It watches traffic, sends probes where there is
//! none, and says whether the link is up, degraded or down. A driver of the [router](crate::router)
//! translates that into the router's inputs.
//!
//! # Detection
//! * **Traffic is evidence.** Each frame that arrives proves that its direction works. Probes fill pauses: a
//!   link with traffic in one direction has probes only in the other one. A link without any traffic has
//!   few of them, because nothing is waiting; the first frame of new traffic makes both ends attentive.
//! * **A pause leads to a question, not to a verdict.** A frame that is overdue by half an interval, and by
//!   the jitter seen lately, makes the peer *suspected*. Then probes that want an answer are sent in quick
//!   succession. The link is down when all of them remain without answer for longer than a round trip. With
//!   the default options a silent cut is noticed after about 60 ms, while a tenth of all frames may be lost
//!   without a false verdict.
//! * **Each direction is judged by its receiver**, and reported to its sender in each probe. A link that
//!   works in one direction only is down at both ends.
//! * **A late timer is an alibi.** When this process was not scheduled, its timers are late, and frames of
//!   the peer may wait unread. The time by which a timer is late does not count as silence, up to one second.
//!
//! * **The pause of an idle link follows the NAT.** With
//!   [`interval_idle_max`](LivenessOptions::interval_idle_max) the pause between two probes of an idle link
//!   grows by a quarter each time, until a frame of the peer is missing: then the mapping of a NAT has
//!   expired, or a frame was lost. One question opens the mapping again, and the pause becomes half as long.
//!
//! # Recovery
//! A link that is down is probed steadily, without back-off, so that it is up soon after it was healed,
//! however long the cut was. A node with many such links sets their pause by
//! [`set_interval_down`](Liveness::set_interval_down): [`datagram`](crate::datagram) probes a link every
//! 50 ms in its first minute, then every 100 ms, and 160 times a second in total when more than 16 links are
//! down.
//!
//! # Glossary
//! - *Frame*: anything that the link carries. *Traffic*: frames other than probes.
//! - *Active*: with traffic in the last second. *Idle*: up and not active.
//! - *Suspected*: silent for longer than expected.

mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod options;
mod probe;

pub use engine::{Liveness, LivenessInput, LivenessOutput, LivenessReason, LivenessState};
pub use options::LivenessOptions;
