//! Every path of this processor gives the same bits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

use proptest::prelude::*;
use x0_ml::simd::{CODES_MULTIPLE, Path};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn f32_sums_have_the_same_bits(pairs in prop::collection::vec((-9.0e3_f32..9.0e3, -1.0_f32..1.0), 0..700)) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let sums: Vec<u32> = Path::available().iter().map(|path| path.dot_f32(&a, &b).to_bits()).collect();
        prop_assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    }

    #[test]
    fn i8_sums_are_exact(
        query in prop::collection::vec(any::<i8>(), CODES_MULTIPLE * 3),
        rows in prop::collection::vec(prop::collection::vec(any::<i8>(), CODES_MULTIPLE * 3), 0..5),
        blocks in 0_usize..=3,
    ) {
        let len = blocks * CODES_MULTIPLE;
        let rows: Vec<&[i8]> = rows.iter().map(|row| &row[..len]).collect();
        let exact: Vec<i32> = rows
            .iter()
            .map(|row| query[..len].iter().zip(*row).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum())
            .collect();
        for path in Path::available() {
            let mut sums = vec![0; rows.len()];
            path.dot_i8(&query[..len], &rows, &mut sums);
            prop_assert_eq!(&sums, &exact, "{:?}", path);
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    let low = [i8::MIN; CODES_MULTIPLE * 2];
    for path in Path::available() {
        let mut sums = [0];
        path.dot_i8(&low, &[&low], &mut sums);
        assert_eq!(sums, [16384 * 128], "{}", path.name());
    }
    assert!(Path::available().contains(&Path::detect()));
}

/// Lane `l` adds the products at `l`, `l + 32`, ...; the lanes are added in halves. A change of this order
/// changes index files.
#[test]
fn the_order_of_an_f32_sum_is_the_documented_one() {
    let a: Vec<f32> = (0..77_u8).map(|n| 1.0 / (f32::from(n) + 1.5)).collect();
    let mut lanes = [0.0_f32; 32];
    for (n, a) in a.iter().enumerate() {
        lanes[n % 32] += a * a;
    }
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    for path in Path::available() {
        assert_eq!(path.dot_f32(&a, &a).to_bits(), lanes[0].to_bits(), "{}", path.name());
    }
}

#[test]
#[should_panic(expected = "multiples of 64")]
fn lengths_are_checked() {
    Path::detect().dot_i8(&[0; 63], &[], &mut []);
}
