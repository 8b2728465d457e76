//! Functions of a transformer over rows, in plain Rust that compilers turn into vector instructions.
//!
//! No branch, no call and no fused operation: every path gives the same bits.

const LANES: usize = 32;

/// `e^x` to about 2 units in the last place; `x` is clamped so that the result is a normal number.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // The two parts of ln 2 (Cody, Waite): the first is exact in products with small integers.
    #[expect(
        clippy::excessive_precision,
        reason = "exact, with trailing zeros: products with it are exact too"
    )]
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below -80 the softmax would make denormals, which slow the next product down.
    let x = x.clamp(-80.0, 80.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.666_666_7e-1 + r * (4.166_666_8e-2 + r * (8.333_334e-3 + r * 1.388_889e-3)))));
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    series * power
}

/// The error function to 1.5e-7 (Abramowitz, Stegun 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let y = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * y);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - series * exp(-y * y)).copysign(x)
}

/// Adds `bias` to each row and applies the exact GELU.
#[inline(always)]
pub(super) fn bias_gelu(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (x, bias) in row.iter_mut().zip(bias) {
            let y = *x + bias;
            *x = 0.5 * y * (1.0 + erf(y * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

/// The softmax of `scale` times each row.
#[inline(always)]
pub(super) fn softmax(rows: &mut [f32], len: usize, scale: f32) {
    for row in rows.chunks_exact_mut(len) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |largest, x| largest.max(*x));
        for x in row.iter_mut() {
            *x = exp((*x - largest) * scale);
        }
        let inverse = 1.0 / sum(row);
        for x in row.iter_mut() {
            *x *= inverse;
        }
    }
}

/// Adds `bias` and a residual to each row and normalizes the row.
#[inline(always)]
pub(super) fn residual_norm(
    rows: &mut [f32],
    residual: &[f32],
    bias: &[f32],
    norm: (&[f32], &[f32]),
    epsilon: f32,
) {
    let len = bias.len();
    let (weight, shift) = norm;
    for (row, residual) in rows.chunks_exact_mut(len).zip(residual.chunks_exact(len)) {
        for (x, (residual, bias)) in row.iter_mut().zip(residual.iter().zip(bias)) {
            *x += residual + bias;
        }
        let mean = sum(row) / len as f32;
        for x in row.iter_mut() {
            *x -= mean;
        }
        let inverse = 1.0 / (super::portable::dot_f32(row, row) / len as f32 + epsilon).sqrt();
        for (x, (weight, shift)) in row.iter_mut().zip(weight.iter().zip(shift)) {
            *x = *x * inverse * weight + shift;
        }
    }
}

/// The sum of a row, in the order of [`dot_f32`](super::portable::dot_f32).
#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for part in whole {
        for lane in 0..LANES {
            lanes[lane] += part[lane];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
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

#[cfg(test)]
mod tests {
    use super::super::Path;
    use super::{erf, exp};

    #[test]
    fn exp_and_erf_are_near_the_true_functions() {
        for n in -8000..=8000_i16 {
            let x = f32::from(n) / 100.0;
            let truth = f64::from(x).exp();
            assert!((f64::from(exp(x)) - truth).abs() <= 4e-7 * truth, "e^{x}");
        }
        assert!(exp(-1000.0).is_normal() && exp(1000.0).is_finite());
        // Values of the error function (Abramowitz, Stegun, table 7.1).
        for (x, truth) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (4.0, 1.0)]
        {
            assert!((erf(x) - truth).abs() < 4e-7 && (erf(-x) + truth).abs() < 4e-7, "erf {x}");
        }
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        let rows: Vec<f32> = (0..7 * 75_u16).map(|n| f32::from(n % 91) / 7.0 - 6.0).collect();
        let bias: Vec<f32> = (0..75_u8).map(|n| f32::from(n) / 50.0 - 0.7).collect();
        let results: Vec<Vec<u32>> = Path::available()
            .into_iter()
            .map(|path| {
                let (mut gelu, mut softmax, mut norm) = (rows.clone(), rows.clone(), rows.clone());
                path.bias_gelu(&mut gelu, &bias);
                path.softmax(&mut softmax, 75, 0.3);
                path.residual_norm(&mut norm, &rows, &bias, (&bias, &bias), 1e-12);
                let total: f32 = softmax[..75].iter().sum();
                assert!((total - 1.0).abs() < 1e-5);
                gelu.iter().chain(&softmax).chain(&norm).map(|x| x.to_bits()).collect()
            })
            .collect();
        assert!(results.iter().all(|result| *result == results[0]));
    }
}
