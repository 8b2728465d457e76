//! The sums in plain Rust: the definition of their order, and the body that other paths compile for their
//! instructions.

/// Lanes of an `f32` sum.
const LANES: usize = 32;

#[inline(always)]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (whole_a, rest_a) = a[..len].as_chunks::<LANES>();
    let (whole_b, rest_b) = b[..len].as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane += a * b;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn dot_i8(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
    for (row, sum) in rows.iter().zip(sums) {
        *sum = query.iter().zip(*row).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    }
}
