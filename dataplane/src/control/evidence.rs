//! What has been counted of backends since a client asked last.
//!
//! Each worker numbers its pieces of evidence and notes at each backend the number of the last one.
//! A mark is how far every worker was: while no worker has gone on, an answer costs nothing, and
//! any number of clients may ask without the dataplane keeping anything for them.

use sluice_conf::message::dataplane::{Attempts, Evidence, Mark, ServiceEvidence};

use crate::service::{CompiledBackend, CompiledService, ServiceMap};
use crate::stats::{self, WorkerCounters};

/// Counts of the backends that have changed since `since`; `workers` are the counters of all.
pub(super) fn gather<'a>(
    services: &ServiceMap,
    workers: impl Iterator<Item = &'a WorkerCounters>,
    since: &Mark,
) -> Evidence {
    // Read before the counts: what is counted meanwhile is told again the next time.
    let mark = Mark(workers.map(|worker| worker.evidence.follow()).collect());
    let services = match mark == *since {
        true => Vec::new(),
        false => {
            let services = services.services();
            services
                .filter_map(|service| of_service(service, since))
                .collect()
        }
    };
    Evidence { mark, services }
}

fn of_service(service: &CompiledService, since: &Mark) -> Option<ServiceEvidence> {
    let changed = service.backends.iter().filter(|each| is_new(each, since));
    let backends: Vec<_> = changed
        .map(|backend| (backend.address(), attempts(backend)))
        .collect();
    (!backends.is_empty()).then(|| ServiceEvidence {
        name: service.entry.name.clone(),
        backends,
    })
}

fn is_new(backend: &CompiledBackend, since: &Mark) -> bool {
    let mut workers = backend.counters.iter().enumerate();
    workers.any(|(worker, counters)| {
        let told = since.0.get(worker).copied().unwrap_or_default();
        counters.attempts.is_newer_than(told)
    })
}

fn attempts(backend: &CompiledBackend) -> Attempts {
    stats::attempts(backend.counters.iter().map(|c| c.attempts.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::Build;
    use crate::testutil::rig::{
        BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, RigSettings, backend_mac,
    };
    use crate::wire::parse::TcpFlags;

    const A: &str = "a tcp 203.0.113.10:80 -> 10.0.2.11:80";
    const B: &str = "b tcp 203.0.113.10:81 -> 10.0.2.12:80 10.0.2.13:80";

    fn ask(rig: &Rig, since: &Mark) -> Evidence {
        let workers = 0..rig.workers() as u16;
        let counters = workers.map(|worker| rig.counters(worker));
        gather(&rig.snapshot().services, counters, since)
    }

    /// A client's SYN to a port of the Vip, at a worker, that the backend refuses.
    fn refuse(rig: &mut Rig, client: &str, port: u16) -> String {
        let vip = format!("203.0.113.10:{port}");
        let syn = Build::tcp(client, &vip).flags(TcpFlags::SYN).numbers(7, 0);
        let sent = rig.exchange(CLIENTS, &syn.frame());
        let seen = etherparse::SlicedPacket::from_ethernet(&sent.1).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &seen.net else {
            panic!("{seen:?}")
        };
        let Some(etherparse::TransportSlice::Tcp(tcp)) = &seen.transport else {
            panic!("{seen:?}")
        };
        let end = |address, port| format!("{address}:{port}");
        let from = end(ip.header().destination_addr(), tcp.destination_port());
        let to = end(ip.header().source_addr(), tcp.source_port());
        let mac = backend_mac(ip.header().destination_addr().octets()[3]);
        let reset = Build::tcp(&from, &to).macs(mac, GATEWAY_BACKEND_MAC);
        let reset = reset.flags(TcpFlags::RST | TcpFlags::ACK).numbers(0, 8);
        rig.exchange(BACKENDS, &reset.frame());
        from
    }

    fn refused(times: u64) -> Attempts {
        Attempts {
            refused: times,
            ..Attempts::default()
        }
    }

    #[test]
    fn only_what_changed_since_the_last_question_is_told() {
        let settings = RigSettings {
            workers: 2,
            ..RigSettings::default()
        };
        let mut rig = Rig::with(&settings, &[A, B]);
        let none = ask(&rig, &Mark::default());
        assert_eq!((none.mark.0.len(), none.services), (2, vec![]));
        let one = refuse(&mut rig, "10.0.1.10:40000", 81);
        let first = ask(&rig, &none.mark);
        let told: Vec<_> = first.services.iter().map(|s| &*s.name.name).collect();
        assert_eq!(told, ["b"]);
        let one: std::net::SocketAddr = one.parse().unwrap();
        assert_eq!(first.services[0].backends, [(one, refused(1))]);
        assert_eq!(ask(&rig, &first.mark).services, []);
        // Whoever comes later is told of everything, in order; others of what is new to them.
        for n in 0..20 {
            refuse(&mut rig, &format!("10.0.1.10:{}", 41_000 + n), 80);
        }
        let all = ask(&rig, &Mark::default());
        let told: Vec<_> = all.services.iter().map(|s| &*s.name.name).collect();
        assert_eq!(told, ["a", "b"]);
        assert_eq!(all.services[0].backends[0].1, refused(20));
        let new = ask(&rig, &first.mark);
        assert_eq!(new.services, all.services[..1]);
        assert_eq!(new.mark, all.mark);
        // Both workers have counted.
        assert!(new.mark.0.iter().all(|count| *count > 0), "{:?}", new.mark);
    }

    #[test]
    fn a_backend_that_left_is_told_of_no_more_and_comes_back_with_nothing() {
        let mut rig = Rig::new(&[A, B]);
        refuse(&mut rig, "10.0.1.10:40000", 80);
        rig.push(&[B]);
        assert_eq!(ask(&rig, &Mark::default()).services, []);
        rig.push(&[A, B]);
        assert_eq!(ask(&rig, &Mark::default()).services, []);
        refuse(&mut rig, "10.0.1.10:40001", 80);
        let told = ask(&rig, &Mark::default());
        assert_eq!(told.services[0].backends[0].1, refused(1));
    }
}
