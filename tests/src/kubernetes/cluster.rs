//! A cluster to test against: the stand-in, or the one that [`VARIABLE`] names. What is made in it
//! is in a namespace of its own, which goes away with the value.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use sluice_controlplane::source::kubernetes::client::{Api, Credentials};
use tokio::runtime::Runtime;

use super::Server;
use super::kinds::KINDS;
use crate::clock::wait_for;

/// Names the kubeconfig of a live cluster.
pub const VARIABLE: &str = "SLUICE_TEST_KUBECONFIG";
const DEFINITIONS: &str = "customresourcedefinitions";
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A cluster, and a namespace in it.
pub struct Cluster {
    /// The namespace.
    pub namespace: String,
    /// Where to run what talks to it.
    pub runtime: Runtime,
    kubeconfig: PathBuf,
    api: Api,
    server: Option<Server>,
}

impl Cluster {
    /// A stand-in of its own.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn stand_in() -> Result<Self> {
        let server = Server::start()?;
        Self::at(server.kubeconfig(None)?, Some(server))
    }

    /// The live cluster, when there is one to test against.
    ///
    /// # Errors
    /// It does not answer.
    pub fn live() -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        Self::at(path.into(), None).map(Some)
    }

    fn at(kubeconfig: PathBuf, server: Option<Server>) -> Result<Self> {
        let runtime = Runtime::new()?;
        let credentials = Credentials::Kubeconfig {
            path: kubeconfig.clone(),
            context: None,
        };
        let cluster = Self {
            namespace: unique("sluice-test"),
            api: runtime.block_on(Api::new(&credentials))?,
            runtime,
            kubeconfig,
            server,
        };
        cluster.create(
            "namespaces",
            json!({ "metadata": { "name": cluster.namespace } }),
        )?;
        Ok(cluster)
    }

    /// The server, where it is a stand-in.
    ///
    /// # Errors
    /// It is a live one.
    pub fn server(&mut self) -> Result<&mut Server> {
        self.server
            .as_mut()
            .context("a live cluster has no faults on demand")
    }

    /// The file with its credentials.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Makes the kinds of `sluice.dev` known, from the files in `folder`; returns the names of those
    /// that were not there before.
    ///
    /// # Errors
    /// The server refuses them.
    pub fn define(&self, folder: &Path) -> Result<Vec<String>> {
        if let Some(server) = &self.server {
            server.own_kinds(true);
            return Ok(Vec::new());
        }
        let mut made = Vec::new();
        for entry in fs::read_dir(folder)? {
            let text = fs::read_to_string(entry?.path())?;
            let definition: Value = serde_saphyr::from_str(&text)?;
            let name = definition["metadata"]["name"].as_str();
            let name = name.context("a definition without a name")?.to_owned();
            if self.get(DEFINITIONS, &name).is_err() {
                self.create(DEFINITIONS, definition)?;
                made.push(name.clone());
            }
            wait_for(&format!("{name} established"), LIMIT, || {
                let found = self.get(DEFINITIONS, &name)?;
                let conditions = found["status"]["conditions"].as_array();
                let is = |c: &Value| c["type"] == "Established" && c["status"] == "True";
                Ok(conditions
                    .is_some_and(|all| all.iter().any(is))
                    .then_some(()))
            })?;
        }
        Ok(made)
    }

    /// Whether it is a live one.
    pub fn is_live(&self) -> bool {
        self.server.is_none()
    }

    /// A new connection of its own.
    ///
    /// # Errors
    /// The kubeconfig does not serve.
    pub fn connect(&self) -> Result<Api> {
        let credentials = Credentials::Kubeconfig {
            path: self.kubeconfig.clone(),
            context: None,
        };
        Ok(self.runtime.block_on(Api::new(&credentials))?)
    }

    /// Stores an object in the namespace.
    ///
    /// # Errors
    /// The server refuses.
    pub fn create(&self, plural: &str, mut object: Value) -> Result<Value> {
        let kind = KINDS.iter().find(|kind| kind.plural == plural);
        let kind = kind.with_context(|| format!("no kind {plural}"))?;
        object["apiVersion"] = json!(kind.group_version);
        object["kind"] = json!(kind.name);
        let body = serde_json::to_vec(&object)?;
        self.ask(
            self.at_plural(plural)?
                .create(&PostParams::default(), body)?,
        )
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// The server refuses.
    pub fn patch(&self, plural: &str, name: &str, patch: &Value) -> Result<Value> {
        let params = PatchParams::default();
        self.ask(
            self.at_plural(plural)?
                .patch(name, &params, &Patch::Merge(patch))?,
        )
    }

    /// Removes an object.
    ///
    /// # Errors
    /// The server refuses.
    pub fn delete(&self, plural: &str, name: &str) -> Result<Value> {
        self.ask(
            self.at_plural(plural)?
                .delete(name, &DeleteParams::default())?,
        )
    }

    /// One object.
    ///
    /// # Errors
    /// It is not there.
    pub fn get(&self, plural: &str, name: &str) -> Result<Value> {
        self.ask(self.at_plural(plural)?.get(name, &GetParams::default())?)
    }

    /// The objects of the namespace.
    ///
    /// # Errors
    /// The server refuses.
    pub fn list(&self, plural: &str) -> Result<Vec<Value>> {
        let list = self.ask(self.at_plural(plural)?.list(&ListParams::default())?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    fn ask(&self, request: axum::http::Request<Vec<u8>>) -> Result<Value> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = self.runtime.block_on(self.api.json(request, LIMIT));
        answer.map_err(|error| anyhow!("{what}: {error}"))
    }

    fn at_plural(&self, plural: &str) -> Result<Request> {
        let kind = KINDS.iter().find(|kind| kind.plural == plural);
        let kind = kind.with_context(|| format!("no kind {plural}"))?;
        let version = kind.group_version;
        let root = if version.contains('/') { "apis" } else { "api" };
        Ok(Request::new(match kind.namespaced {
            true => format!("/{root}/{version}/namespaces/{}/{plural}", self.namespace),
            false => format!("/{root}/{version}/{plural}"),
        }))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_live()
            && let Err(error) = self.delete("namespaces", &self.namespace)
        {
            eprintln!("namespace {} stays behind: {error}", self.namespace);
        }
    }
}

/// A name that no other run has.
pub fn unique(prefix: &str) -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{prefix}-{:08x}", random >> 32)
}
