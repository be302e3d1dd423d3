//! Which of the kernel's links a served interface is. Pure.

use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::neighbour::{Link, MacAddress, Tags};

/// The link of this name, or with tags the VLAN device with the innermost of them, stacked on it.
pub(super) fn find<'a>(
    links: &'a [LinkMessage],
    name: &str,
    tags: Tags,
) -> Option<&'a LinkMessage> {
    let is_named = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(other) if other == name);
    let mut found = links
        .iter()
        .find(|link| link.attributes.iter().any(is_named))?;
    for tag in tags.0.into_iter().filter(|tag| *tag != 0) {
        let below = found.header.index;
        found = links.iter().find(|link| is_vlan(link, below, tag))?;
    }
    Some(found)
}

fn is_vlan(link: &LinkMessage, below: u32, tag: u16) -> bool {
    let has = |wanted: fn(&LinkAttribute) -> bool| link.attributes.iter().any(wanted);
    // The link below is one of another network namespace then, and its number says nothing here.
    if has(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_))) {
        return false;
    }
    let (mut is_on_it, mut has_tag) = (false, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => is_on_it = *index == below,
            LinkAttribute::LinkInfo(infos) => has_tag = infos.iter().any(|info| names(info, tag)),
            _ => {}
        }
    }
    is_on_it && has_tag
}

fn names(info: &LinkInfo, tag: u16) -> bool {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else {
        return false;
    };
    vlan.iter()
        .any(|part| matches!(part, InfoVlan::Id(id) if *id == tag))
}

/// The link without its addresses.
pub(super) fn link(message: &LinkMessage, tags: Tags) -> Link {
    let mut link = Link {
        // RUNNING is the operational state: up, or unknown for drivers that do not say.
        up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        tags,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

/// An Ethernet address, if it is one.
pub(super) fn mac(bytes: &[u8]) -> Option<MacAddress> {
    bytes.try_into().ok().map(MacAddress)
}
