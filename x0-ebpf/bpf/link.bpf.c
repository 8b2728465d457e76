/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The link program: who sent how much over which interface, and who may. Attached as XDP or at TC ingress it counts and
 * filters what arrives; at TC egress it counts what leaves. All three share the maps. What the operator did not ask for
 * is dead code: the verifier sees the constants below and removes it.
 */
#include "packet.h"
#include "rules.h"

#define SLOTS 256 /* interfaces at once, a power of two */
#define SLOT_PROBES 4
#define POINTS 4
#define HEADERS_MAX 128 /* bytes: Ethernet, tags, IP, some extensions, ports */

enum point { POINT_XDP, POINT_INGRESS, POINT_EGRESS };
enum peer_by { PEER_NONE, PEER_ADDRESS, PEER_MAC };

/* Set by the loader. */
const volatile u32 peer_by = PEER_ADDRESS;
const volatile u32 with_rules = 1;
const volatile u32 with_peer_rate = 0;
const volatile u32 with_flows = 0;
const volatile u32 peer_cache_shift = 64 - 8; /* 64 - log2 of the number of buckets of the cache */
const volatile u32 peer_buckets_shift = 64 - 10; /* 64 - log2 of the number of buckets */
/* 0: `data_end - data`, which the verifier grants to CAP_PERFMON only; 1: the helper of Linux 5.18. */
const volatile u32 with_length_helper = 0;

struct control {
	u64 layout; /* of the maps, so that no other version adopts them */
	u64 seed; /* front_seed of the program that made them */
	struct lengths lengths;
	u64 macs; /* rules in the MAC table */
	u64 drop_v4; /* 1: IPv4 that no rule covers is dropped */
	u64 drop_v6;
	struct rate peer_rate;
	u32 slots[SLOTS]; /* interface index of each slot; 0: free */
};

struct counters {
	u64 packets;
	u64 bytes;
	u64 dropped_bytes;
	u64 dropped_rule;
	u64 dropped_default;
	u64 dropped_rate;
	u64 dropped_mac;
	u64 broken; /* passed, but nothing of it could be matched */
};

struct peer {
	u64 rx_packets;
	u64 rx_bytes;
	u64 tx_packets;
	u64 tx_bytes;
	u64 dropped_packets;
	u64 dropped_bytes;
};

/*
 * In front of the table of peers lies a cache of it in a per-CPU array, four ways to a bucket: a hit costs no helper call,
 * which is most of what a hash look-up costs. What falls out of the cache is added to the table.
 */
#define WAYS 4
struct peer_way {
	struct address key;
	u32 begun; /* of two generation numbers: a reader that sees them differ has read an exchange half done */
	u32 recent;
	struct peer peer;
	u32 used;
	u32 ended;
};

struct peer_ways {
	struct peer_way ways[WAYS];
	u64 hand;
};

struct flow_key {
	struct address source;
	struct address target;
	u16 source_port;
	u16 target_port;
	u8 proto;
	u8 later_fragment;
	u8 version; /* 4 or 6 */
	u8 egress;
};

struct flow {
	u64 packets;
	u64 bytes;
	u64 first; /* nanoseconds of the monotonic clock */
	u64 last;
};

struct rule_counters {
	u64 packets;
	u64 bytes;
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct control);
} control SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, (SLOTS + 1) * POINTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} interfaces SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct peer);
} peers SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, 256);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct peer_ways);
} peer_cache SEC(".maps");

/*
 * One bucket per peer that has no rule of its own, found by a seeded hash: two peers may share one, no peer can take the
 * table away from the others. An LRU table would be exact, but the kernel allows no lock in its values.
 */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct bucket);
} peer_buckets SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, struct flow_key);
	MAP_TYPE(value, struct flow);
} flows SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 256);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, struct rule);
} rules_mac SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct rule_counters);
} rule_hits SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 64);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct bucket);
} buckets SEC(".maps");

struct frame {
	const void *data;
	const void *end;
	u64 packets; /* a segmented frame counts as what it will be on the wire */
	u64 bytes;
	struct packet packet;
};

INLINE u32 slot_of(const struct control *control, u32 interface)
{
#pragma clang loop unroll(full)
	for (u32 i = 0; i < SLOT_PROBES; i++) {
		u32 slot = (interface + i) & (SLOTS - 1);
		if (likely(control->slots[slot] == interface))
			return slot;
	}
	return SLOTS;
}

INLINE u64 mac_key(const u8 *mac)
{
	return (u64)mac[0] << 40 | (u64)mac[1] << 32 | (u64)mac[2] << 24 | (u64)mac[3] << 16 | (u64)mac[4] << 8 | mac[5];
}

