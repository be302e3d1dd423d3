//! The way back into the kernel, for packets that turn out not to be ours: a TUN device
//! (Documentation/networking/tuntap.rst).
//!
//! Guarantees: the device disappears with the [`Tun`], however the process ends. A packet given to
//! it comes into the kernel's stack as if it had arrived on an interface: it reaches a socket of the
//! host, or is routed on where forwarding is on. Nothing that the kernel sends into the device is
//! read.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::hygiene::sysctl;
use crate::netlink::socket::Requests;

const CLONE_DEVICE: &str = "/dev/net/tun";

/// The largest MTU of a TUN device, and the longest IPv4 packet: no packet is too long for it.
const MTU: u32 = 65_535;

/// The IPv4 dummy address (RFC 7600): nobody's. The kernel's reverse path filter, even when
/// it is loose, lets nothing in by a device without any address (net/ipv4/fib_frontend.c).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
#[error("TUN device {name}: cannot {what}: {source}; {remedy}")]
pub struct TunError {
    name: String,
    what: &'static str,
    source: io::Error,
    remedy: &'static str,
}

/// An open TUN device.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device and brings it up.
    ///
    /// # Errors
    /// The kernel has no TUN devices, the process may not make one, or the name is taken.
    pub fn open(name: &str) -> Result<Self, TunError> {
        let failed = |what, remedy| {
            move |source| TunError {
                name: name.to_owned(),
                what,
                source,
                remedy,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(CLONE_DEVICE)
            .map_err(failed(
                "open /dev/net/tun",
                "`modprobe tun` brings the driver, CAP_NET_ADMIN the permission",
            ))?;
        request::attach(&file, name).map_err(failed(
            "make it",
            "kernel.tun in the settings gives it another name, CAP_NET_ADMIN the permission",
        ))?;
        configure(name);
        bring_up(name).map_err(failed("bring it up", "kernel.tun = \"\" does without it"))?;
        Ok(Self { file })
    }

    /// Gives the kernel one IP packet of either family, from its IP header on.
    ///
    /// # Errors
    /// The kernel does not take it; nothing is kept.
    pub fn give(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.file, packet)?;
        Ok(())
    }
}

/// Lets in what a filter of addresses would keep out: packets come from anywhere, also from the host's
/// own addresses. Best effort: where IPv6 is off, its part is missing.
fn configure(name: &str) {
    // The larger of this and of `all` is in force; 1 is strict, and 2 overrules it.
    let strictest = sysctl::number("ipv4/conf/all/rp_filter").unwrap_or(0);
    let filter = if strictest == 0 { "0" } else { "2" };
    for (key, value) in [
        (format!("ipv4/conf/{name}/rp_filter"), filter),
        (format!("ipv4/conf/{name}/accept_local"), "1"),
        // No IPv6 address of its own, so that nothing is sent into it.
        (format!("ipv6/conf/{name}/addr_gen_mode"), "1"),
        (format!("ipv6/conf/{name}/accept_ra"), "0"),
    ] {
        if let Err(error) = sysctl::write(&key, value) {
            tracing::debug!(%error, "a setting of the TUN device stays as it is");
        }
    }
}

fn bring_up(name: &str) -> io::Result<()> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let index = netdevice::name_to_index(any.as_fd(), name)?;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![LinkAttribute::Mtu(MTU)];
    let mut address = AddressMessage::default();
    address.header.family = netlink_packet_route::AddressFamily::Inet;
    address.header.index = index;
    address.header.prefix_len = 32;
    // Never chosen as a source by the host itself.
    address.header.scope = AddressScope::Host;
    address.attributes = vec![AddressAttribute::Local(DUMMY.into())];
    let mut kernel = Requests::open().map_err(io::Error::other)?;
    kernel.set_link(link)?;
    kernel.add_address(address)
}

#[expect(unsafe_code, reason = "an ioctl, and nobody else has it")]
mod request {
    use std::fs::File;
    use std::io;

    use rustix::ioctl::{Setter, ioctl, opcode};

    /// linux/if_tun.h: IP packets, with nothing in front of them.
    const IFF_TUN: u16 = 0x0001;
    const IFF_NO_PI: u16 = 0x1000;
    const TUNSETIFF: u32 = opcode::write::<libc::c_int>(b'T', 202);

