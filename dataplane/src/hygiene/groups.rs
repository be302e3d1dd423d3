//! Frames to every group of stations: a neighbour solicitation for a Vip comes to a group that the
//! kernel has not joined (RFC 4291 section 2.7.1), and a network card drops what no group wants.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// Makes interfaces receive frames to all groups as long as it lives, however the process ends.
#[derive(Debug)]
pub(super) struct AllGroups {
    socket: OwnedFd,
}

impl AllGroups {
    /// No interface yet.
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0: the socket itself receives nothing (packet(7)).
        let socket = socket(AddressFamily::PACKET, SocketType::RAW, None)?;
        Ok(Self { socket })
    }

    /// Adds an interface.
    pub(super) fn add(&self, interface: &str) -> io::Result<()> {
        let index = netdevice::name_to_index(&self.socket, interface)?;
        let membership = libc::packet_mreq {
            mr_ifindex: index as libc::c_int,
            mr_type: libc::PACKET_MR_ALLMULTI as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option takes a packet_mreq, which lives through the call, and its size.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::namespace::{Namespace, ip};

    #[test]
    fn an_interface_receives_all_groups_as_long_as_it_is_wanted() {
        Namespace::new().run(|| {
            ip("link add eth1 type veth peer name far");
            let receives = || ip("-d link show eth1").contains("allmulti 1");
            assert!(!receives());
            let groups = AllGroups::open().unwrap();
            groups.add("eth1").unwrap();
            assert!(receives());
            assert!(groups.add("eth2").is_err());
            drop(groups);
            assert!(!receives());
        });
    }
}
