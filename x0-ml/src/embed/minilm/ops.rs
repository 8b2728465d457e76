//! Fused operations on rows, in place.

use std::sync::Arc;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, bail};

use crate::simd::Path;

/// Adds a bias to every row and applies the GELU.
pub(super) struct BiasGelu(pub(super) Path, pub(super) Arc<[f32]>);

/// The softmax of every row, scaled.
pub(super) struct Softmax {
    pub(super) path: Path,
    pub(super) len: usize,
    pub(super) scale: f32,
}

/// Adds a bias and a residual to every row, and normalizes it.
pub(super) struct ResidualNorm {
    pub(super) path: Path,
    pub(super) bias: Arc<[f32]>,
    pub(super) weight: Arc<[f32]>,
    pub(super) shift: Arc<[f32]>,
    pub(super) epsilon: f32,
}

impl InplaceOp1 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.bias_gelu(rows(storage, layout)?, &self.1);
        Ok(())
    }
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.path.softmax(rows(storage, layout)?, self.len, self.scale);
        Ok(())
    }
}

impl InplaceOp2 for ResidualNorm {
    fn name(&self) -> &'static str {
        "residual-norm"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (CpuStorage::F32(residual), Some((start, end))) = (s2, l2.contiguous_offsets()) else {
            bail!("the residual is not a contiguous tensor of f32")
        };
        let norm = (&*self.weight, &*self.shift);
        self.path.residual_norm(rows(s1, l1)?, &residual[start..end], &self.bias, norm, self.epsilon);
        Ok(())
    }
}

fn rows<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&mut numbers[start..end]),
        _ => bail!("the rows are not a contiguous tensor of f32"),
    }
}
