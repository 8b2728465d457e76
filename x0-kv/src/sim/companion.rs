//! Programs beside the nodes of a world, such as healers.

use std::fmt;
use std::time::Duration;

use x0_mesh::Mux;

use crate::cluster::Node;

/// The time between two turns of a companion.
pub const COMPANION_EVERY: Duration = Duration::from_millis(100);

/// A program beside one node, in the same process: it stands still with the node, and ends with it.
///
/// The futures of a companion are polled in its turns alone, with a waker that does nothing, and without a
/// runtime. A companion must not write all the time: at the end of a round the world waits until all members
/// hold the same.
pub trait Companion {
    /// Does what is due. `now` is the virtual time, and `cut_off` for how long the node has not reached a
    /// majority of the voters in truth, which no program on the node can know; `None` if it reaches one.
    fn work(&mut self, now: Duration, node: &Node, cut_off: Option<Duration>);
}

/// Makes the companion of each node that starts.
pub(super) type Make = dyn FnMut(&Node, &Mux) -> Box<dyn Companion>;

/// Companions for all nodes of a world.
pub struct Companions(Box<Make>);

impl Companions {
    /// `make` is called when the process of a node starts, with the handle of the node as programs have it,
    /// and the mux on which they register channels of their own.
    pub fn new(make: impl FnMut(&Node, &Mux) -> Box<dyn Companion> + 'static) -> Companions {
        Companions(Box::new(make))
    }

    pub(super) fn make(&mut self, node: &Node, mux: &Mux) -> Box<dyn Companion> {
        (self.0)(node, mux)
    }
}

impl fmt::Debug for Companions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Companions").finish_non_exhaustive()
    }
}

/// A companion with the handle of its node.
pub(super) struct Beside {
    pub(super) node: Node,
    pub(super) companion: Box<dyn Companion>,
}
