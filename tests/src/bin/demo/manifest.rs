//! The edits that an operator would make to the example's EndpointSlice.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const READY: &str = "ready: true, serving: true, terminating: false";
const DRAINING: &str = "ready: false, serving: true, terminating: true";

/// The text of the manifest.
pub fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| {
        format!(
            "manifest {}: start the demo in the top folder of the project",
            file.display()
        )
    })
}

/// With the endpoint of `address` on its way out: it serves what it has and takes nothing new.
pub fn draining(text: &str, address: &str) -> Result<String> {
    edit(text, address, |addresses, conditions| {
        vec![addresses.to_owned(), conditions.replace(READY, DRAINING)]
    })
}

/// Without the endpoint of `address`.
pub fn without(text: &str, address: &str) -> Result<String> {
    edit(text, address, |_, _| Vec::new())
}

/// Replaces the two lines of an endpoint: its addresses and its conditions.
fn edit(text: &str, address: &str, change: impl Fn(&str, &str) -> Vec<String>) -> Result<String> {
    let addresses = format!("- addresses: [\"{address}\"]");
    let mut edited = Vec::new();
    let mut found = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != addresses {
            edited.push(line.to_owned());
            continue;
        }
        let conditions = lines.next().unwrap_or_default();
        if !conditions.contains(READY) {
            bail!("the endpoint {address} is not ready in the manifest: {conditions:?}");
        }
        found = true;
        edited.extend(change(line, conditions));
    }
    if !found {
        bail!("the manifest has no line {addresses:?}");
    }
    Ok(edited.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../conf/examples/services/web.yaml");

    #[test]
    fn a_draining_endpoint_differs_only_in_its_conditions() {
        let edited = draining(EXAMPLE, "10.0.2.13").unwrap();
        assert_eq!(edited.lines().count(), EXAMPLE.lines().count());
        let changed: Vec<&str> = edited
            .lines()
            .zip(EXAMPLE.lines())
            .filter(|(new, old)| new != old)
            .map(|(new, _)| new)
            .collect();
        assert_eq!(changed, [format!("    conditions: {{ {DRAINING} }}")]);
    }

    #[test]
    fn a_deleted_endpoint_leaves_the_others() {
        let edited = without(EXAMPLE, "10.0.2.13").unwrap();
        assert_eq!(edited.lines().count() + 2, EXAMPLE.lines().count());
        assert!(!edited.contains("10.0.2.13") && edited.contains("10.0.2.12"));
        assert!(without(&edited, "10.0.2.13").is_err());
    }
}
