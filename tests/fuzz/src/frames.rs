//! Frames through the whole engine: two workers over the in-memory I/O, both families, Services of
//! every policy. After each step every slot and every frame is accounted for, and what left because
//! of a packet with right checksums has right checksums.

mod judge;
mod raw;
mod step;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use sluice_dataplane::testutil::rig::{Rig, RigSettings, Sent, network};

use judge::{Judged, judge};
use step::{Arrival, Step};

/// Steps of one run at most.
const STEPS: usize = 64;
/// Frames that can be answered, complained about or sent again.
const REMEMBERED: usize = 16;
/// Bytes of the longest frame that fits a slot; complaints about complaints grow.
const LONGEST: usize = 1778;

/// Every policy, both families, every protocol.
const ALL: &[&str] = &[
    "affine udp 203.0.113.10:53 [2001:db8:9::10]:53 -> 10.0.2.11:53 10.0.2.12:53 [2001:db8:2::11]:53;affinity=60",
    "direct tcp 203.0.113.10:84 [2001:db8:9::10]:84 -> 10.0.2.13:84 [2001:db8:2::13]:84;direct",
    "dropping udp 203.0.113.10:83 -> ;refuse=drop ping=never",
    "keep tcp 203.0.113.10:81 [2001:db8:9::10]:81 -> 10.0.2.11:8080 10.0.2.12:8080 [2001:db8:2::11]:8080;preserve keep",
    "local tcp 203.0.113.10:82 [2001:db8:9::10]:82 -> 10.0.2.11:8080/local 10.0.2.12:8080/draining [2001:db8:2::12]:8080;local drain=60 from=10.0.0.0/8",
    "nobody tcp 203.0.113.11:83 [2001:db8:9::11]:83 -> ;refuse=reset ping=always",
    "sctp sctp 203.0.113.10:36412 [2001:db8:9::10]:36412 -> 10.0.2.11:36412 [2001:db8:2::11]:36412",
    "sctp-kept sctp 203.0.113.10:36413 [2001:db8:9::10]:36413 -> 10.0.2.11:36413 [2001:db8:2::11]:36413;preserve",
    "udp-kept udp 203.0.113.10:85 [2001:db8:9::10]:85 -> 10.0.2.11:8080 [2001:db8:2::11]:8080;preserve",
    "voice udp 203.0.113.10:5000-5009 [2001:db8:9::10]:5000-5009 -> 10.0.2.11:0 [2001:db8:2::11]:0",
    "web tcp 203.0.113.10:80 node:10.0.1.1:30080 [2001:db8:9::10]:80 -> 10.0.2.11:8080*3 10.0.2.12:8080 [2001:db8:2::11]:8080;mss=1200",
];
/// The same Services after their first backend has left.
const FEWER: &[&str] = &[
    "affine udp 203.0.113.10:53 [2001:db8:9::10]:53 -> 10.0.2.12:53;affinity=60",
    "keep tcp 203.0.113.10:81 [2001:db8:9::10]:81 -> 10.0.2.12:8080;preserve keep",
    "local tcp 203.0.113.10:82 [2001:db8:9::10]:82 -> 10.0.2.12:8080/draining;local drain=60",
    "voice udp 203.0.113.10:5000-5009 -> ",
    "web tcp 203.0.113.10:80 [2001:db8:9::10]:80 -> 10.0.2.12:8080",
];
const TABLES: [&[&str]; 3] = [ALL, FEWER, &[]];

/// Takes the bytes for what happens, step by step.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut bytes) else {
            break;
        };
        world.take(&step);
    }
    // Whatever waits gives up in the end.
    world.rig.pass(Duration::from_secs(120));
    world.settle();
    assert_eq!(world.rig.outstanding(), 0, "frames wait for ever");
}

struct World {
    rig: Rig,
    sent: Vec<Sent>,
    came: Vec<Arrival>,
    arrived: u64,
    left: u64,
    to_kernel: u64,
    /// A frame with wrong checksums may be waiting.
    is_tainted: bool,
}

impl World {
    fn new() -> Self {
        let mut settings = RigSettings {
            workers: 2,
            capacity: 64,
            slots: 512,
            handover: 16,
            ..RigSettings::default()
        };
        settings.fragments.packets = 16;
        settings.fragments.waiting = 64;
        Self {
            rig: Rig::with(&settings, ALL),
            sent: Vec::new(),
            came: Vec::new(),
            arrived: 0,
            left: 0,
            to_kernel: 0,
            is_tainted: false,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Pass { seconds } => self.rig.pass(Duration::from_secs((*seconds).into())),
            Step::Table { which } => self.rig.push(TABLES[usize::from(*which) % TABLES.len()]),
            Step::Neighbours { known } => {
                let known = (11..=13).filter(|last| known >> (last - 11) & 1 == 1);
                self.rig.set_network(network(known));
            }
            _ => {}
        }
        let arrivals = step.arrivals(&self.sent, &self.came);
        if arrivals.is_empty() {
            self.settle();
        }
        for (worker, interface, frame) in arrivals {
            if frame.len() > LONGEST {
                continue;
            }
            self.is_tainted |= judge(&frame) != Judged::Right;
            self.rig.arrive(worker, interface, &frame);
            self.arrived += 1;
            self.settle();
            remember(&mut self.came, (worker, interface, frame));
        }
    }

    /// Lets the workers do all there is to do, and accounts for it.
    fn settle(&mut self) {
        let sent = self.rig.run();
        self.left += sent.len() as u64;
        self.to_kernel += self.rig.to_kernel().len() as u64;
        let counters = [self.rig.counters(0), self.rig.counters(1)];
        let waiting: u64 = counters
            .map(|c| c.waiting.get() + c.fragments_waiting.get())
            .iter()
            .sum();
        assert_eq!(self.rig.outstanding() as u64, waiting, "slots have leaked");
        let own: u64 = counters.map(|c| c.own_frames.get()).iter().sum();
        let dropped: u64 = self.rig.drops().iter().map(|(_, frames)| frames).sum();
        let (came, went) = (
            self.arrived + own,
            self.left + dropped + self.to_kernel + waiting,
        );
        assert_eq!(came, went, "frames have vanished or come of nothing");
        for (_, frame) in &sent {
            let judged = judge(frame);
            assert!(
                self.is_tainted || judged != Judged::Wrong,
                "a wrong checksum: {frame:02x?}"
            );
        }
        self.is_tainted &= waiting > 0;
        for frame in sent {
            remember(&mut self.sent, frame);
        }
    }
}

fn remember<T>(list: &mut Vec<T>, one: T) {
    if list.len() == REMEMBERED {
        list.remove(0);
    }
    list.push(one);
}
