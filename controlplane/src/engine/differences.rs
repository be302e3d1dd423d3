//! A new table as a line of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_conf::{Service, ServiceTable, TableChange};
use tracing::info;

use crate::compile::Sizes;
use crate::words;

/// Services that a line of the log names.
const MAX_NAMED: usize = 3;

/// Namespace and name of a Service.
type Name<'a> = (&'a str, &'a str);

/// Logs which Services differ, and how much there is now.
pub(super) fn log(before: Option<&ServiceTable>, change: &TableChange, sizes: &Sizes) {
    let generation = change.generation;
    let before = before.map(|table| table.services.as_slice());
    let held = held(sizes);
    match differences(before.unwrap_or_default(), change) {
        Some(changes) => info!("generation {generation}: {changes}; {held}"),
        None => info!("generation {generation}: {held}"),
    }
}

fn name(service: &Service) -> Name<'_> {
    (&service.name.namespace, &service.name.name)
}

/// Which Services differ; `None` when none does.
pub(crate) fn differences(before: &[Arc<Service>], change: &TableChange) -> Option<String> {
    let mut lost: BTreeMap<Name<'_>, usize> = BTreeMap::new();
    let mut given = BTreeSet::new();
    for edit in &change.edits {
        for service in before.iter().skip(edit.place).take(edit.removed) {
            *lost.entry(name(service)).or_default() += 1;
        }
        given.extend(edit.added.iter().map(|service| name(service)));
    }
    let had = |wanted: &Name<'_>| {
        let start = before.partition_point(|service| name(service) < *wanted);
        let of_service = before.iter().skip(start);
        of_service
            .take_while(|service| name(service) == *wanted)
            .count()
    };
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for wanted in given.iter().chain(lost.keys()).collect::<BTreeSet<_>>() {
        let (had, lost) = (had(wanted), lost.get(wanted).copied().unwrap_or_default());
        // A port may come or go while others of its Service stay.
        match (had, given.contains(wanted)) {
            (0, _) => added.push(*wanted),
            (_, false) if lost == had => removed.push(*wanted),
            _ => changed.push(*wanted),
        }
    }
    let parts = [
        list("added", &added),
        list("changed", &changed),
        list("removed", &removed),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn list(word: &str, names: &[Name<'_>]) -> Option<String> {
    let named = names.iter().take(MAX_NAMED);
    let named: Vec<String> = named
        .map(|(space, name)| format!("{space}/{name}"))
        .collect();
    let told = named.join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        _ if named.is_empty() => None,
        0 => Some(format!("{word} {told}")),
        more => Some(format!("{word} {told} and {more} more")),
    }
}

fn held(sizes: &Sizes) -> String {
    match sizes.ports {
        0 => "nothing to serve".to_owned(),
        count => format!(
            "now {}, {}, {}",
            words::count(count, "service port"),
            words::count(sizes.frontends, "frontend"),
            words::count(sizes.backends, "backend")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Gateway, service};

    fn table(services: &[(&str, &str)]) -> ServiceTable {
        let mut gateway = Gateway::default();
        for (name, address) in services {
            gateway.apply(name, &service(name, address));
        }
        gateway.table()
    }

    fn told(old: &ServiceTable, new: &ServiceTable) -> Option<String> {
        differences(&old.services, &new.since(old))
    }

    #[test]
    fn a_change_is_told_by_the_services_that_differ() {
        let old = table(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")]);
        let new = table(&[("a", "10.0.0.1"), ("b", "10.0.0.9"), ("d", "10.0.0.4")]);
        assert_eq!(
            told(&old, &new).unwrap(),
            "added default/d, changed default/b, removed default/c"
        );
        assert_eq!(told(&old, &old), None);
    }

    #[test]
    fn a_service_that_loses_one_of_its_ports_is_changed() {
        let text = service("a", "10.0.0.1");
        let two = text.replace(
            "- port: 80",
            "- port: 80\n    name: one\n  - port: 81\n    name: two",
        );
        let mut gateway = Gateway::default();
        gateway.apply("a", &two);
        let old = gateway.table();
        assert_eq!(old.services.len(), 2, "{:?}", gateway.problems());
        gateway.apply("a", &two.replace("\n  - port: 81\n    name: two", ""));
        assert_eq!(told(&old, &gateway.table()).unwrap(), "changed default/a");
        assert_eq!(told(&gateway.table(), &old).unwrap(), "changed default/a");
    }

    #[test]
    fn of_many_changed_services_a_few_are_named() {
        let new = table(&[
            ("a", "10.0.0.1"),
            ("b", "10.0.0.2"),
            ("c", "10.0.0.3"),
            ("d", "10.0.0.4"),
            ("e", "10.0.0.5"),
        ]);
        assert_eq!(
            told(&ServiceTable::default(), &new).unwrap(),
            "added default/a, default/b, default/c and 2 more"
        );
        let sizes = Sizes {
            ports: 5,
            frontends: 1,
            ..Sizes::default()
        };
        assert_eq!(held(&sizes), "now 5 service ports, 1 frontend, 0 backends");
        assert_eq!(held(&Sizes::default()), "nothing to serve");
    }
}
