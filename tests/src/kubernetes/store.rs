//! What the stand-in stores: objects, and the log of their changes, by one resource version.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer;
use super::kinds::{Kind, Target};

/// Kind, namespace and name.
pub type Key = (&'static str, String, String);

/// One line of the log.
#[derive(Debug, Clone)]
pub struct Change {
    /// Version that it made.
    pub version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: Kind,
    /// The object.
    pub object: Value,
}

/// A page that is still to come.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Version of the whole list.
    pub version: u64,
    /// The objects.
    pub items: Vec<Value>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub struct Store {
    version: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<Change>,
    compacted: u64,
    rests: BTreeMap<String, Rest>,
}

/// An answer that says no: HTTP status and body.
pub type Refusal = (u16, Value);

impl Store {
    /// The version of the newest change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Versions before the newest cannot be watched from any more, nor lists be gone on with.
    pub fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.log.clear();
        self.rests.clear();
    }

    /// Objects of a collection.
    pub fn list(&self, target: &Target, fields: Option<&str>) -> Vec<Value> {
        let name = fields.and_then(|fields| fields.strip_prefix("metadata.name="));
        let wanted = |key: &&Key| {
            key.0 == target.kind.plural
                && (target.namespace.is_empty() || key.1 == target.namespace)
                && name.is_none_or(|name| key.2 == name)
        };
        let found = self.objects.iter().filter(|(key, _)| wanted(key));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// Keeps the rest of a list; returns what to ask for it with.
    pub fn keep(&mut self, rest: Rest) -> String {
        let token = format!("{}-{}", rest.version, self.rests.len());
        self.rests.insert(token.clone(), rest);
        token
    }

    /// The rest of a list, while it is kept.
    pub fn rest(&self, token: &str) -> Option<Rest> {
        self.rests.get(token).cloned()
    }

    /// Changes of a collection after `version`.
    pub fn since(&self, target: &Target, version: u64) -> Result<Vec<Change>, Value> {
        if version < self.compacted {
            let message = format!("too old resource version: {version} ({})", self.compacted);
            return Err(answer::status(410, "Expired", &message));
        }
        let wanted = |change: &&Change| {
            let namespace = change.object["metadata"]["namespace"].as_str();
            change.version > version
                && change.kind == target.kind
                && (target.namespace.is_empty() || namespace == Some(&target.namespace))
        };
        Ok(self.log.iter().filter(wanted).cloned().collect())
    }

    /// One object.
    pub fn get(&self, target: &Target) -> Result<Value, Refusal> {
        let found = self.objects.get(&key(target));
        found.cloned().ok_or_else(|| answer::not_found(target))
    }

    /// Stores a new object.
    pub fn create(&mut self, target: &Target, mut object: Value) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let target = &Target {
            name: Some(name.to_owned()),
            ..target.clone()
        };
        if self.objects.contains_key(&key(target)) {
            return Err(answer::exists(target));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.version + 1));
        metadata["creationTimestamp"] = json!("2026-11-20T15:54:57Z");
        // What every real object carries, and nobody may depend on.
        metadata["managedFields"] = json!([{ "manager": "tests", "operation": "Update" }]);
        if target.kind.namespaced {
            metadata["namespace"] = json!(target.namespace);
        }
        if target.kind.plural == "services" {
            object["status"] = json!({ "loadBalancer": {} });
        }
        Ok(self.put("ADDED", target, object))
    }

    /// Replaces an object, or its status, where the version that it was made from is the newest.
    pub fn update(&mut self, target: &Target, object: Value) -> Result<Value, Refusal> {
        let before = self.get(target)?;
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != before["metadata"]["resourceVersion"] {
            return Err(answer::conflict(target));
        }
        let mut after = match target.status {
            true => before.clone(),
            false => object.clone(),
        };
        let kept = if target.status { &object } else { &before };
        if !kept["status"].is_null() || target.status {
            after["status"] = kept["status"].clone();
        }
        for field in [
            "uid",
            "creationTimestamp",
            "managedFields",
            "namespace",
            "name",
        ] {
            after["metadata"][field] = before["metadata"][field].clone();
        }
        after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        if after == before {
            return Ok(before);
        }
        Ok(self.put("MODIFIED", target, after))
    }

    /// Changes an object by a merge patch (RFC 7396).
    pub fn patch(&mut self, target: &Target, patch: &Value) -> Result<Value, Refusal> {
        let mut object = self.get(target)?;
        merge(&mut object, patch);
        self.update(target, object)
    }

    /// Removes an object.
    pub fn delete(&mut self, target: &Target) -> Result<Value, Refusal> {
        let object = self.get(target)?;
        let object = self.put("DELETED", target, object);
        self.objects.remove(&key(target));
        Ok(object)
    }

    fn put(&mut self, verb: &'static str, target: &Target, mut object: Value) -> Value {
        self.version += 1;
        object["kind"] = json!(target.kind.name);
        object["apiVersion"] = json!(target.kind.group_version);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key(target), object.clone());
        self.log.push(Change {
            version: self.version,
            verb,
            kind: target.kind,
            object: object.clone(),
        });
        object
    }
}

fn key(target: &Target) -> Key {
    let name = target.name.clone().unwrap_or_default();
    (target.kind.plural, target.namespace.clone(), name)
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, change) in changes {
        match (change, object.as_object_mut()) {
            (Value::Null, Some(fields)) => {
                fields.remove(key);
            }
            (change, _) => merge(&mut object[key], change),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_is_that_of_rfc_7396() {
        let mut object = json!({"a": "b", "c": {"d": "e", "f": "g"}});
        merge(
            &mut object,
            &json!({"a": "z", "c": {"f": null}, "h": {"i": null}}),
        );
        assert_eq!(object, json!({"a": "z", "c": {"d": "e"}, "h": {}}));
    }
}
