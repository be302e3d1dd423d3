//! The rules that kube-proxy 1.35 programs in nftables mode for LoadBalancer Services: verdict maps,
//! a random number for the endpoint, everything from outside masqueraded
//! (pkg/proxy/nftables/proxier.go). Only names are shorter.
//!
//! kube-proxy writes an anonymous map into every Service's chain. To find a name for another one the
//! kernel looks at all (`nf_tables_set_alloc_name` of net/netfilter/nf_tables_api.c), which takes
//! more than a minute for ten thousand. Above [`MOST_ANONYMOUS`] Services the maps have names: a
//! packet finds the same map in the same place.

use std::fmt::Write as _;
use std::ops::Range;

use super::super::rig::{BACKEND_PORT, BACKENDS, PORT, SPARES, backend, vip};
use super::{POD_NETWORK, SERVICE_NETWORK, cluster_ip};

/// Services with anonymous maps.
const MOST_ANONYMOUS: u32 = 1000;

/// For `services` Services, as `nft -f` reads it.
pub(super) fn rules(services: u32, protocol: &str) -> String {
    let (mut chains, mut addresses, mut elements) = (String::new(), Vec::new(), Vec::new());
    for service in 0..services {
        let own = cluster_ip(service);
        addresses.push(own.to_string());
        elements.push(format!(
            "{own} . {protocol} . {PORT} : goto service-{service}"
        ));
        let vip = vip(service);
        elements.push(format!(
            "{vip} . {protocol} . {PORT} : goto external-{service}"
        ));
        write_service(&mut chains, service, protocol, has_names(services));
    }
    let (addresses, elements) = (addresses.join(", "), elements.join(", "));
    format!(
        "table ip kube-proxy {{
        chain mark-for-masquerade {{
            meta mark set meta mark | 0x00004000
        }}
        {chains}
        {SETS}
        set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}
        map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
        {CHAINS}
        chain cluster-ips-check {{
            ip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
            ip daddr {SERVICE_NETWORK} drop comment \"Drop traffic to unallocated ClusterIPs\"
        }}
        {HOOKS}
        }}\n"
    )
}

/// Whether the maps of so many Services have names.
pub fn has_names(services: u32) -> bool {
    services > MOST_ANONYMOUS
}

/// The rules of an endpoint's chain.
pub fn of_endpoint(number: u8, protocol: &str) -> [String; 2] {
    let address = backend(number);
    [
        format!("ip saddr {address} jump mark-for-masquerade"),
        format!("meta l4proto {protocol} dnat to {address}:{BACKEND_PORT}"),
    ]
}

/// The rules of a Service's chain that chooses among so many endpoints, by its own map if that has
/// a name.
pub fn of_service(service: u32, endpoints: u8, named: bool) -> [String; 2] {
    let own = cluster_ip(service);
    let map = if named {
        format!("@choices-{service}")
    } else {
        choices(service, 0..endpoints)
    };
    [
        format!("ip daddr {own} ip saddr != {POD_NETWORK} jump mark-for-masquerade"),
        format!("numgen random mod {endpoints} vmap {map}"),
    ]
}

/// Elements of a Service's map: endpoints by their numbers.
pub fn choices(service: u32, endpoints: Range<u8>) -> String {
    let each = endpoints.map(|number| format!("{number} : goto endpoint-{service}-{number}"));
    format!("{{ {} }}", each.collect::<Vec<_>>().join(", "))
}

/// The chains of one Service.
fn write_service(chains: &mut String, service: u32, protocol: &str, named: bool) {
    for number in 0..BACKENDS {
        let [local, translation] = of_endpoint(number, protocol);
        // Writing to a String cannot fail.
        let _ = write!(
            chains,
            "chain endpoint-{service}-{number} {{
            {local}
            {translation}
            }}\n"
        );
    }
    if named {
        // Room for endpoints that come while the peer runs.
        let _ = writeln!(
            chains,
            "map choices-{service} {{ typeof numgen random mod {BACKENDS} : verdict; \
             size {}; elements = {}; }}",
            BACKENDS + SPARES,
            choices(service, 0..BACKENDS)
        );
    }
    let [own, choice] = of_service(service, BACKENDS, named);
    let _ = write!(
        chains,
        "chain service-{service} {{
            {own}
            {choice}
        }}
        chain external-{service} {{
            jump mark-for-masquerade
            goto service-{service}
        }}\n"
    );
}

