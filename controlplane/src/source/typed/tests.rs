//! Trees and the types that they are read as, held against the way through serde_json.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::kinds::AddressPool;
use crate::source::document;

fn tree(text: &str) -> Node {
    let documents = document::split(text);
    document::parse(&documents[0]).unwrap()
}

fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number.clone().into(),
        Value::String(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), json(value)));
            entries.collect()
        }
    }
}

fn mistake<T: DeserializeOwned>(text: &str) -> (String, String) {
    let Err(Mistyped { field, message }) = read::<T>(&tree(text)) else {
        panic!("is right: {text}");
    };
    (field, message)
}

#[test]
fn a_mistake_is_named_with_the_path_of_its_field() {
    for (text, field, message) in [
        (
            "spec: {ports: [{port: 1}, {port: x}]}",
            "spec.ports[1].port",
            "invalid type: string \"x\", expected i32",
        ),
        (
            "spec: {ports: [{port: 99999999999}]}",
            "spec.ports[0].port",
            "invalid value: integer `99999999999`, expected i32",
        ),
        (
            "metadata: {labels: {a.b/c: 1}}",
            "metadata.labels.a.b/c",
            "invalid type: integer `1`, expected a string",
        ),
        (
            "spec: {ports: {a: 1}}",
            "spec.ports",
            "invalid type: map, expected a sequence",
        ),
        ("[1]", "", "invalid type: sequence, expected Service"),
        (
            "spec: {externalIPs: [null]}",
            "spec.externalIPs[0]",
            "invalid type: null, expected a string",
        ),
    ] {
        let (found, why) = mistake::<Service>(text);
        assert_eq!((found.as_str(), why.as_str()), (field, message));
    }
}

#[test]
fn a_missing_field_is_named_with_what_it_is_missing_in() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read counts")]
    struct Outer {
        inner: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read counts")]
    struct Inner {
        name: String,
    }
    let (field, message) = mistake::<Outer>("inner: [{name: a}, {}]");
    assert_eq!(field, "inner[1]");
    assert_eq!(message, "missing field `name`");
}

#[test]
fn fields_that_the_type_does_not_have_are_found_where_they_stand() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, nam: b}\n\
                spec: {containers: [{name: c}, {name: d, imag: {a: 1}}], nothing: null}\nstat: 1\n";
    let (pod, unknown) = read::<Pod>(&tree(text)).unwrap();
    assert_eq!(pod.metadata.name.as_deref(), Some("a"));
    assert_eq!(
        unknown.first,
        ["metadata.nam", "spec.containers[1].imag", "stat"]
    );
    assert_eq!(unknown.more, 0);
}

#[test]
fn of_many_unknown_fields_the_first_are_kept() {
    let fields: String = (0..100).map(|number| format!("f{number}: 1\n")).collect();
    let (_, unknown) = read::<Service>(&tree(&fields)).unwrap();
    assert_eq!(unknown.first, ["f0", "f1", "f2", "f3", "f4"]);
    assert_eq!(unknown.more, 95);
}

#[test]
fn what_an_object_is_counts_as_known_in_own_kinds_too() {
    let text = "apiVersion: sluice.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: a}\n\
                spec: {addresses: [10.0.0.0/24]}\n";
    let (_, unknown) = read::<AddressPool>(&tree(text)).unwrap();
    assert_eq!(unknown, Unknown::default());
}

#[test]
fn a_word_of_a_list_of_words_is_read() {
    #[derive(Debug, PartialEq, Deserialize)]
    enum Word {
        One,
        Two,
    }
    let (words, _) = read::<Vec<Word>>(&tree("[One, Two]")).unwrap();
    assert_eq!(words, [Word::One, Word::Two]);
    let (field, message) = mistake::<Vec<Word>>("[One, Three]");
    assert_eq!(field, "[1]");
    assert_eq!(message, "unknown variant `Three`, expected `One` or `Two`");
    assert_eq!(mistake::<Vec<Word>>("[{One: 1}]").0, "[0]");
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Thing {
    number: Option<i32>,
    list: Vec<Option<String>>,
    map: BTreeMap<String, Vec<u8>>,
    pair: Option<(bool, f64)>,
    any: serde_json::Value,
}

prop_compose! {
    fn scalar()(text in "1|-7|300|1\\.5|true|null|a|''") -> String {
        text
    }
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..4);
        let map = proptest::collection::btree_map("[a-c]", inner, 0..3);
        prop_oneof![
            list.prop_map(|items| format!("[{}]", items.join(", "))),
            map.prop_map(|entries| {
                let entries = entries.iter().map(|(key, value)| format!("{key}: {value}"));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_tree_is_read_as_its_json_would_be(
        key in "number|list|map|pair|any|other",
        value in value(),
    ) {
        let node = tree(&format!("{key}: {value}"));
        let model = serde_path_to_error::deserialize::<_, Thing>(json(&node));
        match (read::<Thing>(&node), model) {
            (Ok((thing, unknown)), Ok(model)) => {
                prop_assert_eq!(thing, model);
                prop_assert_eq!(unknown.first.is_empty(), key != "other" || value == "null");
            }
            (Err(mistake), Err(model)) => {
                prop_assert_eq!(mistake.field, model.path().to_string());
                prop_assert_eq!(mistake.message, model.inner().to_string());
            }
            (read, model) => prop_assert!(false, "{:?} is not {:?}", read, model),
        }
    }
}
