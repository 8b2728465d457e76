//! The functions of [`activation`](super::activation), compiled for each path.
#![allow(
    unsafe_code,
    reason = "calls of functions that are compiled for more instructions; each block says why it is sound"
)]

use super::{Kind, Path, activation};

/// A method of `Path` that runs an `activation` function with the path's instructions.
macro_rules! on_paths {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name(self, $($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $kind),*) {
                activation::$name($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,avx512f,avx512bw")]
            fn avx512($($argument: $kind),*) {
                activation::$name($($argument),*);
            }
            match self.0 {
                Kind::Scalar => activation::$name($($argument),*),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => activation::$name($($argument),*),
                // SAFETY: a `Path` of this kind exists only where AVX2 was detected.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: a `Path` of this kind exists only where these features were detected.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512Vnni => unsafe { avx512($($argument),*) },
            }
        }
    };
}

impl Path {
    on_paths! {
        /// Adds `bias` to each row and applies the exact GELU.
        bias_gelu(rows: &mut [f32], bias: &[f32])
    }
    on_paths! {
        /// The softmax of `scale` times each row of `len` numbers.
        softmax(rows: &mut [f32], len: usize, scale: f32)
    }
    on_paths! {
        /// Adds `bias` and a residual to each row and normalizes the row with a weight and a shift.
        residual_norm(rows: &mut [f32], residual: &[f32], bias: &[f32], norm: (&[f32], &[f32]), epsilon: f32)
    }
}
