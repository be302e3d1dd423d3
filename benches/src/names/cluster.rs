//! The same names as manifests, as a zone file and as questions.

use std::fmt::Write as _;

use anyhow::Result;
use sluice_tests::manifests::Folder;
use sluice_tests::names::{ZONE, of_service};

/// Services with a ClusterIP and one endpoint.
const SERVICES: usize = 10_000;
/// Services without one.
const HEADLESS: usize = 1_000;
/// Endpoints of each of those.
const ENDPOINTS: usize = 10;
/// Services of a file.
const OF_FILE: usize = 100;
/// Questions of a file; dnsperf begins again at its end.
const QUESTIONS: usize = 20_000;

/// Writes all Services.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Folder) -> Result<()> {
    for file in 0..SERVICES / OF_FILE {
        let mut text = String::new();
        for number in file * OF_FILE..(file + 1) * OF_FILE {
            let name = format!("s{number}");
            text.push_str(&service(&name, &cluster_ip(number)));
            text.push_str(&slice(&name, &[endpoint(number, 0)]));
        }
        folder.write_text(&format!("services-{file}.yaml"), &text)?;
    }
    for file in 0..HEADLESS / OF_FILE {
        let mut text = String::new();
        for number in file * OF_FILE..(file + 1) * OF_FILE {
            let name = format!("h{number}");
            let endpoints = (1..=ENDPOINTS).map(|place| endpoint(number, place));
            text.push_str(&service(&name, "None"));
            text.push_str(&slice(&name, &endpoints.collect::<Vec<_>>()));
        }
        folder.write_text(&format!("headless-{file}.yaml"), &text)?;
    }
    Ok(())
}

/// The same as a zone file (RFC 1035 section 5), as far as it is asked for.
pub fn zone() -> String {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL 5\n@ IN SOA ns.dns hostmaster 1 7200 1800 86400 5\n\
         @ IN NS ns.dns\nns.dns IN A 127.0.0.1\n"
    );
    // Writing to a String cannot fail.
    for number in 0..SERVICES {
        let name = format!("s{number}.default.svc");
        let _ = writeln!(text, "{name} IN A {}", cluster_ip(number));
        let _ = writeln!(text, "_http._tcp.{name} IN SRV 0 100 80 {name}");
    }
    for number in 0..HEADLESS {
        for place in 1..=ENDPOINTS {
            let address = endpoint(number, place);
            let _ = writeln!(text, "h{number}.default.svc IN A {address}");
        }
    }
    text
}

/// What is asked, one a line: of 20, 14 addresses of a Service, 3 of the endpoints of one, 2 ports, and
/// 1 name that nobody has.
pub fn questions() -> String {
    let mut text = String::new();
    for number in 0..QUESTIONS {
        // A prime step spreads the names, so that neighbours in the file are none in the zone.
        let spread = number * 7919;
        let (name, kind) = match number % 20 {
            0..14 => (of_service(&format!("s{}", spread % SERVICES)), "A"),
            14..17 => (of_service(&format!("h{}", spread % HEADLESS)), "A"),
            17..19 => (port(spread % SERVICES), "SRV"),
            _ => (of_service(&format!("nobody-{number}")), "A"),
        };
        let _ = writeln!(text, "{name} {kind}");
    }
    text
}

/// Some questions of each kind, the name that is known last at the end.
pub fn samples() -> Vec<(String, &'static str)> {
    vec![
        (of_service("s0"), "A"),
        (of_service("nobody-1"), "A"),
        (port(SERVICES - 1), "SRV"),
        (of_service("h0"), "A"),
        (of_service(&format!("h{}", HEADLESS - 1)), "A"),
    ]
}

fn port(number: usize) -> String {
    format!("_http._tcp.{}", of_service(&format!("s{number}")))
}

fn cluster_ip(number: usize) -> String {
    format!("10.96.{}.{}", number / 250, number % 250 + 1)
}

fn endpoint(number: usize, place: usize) -> String {
    format!("11.{place}.{}.{}", number / 250, number % 250 + 1)
}

/// A Service with the port `http`.
pub fn service(name: &str, cluster_ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {cluster_ip}, \
         ports: [{{name: http, port: 80}}]}}\n---\n"
    )
}

/// Its endpoints, all of them ready.
pub fn slice(service: &str, addresses: &[String]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, \
         labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 80}}]\nendpoints:\n"
    );
    for address in addresses {
        let _ = writeln!(text, "- addresses: [{address}]");
    }
    text + "---\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_asked_stands_in_the_zone_but_for_one_of_twenty() {
        let zone = zone();
        let suffix = format!(".{ZONE}");
        let names: HashSet<&str> = zone
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        let questions = questions();
        let asked = questions.lines().filter_map(|line| line.split_once(' '));
        let known = asked.filter(|(name, _)| {
            let name = name.strip_suffix(&suffix).unwrap_or(name);
            names.contains(name)
        });
        assert_eq!(known.count(), QUESTIONS / 20 * 19);
    }
}
