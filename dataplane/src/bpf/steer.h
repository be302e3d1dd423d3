/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keys and values of the maps that steer.bpf.c reads and the dataplane writes; src/xdp.rs writes
 * the same bytes. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, so that IPv6 needs no new maps.
 */
#ifndef SLUICE_STEER_H
#define SLUICE_STEER_H

#include <linux/types.h>

#define MAX_VIPS 65536
#define MAX_NODE_PORTS 262144
#define MAX_BACKENDS 262144
#define MAX_HOST_ADDRESSES 4096
#define MAX_INTERFACES 64
/* Sockets of one interface stand together in the XSKMAP, one for each receive queue. */
#define QUEUES_PER_INTERFACE 64

struct address {
	__u8 bytes[16];
};

struct endpoint {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 zero; /* a hash map compares every byte of a key, so none may be left to chance */
};

/* Both included, in host byte order. */
struct port_range {
	__u16 first;
	__u16 last;
};

enum steer_stat {
	STAT_REDIRECTED,
	STAT_PASSED,
	STAT_REDIRECT_FAILED,
	STATS,
};

#endif