/*
 * What a rule does to a packet: 0 lets it pass, anything else is the offset of the counter to drop it under; `dropped` is
 * the counter of this kind of rule.
 */
INLINE u32 rule_apply(const struct rule *rule, u64 packets, u64 bytes, u32 dropped)
{
	u32 index = rule->index;
	struct rule_counters *hits = bpf_map_lookup_elem(&rule_hits, &index);

	if (hits) {
		hits->packets += packets;
		hits->bytes += bytes;
	}
	if (rule->action == ACTION_LIMIT) {
		struct bucket *bucket = bpf_map_lookup_elem(&buckets, &index);
		if (!bucket || bucket_take(bucket, &rule->rate, packets, bytes))
			return 0;
		return __builtin_offsetof(struct counters, dropped_rate);
	}
	return rule->action == ACTION_DROP ? dropped : 0;
}

/*
 * Global functions, not inlined: the verifier looks at each once and by itself, instead of once for every way the callers
 * can reach it.
 */
__attribute__((noinline)) u32 x0_decide_v4(u64 address, u64 packets, u64 bytes)
{
	u32 zero = 0;
	const struct control *settings = bpf_map_lookup_elem(&control, &zero);

	if (!settings)
		return 0;
	const struct rule *rule = rule_of_v4(address, settings->lengths.v4);
	if (rule)
		return rule_apply(rule, packets, bytes, __builtin_offsetof(struct counters, dropped_rule));
	return settings->drop_v4 ? __builtin_offsetof(struct counters, dropped_default) : 0;
}

/* One word of the lengths: 0 when no rule of them covers the address, else 1 with what rule_apply said above it. */
__attribute__((noinline)) u32 x0_decide_word(u64 high, u64 low, u32 word, u64 packets, u64 bytes)
{
	u32 zero = 0;
	const struct control *settings = bpf_map_lookup_elem(&control, &zero);
	struct address address = { .high = high, .low = low };

	if (!settings)
		return 0;
	const struct rule *rule = rule_of_v6(address, word, lengths_word(&settings->lengths, word));
	if (!rule)
		return 0;
	return rule_apply(rule, packets, bytes, __builtin_offsetof(struct counters, dropped_rule)) << 1 | 1;
}

__attribute__((noinline)) u32 x0_decide_v6(u64 high, u64 low, u64 packets, u64 bytes)
{
	u32 zero = 0;
	u32 decided = 0;
	const struct control *settings = bpf_map_lookup_elem(&control, &zero);

	if (!settings)
		return 0;
	if (settings->lengths.v6[0])
		decided = x0_decide_word(high, low, 0, packets, bytes);
	if (!decided && settings->lengths.v6[1])
		decided = x0_decide_word(high, low, 1, packets, bytes);
	if (!decided && settings->lengths.v6[2])
		decided = x0_decide_word(high, low, 2, packets, bytes);
	if (decided)
		return decided >> 1;
	return settings->drop_v6 ? __builtin_offsetof(struct counters, dropped_default) : 0;
}

__attribute__((noinline)) u32 x0_decide_mac(u64 mac, u64 packets, u64 bytes)
{
	const struct rule *rule = bpf_map_lookup_elem(&rules_mac, &mac);

	return rule ? rule_apply(rule, packets, bytes, __builtin_offsetof(struct counters, dropped_mac)) : 0;
}

INLINE u64 address_hash(const struct address *address)
{
	u64 hash = (address->high ^ front_seed) * 0xff51afd7ed558ccdULL;

	return ((hash ^ hash >> 32) + address->low) * 0x9e3779b97f4a7c15ULL;
}

INLINE int peer_within_rate(const struct control *control, const struct address *peer, const struct frame *frame)
{
	if (!control->peer_rate.cost)
		return 1;
	u32 index = address_hash(peer) >> peer_buckets_shift;
	struct bucket *bucket = bpf_map_lookup_elem(&peer_buckets, &index);
	if (!bucket)
		return 1;
	return bucket_take(bucket, &control->peer_rate, frame->packets, frame->bytes);
}

INLINE void flow_count(const struct packet *packet, const struct frame *frame, int egress)
{
	struct flow_key key = { .source = packet->source, .target = packet->target };
	struct transport transport;
	u64 now = bpf_ktime_get_ns();

	transport_parse(&transport, packet, frame->end);
	key.source_port = transport.source_port;
	key.target_port = transport.target_port;
	key.proto = transport.proto;
	key.later_fragment = transport.later_fragment;
	key.version = packet->kind == KIND_V4 ? 4 : 6;
	key.egress = egress;
	struct flow *flow = bpf_map_lookup_elem(&flows, &key);
	if (flow) {
		flow->packets += frame->packets;
		flow->bytes += frame->bytes;
		flow->last = now;
	} else {
		struct flow fresh = { .packets = frame->packets, .bytes = frame->bytes, .first = now, .last = now };
		bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
	}
}

