/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What TCP knows when a segment arrives, per peer, from the tracepoint tcp:tcp_probe: of connections that were opened
 * before, too, and in every cgroup and namespace.
 */
#include "kernel.h"

/* Where the fields are, in bytes: kernels differ, and tell it in the event's `format`. */
const volatile u32 at_target = 36;
const volatile u32 at_srtt = 100;
const volatile u32 at_window = 88;

enum { FAMILY_V4 = 2, FAMILY_V6 = 10 };

static long (*const bpf_probe_read_kernel)(void *to, u32 len, const void *from) = (void *)113;

struct address {
	u64 high;
	u64 low;
};

struct probes {
	u64 segments;
	u32 srtt_us; /* smoothed, at the latest segment */
	u32 window;  /* congestion window then, in segments */
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct probes);
} probes SEC(".maps");

/* The beginning of a sockaddr_in or a sockaddr_in6. */
struct target {
	u16 family;
	u16 port;
	u32 first; /* the address of the one, the flow label of the other */
	u32 v6[4];
};

SEC("tracepoint/tcp/tcp_probe")
int x0_probe(void *context)
{
	struct target target = {};
	struct address key;
	u32 srtt = 0, window = 0;

	if (bpf_probe_read_kernel(&target, sizeof(target), (char *)context + at_target) ||
	    bpf_probe_read_kernel(&srtt, sizeof(srtt), (char *)context + at_srtt) ||
	    bpf_probe_read_kernel(&window, sizeof(window), (char *)context + at_window))
		return 0;
	if (target.family == FAMILY_V4) {
		key.high = 0;
		key.low = 0xffff00000000ULL | htonl(target.first);
	} else if (target.family == FAMILY_V6) {
		key.high = (u64)htonl(target.v6[0]) << 32 | htonl(target.v6[1]);
		key.low = (u64)htonl(target.v6[2]) << 32 | htonl(target.v6[3]);
	} else {
		return 0;
	}
	struct probes *peer = bpf_map_lookup_elem(&probes, &key);
	if (!peer) {
		struct probes fresh = {};
		bpf_map_update_elem(&probes, &key, &fresh, BPF_NOEXIST);
		peer = bpf_map_lookup_elem(&probes, &key);
		if (!peer)
			return 0;
	}
	__sync_fetch_and_add(&peer->segments, 1);
	if (srtt)
		peer->srtt_us = srtt;
	peer->window = window;
	return 0;
}

LICENSE;
