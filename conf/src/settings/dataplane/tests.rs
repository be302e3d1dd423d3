use super::*;

const MINIMAL: &str = "[[interfaces]]\nname = \"eth1\"\n";

fn refused(text: &str) -> String {
    Dataplane::parse(text, "dp.toml").unwrap_err().to_string()
}

#[test]
fn everything_but_an_interface_has_a_default() {
    let settings = Dataplane::parse(MINIMAL, "dp.toml").unwrap();
    assert_eq!(settings.timeouts.tcp_established, 432_000);
    assert_eq!(settings.source_nat.ports.count(), 13_616);
}

#[test]
fn the_example_holds_the_defaults() {
    let text = include_str!("../../../examples/dataplane.toml");
    let example = Dataplane::parse(text, "dataplane.toml").unwrap();
    let minimal = Dataplane::parse(MINIMAL, "dp.toml").unwrap();
    assert_eq!(example.workers.burst, minimal.workers.burst);
    assert_eq!(example.workers.handover, minimal.workers.handover);
    assert_eq!(example.workers.polling, minimal.workers.polling);
    assert_eq!(example.frames, minimal.frames);
    assert_eq!(example.connections, minimal.connections);
    assert_eq!(example.timeouts, minimal.timeouts);
    assert_eq!(example.source_nat, minimal.source_nat);
    assert_eq!(example.answers, minimal.answers);
    assert_eq!(example.affinity, minimal.affinity);
    assert_eq!(example.fragments, minimal.fragments);
    assert_eq!(example.limits, minimal.limits);
    assert_eq!(example.kernel, minimal.kernel);
    assert_eq!(example.control, minimal.control);
    assert_eq!(example.log, minimal.log);
}

#[test]
fn a_worker_polls_in_one_of_three_ways() {
    for (word, polling) in [
        ("adaptive", Polling::Adaptive),
        ("busy", Polling::Busy),
        ("interrupt", Polling::Interrupt),
    ] {
        let text = format!("{MINIMAL}[workers]\npolling = \"{word}\"\n");
        let settings = Dataplane::parse(&text, "dp.toml").unwrap();
        assert_eq!(settings.workers.polling, polling);
    }
    let wrong = refused(&format!("{MINIMAL}[workers]\npolling = \"lazy\"\n"));
    assert!(
        wrong.contains("workers.polling") && wrong.contains("adaptive"),
        "{wrong}"
    );
}

#[test]
fn a_mistake_is_named_with_file_line_and_key() {
    let unknown = refused(&format!("{MINIMAL}\n[frames]\nsizes = 2048\n"));
    assert!(
        unknown.starts_with("dp.toml:5: frames.sizes: unknown field `sizes`"),
        "{unknown}"
    );
    let wrong_type = refused(&format!("{MINIMAL}\n[frames]\n\nsize = \"big\"\n"));
    assert!(
        wrong_type.starts_with("dp.toml:6: frames.size: invalid type"),
        "{wrong_type}"
    );
    assert_eq!(
        refused(&format!("{MINIMAL}\n[frames]\nring = 100\n")),
        "dp.toml:5: frames.ring: 100 is not a power of two; 128 would be"
    );
    assert_eq!(
        refused(&format!("{MINIMAL}\n[[interfaces]]\nname = \"eth1\"\n")),
        "dp.toml:5: interfaces[1].name: \"eth1\" is listed twice"
    );
    assert_eq!(
        refused(&format!("{MINIMAL}[source_nat]\nports = \"9-5\"\n")),
        "dp.toml:4: source_nat.ports: \"9-5\" is not possible; use 1024 to 65535, low-high"
    );
}

#[test]
fn a_tun_device_needs_a_name_that_is_possible_and_free() {
    let tun = |name| format!("{MINIMAL}[kernel]\ntun = \"{name}\"\n");
    assert!(Dataplane::parse(&tun(""), "dp.toml").is_ok());
    assert_eq!(
        refused(&tun("a/b")),
        "dp.toml:4: kernel.tun: \"a/b\" cannot name a device; use 1 to 15 letters and digits"
    );
    assert_eq!(
        refused(&tun("eth1")),
        "dp.toml:4: kernel.tun: \"eth1\" is a served interface; use a name that is free"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let error = refused("\n[[interfaces]\n");
    assert!(error.starts_with("dp.toml:2: "), "{error}");
}

#[test]
fn no_interface_is_refused() {
    assert!(refused("interfaces = []\n").contains("name at least one interface"));
    assert!(refused("").contains("interfaces"));
}
