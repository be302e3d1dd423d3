// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Is this frame ours? Then to the AF_XDP socket of its queue, else on to the kernel.
 *
 * There is no cheap way back from an AF_XDP socket into the kernel, so everything that headers can
 * decide is decided here. Frames whose VLAN tags are not those of their interface always pass, and
 * so do frames to a group of stations (nobody routes them), but for the questions below.
 *
 * Ours is, of IPv4 and IPv6 alike,
 *  - an ARP packet or a neighbour solicitation whose target is a Vip,
 *  - a packet to a Vip or into a network of Services, of every protocol and every fragment,
 *  - TCP, UDP and SCTP to a node port, or to a masquerade address and its port range,
 *  - TCP, UDP and SCTP from and to a backend that sees clients' addresses, unless the other end is
 *    the host itself: the host's own connections to a backend must go on working,
 *  - an ICMP error about a packet that goes the other way: what it quotes decides.
 *
 * Only the first fragment of a packet has ports. Later ones are ours when the addresses leave it
 * possible: to an address that has ports of ours, from or to a backend as above.
 *
 * `Filter::owns` of src/steer.rs says the same in Rust.
 */
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

/* struct iphdr.frag_off: 13 bits of offset below three flags (RFC 791, 3.1). */
#define FRAGMENT_OFFSET 0x1fff
/* struct fragment.offset: 13 bits of offset above three others (RFC 8200, 4.5). */
#define FRAGMENT6_OFFSET 0xfff8
/* How many extension headers are walked, and how many bytes of them. */
#define MAX_EXTENSIONS 8
#define MAX_EXTENSION_BYTES 256
/* No frame has headers so deep: two tags, two sets of IP headers, ICMP. */
#define MAX_OFFSET 1024
/* Neighbour solicitation (RFC 4861, 4.3). */
#define NDP_SOLICITATION 135
/* The identifier in a tag, below priority and drop eligibility (IEEE 802.1Q, 9.6). */
#define TAG_ID 0x0fff

struct tag {
	__be16 control;
	__be16 type; /* of what follows */
};

struct arp_ipv4 {
	struct arphdr header;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

/* The first 8 bytes of any other extension header have the first two fields, too. */
struct fragment {
	__u8 next;
	__u8 reserved; /* the length in others */
	__be16 offset;
	__be32 identification;
};

struct solicitation {
	struct icmp6hdr header;
	struct address target;
};

struct ports {
	__be16 source;
	__be16 destination;
};

/* A packet of either family, as far as its IP headers tell. */
struct packet {
	struct endpoint source;
	struct endpoint destination;
	__u8 protocol;
	bool later_fragment;
};

/* Per CPU, and XDP of one CPU does not interrupt itself: no atomic needed. */
static __always_inline void count(__u32 stat)
{
	__u64 *counter = bpf_map_lookup_elem(&steer_stats, &stat);

	if (counter)
		*counter += 1;
}

static __always_inline struct address mapped(const void *ipv4)
{
	struct address address = { .bytes = { [10] = 0xff, [11] = 0xff } };

	__builtin_memcpy(&address.bytes[12], ipv4, 4);
	return address;
}

static __always_inline struct address_use use_of(const struct address *address)
{
	struct address_use *use = bpf_map_lookup_elem(&addresses, address);
	struct address_use unknown = {};

	return use ? *use : unknown;
}

static __always_inline bool is_vip(const struct address *address)
{
	return use_of(address).flags & ADDRESS_VIP;
}

static __always_inline bool is_known(const struct endpoint *end, __u8 flag)
{
	__u8 *flags = bpf_map_lookup_elem(&endpoints, end);

	return flags && *flags & flag;
}

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* Whether the dataplane sends packets from this address and port. */
static __always_inline bool is_our_end(struct address_use use, const struct endpoint *end)
{
	struct port_prefix key = { .bits = sizeof(*end) * 8, .end = *end };
	__u16 port = bpf_ntohs(end->port);

	if (!(use.flags & ADDRESS_PORTS))
		return false;
	if (use.last && port >= use.first && port <= use.last)
		return true;
	if (is_known(end, ENDPOINT_FRONTEND))
		return true;
	return use.flags & ADDRESS_RANGES && bpf_map_lookup_elem(&port_ranges, &key);
}

static __always_inline bool is_backend(struct address_use use, const struct endpoint *end)
{
	struct endpoint every_port = *end;

	if (!(use.flags & ADDRESS_BACKEND))
		return false;
	every_port.port = 0;
	return is_known(end, ENDPOINT_BACKEND) || is_known(&every_port, ENDPOINT_BACKEND);
}

static __always_inline bool is_service_network(const struct address *address)
{
	struct network key = { .bits = sizeof(*address) * 8, .address = *address };

	return bpf_map_lookup_elem(&networks, &key);
}

/*
 * Whether addresses and ports make a packet ours; `use` is what its destination's address is.
 * Not static, so that the verifier goes through it once and not once for every way that leads here.
 */
__noinline int ends_are_ours(const struct packet *packet, const struct address_use *use)
{
	struct address_use source, destination;

	if (!packet || !use)
		return false;
	source = use_of(&packet->source.address);
	destination = *use;
	if (packet->later_fragment) {
		if (destination.flags & ADDRESS_PORTS)
			return true;
	} else if (is_our_end(destination, &packet->destination)) {
		return true;
	}
	if ((source.flags | destination.flags) & ADDRESS_HOST)
		return false;
	if (packet->later_fragment)
		return !!((source.flags | destination.flags) & ADDRESS_BACKEND);
	return is_backend(source, &packet->source) ||
	       is_backend(destination, &packet->destination);
}

/*
 * The verifier needs each access compared with data_end on the very pointer that is used.
 * These return where the packet goes on behind the headers, or NULL when they are not whole.
 */
static __always_inline void *read_ipv4(struct iphdr *ip, void *data_end, struct packet *packet)
{
	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5)
		return NULL;
	packet->source.address = mapped(&ip->saddr);
	packet->destination.address = mapped(&ip->daddr);
	packet->protocol = ip->protocol;
	packet->later_fragment = !!(ip->frag_off & bpf_htons(FRAGMENT_OFFSET));
	return (void *)ip + ip->ihl * 4;
}

