//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use sluice_benches::generator::flow::{self, Clients};
use sluice_benches::generator::live::Seat;
use sluice_benches::generator::plan::{IMIX, MOST_DRAWS, Mac, Plan, Protocol, SIZES, Script};
use sluice_benches::namespace::{Namespace, parse_mac};
use sluice_benches::rate::Rate;
use sluice_benches::sink::program::{Network, host};
use sluice_benches::sink::{Action, Expectation};
use sluice_benches::trial::Kind;

const EXAMPLES: &str = "\
Examples:
  A gateway between eth1 and eth2 of this host's cabling: a million packets a second of 10,000 flows
  to a Service, counted where its backend would be:
    loadgen run --interface eth1 --to 203.0.113.10:80 --to-mac 02:00:00:00:00:01 \\
        --from 10.64.0.0/16 --flows 10000 --rate 1M --sink eth2
  The highest rate with at most 0.1 % loss, then latency at 10, 50 and 90 % of it, with charts:
    loadgen search --interface eth1 --to 203.0.113.10:80 --to-mac 02:00:00:00:00:01 \\
        --from 10.64.0.0/16 --sink eth2 --json report.json --csv report.csv --svg report
  New TCP connections (SYN, ACK, FIN, ACK from the client, answered by the sink):
    loadgen run --interface eth1 --to 203.0.113.10:80 --to-mac 02:00:00:00:00:01 \\
        --from 10.64.0.0/16 --flows 1000000 --protocol tcp --script connection --rate 400k \\
        --sink eth2 --answer

It needs root, Linux 5.18 or later, and a route back: neighbours that do not answer ARP receive
nothing. Frames of others are left alone. Over veth, the far end of --interface needs an XDP program
(Sluice has one) for --kind live.";

/// Sends packets of many flows through a gateway, verifies what arrives behind it, and tells
/// throughput, loss and latency.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send at given rates, one after the other.
    #[command(after_long_help = EXAMPLES)]
    Run(RunArguments),
    /// Find the highest rate that hardly loses anything.
    #[command(after_long_help = EXAMPLES)]
    Search(SearchArguments),
}

#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub traffic: Traffic,
    /// Packets a second, as 800, 250k, 1.5M or max; several are sent one after the other.
    #[arg(long, value_delimiter = ',', default_value = "max")]
    pub rate: Vec<Rate>,
    /// For how long each, as 500ms or 10s.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub duration: Duration,
}

#[derive(Debug, Args)]
pub struct SearchArguments {
    #[command(flatten)]
    pub traffic: Traffic,
    /// First rate to be tried.
    #[arg(long, default_value = "100k")]
    pub from_rate: Rate,
    /// Highest rate to be tried.
    #[arg(long, default_value = "20M")]
    pub to_rate: Rate,
    /// Share of frames that may be lost, in percent.
    #[arg(long, default_value_t = 0.1)]
    pub loss: f64,
    /// How exact the answer shall be, in percent.
    #[arg(long, default_value_t = 2.0)]
    pub precision: f64,
    /// Trials of one rate, of which most must pass; odd.
    #[arg(long, default_value_t = 3)]
    pub repeats: u32,
    /// How long a trial takes.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long the answer is confirmed, and latencies are measured.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub confirm: Duration,
}

/// What is sent where, and what shall arrive.
#[derive(Debug, Args)]
pub struct Traffic {
    /// Interface to send from.
    #[arg(long)]
    pub interface: String,
    /// Its network namespace (of `ip netns`).
    #[arg(long)]
    netns: Option<String>,
    /// Address and port to send to; several are used in turn, flow by flow.
    #[arg(long, required = true, value_delimiter = ',')]
    pub to: Vec<SocketAddr>,
    /// Ethernet address of the gateway.
    #[arg(long, value_parser = mac)]
    to_mac: Mac,
    /// Network that clients are in, at most 2^17 addresses. Replies must be routed to it.
    #[arg(long, default_value = "10.64.0.0/16", value_parser = network)]
    from: Network,
    /// Protocol.
    #[arg(long, value_enum, default_value = "udp")]
    pub protocol: Protocol,
    /// What a flow consists of.
    #[arg(long, value_enum, default_value = "data")]
    script: Script,
    /// Flows: pairs of client address and port, in the order of a keyed permutation.
    #[arg(long, default_value_t = 1000)]
    pub flows: u64,
    /// Send flows by Zipf's law with this exponent instead of all in turn.
    #[arg(long)]
    zipf: Option<f64>,
    /// Bytes of a frame without its checksum, or imix (7 x 60, 4 x 590, 1 x 1514); raised to what
    /// headers and 20 bytes for the sink need.
    #[arg(long, default_value = "60", value_parser = sizes)]
    size: [u16; SIZES],
    /// Whether the kernel generates (live: fastest) or this process (socket: packets with an skb).
    #[arg(long, value_enum, default_value = "live")]
    pub kind: Kind,
    /// CPUs to generate on, one generator on each.
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Frames that the kernel sends together.
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// How late the generator may be before it leaves frames out.
    #[arg(long, default_value = "100us", value_parser = parse_duration)]
    burst: Duration,
    /// Time between two packets of a connection.
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    pause: Duration,
    /// Chooses which clients the flows are.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Interface behind the gateway where frames arrive. Without it only what is sent is told.
    #[arg(long)]
    pub sink: Option<String>,
    /// Network namespace of the sink.
    #[arg(long)]
    sink_netns: Option<String>,
    /// The sink answers as a server would, and replies are counted on --interface.
    #[arg(long)]
    pub answer: bool,
    /// Network that frames must come from at the sink (after source NAT).
    #[arg(long, value_parser = network)]
    expect_source: Option<Network>,
    /// Network that frames must go to at the sink: the backends.
    #[arg(long, value_parser = network)]
    expect_destination: Option<Network>,
    /// Port that frames must go to at the sink.
    #[arg(long)]
    expect_port: Option<u16>,
    /// Check the sums of one frame in so many; a power of two.
    #[arg(long, default_value_t = 16)]
    check_one_in: u32,
    /// Follow sequence numbers of at most so many flows (16 bytes each).
    #[arg(long, default_value_t = 1_000_000)]
    pub track_flows: u32,
    /// Write everything to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a line for every trial to this file as CSV.
    #[arg(long)]
    pub csv: Option<PathBuf>,
    /// Draw charts to FILE-loss.svg and FILE-latency.svg.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

impl Traffic {
    pub fn namespace(&self) -> Namespace {
        Namespace(self.netns.clone())
    }

