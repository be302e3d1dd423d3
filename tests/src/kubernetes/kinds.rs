//! The kinds that the stand-in knows, and what a path of the API means.

/// One kind of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Group and version, as in `apiVersion`.
    pub group_version: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name in objects.
    pub name: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

const fn kind(
    group_version: &'static str,
    plural: &'static str,
    name: &'static str,
    namespaced: bool,
) -> Kind {
    Kind {
        group_version,
        plural,
        name,
        namespaced,
    }
}

/// Group and version of the kinds that a cluster may not have.
pub const OWN: &str = "sluice.dev/v1alpha1";

/// Every kind that the stand-in may have.
pub const KINDS: [Kind; 11] = [
    kind("v1", "services", "Service", true),
    kind("v1", "pods", "Pod", true),
    kind("v1", "nodes", "Node", false),
    kind("v1", "namespaces", "Namespace", false),
    kind(
        "discovery.k8s.io/v1",
        "endpointslices",
        "EndpointSlice",
        true,
    ),
    kind("coordination.k8s.io/v1", "leases", "Lease", true),
    kind("events.k8s.io/v1", "events", "Event", true),
    kind(OWN, "addresspools", "AddressPool", false),
    kind(OWN, "servicepolicies", "ServicePolicy", true),
    kind(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
    ),
    // Services under another path: what tests of a kind that comes and goes read.
    kind(OWN, "guests", "Service", true),
];

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for all, and for kinds without.
    pub namespace: String,
    /// The object; a collection when none.
    pub name: Option<String>,
    /// Whether only the status is meant.
    pub status: bool,
}

/// Reads a path; `None` when no kind answers there.
pub fn target(path: &str) -> Option<Target> {
    let mut parts = path.trim_matches('/').split('/');
    let group_version = match parts.next()? {
        "api" => parts.next()?.to_owned(),
        "apis" => format!("{}/{}", parts.next()?, parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", namespace, plural, rest @ ..] if *plural != "status" => {
            (*namespace, [&[*plural], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let plural = rest.first()?;
    let found = |kind: &&Kind| kind.group_version == group_version && kind.plural == *plural;
    let kind = *KINDS.iter().find(found)?;
    let status = rest.get(2) == Some(&"status");
    if rest.len() > 3 || (rest.len() == 3 && !status) || (!namespace.is_empty() && !kind.namespaced)
    {
        return None;
    }
    Some(Target {
        kind,
        namespace: namespace.to_owned(),
        name: rest.get(1).map(|name| (*name).to_owned()),
        status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_do_in_the_api() {
        let services = target("/api/v1/services").unwrap();
        assert_eq!((services.kind.name, services.name), ("Service", None));
        let status = target("/api/v1/namespaces/demo/services/web/status").unwrap();
        assert_eq!((status.namespace.as_str(), status.status), ("demo", true));
        assert_eq!(status.name.as_deref(), Some("web"));
        let namespace = target("/api/v1/namespaces/demo").unwrap();
        assert_eq!(namespace.kind.name, "Namespace");
        assert_eq!(namespace.name.as_deref(), Some("demo"));
        let slices = target("/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices").unwrap();
        assert_eq!(slices.namespace, "demo");
        for none in [
            "/",
            "/api/v1",
            "/api/v2/services",
            "/apis/apps/v1/deployments",
        ] {
            assert_eq!(target(none), None, "{none}");
        }
    }
}