static __always_inline void *read_ipv6(struct ipv6hdr *ip, void *data_end, struct packet *packet)
{
	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return NULL;
	__builtin_memcpy(&packet->source.address, &ip->saddr, sizeof(struct address));
	__builtin_memcpy(&packet->destination.address, &ip->daddr, sizeof(struct address));
	packet->protocol = ip->nexthdr;
	packet->later_fragment = false;
	return ip + 1;
}

/*
 * Walks IPv6 extension headers from `offset` to the header that is none; the protocol becomes its
 * number. Returns where it starts, or less than 0. Not static for the same reason as above.
 */
__noinline int behind_extensions(struct xdp_md *ctx, __u32 offset, struct packet *packet)
{
	__u32 limit = offset + MAX_EXTENSION_BYTES;
	struct fragment header;

	if (!packet)
		return -1;
	for (int i = 0; i <= MAX_EXTENSIONS && offset <= limit; i++) {
		__u8 kind = packet->protocol;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING &&
		    kind != IPPROTO_DSTOPTS && kind != IPPROTO_FRAGMENT)
			return offset;
		if (bpf_xdp_load_bytes(ctx, offset, &header, sizeof(header)))
			return -1;
		packet->protocol = header.next;
		if (kind != IPPROTO_FRAGMENT) {
			/* In units of 8 bytes, the first not counted (RFC 8200, 4.3). */
			offset += (header.reserved + 1) * 8;
			continue;
		}
		offset += sizeof(header);
		packet->later_fragment = !!(header.offset & bpf_htons(FRAGMENT6_OFFSET));
		if (packet->later_fragment)
			return offset;
	}
	return -1;
}

/* As above, for a pointer into the frame. */
static __always_inline void *skip_extensions(struct xdp_md *ctx, void *start, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	/* What is less than 0 is too large here. */
	__u32 offset = behind_extensions(ctx, start - data, packet);

	return offset > MAX_OFFSET ? NULL : data + offset;
}

static __always_inline void set_ports(struct packet *packet, __be16 source, __be16 destination)
{
	packet->source.port = source;
	packet->destination.port = destination;
	packet->source.protocol = packet->protocol;
	packet->destination.protocol = packet->protocol;
}

/*
 * An ICMP error quotes the packet it is about, so the ends stand the other way round. `receiver` is
 * what the address is that the error goes to.
 */
static __always_inline bool quoted_is_ours(struct packet *quoted, struct address_use receiver,
					   struct ports *ports, void *data_end)
{
	struct packet answer = { .source = quoted->destination, .destination = quoted->source };
	struct address_use destination;

	if ((void *)(ports + 1) > data_end || !has_ports(quoted->protocol) ||
	    quoted->later_fragment)
		return false;
	answer.protocol = quoted->protocol;
	set_ports(&answer, ports->destination, ports->source);
	destination = use_of(&answer.destination.address);
	destination.flags |= receiver.flags & ADDRESS_HOST;
	return ends_are_ours(&answer, &destination);
}

static __always_inline bool icmp_is_ours(struct icmphdr *icmp, struct address_use receiver,
					 void *data_end)
{
	struct packet quoted = {};
	void *payload;

	if ((void *)(icmp + 1) > data_end)
		return false;
	if (icmp->type != ICMP_DEST_UNREACH && icmp->type != ICMP_TIME_EXCEEDED &&
	    icmp->type != ICMP_PARAMETERPROB)
		return false;
	payload = read_ipv4((void *)(icmp + 1), data_end, &quoted);
	return payload && quoted_is_ours(&quoted, receiver, payload, data_end);
}

