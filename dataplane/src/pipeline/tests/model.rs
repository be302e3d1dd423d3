//! Random histories against a model that remembers of each client only what it must rely on: whom
//! its connection was given to, and until when that cannot have changed.

use super::world::*;
use super::*;
use crate::flow::Direction;
use crate::testutil::rig::RigSettings;
use crate::verdict::DropReason;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Histories; each has up to [`STEPS`] steps.
const HISTORIES: u32 = 10_000;
const STEPS: usize = 48;

/// Seconds that any connection lasts without a packet, even one that was reset.
const SHORTEST: u64 = 9;

const BACKENDS_OF: [u8; 4] = [11, 12, 13, 14];

#[derive(Debug, Clone, Copy)]
enum Step {
    Client { who: u8, udp: bool, flags: u8 },
    Backend { who: u8, udp: bool, flags: u8 },
    Complaint { who: u8, udp: bool },
    Stray { backend: u8, who: u8 },
    Table { states: [Listed; 4], deleted: bool },
    Pass { seconds: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Active,
    Draining,
    Gone,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4u8;
    let flags = prop::sample::select(vec![SYN, SYN, ACK, ACK, FIN | ACK, RST]);
    let answer = prop::sample::select(vec![SYN | ACK, SYN | ACK, ACK, ACK, FIN | ACK, RST]);
    let listed = prop::sample::select(vec![Listed::Active, Listed::Draining, Listed::Gone]);
    prop_oneof![
        8 => (who.clone(), any::<bool>(), flags)
            .prop_map(|(who, udp, flags)| Step::Client { who, udp, flags }),
        6 => (who.clone(), any::<bool>(), answer)
            .prop_map(|(who, udp, flags)| Step::Backend { who, udp, flags }),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, udp)| Step::Complaint { who, udp }),
        1 => (0..4u8, who).prop_map(|(backend, who)| Step::Stray { backend, who }),
        2 => ([listed.clone(), listed.clone(), listed.clone(), listed], 0..8u8)
            .prop_map(|(states, n)| Step::Table { states, deleted: n == 0 }),
        2 => prop_oneof![1..8u64, 8..40u64, 40..400u64].prop_map(|seconds| Step::Pass { seconds }),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    world: World,
    workers: u16,
    preserve: bool,
    keep: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let workers = prop::sample::select(vec![1u16, 2, 4]);
    let strategy = (any::<bool>(), workers, any::<bool>(), any::<bool>());
    strategy.prop_map(|(v6, workers, preserve, keep)| Setting {
        world: World { v6 },
        workers,
        preserve,
        keep,
    })
}

/// What is known of a client's connection.
#[derive(Debug, Clone)]
struct Known {
    /// What was last sent to the backend.
    sent: Sent,
    last: u64,
    /// A FIN or a reset was seen: a SYN may begin another one.
    closing: bool,
    /// It has ended, or must: its backend was taken away.
    gone: bool,
    /// How far the handshake is: 1 the SYN, 2 the SYN-ACK, 3 all of it.
    handshake: u8,
}

struct Model {
    setting: Setting,
    rig: Rig,
    known: HashMap<(bool, u8), Known>,
    listed: Option<[Listed; 4]>,
    now: u64,
    turn: usize,
    /// Drops and packets to the kernel so far.
    lost: u64,
}

impl Model {
    fn new(setting: Setting) -> Self {
        let settings = RigSettings {
            workers: setting.workers,
            capacity: 64,
            slots: 64,
            ..RigSettings::default()
        };
        let mut model = Self {
            setting,
            rig: Rig::with(&settings, &[]),
            known: HashMap::new(),
            listed: None,
            now: 0,
            turn: 0,
            lost: 0,
        };
        model.table([Listed::Active; 4], false);
        model
    }

    fn client(&self, who: u8) -> String {
        self.setting.world.client(40_000 + u16::from(who))
    }

    fn backend(&self, n: usize) -> String {
        self.setting.world.backend(BACKENDS_OF[n], 8080)
    }

