//! Label selectors of the own kinds: `metav1.LabelSelector` as the API server checks and reads it
//! (apimachinery pkg/apis/meta/v1/validation).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::object::Report;

/// The selector in the form that matches labels; the object is refused when it makes no sense. An
/// empty selector matches everything.
pub(super) fn check(report: &mut Report, field: &str, raw: &LabelSelector) -> Selector {
    let expressions = raw.match_expressions.as_deref().unwrap_or_default();
    super::bounded(
        report,
        &format!("{field}.matchExpressions"),
        expressions.len(),
    );
    for (index, expression) in expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        if expression.key.is_empty() {
            report.refuse(format!("{field}.key"), "is empty; name a label");
        }
        let valued = expression.values.as_ref().is_some_and(|v| !v.is_empty());
        match (expression.operator.as_str(), valued) {
            ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => {}
            ("In" | "NotIn", false) => {
                report.refuse(format!("{field}.values"), "is empty; name at least one");
            }
            ("Exists" | "DoesNotExist", true) => {
                let message = format!("may not be set with operator {}", expression.operator);
                report.refuse(format!("{field}.values"), message);
            }
            (other, _) => {
                let message =
                    format!("{other:?} is not possible; use In, NotIn, Exists or DoesNotExist");
                report.refuse(format!("{field}.operator"), message);
            }
        }
    }
    // What cannot be converted was refused above.
    Selector::try_from(raw.clone()).unwrap_or_default()
}

/// Schema of `metav1.LabelSelector`, which `k8s-openapi` has only with a feature of its own.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    let text = || json_schema!({"type": "string"});
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": text()},
            "matchExpressions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": text(),
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {"type": "array", "items": text()},
                    },
                },
            },
        },
    })
}

/// Schema of a list of selectors.
pub(super) fn list_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": schema(generator)})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt;

    use super::*;

    fn read(yaml: &str) -> (Selector, Vec<String>) {
        let raw: LabelSelector = serde_saphyr::from_str(yaml).unwrap();
        let mut report = Report::default();
        let selector = check(&mut report, "s", &raw);
        let issues = report.issues.into_iter();
        let told = issues.map(|i| format!("{}: {}", i.field, i.message));
        (selector, told.collect())
    }

    #[test]
    fn a_selector_matches_as_the_api_says() {
        let (selector, issues) = read(
            "{matchLabels: {app: web}, matchExpressions: [{key: env, operator: NotIn, values: [dev]}]}",
        );
        assert_eq!(issues, [""; 0]);
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            owned.collect()
        };
        assert!(selector.matches(&labels(&[("app", "web")])));
        assert!(selector.matches(&labels(&[("app", "web"), ("env", "prod")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("env", "dev")])));
        assert!(!selector.matches(&labels(&[("env", "prod")])));
        assert!(read("{}").0.matches(&labels(&[])));
    }

    #[test]
    fn expressions_that_make_no_sense_are_named() {
        for (yaml, issue) in [
            (
                "{matchExpressions: [{key: a, operator: Is}]}",
                "s.matchExpressions[0].operator: \"Is\" is not possible; use In, NotIn, Exists or DoesNotExist",
            ),
            (
                "{matchExpressions: [{key: a, operator: In, values: []}]}",
                "s.matchExpressions[0].values: is empty; name at least one",
            ),
            (
                "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
                "s.matchExpressions[0].values: may not be set with operator Exists",
            ),
            (
                "{matchExpressions: [{key: '', operator: Exists}]}",
                "s.matchExpressions[0].key: is empty; name a label",
            ),
        ] {
            assert_eq!(read(yaml).1, [issue], "{yaml}");
        }
    }
}
