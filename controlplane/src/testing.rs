//! Objects for the tests of this crate, read from YAML as an operator would write them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sluice_conf::ServiceTable;
use sluice_conf::message::controlplane::Problem;

use crate::admission::{self, Admission};
use crate::compile::Compiled;
use crate::dns::Shared;
use crate::dns::options::Options;
use crate::engine::Engine;
use crate::index::Known;
use crate::object::{Lines, Object, describe};
use crate::readiness::{Moment, Readiness};
use crate::rules::Rules;
use crate::service::ServiceSpec;
use crate::source::manifest::{self, Found};
use crate::source::{Event, Source};
use crate::tables::Tables;

/// The only object of `text`, read from `file`.
pub(crate) fn found(file: &str, text: &str) -> Found {
    let mut manifest = manifest::read(file, text.as_bytes());
    assert_eq!(manifest.problems, [], "{text}");
    assert_eq!(manifest.objects.len(), 1, "{text}");
    manifest.objects.remove(0)
}

/// The Service of `text`, checked.
pub(crate) fn check_service(text: &str) -> crate::object::Checked<crate::service::ServiceSpec> {
    let found = found("f.yaml", text);
    let Some(Object::Service(service)) = found.object else {
        panic!("not a Service: {text}");
    };
    crate::service::check(
        &found.id.namespace,
        &found.id.name,
        &service,
        &Lines::default(),
    )
}

/// The slice of `text`, checked.
pub(crate) fn check_slice(text: &str) -> crate::object::Checked<crate::endpoints::Slice> {
    let found = found("f.yaml", text);
    let Some(Object::EndpointSlice(slice)) = found.object else {
        panic!("not an EndpointSlice: {text}");
    };
    crate::endpoints::check(&found.id.namespace, &found.id.name, &slice)
}

/// A control plane without sources: files in, tables out.
pub(crate) struct Gateway {
    engine: Engine,
    tables: Arc<Tables>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new(Rules::default())
    }
}

impl Gateway {
    pub(crate) fn new(rules: Rules) -> Self {
        Self::judging(rules, Readiness::default())
    }

    /// One whose endpoints are judged.
    pub(crate) fn judging(rules: Rules, readiness: Readiness) -> Self {
        let tables = Arc::new(Tables::default());
        let admission = Admission::new(admission::Settings::default(), None).unwrap();
        let engine = Engine::new(
            rules,
            admission,
            readiness,
            &[Source::Folder],
            Arc::clone(&tables),
        );
        Self { engine, tables }
    }

    /// The same, and it tells its names.
    pub(crate) fn naming(self, zone: Shared, options: &Options) -> Self {
        let engine = self.engine.with_names(zone, options, false);
        Self { engine, ..self }
    }

    /// Takes in everything that `text` holds, as if `file` had been read, and compiles.
    pub(crate) fn apply(&mut self, file: &str, text: &str) {
        self.write(file, text);
        self.settle();
    }

    /// Takes in everything that `text` holds.
    pub(crate) fn write(&mut self, file: &str, text: &str) {
        let manifest = manifest::read(file, text.as_bytes());
        for found in manifest.objects {
            self.event(Event::from(found));
        }
        let problems = manifest.problems;
        let file = file.to_owned();
        self.event(Event::Report { file, problems });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.engine.handle(event, Duration::ZERO);
    }

    pub(crate) fn settle(&mut self) {
        self.event(Event::Synced {
            source: Source::Folder,
        });
        self.engine.settle(Moment::default());
    }

    pub(crate) fn table(&self) -> ServiceTable {
        let newest = self.tables.newest().table;
        newest.map(|table| (*table).clone()).unwrap_or_default()
    }

    /// What it has compiled; compiling all at once gives the same.
    pub(crate) fn compiled(&self) -> Compiled {
        let compiled = self.engine.compiled();
        assert_eq!(compiled, self.engine.compiled_at_once());
        assert_eq!(compiled.table.validate(), Ok(()));
        compiled
    }

    /// What manifests can be tried on.
    pub(crate) fn rehearsal(&self) -> crate::engine::Rehearsal {
        self.engine.rehearsal(Moment::default()).unwrap()
    }

    /// What is wrong, as sorted lines.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = lines(&self.engine.view().problems);
        problems.sort_unstable();
        problems
    }

    /// Whoever answers questions.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The Services in use.
    pub(crate) fn services(&self) -> Vec<Known<ServiceSpec>> {
        self.engine.view().services
    }
}

/// A Service with one TCP port 80.
pub(crate) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {ip}\n  ports:\n  - port: 80\n"
    )
}

/// A slice with port 8080 and ready endpoints.
pub(crate) fn slice(name: &str, service: &str, addresses: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: IPv4\nports:\n- port: 8080\nendpoints:\n"
    );
    for address in addresses {
        text.push_str(&format!("- addresses: [{address}]\n"));
    }
    text
}

/// What `text` says, as values of the Kubernetes API.
pub(crate) fn objects(text: &str) -> (Vec<api::Service>, Vec<EndpointSlice>) {
    let manifest = manifest::read("f.yaml", text.as_bytes());
    assert_eq!(manifest.problems, [], "{text}");
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    for found in manifest.objects {
        match found.object {
            Some(Object::Service(service)) => services.push(*service),
            Some(Object::EndpointSlice(slice)) => slices.push(*slice),
            Some(_) => panic!("neither a Service nor a slice: {text}"),
            None => panic!("{:?}: {text}", found.issues),
        }
    }
    (services, slices)
}

/// Problems as lines.
pub(crate) fn lines<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<String> {
    problems.into_iter().map(describe).collect()
}
