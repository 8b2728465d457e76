//! A slot whose value is replaced as a whole.

use std::sync::{Arc, PoisonError, RwLock};

/// A slot that many handshakes read and a rotation replaces.
///
/// A lock around an `Arc` and no `arc-swap`: it is held for the copy of a pointer, tens of nanoseconds beside
/// the hundreds of microseconds of a handshake, so a further dependency would buy nothing that could be
/// measured.
#[derive(Debug)]
pub(super) struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub(super) fn new(value: T) -> Swap<T> {
        Swap(RwLock::new(Arc::new(value)))
    }

    pub(super) fn load(&self) -> Arc<T> {
        // A panic cannot leave half a pointer behind, so a poisoned lock holds a good value.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces a copy that is changed, under the lock, so that no other change is lost.
    pub(super) fn change(&self, change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        let before = {
            let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let mut value = T::clone(&slot);
            change(&mut value);
            core::mem::replace(&mut *slot, Arc::new(value))
        };
        drop(before);
    }

    pub(super) fn store(&self, value: T) {
        let value = Arc::new(value);
        let before = {
            let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
            core::mem::replace(&mut *slot, value)
        };
        // After the lock is released: dropping a large value takes long.
        drop(before);
    }
}
