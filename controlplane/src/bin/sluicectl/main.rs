//! `sluicectl`: what an operator asks of Sluice's two daemons.
#![forbid(unsafe_code)]

mod capture;
mod connections;
mod describe;
mod dns;
mod drain;
mod drops;
mod env;
mod explain;
mod follow;
mod get;
mod history;
mod output;
mod plan;
mod status;
mod trace;

use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use sluice_conf::message::{controlplane, dataplane};
use sluice_conf::{Protocol, settings};
use sluice_controlplane::client::{Client, ClientError};
use sluice_controlplane::words;

use output::Format;

/// Exit code for a mistake in the call and for a daemon that does not answer.
const MISTAKE: u8 = 2;
/// Exit code when part of what was asked for is not there.
const PARTLY: u8 = 1;

/// Asks Sluice's daemons what they know and do.
#[derive(Parser)]
#[command(name = "sluicectl", version)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Common {
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Format,
    /// For what has namespaces: only this one. get, describe, dns, env and events without it: default.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// For get and connections: all namespaces.
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Socket of the dataplane.
    #[arg(long, global = true, env = "SLUICE_DATAPLANE_SOCKET", value_name = "PATH",
        default_value_os_t = settings::dataplane::Control::default().socket)]
    dataplane_socket: PathBuf,
    /// Socket of the control plane.
    #[arg(long, global = true, env = "SLUICE_CONTROLPLANE_SOCKET", value_name = "PATH",
        default_value_os_t = settings::controlplane::Control::default().socket)]
    controlplane_socket: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// How both daemons are, and what is wrong with the manifests.
    Status,
    /// Lists objects as kubectl does.
    #[command(subcommand)]
    Get(Object),
    /// Everything about one object, as kubectl tells it.
    #[command(subcommand)]
    Describe(Described),
    /// What happened lately: addresses, health, drains, refused tables.
    Events,
    /// Takes endpoints out of use: DNS first, then new connections, then existing ones.
    Drain {
        /// NODE, node/NODE, pod/POD, pod/NAMESPACE/POD or an address.
        #[arg(value_name = "NODE|POD|ADDRESS")]
        target: String,
        /// How long existing connections may go on after new ones stopped; without, until they end.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u32>,
    },
    /// Puts endpoints back in use.
    Undrain {
        /// As it was drained.
        #[arg(value_name = "NODE|POD|ADDRESS")]
        target: String,
    },
    /// Lists tracked connections.
    Connections(Filter),
    /// Why frames were dropped.
    Drops {
        /// Also reasons that never happened.
        #[arg(long)]
        all: bool,
        /// Also what to do about them.
        #[arg(long)]
        explain: bool,
    },
    /// What would become of a packet, and why; sends nothing.
    Explain(explain::Packet),
    /// What the DNS server answers, from which object, and why an endpoint is missing.
    Dns(dns::Question),
    /// Follows live packets, one line each.
    Trace(follow::Which),
    /// Writes live packets to a file, for Wireshark and tcpdump.
    Capture {
        #[command(flatten)]
        which: follow::Which,
        /// The pcapng file; an existing one is replaced.
        #[arg(short, long, value_name = "FILE")]
        write: PathBuf,
    },
    /// What manifests would change, and how many connections that touches; changes nothing.
    Plan(plan::Manifests),
    /// Past tables that can be rolled back to.
    History,
    /// Puts a past table in force and keeps it there, until it is released.
    Rollback(history::Back),
    /// The environment variables that announce Services to a workload, as the kubelet gives them.
    Env(env::Wanted),
    /// Prints a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum Object {
    /// Services.
    #[command(visible_alias = "svc", alias = "service")]
    Services(Names),
    /// Endpoints of Services.
    #[command(visible_alias = "ep", alias = "endpoint")]
    Endpoints(Names),
    /// Pools of load-balancer addresses, and how much of them is taken.
    #[command(alias = "pool", alias = "addresspools", alias = "addresspool")]
    Pools(Names),
    /// ServicePolicies.
    #[command(alias = "policy", alias = "servicepolicies", alias = "servicepolicy")]
    Policies(Names),
    /// Nodes.
    #[command(visible_alias = "no", alias = "node")]
    Nodes(Names),
    /// Pods.
    #[command(visible_alias = "po", alias = "pod")]
    Pods(Names),
    /// What is drained, and how far.
    #[command(alias = "drain")]
    Drains,
    /// What happened lately.
    #[command(visible_alias = "ev", alias = "event")]
    Events,
}

