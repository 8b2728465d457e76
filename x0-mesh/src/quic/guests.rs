//! The ids of guests.

use std::collections::BTreeMap;

use x0_identity::{NodeId, SpiffeId};

use crate::guest::guest;

/// The guests of a node: each process has an id of its own, by its SPIFFE ID and the instance of its
/// transport. An id is not used again.
#[derive(Debug, Default)]
pub(super) struct Guests {
    by_process: BTreeMap<(SpiffeId, u64), NodeId>,
    by_id: BTreeMap<NodeId, (SpiffeId, u64)>,
    last: u64,
}

impl Guests {
    /// The id of a process, a new one if it is not connected.
    pub(super) fn admit(&mut self, spiffe_id: SpiffeId, instance: u64) -> NodeId {
        if let Some(id) = self.by_process.get(&(spiffe_id.clone(), instance)) {
            return *id;
        }
        self.last += 1;
        let id = guest(self.last);
        self.by_process.insert((spiffe_id.clone(), instance), id);
        self.by_id.insert(id, (spiffe_id, instance));
        id
    }

    pub(super) fn identity(&self, id: NodeId) -> Option<SpiffeId> {
        self.by_id.get(&id).map(|(spiffe_id, _)| spiffe_id.clone())
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        if let Some(process) = self.by_id.remove(&id) {
            self.by_process.remove(&process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_id_and_two_never_share_one() {
        let name = |path: &str| SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap();
        let mut guests = Guests::default();
        let one = guests.admit(name("client"), 1);
        let two = guests.admit(name("client"), 2);
        let other = guests.admit(name("operator"), 1);
        assert_eq!(guests.admit(name("client"), 1), one);
        assert!(one != two && one != other && two != other && crate::is_guest(one));
        assert_eq!(guests.identity(other), Some(name("operator")));
        guests.forget(one);
        assert_eq!(guests.identity(one), None);
        assert!(![one, two, other].contains(&guests.admit(name("client"), 1)), "no id is used again");
    }
}
