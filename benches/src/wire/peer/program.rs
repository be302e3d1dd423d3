//! Peers that are programs of packages: which are here, and what they are while they run.

use std::env;
use std::path::Path;

use sluice_tests::process::Process;
use tempfile::TempDir;

use super::{Peer, iptables, nginx};

/// A program and its folder, which go in this order.
pub struct Program {
    pub(super) process: Process,
    pub(super) _dir: TempDir,
}

impl Peer {
    /// What of it is not installed here; none when it can be started.
    pub fn missing(self) -> Option<&'static str> {
        let (program, module) = match self {
            Peer::Bare | Peer::BareBusy | Peer::Sluice | Peer::SluiceBusy => return None,
            Peer::Testpmd => ("dpdk-testpmd", None),
            Peer::Nftables | Peer::NftablesThreaded => ("nft", None),
            Peer::Iptables | Peer::IptablesThreaded => (iptables::RESTORE, None),
            Peer::Haproxy => ("haproxy", None),
            Peer::Nginx => ("nginx", Some(nginx::MODULE)),
        };
        if !installed(program) {
            return Some(program);
        }
        module.filter(|module| !Path::new(module).exists())
    }
}

/// Whether a program is on the path.
fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