INLINE void peer_add(struct peer *peer, const struct frame *frame, int egress, int dropped)
{
	if (egress) {
		peer->tx_packets += frame->packets;
		peer->tx_bytes += frame->bytes;
	} else {
		peer->rx_packets += frame->packets;
		peer->rx_bytes += frame->bytes;
	}
	if (dropped) {
		peer->dropped_packets += frame->packets;
		peer->dropped_bytes += frame->bytes;
	}
}

/* Out of line: seldom, and the verifier sees it once. */
static __attribute__((noinline)) int peer_exchange(struct peer_way *way, u64 high, u64 low)
{
	if (!way)
		return 0;
	if (way->used) {
		struct address key = way->key;
		struct peer *old = bpf_map_lookup_elem(&peers, &key);
		if (old) {
			old->rx_packets += way->peer.rx_packets;
			old->rx_bytes += way->peer.rx_bytes;
			old->tx_packets += way->peer.tx_packets;
			old->tx_bytes += way->peer.tx_bytes;
			old->dropped_packets += way->peer.dropped_packets;
			old->dropped_bytes += way->peer.dropped_bytes;
		} else {
			struct peer copy = way->peer;
			bpf_map_update_elem(&peers, &key, &copy, BPF_NOEXIST);
		}
	}
	way->begun += 1;
	barrier();
	way->key.high = high;
	way->key.low = low;
	way->peer.rx_packets = 0;
	way->peer.rx_bytes = 0;
	way->peer.tx_packets = 0;
	way->peer.tx_bytes = 0;
	way->peer.dropped_packets = 0;
	way->peer.dropped_bytes = 0;
	way->used = 1;
	barrier();
	way->ended = way->begun;
	return 0;
}

INLINE void peer_count(const struct address *key, const struct frame *frame, int egress, int dropped)
{
	u32 index = address_hash(key) >> peer_cache_shift;
	struct peer_ways *ways = bpf_map_lookup_elem(&peer_cache, &index);
	struct peer_way *way;

	if (!ways)
		return;
#pragma clang loop unroll(full)
	for (int i = 0; i < WAYS; i++) {
		way = &ways->ways[i];
		if (way->key.low == key->low && way->key.high == key->high && way->used)
			goto found;
	}
	/* Second chance: the first way that was not used since the hand last passed it. */
	for (int i = 0; i < WAYS; i++) {
		u64 hand = ways->hand & (WAYS - 1);
		ways->hand = hand + 1;
		way = &ways->ways[hand];
		if (!way->recent)
			break;
		way->recent = 0;
	}
	peer_exchange(way, key->high, key->low);
found:
	way->recent = 1;
	peer_add(&way->peer, frame, egress, dropped);
}

