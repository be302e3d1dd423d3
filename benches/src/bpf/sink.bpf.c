// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The sink: counts the generator's frames, verifies them and measures how late they are, then drops
 * them or sends them back. Those of a flood it only counts and drops. Everything else goes to the kernel, so that neighbours are resolved.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "frame.h"
#include "sink.h"

#define CHUNK 512
#define MAX_CHUNKS 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sink_config);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct results);
} results SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sighting);
} sightings SEC(".maps");

/* Room to sum up a part of a frame; twice of it, because the verifier reads a mask as a bound. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[2 * CHUNK]);
} scratch SEC(".maps");

struct packet {
	__u32 source[4]; /* as in the headers; IPv4 as ::ffff:a.b.c.d */
	__u32 destination[4];
	__u32 ports;
	__u32 network;   /* bytes before the transport header */
	__u32 headers;   /* bytes before the payload */
	__u32 length;    /* transport header and payload */
	__u8 protocol;
	__u8 family;
	__u16 zero;
	struct stamp stamp;
};

static __always_inline int parse(__u8 *data, __u8 *end, struct packet *packet)
{
	__u32 *words;
	__u8 *at;

	if (data + ETHERNET_HEADER + IPV4_HEADER > end)
		return -1;
	words = (__u32 *)(data + ETHERNET_HEADER);
	if (*(__u16 *)(data + 12) == bpf_htons(ETH_P_IP) && data[14] == 0x45) {
		packet->family = 4;
		packet->protocol = data[23];
		packet->source[2] = packet->destination[2] = bpf_htonl(0xffff);
		packet->source[3] = words[3];
		packet->destination[3] = words[4];
		packet->network = ETHERNET_HEADER + IPV4_HEADER;
		packet->length = bpf_ntohs(*(__u16 *)(data + 16)) - IPV4_HEADER;
	} else if (*(__u16 *)(data + 12) == bpf_htons(ETH_P_IPV6)) {
		if (data + ETHERNET_HEADER + IPV6_HEADER > end)
			return -1;
		packet->family = 6;
		packet->protocol = data[20];
#pragma unroll
		for (int i = 0; i < 4; i++) {
			packet->source[i] = words[2 + i];
			packet->destination[i] = words[6 + i];
		}
		packet->network = ETHERNET_HEADER + IPV6_HEADER;
		packet->length = bpf_ntohs(*(__u16 *)(data + 18));
	} else {
		return -1;
	}
	if (packet->protocol == IPPROTO_TCP)
		packet->headers = packet->network + TCP_HEADER;
	else if (packet->protocol == IPPROTO_UDP)
		packet->headers = packet->network + UDP_HEADER;
	else if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6)
		packet->headers = packet->network + ICMP_HEADER;
	else
		return -1;
	at = data + packet->network;
	if (data + packet->headers + sizeof(struct stamp) > end)
		return -1;
	packet->ports = *(__u32 *)at;
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		packet->ports = 0;
	__builtin_memcpy(&packet->stamp, data + packet->headers, sizeof(struct stamp));
	return 0;
}

static __always_inline int inside(const __u32 *address, const __u8 *network, const __u8 *mask)
{
	const __u32 *base = (const __u32 *)network, *bits = (const __u32 *)mask;

	return !(((address[0] ^ base[0]) & bits[0]) | ((address[1] ^ base[1]) & bits[1]) |
		 ((address[2] ^ base[2]) & bits[2]) | ((address[3] ^ base[3]) & bits[3]));
}

static __always_inline void check_tuple(const struct sink_config *config,
					const struct packet *packet, __u64 *counters)
{
	__u16 port = bpf_ntohl(packet->ports) & 0xffff;

	if (!inside(packet->source, config->source, config->source_mask) ||
	    !inside(packet->destination, config->destination, config->destination_mask) ||
	    (config->destination_port && packet->ports && port != config->destination_port))
		counters[WRONG_TUPLE]++;
}

