/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The longest prefix that covers an address, without the kernel's trie. There is a hash of the prefixes per family, a
 * bitmap of the prefix lengths in use, and a filter of one word per key in front of the hash: a length costs one word
 * read, and only a length that very likely matches costs a hash look-up. User space changes hash, filter and bitmap in an
 * order in which no reader can see a rule half made: see src/filter.rs.
 */
#pragma once
#include "bucket.h"
#include "packet.h"

#define LENGTHS_MAX 33 /* distinct prefix lengths of one family in use at once */

enum action { ACTION_PASS, ACTION_DROP, ACTION_LIMIT };

struct rule {
	u32 action;
	u32 index; /* of the rule's counters, and of its bucket */
	struct rate rate;
};

/* Lengths in use, longest first: bit (32 - length) for IPv4, bit (128 - length) for IPv6 over three words. */
struct lengths {
	u64 v4;
	u64 v6[3];
};

struct key4 {
	u32 address;
	u32 length;
};

struct key6 {
	struct address address;
	u32 length;
	u32 pad;
};

/* Set by the loader. */
const volatile u64 front_seed = 0;
const volatile u32 front_shift = 64 - 10; /* 64 - log2 of the number of words */

#define FRONT(name)                                      \
	struct {                                         \
		MAP_UINT(type, BPF_MAP_TYPE_ARRAY);      \
		MAP_UINT(max_entries, 1024);             \
		MAP_TYPE(key, u32);                      \
		MAP_TYPE(value, u64);                    \
	} name SEC(".maps")
FRONT(front_v4);
FRONT(front_v6);

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct key4);
	MAP_TYPE(value, struct rule);
} rules_v4 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct key6);
	MAP_TYPE(value, struct rule);
} rules_v6 SEC(".maps");

/* The number of trailing zeros of a power of two: BPF has no such instruction (de Bruijn, Leiserson et al. 1998). */
static const u8 trailing[64] = {
	0,  1,  2,  7,  3,  13, 8,  19, 4,  25, 14, 28, 9,  34, 20, 40, 5,  17, 26, 38, 15, 46, 29, 48, 10, 31, 35, 54, 21, 50, 41, 57,
	63, 6,  12, 18, 24, 27, 33, 39, 16, 37, 45, 47, 30, 53, 49, 56, 62, 11, 23, 32, 36, 44, 52, 55, 61, 22, 43, 51, 60, 42, 59, 58,
};
#define DE_BRUIJN 0x0218a392cd3d5dbfULL

INLINE u32 bit_index(u64 bit)
{
	return trailing[(bit * DE_BRUIJN) >> 58];
}

/* 1: a key of this hash may be in the table; 0: it is not. Two bits of one word. */
INLINE int front_may_hold(void *front, u64 hash)
{
	u32 index = hash >> front_shift;
	u64 bits = 1ULL << ((hash >> 32) & 63) | 1ULL << ((hash >> 38) & 63);
	u64 *word = bpf_map_lookup_elem(front, &index);

	return word && (*word & bits) == bits;
}

INLINE struct rule *rule_of_v4(u64 address, u64 left)
{
	for (int i = 0; i < LENGTHS_MAX && left; i++) {
		u64 bit = left & -left;
		u32 back = bit_index(bit) & 63;
		struct key4 key = { .address = (u32)((address >> back) << back), .length = 32 - back };
		u64 hash = (((u64)key.address << 8 | key.length) ^ front_seed) * 0x9e3779b97f4a7c15ULL;

		left ^= bit;
		if (front_may_hold(&front_v4, hash)) {
			struct rule *rule = bpf_map_lookup_elem(&rules_v4, &key);
			if (rule)
				return rule;
		}
	}
	return 0;
}

/* One word of the bitmap: a choice of values, not of addresses, which the verifier need not bound. */
INLINE u64 lengths_word(const struct lengths *lengths, u32 word)
{
	u64 first = *(volatile const u64 *)&lengths->v6[0];
	u64 second = *(volatile const u64 *)&lengths->v6[1];
	u64 third = *(volatile const u64 *)&lengths->v6[2];

	return word == 0 ? first : word == 1 ? second : third;
}

/* The lengths of one word of the bitmap: 128 to 65, 64 to 1, 0. */
INLINE struct rule *rule_of_v6(struct address address, u32 word, u64 left)
{
	for (int i = 0; i < LENGTHS_MAX && left; i++) {
		u64 bit = left & -left;
		u32 back = bit_index(bit) & 63;
		struct key6 key = {};

		left ^= bit;
		if (word == 0) {
			key.address.high = address.high;
			key.address.low = (address.low >> back) << back;
		} else if (word == 1) {
			key.address.high = (address.high >> back) << back;
		}
		key.length = 128 - word * 64 - back;
		u64 hash = (key.address.high ^ front_seed) * 0xff51afd7ed558ccdULL;
		hash = ((hash ^ hash >> 32) + key.address.low + ((u64)key.length << 56)) * 0x9e3779b97f4a7c15ULL;
		if (front_may_hold(&front_v6, hash)) {
			struct rule *rule = bpf_map_lookup_elem(&rules_v6, &key);
			if (rule)
				return rule;
		}
	}
	return 0;
}
