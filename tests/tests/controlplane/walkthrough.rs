//! The walk-through of `docs/walkthrough.md`: the commands of a Services tutorial, done with real
//! daemons. The document is what this run prints; with `SLUICE_WRITE_DOCS=1` it is written anew.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use sluice_tests::clock;
use sluice_tests::daemon::{self, LIMIT};
use sluice_tests::nginx::Nginx;
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::Topology;

/// Where the document says that manifests are.
const FOLDER: &str = "/etc/sluice/services";

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: TYPE
  selector:
    app: web
  ports:
  - port: 80
    targetPort: 8080
    nodePort: 30080
";

const POOL: &str = "\
apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata:
  name: public
spec:
  addresses: [\"203.0.113.10-203.0.113.19\"]
";

const OTHERS: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web-pods
spec:
  clusterIP: None
  selector:
    app: web
  ports:
  - port: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: api
spec:
  type: ExternalName
  externalName: api.example.com
";

fn pod(host: &str, address: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: {host}
  labels:
    app: web
spec:
  nodeName: node-a
  containers:
  - name: nginx
    image: nginx
status:
  podIPs:
  - ip: {address}
  conditions:
  - type: Ready
    status: \"True\"
"
    )
}

/// The Service as `kind`, without what that type does not have.
fn web(kind: &str) -> String {
    let text = WEB.replace("TYPE", kind);
    match kind {
        "ClusterIP" => text.replace("    nodePort: 30080\n", ""),
        _ => text,
    }
}

/// What is told, and where it happens.
struct Story<'a> {
    scene: &'a Scene,
    text: String,
}

impl Story<'_> {
    fn say(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push_str("\n\n");
    }

    /// Commands that follow one another stand in one block.
    fn shown(&mut self, prompt: &str, command: &str, output: &str) {
        let block = self.text.strip_suffix("```\n\n").map(str::to_owned);
        self.text = block.unwrap_or_else(|| format!("{}```console\n", self.text));
        let output = masked(output);
        self.text
            .push_str(&format!("{prompt} {command}\n{output}```\n\n"));
    }

    /// Puts a manifest into the folder, and shows it.
    fn write(&mut self, file: &str, manifest: &str) -> Result<()> {
        self.shown("$", &format!("cat {file}"), manifest);
        self.shown("$", &format!("cp {file} {FOLDER}/"), "");
        self.scene.folder.write_text(file, manifest)
    }

    /// Runs sluicectl until it prints `awaited`, and shows what it printed.
    fn ctl(&mut self, words: &[&str], awaited: &str) -> Result<()> {
        let command = format!("sluicectl {}", words.join(" "));
        let output = clock::wait_until_ok(&command, LIMIT, || {
            let output = daemon::sluicectl(self.scene.paths(), words)?;
            ensure!(output.contains(awaited), "no {awaited:?} in:\n{output}");
            Ok(output)
        })?;
        self.shown("$", &command, &output);
        Ok(())
    }

    /// Runs a line in the client's namespace until it prints `awaited`, and shows it.
    fn client(&mut self, line: &str, awaited: &str) -> Result<()> {
        let client = &self.scene.topology.client;
        let output = clock::wait_until_ok(line, LIMIT, || {
            let output = client.run(&["sh", "-c", line], LIMIT)?;
            ensure!(output == awaited, "{line} prints:\n{output}");
            Ok(output)
        })?;
        self.shown("client$", line, &output);
        Ok(())
    }
}

/// Who answers of so many requests, each on a connection of its own.
fn requests(count: u8, to: &str) -> String {
    format!(
        "for i in $(seq {count}); do curl --silent --max-time 2 http://{to}/; done | sort | uniq"
    )
}

/// Ages are other ones each time.
fn masked(output: &str) -> String {
    let is_age = |word: &str| {
        let digits = word.strip_suffix('s').unwrap_or_default();
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == 'm')
    };
    let mut text = String::new();
    for line in output.lines() {
        let words = line.split(' ').map(|word| match is_age(word) {
            true => format!("{:width$}", "5s", width = word.len()),
            false => word.to_owned(),
        });
        let line: Vec<String> = words.collect();
        text.push_str(line.join(" ").trim_end());
        text.push('\n');
    }
    text
}

