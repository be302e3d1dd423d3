//! The kernel's tunables of the network namespace that the calling thread is in.

use std::fs;
use std::io;

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}

/// The value of a key below `net`, written with slashes: `ipv4/ip_forward`.
pub(crate) fn read(key: &str) -> io::Result<String> {
    let value = fs::read_to_string(path(key)).map_err(|error| named(key, &error))?;
    Ok(value.trim().to_owned())
}

/// Sets a value.
pub(crate) fn write(key: &str, value: &str) -> io::Result<()> {
    // Nothing but a newline empties a list.
    fs::write(path(key), format!("{value}\n")).map_err(|error| named(key, &error))
}

/// A value that is a number; `None` where the kernel has no such key.
pub(crate) fn number(key: &str) -> Option<u32> {
    read(key).ok()?.parse().ok()
}

fn named(key: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path(key)))
}
