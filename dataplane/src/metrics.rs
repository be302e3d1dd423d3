//! What was counted, in the words of the `metrics` crate, served as Prometheus text.
//!
//! Workers count in memory of their own; a thread copies the numbers twice a second, so a scrape
//! is at most that old and no packet ever waits for it. Series of Services that are gone disappear
//! after a minute.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder};
use metrics_util::MetricKindMask;

use sluice_conf::message::dataplane::Traffic;

use crate::gateway::Gateway;
use crate::stats::{Totals, WorkerCounters};
use crate::verdict::DropReason;

/// How often the numbers are copied.
pub const PERIOD: Duration = Duration::from_millis(500);

/// How long a series that is not updated any more is still served.
const IDLE: Duration = Duration::from_secs(60);

/// Serves `/metrics` at `listen` from a thread of its own.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(listen: SocketAddr) -> Result<(), BuildError> {
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .idle_timeout(MetricKindMask::ALL, Some(IDLE))
        .install()?;
    describe();
    Ok(())
}

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!(
        "sluice_received_frames_total",
        "Frames pulled from receive rings"
    );
    describe_counter!(
        "sluice_received_bytes_total",
        "Bytes of the frames pulled from receive rings"
    );
    describe_counter!(
        "sluice_transmitted_frames_total",
        "Frames put on transmit rings"
    );
    describe_counter!(
        "sluice_transmitted_bytes_total",
        "Bytes of the frames put on transmit rings"
    );
    describe_counter!("sluice_drops_total", "Frames dropped, by reason");
    describe_counter!(
        "sluice_answers_total",
        "Frames that the dataplane sent itself, by kind"
    );
    describe_counter!(
        "sluice_handed_over_frames_total",
        "Frames given to another worker"
    );
    describe_counter!(
        "sluice_taken_over_frames_total",
        "Frames taken over from another worker"
    );
    describe_counter!(
        "sluice_held_frames_total",
        "Frames that had to wait for a neighbour"
    );
    describe_gauge!(
        "sluice_waiting_frames",
        "Frames that wait for a neighbour now"
    );
    describe_gauge!("sluice_connections", "Connections tracked now");
    describe_counter!("sluice_connections_opened_total", "Connections made");
    describe_counter!(
        "sluice_connections_expired_total",
        "Connections that ran into their timeout"
    );
    describe_counter!(
        "sluice_turns_total",
        "Turns of a worker's loop, busy and idle"
    );
    describe_counter!(
        "sluice_backend_connections_total",
        "Connections given to a backend of a Service"
    );
    describe_counter!(
        "sluice_backend_frames_total",
        "Frames of a backend of a Service, by direction"
    );
    describe_counter!(
        "sluice_backend_bytes_total",
        "Bytes of a backend of a Service, by direction"
    );
    describe_counter!(
        "sluice_backend_attempts_total",
        "Connections that a backend of a Service answered, refused or was silent about"
    );
    describe_counter!(
        "sluice_service_connections_total",
        "Connections given to any backend of a Service"
    );
    describe_counter!(
        "sluice_service_frames_total",
        "Frames of a Service, by direction"
    );
    describe_counter!(
        "sluice_service_bytes_total",
        "Bytes of a Service, by direction"
    );
    describe_counter!(
        "sluice_xdp_frames_total",
        "Frames seen by the XDP program, by what it did"
    );
    describe_counter!(
        "sluice_ring_events_total",
        "What rings and kernel refused, by interface, worker and kind"
    );
    describe_gauge!(
        "sluice_ring_level",
        "Frames in a ring now, by interface, worker and ring"
    );
    describe_gauge!(
        "sluice_generation",
        "Generation of the service table in use"
    );
    describe_gauge!("sluice_services", "Services in the table in use");
}

/// Copies all numbers once.
pub fn publish(gateway: &Gateway) {
    for (id, counters) in (0u32..).zip(gateway.counters().iter()) {
        worker(&id.to_string(), counters);
    }
    services(gateway);
    let (total, spare) = gateway.slots();
    gauge!("sluice_slots_total").set(total as f64);
    gauge!("sluice_slots_spare").set(spare as f64);
    if let Some(stats) = gateway.steer_stats() {
        let frames = |action: &'static str, n| {
            counter!("sluice_xdp_frames_total", "action" => action).absolute(n);
        };
        frames("redirected", stats.redirected);
        frames("passed", stats.passed);
        frames("redirect_failed", stats.redirect_failed);
    }
}

