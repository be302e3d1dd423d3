//! Values that settings spell otherwise than messages do: as one text each.

/// `BackendGone` as its text.
pub(super) mod backend_gone {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::service::BackendGone;

    pub(in super::super) fn serialize<S: Serializer>(
        policy: &BackendGone,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(policy)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BackendGone, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Networks; an address is the network of this host alone. Bits behind the prefix are cleared.
pub(super) mod networks {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        networks: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        networks.serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let networks = Vec::<Network>::deserialize(deserializer)?;
        Ok(networks.into_iter().map(|network| network.0).collect())
    }

    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            let host = || text.parse::<IpAddr>().map(IpNet::from);
            let network = text.parse::<IpNet>().or_else(|_| host());
            network.map(|n| Network(n.trunc())).map_err(|_| {
                D::Error::custom(format!(
                    "{text:?} is not a network; write 10.0.0.0/8, fd00::/64 or an address"
                ))
            })
        }
    }
}

/// A range of ports as `FIRST-LAST`.
pub(super) mod ports {
    use std::ops::RangeInclusive;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        ports: &RangeInclusive<u16>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}-{}", ports.start(), ports.end()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RangeInclusive<u16>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let ends = text
            .split_once('-')
            .and_then(|(a, b)| Some((port(a)?, port(b)?)));
        match ends {
            Some((first, last)) if first <= last => Ok(first..=last),
            _ => Err(D::Error::custom(format!(
                "{text:?} is not a range of ports; write 30000-32767"
            ))),
        }
    }
}