static __always_inline bool icmpv6_is_ours(struct xdp_md *ctx, struct icmp6hdr *icmp,
					   struct address_use receiver)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct packet quoted = {};
	void *payload;

	if ((void *)(icmp + 1) > data_end || icmp->icmp6_type < ICMPV6_DEST_UNREACH ||
	    icmp->icmp6_type > ICMPV6_PARAMPROB)
		return false;
	payload = read_ipv6((void *)(icmp + 1), data_end, &quoted);
	if (payload)
		payload = skip_extensions(ctx, payload, &quoted);
	return payload && quoted_is_ours(&quoted, receiver, payload, data_end);
}

/* A packet that its addresses alone have not made ours. */
static __always_inline bool payload_is_ours(struct xdp_md *ctx, struct packet *packet,
					    struct address_use destination, void *payload,
					    bool is_ipv6)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ports *ports;

	if (is_ipv6)
		payload = skip_extensions(ctx, payload, packet);
	if (!payload)
		return false;
	ports = payload;
	if (packet->later_fragment)
		return has_ports(packet->protocol) && ends_are_ours(packet, &destination);
	if (packet->protocol == IPPROTO_ICMP && !is_ipv6)
		return icmp_is_ours(payload, destination, data_end);
	if (packet->protocol == IPPROTO_ICMPV6 && is_ipv6)
		return icmpv6_is_ours(ctx, payload, destination);
	if (!has_ports(packet->protocol) || (void *)(ports + 1) > data_end)
		return false;
	set_ports(packet, ports->source, ports->destination);
	return ends_are_ours(packet, &destination);
}

static __always_inline bool solicitation_is_ours(struct solicitation *ask, void *data_end)
{
	struct address target;

	if ((void *)(ask + 1) > data_end || ask->header.icmp6_type != NDP_SOLICITATION)
		return false;
	target = ask->target;
	return is_vip(&target);
}

static __always_inline bool arp_is_ours(struct arp_ipv4 *arp, void *data_end)
{
	struct address target;

	if ((void *)(arp + 1) > data_end || arp->header.ar_pro != bpf_htons(ETH_P_IP) ||
	    arp->header.ar_hln != ETH_ALEN || arp->header.ar_pln != sizeof(arp->target))
		return false;
	target = mapped(arp->target);
	return is_vip(&target);
}

static __always_inline bool ip_is_ours(struct xdp_md *ctx, void *ip, bool is_ipv6, bool to_group)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct packet packet = {};
	struct address_use destination;
	void *payload;

	if (is_ipv6)
		payload = read_ipv6(ip, data_end, &packet);
	else
		payload = read_ipv4(ip, data_end, &packet);
	if (!payload)
		return false;
	if (to_group)
		return is_ipv6 && packet.protocol == IPPROTO_ICMPV6 &&
		       solicitation_is_ours(payload, data_end);
	destination = use_of(&packet.destination.address);
	if (destination.flags & ADDRESS_VIP)
		return true;
	if (payload_is_ours(ctx, &packet, destination, payload, is_ipv6))
		return true;
	return !(destination.flags & ADDRESS_HOST) && is_service_network(&packet.destination.address);
}

/* Steps over the tags of the interface; NULL when the frame has others or too few. */
static __always_inline void *behind_tags(struct ethhdr *ethernet, void *data_end,
					 const struct interface *interface, __be16 *type)
{
	struct tag *tag = (void *)(ethernet + 1);

	if ((void *)tag > data_end)
		return NULL;
	*type = ethernet->h_proto;
	for (int i = 0; i < MAX_TAGS; i++) {
		if (!interface->tags[i])
			return tag;
		if (*type != bpf_htons(ETH_P_8021Q) && (i || *type != bpf_htons(ETH_P_8021AD)))
			return NULL;
		if ((void *)(tag + 1) > data_end ||
		    (bpf_ntohs(tag->control) & TAG_ID) != interface->tags[i])
			return NULL;
		*type = tag->type;
		tag++;
	}
	return tag;
}

static __always_inline bool is_ours(struct xdp_md *ctx, const struct interface *interface)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__be16 type = 0;
	void *packet = behind_tags(ethernet, data_end, interface, &type);

	if (!packet)
		return false;
	if (type == bpf_htons(ETH_P_IP) || type == bpf_htons(ETH_P_IPV6))
		return ip_is_ours(ctx, packet, type == bpf_htons(ETH_P_IPV6), ethernet->h_dest[0] & 1);
	return type == bpf_htons(ETH_P_ARP) && arp_is_ours(packet, data_end);
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	__u32 index = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &index);
	long action = XDP_DROP;

	if (!interface || !is_ours(ctx, interface)) {
		count(STAT_PASSED);
		return XDP_PASS;
	}
	/*
	 * A frame that is ours and finds no socket is dropped, not passed: the kernel would answer
	 * a connection of ours with a reset, or route the frame on and let it circle. A client
	 * repeats what was dropped. The last argument of the redirect is the action for an empty
	 * place in the map.
	 */
	if (queue < QUEUES_PER_INTERFACE)
		action = bpf_redirect_map(&xsks, interface->sockets + queue, XDP_DROP);
	count(action == XDP_REDIRECT ? STAT_REDIRECTED : STAT_REDIRECT_FAILED);
	return action;
}

/* The kernel lends some helpers to GPL-compatible programs only and knows this spelling. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
