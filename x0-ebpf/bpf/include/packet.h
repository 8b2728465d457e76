/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Reading a frame. The rule: what cannot be read in full is not guessed. A truncated, odd or unknown frame comes out as
 * KIND_OTHER or KIND_BROKEN, no address of it is ever matched, and the callers let it pass: whether it is rubbish is the
 * network stack's to say. src/model.rs states the same in Rust and is compared with this on random frames.
 */
#pragma once
#include "kernel.h"

#define VLAN_TAGS_MAX 4 /* deeper stacks are KIND_BROKEN */
#define EXTENSIONS_MAX 6 /* IPv6 extension headers followed to find the ports */

#define ETH_IP 0x0800
#define ETH_IP6 0x86DD
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88A8

enum kind {
	KIND_OTHER, /* a whole Ethernet header, and not IP */
	KIND_BROKEN, /* shorter than its headers say, or headers that contradict themselves */
	KIND_V4,
	KIND_V6,
};

/* An address as two numbers of the host's byte order; IPv4 lies in the low half of `low`. */
struct address {
	u64 high;
	u64 low;
};

struct packet {
	u32 kind;
	const void *network; /* the IP header, where kind says there is one */
	struct address source;
	struct address target;
};

struct ethernet {
	u8 target[6];
	u8 source[6];
	u16 proto;
} __attribute__((packed));

struct vlan {
	u16 tag;
	u16 proto;
};

struct ip4 {
	u8 version_length;
	u8 service;
	u16 length;
	u16 id;
	u16 fragment;
	u8 lifetime;
	u8 proto;
	u16 checksum;
	u32 source;
	u32 target;
};

struct ip6 {
	u32 version_flow;
	u16 length;
	u8 next;
	u8 hops;
	u64 source[2];
	u64 target[2];
} __attribute__((packed, aligned(4)));

/* `data` and `end` bound the linear part of the frame, which starts with the Ethernet header. */
INLINE void packet_parse(struct packet *packet, const void *data, const void *end)
{
	const struct ethernet *ethernet = data;
	const void *at = ethernet + 1;

	/* All of it: without CAP_PERFMON the verifier follows branches the CPU may only guess, and finds what is not set. */
	packet->kind = KIND_BROKEN;
	packet->network = data;
	packet->source.high = packet->source.low = 0;
	packet->target.high = packet->target.low = 0;
	if (unlikely(at > end))
		return;
	u16 proto = ethernet->proto;
	if (unlikely(proto == htons(ETH_VLAN) || proto == htons(ETH_QINQ))) {
#pragma clang loop unroll(full)
		for (int i = 0; i < VLAN_TAGS_MAX; i++) {
			const struct vlan *vlan = at;
			at = vlan + 1;
			if (at > end)
				return;
			proto = vlan->proto;
			if (proto != htons(ETH_VLAN) && proto != htons(ETH_QINQ))
				break;
		}
		if (proto == htons(ETH_VLAN) || proto == htons(ETH_QINQ))
			return;
	}
	packet->network = at;
	if (proto == htons(ETH_IP)) {
		const struct ip4 *ip = at;
		if ((const void *)(ip + 1) > end)
			return;
		/* RFC 791: version 4, and a header of at least five words. */
		if (unlikely((ip->version_length >> 4) != 4 || (ip->version_length & 15) < 5))
			return;
		packet->kind = KIND_V4;
		packet->source.high = 0;
		packet->source.low = htonl(ip->source);
		packet->target.high = 0;
		packet->target.low = htonl(ip->target);
	} else if (proto == htons(ETH_IP6)) {
		const struct ip6 *ip = at;
		if ((const void *)(ip + 1) > end)
			return;
		if (unlikely((*(const u8 *)at >> 4) != 6))
			return;
		packet->kind = KIND_V6;
		packet->source.high = __builtin_bswap64(ip->source[0]);
		packet->source.low = __builtin_bswap64(ip->source[1]);
		packet->target.high = __builtin_bswap64(ip->target[0]);
		packet->target.low = __builtin_bswap64(ip->target[1]);
	} else {
		packet->kind = KIND_OTHER;
	}
}

/* What the ports of a flow need beyond the addresses. Zero ports: there are none, or they cannot be read. */
struct transport {
	u8 proto;
	u8 later_fragment; /* 1: not the first fragment, so it has no transport header */
	u16 source_port;
	u16 target_port;
};

struct extension {
	u8 next;
	u8 length;
	u16 offset; /* of a fragment header only */
};

INLINE void transport_parse(struct transport *transport, const struct packet *packet, const void *end)
{
	const void *at = packet->network;

	transport->proto = 0;
	transport->later_fragment = 0;
	transport->source_port = 0;
	transport->target_port = 0;
	if (packet->kind == KIND_V4) {
		const struct ip4 *ip = at;
		if ((const void *)(ip + 1) > end)
			return;
		transport->proto = ip->proto;
		transport->later_fragment = (ip->fragment & htons(0x1fff)) != 0;
		at += (ip->version_length & 15) * 4;
	} else {
		const struct ip6 *ip = at;
		if ((const void *)(ip + 1) > end)
			return;
		u8 next = ip->next;
		at = ip + 1;
		for (int i = 0; i < EXTENSIONS_MAX; i++) {
			/* Hop-by-hop, routing, destination, authentication, fragment (RFC 8200 section 4). */
			if (next != 0 && next != 43 && next != 60 && next != 51 && next != 44)
				break;
			const struct extension *extension = at;
			if ((const void *)(extension + 1) > end || at + 8 > end) {
				transport->proto = next;
				return;
			}
			if (next == 44) {
				transport->later_fragment = (extension->offset & htons(0xfff8)) != 0;
				at += 8;
			} else if (next == 51) {
				at += (extension->length + 2) * 4;
			} else {
				at += (extension->length + 1) * 8;
			}
			next = extension->next;
			if (transport->later_fragment)
				break;
		}
		transport->proto = next;
	}
	if (transport->later_fragment)
		return;
	/* TCP, UDP, DCCP, SCTP and UDP-Lite begin with the two ports. */
	u8 proto = transport->proto;
	if (proto != 6 && proto != 17 && proto != 33 && proto != 132 && proto != 136)
		return;
	const u16 *ports = at;
	if ((const void *)(ports + 2) > end)
		return;
	transport->source_port = htons(ports[0]);
	transport->target_port = htons(ports[1]);
}
