//! Settings of the host that stand in the gateway's way, and what to do about each.

use super::sysctl;

/// What the kernel is set to.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Served interfaces whose reverse path filter is strict (RFC 3704).
    strict: Vec<String>,
    /// Whether packets of others are routed on, by family; `None` where there is no such family.
    forwards_v4: Option<bool>,
    forwards_v6: Option<bool>,
}

impl Facts {
    pub(super) fn read(interfaces: &[String]) -> Self {
        let is_on = |key| sysctl::number(key).map(|value| value != 0);
        let everywhere = sysctl::number("ipv4/conf/all/rp_filter").unwrap_or(0);
        let is_strict = |name: &&String| {
            let own = sysctl::number(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or(0);
            // The larger of the two is in force; 1 is strict, 2 is loose.
            own.max(everywhere) == 1
        };
        Self {
            strict: interfaces.iter().filter(is_strict).cloned().collect(),
            forwards_v4: is_on("ipv4/ip_forward"),
            forwards_v6: is_on("ipv6/conf/all/forwarding"),
        }
    }

    /// What is in the way, each with a remedy. `preserves`: some Service keeps clients' addresses;
    /// `hands_back`: there is a TUN device.
    pub(super) fn findings(&self, preserves: bool, hands_back: bool) -> Vec<String> {
        let mut findings = Vec::new();
        for name in self.strict.iter().filter(|_| preserves) {
            findings.push(format!(
                "net.ipv4.conf.{name}.rp_filter is strict: the kernel drops packets between clients and \
                 backends that come by another interface than their answers go; \
                 `sysctl -w net.ipv4.conf.{name}.rp_filter=2` makes it loose"
            ));
        }
        let forwarding = [
            ("net.ipv4.ip_forward", self.forwards_v4),
            ("net.ipv6.conf.all.forwarding", self.forwards_v6),
        ];
        for (key, forwards) in forwarding {
            if hands_back && forwards == Some(false) {
                findings.push(format!(
                    "{key} is 0: packets that are handed back to the kernel and are not for this host \
                     go no further; `sysctl -w {key}=1` has them routed on, kernel.tun = \"\" in the \
                     settings drops them at once"
                ));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::namespace::{Namespace, ip};

    #[test]
    fn what_is_in_the_way_is_found_only_where_it_matters() {
        let facts = Facts {
            strict: vec!["eth1".into()],
            forwards_v4: Some(false),
            forwards_v6: None,
        };
        assert_eq!(facts.findings(false, false), Vec::<String>::new());
        let strict = facts.findings(true, false);
        assert!(
            matches!(&strict[..], [one] if one.contains("sysctl -w net.ipv4.conf.eth1.rp_filter=2"))
        );
        let forward = facts.findings(false, true);
        assert!(matches!(&forward[..], [one] if one.starts_with("net.ipv4.ip_forward is 0")));
        assert_eq!(facts.findings(true, true).len(), 2);
    }

    #[test]
    fn the_larger_reverse_path_filter_is_in_force() {
        Namespace::new().run(|| {
            ip("link add eth1 type veth peer name far");
            for (everywhere, own, strict) in
                [("0", "0", 0), ("0", "1", 1), ("1", "0", 1), ("1", "2", 0)]
            {
                sysctl::write("ipv4/conf/all/rp_filter", everywhere).unwrap();
                sysctl::write("ipv4/conf/eth1/rp_filter", own).unwrap();
                let facts = Facts::read(&["eth1".into()]);
                assert_eq!(facts.strict.len(), strict, "{everywhere} {own}");
            }
            sysctl::write("ipv4/ip_forward", "1").unwrap();
            assert_eq!(Facts::read(&[]).forwards_v4, Some(true));
        });
    }
}
