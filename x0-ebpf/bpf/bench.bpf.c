/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * For measurements only: look-ups of many different addresses in one run, in our tables and in the kernel's own prefix
 * trie, and the loop without any. A test run repeats one packet, whose look-up would always be in the CPU's cache.
 */
#include "rules.h"

#define ROUND 64 /* look-ups per run */

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 65536);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct address);
} addresses SEC(".maps");

struct state {
	u64 next;
	u64 found;
	struct lengths lengths;
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct state);
} state SEC(".maps");

struct trie4 {
	u32 length;
	u32 address; /* of the network's byte order */
};

struct trie6 {
	u32 length;
	u32 address[4]; /* of the network's byte order */
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(max_entries, 1024);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct trie4);
	MAP_TYPE(value, u32);
} trie_v4 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(max_entries, 1024);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct trie6);
	MAP_TYPE(value, u32);
} trie_v6 SEC(".maps");

enum table { TABLE_NONE, TABLE_RULES, TABLE_TRIE };

/* Global, as in the link program: the verifier looks at each once. */
__attribute__((noinline)) u32 x0_find_v4(u64 address)
{
	u32 zero = 0;
	struct state *at = bpf_map_lookup_elem(&state, &zero);

	return at && rule_of_v4(address, at->lengths.v4) != 0;
}

__attribute__((noinline)) u32 x0_find_word(u64 high, u64 low, u32 word)
{
	u32 zero = 0;
	struct state *at = bpf_map_lookup_elem(&state, &zero);
	struct address address = { .high = high, .low = low };

	return at && rule_of_v6(address, word, lengths_word(&at->lengths, word)) != 0;
}

__attribute__((noinline)) u32 x0_find_v6(u64 high, u64 low)
{
	u32 zero = 0;
	struct state *at = bpf_map_lookup_elem(&state, &zero);

	if (!at)
		return 0;
	return (at->lengths.v6[0] && x0_find_word(high, low, 0)) || (at->lengths.v6[1] && x0_find_word(high, low, 1)) ||
	       (at->lengths.v6[2] && x0_find_word(high, low, 2));
}

INLINE int round_of(enum table table, int v6)
{
	u32 zero = 0;
	u64 found = 0;
	struct state *at = bpf_map_lookup_elem(&state, &zero);

	if (!at)
		return XDP_ABORTED;
	for (int i = 0; i < ROUND; i++) {
		u32 index = (at->next + i) & 65535;
		struct address *address = bpf_map_lookup_elem(&addresses, &index);
		if (!address)
			return XDP_ABORTED;
		if (table == TABLE_NONE) {
			found += address->low & 1;
		} else if (table == TABLE_RULES) {
			found += v6 ? x0_find_v6(address->high, address->low) : x0_find_v4(address->low);
		} else if (v6) {
			struct trie6 key = { .length = 128 };
			key.address[0] = htonl((u32)(address->high >> 32));
			key.address[1] = htonl((u32)address->high);
			key.address[2] = htonl((u32)(address->low >> 32));
			key.address[3] = htonl((u32)address->low);
			found += bpf_map_lookup_elem(&trie_v6, &key) != 0;
		} else {
			struct trie4 key = { .length = 32, .address = htonl((u32)address->low) };
			found += bpf_map_lookup_elem(&trie_v4, &key) != 0;
		}
	}
	at->next += ROUND;
	at->found += found;
	return XDP_PASS;
}

SEC("xdp")
int x0_bench_none(struct xdp_md *context)
{
	return round_of(TABLE_NONE, 0);
}

SEC("xdp")
int x0_bench_rules_v4(struct xdp_md *context)
{
	return round_of(TABLE_RULES, 0);
}

SEC("xdp")
int x0_bench_rules_v6(struct xdp_md *context)
{
	return round_of(TABLE_RULES, 1);
}

SEC("xdp")
int x0_bench_trie_v4(struct xdp_md *context)
{
	return round_of(TABLE_TRIE, 0);
}

SEC("xdp")
int x0_bench_trie_v6(struct xdp_md *context)
{
	return round_of(TABLE_TRIE, 1);
}

LICENSE;
