//! Sluice against the kernel: the same packets through Sluice's engine and through nftables, and
//! what comes out compared byte for byte.
//!
//! Where the two differ, the difference is one that is meant and stands with its reason in
//! `differential/known.rs`, or the test fails with both packets.

mod known;
mod normal;
mod random;
mod script;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_dataplane::testutil::rig::{BACKENDS, CLIENTS, Rig, RigSettings};
use sluice_tests::differential::{Kernel, Side};

use known::{KNOWN, Known};
use normal::{masquerade_port, normal};
use random::Random;
use script::{Flow, Numbers, Step};

/// Flows of each protocol and family.
const FLOWS: u16 = 500;

const SERVICES: &[&str] = &[
    "dns udp 203.0.113.10:53 [2001:db8:9::10]:53 -> 10.0.2.11:5353 [2001:db8:2::11]:5353",
    "web tcp 203.0.113.10:80 [2001:db8:9::10]:80 -> 10.0.2.11:8080 [2001:db8:2::11]:8080",
];

/// What became of a frame: frames that left, in normal form.
type Outcome = Vec<(Side, Vec<u8>)>;

/// A step that both gateways took.
struct Case<'a> {
    flow: Flow,
    step: &'a Step,
    sluice: &'a Outcome,
    kernel: &'a Outcome,
    /// What Sluice gave to its kernel.
    to_kernel: usize,
}

impl Case<'_> {
    fn are_equal(&self) -> bool {
        self.sluice == self.kernel && self.to_kernel == 0
    }
}

/// What one gateway has shown of a flow.
#[derive(Default)]
struct View {
    masquerade: Option<u16>,
    to_clients: Option<Vec<u8>>,
    to_backends: Option<Vec<u8>>,
}

impl View {
    /// `are_equal`: whether both gateways let the same out, so that complaints can quote it.
    fn note(&mut self, came: &[(Side, Vec<u8>)], are_equal: bool) {
        for (side, frame) in came {
            self.masquerade = masquerade_port(frame).or(self.masquerade);
            match side {
                Side::Clients if are_equal => self.to_clients = Some(frame.clone()),
                Side::Backends if are_equal => self.to_backends = Some(frame.clone()),
                Side::Clients | Side::Backends => {}
            }
        }
    }

    fn frames(&self, flow: &Flow, step: &Step, numbers: &Numbers, number: u16) -> Vec<Vec<u8>> {
        let last = match step.side {
            Side::Clients => &self.to_clients,
            Side::Backends => &self.to_backends,
        };
        let is_lost = step.side == Side::Backends && self.masquerade.is_none();
        match is_lost {
            true => Vec::new(),
            false => {
                let masquerade = self.masquerade.unwrap_or_default();
                flow.frames(step, numbers, number, masquerade, last.as_deref())
            }
        }
    }
}

struct Both {
    rig: Rig,
    kernel: Kernel,
    met: BTreeMap<&'static str, u32>,
    steps: u32,
    strange: Vec<String>,
}

impl Both {
    fn live(&mut self, flow: Flow, steps: &[Step]) -> Result<()> {
        let (mut sluice, mut kernel) = (View::default(), View::default());
        let mut numbers = Numbers::START;
        for (step, number) in steps.iter().zip(1..) {
            let name = flow.port ^ (number << 10);
            let to_sluice = sluice.frames(&flow, step, &numbers, name);
            let to_kernel = kernel.frames(&flow, step, &numbers, name);
            let from_sluice = self.through_sluice(step.side, &to_sluice);
            let given = self.rig.to_kernel().len();
            let from_kernel = self.through_kernel(step.side, &to_kernel)?;
            let case = Case {
                flow,
                step,
                sluice: &normalised(&from_sluice),
                kernel: &normalised(&from_kernel),
                to_kernel: given,
            };
            sluice.note(&from_sluice, case.are_equal());
            kernel.note(&from_kernel, case.are_equal());
            numbers.note(step);
            self.steps += 1;
            if !self.judge(&case, &steps[..usize::from(number)]) {
                break;
            }
        }
        Ok(())
    }

    fn through_sluice(&mut self, side: Side, frames: &[Vec<u8>]) -> Outcome {
        let interface = match side {
            Side::Clients => CLIENTS,
            Side::Backends => BACKENDS,
        };
        let mut came = Vec::new();
        for frame in frames {
            for (interface, frame) in self.rig.send(interface, frame) {
                let side = if interface == CLIENTS {
                    Side::Clients
                } else {
                    Side::Backends
                };
                came.push((side, frame));
            }
        }
        came
    }

    fn through_kernel(&mut self, side: Side, frames: &[Vec<u8>]) -> Result<Outcome> {
        let mut came = Vec::new();
        for frame in frames {
            came.extend(self.kernel.send(side, frame)?);
        }
        Ok(came)
    }

    /// Whether the flow can go on.
    fn judge(&mut self, case: &Case<'_>, before: &[Step]) -> bool {
        if case.are_equal() {
            return true;
        }
        if let Some(known) = KNOWN.iter().find(|known| (known.is)(case)) {
            *self.met.entry(known.name).or_default() += 1;
            return known.goes_on;
        }
        let show = |outcome: &Outcome| -> String {
            let frames = outcome
                .iter()
                .map(|(side, frame)| format!("\n    {side:?} {frame:02x?}"));
            frames.collect()
        };
        self.strange.push(format!(
            "{:?}\n  after {before:?}\n  {:?}\n  Sluice: {}\n  {} to the kernel\n  kernel: {}\n  drops {:?}",
            case.flow, case.step, show(case.sluice), case.to_kernel, show(case.kernel), self.rig.drops(),
        ));
        false
    }
}

fn normalised(came: &Outcome) -> Outcome {
    let mut came: Outcome = came
        .iter()
        .map(|(side, frame)| (*side, normal(frame)))
        .collect();
    // On one side the order counts.
    came.sort_by_key(|(side, _)| *side);
    came
}

#[test]
fn what_leaves_sluice_is_what_leaves_the_kernel() -> Result<()> {
    let settings = RigSettings {
        capacity: 65_536,
        ..RigSettings::default()
    };
    let mut both = Both {
        rig: Rig::with(&settings, SERVICES),
        kernel: Kernel::create()?,
        met: BTreeMap::new(),
        steps: 0,
        strange: Vec::new(),
    };
    let mut seed = 0;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for is_v6 in [false, true] {
            for port in 20_000..20_000 + FLOWS {
                let mut random = Random::new(seed);
                seed += 1;
                let steps = match protocol {
                    Protocol::Tcp => script::tcp(&mut random),
                    Protocol::Udp | Protocol::Sctp => script::udp(&mut random),
                };
                both.live(
                    Flow {
                        protocol,
                        is_v6,
                        port,
                    },
                    &steps,
                )?;
            }
        }
    }
    eprintln!("{} steps; differences that are meant:", both.steps);
    for Known { name, reason, .. } in KNOWN {
        let count = both.met.get(name).copied().unwrap_or_default();
        eprintln!("{count:5} {name}: {reason}");
    }
    let (strange, first) = (both.strange.len(), both.strange.first());
    ensure!(
        first.is_none(),
        "{strange} differences that are not meant, the first:\n{}",
        first.map_or("", String::as_str)
    );
    Ok(())
}
