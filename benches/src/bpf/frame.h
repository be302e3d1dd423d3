/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What generator and sink agree on: the stamp in every frame, and which client a flow is.
 * src/generator/ writes the same bytes in Rust; a test compares the two.
 */
#ifndef SLUICE_FRAME_H
#define SLUICE_FRAME_H

#include <linux/types.h>

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define UDP_HEADER 8
#define TCP_HEADER 20
#define ICMP_HEADER 8
#define ETHERNET_HEADER 14

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_PSH 0x08
#define TCP_ACK 0x10

/* Clients use ports (and echo identifiers) from here on. */
#define FIRST_PORT 32768
#define PORT_BITS 15

/* The first bytes behind the transport header, in host byte order: both ends are on one host. */
struct stamp {
	__u32 run;      /* tells runs apart, and our frames from others */
	__u32 flow;
	__u32 sequence; /* of the flow */
	__u32 late;     /* intended sending time, lower half; CLOCK_MONOTONIC in ns */
	__u32 early;    /* upper half */
} __attribute__((packed));

/*
 * A flood opens ever new connections beside the flows of a run; its frames carry the run's number
 * with this bit turned.
 */
#define FLOOD_MARK 2

/* One round function of the permutation below: 32 well-mixed bits. */
static __always_inline __u32 mix(__u32 value, __u32 key)
{
	value = (value ^ key) * 0x9e3779b1u;
	value ^= value >> 15;
	value *= 0x85ebca77u;
	return value ^ (value >> 13);
}

/*
 * A keyed permutation of the numbers below 2^bits: a Feistel network with halves of bits / 2 and
 * the rest, that change places after every round, so that four rounds restore them.
 */
static __always_inline __u32 permute(__u32 value, __u32 bits, const __u32 *key)
{
	__u32 low_bits = bits / 2, high_bits = bits - low_bits;
	__u32 low = value & ((1ull << low_bits) - 1), high = (__u64)value >> low_bits;

#pragma unroll
	for (int round = 0; round < 4; round++) {
		__u32 next = high ^ (mix(low, key[round]) & ((1ull << high_bits) - 1));
		__u32 width = low_bits;

		high = low;
		low = next;
		low_bits = high_bits;
		high_bits = width;
	}
	return (__u64)high << low_bits | low;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#endif