#[derive(Subcommand)]
enum Described {
    /// A Service.
    #[command(visible_alias = "svc", alias = "services")]
    Service {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
struct Names {
    /// Only those of these names.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args)]
struct Filter {
    /// Only of this Service.
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    service: Option<String>,
    /// Only of this client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// At most so many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// A protocol as it is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl From<Proto> for Protocol {
    fn from(proto: Proto) -> Self {
        match proto {
            Proto::Tcp => Protocol::Tcp,
            Proto::Udp => Protocol::Udp,
            Proto::Sctp => Protocol::Sctp,
        }
    }
}

/// What a verb has to say.
struct Answer {
    text: String,
    /// What is not part of the answer; goes to stderr.
    remark: Option<String>,
    code: u8,
}

impl Answer {
    fn of(text: String) -> Self {
        Self {
            text,
            remark: None,
            code: 0,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).and_then(|answer| {
        print(&answer)?;
        Ok(answer.code)
    }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sluicectl: {error}");
            ExitCode::from(MISTAKE)
        }
    }
}

fn print(answer: &Answer) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(answer.text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        // Whoever reads may stop early, as head does.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            anyhow::bail!("cannot write: {}", words::plain(&error))
        }
        _ => {}
    }
    if let Some(remark) = &answer.remark {
        let _ = writeln!(std::io::stderr(), "{remark}");
    }
    Ok(())
}

fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let common = &arguments.common;
    match &arguments.verb {
        Verb::Status => status::run(common),
        Verb::Get(Object::Services(only)) => get::services(common, &only.names),
        Verb::Get(Object::Endpoints(only)) => get::endpoints(common, &only.names),
        Verb::Get(Object::Pools(only)) => get::pools(common, &only.names),
        Verb::Get(Object::Policies(only)) => get::policies(common, &only.names),
        Verb::Get(Object::Nodes(only)) => get::nodes(common, &only.names),
        Verb::Get(Object::Pods(only)) => get::pods(common, &only.names),
        Verb::Get(Object::Drains) => get::drains(common),
        Verb::Get(Object::Events) | Verb::Events => drain::events(common),
        Verb::Describe(Described::Service { name }) => describe::service(common, name),
        Verb::Drain { target, timeout } => drain::drain(common, target, *timeout),
        Verb::Undrain { target } => drain::undrain(common, target),
        Verb::Connections(filter) => connections::run(common, filter),
        Verb::Drops { all, explain } => drops::run(common, *all, *explain),
        Verb::Explain(packet) => explain::run(common, packet),
        Verb::Dns(question) => dns::run(common, question),
        Verb::Trace(which) => trace::run(common, which),
        Verb::Capture { which, write } => capture::run(common, which, write),
        Verb::Plan(manifests) => plan::run(common, manifests),
        Verb::History => history::history(common),
        Verb::Rollback(back) => history::rollback(common, back),
        Verb::Env(wanted) => env::run(common, wanted),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(*shell, &mut command, "sluicectl", &mut script);
            Ok(Answer::of(String::from_utf8_lossy(&script).into_owned()))
        }
    }
}

impl Common {
    /// The namespace to list, as kubectl chooses it; `None` means all.
    fn listed_namespace(&self) -> Option<String> {
        match self.all_namespaces {
            true => None,
            false => Some(
                self.namespace
                    .clone()
                    .unwrap_or_else(|| "default".to_owned()),
            ),
        }
    }

    fn ask_dataplane(&self, request: &dataplane::Request) -> Result<dataplane::Reply, ClientError> {
        use dataplane::{Reply, Request};
        let daemon = "dataplane";
        let mut client = Client::connect(daemon, &self.dataplane_socket)?;
        for request in [&Request::Hello(Client::hello()), request] {
            match client.ask(request)? {
                Reply::Refused(reason) => return Err(ClientError::Refused { daemon, reason }),
                Reply::Hello { .. } => {}
                reply => return Ok(reply),
            }
        }
        Err(ClientError::Unexpected(daemon))
    }

    fn ask_controlplane(
        &self,
        request: &controlplane::Request,
    ) -> Result<controlplane::Reply, ClientError> {
        use controlplane::{Reply, Request};
        let daemon = "control plane";
        let mut client = Client::connect(daemon, &self.controlplane_socket)?;
        for request in [&Request::Hello(Client::hello()), request] {
            match client.ask(request)? {
                Reply::Refused(reason) => return Err(ClientError::Refused { daemon, reason }),
                Reply::Hello { .. } => {}
                reply => return Ok(reply),
            }
        }
        Err(ClientError::Unexpected(daemon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_namespace_is_chosen_as_kubectl_does() {
        let namespace = |line: &str| {
            let words = line.split(' ');
            Arguments::try_parse_from(words).map(|a| a.common.listed_namespace())
        };
        assert_eq!(
            namespace("sluicectl get svc").unwrap(),
            Some("default".into())
        );
        assert_eq!(
            namespace("sluicectl get svc -n shop").unwrap(),
            Some("shop".into())
        );
        assert_eq!(namespace("sluicectl -A get ep").unwrap(), None);
        assert!(namespace("sluicectl get ep -A -n shop").is_err());
    }
}
