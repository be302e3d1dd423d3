//! The sink's XDP program: loading, attaching, what it expects and what it has counted.

use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{Xdp, XdpFlags};
use aya::{Ebpf, EbpfLoader};
use serde::{Deserialize, Serialize};

use super::histogram::{BUCKETS, Histogram};
use super::sighting::Sighting;
use crate::namespace::Namespace;

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.bpf.o"));

const COUNTERS: usize = 16;
/// `struct results` of sink.h.
const RESULT_WORDS: usize = COUNTERS + BUCKETS;
/// `struct sink_config` of sink.h.
const CONFIG_BYTES: usize = 88;

/// What happens to a frame that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is dropped.
    Drop,
    /// It is answered as a server would: TCP's SYN and FIN, and every datagram, go back.
    Reply,
}

/// A network.
pub type Network = (IpAddr, u8);

/// What frames of a run must be like.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The run.
    pub run: u32,
    /// Flows of which sequence numbers are looked at.
    pub flows: u32,
    /// Sums of one frame in so many are checked; a power of two.
    pub check_one_in: u32,
    /// What happens to them.
    pub action: Action,
    /// Where they must come from; anywhere when there is none.
    pub source: Option<Network>,
    /// Where they must go to; anywhere when there is none.
    pub destination: Option<Network>,
    /// Port that they must go to; any when there is none.
    pub port: Option<u16>,
}

impl Expectation {
    /// Frames of a run, from anywhere to anywhere.
    pub fn of_run(run: u32) -> Self {
        Self {
            run,
            flows: 0,
            check_one_in: 1,
            action: Action::Drop,
            source: None,
            destination: None,
            port: None,
        }
    }

    fn bytes(&self) -> [u8; CONFIG_BYTES] {
        let mut bytes = Vec::with_capacity(CONFIG_BYTES);
        let action = u32::from(self.action == Action::Reply);
        let mask = self.check_one_in.next_power_of_two() - 1;
        for word in [self.run, self.flows, mask, action] {
            bytes.extend(word.to_ne_bytes());
        }
        let (source, source_mask) = network_bytes(self.source);
        let (destination, destination_mask) = network_bytes(self.destination);
        for part in [source, destination, source_mask, destination_mask] {
            bytes.extend(part);
        }
        bytes.extend(u32::from(self.port.unwrap_or(0)).to_ne_bytes());
        bytes.extend([0; 4]);
        let mut whole = [0; CONFIG_BYTES];
        whole.copy_from_slice(&bytes);
        whole
    }
}

/// Address and mask, IPv4 as ::ffff:a.b.c.d; zeros are everybody.
pub(super) fn network_bytes(network: Option<Network>) -> ([u8; 16], [u8; 16]) {
    let Some((address, prefix)) = network else {
        return ([0; 16], [0; 16]);
    };
    let (octets, bits) = match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), u32::from(prefix) + 96),
        IpAddr::V6(address) => (address.octets(), u32::from(prefix)),
    };
    let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
    (octets, mask.to_be_bytes())
}

/// What a sink has seen of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Frames.
    pub received: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames that were not the run's.
    pub foreign: u64,
    /// Frames whose sums were checked.
    pub checked: u64,
    /// Of these, how many had a wrong sum in the IPv4 header.
    pub bad_ip_sum: u64,
    /// Of these, how many had a wrong sum in the transport.
    pub bad_sum: u64,
    /// Frames from or to where they should not be.
    pub wrong_tuple: u64,
    /// Frames whose flow had other addresses or ports before.
    pub moved: u64,
    /// Sequence numbers that were leapt over.
    pub missing: u64,
    /// Sequence numbers that came after a later one, or twice.
    pub late: u64,
    /// Frames that were answered.
    pub replied: u64,
    /// Sum of all latencies, ns.
    pub latency_sum: u64,
    /// Largest latency, ns.
    pub latency_max: u64,
    /// Flows seen.
    pub flows: u64,
    /// Frames of the run's flood; in no other count.
    pub flood: u64,
    /// Latencies, ns.
    pub latency: Histogram,
}

