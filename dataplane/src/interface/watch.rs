//! Changes of an interface that a running dataplane cannot follow: said clearly, once each.
//!
//! A link that goes down and comes up, and an MTU that still fits, need nothing: the network that
//! workers read follows them. Sockets are bound to the queues of one device for good.

use std::collections::HashMap;

use sluice_conf::settings::dataplane::Interface;

use super::{Facts, InterfaceError, facts, largest_mtu};

/// Looks at the served interfaces again and again.
#[derive(Debug)]
pub struct Watch {
    served: Vec<(String, Facts)>,
    largest_mtu: u32,
    /// What was said last of an interface.
    said: HashMap<String, String>,
}

impl Watch {
    /// Watches interfaces that were found like this; `slot` is `frames.size` of the settings.
    pub fn new(interfaces: &[Interface], found: &[Facts], slot: u32) -> Self {
        let names = interfaces.iter().map(|interface| interface.name.clone());
        Self {
            served: names.zip(found.iter().copied()).collect(),
            largest_mtu: largest_mtu(slot, tag_bytes(interfaces)),
            said: HashMap::new(),
        }
    }

    /// Logs what is wrong now and was not said yet.
    pub fn look(&mut self) {
        for (name, before) in &self.served {
            match finding(name, *before, facts(name), self.largest_mtu) {
                Some(finding) if self.said.get(name) != Some(&finding) => {
                    tracing::error!("{finding}");
                    self.said.insert(name.clone(), finding);
                }
                Some(_) => {}
                None => {
                    if self.said.remove(name).is_some() {
                        tracing::info!(interface = name, "interface can be served again");
                    }
                }
            }
        }
    }
}

/// Bytes of tags that a frame may get when it leaves by another interface than it came by.
pub(super) fn tag_bytes(interfaces: &[Interface]) -> u32 {
    let tags = interfaces.iter().map(|interface| interface.vlan.len());
    4 * tags.max().unwrap_or(0) as u32
}

fn finding(
    name: &str,
    before: Facts,
    now: Result<Facts, InterfaceError>,
    largest_mtu: u32,
) -> Option<String> {
    let now = match now {
        Ok(now) => now,
        Err(error) => return Some(format!("{error}; its Services are not reachable this way")),
    };
    if now.ifindex != before.ifindex {
        return Some(format!(
            "interface {name}: was deleted and made again; restart sluice-dataplane to serve it"
        ));
    }
    if now.rx_queues != before.rx_queues {
        return Some(format!(
            "interface {name}: has {} receive queues and had {} at the start; frames of queues \
             that no worker serves are dropped (kernel_no_socket): set the number back with \
             `ethtool -L {name} combined {}` or restart sluice-dataplane",
            now.rx_queues, before.rx_queues, before.rx_queues
        ));
    }
    (now.mtu > largest_mtu).then(|| {
        format!(
            "interface {name}: its MTU is {} now, but a frame slot has room for {largest_mtu}: \
             longer frames are dropped (kernel_rx_dropped); lower the MTU, or set frames.size and \
             restart sluice-dataplane",
            now.mtu
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Facts = Facts {
        ifindex: 7,
        rx_queues: 2,
        mtu: 1500,
    };

    fn said(now: Facts) -> Option<String> {
        finding("eth1", BEFORE, Ok(now), 1778)
    }

    #[test]
    fn what_can_be_followed_is_not_worth_a_word() {
        assert_eq!(said(BEFORE), None);
        assert_eq!(
            said(Facts {
                mtu: 1778,
                ..BEFORE
            }),
            None
        );
        assert_eq!(said(Facts { mtu: 576, ..BEFORE }), None);
    }

    #[test]
    fn what_cannot_be_followed_names_the_way_out() {
        for (now, word) in [
            (
                Facts {
                    ifindex: 8,
                    ..BEFORE
                },
                "restart sluice-dataplane to serve it",
            ),
            (
                Facts {
                    rx_queues: 4,
                    ..BEFORE
                },
                "`ethtool -L eth1 combined 2`",
            ),
            (
                Facts {
                    mtu: 1779,
                    ..BEFORE
                },
                "lower the MTU",
            ),
        ] {
            let said = said(now).unwrap();
            assert!(said.contains(word), "{said}");
        }
        let gone = Err(InterfaceError::Missing {
            name: "eth1".into(),
        });
        let gone = finding("eth1", BEFORE, gone, 1778).unwrap();
        assert!(gone.contains("does not exist"), "{gone}");
    }
}