fn worker(id: &str, counters: &WorkerCounters) {
    let add = |name: &'static str, n: u64| counter!(name, "worker" => id.to_owned()).absolute(n);
    let now = |name: &'static str, n: u64| gauge!(name, "worker" => id.to_owned()).set(n as f64);
    let Traffic { frames, bytes } = counters.received.get();
    add("sluice_received_frames_total", frames);
    add("sluice_received_bytes_total", bytes);
    let Traffic { frames, bytes } = counters.transmitted.get();
    add("sluice_transmitted_frames_total", frames);
    add("sluice_transmitted_bytes_total", bytes);
    for reason in DropReason::ALL {
        counter!("sluice_drops_total", "worker" => id.to_owned(), "reason" => reason.name())
            .absolute(counters.drops(*reason));
    }
    for (kind, n) in [
        ("arp", counters.arp_replies.get()),
        ("echo", counters.echo_replies.get()),
        ("ndp", counters.ndp_replies.get()),
        ("icmp_error", counters.icmp_errors.get()),
        ("reset", counters.resets.get()),
    ] {
        counter!("sluice_answers_total", "worker" => id.to_owned(), "kind" => kind).absolute(n);
    }
    add(
        "sluice_handed_over_frames_total",
        counters.handed_over.get(),
    );
    add("sluice_taken_over_frames_total", counters.taken_over.get());
    add("sluice_held_frames_total", counters.held.get());
    now("sluice_waiting_frames", counters.waiting.get());
    now("sluice_connections", counters.connections.get());
    add(
        "sluice_connections_opened_total",
        counters.connections_opened.get(),
    );
    add(
        "sluice_connections_expired_total",
        counters.connections_expired.get(),
    );
    for (name, n) in [
        (
            "sluice_connections_evicted_total",
            &counters.connections_evicted,
        ),
        (
            "sluice_source_ports_scarce_total",
            &counters.source_ports_scarce,
        ),
        ("sluice_affinity_evicted_total", &counters.affinity_evicted),
        (
            "sluice_fragmented_packets_evicted_total",
            &counters.fragments_evicted,
        ),
        (
            "sluice_icmp_errors_translated_total",
            &counters.complaints_translated,
        ),
        ("sluice_own_frames_total", &counters.own_frames),
        ("sluice_mss_clamped_total", &counters.mss_clamped),
        ("sluice_to_kernel_packets_total", &counters.to_kernel),
    ] {
        add(name, n.get());
    }
    for (state, n) in [
        ("busy", counters.busy_turns.get()),
        ("idle", counters.idle_turns.get()),
    ] {
        counter!("sluice_turns_total", "worker" => id.to_owned(), "state" => state).absolute(n);
    }
    for (place, n) in [
        ("receiving", counters.slots_receiving.get()),
        ("transmitting", counters.slots_transmitting.get()),
        ("free", counters.slots_free.get()),
        ("waiting", counters.waiting.get()),
        ("assembling", counters.fragments_waiting.get()),
        ("opening", counters.openings_waiting.get()),
        ("handed_over", counters.inbox.get()),
    ] {
        gauge!("sluice_slots", "worker" => id.to_owned(), "place" => place).set(n as f64);
    }
    for rings in counters.rings() {
        ring(id, rings.interface(), &rings.get());
    }
}

fn ring(worker: &str, interface: &str, stats: &crate::io::RingStats) {
    let labels = |kind: &'static str, value: &'static str| {
        [
            metrics::Label::new("worker", worker.to_owned()),
            metrics::Label::new("interface", interface.to_owned()),
            metrics::Label::from_static_parts(kind, value),
        ]
    };
    for (event, n) in [
        ("rx_ring_full", stats.rx_ring_full),
        ("fill_ring_empty", stats.fill_ring_empty),
        ("rx_dropped", stats.rx_dropped),
        ("tx_invalid", stats.tx_invalid),
    ] {
        counter!("sluice_ring_events_total", labels("event", event).iter()).absolute(n);
    }
    for (level, n) in [
        ("fill", stats.fill_ring),
        ("tx_outstanding", stats.tx_outstanding),
    ] {
        gauge!("sluice_ring_level", labels("ring", level).iter()).set(n as f64);
    }
}

fn services(gateway: &Gateway) {
    let services = std::sync::Arc::clone(&gateway.snapshot().services);
    let generation = services.generation().map_or(0, |generation| generation.0);
    gauge!("sluice_generation").set(generation as f64);
    gauge!("sluice_services").set(services.services().len() as f64);
    for service in services.services() {
        let name = service.entry.name.to_string();
        for backend in &service.backends {
            let end = SocketAddr::new(backend.entry.address, backend.entry.port).to_string();
            let labels = [("service", name.clone()), ("backend", end)];
            let totals = Totals::of(&backend.counters);
            counter!("sluice_backend_connections_total", &labels).absolute(totals.connections);
            for (outcome, n) in [
                ("answered", totals.attempts.answered),
                ("refused", totals.attempts.refused),
                ("silent", totals.attempts.silent),
            ] {
                let [service, backend] = labels.clone();
                let labels = [service, backend, ("outcome", outcome.to_owned())];
                counter!("sluice_backend_attempts_total", &labels).absolute(n);
            }
            for (direction, Traffic { frames, bytes }) in totals.directions() {
                let [service, backend] = labels.clone();
                let labels = [service, backend, ("direction", direction.to_owned())];
                counter!("sluice_backend_frames_total", &labels).absolute(frames);
                counter!("sluice_backend_bytes_total", &labels).absolute(bytes);
            }
        }
        let totals = service.totals();
        counter!("sluice_service_connections_total", "service" => name.clone())
            .absolute(totals.connections);
        for (direction, Traffic { frames, bytes }) in totals.directions() {
            let labels = [
                ("service", name.clone()),
                ("direction", direction.to_owned()),
            ];
            counter!("sluice_service_frames_total", &labels).absolute(frames);
            counter!("sluice_service_bytes_total", &labels).absolute(bytes);
        }
    }
}
