//! The files that tell others what the own kinds look like, kept equal to the types.

use std::fs;
use std::path::Path;

use kube::{CustomResourceExt, Resource};
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::{AddressPool, ServicePolicy};

const REGENERATE: &str = "SLUICE_WRITE_DOCS=1 cargo test -p sluice-controlplane kinds::schemas";

/// Says of every object which fields it has and that it has no others, so that an editor marks
/// misspelt ones. Metadata are the API's own.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn json_schema<K: JsonSchema + Resource<DynamicType = ()>>() -> String {
    let mut schema = serde_json::to_value(schema_for!(K)).unwrap();
    let properties = schema["properties"].as_object_mut().unwrap();
    let constant = |text: &str| json!({"type": "string", "const": text});
    let own = Map::from_iter([
        ("apiVersion".to_owned(), constant(&K::api_version(&()))),
        ("kind".to_owned(), constant(&K::kind(&()))),
        ("metadata".to_owned(), json!({"type": "object"})),
    ]);
    properties.extend(own);
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    schema["$comment"] = Value::String(format!("Made from the code: {REGENERATE}"));
    close(&mut schema);
    let mut text = serde_json::to_string_pretty(&schema).unwrap();
    text.push('\n');
    text
}

fn crd<K: CustomResourceExt>() -> String {
    // By way of a value: the order of its keys is the alphabet's, not the library's.
    let crd = serde_json::to_value(K::crd()).unwrap();
    let yaml = serde_saphyr::to_string(&crd).unwrap();
    format!("# Made from the code: {REGENERATE}\n{yaml}")
}

#[test]
fn the_shipped_schemas_are_what_the_types_say() {
    let deploy = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
    for (file, text) in [
        ("crds/addresspools.yaml", crd::<AddressPool>()),
        ("crds/servicepolicies.yaml", crd::<ServicePolicy>()),
        ("schemas/addresspool.json", json_schema::<AddressPool>()),
        ("schemas/servicepolicy.json", json_schema::<ServicePolicy>()),
    ] {
        let path = deploy.join(file);
        if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "deploy/{file} is not what the code says; run {REGENERATE}"
        );
    }
}

#[test]
fn the_shipped_definitions_are_read_back_as_they_were_made() {
    for (made, name) in [
        (AddressPool::crd(), "addresspools.sluice.dev"),
        (ServicePolicy::crd(), "servicepolicies.sluice.dev"),
    ] {
        let yaml = serde_saphyr::to_string(&made).unwrap();
        let read: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(&made).unwrap());
        assert_eq!(made.metadata.name.as_deref(), Some(name));
    }
}

#[test]
fn the_example_manifests_say_only_what_the_kinds_have() {
    let pools = include_str!("../../../conf/examples/pools/pools.yaml");
    let mut read = 0;
    for document in pools.split("\n---\n") {
        let pool: AddressPool = serde_saphyr::from_str(document).unwrap();
        let checked = super::pool::check(&pool);
        assert_eq!(checked.issues, []);
        read += 1;
    }
    assert_eq!(read, 3);
    let policy = include_str!("../../../conf/examples/pools/policies.yaml");
    let policy: ServicePolicy = serde_saphyr::from_str(policy).unwrap();
    assert_eq!(super::policy::check(&policy).issues, []);
}
