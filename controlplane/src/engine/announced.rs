//! What workloads are told of Services, and whose variables a change concerns.

use std::collections::BTreeSet;

use super::Engine;
use crate::env::concerned::Concerned;
use crate::env::{Announced, Announcements, MASTER_NAME, MASTER_NAMESPACE};
use crate::object::{Kind, NamespacedName};

impl Engine {
    /// Notes in `concerned` whose variables may have changed.
    #[must_use]
    pub fn with_environment(mut self, concerned: Concerned) -> Self {
        self.environment = Some(concerned);
        self
    }

    /// Takes note that a Service was decided on, or is gone.
    pub(super) fn concern_environment(&self, service: &NamespacedName) {
        if let Some(concerned) = &self.environment {
            concerned.service(service);
        }
    }

    /// Takes note that a Namespace is there, or gone.
    pub(super) fn concern_namespace(&self, name: &str) {
        if let Some(concerned) = &self.environment {
            concerned.namespace(name);
        }
    }

    /// Tells what was noted.
    pub(super) fn tell_environment(&self) {
        if let Some(concerned) = &self.environment {
            concerned.tell();
        }
    }

    /// The Services of these namespaces, or of all, with the one that everybody is told of; `None`
    /// before every source has told all.
    pub(super) fn announced(&self, wanted: Option<&BTreeSet<String>>) -> Option<Announcements> {
        if !self.awaited.is_empty() {
            return None;
        }
        let is_wanted = |namespace: &str| wanted.is_none_or(|only| only.contains(namespace));
        let mut known = Announcements::default();
        for service in self.catalog.services() {
            let spec = &service.object;
            let master = spec.namespace == MASTER_NAMESPACE && spec.name == MASTER_NAME;
            if is_wanted(&spec.namespace) {
                known.namespaces.insert(spec.namespace.clone());
            } else if !master {
                continue;
            }
            let name = NamespacedName::new(&spec.namespace, &spec.name);
            let admitted = self.admission.service(&name);
            let announced = admitted.and_then(|(service, _)| Announced::of(service));
            known.services.extend(announced);
        }
        let namespaces = self.index.of_kind(Kind::Namespace).map(|id| &id.name);
        let namespaces = namespaces.filter(|name| is_wanted(name));
        known.namespaces.extend(namespaces.cloned());
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::concerned::Whose;
    use crate::testing::{Gateway, service};
    use futures::FutureExt;

    const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";

    fn of_namespace(namespace: &str, text: &str) -> String {
        let metadata = format!("metadata:\n  namespace: {namespace}");
        text.replace("metadata:", &metadata)
    }

    fn one(namespace: &str) -> BTreeSet<String> {
        BTreeSet::from([namespace.to_owned()])
    }

    #[test]
    fn nothing_is_announced_before_every_source_has_told_all() {
        let mut gateway = Gateway::default();
        gateway.write("s", &service("web", "10.96.0.1"));
        assert_eq!(gateway.engine().announced(None), None);
        gateway.settle();
        let known = gateway.engine().announced(None).unwrap();
        assert_eq!(known.services.len(), 1);
    }

    #[test]
    fn a_namespace_is_there_with_an_object_or_a_service_of_its_own() {
        let mut gateway = Gateway::default();
        gateway.apply("n", SHOP);
        gateway.apply("k", &service("kubernetes", "10.96.0.1"));
        gateway.apply("w", &of_namespace("mail", &service("web", "10.96.0.2")));
        let engine = gateway.engine();
        let names = |known: &Announcements| {
            let services = known.services.iter();
            services.map(|s| s.name.clone()).collect::<Vec<_>>()
        };
        let known = engine.announced(Some(&one("shop"))).unwrap();
        assert_eq!(
            (names(&known), known.namespaces),
            (vec!["kubernetes".into()], one("shop"))
        );
        let known = engine.announced(Some(&one("mail"))).unwrap();
        assert_eq!(names(&known), ["kubernetes", "web"]);
        let known = engine.announced(Some(&one("nowhere"))).unwrap();
        assert_eq!(known.namespaces, BTreeSet::new());
        assert_eq!(engine.announced(None).unwrap().namespaces.len(), 3);
    }

    #[test]
    fn whoever_a_change_concerns_is_told_once_it_can_be_asked_for() {
        let mut gateway = Gateway::default();
        let concerned = Concerned::default();
        gateway.engine().environment = Some(concerned.clone());
        let told = || concerned.next().now_or_never();
        gateway.write("w", &of_namespace("mail", &service("web", "10.96.0.2")));
        assert_eq!(told(), None);
        gateway.settle();
        assert!(told().unwrap().all, "at first everybody");
        gateway.settle();
        assert_eq!(told(), None, "nothing has changed");
        gateway.apply("n", SHOP);
        let of = |namespaces| {
            Some(Whose {
                all: false,
                namespaces,
            })
        };
        assert_eq!(told(), of(one("shop")));
        let web = of_namespace("mail", &service("web", "10.96.0.2"));
        gateway.apply("w", &web.replace("port: 80", "port: 81"));
        assert_eq!(told(), of(one("mail")));
    }
}