    fn is_listed(&self, backend: &str, wanted: fn(Listed) -> bool) -> bool {
        let listed = self.listed.unwrap_or([Listed::Gone; 4]);
        (0..4).any(|n| wanted(listed[n]) && self.backend(n) == backend)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Client { who, udp, flags } => self.client_sends(who, udp, flags),
            Step::Backend { who, udp, flags } => self.backend_sends(who, udp, flags),
            Step::Complaint { who, udp } => self.complaint(who, udp),
            Step::Stray { backend, who } => self.stray(usize::from(backend), who),
            Step::Table { states, deleted } => self.table(states, deleted),
            Step::Pass { seconds } => {
                self.now += seconds;
                self.rig.pass(Duration::from_secs(seconds));
                let sent = self.rig.run();
                self.check(&sent, 0);
            }
        }
        self.check_tables();
    }

    /// A frame arrives at the next worker; what leaves has been looked at.
    fn arrive(&mut self, from: crate::io::InterfaceId, frame: &[u8]) -> Vec<Sent> {
        self.turn += 1;
        let sent = at(&mut self.rig, self.turn, from, frame);
        self.check(&sent, 1);
        sent
    }

    /// Whether the connection must be as it was; `reopens` says that the packet may begin another.
    fn is_live(&self, udp: bool, who: u8, reopens: bool) -> bool {
        let Some(known) = self.known.get(&(udp, who)) else {
            return false;
        };
        let idle = self.now - known.last;
        let lasts = !udp && known.handshake == 3 && !known.closing;
        let ends = known.gone || (known.closing && reopens);
        !ends && (idle < SHORTEST || lasts)
    }

    fn client_sends(&mut self, who: u8, udp: bool, flags: u8) {
        let (client, vip) = (self.client(who), self.setting.world.vip(80));
        let frame = match udp {
            true => Build::udp(&client, &vip).payload(b"question").frame(),
            false => {
                let numbers = if flags == SYN {
                    (1000, 0)
                } else {
                    (1001, 2000)
                };
                let segment = Build::tcp(&client, &vip).flags(flags);
                segment.numbers(numbers.0, numbers.1).frame()
            }
        };
        let is_live = self.is_live(udp, who, flags == SYN);
        let sent = self.arrive(CLIENTS, &frame);
        let is_reset = !udp && flags == RST;
        // A reset to the old backend may leave with it.
        let forwarded: Vec<&Sent> = sent
            .iter()
            .filter(|(to, frame)| *to == BACKENDS && (is_reset || !is_rst(frame)))
            .collect();
        assert!(forwarded.len() <= 1 || is_reset, "{sent:?}");
        let before = self.known.get(&(udp, who)).cloned();
        if is_live {
            let before = before.as_ref().unwrap();
            assert!(is_reset || forwarded.len() == 1, "{:?}", self.rig.drops());
            for (_, frame) in &forwarded {
                assert_eq!(
                    ends(frame),
                    ends(&before.sent.1),
                    "it must stay where it was"
                );
            }
        } else if before.is_none() {
            self.check_new(udp, flags, &forwarded);
        }
        let Some(forwarded) = forwarded.last().filter(|_| !is_reset || is_live) else {
            if let Some(known) = self.known.get_mut(&(udp, who)) {
                // A SYN may have ended what it could not replace.
                known.gone |= known.closing && flags == SYN;
            }
            return;
        };
        let (forwarded, now) = ((*forwarded).clone(), self.now);
        let is_same = before
            .as_ref()
            .is_some_and(|b| ends(&b.sent.1) == ends(&forwarded.1));
        let backend = backend_of(&forwarded);
        if !is_live && !is_same {
            assert!(
                self.is_listed(&backend, |l| l == Listed::Active),
                "{backend}"
            );
        }
        // One that was ended may still be known as such, if its backend is back.
        let has_ended = before.as_ref().is_some_and(|b| is_same && b.gone);
        let keeps = before.filter(|before| is_same && !before.gone);
        let mut known = keeps.unwrap_or(Known {
            sent: forwarded.clone(),
            last: now,
            closing: has_ended,
            gone: false,
            handshake: 0,
        });
        known.handshake = match (known.handshake, flags) {
            (0, SYN) => 1,
            (2, ACK) if is_live => 3,
            (as_before, _) => as_before,
        };
        known.closing |= !udp && flags & (FIN | RST) != 0;
        (known.sent, known.last) = (forwarded, now);
        self.known.insert((udp, who), known);
    }

    /// What must become of a packet that surely belongs to no connection.
    fn check_new(&self, udp: bool, flags: u8, forwarded: &[&Sent]) {
        let opens = udp || flags == SYN;
        let picks_up = self.setting.preserve && flags & ACK != 0;
        let serves = self
            .listed
            .is_some_and(|listed| listed.contains(&Listed::Active));
        let goes_on = serves && (opens || picks_up);
        assert_eq!(
            forwarded.len(),
            usize::from(goes_on),
            "{:?}",
            self.rig.drops()
        );
    }

    fn backend_sends(&mut self, who: u8, udp: bool, flags: u8) {
        let Some(known) = self.known.get(&(udp, who)).cloned() else {
            return;
        };
        let is_live = self.is_live(udp, who, false);
        let answer = answering(&known.sent).flags(flags);
        let answer = match (udp, flags) {
            (true, _) => answer.payload(b"answer"),
            (false, flags) if flags == SYN | ACK => answer.numbers(1999, 1001),
            (false, _) => answer.numbers(2000, 1001),
        };
        let sent = self.arrive(BACKENDS, &answer.frame());
        let is_reset = !udp && flags == RST;
        if is_live {
            assert!(is_reset || sent.len() == 1, "{:?}", self.rig.drops());
            for (to, frame) in &sent {
                assert_eq!(*to, CLIENTS);
                assert_eq!(ends(frame), (self.setting.world.vip(80), self.client(who)));
            }
            let now = self.now;
            if let Some(known) = self.known.get_mut(&(udp, who)) {
                known.last = now;
                known.closing |= !udp && flags & (FIN | RST) != 0;
                if known.handshake == 1 && flags == SYN | ACK {
                    known.handshake = 2;
                }
            }
        }
    }

    fn complaint(&mut self, who: u8, udp: bool) {
        let Some(known) = self.known.get(&(udp, who)).cloned() else {
            return;
        };
        let world = self.setting.world;
        let is_live = self.is_live(udp, who, false);
        let arrived = seen(&known.sent.1);
        let ends = (arrived.destination, arrived.source);
        let mac: [u8; 6] = known.sent.1[..6].try_into().unwrap();
        let macs = (MacAddress(mac), GATEWAY_BACKEND_MAC);
        let quote = &known.sent.1[14..];
        let error = world.icmp(ends, world.port_unreachable(), [0; 4], quote, macs);
        let sent = self.arrive(BACKENDS, &error);
        assert!(sent.len() == 1 || !is_live, "{:?}", self.rig.drops());
        let is_served = is_live || !udp || !self.setting.preserve;
        for (_, frame) in sent.iter().filter(|(_, frame)| is_served && !is_rst(frame)) {
            let quoted = seen(frame).quoted();
            assert_eq!(quoted.ends(), (self.client(who), world.vip(80)));
            assert!(quoted.is_right());
        }
    }

    /// A backend's TCP packet of no connection reaches nobody.
    fn stray(&mut self, backend: usize, who: u8) {
        let backend = self.backend(backend);
        let client = self.setting.world.client(50_000 + u16::from(who));
        let mac = mac_of(&backend);
        let stray = Build::tcp(&backend, &client).macs(mac, GATEWAY_BACKEND_MAC);
        assert_eq!(self.arrive(BACKENDS, &stray.frame()), []);
    }

    fn table(&mut self, states: [Listed; 4], deleted: bool) {
        let world = self.setting.world;
        let policy = match (self.setting.preserve, self.setting.keep) {
            (false, false) => "",
            (true, false) => "preserve",
            (false, true) => "keep",
            (true, true) => "preserve keep",
        };
        let backends: Vec<String> = (0..4)
            .filter(|n| states[*n] != Listed::Gone)
            .map(|n| match states[n] {
                Listed::Draining => format!("{}/draining", self.backend(n)),
                _ => self.backend(n),
            })
            .collect();
        let backends = backends.join(" ");
        let lines = ["tcp", "udp"].map(|protocol| {
            format!(
                "{protocol} {protocol} {} -> {backends};{policy}",
                world.vip(80)
            )
        });
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.rig.push(if deleted { &[] } else { &lines });
        self.listed = (!deleted).then_some(states);
        let keys: Vec<_> = self.known.keys().copied().collect();
        for key in keys {
            let backend = backend_of(&self.known[&key].sent);
            let stays = self.is_listed(&backend, |listed| listed != Listed::Gone);
            let kept = self.setting.keep && !key.0 && !deleted;
            if let Some(known) = self.known.get_mut(&key) {
                known.gone |= !stays && !kept;
            }
        }
        let sent = self.rig.run();
        self.check(&sent, 0);
    }

    /// What must hold for whatever leaves, and that every frame has gone somewhere.
    fn check(&mut self, sent: &[Sent], arrived: usize) {
        let world = self.setting.world;
        for (to, frame) in sent {
            let packet = seen(frame);
            assert!(packet.is_right(), "{packet:?}");
            // Nobody can tell a late answer in UDP from a question of the backend.
            let is_passing = self.setting.preserve && packet.protocol != 6;
            if *to == CLIENTS && !is_passing {
                assert_eq!(packet.source, ip(&world.vip(80)), "{packet:?}");
            }
            if *to == CLIENTS {
                assert_eq!(packet.destination, ip(&world.client(1)));
            } else {
                assert_ne!(packet.source, ip(&world.vip(80)));
            }
        }
        let drops: u64 = self.rig.drops().iter().map(|(_, frames)| frames).sum();
        let kernel = (0..self.setting.workers).map(|w| self.rig.counters(w).to_kernel.get());
        let lost = drops + kernel.sum::<u64>();
        let away = (lost - std::mem::replace(&mut self.lost, lost)) as usize + sent.len();
        let resets = sent.iter().filter(|(_, frame)| is_rst(frame)).count();
        assert!(
            (arrived..=arrived + resets).contains(&away),
            "{arrived} came, {away} went: {sent:?} {:?}",
            self.rig.drops()
        );
        assert_eq!(self.rig.outstanding(), 0);
        let never = [
            DropReason::ConnectionTableFull,
            DropReason::SourcePortsExhausted,
        ];
        assert!(
            self.rig
                .drops()
                .iter()
                .all(|(reason, _)| !never.contains(reason))
        );
    }

    /// A connection in a table is found by both of its tuples, at the worker that owns both.
    fn check_tables(&self) {
        for worker in 0..self.setting.workers {
            match self.setting.world.v6 {
                false => self.check_table::<Ipv4Addr>(worker),
                true => self.check_table::<Ipv6Addr>(worker),
            }
        }
    }

    fn check_table<A: Tracked>(&self, worker: u16) {
        let engine = self.rig.engine(worker.into());
        let table = engine.table::<A>();
        let (ids, _) = table.page(0, u32::MAX);
        let mut found = 0;
        for id in ids {
            let connection = table.get(id);
            for direction in [Direction::Original, Direction::Reply] {
                let tuple = connection.tuple(direction);
                let hash = table.hash(tuple);
                assert_eq!(table.lookup(hash, tuple), Some((id, direction)));
            }
            let backend: IpAddr = connection.backend().address.into();
            assert_ne!(backend, ip(&self.setting.world.vip(80)));
            found += 1;
        }
        assert_eq!(found, table.len());
    }
}

fn is_rst(frame: &[u8]) -> bool {
    let packet = seen(frame);
    packet.protocol == 6 && packet.payload[13] & RST != 0
}

#[test]
fn no_history_breaks_a_connection_or_loses_a_frame() {
    let config = Config {
        cases: HISTORIES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let history = (setting(), prop::collection::vec(step(), 1..STEPS));
    let result = runner.run(&history, |(setting, steps)| {
        let mut model = Model::new(setting);
        for step in steps {
            model.step(step);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
