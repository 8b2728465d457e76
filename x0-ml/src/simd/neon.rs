//! NEON, which every aarch64 processor has. The `f32` sums are the portable ones, compiled with NEON as the
//! baseline.
#![allow(unsafe_code, reason = "vector instructions; every block says why it is sound")]

use std::arch::aarch64::{
    vaddvq_s32, vdupq_n_s32, vget_high_s8, vget_low_s8, vld1q_s8, vmull_s8, vpadalq_s16,
};

pub(super) fn dot_i8(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
    let (query, _) = query.as_chunks::<16>();
    for (row, sum) in rows.iter().zip(sums) {
        let (row, _) = row.as_chunks::<16>();
        // SAFETY: NEON is part of the baseline of aarch64, and each load reads the 16 bytes of an array.
        *sum = unsafe {
            let mut total = vdupq_n_s32(0);
            for (a, b) in query.iter().zip(row) {
                let (a, b) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
                // A product of two codes fits 16 bits (128 * 128 = 16384), and pairs are added into 32.
                total = vpadalq_s16(total, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
                total = vpadalq_s16(total, vmull_s8(vget_high_s8(a), vget_high_s8(b)));
            }
            vaddvq_s32(total)
        };
    }
}