fn tell(story: &mut Story<'_>, topology: &Topology) -> Result<()> {
    let pods: Vec<(String, String)> = (1..)
        .zip(&topology.backends)
        .map(|(n, host)| {
            (
                format!("web-{n}"),
                pod(&format!("web-{n}"), &host.address.to_string()),
            )
        })
        .collect();
    let [first, second, third] = pods.as_slice() else {
        anyhow::bail!("a topology of three backends");
    };
    let file = |pod: &(String, String)| format!("{}.yaml", pod.0);
    story.say(INTRODUCTION);

    story
        .say("## Pods\n\nTwo Pods run nginx. Without a cluster somebody writes down that they do.");
    story.write(&file(first), &first.1)?;
    story.scene.folder.write_text(&file(second), &second.1)?;
    story.shown("$", &format!("cp {} {FOLDER}/", file(second)), "");
    story.ctl(&["get", "pods", "-o", "wide"], "web-2")?;

    story.say("## A Service\n\nIt selects the Pods by their label and is given a ClusterIP.");
    story.write("web.yaml", &web("ClusterIP"))?;
    story.ctl(&["get", "svc"], "10.96.")?;
    story.ctl(&["get", "ep"], "10.0.2.12:8080")?;
    let cluster_ip = cluster_ip(story.scene)?;
    story.client(&requests(20, &cluster_ip), "web-1\nweb-2\n")?;
    story.ctl(&["describe", "service", "web"], "10.0.2.12:8080")?;

    story.say("## Scale\n\nOne Pod more, then one less; nobody has to tell the Service.");
    story.scene.folder.write_text(&file(third), &third.1)?;
    story.shown("$", &format!("cp {} {FOLDER}/", file(third)), "");
    story.ctl(&["get", "ep", "web"], "10.0.2.13:8080")?;
    story.client(&requests(60, &cluster_ip), "web-1\nweb-2\nweb-3\n")?;
    story.scene.folder.remove(&file(first))?;
    story.shown("$", &format!("rm {FOLDER}/{}", file(first)), "");
    story.ctl(&["get", "ep", "web"], "   10.0.2.12:8080,10.0.2.13:8080")?;
    story.client(&requests(20, &cluster_ip), "web-2\nweb-3\n")?;
    story.scene.folder.write_text(&file(first), &first.1)?;
    story.shown("$", &format!("cp {} {FOLDER}/", file(first)), "");

    exposed(story, topology, &cluster_ip)?;
    finer(story, &cluster_ip)
}

/// From ClusterIP to NodePort to LoadBalancer.
fn exposed(story: &mut Story<'_>, topology: &Topology, cluster_ip: &str) -> Result<()> {
    let node = topology.gateway_towards_client();
    story.say(
        "## From ClusterIP to NodePort\n\n`type: NodePort` adds a port on the gateway's own \
         addresses. The ClusterIP stays.",
    );
    story.write("web.yaml", &web("NodePort"))?;
    story.ctl(&["get", "svc"], "80:30080/TCP")?;
    let all = "web-1\nweb-2\nweb-3\n";
    story.client(&requests(60, &format!("{node}:30080")), all)?;

    story.say(
        "## From NodePort to LoadBalancer\n\nWithout a pool there is no address to give: the \
         Service waits, and tells why.",
    );
    let balancer = web("LoadBalancer");
    story.scene.folder.write_text("web.yaml", &balancer)?;
    let edit = format!("sed -i 's/NodePort/LoadBalancer/' {FOLDER}/web.yaml");
    story.shown("$", &edit, "");
    story.ctl(&["get", "svc"], "<pending>")?;
    story.ctl(&["get", "events"], "AllocationFailed")?;
    story.say("A pool of addresses mends that.");
    story.write("pool.yaml", POOL)?;
    story.ctl(&["get", "svc"], "203.0.113.10")?;
    story.ctl(&["get", "pools"], "public")?;
    story.client(&requests(60, "203.0.113.10"), all)?;
    story.client(&requests(60, cluster_ip), all)
}

