/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What TCP measures by itself, per peer: round-trip times, retransmitted segments, open connections, bytes. A sockops
 * program of a cgroup: it sees the connections that are opened while it is attached.
 */
#include "kernel.h"

enum { ACTIVE_ESTABLISHED = 4, PASSIVE_ESTABLISHED = 5, RETRANSMIT = 9, STATE = 10, RTT = 12 };
enum { FLAG_RETRANSMIT = 2, FLAG_STATE = 4, FLAG_RTT = 8 };
enum { TCP_CLOSE = 7 };
enum { FAMILY_V4 = 2, FAMILY_V6 = 10 };
#define BPF_MAP_TYPE_SK_STORAGE 24
#define BPF_SK_STORAGE_GET_F_CREATE 1

struct bpf_sock;

struct bpf_sock_ops {
	u32 op;
	u32 args[4];
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port;
	u32 local_port;
	u32 is_fullsock;
	u32 snd_cwnd;
	u32 srtt_us;
	u32 bpf_sock_ops_cb_flags;
	u32 state;
	u32 rtt_min;
	u32 snd_ssthresh;
	u32 rcv_nxt;
	u32 snd_nxt;
	u32 snd_una;
	u32 mss_cache;
	u32 ecn_flags;
	u32 rate_delivered;
	u32 rate_interval_us;
	u32 packets_out;
	u32 retrans_out;
	u32 total_retrans;
	u32 segs_in;
	u32 data_segs_in;
	u32 segs_out;
	u32 data_segs_out;
	u32 lost_out;
	u32 sacked_out;
	u32 sk_txhash;
	u64 bytes_received;
	u64 bytes_acked;
	u64 sk __attribute__((aligned(8)));
};

static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;

struct address {
	u64 high;
	u64 low;
};

struct connections {
	u64 opened;
	u64 closed;
	u64 samples;
	u64 retransmits;
	u64 bytes_acknowledged;
	u64 bytes_received;
	u32 srtt_us; /* smoothed, of the latest sample */
	u32 rtt_min_us; /* the least that any connection saw */
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LRU_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct connections);
} connections SEC(".maps");

/* How much of a connection has been added to its peer already. */
struct counted {
	u64 acknowledged;
	u64 received;
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_SK_STORAGE);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct counted);
} counted SEC(".maps");

/* Field by field: the verifier takes no load of two at once, and the compiler would make one. */
#define LOAD(field) (*(volatile const u32 *)&context->field)

INLINE void count_bytes(struct bpf_sock_ops *context, struct connections *peer)
{
	void *sk = (void *)context->sk;
	u64 acknowledged, received;

	if (!sk)
		return;
	struct counted *seen = bpf_sk_storage_get(&counted, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!seen)
		return;
	acknowledged = context->bytes_acked;
	received = context->bytes_received;
	/* The socket is locked while it calls us: nobody else counts it. */
	__sync_fetch_and_add(&peer->bytes_acknowledged, acknowledged - seen->acknowledged);
	__sync_fetch_and_add(&peer->bytes_received, received - seen->received);
	seen->acknowledged = acknowledged;
	seen->received = received;
}

SEC("sockops")
int x0_socket(struct bpf_sock_ops *context)
{
	u32 op = context->op;
	struct address key;

	if (op != ACTIVE_ESTABLISHED && op != PASSIVE_ESTABLISHED && op != RETRANSMIT && op != STATE && op != RTT)
		return 1;
	if (LOAD(family) == FAMILY_V4) {
		key.high = 0;
		key.low = 0xffff00000000ULL | htonl(LOAD(remote_ip4));
	} else if (LOAD(family) == FAMILY_V6) {
		key.high = (u64)htonl(LOAD(remote_ip6[0])) << 32 | htonl(LOAD(remote_ip6[1]));
		key.low = (u64)htonl(LOAD(remote_ip6[2])) << 32 | htonl(LOAD(remote_ip6[3]));
	} else {
		return 1;
	}
	struct connections *peer = bpf_map_lookup_elem(&connections, &key);
	if (!peer) {
		struct connections fresh = {};
		bpf_map_update_elem(&connections, &key, &fresh, BPF_NOEXIST);
		peer = bpf_map_lookup_elem(&connections, &key);
		if (!peer)
			return 1;
	}
	if (op == ACTIVE_ESTABLISHED || op == PASSIVE_ESTABLISHED) {
		__sync_fetch_and_add(&peer->opened, 1);
		bpf_sock_ops_cb_flags_set(context, FLAG_RETRANSMIT | FLAG_STATE | FLAG_RTT);
	} else if (op == RETRANSMIT) {
		__sync_fetch_and_add(&peer->retransmits, context->args[1]);
		return 1;
	} else if (op == STATE) {
		/* The callback is set once a connection is established, so whatever closes here was opened above. */
		if (context->args[1] == TCP_CLOSE) {
			__sync_fetch_and_add(&peer->closed, 1);
			count_bytes(context, peer);
		}
		return 1;
	}
	if (context->is_fullsock) {
		u32 srtt = context->srtt_us >> 3;
		u32 least = context->rtt_min;
		if (srtt) {
			peer->srtt_us = srtt;
			if (op == RTT)
				__sync_fetch_and_add(&peer->samples, 1);
		}
		/* ~0 means that none was measured. */
		if (least && least != ~0U && (!peer->rtt_min_us || least < peer->rtt_min_us))
			peer->rtt_min_us = least;
		count_bytes(context, peer);
	}
	return 1;
}

LICENSE;
