//! Files of Kubernetes objects, all the way to the service table. Problems stand on lines that the
//! file has, and what the control plane compiles of any file the dataplane accepts.

use std::time::Duration;

use sluice_controlplane::compile::Rules;
use sluice_controlplane::compile::compile;
use sluice_controlplane::index::Index;
use sluice_controlplane::source::manifest::{self, Manifest};

/// Takes the bytes for a file.
pub fn run(data: &[u8]) {
    let manifest = manifest::read("f.yaml", data);
    ensure_lines(data, &manifest);
    let mut index = Index::default();
    for found in manifest.objects {
        index.apply(
            found.id,
            found.origin,
            found.object.as_ref(),
            found.issues,
            &found.lines,
            Duration::ZERO,
        );
    }
    let compiled = compile(&index, &Rules::default());
    if let Err(error) = compiled.table.validate() {
        unreachable!("the table compiled of it is not valid: {error}");
    }
    let names = compiled.table.services.iter().map(|service| &service.name);
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
