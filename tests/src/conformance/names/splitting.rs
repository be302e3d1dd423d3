//! How a name splits into what it asks for.

use serde::Deserialize;
use sluice_controlplane::dns::path::{self, Part, Path};

use super::Judged;

/// A name.
#[derive(Debug, Deserialize)]
pub struct Case {
    zone: String,
    #[serde(default)]
    options: OptionsForm,
    query: String,
    valid: bool,
    expect: Option<Parts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionsForm {
    #[serde(default)]
    zonal_names: bool,
}

/// Its parts.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    port: String,
    protocol: String,
    endpoint: String,
    service: String,
    namespace: String,
    pod_or_svc: String,
    #[serde(default)]
    topology_zone: String,
}

pub fn judge(case: &Case) -> Judged {
    let base = case.query.strip_suffix(&case.zone);
    let base = base.filter(|base| base.is_empty() || base.ends_with('.'));
    let labels: Option<Vec<&str>> = base.map(|base| match base.strip_suffix('.') {
        Some(base) => base.split('.').collect(),
        None => Vec::new(),
    });
    let path = labels.as_ref();
    let path = path.and_then(|labels| path::cluster(labels, case.options.zonal_names));
    match (path, &case.expect) {
        (None, _) if !case.valid => Ok(()),
        (None, _) => Err("it was not understood".to_owned()),
        (Some(path), _) if !case.valid => Err(format!("it was understood as {path:?}")),
        (Some(path), Some(expected)) if parts(&path) != *expected => {
            Err(format!("expected {expected:?}, seen {:?}", parts(&path)))
        }
        (Some(_), _) => Ok(()),
    }
}

fn parts(path: &Path<'_>) -> Parts {
    let (namespace, name, part, branch) = match path {
        Path::Namespace { namespace, of_pods } => {
            let branch = if *of_pods { "pod" } else { "svc" };
            (*namespace, "", &Part::Whole, branch)
        }
        Path::Service {
            namespace,
            service,
            part,
        } => (*namespace, *service, part, "svc"),
        Path::Pod {
            namespace,
            pod,
            part,
        } => (*namespace, *pod, part, "pod"),
        Path::Apex | Path::Branch | Path::Version | Path::NameServer | Path::Above => {
            return Parts::default();
        }
    };
    let mut parts = Parts {
        service: name.to_owned(),
        namespace: namespace.to_owned(),
        pod_or_svc: branch.to_owned(),
        ..Parts::default()
    };
    match part {
        Part::Whole => {}
        Part::Endpoint(endpoint) => parts.endpoint = (*endpoint).to_owned(),
        Part::Port { port, protocol } => {
            (parts.port, parts.protocol) = ((*port).to_owned(), (*protocol).to_owned());
        }
        Part::Zone { zone, .. } => parts.topology_zone.clone_from(zone),
    }
    parts
}
