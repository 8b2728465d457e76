/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A token bucket as the generic cell rate algorithm (ITU-T I.371): one time per bucket, at which it would be full again.
 * The lock keeps two CPUs from spending the same token; atomics that return a value are not in the v2 instruction set.
 */
#pragma once
#include "kernel.h"

/* As the operator wrote it. A rate of zero cost is no limit. */
struct rate {
	u64 cost; /* nanoseconds per unit, times 2^16 */
	u64 burst; /* nanoseconds of saved-up rate */
	u32 per_packet; /* 1: a unit is a packet; 0: a unit is a byte */
	u32 pad;
};

struct bucket {
	struct bpf_spin_lock lock;
	u32 pad;
	u64 full_at; /* nanoseconds of the monotonic clock */
};

/* 1: the packet is within the rate and has been paid for. */
INLINE int bucket_take(struct bucket *bucket, const struct rate *rate, u64 packets, u64 bytes)
{
	u64 cost = ((rate->per_packet ? packets : bytes) * rate->cost) >> 16;
	u64 burst = rate->burst;
	u64 now = bpf_ktime_get_ns();
	int within = 0;

	bpf_spin_lock(&bucket->lock);
	u64 full_at = bucket->full_at;
	if (full_at < now)
		full_at = now;
	full_at += cost;
	if (full_at <= now + burst) {
		bucket->full_at = full_at;
		within = 1;
	}
	bpf_spin_unlock(&bucket->lock);
	return within;
}
