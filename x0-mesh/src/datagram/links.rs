//! The links of a node, with the time at which each next wants something.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::link::Link;
use crate::router::LinkId;

/// All links by their numbers, in the order in which they were made. A link that may have changed is noted,
/// so that [`Links::refresh`] looks at it alone: a wake-up of a node with hundreds of neighbours costs what
/// the due links cost.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    due: BTreeSet<(Duration, LinkId)>,
    /// Links whose timeout may be another one than in `due`.
    stale: Vec<LinkId>,
}

impl Links {
    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// A link that the caller may change.
    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        // Calls for one link mostly follow each other.
        if self.stale.last() != Some(&id) {
            self.stale.push(id);
        }
        self.links.get_mut(&id)
    }

    pub(super) fn insert(&mut self, link: Link) {
        self.stale.push(link.id);
        self.links.insert(link.id, link);
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        if let Some(due) = link.due {
            self.due.remove(&(due, id));
        }
        Some(link)
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Takes over the timeouts of the links that may have changed. To be called after each input.
    pub(super) fn refresh(&mut self) {
        for id in self.stale.drain(..) {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let timeout = link.timeout();
            if timeout == link.due {
                continue;
            }
            if let Some(before) = link.due {
                self.due.remove(&(before, id));
            }
            link.due = timeout;
            self.due.extend(timeout.map(|at| (at, id)));
        }
        debug_assert_eq!(
            self.timeout(),
            self.links.values().filter_map(Link::timeout).min(),
            "a link has changed without a note"
        );
    }

    /// When the first link wants something.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The links that want something by then, in their order.
    pub(super) fn due(&self, now: Duration) -> Vec<LinkId> {
        let mut due: Vec<LinkId> =
            self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        due.sort_unstable();
        due
    }
}
