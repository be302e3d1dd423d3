//! nginx's stream module, one worker on the peer's CPU.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::super::rig::{BACKEND_PORT, BACKENDS, PEER_CPU, PORT, Rig, backend, vip};
use super::{Program, proxy};

/// What makes it a proxy of TCP.
pub(super) const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn start(rig: &Rig, services: u32) -> Result<Program> {
    proxy::prepare(rig, services)?;
    let dir = tempfile::tempdir().context("a folder for nginx")?;
    let folder = dir.path().to_string_lossy().into_owned();
    let file = dir.path().join("nginx.conf");
    fs::write(&file, configuration(services, &folder))?;
    let words = [
        "nginx",
        "-p",
        &folder,
        "-c",
        &file.to_string_lossy(),
        "-e",
        "stderr",
    ];
    let mut process = rig
        .gateway
        .start("nginx", &words, &dir.path().join("log"))?;
    proxy::listening(rig, &mut process)?;
    Ok(Program { process, _dir: dir })
}

fn configuration(services: u32, folder: &str) -> String {
    // Its mask of CPUs is written in binary.
    let mut text = format!(
        "load_module {MODULE};\n\
         daemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log stderr crit;\n\
         worker_processes 1;\nworker_cpu_affinity {:b};\nworker_priority -20;\n\
         worker_rlimit_nofile 16384;\n\
         events {{ worker_connections 8192; }}\nstream {{\n  proxy_buffer_size 64k;\n",
        1 << PEER_CPU
    );
    for service in 0..services {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  upstream s{service} {{");
        for number in 0..BACKENDS {
            let _ = writeln!(text, "    server {}:{BACKEND_PORT};", backend(number));
        }
        let _ = writeln!(
            text,
            "  }}\n  server {{ listen {}:{PORT} backlog={}; proxy_pass s{service}; }}",
            vip(service),
            proxy::BACKLOG
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_address_and_all_backends() {
        let text = configuration(2, "/somewhere");
        assert_eq!(text.matches("upstream s").count(), 2);
        assert_eq!(text.matches(":8080;\n").count(), 2 * usize::from(BACKENDS));
        assert!(text.contains(&format!("listen {}:80 ", vip(1))));
        assert!(text.contains("worker_cpu_affinity 10;"), "{text}");
    }
}
