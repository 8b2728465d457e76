//! The number of allocated bytes. Every allocation of the program costs an atomic addition for it.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that the program has allocated and not freed, without the overhead of the allocator.
pub(crate) fn allocated() -> usize {
    ALLOCATOR.allocated()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_vector_is_counted_while_it_lives() {
        let before = super::allocated();
        let vector = vec![1_u8; 64 << 20];
        assert!(super::allocated() >= before + (60 << 20), "{}", vector.len());
        drop(vector);
        assert!(super::allocated() < before + (32 << 20));
    }
}