    /// `struct ifreq` of linux/if.h, as far as TUNSETIFF uses it.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: u16,
        unused: [u8; 22],
    }

    /// Makes the file the device of this name.
    pub(super) fn attach(file: &File, name: &str) -> io::Result<()> {
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            flags: IFF_TUN | IFF_NO_PI,
            unused: [0; 22],
        };
        // The last byte stays 0: it ends the name.
        if name.is_empty() || name.len() >= request.name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in request.name.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        // SAFETY: TUNSETIFF reads a struct ifreq, which `Request` has the size and layout of.
        unsafe { ioctl(file, Setter::<TUNSETIFF, Request>::new(request)) }?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr, UdpSocket};
    use std::time::Duration;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::netlink::namespace::{Namespace, ip};

    fn packet(from: &str, to: &str) -> Vec<u8> {
        let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), 20)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), 20)
            }
            _ => panic!("two families"),
        };
        let mut bytes = Vec::new();
        builder.udp(4000, 5000).write(&mut bytes, b"back").unwrap();
        bytes
    }

    fn listen() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5000)).unwrap();
        // Only a test that fails waits for so long.
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }

    fn hear(socket: &UdpSocket) -> (String, String) {
        let mut buffer = [0; 64];
        // A call with a timeout is not taken up again after a signal (signal(7)).
        let (length, from) = loop {
            match socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.unwrap(),
            }
        };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        (text, from.ip().to_canonical().to_string())
    }

    fn uplink() {
        ip("link set lo up");
        ip("link add eth1 type veth peer name far");
        ip("addr add 10.0.1.1/24 dev eth1");
        ip("addr add 2001:db8:1::1/64 dev eth1 nodad");
    }

    /// The kernel puts IPv6 addresses to use some time after they are set.
    fn settle(address: &str) {
        let local = format!("local {address} dev");
        while !ip("-6 route show table local").contains(&local)
            || !ip("-6 route show").contains("2001:db8:1::/64")
        {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_packet_given_to_it_reaches_a_socket_of_the_host_in_both_families() {
        for rp_filter in ["0", "1", "2"] {
            Namespace::new().run(move || reaches_a_socket(rp_filter));
        }
    }

    fn reaches_a_socket(rp_filter: &str) {
        uplink();
        ip("link set eth1 up");
        ip("link set far up");
        sysctl::write("ipv4/conf/all/rp_filter", rp_filter).unwrap();
        ip("route add default via 10.0.1.254");
        settle("2001:db8:1::1");
        let tun = Tun::open("sluice0").unwrap();
        let socket = listen();
        for (from, to) in [
            ("198.51.100.9", "10.0.1.1"),
            ("2001:db8:9::9", "2001:db8:1::1"),
            ("10.0.1.1", "10.0.1.1"),
        ] {
            tun.give(&packet(from, to)).unwrap();
            assert_eq!(hear(&socket), ("back".into(), from.into()));
        }
    }

    #[test]
    fn a_packet_for_somebody_else_is_routed_on_where_forwarding_is_on() {
        let (gateway, other) = (Namespace::new(), Namespace::new());
        let name = other.name();
        gateway.run(move || {
            uplink();
            ip(&format!("link set far netns {name}"));
            ip("link set eth1 up");
            sysctl::write("ipv4/ip_forward", "1").unwrap();
            sysctl::write("ipv6/conf/all/forwarding", "1").unwrap();
        });
        let socket = other.run(|| {
            ip("addr add 10.0.1.2/24 dev far");
            ip("addr add 2001:db8:1::2/64 dev far nodad");
            ip("link set far up");
            ip("route add default via 10.0.1.1");
            settle("2001:db8:1::2");
            ip("route add default via 2001:db8:1::1");
            listen()
        });
        let tun = gateway.run(|| {
            settle("2001:db8:1::1");
            Tun::open("sluice0").unwrap()
        });
        for (from, to) in [
            ("198.51.100.9", "10.0.1.2"),
            ("2001:db8:9::9", "2001:db8:1::2"),
        ] {
            tun.give(&packet(from, to)).unwrap();
            assert_eq!(hear(&socket), ("back".into(), from.into()));
        }
    }

    #[test]
    fn the_device_is_gone_with_its_owner_and_its_name_is_free_again() {
        Namespace::new().run(|| {
            for _ in 0..2 {
                let tun = Tun::open("sluice0").unwrap();
                let shown = ip("link show sluice0");
                assert!(
                    shown.contains("mtu 65535") && shown.contains(",UP"),
                    "{shown}"
                );
                let taken = Tun::open("sluice0").unwrap_err().to_string();
                assert!(
                    taken.starts_with("TUN device sluice0: cannot make it: "),
                    "{taken}"
                );
                drop(tun);
                assert!(!ip("link show").contains("sluice0"));
            }
            assert!(Tun::open("").is_err());
        });
    }
}
