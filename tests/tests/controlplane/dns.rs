//! Services by name: real clients ask the control plane's DNS server, and go on to what it says.

mod course;
mod hostile;
mod lookups;
mod through;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::inside;
use sluice_tests::names::{self, LIMIT, message};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Where the control plane answers when its settings say nothing.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5353);

/// A Service without an address of its own, `db`, and one with a Vip, `web`, with the same endpoints;
/// each is ready or not.
fn pair(endpoints: &[(&str, bool)]) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  clusterIP: None\n  \
         ports: [{name: sql, port: 5432}]\n---\napiVersion: v1\nkind: Service\n\
         metadata: {name: web}\nspec:\n  clusterIP: 10.96.0.10\n  \
         ports: [{name: sql, port: 5432}]\n",
    );
    for service in ["db", "web"] {
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {service}-1\n  labels: {{kubernetes.io/service-name: {service}}}\n\
             addressType: IPv4\nports: [{{name: sql, port: 5432}}]\nendpoints:\n"
        ));
        for (address, ready) in endpoints {
            text.push_str(&format!(
                "- {{addresses: [{address}], conditions: {{ready: {ready}}}}}\n"
            ));
        }
    }
    text
}

/// A control plane alone with [`pair`].
fn with_pair(more: &str, endpoints: &[(&str, bool)]) -> Result<Alone> {
    let alone = Alone::start(more, |folder| {
        folder.write_text("pair.yaml", &pair(endpoints))
    })?;
    let ready = endpoints.iter().filter(|(_, ready)| *ready);
    let ready: Vec<&str> = ready.map(|(address, _)| *address).collect();
    until_named(&alone, &ready)?;
    Ok(alone)
}

/// Waits until the Service without an address has these.
fn until_named(alone: &Alone, wanted: &[&str]) -> Result<()> {
    let name = names::of_service("db");
    clock::wait_until_ok("the names", LIMIT, || {
        let found = names::addresses(&alone.namespace, SERVER, &name)?;
        if found != wanted {
            bail!("{name} has {found:?}, not {wanted:?}");
        }
        Ok(())
    })
}

/// Asks by UDP until an answer comes; of those that are lost the next is sent.
async fn ask(name: &str) -> Result<message::Answer> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(SERVER).await?;
    let mut buffer = [0; 4096];
    for id in 0..20 {
        socket
            .send(&message::question(id, name, message::A))
            .await?;
        let received = timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await;
        if let Ok(Ok(length)) = received {
            return message::answer(&buffer[..length]).context("no answer of DNS");
        }
    }
    bail!("{name}: no answer")
}

/// That the server goes on answering.
fn still_answers(alone: &mut Alone) -> Result<()> {
    alone.process.still_running()?;
    let answer = inside::run(&alone.namespace, ask(&names::of_service("web")))?;
    if answer.addresses != [Ipv4Addr::new(10, 96, 0, 10)] {
        bail!("another answer: {answer:?}");
    }
    Ok(())
}
