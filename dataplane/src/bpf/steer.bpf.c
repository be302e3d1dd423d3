// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Is this frame ours? Then to the AF_XDP socket of its queue, else on to the kernel.
 *
 * There is no cheap way back from an AF_XDP socket into the kernel, so everything that headers can
 * decide is decided here. IPv6 and VLAN-tagged frames always pass.
 *
 * Ours is
 *  - ARP whose target is a Vip,
 *  - IPv4 to a Vip, every protocol and every fragment,
 *  - TCP and UDP to a node port,
 *  - TCP and UDP to a masquerade address and its port range,
 *  - TCP and UDP from a backend of a Service that keeps the client's address, unless it is for the
 *    host itself: the host's own connections to a backend must go on working,
 *  - ICMP errors about one of the packets above: what they quote decides.
 *
 * Only the first fragment of a packet has ports, so other fragments that are not for a Vip pass.
 */
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "steer.h"

/* struct iphdr.frag_off: 13 bits of offset below three flags (RFC 791, 3.1). */
#define FRAGMENT_OFFSET 0x1fff

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct address);
	__type(value, __u8);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_NODE_PORTS);
	__type(key, struct endpoint);
	__type(value, __u8);
} node_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_HOST_ADDRESSES);
	__type(key, struct address);
	__type(value, struct port_range);
} masquerade SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, struct endpoint);
	__type(value, __u8);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_HOST_ADDRESSES);
	__type(key, struct address);
	__type(value, __u8);
} host_addresses SEC(".maps");

/* Interface index to the place of its queue 0 in `xsks`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, __u32);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_INTERFACES * QUEUES_PER_INTERFACE);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATS);
	__type(key, __u32);
	__type(value, __u64);
} steer_stats SEC(".maps");

struct arp_ipv4 {
	struct arphdr header;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
} __attribute__((packed));

struct ports {
	__be16 source;
	__be16 destination;
};

/* Per CPU, and XDP of one CPU does not interrupt itself: no atomic needed. */
static __always_inline void count(__u32 stat)
{
	__u64 *counter = bpf_map_lookup_elem(&steer_stats, &stat);

	if (counter)
		*counter += 1;
}

static __always_inline struct address mapped(__be32 ipv4)
{
	struct address address = { .bytes = { [10] = 0xff, [11] = 0xff } };

	__builtin_memcpy(&address.bytes[12], &ipv4, sizeof(ipv4));
	return address;
}

static __always_inline struct endpoint endpoint(__be32 ipv4, __be16 port, __u8 protocol)
{
	struct endpoint endpoint = {
		.address = mapped(ipv4),
		.port = port,
		.protocol = protocol,
	};

	return endpoint;
}

static __always_inline bool is_vip(__be32 ipv4)
{
	struct address address = mapped(ipv4);

	return bpf_map_lookup_elem(&vips, &address);
}

/* Whether the dataplane sends packets from this address and port. */
static __always_inline bool is_our_end(__be32 ipv4, __be16 port, __u8 protocol)
{
	struct endpoint node_port = endpoint(ipv4, port, protocol);
	struct port_range *range;

	if (bpf_map_lookup_elem(&node_ports, &node_port))
		return true;
	range = bpf_map_lookup_elem(&masquerade, &node_port.address);
	return range && bpf_ntohs(port) >= range->first && bpf_ntohs(port) <= range->last;
}

/* `destination` is where the packet goes, the rest is the end that may be a backend. */
static __always_inline bool is_backend(__be32 destination, __be32 ipv4, __be16 port, __u8 protocol)
{
	struct endpoint backend = endpoint(ipv4, port, protocol);
	struct address host = mapped(destination);

	return bpf_map_lookup_elem(&backends, &backend) &&
	       !bpf_map_lookup_elem(&host_addresses, &host);
}

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* The verifier needs each access compared with data_end on the very pointer that is used. */
static __always_inline void *after_ip(struct iphdr *ip, void *data_end)
{
	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5)
		return NULL;
	return (void *)ip + ip->ihl * 4;
}

/* An ICMP error quotes the packet it is about, so the ends stand the other way round. */
static __always_inline bool icmp_is_ours(struct icmphdr *icmp, __be32 destination, void *data_end)
{
	struct iphdr *quoted = (void *)(icmp + 1);
	struct ports *ports;

	if ((void *)quoted > data_end)
		return false;
	if (icmp->type != ICMP_DEST_UNREACH && icmp->type != ICMP_TIME_EXCEEDED &&
	    icmp->type != ICMP_PARAMETERPROB)
		return false;
	ports = after_ip(quoted, data_end);
	if (!ports || (void *)(ports + 1) > data_end || !has_ports(quoted->protocol) ||
	    quoted->frag_off & bpf_htons(FRAGMENT_OFFSET))
		return false;
	return is_our_end(quoted->saddr, ports->source, quoted->protocol) ||
	       is_backend(destination, quoted->daddr, ports->destination, quoted->protocol);
}

static __always_inline bool ipv4_is_ours(struct iphdr *ip, void *data_end)
{
	void *payload = after_ip(ip, data_end);
	struct ports *ports = payload;

	if (!payload)
		return false;
	if (is_vip(ip->daddr))
		return true;
	if (ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
		return false;
	if (ip->protocol == IPPROTO_ICMP)
		return icmp_is_ours(payload, ip->daddr, data_end);
	if (!has_ports(ip->protocol) || (void *)(ports + 1) > data_end)
		return false;
	return is_our_end(ip->daddr, ports->destination, ip->protocol) ||
	       is_backend(ip->daddr, ip->saddr, ports->source, ip->protocol);
}

static __always_inline bool arp_is_ours(struct arp_ipv4 *arp, void *data_end)
{
	__be32 target;

	if ((void *)(arp + 1) > data_end || arp->header.ar_pro != bpf_htons(ETH_P_IP) ||
	    arp->header.ar_hln != ETH_ALEN || arp->header.ar_pln != sizeof(target))
		return false;
	__builtin_memcpy(&target, arp->target, sizeof(target));
	return is_vip(target);
}

static __always_inline bool is_ours(void *data, void *data_end)
{
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > data_end)
		return false;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return ipv4_is_ours((void *)(ethernet + 1), data_end);
	if (ethernet->h_proto == bpf_htons(ETH_P_ARP))
		return arp_is_ours((void *)(ethernet + 1), data_end);
	return false;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	__u32 interface = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	__u32 *base;
	long action = XDP_DROP;

	if (!is_ours((void *)(long)ctx->data, (void *)(long)ctx->data_end)) {
		count(STAT_PASSED);
		return XDP_PASS;
	}
	/*
	 * A frame that is ours and finds no socket is dropped, not passed: the kernel would answer
	 * a connection of ours with a reset, or route the frame on and let it circle. A client
	 * repeats what was dropped. The last argument of the redirect is the action for an empty
	 * place in the map.
	 */
	base = bpf_map_lookup_elem(&interfaces, &interface);
	if (base && queue < QUEUES_PER_INTERFACE)
		action = bpf_redirect_map(&xsks, *base + queue, XDP_DROP);
	count(action == XDP_REDIRECT ? STAT_REDIRECTED : STAT_REDIRECT_FAILED);
	return action;
}

/* The kernel lends some helpers to GPL-compatible programs only and knows this spelling. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
