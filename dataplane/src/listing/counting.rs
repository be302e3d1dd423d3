//! Connections counted by frontend and backend. Memory grows with the pairs of them, up to
//! [`MAX_COUNTED`], never with the connections.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::Sender;
use sluice_conf::message::dataplane::{Count, Counts};
use sluice_conf::{Protocol, ServiceName};

/// Pairs of frontend and backend that are told of one count.
pub const MAX_COUNTED: usize = 100_000;

/// Connections to count.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Of these Service ports.
    pub services: Arc<HashSet<ServiceName>>,
    /// Where the answer goes.
    pub answer: Sender<Counts>,
}

/// A count that is being made.
#[derive(Debug, Default)]
pub struct Counting {
    pairs: HashMap<(Protocol, SocketAddr, SocketAddr), (ServiceName, u64)>,
    truncated: bool,
}

impl Counting {
    /// Adds connections of one Service port, from one frontend to one backend.
    pub fn add(&mut self, service: &ServiceName, ends: (SocketAddr, SocketAddr), connections: u64) {
        let key = (service.protocol, ends.0, ends.1);
        if let Some((_, count)) = self.pairs.get_mut(&key) {
            *count = count.saturating_add(connections);
        } else if self.pairs.len() < MAX_COUNTED {
            self.pairs.insert(key, (service.clone(), connections));
        } else {
            self.truncated = true;
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add_all(&mut self, counts: &Counts) {
        self.truncated |= counts.truncated;
        for count in &counts.counts {
            let ends = (count.frontend, count.backend);
            self.add(&count.service, ends, count.connections);
        }
    }

    /// What was counted, sorted.
    pub fn finish(self) -> Counts {
        let pairs = self.pairs.into_iter();
        let mut counts: Vec<Count> = pairs
            .map(|((_, frontend, backend), (service, connections))| Count {
                service,
                frontend,
                backend,
                connections,
            })
            .collect();
        counts.sort_unstable();
        Counts {
            counts,
            truncated: self.truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceName {
        ServiceName {
            namespace: "default".into(),
            name: "web".into(),
            port: String::new(),
            protocol: Protocol::Tcp,
        }
    }

    fn ends(backend: u16) -> (SocketAddr, SocketAddr) {
        let backend = SocketAddr::new("10.0.2.11".parse().unwrap(), backend);
        ("203.0.113.10:80".parse().unwrap(), backend)
    }

    #[test]
    fn what_several_workers_counted_is_added_up() {
        let mut one = Counting::default();
        one.add(&web(), ends(1), 2);
        one.add(&web(), ends(2), 1);
        let mut all = Counting::default();
        all.add(&web(), ends(1), 5);
        all.add_all(&one.finish());
        let counts = all.finish();
        let numbers: Vec<u64> = counts
            .counts
            .iter()
            .map(|count| count.connections)
            .collect();
        assert_eq!((numbers, counts.truncated), (vec![7, 1], false));
    }

    #[test]
    fn over_the_limit_the_count_says_so_and_goes_on_with_the_pairs_that_it_knows() {
        let mut counting = Counting::default();
        for number in 0..=MAX_COUNTED {
            let port = u16::try_from(number % 65_536).unwrap();
            let frontend = u16::try_from(number / 65_536).unwrap();
            let frontend = SocketAddr::new("203.0.113.10".parse().unwrap(), frontend);
            counting.add(&web(), (frontend, ends(port).1), 1);
        }
        let frontend = SocketAddr::new("203.0.113.10".parse().unwrap(), 0);
        counting.add(&web(), (frontend, ends(7).1), 1);
        let counts = counting.finish();
        assert!(counts.truncated);
        assert_eq!(counts.counts.len(), MAX_COUNTED);
        let counted: u64 = counts.counts.iter().map(|count| count.connections).sum();
        assert_eq!(counted, MAX_COUNTED as u64 + 1);
    }
}
