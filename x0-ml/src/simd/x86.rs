//! AVX2 and AVX-512 VNNI. The functions here are called only through a [`Path`](super::Path) that was found
//! at run time.
#![allow(unsafe_code, reason = "vector instructions; every block says why it is sound")]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_epi32, _mm256_cvtepi8_epi16,
    _mm256_madd_epi16, _mm256_setzero_si256, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_loadu_si512,
    _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_xor_si512,
};

use super::{CODES_MULTIPLE, portable};

pub(super) fn avx2_dot_f32(a: &[f32], b: &[f32]) -> f32 {
    #[target_feature(enable = "avx2")]
    fn inner(a: &[f32], b: &[f32]) -> f32 {
        portable::dot_f32(a, b)
    }
    // SAFETY: a `Path` of this kind exists only where AVX2 was detected.
    unsafe { inner(a, b) }
}

pub(super) fn avx512_dot_f32(a: &[f32], b: &[f32]) -> f32 {
    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    fn inner(a: &[f32], b: &[f32]) -> f32 {
        portable::dot_f32(a, b)
    }
    // SAFETY: a `Path` of this kind exists only where these features were detected.
    unsafe { inner(a, b) }
}

pub(super) fn avx2_dot_i8(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
    #[target_feature(enable = "avx2")]
    fn inner(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
        let (query, _) = query.as_chunks::<16>();
        for (row, sum) in rows.iter().zip(sums) {
            let (row, _) = row.as_chunks::<16>();
            let mut total = _mm256_setzero_si256();
            for (a, b) in query.iter().zip(row) {
                // Widened to 16 bits, so that no product of codes, -128 included, saturates.
                let pairs = _mm256_madd_epi16(widen(a), widen(b));
                total = _mm256_add_epi32(total, pairs);
            }
            // SAFETY: both are 32 bytes of plain integers.
            let lanes = unsafe { std::mem::transmute::<__m256i, [i32; 8]>(total) };
            *sum = lanes.iter().sum();
        }
    }

    #[target_feature(enable = "avx2")]
    fn widen(codes: &[i8; 16]) -> __m256i {
        // SAFETY: the array is 16 readable bytes; the load needs no alignment.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) })
    }
    // SAFETY: a `Path` of this kind exists only where AVX2 was detected.
    unsafe { inner(query, rows, sums) }
}

pub(super) fn avx512_dot_i8(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn inner(query: &[i8], rows: &[&[i8]], sums: &mut [i32]) {
        let (query, _) = query.as_chunks::<CODES_MULTIPLE>();
        // dpbusd multiplies unsigned by signed bytes: a code plus 128 is its byte with the top bit turned
        // over, and 128 times the sum of the query's codes is taken off at the end.
        let top = _mm512_set1_epi8(i8::MIN);
        let ones = _mm512_set1_epi8(1);
        let mut offset = _mm512_setzero_si512();
        for codes in query {
            offset = _mm512_dpbusd_epi32(offset, ones, load(codes));
        }
        let offset = _mm512_reduce_add_epi32(offset).wrapping_mul(128);
        for (row, sum) in rows.iter().zip(sums) {
            let (row, _) = row.as_chunks::<CODES_MULTIPLE>();
            let mut even = _mm512_setzero_si512();
            let mut odd = _mm512_setzero_si512();
            let mut pairs = row.chunks_exact(2).zip(query.chunks_exact(2));
            for (row, query) in &mut pairs {
                even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(load(&row[0]), top), load(&query[0]));
                odd = _mm512_dpbusd_epi32(odd, _mm512_xor_si512(load(&row[1]), top), load(&query[1]));
            }
            if !row.len().is_multiple_of(2)
                && let (Some(row), Some(query)) = (row.last(), query.last())
            {
                even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(load(row), top), load(query));
            }
            // Wrapping on purpose: the true sum fits, whatever the parts do.
            *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd)).wrapping_sub(offset);
        }
    }

    #[target_feature(enable = "avx512f")]
    fn load(codes: &[i8; CODES_MULTIPLE]) -> __m512i {
        // SAFETY: the array is 64 readable bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
    }
    // SAFETY: a `Path` of this kind exists only where these features were detected.
    unsafe { inner(query, rows, sums) }
}

#[inline]
pub(super) fn prefetch<T>(values: &[T]) {
    let first = values.as_ptr().cast::<i8>();
    for line in (0..size_of_val(values)).step_by(64) {
        // SAFETY: a prefetch reads nothing architecturally, and the address lies in a live slice. SSE is part
        // of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.add(line)) };
    }
}
