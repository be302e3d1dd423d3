// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The packet generator, run by BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES: every run writes one
 * whole frame and transmits it, or drops it because none is due yet. The page of a frame comes back
 * with what receivers did to it, hence every header is written every time; payloads are zeros.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "frame.h"
#include "generate.h"

#define MAX_HEADERS (ETHERNET_HEADER + IPV6_HEADER + TCP_HEADER)
#define STEP_SHIFT 16
#define CONNECTION_STEPS 4
#define FIRST_SEQUENCE 1000
#define FLOOD_SHIFT 16

const volatile struct config config = {};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

/* Flows in the order of an uneven distribution, and the sequence number of each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} draws SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sequences SEC(".maps");

struct frame {
	struct stamp stamp;
	__u32 size;
	__u32 step; /* of a connection's script */
	__u32 flood; /* whether it opens a connection beside the flows */
};

/* Whether frame `number` exists; which flow it belongs to. */
static __always_inline int choose(__u64 number, struct frame *frame)
{
	__u64 turn = number;

	frame->step = 0;
	frame->stamp.run = config.run;
	if (config.flood) {
		__u64 before = number * config.flood >> FLOOD_SHIFT;

		if ((number + 1) * config.flood >> FLOOD_SHIFT != before) {
			frame->flood = 1;
			frame->stamp.run = config.run ^ FLOOD_MARK;
			frame->stamp.flow = config.flows + before;
			frame->stamp.sequence = 0;
			return 1;
		}
		turn -= before;
	}
	if (config.script == SCRIPT_CONNECTION) {
		__u64 behind;

		frame->step = number % CONNECTION_STEPS;
		turn = number / CONNECTION_STEPS;
		behind = (__u64)frame->step * config.window;
		if (turn < behind)
			return 0;
		turn -= behind;
	}
	if (config.drawn) {
		__u32 place = turn & config.draw_mask;
		__u32 *flow = bpf_map_lookup_elem(&draws, &place);
		__u32 *sequence = flow ? bpf_map_lookup_elem(&sequences, flow) : 0;

		if (!sequence)
			return 0;
		frame->stamp.flow = *flow;
		frame->stamp.sequence = (*sequence)++;
		return 1;
	}
	frame->stamp.flow = turn % config.flows;
	frame->stamp.sequence = turn / config.flows;
	if (config.script == SCRIPT_CONNECTION)
		frame->stamp.sequence = frame->stamp.sequence * CONNECTION_STEPS + frame->step;
	return 1;
}

static __always_inline __u64 sum_address(const __u8 *address)
{
	const __u32 *words = (const __u32 *)address;

	return config.family == 4 ? words[3] : (__u64)words[0] + words[1] + words[2] + words[3];
}

static __always_inline __u32 transport_header(void)
{
	if (config.protocol == IPPROTO_TCP)
		return TCP_HEADER;
	return config.protocol == IPPROTO_UDP ? UDP_HEADER : ICMP_HEADER;
}

static __always_inline void write_ip(__u8 *ip, __u16 length, const __u32 *client,
				     const struct target *target)
{
	__u32 *words = (__u32 *)ip;

	if (config.family == 4) {
		__u64 sum;

		words[0] = bpf_htonl(0x45000000u | length);
		words[1] = bpf_htonl(0x00004000u); /* may not be fragmented */
		words[2] = bpf_htonl(64u << 24 | (__u32)config.protocol << 16);
		words[3] = client[3];
		words[4] = ((const __u32 *)target->address)[3];
		sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
		*(__u16 *)(ip + 10) = ~fold(sum);
		return;
	}
	words[0] = bpf_htonl(0x60000000u);
	words[1] = bpf_htonl((__u32)(length - IPV6_HEADER) << 16 | (__u32)config.protocol << 8 | 64);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		words[2 + i] = client[i];
		words[6 + i] = ((const __u32 *)target->address)[i];
	}
}

/* Returns the sum over the header, with a checksum of 0; `payload` is in bytes. */
static __always_inline __u64 write_transport(__u8 *transport, __u16 port, __u16 target_port,
					     const struct frame *frame, __u16 payload)
{
	__u32 *words = (__u32 *)transport;

	if (config.protocol == IPPROTO_UDP) {
		words[0] = bpf_htonl((__u32)port << 16) | (__u32)target_port << 16;
		words[1] = bpf_htonl((__u32)(payload + UDP_HEADER) << 16);
		return (__u64)words[0] + words[1];
	}
	if (config.protocol == IPPROTO_TCP) {
		__u32 step = frame->step, flags = TCP_PSH | TCP_ACK;
		/* SYN and FIN take a number beside those of the payload. */
		__u32 sent = step * payload + (step > 0) + (step > 2);
		__u32 seen = (__u32)(payload + 1) * ((step > 0) + (step > 2));

		if (config.script == SCRIPT_SYN || frame->flood)
			flags = TCP_SYN;
		if (config.script == SCRIPT_CONNECTION)
			flags = step == 0 ? TCP_SYN : step == 2 ? TCP_FIN | TCP_ACK : TCP_ACK;
		if (config.script == SCRIPT_DATA && !frame->flood)
			sent = frame->stamp.sequence * payload;
		words[0] = bpf_htonl((__u32)port << 16) | (__u32)target_port << 16;
		words[1] = bpf_htonl(FIRST_SEQUENCE + sent);
		words[2] = bpf_htonl(FIRST_SEQUENCE + seen);
		words[3] = bpf_htonl(5u << 28 | flags << 16 | 0xffff);
		words[4] = 0;
		return (__u64)words[0] + words[1] + words[2] + words[3];
	}
	/* Echo requests: type 8 (RFC 792) or 128 (RFC 4443); the identifier is the client's port. */
	words[0] = bpf_htonl(config.family == 4 ? 8u << 24 : 128u << 24);
	words[1] = bpf_htonl((__u32)port << 16 | (frame->stamp.sequence & 0xffff));
	return (__u64)words[0] + words[1];
}

