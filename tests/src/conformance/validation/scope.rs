//! The sentence that says which rules a case is about.

/// Fields that a sentence can name. Words that English uses for other things (name, type, ports)
/// count only as the end of a path such as `spec.type`.
const FIELDS: [&str; 32] = [
    "addressType",
    "addresses",
    "allocateLoadBalancerNodePorts",
    "annotations",
    "appProtocol",
    "clusterIP",
    "clusterIPs",
    "deprecatedTopology",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "forNodes",
    "forZones",
    "generateName",
    "healthCheckNodePort",
    "hints",
    "hostname",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "ipMode",
    "labels",
    "loadBalancer",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "nodePort",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "targetPort",
    "timeoutSeconds",
    "trafficDistribution",
];

/// The fields that count.
#[derive(Debug)]
pub struct Scope(Vec<Named>);

#[derive(Debug)]
enum Named {
    /// A field, wherever it stands.
    Field(String),
    /// A path and all below it.
    Path(String),
}

impl Scope {
    /// Reads a sentence.
    ///
    /// # Errors
    /// It names no field.
    pub fn read(sentence: &str) -> Result<Self, String> {
        let words = sentence.split(|c: char| !(c.is_alphanumeric() || ".[]".contains(c)));
        let named: Vec<Named> = words.filter_map(named).collect();
        match named.is_empty() {
            false => Ok(Self(named)),
            true => Err(format!(
                "the scope {sentence:?} names no field that is known here"
            )),
        }
    }

    /// Whether an error in `field` counts.
    pub fn holds(&self, field: &str) -> bool {
        let parts = || field.split(['.', '[', ']']);
        self.0.iter().any(|named| match named {
            Named::Field(name) => parts().any(|part| part == name),
            Named::Path(path) => field
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])),
        })
    }
}

fn named(word: &str) -> Option<Named> {
    let path = word.trim_matches('.');
    let is_path = ["metadata.", "spec.", "status."]
        .iter()
        .any(|top| path.starts_with(top));
    match is_path {
        true => Some(Named::Path(path.to_owned())),
        false => FIELDS
            .contains(&path)
            .then(|| Named::Field(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_fields_and_paths() {
        let scope = Scope::read("only the clusterIPs and status.loadBalancer rules are counted.");
        let scope = scope.unwrap();
        for field in [
            "spec.clusterIPs",
            "spec.clusterIPs[1]",
            "status.loadBalancer.ingress[0].ip",
        ] {
            assert!(scope.holds(field), "{field}");
        }
        for field in [
            "spec.clusterIP",
            "status.loadBalancerX",
            "spec.ports[0].name",
            "",
        ] {
            assert!(!scope.holds(field), "{field}");
        }
    }

    #[test]
    fn a_sentence_that_names_nothing_is_not_understood() {
        assert!(Scope::read("only the rules that were meant").is_err());
        assert!(Scope::read("").is_err());
    }
}
