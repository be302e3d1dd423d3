/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Keys and values of the maps that steer.bpf.c reads and the dataplane writes; src/xdp/maps.rs
 * writes the same bytes. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, so that one map holds both
 * families.
 */
#ifndef SLUICE_STEER_H
#define SLUICE_STEER_H

#include <linux/types.h>

#define MAX_ADDRESSES 393216
#define MAX_ENDPOINTS 524288
#define MAX_PORT_PREFIXES 65536
#define MAX_NETWORKS 1024
#define MAX_INTERFACES 64
/* Sockets of one interface stand together in the XSKMAP, one for each receive queue. */
#define QUEUES_PER_INTERFACE 64
#define MAX_TAGS 2

struct address {
	__u8 bytes[16];
};

/* What an address is; several at once are possible. */
enum address_flag {
	ADDRESS_VIP = 1,     /* wholly ours */
	ADDRESS_HOST = 2,    /* the host's own */
	ADDRESS_PORTS = 4,   /* some of its ports are ours */
	ADDRESS_RANGES = 8,  /* some of these stand in `port_ranges` */
	ADDRESS_BACKEND = 16 /* a backend that sees clients' addresses */
};

/* Masquerade ports included, in host byte order; none when last is 0. */
struct address_use {
	__u16 flags;
	__u16 first;
	__u16 last;
};

/* In this order, a prefix of it is a range of ports. */
struct endpoint {
	struct address address;
	__u8 protocol;
	__u8 zero; /* a hash map compares every byte of a key, so none may be left to chance */
	__be16 port;
};

enum endpoint_flag {
	ENDPOINT_FRONTEND = 1,
	ENDPOINT_BACKEND = 2 /* port 0: every port */
};

/* Keys of the tries: `bits` of what follows count. */
struct network {
	__u32 bits;
	struct address address;
};

struct port_prefix {
	__u32 bits;
	struct endpoint end;
};

struct interface {
	__u16 sockets;        /* place of its queue 0 in `xsks` */
	__u16 tags[MAX_TAGS]; /* VLANs of its frames, outermost first; 0 is none */
};

enum steer_stat {
	STAT_REDIRECTED,
	STAT_PASSED,
	STAT_REDIRECT_FAILED,
	STATS,
};

#endif