    pub fn sink_namespace(&self) -> Namespace {
        Namespace(self.sink_netns.clone())
    }

    /// What to send, and from where.
    pub fn plan(&self) -> Result<(Plan, Vec<Seat>)> {
        let namespace = self.namespace();
        let interface = namespace.interface(&self.interface)?;
        let clients = Clients::new(self.from.0, u32::from(self.from.1))?;
        let mut plan = Plan::new(interface.mac, self.to_mac, clients, self.to.clone());
        plan.protocol = self.protocol;
        plan.script = self.script;
        plan.flows = self.flows;
        plan.sizes = self.size;
        plan.burst = self.burst;
        plan.pause = self.pause;
        plan.key = flow::key(self.seed);
        if let Some(exponent) = self.zipf {
            if self.flows > MOST_DRAWS as u64 {
                bail!("--zipf is possible with at most {MOST_DRAWS} flows");
            }
            plan.draws = flow::zipf(self.flows, exponent, MOST_DRAWS, self.seed);
        }
        plan.fit();
        let cpus: Vec<Option<usize>> = match self.cpu.as_slice() {
            [] => vec![None],
            cpus => cpus.iter().copied().map(Some).collect(),
        };
        let seat = |cpu| Seat {
            namespace: namespace.clone(),
            interface: interface.clone(),
            cpu,
            batch: self.batch,
        };
        Ok((plan, cpus.into_iter().map(seat).collect()))
    }

    /// What sinks expect: the one behind the gateway, and the one before it.
    pub fn expectations(&self, plan: &Plan) -> [Expectation; 2] {
        let flows = u32::try_from(plan.flows).unwrap_or(0);
        let common = Expectation {
            flows: if flows <= self.track_flows { flows } else { 0 },
            check_one_in: self.check_one_in,
            ..Expectation::of_run(plan.run)
        };
        let behind = Expectation {
            action: if self.answer {
                Action::Reply
            } else {
                Action::Drop
            },
            source: self.expect_source,
            destination: self.expect_destination,
            port: self.expect_port,
            ..common.clone()
        };
        let before = Expectation {
            // Of a connection only some packets are answered.
            flows: 0,
            source: match self.to.as_slice() {
                [only] => Some(host(only.ip())),
                _ => None,
            },
            destination: Some(self.from),
            ..common
        };
        [behind, before]
    }
}

fn mac(text: &str) -> Result<Mac, String> {
    parse_mac(text).ok_or_else(|| format!("{text:?} is no Ethernet address like 02:00:00:00:00:01"))
}

fn network(text: &str) -> Result<Network> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address
        .parse()
        .with_context(|| format!("{text:?} is no network like 10.64.0.0/16"))?;
    let whole = host(address);
    let prefix = match prefix {
        "" => whole.1,
        prefix => prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= whole.1)
            .with_context(|| format!("{text:?} has no usable prefix"))?,
    };
    Ok((address, prefix))
}

fn sizes(text: &str) -> Result<[u16; SIZES], String> {
    if text == "imix" {
        return Ok(IMIX);
    }
    let size: u16 = text
        .parse()
        .map_err(|_| format!("{text:?} is neither a number of bytes nor imix"))?;
    Ok([size; SIZES])
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic());
    let (digits, unit) = text.split_at(at.unwrap_or(text.len()));
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => 0.0,
    };
    let seconds = digits.parse::<f64>().unwrap_or(0.0) * unit;
    if seconds.is_finite() && seconds > 0.0 && seconds < 1e6 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{text:?} is no duration like 500ms, 10s or 2m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("3", 3000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "s", "-1s", "5h", "1e9m", "NaNs"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_have_prefixes() {
        assert_eq!(network("10.0.0.0/8").unwrap().1, 8);
        assert_eq!(network("2001:db8::1").unwrap().1, 128);
        for text in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/x"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
