/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Settings and results of sink.bpf.c; src/sink/program.rs writes and reads the same bytes. */
#ifndef SLUICE_SINK_H
#define SLUICE_SINK_H

#include <linux/types.h>

/* Latencies in ns: 32 buckets for every power of two. */
#define SUB_BITS 5
#define BUCKETS 1920
#define COUNTERS 16

enum sink_action {
	SINK_DROP,
	SINK_REPLY, /* send TCP's SYN and FIN, and everything else, back as a server would */
};

struct sink_config {
	__u32 run;
	__u32 flows;         /* entries of `flows`; 0: sequence numbers are not looked at */
	__u32 check_mask;    /* sums of frames are checked whose sequence number has none of these bits */
	__u32 action;
	__u8 source[16];     /* network that packets must come from; IPv4 is ::ffff:a.b.c.d */
	__u8 destination[16];
	__u8 source_mask[16];
	__u8 destination_mask[16];
	__u32 destination_port; /* 0 is any */
	__u32 zero;
};

_Static_assert(sizeof(struct sink_config) == 88, "as in src/sink/program.rs");

struct flow {
	__u32 run;
	__u32 next;  /* sequence number */
	__u32 tuple; /* hash of addresses and ports as they arrived first */
	__u32 zero;
};

enum sink_counter {
	RECEIVED,
	BYTES,
	FOREIGN,       /* not the generator's, left to the kernel */
	CHECKED,       /* frames whose sums were checked */
	BAD_IP_SUM,
	BAD_SUM,       /* of the transport */
	WRONG_TUPLE,   /* not from or to where it should be */
	MOVED,         /* frames of a flow that changed its addresses or ports on the way */
	MISSING,       /* sequence numbers that were leapt over */
	LATE,          /* sequence numbers that had been leapt over, or came twice */
	REPLIED,
	LATENCY_SUM,   /* ns */
	LATENCY_MAX,   /* ns */
	FLOWS,         /* seen */
	FLOOD,         /* frames of the run's flood; in no other counter */
};

/* When new connections arrive at one address. Times are of CLOCK_MONOTONIC, in ns. */
struct sighting {
	__u32 address[4]; /* as in the headers; IPv4 is ::ffff:a.b.c.d */
	__u64 first;
	__u64 last;
};

struct results {
	__u64 counters[COUNTERS];
	__u64 buckets[BUCKETS];
};

#endif
