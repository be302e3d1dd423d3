//! The chains that kube-proxy 1.35 programs in iptables mode for LoadBalancer Services
//! (pkg/proxy/iptables/proxier.go), for the kernel's own iptables, which looks at one rule after the
//! other. `iptables-nft` would have the same rules walked by nftables.
//!
//! Names of chains are numbers instead of hashes, of the same length. There are no counters of
//! nfacct, which kube-proxy leaves out as well where they cannot be made.

use std::fmt::Write as _;

use super::super::rig::{BACKEND_PORT, BACKENDS, PORT, backend, vip};
use super::{POD_NETWORK, cluster_ip};

/// Reads rules.
pub(super) const RESTORE: &str = "iptables-legacy-restore";

/// Tables without rules.
pub(super) const NONE: &str = "*mangle\nCOMMIT\n*filter\nCOMMIT\n*nat\nCOMMIT\n";

/// For `services` Services, as `iptables-restore` reads it.
pub(super) fn rules(services: u32, protocol: &str) -> String {
    let (mut names, mut rules) = (String::new(), String::new());
    for service in 0..services {
        write_service(&mut names, &mut rules, service, protocol);
    }
    format!(
        "*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n\
         *filter\n{FILTER}COMMIT\n\
         *nat\n{NAT_CHAINS}{names}{NAT}{rules}{LAST}COMMIT\n"
    )
}

/// Chains and rules of one Service. Writing to a String cannot fail.
fn write_service(names: &mut String, rules: &mut String, service: u32, protocol: &str) {
    let (vip, own, name) = (
        vip(service),
        cluster_ip(service),
        format!("default/s{service}:p"),
    );
    let id = format!("{service:016}");
    let _ = write!(names, ":KUBE-EXT-{id} - [0:0]\n:KUBE-SVC-{id} - [0:0]\n");
    let port = |what: &str| {
        format!("-p {protocol} -m comment --comment \"{name} {what}\" -m {protocol} --dport {PORT}")
    };
    let (own_port, vip_port) = (port("cluster IP"), port("loadbalancer IP"));
    let _ = write!(
        rules,
        "-A KUBE-SERVICES -d {own}/32 {own_port} -j KUBE-SVC-{id}\n\
         -A KUBE-SERVICES -d {vip}/32 {vip_port} -j KUBE-EXT-{id}\n\
         -A KUBE-EXT-{id} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ\n\
         -A KUBE-EXT-{id} -j KUBE-SVC-{id}\n\
         -A KUBE-SVC-{id} ! -s {POD_NETWORK} -d {own}/32 {own_port} -j KUBE-MARK-MASQ\n"
    );
    for number in 0..BACKENDS {
        let (address, end) = (
            backend(number),
            format!("KUBE-SEP-{service:014}{number:02}"),
        );
        let left = BACKENDS - number;
        let chance = if left > 1 {
            // As kube-proxy rounds it.
            format!(
                "-m statistic --mode random --probability {:.10} ",
                1.0 / f64::from(left)
            )
        } else {
            String::new()
        };
        let _ = writeln!(names, ":{end} - [0:0]");
        let _ = write!(
            rules,
            "-A KUBE-SVC-{id} -m comment --comment \"{name} -> {address}:{BACKEND_PORT}\" {chance}-j {end}\n\
             -A {end} -s {address}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ\n\
             -A {end} -p {protocol} -m comment --comment \"{name}\" -m {protocol} -j DNAT --to-destination {address}:{BACKEND_PORT}\n"
        );
    }
}

const FILTER: &str = "\
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
";

const NAT_CHAINS: &str = "\
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
";

const NAT: &str = "\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
";

const LAST: &str = "\
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
";

#[cfg(test)]
mod tests {
    use super::*;

    /// A LoadBalancer Service and the chains around it as kube-proxy 1.35 wrote them on a cluster
    /// (`iptables-save`), without counters of nfacct, node ports and the kubelet's chain.
    const REAL: &str = include_str!("kube-proxy-iptables.txt");

    /// A line without what differs from Service to Service and from cluster to cluster.
    fn shape(line: &str) -> String {
        let words = line.split_whitespace().map(|word| {
            let bare = word.trim_matches('"');
            let chain = ["KUBE-SVC-", "KUBE-EXT-", "KUBE-SEP-"];
            if let Some(start) = chain
                .iter()
                .find(|start| bare.trim_start_matches(':').starts_with(**start))
            {
                (*start).to_owned()
            } else if bare.starts_with("default/") {
                "NAME".to_owned()
            } else if bare.starts_with("0.") {
                // iptables-save prints what is left of it in 31 bits.
                bare.get(..8).unwrap_or(bare).to_owned()
            } else if bare.starts_with(|c: char| c.is_ascii_digit()) && bare.contains('.') {
                "ADDRESS".to_owned()
            } else {
                bare.to_owned()
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Rules in the order of each chain, and all chains.
    fn shapes(text: &str) -> Vec<String> {
        let mut shapes: Vec<String> = text.lines().map(shape).collect();
        shapes.sort();
        shapes
    }

    #[test]
    fn rules_have_the_shape_of_what_kube_proxy_writes() {
        assert_eq!(shapes(&rules(1, "tcp")), shapes(REAL));
    }

    #[test]
    fn services_stand_in_order_before_the_rule_that_must_be_last() {
        let text = rules(3, "udp");
        let first: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("-A KUBE-SERVICES"))
            .collect();
        assert_eq!(first.len(), 7);
        for service in 0..3 {
            let [own, vip] =
                [cluster_ip(service), vip(service)].map(|address| format!("-d {address}/32 "));
            let place = service as usize * 2;
            assert!(first[place].contains(&own) && first[place + 1].contains(&vip));
        }
        assert!(first[6].contains("must be the last rule"));
    }

    #[test]
    fn every_chain_that_is_jumped_to_exists_once() {
        let text = rules(2, "tcp");
        let nat = text.split("*nat\n").nth(1).unwrap();
        for line in nat.lines() {
            let target = line.rsplit_once("-j ").map(|(_, target)| target);
            if let Some(target) = target.filter(|target| target.starts_with("KUBE-")) {
                let declared = format!(":{target} - [0:0]\n");
                assert_eq!(nat.matches(&declared).count(), 1, "{line}");
            }
        }
    }
}
