//! What is read, from whom, and by which credentials.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_controlplane::object::{Kind, Object};
use sluice_controlplane::source::kubernetes::Settings;
use sluice_controlplane::source::kubernetes::client::{Api, Credentials};
use sluice_controlplane::source::kubernetes::resource::{RESOURCES, Resource, Scope};
use sluice_tests::clock::wait_for;
use sluice_tests::kubernetes::Server;
use sluice_tests::kubernetes::cluster::Cluster;
use sluice_tests::kubernetes::faults::{End, Fault, Habits, Verb};
use sluice_tests::kubernetes::follower::{Follower, LIMIT, hasty};

use super::{ALL, SERVICES, SLICES, address, filled, holds, service, slice};

pub fn what_is_there_and_what_changes_is_told(cluster: &Cluster) -> Result<()> {
    cluster.create(SERVICES, service("web"))?;
    cluster.create(SLICES, slice("web-1", "10.1.0.1"))?;
    let follower = Follower::start(cluster)?;
    follower.wait("the first state", holds(&["web", "web-1"]))?;
    {
        let told = follower.told();
        let first = told.states.first().context("no state")?;
        ensure!(first.len() == 2, "the first state was not whole: {first:?}");
        for (id, object) in &told.objects {
            let metadata = match object.as_ref().context("malformed")? {
                Object::Service(service) => &service.metadata,
                Object::EndpointSlice(slice) => &slice.metadata,
                _ => continue,
            };
            ensure!(metadata.managed_fields.is_none(), "{id} has managed fields");
        }
    }
    let moved = json!({ "endpoints": [{ "addresses": ["10.1.0.2"] }] });
    cluster.patch(SLICES, "web-1", &moved)?;
    follower.wait("a change", |told| {
        address(told, "web-1").as_deref() == Some("10.1.0.2")
    })?;
    cluster.create(SERVICES, service("db"))?;
    follower.wait("a new Service", holds(&["web", "web-1", "db"]))?;
    cluster.delete(SLICES, "web-1")?;
    follower.wait("a slice that is gone", holds(&["web", "db"]))?;
    ensure!(follower.link().connected && follower.link().synced);
    Ok(())
}

pub fn a_service_of_another_proxy_is_not_told(cluster: &Cluster) -> Result<()> {
    let label = "service.kubernetes.io/service-proxy-name";
    let mut other = service("other");
    other["metadata"]["labels"] = json!({ label: "other" });
    cluster.create(SERVICES, other)?;
    cluster.create(SERVICES, service("web"))?;
    let follower = Follower::start(cluster)?;
    follower.wait("ours alone", holds(&["web"]))?;
    let labels = |value: Value| json!({ "metadata": { "labels": { label: value } } });
    cluster.patch(SERVICES, "web", &labels(json!("other")))?;
    follower.wait("ours given away", holds(&[]))?;
    cluster.patch(SERVICES, "other", &labels(Value::Null))?;
    follower.wait("theirs given to us", holds(&["other"]))
}

#[test]
fn nothing_is_whole_before_every_kind_was_listed() -> Result<()> {
    let mut cluster = filled()?;
    for _ in 0..3 {
        let fault = Fault::Refuse {
            code: 403,
            after: None,
        };
        cluster.server()?.fail(Verb::Watch, SLICES, fault);
    }
    let follower = Follower::start(&cluster)?;
    follower.wait_link("a reason", |link| link.connected || link.reason.is_some())?;
    follower.wait("the first state", holds(&ALL))?;
    let told = follower.told();
    ensure!(told.states[0].len() == ALL.len(), "{:?}", told.states[0]);
    Ok(())
}

#[test]
fn the_answers_of_a_real_server_are_read() -> Result<()> {
    let mut cluster = Cluster::stand_in()?;
    let server = cluster.server()?;
    let services = include_bytes!("../../../fixtures/kubernetes/services.watch-streaming.jsonl");
    let slices = include_bytes!("../../../fixtures/kubernetes/endpointslices.list.json");
    let refusal = Fault::Refuse {
        code: 422,
        after: None,
    };
    server.fail(Verb::Watch, SERVICES, Fault::Say(services.to_vec()));
    server.fail(Verb::Watch, SLICES, refusal);
    server.fail(Verb::List, SLICES, Fault::Say(slices.to_vec()));
    let settings = Settings {
        timing: hasty(),
        ..Settings::default()
    };
    let follower = Follower::with(&cluster, &RESOURCES, &settings)?;
    // The stand-in is behind the versions of those answers, so it is asked for a new list, which
    // has none of their objects; `pub` was deleted before, and headless slices are not read.
    let all = [
        "kubernetes",
        "web",
        "db",
        "pub",
        "pub-xrxwm",
        "web-l5dhm",
        "web-ldr28",
    ];
    follower.wait("every object, and its end", |told| {
        let mut deleted: Vec<&str> = told.deleted.iter().map(|id| id.name.as_str()).collect();
        deleted.sort_unstable();
        let mut wanted = all.to_vec();
        wanted.sort_unstable();
        deleted == wanted && told.objects.is_empty()
    })?;
    ensure!(
        follower.told().applied == all.len(),
        "{}",
        follower.told().applied
    );
    Ok(())
}

