//! How many bytes are allocated. Every allocation of the program pays an atomic addition for it, whoever makes it.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes asked for and not given back, by all of the program, without the allocator's own overhead.
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