impl Tally {
    fn from_words<'w>(cpus: impl Iterator<Item = &'w [u64; RESULT_WORDS]>) -> Self {
        let mut sums = [0u64; COUNTERS];
        let (mut latency, mut latency_max) = (Histogram::default(), 0);
        for words in cpus {
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += word;
            }
            latency_max = latency_max.max(words[12]);
            for (bucket, count) in words[COUNTERS..].iter().enumerate() {
                latency.add(bucket, *count);
            }
        }
        let [
            received,
            bytes,
            foreign,
            checked,
            bad_ip_sum,
            bad_sum,
            wrong_tuple,
            moved,
            missing,
            late,
            replied,
            latency_sum,
            _,
            flows,
            flood,
            ..,
        ] = sums;
        Self {
            received,
            bytes,
            foreign,
            checked,
            bad_ip_sum,
            bad_sum,
            wrong_tuple,
            moved,
            missing,
            late,
            replied,
            latency_sum,
            latency_max,
            flows,
            flood,
            latency,
        }
    }

    /// Frames that arrived changed in a way that they should not.
    pub fn wrong(&self) -> u64 {
        self.bad_ip_sum + self.bad_sum + self.wrong_tuple
    }

    /// Average latency, ns.
    pub fn average(&self) -> u64 {
        self.latency_sum / self.received.max(1)
    }
}

/// The sink on an interface. Dropping it detaches it.
pub struct Sink {
    ebpf: Ebpf,
    settings: Array<MapData, [u8; CONFIG_BYTES]>,
    results: PerCpuArray<MapData, [u64; RESULT_WORDS]>,
    flows: u32,
}

impl Sink {
    /// Attaches it to an interface, in the driver or else in the generic hook, with room for
    /// `flows` flows. It expects nothing yet and leaves everything to the kernel.
    ///
    /// # Errors
    /// No permission, or no such interface.
    pub fn attach(namespace: &Namespace, interface: &str, flows: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .set_max_entries("flows", flows.max(1))
            .load(PROGRAM)
            .context("the sink's BPF program cannot be loaded; it needs root")?;
        let map = |ebpf: &mut Ebpf, name| ebpf.take_map(name).context("a map of the sink");
        let settings = Array::try_from(map(&mut ebpf, "settings")?)?;
        let results = PerCpuArray::try_from(map(&mut ebpf, "results")?)?;
        let program = ebpf.program_mut("sink").context("no BPF program `sink`")?;
        let program: &mut Xdp = program.try_into()?;
        program
            .load()
            .context("the kernel refuses the sink's BPF program")?;
        namespace.within(|| {
            let native = program.attach(interface, XdpFlags::DRV_MODE);
            let attached = native.or_else(|_| program.attach(interface, XdpFlags::SKB_MODE));
            attached.with_context(|| format!("the sink cannot be attached to {interface}"))
        })?;
        Ok(Self {
            ebpf,
            settings,
            results,
            flows: flows.max(1),
        })
    }

    /// Forgets what was counted and expects a run.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn expect(&mut self, expectation: &Expectation) -> Result<()> {
        let mut expectation = expectation.clone();
        if expectation.flows > self.flows {
            expectation.flows = 0;
        }
        // In this order nothing of an earlier run can be counted into this one.
        self.settings.set(0, expectation.bytes(), 0)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeros = PerCpuValues::try_from(vec![[0; RESULT_WORDS]; cpus])?;
        Ok(self.results.set(0, zeros, 0)?)
    }

    /// Watches for new connections, beside the sink's own work and from any thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sighting(&self) -> Result<Sighting> {
        match self.ebpf.map("sightings") {
            Some(Map::Array(map)) => Sighting::new(map.fd().as_fd().try_clone_to_owned()?),
            _ => bail!("no BPF map `sightings`"),
        }
    }

    /// What it has counted.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn tally(&self) -> Result<Tally> {
        let values = self.results.get(&0, 0)?;
        Ok(Tally::from_words(values.iter()))
    }
}

/// The network of one address.
pub fn host(address: IpAddr) -> Network {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (address, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_as_the_program_compares_them() {
        let (address, mask) = network_bytes(Some(("10.1.0.0".parse().unwrap(), 16)));
        assert_eq!(address[10..], [0xff, 0xff, 10, 1, 0, 0]);
        assert_eq!(mask[..14], [0xff; 14]);
        assert_eq!(mask[14..], [0, 0]);
        let (_, mask) = network_bytes(Some(("::".parse().unwrap(), 0)));
        assert_eq!(mask, [0; 16]);
        let (_, mask) = network_bytes(Some(host("2001:db8::1".parse().unwrap())));
        assert_eq!(mask, [0xff; 16]);
    }

    #[test]
    fn all_cpus_are_counted_together_but_for_the_largest_latency() {
        let mut one = [0; RESULT_WORDS];
        let mut two = [0; RESULT_WORDS];
        (one[0], one[12], one[COUNTERS]) = (3, 70, 3);
        (two[0], two[12], two[COUNTERS + 1]) = (4, 90, 4);
        let tally = Tally::from_words([&one, &two].into_iter());
        assert_eq!((tally.received, tally.latency_max), (7, 90));
        assert_eq!(tally.latency.count(), 7);
        assert_eq!(tally.latency.percentile(0.3), Some(0));
    }
}
