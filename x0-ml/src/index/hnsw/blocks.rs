//! Arrays in blocks that versions share.

use std::sync::Arc;

/// Rows of a block.
pub(super) const ROWS: usize = 64;

/// Rows of equal length. A copy shares its blocks; a change copies the block that it is in, if it is shared.
#[derive(Debug, Clone)]
pub(super) struct Blocks<T> {
    blocks: Vec<Arc<[T]>>,
    stride: usize,
    fill: T,
    /// The block of rows that were never written. All such blocks are this one, so that free slots take no
    /// memory.
    unwritten: Arc<[T]>,
}

impl<T: Clone> Blocks<T> {
    pub(super) fn new(stride: usize, fill: T) -> Self {
        let unwritten = std::iter::repeat_n(fill.clone(), ROWS * stride).collect();
        Self { blocks: Vec::new(), stride, fill, unwritten }
    }

    /// Makes room for `rows` rows; new ones hold the fill value.
    pub(super) fn reserve(&mut self, rows: usize) {
        let blocks = rows.div_ceil(ROWS).max(self.blocks.len());
        self.blocks.resize(blocks, Arc::clone(&self.unwritten));
    }

    #[inline]
    pub(super) fn row(&self, row: u32) -> &[T] {
        let row = row as usize;
        &self.blocks[row / ROWS][row % ROWS * self.stride..][..self.stride]
    }

    pub(super) fn row_mut(&mut self, row: u32) -> &mut [T] {
        let row = row as usize;
        &mut Arc::make_mut(&mut self.blocks[row / ROWS])[row % ROWS * self.stride..][..self.stride]
    }

    /// The rows of each block, one after the other.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[T]> {
        self.blocks.iter().map(|block| &**block)
    }

    pub(super) fn clear(&mut self, row: u32) {
        let fill = self.fill.clone();
        self.row_mut(row).fill(fill);
    }

    pub(super) fn memory_len(&self) -> usize {
        let written = self.blocks.iter().filter(|block| !Arc::ptr_eq(block, &self.unwritten)).count();
        written * ROWS * self.stride * size_of::<T>() + self.blocks.len() * size_of::<Arc<[T]>>()
    }
}