const SETS: &str = "
        set nodeport-ips { type ipv4_addr; elements = { 192.0.2.1 }; }
        map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
        map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
        map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
        map service-nodeports { type inet_proto . inet_service : verdict; }";

const CHAINS: &str = "
        chain nodeport-endpoints-check {
            ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
        }
        chain service-endpoints-check {
            ip daddr . meta l4proto . th dport vmap @no-endpoint-services
        }
        chain firewall-check {
            ip daddr . meta l4proto . th dport vmap @firewall-ips
        }
        chain services {
            ip daddr . meta l4proto . th dport vmap @service-ips
            ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
        }
        chain masquerading {
            meta mark & 0x00004000 == 0x00000000 return
            meta mark set meta mark ^ 0x00004000
            masquerade fully-random
        }";

const HOOKS: &str = "
        chain filter-prerouting-pre-dnat {
            type filter hook prerouting priority dstnat - 10; policy accept;
            ct state new jump firewall-check
        }
        chain filter-output-pre-dnat {
            type filter hook output priority -110; policy accept;
            ct state new jump firewall-check
        }
        chain filter-input {
            type filter hook input priority filter; policy accept;
            ct state new jump nodeport-endpoints-check
            ct state new jump service-endpoints-check
        }
        chain filter-forward {
            type filter hook forward priority filter; policy accept;
            ct state new jump service-endpoints-check
            ct state new jump cluster-ips-check
        }
        chain filter-output {
            type filter hook output priority filter; policy accept;
            ct state new jump service-endpoints-check
            ct state new jump cluster-ips-check
        }
        chain nat-prerouting {
            type nat hook prerouting priority dstnat; policy accept;
            jump services
        }
        chain nat-output {
            type nat hook output priority -100; policy accept;
            jump services
        }
        chain nat-postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            jump masquerading
        }";

#[cfg(test)]
mod tests {
    use super::*;

    /// A LoadBalancer Service and the chains around it as kube-proxy 1.35 wrote them on a cluster
    /// (`nft list ruleset`); `reject-chain` and maps' contents left out.
    const REAL: &str = include_str!("kube-proxy-nftables.txt");

    /// A line without what differs from Service to Service and from cluster to cluster.
    fn shape(line: &str) -> String {
        let words = line.split_whitespace().map(|word| {
            let bare = word.trim_matches([',', ';']);
            let name = ["endpoint-", "service-", "external-"].iter().find(|start| {
                bare.starts_with(**start) && bare.contains(|c: char| c.is_ascii_digit())
            });
            match name {
                Some(start) => (*start).to_owned(),
                None if bare.starts_with(|c: char| c.is_ascii_digit()) && bare.contains('.') => {
                    "ADDRESS".to_owned()
                }
                None => bare.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn lines(text: &str) -> Vec<String> {
        let rules = text.lines().map(shape);
        let declared = |line: &String| {
            [
                "table",
                "set ",
                "map ",
                "comment",
                "type ipv4",
                "type inet",
                "elements",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        };
        let mut rules: Vec<String> = rules
            .filter(|line| line.len() > 1 && !declared(line))
            .collect();
        rules.sort();
        rules
    }

    #[test]
    fn rules_have_the_shape_of_what_kube_proxy_writes() {
        assert_eq!(lines(&rules(1, "tcp")), lines(REAL));
    }

    #[test]
    fn every_service_has_its_chains_and_its_elements() {
        let text = rules(3, "udp");
        for service in 0..3 {
            for wanted in [
                format!("{} . udp . 80 : goto external-{service}", vip(service)),
                format!(
                    "{} . udp . 80 : goto service-{service}",
                    cluster_ip(service)
                ),
                format!("chain external-{service} {{"),
                format!("chain endpoint-{service}-3 {{"),
            ] {
                assert_eq!(text.matches(&wanted).count(), 1, "{wanted}");
            }
        }
        assert!(!text.contains("external-3"));
    }

    #[test]
    fn maps_have_names_when_there_are_very_many() {
        let (few, many) = (
            rules(MOST_ANONYMOUS, "tcp"),
            rules(MOST_ANONYMOUS + 1, "tcp"),
        );
        assert_eq!(few.matches("vmap { 0 : goto").count(), 1000);
        assert_eq!(many.matches("vmap @choices-").count(), 1001);
        assert_eq!(many.matches("\nmap choices-").count(), 1001);
    }
}
