/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Settings and state of generate.bpf.c; src/generator/live.rs writes and reads the same bytes. */
#ifndef SLUICE_GENERATE_H
#define SLUICE_GENERATE_H

#include <linux/types.h>

#define SIZES 12

enum script {
	SCRIPT_DATA,       /* packets of flows that go on and on */
	SCRIPT_SYN,        /* the same with TCP's SYN */
	SCRIPT_CONNECTION, /* SYN, ACK, FIN, ACK: a client's side of a short connection */
};

struct config {
	__u8 target_mac[6];
	__u8 source_mac[6];
	__u8 family;   /* 4 or 6 */
	__u8 protocol; /* IANA's number */
	__u8 script;
	__u8 drawn;    /* flows come from `draws` instead of in turn */
	__u16 sizes[SIZES]; /* of frames, in turn; the first is the largest */
	__u32 run;
	__u32 key[4];
	__u8 clients[16]; /* first address; IPv4 in the last four bytes */
	__u32 client_bits;
	__u32 targets;     /* used entries of `targets` */
	__u32 draw_mask;
	__u32 window;      /* connections between two steps of one connection */
	__u32 flood;       /* of 2^16 frames so many are SYNs of ever new connections */
	__u64 flows;
	__u64 step;        /* between two frames, in ns / 2^16; 0 is as fast as possible */
	__u64 duration;    /* ns */
	__u64 burst;       /* ns that the generator may be behind before it leaves frames out */
	__u64 first;       /* number of this generator's first frame */
	__u64 stride;      /* generators that share the flows */
};

_Static_assert(sizeof(struct config) == 144, "as in src/generator/plan.rs");

struct target {
	__u8 address[16]; /* IPv4 in the last four bytes */
	__be16 port;
	__u16 zero;
};

struct state {
	__u64 start;    /* CLOCK_MONOTONIC, ns */
	__u64 elapsed;  /* intended time of the next frame since start, ns / 2^16 */
	__u64 frames;   /* numbers used so far */
	__u64 sent;
	__u64 bytes;
	__u64 left_out; /* frames less, because the generator itself was late */
	__u64 finished;
	__u64 failed;   /* a frame that could not be written: a mistake in settings */
	__u64 flooded;  /* SYNs of ever new connections; not among `sent` */
};

#endif
