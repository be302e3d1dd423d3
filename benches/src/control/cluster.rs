//! Manifests of a large cluster.

use std::fmt::Write as _;

use anyhow::Result;
use sluice_tests::manifests::Folder;

/// Services.
pub const SERVICES: usize = 10_000;
/// Endpoints of all of them.
pub const ENDPOINTS: usize = 100_000;

/// Services of a file.
const OF_FILE: usize = 100;
/// Endpoints of a Service.
const OF_SERVICE: usize = ENDPOINTS / SERVICES;
/// Services that a storm changes in turn.
const STORMY: usize = 200;

/// Writes all Services but those that change.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Folder) -> Result<()> {
    for file in 0..SERVICES / OF_FILE {
        let mut text = String::new();
        for number in file * OF_FILE..(file + 1) * OF_FILE {
            let name = format!("s{number}");
            text.push_str(&service(&name, &address(10, 96, number)));
            text.push_str(&slice(&name, number * OF_SERVICE, OF_SERVICE));
        }
        folder.write_text(&format!("cluster-{file}.yaml"), &text)?;
    }
    write_changing(folder, 0)
}

/// Writes the Service whose endpoints change; each number makes another set.
///
/// # Errors
/// The file cannot be written.
pub fn write_changing(folder: &Folder, number: usize) -> Result<()> {
    let endpoints = OF_SERVICE - number % 2;
    let text = service("changing", "10.97.255.1") + &slice("changing", ENDPOINTS, endpoints);
    folder.write_text("changing.yaml", &text)
}

/// Writes one of the Services of a storm.
///
/// # Errors
/// The file cannot be written.
pub fn write_of_storm(folder: &Folder, number: usize) -> Result<()> {
    let of = number % STORMY;
    let name = format!("storm-{of}");
    let round = number / STORMY;
    let text = service(&name, &address(10, 98, of)) + &slice(&name, 10 * of, 1 + round % 5);
    folder.write_text(&format!("{name}.yaml"), &text)
}

fn address(first: u8, second: u8, number: usize) -> String {
    format!("{first}.{second}.{}.{}", number / 250, number % 250 + 1)
}

fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, \
         ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
    )
}

fn slice(service: &str, first: usize, endpoints: usize) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, \
         labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\n\
         ports: [{{port: 8080}}]\nendpoints:\n"
    );
    for number in first..first + endpoints {
        let [_, a, b, c] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- addresses: [10.{}.{b}.{c}]", 100 + a);
    }
    text + "---\n"
}
