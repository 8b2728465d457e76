/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Faults on purpose, per peer and direction: loss, duplicates, flipped bits, silence. What happens to the n-th packet of a
 * peer is a function of seed and n alone: the same seed gives the same faults. src/fault.rs computes the same function.
 */
#include "packet.h"

#define FAULTS_MAX 1024
#define BLACKHOLE 1

/* Out of 2^32, so that 2^32 is always. */
struct fault {
	struct bpf_spin_lock lock;
	u32 flags;
	u64 seed;
	u64 loss;
	u64 duplicate;
	u64 corrupt;
	u64 next; /* the number of the next packet */
	u64 dropped;
	u64 duplicated;
	u64 corrupted;
};

#define FAULTS(name)                                          \
	struct {                                              \
		MAP_UINT(type, BPF_MAP_TYPE_HASH);            \
		MAP_UINT(max_entries, FAULTS_MAX);            \
		MAP_TYPE(key, struct address);                \
		MAP_TYPE(value, struct fault);                \
	} name SEC(".maps")
FAULTS(faults_in);
FAULTS(faults_out);

/* A copy comes by this program again; its mark says that it has been decided about. */
const volatile u32 copy_mark = 0x78306475;

enum kind_of_fault { FAULT_LOSS = 1, FAULT_DUPLICATE, FAULT_CORRUPT, FAULT_PLACE };

/* SplitMix64 (Steele, Lea, Flood 2014) at position `number` of the stream `kind`. */
INLINE u64 draw(u64 seed, u64 number, u64 kind)
{
	u64 z = (seed ^ kind * 0xd1342543de82ef95ULL) + (number + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

INLINE int inject(struct __sk_buff *context, void *faults, int egress)
{
	struct address peer = {};
	struct packet packet;

	if (context->mark == copy_mark) {
		context->mark = 0;
		return TC_ACT_UNSPEC;
	}
	packet_parse(&packet, (const void *)(u64)context->data, (const void *)(u64)context->data_end);
	if (packet.kind == KIND_V4 || packet.kind == KIND_V6) {
		peer = egress ? packet.target : packet.source;
		if (packet.kind == KIND_V4)
			peer.low |= 0xffff00000000ULL;
	}
	struct fault *fault = bpf_map_lookup_elem(faults, &peer);
	if (!fault) {
		/* The unspecified address stands for every peer that has no faults of its own. */
		struct address any = {};
		fault = bpf_map_lookup_elem(faults, &any);
		if (!fault)
			return TC_ACT_UNSPEC;
	}
	bpf_spin_lock(&fault->lock);
	u64 number = fault->next;
	fault->next = number + 1;
	bpf_spin_unlock(&fault->lock);

	if ((fault->flags & BLACKHOLE) || draw(fault->seed, number, FAULT_LOSS) >> 32 < fault->loss) {
		__sync_fetch_and_add(&fault->dropped, 1);
		/* "Stolen" leaves at egress without an error for the sender, where the kernel lets it (not on a TCX link). */
		return egress ? TC_ACT_STOLEN : TC_ACT_SHOT;
	}
	if (draw(fault->seed, number, FAULT_CORRUPT) >> 32 < fault->corrupt && context->len > sizeof(struct ethernet)) {
		u64 place = draw(fault->seed, number, FAULT_PLACE);
		u32 offset = sizeof(struct ethernet) + (u32)((place >> 8) % (context->len - sizeof(struct ethernet)));
		u8 byte;
		if (!bpf_skb_load_bytes(context, offset, &byte, 1)) {
			byte ^= 1 << (place & 7);
			if (!bpf_skb_store_bytes(context, offset, &byte, 1, 0)) {
				/* The card may have vouched for the checksum: it is to be verified again. */
				bpf_csum_level(context, BPF_CSUM_LEVEL_RESET);
				__sync_fetch_and_add(&fault->corrupted, 1);
			}
		}
	}
	if (draw(fault->seed, number, FAULT_DUPLICATE) >> 32 < fault->duplicate) {
		u32 mark = context->mark;
		context->mark = copy_mark;
		if (!bpf_clone_redirect(context, context->ifindex, egress ? 0 : BPF_F_INGRESS))
			__sync_fetch_and_add(&fault->duplicated, 1);
		context->mark = mark;
	}
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int x0_fault_in(struct __sk_buff *context)
{
	return inject(context, &faults_in, 0);
}

SEC("classifier")
int x0_fault_out(struct __sk_buff *context)
{
	return inject(context, &faults_out, 1);
}

LICENSE;
