/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Steering: what leaves through one interface goes out through another, chosen by one number in a map. Routes, neighbours
 * and sockets notice nothing. Attached at TC egress of the interface that the routes name.
 */
#include "kernel.h"

#define STEERED_MAX 64
#define PATHS_MAX 256

struct path {
	u32 interface; /* 0: not set */
	u32 rewrite; /* 1: give the frame the addresses below */
	u8 target[6];
	u8 source[6];
	u32 pad;
};

struct steered {
	u64 packets;
	u64 bytes;
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, PATHS_MAX);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct path);
} paths SEC(".maps");

/* The number of the path that an interface's frames take: one word, so that a flip is one store. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, STEERED_MAX);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} chosen SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, PATHS_MAX);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct steered);
} steered SEC(".maps");

SEC("classifier")
int x0_steer(struct __sk_buff *context)
{
	u32 interface = context->ifindex;
	u32 *number = bpf_map_lookup_elem(&chosen, &interface);

	if (!number)
		return TC_ACT_UNSPEC;
	u32 index = *number;
	struct path *path = bpf_map_lookup_elem(&paths, &index);
	if (!path || !path->interface)
		return TC_ACT_UNSPEC;
	struct steered *counters = bpf_map_lookup_elem(&steered, &index);
	if (counters) {
		counters->packets += context->gso_segs ? context->gso_segs : 1;
		counters->bytes += context->wire_len ? context->wire_len : context->len;
	}
	if (path->interface == interface)
		return TC_ACT_UNSPEC;
	if (path->rewrite) {
		u8 addresses[12];
		__builtin_memcpy(addresses, path->target, 6);
		__builtin_memcpy(addresses + 6, path->source, 6);
		if (bpf_skb_store_bytes(context, 0, addresses, sizeof(addresses), 0))
			return TC_ACT_UNSPEC;
	}
	return bpf_redirect(path->interface, 0);
}

LICENSE;
