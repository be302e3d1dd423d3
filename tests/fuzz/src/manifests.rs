//! Files of Kubernetes objects, all the way to the service table. Problems stand on lines that the
//! file has, and what the control plane compiles of any file the dataplane accepts.

use std::sync::Arc;
use std::time::Duration;

use sluice_controlplane::admission::{self, Admission};
use sluice_controlplane::engine::Engine;
use sluice_controlplane::readiness::{Moment, Readiness};
use sluice_controlplane::rules::Rules;
use sluice_controlplane::source::manifest::{self, Manifest};
use sluice_controlplane::source::{Event, Source};
use sluice_controlplane::tables::Tables;

/// Takes the bytes for a file.
pub fn run(data: &[u8]) {
    let manifest = manifest::read("f.yaml", data);
    ensure_lines(data, &manifest);
    let tables = Arc::new(Tables::default());
    let Ok(admission) = Admission::new(admission::Settings::default(), None) else {
        unreachable!("without a store nothing can go wrong");
    };
    let mut engine = Engine::new(
        Rules::default(),
        admission,
        Readiness::default(),
        &[Source::Folder],
        Arc::clone(&tables),
    );
    for found in manifest.objects {
        let event = Event::from(found);
        engine.handle(event, Duration::ZERO);
    }
    engine.settle(Moment::default());
    let table = tables.newest().table.unwrap_or_default();
    if let Err(error) = table.validate() {
        unreachable!("the table compiled of it is not valid: {error}");
    }
    let names = table.services.iter().map(|service| &service.name);
    assert!(names.is_sorted(), "the table is not sorted");
}

fn ensure_lines(data: &[u8], manifest: &Manifest) {
    let lines = data
        .iter()
        .filter(|byte| **byte == b'\n' || **byte == b'\r')
        .count()
        + 1;
    let of_problems = manifest.problems.iter().filter_map(|problem| problem.line);
    let of_objects = manifest
        .objects
        .iter()
        .filter_map(|found| found.origin.line);
    for line in of_problems.chain(of_objects) {
        assert!(
            (1..=lines).contains(&(line as usize)),
            "line {line} of {lines}"
        );
    }
}
