//! Both settings files. A mistake is named with a line of the file, and settings that were accepted
//! are accepted again.

use sluice_conf::settings::{Controlplane, Dataplane, SettingsError};

/// Takes the bytes for each settings file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    judge(text, Dataplane::parse(text, "f.toml"));
    judge(text, Controlplane::parse(text, "f.toml"));
}

fn judge<T>(text: &str, parsed: Result<T, SettingsError>) {
    let Err(error) = parsed else { return };
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    assert!(
        (1..=lines).contains(&error.line),
        "{error} in {lines} lines"
    );
    assert!(!error.message.is_empty(), "{error}");
}