/* 1: pass. Counts either way. */
INLINE int link_handle(const struct frame *frame, u32 interface, enum point point)
{
	u32 zero = 0;
	u32 cause = 0;
	struct packet packet = frame->packet;
	struct address peer = {};
	int has_peer = 0;
	const struct control *settings = bpf_map_lookup_elem(&control, &zero);

	if (!settings)
		return 1;
	u32 place = slot_of(settings, interface) * POINTS + point;
	struct counters *counters = bpf_map_lookup_elem(&interfaces, &place);
	if (!counters)
		return 1;
	counters->packets += frame->packets;
	counters->bytes += frame->bytes;

	/*
	 * Added up whether it is or not, and the causes below as well: of "this counter or that one" the compiler makes one
	 * store through a pointer that depends on the path, which the verifier grants to CAP_PERFMON only.
	 */
	u64 broken = packet.kind == KIND_BROKEN;
	barrier_value(broken);
	counters->broken += broken;
	/* It may still have whole Ethernet addresses; but what contradicts itself is not matched on any of its parts. */
	if (unlikely(packet.kind == KIND_BROKEN))
		return 1;
	const struct ethernet *ethernet = frame->data;
	if ((const void *)(ethernet + 1) > frame->end)
		return 1;

	if (peer_by == PEER_ADDRESS) {
		if (packet.kind == KIND_V4 || packet.kind == KIND_V6) {
			peer = point == POINT_EGRESS ? packet.target : packet.source;
			if (packet.kind == KIND_V4)
				peer.low |= 0xffff00000000ULL; /* ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2 */
			has_peer = 1;
		}
	} else if (peer_by == PEER_MAC) {
		peer.low = mac_key(point == POINT_EGRESS ? ethernet->target : ethernet->source);
		has_peer = 1;
	}

	if (with_rules && point != POINT_EGRESS) {
		if (settings->macs)
			cause = x0_decide_mac(mac_key(ethernet->source), frame->packets, frame->bytes);
		if (cause) {
		} else if (packet.kind == KIND_V4) {
			if (settings->lengths.v4 | settings->drop_v4)
				cause = x0_decide_v4(packet.source.low, frame->packets, frame->bytes);
		} else if (packet.kind == KIND_V6) {
			if (settings->lengths.v6[0] | settings->lengths.v6[1] | settings->lengths.v6[2] | settings->drop_v6)
				cause = x0_decide_v6(packet.source.high, packet.source.low, frame->packets, frame->bytes);
		}
	}
	if (with_peer_rate && point != POINT_EGRESS && !cause && has_peer && !peer_within_rate(settings, &peer, frame))
		cause = __builtin_offsetof(struct counters, dropped_rate);
	if (peer_by != PEER_NONE && has_peer)
		peer_count(&peer, frame, point == POINT_EGRESS, cause != 0);
	if (with_flows && (packet.kind == KIND_V4 || packet.kind == KIND_V6))
		flow_count(&packet, frame, point == POINT_EGRESS);
	if (cause) {
		counters->dropped_bytes += frame->bytes;
		u64 by_rule = cause == __builtin_offsetof(struct counters, dropped_rule) ? frame->packets : 0;
		u64 by_default = cause == __builtin_offsetof(struct counters, dropped_default) ? frame->packets : 0;
		u64 by_rate = cause == __builtin_offsetof(struct counters, dropped_rate) ? frame->packets : 0;
		u64 by_mac = cause == __builtin_offsetof(struct counters, dropped_mac) ? frame->packets : 0;
		barrier_value(by_rule);
		barrier_value(by_default);
		barrier_value(by_rate);
		barrier_value(by_mac);
		counters->dropped_rule += by_rule;
		counters->dropped_default += by_default;
		counters->dropped_rate += by_rate;
		counters->dropped_mac += by_mac;
		return 0;
	}
	return 1;
}

SEC("xdp")
int x0_link(struct xdp_md *context)
{
	struct frame frame = {
		.data = (const void *)(u64)context->data,
		.end = (const void *)(u64)context->data_end,
		.packets = 1,
	};

	if (with_length_helper)
		frame.bytes = bpf_xdp_get_buff_len(context);
	else
		frame.bytes = (u64)(frame.end - frame.data);
	packet_parse(&frame.packet, frame.data, frame.end);
	return link_handle(&frame, context->ingress_ifindex, POINT_XDP) ? XDP_PASS : XDP_DROP;
}

/* The least program there is: what an attachment costs by itself. */
SEC("xdp")
int x0_pass(struct xdp_md *context)
{
	return XDP_PASS;
}

INLINE void frame_of(struct frame *frame, struct __sk_buff *context)
{
	frame->packets = context->gso_segs ? context->gso_segs : 1;
	frame->data = (const void *)(u64)context->data;
	frame->end = (const void *)(u64)context->data_end;
	packet_parse(&frame->packet, frame->data, frame->end);
	if (unlikely(frame->packet.kind == KIND_BROKEN)) {
		/* A driver may leave headers outside the linear part: get them in, as far as we parse, and look again. */
		bpf_skb_pull_data(context, context->len < HEADERS_MAX ? context->len : HEADERS_MAX);
		frame->data = (const void *)(u64)context->data;
		frame->end = (const void *)(u64)context->data_end;
		packet_parse(&frame->packet, frame->data, frame->end);
	}
}

SEC("classifier")
int x0_ingress(struct __sk_buff *context)
{
	struct frame frame;

	frame_of(&frame, context);
	frame.bytes = context->len;
	/* "Continue" rather than "accept": other classifiers of the interface still see the packet. */
	return link_handle(&frame, context->ifindex, POINT_INGRESS) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

SEC("classifier")
int x0_egress(struct __sk_buff *context)
{
	struct frame frame;

	frame_of(&frame, context);
	/* The headers of the segments with it; not set in a test run. */
	frame.bytes = context->wire_len ? context->wire_len : context->len;
	link_handle(&frame, context->ifindex, POINT_EGRESS);
	return TC_ACT_UNSPEC;
}

LICENSE;