#[test]
fn a_malformed_object_is_an_issue_and_not_the_end() -> Result<()> {
    let cluster = filled()?;
    let mut bad = service("bad");
    bad["spec"]["ports"][0]["port"] = json!("eighty");
    cluster.create(SERVICES, bad)?;
    let follower = Follower::start(&cluster)?;
    let wanted = [&ALL[..], &["bad"]].concat();
    follower.wait("the first state", holds(&wanted))?;
    let told = follower.told();
    let malformed: Vec<&str> = told
        .objects
        .iter()
        .filter(|(_, object)| object.is_none())
        .map(|(id, _)| id.name.as_str())
        .collect();
    ensure!(malformed == ["bad"], "{malformed:?}");
    Ok(())
}

#[test]
fn a_kind_that_the_cluster_does_not_have_is_empty_until_it_comes() -> Result<()> {
    let own = Resource {
        kind: Kind::Service,
        group_version: "sluice.dev/v1alpha1",
        plural: "guests",
        scope: Scope::Namespaced,
        optional: true,
        object: RESOURCES[0].object,
    };
    let mut cluster = filled()?;
    cluster.server()?.habits(Habits {
        paged: true,
        ..Habits::default()
    });
    let settings = Settings {
        timing: hasty(),
        ..Settings::default()
    };
    let follower = Follower::with(&cluster, &[RESOURCES[1], own], &settings)?;
    follower.wait("a state without the kind", holds(&["a-1", "b-1"]))?;
    ensure!(follower.link().connected, "{:?}", follower.link());
    cluster.server()?.own_kinds(true);
    cluster.create("guests", service("policy"))?;
    follower.wait("the kind", holds(&["a-1", "b-1", "policy"]))?;
    cluster.server()?.own_kinds(false);
    wait_for("the kind gone", LIMIT, || {
        cluster.server()?.end_watches("guests", End::Close);
        Ok(holds(&["a-1", "b-1"])(&follower.told()).then_some(()))
    })?;
    follower.wait_link("a good link", |link| link.connected)
}

#[test]
fn only_the_wanted_namespaces_are_read() -> Result<()> {
    let cluster = filled()?;
    let settings = Settings {
        namespaces: vec!["elsewhere".to_owned()],
        timing: hasty(),
        ..Settings::default()
    };
    let follower = Follower::with(&cluster, &RESOURCES, &settings)?;
    follower.wait("an empty state", holds(&[]))?;
    let everything = Settings {
        timing: hasty(),
        ..Settings::default()
    };
    Follower::with(&cluster, &RESOURCES, &everything)?.wait("everything", holds(&ALL))
}

#[test]
fn a_guarded_server_lets_in_who_has_the_token() -> Result<()> {
    let server = Server::start_guarded("secret")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ask = |token| -> Result<Result<Value, String>> {
        let credentials = Credentials::Kubeconfig {
            path: server.kubeconfig(Some(token))?,
            context: Some("stand-in".to_owned()),
        };
        let api = runtime.block_on(Api::new(&credentials))?;
        let request = axum::http::Request::get("/version").body(Vec::new())?;
        let answer = runtime.block_on(api.json(request, LIMIT));
        Ok(answer.map_err(|error| error.to_string()))
    };
    ensure!(ask("secret")?.is_ok_and(|version| version["minor"] == "35"));
    ensure!(ask("guess")? == Err("answered 401: Unauthorized".to_owned()));
    Ok(())
}

#[test]
fn credentials_that_do_not_serve_name_the_file() -> Result<()> {
    let server = Server::start()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let refused = |path: std::path::PathBuf, context: Option<&str>| -> Result<String> {
        let credentials = Credentials::Kubeconfig {
            path,
            context: context.map(str::to_owned),
        };
        let error = runtime.block_on(Api::new(&credentials)).err();
        Ok(error.context("was taken")?.to_string())
    };
    let missing = server.folder().join("missing");
    let message = refused(missing.clone(), None)?;
    let start = format!("kubernetes.kubeconfig {}: ", missing.display());
    ensure!(message.starts_with(&start), "{message}");
    let message = refused(server.kubeconfig(None)?, Some("other"))?;
    ensure!(message.contains("other"), "{message}");
    Ok(())
}
