//! What `trace` and `capture` share: the filter, the stream of packets, the end.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use sluice_conf::message::dataplane::tap::{TapBatch, TapFilter, TapSettings, TappedPacket};
use sluice_conf::message::dataplane::{Reply, Request};
use sluice_controlplane::client::{Client, ClientError};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::words::count;

use crate::{Common, Proto};

const DAEMON: &str = "dataplane";

#[derive(Args)]
pub struct Which {
    /// Only packets from or to this client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Only packets whose other end has this address: a Service's, or a backend's.
    #[arg(long, value_name = "ADDRESS")]
    service_address: Option<IpAddr>,
    /// Only packets whose other end has this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only this protocol.
    #[arg(long, value_enum)]
    proto: Option<Proto>,
    /// Of the packets that match, only one in so many of each worker.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

impl Which {
    fn settings(&self, snap_len: u16) -> TapSettings {
        TapSettings {
            filter: TapFilter {
                client: self.client,
                service: self.service_address,
                port: self.port,
                protocol: self.proto.map(Into::into),
            },
            sample: self.sample,
            snap_len,
        }
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    shown: u64,
    lost: u64,
}

impl Tally {
    /// In words, with `done` for what was done to the packets.
    pub fn words(self, done: &str) -> String {
        let packets = count(self.shown as usize, "packet");
        match self.lost {
            0 => format!("{packets} {done}"),
            lost => format!(
                "{packets} {done}, {lost} lost: too many to follow; narrow the filter or raise --sample"
            ),
        }
    }
}

/// Packets that come in, from the moment at which the dataplane has agreed.
pub struct Stream<'a> {
    client: Client,
    which: &'a Which,
    first: TapBatch,
}

impl<'a> Stream<'a> {
    /// Has the dataplane begin; it keeps `snap_len` bytes of each frame.
    pub fn open(common: &Common, which: &'a Which, snap_len: u16) -> Result<Self, ClientError> {
        let mut client = Client::connect(DAEMON, &common.dataplane_socket)?;
        if let Reply::Refused(reason) = client.ask(&Request::Hello(Client::hello()))? {
            let daemon = DAEMON;
            return Err(ClientError::Refused { daemon, reason });
        }
        let first = batch(client.ask(&Request::Tap(which.settings(snap_len)))?)?;
        Ok(Self {
            client,
            which,
            first,
        })
    }

    /// Hands packets to `each` until it breaks, the limits of the call are reached or Ctrl-C is
    /// pressed. `each` says whether the packet counts.
    pub fn follow(
        mut self,
        mut each: impl FnMut(&TappedPacket) -> anyhow::Result<ControlFlow<(), bool>>,
    ) -> anyhow::Result<Tally> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let end = self.which.seconds.map(Duration::from_secs);
        let clock = Clock::start();
        let is_enough = |shown| self.which.count.is_some_and(|most| shown >= most);
        let mut tally = Tally::default();
        let mut seen = self.first;
        loop {
            tally.lost = seen.lost;
            for packet in &seen.packets {
                match each(packet)? {
                    ControlFlow::Continue(counts) => tally.shown += u64::from(counts),
                    ControlFlow::Break(()) => return Ok(tally),
                }
                if is_enough(tally.shown) {
                    return Ok(tally);
                }
            }
            let is_over = end.is_some_and(|end| clock.now() >= end);
            if is_over || is_enough(tally.shown) || stop.load(Ordering::Relaxed) {
                return Ok(tally);
            }
            seen = batch(self.client.receive()?)?;
        }
    }
}

fn batch(reply: Reply) -> Result<TapBatch, ClientError> {
    match reply {
        Reply::Tapped(batch) => Ok(batch),
        Reply::Refused(reason) => {
            let daemon = DAEMON;
            Err(ClientError::Refused { daemon, reason })
        }
        _ => Err(ClientError::Unexpected(DAEMON)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_said() {
        let tally = |shown, lost| Tally { shown, lost }.words("captured");
        assert_eq!(tally(1, 0), "1 packet captured");
        assert!(tally(0, 7).starts_with("0 packets captured, 7 lost"));
    }
}
