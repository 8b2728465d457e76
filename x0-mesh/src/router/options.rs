//! Settings of a router.

use core::time::Duration;

use super::LinkCost;

/// Settings of a [`Router`](super::Router).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouterOptions {
    /// Session numbers are drawn from it. It must differ each time that a node starts.
    pub seed: u64,
    /// The first sequence number of this node, from 1 to [`RouterOptions::SEQNO_LIMIT`]. It should not be
    /// lower than any that the node used before: the seconds since some date are a good choice, because a
    /// node raises its number less than once per second in the long run. A lower one, such as that of a node
    /// without a clock, is corrected by the first neighbour that shows a higher one, within
    /// [`RouterOptions::hold_down`] after the first link came up. After that time such a number is a forgery:
    /// it is reported, and this node raises its own by one at a time. 1 unless set.
    pub seqno: u32,
    /// A number for the place of this node (a site, a region, a cloud), which all nodes learn with the route.
    /// 0 unless set.
    pub region: u16,
    /// What this node adds to each route that it offers to others, or `None` if it relays nothing. No metric
    /// and no price unless set.
    pub relay: Option<LinkCost>,
    /// How many destinations are kept. Further ones are ignored and counted. 16 384 unless set.
    pub destinations_max: usize,
    /// How many neighbours are used, at most [`RouterOptions::NEIGHBOURS_LIMIT`]. 256 unless set.
    pub neighbours_max: usize,
    /// How many links to one neighbour are used. 8 unless set.
    pub links_max: usize,
    /// The longest message, in bytes; from [`RouterOptions::MESSAGE_LEN_MIN`]. 1200 unless set.
    pub message_len_max: usize,
    /// The shortest time between two rounds of updates to one neighbour. It doubles, up to
    /// [`RouterOptions::update_interval_max`], while updates follow each other without a pause (RFC 8405).
    /// 10 ms unless set.
    pub update_interval_min: Duration,
    /// 80 ms unless set.
    pub update_interval_max: Duration,
    /// How long the memory of a destination without route is kept, after which another node of that id may
    /// begin with any sequence number. It has to exceed the time in which a dead link is noticed by both of
    /// its ends. 60 s unless set.
    pub hold_down: Duration,
    /// How many times a packet may be turned around on a detour; 0 switches detours off, and 15 is the
    /// largest. 3 unless set.
    pub detour_depth_max: u8,
    /// Whether a link that fails three times within seconds is a last resort for a while. Yes unless set.
    pub damping: bool,
}

impl Default for RouterOptions {
    fn default() -> RouterOptions {
        RouterOptions {
            seed: 0,
            seqno: 1,
            region: 0,
            relay: Some(LinkCost::new(0)),
            destinations_max: 16_384,
            neighbours_max: 256,
            links_max: 8,
            message_len_max: 1200,
            update_interval_min: Duration::from_millis(10),
            update_interval_max: Duration::from_millis(80),
            hold_down: Duration::from_secs(60),
            detour_depth_max: 3,
            damping: true,
        }
    }
}

impl RouterOptions {
    /// The largest [`RouterOptions::neighbours_max`].
    pub const NEIGHBOURS_LIMIT: usize = 4096;
    /// The largest [`RouterOptions::seqno`]: seconds reach it after 68 years. A node with a greater one,
    /// because its clock is wrong, could not be outbid after its clock is set.
    pub const SEQNO_LIMIT: u32 = 1 << 31;
    /// The smallest [`RouterOptions::message_len_max`], in bytes.
    pub const MESSAGE_LEN_MIN: usize = 128;

    /// The default options with this seed.
    #[must_use]
    pub fn new(seed: u64) -> RouterOptions {
        RouterOptions { seed, ..RouterOptions::default() }
    }

    /// Sets [`RouterOptions::seqno`].
    #[must_use]
    pub fn seqno(mut self, seqno: u32) -> RouterOptions {
        self.seqno = seqno;
        self
    }

    /// Sets [`RouterOptions::region`].
    #[must_use]
    pub fn region(mut self, region: u16) -> RouterOptions {
        self.region = region;
        self
    }

    /// Sets [`RouterOptions::relay`].
    #[must_use]
    pub fn relay(mut self, relay: Option<LinkCost>) -> RouterOptions {
        self.relay = relay;
        self
    }

    /// Sets [`RouterOptions::destinations_max`] and [`RouterOptions::neighbours_max`].
    #[must_use]
    pub fn limits(mut self, destinations_max: usize, neighbours_max: usize) -> RouterOptions {
        self.destinations_max = destinations_max;
        self.neighbours_max = neighbours_max;
        self
    }

    /// Sets [`RouterOptions::message_len_max`].
    #[must_use]
    pub fn message_len_max(mut self, message_len_max: usize) -> RouterOptions {
        self.message_len_max = message_len_max;
        self
    }

    /// Sets the bounds of the time between two rounds of updates.
    #[must_use]
    pub fn update_interval(mut self, min: Duration, max: Duration) -> RouterOptions {
        self.update_interval_min = min;
        self.update_interval_max = max;
        self
    }

    /// Sets [`RouterOptions::hold_down`].
    #[must_use]
    pub fn hold_down(mut self, hold_down: Duration) -> RouterOptions {
        self.hold_down = hold_down;
        self
    }

    /// Sets [`RouterOptions::detour_depth_max`].
    #[must_use]
    pub fn detour_depth_max(mut self, detour_depth_max: u8) -> RouterOptions {
        self.detour_depth_max = detour_depth_max;
        self
    }

    /// Sets [`RouterOptions::damping`].
    #[must_use]
    pub fn damping(mut self, damping: bool) -> RouterOptions {
        self.damping = damping;
        self
    }

    /// Values outside their range count as its nearest end.
    pub(super) fn bounded(mut self) -> RouterOptions {
        self.neighbours_max = self.neighbours_max.min(RouterOptions::NEIGHBOURS_LIMIT);
        self.destinations_max = self.destinations_max.min(u32::MAX as usize / 2);
        self.message_len_max = self.message_len_max.max(RouterOptions::MESSAGE_LEN_MIN);
        self.detour_depth_max = self.detour_depth_max.min(super::message::DEPTH_MAX);
        self.seqno = self.seqno.clamp(1, RouterOptions::SEQNO_LIMIT);
        self
    }
}
