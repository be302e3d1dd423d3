//! Changes of endpoints while a peer runs: Services get endpoints more, or lose those again.

use std::fmt::Write as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sluice_tests::manifests::Folder;
use sluice_tests::netns::CONFIGURE;
use sluice_tests::process;

use super::peer::{Peer, Running, nftables, protocol};
use super::rig::{BACKEND_PORT, BACKENDS, Rig, backend};
use crate::namespace::Namespace;

/// How long a peer may take to go by a change: of any size, and for every Service of it.
const SETTLED: Duration = Duration::from_millis(400);
const SETTLED_SERVICE: Duration = Duration::from_micros(200);

/// Changes endpoints of a peer as its users do.
pub struct Changer<'a> {
    how: How<'a>,
    protocol: &'static str,
}

enum How<'a> {
    /// By a file of the folder that Sluice watches.
    Manifests(&'a Folder),
    /// By `nft`, as kube-proxy does.
    Rules(Namespace),
}

impl<'a> Changer<'a> {
    /// Of a peer that runs; none when its endpoints are for good.
    pub fn of(peer: Peer, running: &'a Running, rig: &Rig) -> Option<Self> {
        let how = match (peer, running) {
            (_, Running::Sluice(sluice)) => How::Manifests(&sluice.folder),
            (Peer::Nftables | Peer::NftablesThreaded, _) => How::Rules(rig.inside()),
            _ => return None,
        };
        Some(Self {
            how,
            protocol: protocol(rig),
        })
    }

    /// The calling thread is about to make changes; it can do nothing else afterwards.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter(&self) -> Result<()> {
        match &self.how {
            How::Manifests(_) => Ok(()),
            How::Rules(namespace) => namespace.enter(),
        }
    }

    /// The same as [`Self::set`] from any thread; returns when the peer goes by it.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn settle(&self, spares: u8, services: u32) -> Result<()> {
        let change = || {
            self.enter()?;
            self.set(spares, services)
        };
        let changed = thread::scope(|scope| scope.spawn(change).join());
        changed.map_err(|_| anyhow!("a thread that changes endpoints died"))??;
        thread::sleep(SETTLED + SETTLED_SERVICE * services);
        Ok(())
    }

    /// Gives each of the first `services` Services so many endpoints more than at the start. Returns
    /// when the peer has been told, which is before Sluice has read it. For nftables the thread must
    /// have [entered](Self::enter).
    ///
    /// # Errors
    /// The file cannot be written, or nft fails.
    pub fn set(&self, spares: u8, services: u32) -> Result<()> {
        match &self.how {
            How::Manifests(folder) => {
                folder.write_text("spares.yaml", &slices(spares, services, self.protocol))
            }
            How::Rules(_) => {
                let script = rules(spares, services, self.protocol);
                let mut nft = Command::new("nft");
                let done = process::run(nft.args(["-f", "-"]), &script, CONFIGURE * 6)?;
                done.success().map(drop).context("changing the rules")
            }
        }
    }
}

/// A second EndpointSlice of each Service.
fn slices(spares: u8, services: u32, protocol: &str) -> String {
    let protocol = protocol.to_uppercase();
    let mut text = String::new();
    for service in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{service}-2, namespace: default, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
             addressType: IPv4\nports: [{{name: p, protocol: {protocol}, port: {BACKEND_PORT}}}]\nendpoints:"
        );
        if spares == 0 {
            text += " []";
        }
        for number in BACKENDS..BACKENDS + spares {
            let _ = write!(text, "\n  - addresses: [\"{}\"]", backend(number));
        }
        text += "\n";
    }
    text
}

/// One transaction: the chain of each endpoint that came, and the choice of each Service anew. As
/// kube-proxy, it leaves chains of endpoints that went for later (pkg/proxy/nftables/proxier.go). So
/// do maps that have names: a choice never comes to endpoints beyond its last one.
fn rules(spares: u8, services: u32, protocol: &str) -> String {
    let named = nftables::has_names(services);
    let mut text = String::new();
    for service in 0..services {
        for number in BACKENDS..BACKENDS + spares {
            let rules = nftables::of_endpoint(number, protocol);
            replace(&mut text, &format!("endpoint-{service}-{number}"), &rules);
        }
        if named && spares > 0 {
            let new = nftables::choices(service, BACKENDS..BACKENDS + spares);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "add element ip kube-proxy choices-{service} {new}");
        }
        let rules = nftables::of_service(service, BACKENDS + spares, named);
        replace(&mut text, &format!("service-{service}"), &rules);
    }
    text
}

/// A chain with these rules and no others.
fn replace(text: &mut String, chain: &str, rules: &[String]) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "add chain ip kube-proxy {chain}\nflush chain ip kube-proxy {chain}"
    );
    for rule in rules {
        let _ = writeln!(text, "add rule ip kube-proxy {chain} {rule}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_come_beside_the_endpoints_that_are_there() {
        let text = slices(2, 2, "tcp");
        assert_eq!(text.matches("kind: EndpointSlice").count(), 2);
        for spare in [BACKENDS, BACKENDS + 1] {
            assert_eq!(text.matches(&backend(spare).to_string()).count(), 2);
        }
        assert!(!text.contains(&format!("\"{}\"", backend(0))));
        assert_eq!(slices(0, 3, "udp").matches("endpoints: []\n").count(), 3);
    }

    #[test]
    fn a_transaction_chooses_among_all_endpoints() {
        let text = rules(1, 2, "udp");
        assert_eq!(text.matches("numgen random mod 5 vmap").count(), 2);
        assert_eq!(text.matches("add chain ip kube-proxy endpoint").count(), 2);
        assert!(text.contains("4 : goto endpoint-1-4 }"), "{text}");
        assert!(!rules(0, 1, "udp").contains("endpoint-0-4"));
    }

    #[test]
    fn a_map_with_a_name_is_added_to_and_chosen_from() {
        let (came, gone) = (rules(1, 1001, "tcp"), rules(0, 1001, "tcp"));
        let new = "add element ip kube-proxy choices-1000 { 4 : goto endpoint-1000-4 }\n";
        assert!(came.contains(new) && !gone.contains("add element"));
        for (text, endpoints) in [(came, 5), (gone, 4)] {
            let choice = format!("service-1000 numgen random mod {endpoints} vmap @choices-1000\n");
            assert!(text.contains(&choice));
        }
    }
}
