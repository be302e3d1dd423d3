//! HAProxy in TCP mode, one thread on the peer's CPU, bytes spliced in the kernel.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::super::rig::{BACKEND_PORT, BACKENDS, PEER_CPU, PORT, Rig, backend, vip};
use super::{Program, proxy};
use crate::cpu;

pub(super) fn start(rig: &Rig, services: u32) -> Result<Program> {
    proxy::prepare(rig, services)?;
    let dir = tempfile::tempdir().context("a folder for HAProxy")?;
    let file = dir.path().join("haproxy.cfg");
    fs::write(&file, configuration(services))?;
    let words = ["haproxy", "-db", "-f", &file.to_string_lossy()];
    let mut process = rig
        .gateway
        .start("haproxy", &words, &dir.path().join("log"))?;
    proxy::listening(rig, &mut process)?;
    cpu::prefer_process(process.pid())?;
    Ok(Program { process, _dir: dir })
}

fn configuration(services: u32) -> String {
    let mut text = format!(
        "global\n  nbthread 1\n  cpu-map 1/1 {PEER_CPU}\n  maxconn 4096\n\
         defaults\n  mode tcp\n  balance roundrobin\n  option splice-auto\n  backlog {}\n  \
         timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n",
        proxy::BACKLOG
    );
    for service in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(text, "listen s{service}\n  bind {}:{PORT}\n", vip(service));
        for number in 0..BACKENDS {
            let _ = writeln!(
                text,
                "  server b{number} {}:{BACKEND_PORT}",
                backend(number)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_address_and_all_backends() {
        let text = configuration(2);
        assert_eq!(text.matches("\nlisten s").count(), 2);
        assert_eq!(text.matches(":8080\n").count(), 2 * usize::from(BACKENDS));
        assert!(text.contains(&format!("bind {}:80\n", vip(1))));
    }
}