static __always_inline __u32 hash_tuple(const struct packet *packet)
{
	__u32 hash = packet->ports;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		hash = mix(hash, packet->source[i]);
		hash = mix(hash, packet->destination[i]);
	}
	return hash;
}

static __always_inline void check_flow(const struct packet *packet, __u64 *counters)
{
	__u32 number = packet->stamp.flow, tuple = hash_tuple(packet);
	__u32 sequence = packet->stamp.sequence;
	struct flow *flow = bpf_map_lookup_elem(&flows, &number);
	int ahead;

	if (!flow)
		return;
	if (flow->run != packet->stamp.run) {
		flow->run = packet->stamp.run;
		flow->next = 0;
		flow->tuple = tuple;
		counters[FLOWS]++;
	}
	if (flow->tuple != tuple) {
		flow->tuple = tuple;
		counters[MOVED]++;
	}
	ahead = sequence - flow->next;
	if (ahead < 0) {
		counters[LATE]++;
		return;
	}
	counters[MISSING] += ahead;
	flow->next = sequence + 1;
}

/* Adds the bytes from `offset` on to `sum`; an odd last byte counts as if a zero followed. */
static __always_inline __s64 sum_bytes(struct xdp_md *ctx, __u32 offset, __u32 length, __u32 sum)
{
	__u32 zero = 0;
	__u8 *chunk = bpf_map_lookup_elem(&scratch, &zero);

	if (!chunk)
		return -1;
	for (int i = 0; i < MAX_CHUNKS; i++) {
		__u32 part = length < CHUNK ? length : CHUNK;
		__s64 next;

		if (!part)
			return sum;
		/* The verifier wants to see the bounds at the call. */
		part = ((part - 1) & (CHUNK - 1)) + 1;
		*(__u32 *)(chunk + ((part - 1) & (CHUNK - 4))) = 0;
		if (bpf_xdp_load_bytes(ctx, offset, chunk, part))
			return -1;
		next = bpf_csum_diff(0, 0, (__be32 *)chunk, (part + 3) & 0x3fc, sum);
		if (next < 0)
			return -1;
		sum = next;
		offset += part;
		length -= part;
	}
	return length ? -1 : (__s64)sum;
}

static __always_inline void check_sums(struct xdp_md *ctx, const struct packet *packet,
				       __u64 *counters)
{
	__u64 pseudo = 0;
	__s64 sum;

	counters[CHECKED]++;
	if (packet->family == 4 &&
	    fold(sum_bytes(ctx, ETHERNET_HEADER, IPV4_HEADER, 0)) != 0xffff)
		counters[BAD_IP_SUM]++;
	if (packet->protocol != IPPROTO_ICMP) {
		pseudo = bpf_htonl(packet->protocol) + (__u64)bpf_htonl(packet->length);
#pragma unroll
		for (int i = 0; i < 4; i++)
			pseudo += (__u64)packet->source[i] + packet->destination[i];
		/* The two prefixes of IPv4 in IPv6, which the pseudo header has not. */
		if (packet->family == 4)
			pseudo -= 2 * (__u64)bpf_htonl(0xffff);
	}
	sum = sum_bytes(ctx, packet->network, packet->length, fold(pseudo));
	if (sum < 0 || fold(sum) != 0xffff)
		counters[BAD_SUM]++;
}

static __always_inline __u32 bucket_of(__u64 value)
{
	__u32 octave = 0;
	__u64 rest = value >> SUB_BITS;

	if (!rest)
		return value;
#pragma unroll
	for (int shift = 32; shift; shift /= 2) {
		if (rest >> shift) {
			rest >>= shift;
			octave += shift;
		}
	}
	return ((octave + 1) << SUB_BITS) + ((value >> octave) & ((1 << SUB_BITS) - 1));
}