static __always_inline int write_frame(struct xdp_md *ctx, const struct frame *frame)
{
	__u8 *data = (__u8 *)(long)ctx->data, *end = (__u8 *)(long)ctx->data_end;
	__u32 network = config.family == 4 ? IPV4_HEADER : IPV6_HEADER;
	__u32 headers = ETHERNET_HEADER + network + transport_header();
	__u32 place = frame->stamp.flow % config.targets;
	struct target *target = bpf_map_lookup_elem(&targets, &place);
	__u32 tuple, key[4] = {config.key[0], config.key[1], config.key[2], config.key[3]};
	__u32 client[4], size = frame->size;
	const __u32 *stamp = (const __u32 *)&frame->stamp;
	__u8 *transport;
	__u16 check, payload = size - headers;
	__u64 sum;

	if (!target || data + headers + sizeof(struct stamp) > end)
		return -1;
	tuple = permute(frame->stamp.flow, config.client_bits + PORT_BITS, key);
#pragma unroll
	for (int i = 0; i < 4; i++)
		client[i] = ((const volatile __u32 *)config.clients)[i];
	client[3] |= bpf_htonl(tuple >> PORT_BITS);

#pragma unroll
	for (int i = 0; i < 6; i++) {
		data[i] = config.target_mac[i];
		data[6 + i] = config.source_mac[i];
	}
	*(__u16 *)(data + 12) = config.family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	write_ip(data + ETHERNET_HEADER, size - ETHERNET_HEADER, client, target);
	transport = data + ETHERNET_HEADER + network;
	sum = write_transport(transport, FIRST_PORT + (tuple & ((1 << PORT_BITS) - 1)), target->port,
			      frame, payload);
#pragma unroll
	for (int i = 0; i < 5; i++) {
		((__u32 *)(data + headers))[i] = stamp[i];
		sum += stamp[i];
	}
	/* The pseudo header, which ICMP has in IPv6 only. */
	if (config.protocol != IPPROTO_ICMP) {
		sum += sum_address((const __u8 *)client) + sum_address(target->address);
		sum += bpf_htonl(config.protocol);
		sum += bpf_htonl(size - ETHERNET_HEADER - network);
	}
	check = ~fold(sum);
	if (config.protocol == IPPROTO_TCP)
		*(__u16 *)(transport + 16) = check;
	else if (config.protocol == IPPROTO_UDP)
		*(__u16 *)(transport + 6) = check ? check : 0xffff;
	else
		*(__u16 *)(transport + 2) = check;
	return 0;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct frame frame = {};
	__u32 zero = 0;
	struct state *s = bpf_map_lookup_elem(&state, &zero);
	__u64 now, due, number, turn;

	if (!s || s->finished)
		return XDP_DROP;
	now = bpf_ktime_get_ns();
	if (!s->start)
		s->start = now;
	due = config.step ? s->start + (s->elapsed >> STEP_SHIFT) : now;
	if (due - s->start >= config.duration) {
		s->finished = 1;
		return XDP_DROP;
	}
	if (due > now)
		return XDP_DROP;
	if (config.step && now - due > config.burst) {
		__u64 frames = ((now - due) << STEP_SHIFT) / config.step;

		/*
		 * A step that is longer than the burst is always waited for. Time is leapt over, not
		 * numbers: a connection whose SYN was left out would be broken.
		 */
		if (frames) {
			s->left_out += frames;
			s->elapsed += frames * config.step;
			return XDP_DROP;
		}
	}
	number = config.first + s->frames * config.stride;
	s->frames++;
	s->elapsed += config.step;
	if (!choose(number, &frame))
		return XDP_DROP;
	turn = number % SIZES;
	/* The verifier does not know what a remainder is, and the compiler does. */
	asm volatile("" : "+r"(turn));
	if (turn >= SIZES)
		return XDP_DROP;
	frame.size = config.sizes[turn];
	frame.stamp.late = due;
	frame.stamp.early = due >> 32;
	if (frame.size != config.sizes[0] &&
	    bpf_xdp_adjust_tail(ctx, (int)frame.size - (int)config.sizes[0])) {
		s->failed++;
		return XDP_DROP;
	}
	if (write_frame(ctx, &frame)) {
		s->failed++;
		return XDP_DROP;
	}
	if (frame.flood) {
		s->flooded++;
		return XDP_TX;
	}
	s->sent++;
	s->bytes += frame.size;
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