/// Sticky sessions, Services without an address, and a drain.
fn finer(story: &mut Story<'_>, cluster_ip: &str) -> Result<()> {
    story.say("## Sticky sessions\n\n`sessionAffinity: ClientIP` keeps a client with its Pod.");
    let sticky = web("LoadBalancer").replace("spec:\n", "spec:\n  sessionAffinity: ClientIP\n");
    story.scene.folder.write_text("web.yaml", &sticky)?;
    let edit = format!("sed -i 's/^spec:/spec:\\n  sessionAffinity: ClientIP/' {FOLDER}/web.yaml");
    story.shown("$", &edit, "");
    story.ctl(&["get", "svc", "web", "-o", "wide"], "affinity=10800s")?;
    let count = format!("{} | wc -l", requests(30, "203.0.113.10"));
    story.client(&count, "1\n")?;
    story
        .scene
        .folder
        .write_text("web.yaml", &web("LoadBalancer"))?;
    let edit = format!("sed -i '/sessionAffinity/d' {FOLDER}/web.yaml");
    story.shown("$", &edit, "");

    story.say(
        "## Headless and ExternalName\n\nA headless Service has no address, only endpoints; an \
         ExternalName is another name for somebody else.",
    );
    story.write("others.yaml", OTHERS)?;
    story.ctl(&["get", "svc"], "api.example.com")?;
    story.ctl(&["get", "ep"], "web-pods")?;

    story.say(
        "## Drain\n\nBefore a Pod is worked on, it is taken out of use: new connections go \
         elsewhere, and those that it has may end.",
    );
    story.ctl(&["drain", "pod/web-3", "--timeout", "3600"], "1 endpoint")?;
    story.ctl(&["get", "drains"], "draining")?;
    story.ctl(&["get", "ep", "web"], "   10.0.2.11:8080,10.0.2.12:8080 ")?;
    story.client(&requests(20, cluster_ip), "web-1\nweb-2\n")?;
    story.ctl(&["undrain", "pod/web-3"], "in use again")?;
    story.client(&requests(60, cluster_ip), "web-1\nweb-2\nweb-3\n")?;

    story.say("## What happened");
    story.ctl(&["events"], "Undrained")
}

const INTRODUCTION: &str = "\
# A walk through Services

This is a Services tutorial as for any Kubernetes cluster, done with a folder of manifests and \
`sluicectl`. The gateway has the address 10.0.1.1 towards its clients and serves the Pods of \
10.0.2.0/24; `client$` is a machine behind it. Its settings differ from the example \
(`conf/examples/controlplane.toml`) in these lines:

```toml
[cluster]
service_networks = [\"10.96.0.0/24\"]

[node_ports]
addresses = [\"10.0.1.1\"]

[draining]
notice_seconds = 0
```

Every command below was run, and what it printed is shown (ages are made alike): \
`tests/tests/controlplane/walkthrough.rs` does that at every test run and fails when this page is not true any \
more.";

/// The ClusterIP that the Service was given.
fn cluster_ip(scene: &Scene) -> Result<String> {
    let words = ["get", "svc", "web", "-o", "json"];
    let rows: serde_json::Value = serde_json::from_str(&daemon::sluicectl(scene.paths(), &words)?)?;
    let address = rows.pointer("/0/cluster_ips/0").and_then(|ip| ip.as_str());
    Ok(address.context("a ClusterIP")?.to_owned())
}

/// Compares what was told with the document, or writes that.
fn check(told: &str) -> Result<()> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/walkthrough.md");
    if env::var_os("SLUICE_WRITE_DOCS").is_some() {
        return fs::write(&file, told).context("docs/walkthrough.md");
    }
    let document = fs::read_to_string(&file).context("docs/walkthrough.md")?;
    // The width of a column may follow an age.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (number, (told, written)) in (1..).zip(told.lines().zip(document.lines())) {
        ensure!(
            words(told) == words(written),
            "docs/walkthrough.md:{number}: is not true any more; run this test with \
             SLUICE_WRITE_DOCS=1\n  written: {written}\n  now:     {told}"
        );
    }
    ensure!(
        told.lines().count() == document.lines().count(),
        "docs/walkthrough.md has not as many lines as this run; run this test with \
         SLUICE_WRITE_DOCS=1"
    );
    Ok(())
}

#[test]
fn the_walk_through_is_true() -> Result<()> {
    let more = More {
        controlplane: "[cluster]\nservice_networks = [\"10.96.0.0/24\"]\n[draining]\nnotice_seconds = 0\n",
        ..More::default()
    };
    scene::with_settings(
        Topology::builder(),
        more,
        |_| Vec::new(),
        |scene| {
            let hosts = (1..).zip(&scene.topology.backends);
            let nginx = hosts.map(|(n, host)| {
                let dir = scene.dir();
                Nginx::start_in(&host.namespace, &format!("web-{n}"), dir, dir)
            });
            let _nginx = nginx.collect::<Result<Vec<_>>>()?;
            let mut story = Story {
                scene,
                text: String::new(),
            };
            let told = tell(&mut story, &scene.topology);
            let text = story.text.trim_end().to_owned() + "\n";
            told.with_context(|| format!("after this:\n{text}"))?;
            check(&text)
        },
    )
}