static __always_inline void measure(struct results *r, const struct stamp *stamp, __u64 now)
{
	__u64 sent = (__u64)stamp->early << 32 | stamp->late;
	__u64 latency = now > sent ? now - sent : 0;
	__u32 bucket = bucket_of(latency);

	r->counters[LATENCY_SUM] += latency;
	if (latency > r->counters[LATENCY_MAX])
		r->counters[LATENCY_MAX] = latency;
	if (bucket < BUCKETS)
		r->buckets[bucket]++;
}

static __always_inline void swap_words(__u8 *a, __u8 *b, int words)
{
	for (int i = 0; i < words; i++) {
		__u16 word = ((__u16 *)a)[i];

		((__u16 *)a)[i] = ((__u16 *)b)[i];
		((__u16 *)b)[i] = word;
	}
}

/* What a server answers; -1 when it says nothing. Exchanging ends leaves the sums as they are. */
static __always_inline int reply(struct xdp_md *ctx, const struct packet *packet)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u8 *transport;

	if (packet->family == 4) {
		if (data + ETHERNET_HEADER + IPV4_HEADER + TCP_HEADER > end)
			return -1;
		transport = data + ETHERNET_HEADER + IPV4_HEADER;
	} else {
		if (data + ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER > end)
			return -1;
		transport = data + ETHERNET_HEADER + IPV6_HEADER;
	}
	if (packet->protocol == IPPROTO_TCP) {
		__u32 *words = (__u32 *)transport, before[3], after[3];
		__u8 flags = transport[13];
		__u32 consumed = packet->length - TCP_HEADER + 1;

		if (!(flags & (TCP_SYN | TCP_FIN)))
			return -1;
		__builtin_memcpy(before, words + 1, 12);
		after[0] = words[2];
		after[1] = bpf_htonl(bpf_ntohl(words[1]) + consumed);
		after[2] = words[3] | bpf_htonl((__u32)TCP_ACK << 16);
		__builtin_memcpy(words + 1, after, 12);
		*(__u16 *)(transport + 16) =
			~fold(bpf_csum_diff(before, 12, after, 12, (__u16)~*(__u16 *)(transport + 16)));
	} else if (packet->protocol != IPPROTO_UDP) {
		return -1;
	}
	swap_words(transport, transport + 2, 1);
	swap_words(data, data + 6, 3);
	if (packet->family == 4)
		swap_words(data + 26, data + 30, 2);
	else
		swap_words(data + 22, data + 38, 8);
	return 0;
}

static __always_inline void sight(const struct packet *packet)
{
	__u32 zero = 0;
	struct sighting *s = bpf_map_lookup_elem(&sightings, &zero);

	if (!s)
		return;
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (packet->destination[i] != s->address[i])
			return;
	s->last = bpf_ktime_get_ns();
	if (!s->first)
		s->first = s->last;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	struct packet packet = {};
	__u32 zero = 0;
	struct sink_config *config = bpf_map_lookup_elem(&settings, &zero);
	struct results *r = bpf_map_lookup_elem(&results, &zero);

	if (!config || !r)
		return XDP_PASS;
	if (parse(data, end, &packet)) {
		r->counters[FOREIGN]++;
		return XDP_PASS;
	}
	if (packet.stamp.run == (config->run ^ FLOOD_MARK)) {
		r->counters[FLOOD]++;
		sight(&packet);
		return XDP_DROP;
	}
	if (packet.stamp.run != config->run) {
		r->counters[FOREIGN]++;
		return XDP_PASS;
	}
	r->counters[RECEIVED]++;
	r->counters[BYTES] += end - data;
	measure(r, &packet.stamp, bpf_ktime_get_ns());
	check_tuple(config, &packet, r->counters);
	if (config->flows)
		check_flow(&packet, r->counters);
	if (!(packet.stamp.sequence & config->check_mask))
		check_sums(ctx, &packet, r->counters);
	if (config->action != SINK_REPLY || reply(ctx, &packet))
		return XDP_DROP;
	r->counters[REPLIED]++;
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
