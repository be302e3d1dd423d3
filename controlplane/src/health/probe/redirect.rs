//! Where a redirect leads, if that is the same address.

use std::net::IpAddr;

use hyper::Uri;

/// Statuses that send a client elsewhere by `Location` (Go's net/http, `redirectBehavior`).
pub(super) const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// A place at the probed address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Whether HTTPS is spoken and at which port, if the redirect says so.
    pub(super) at: Option<(bool, u16)>,
    /// Path and query.
    pub(super) path: String,
}

/// Where `location` leads from `path` at `ip`; `None` if that is another host or no place at all.
pub(super) fn within(ip: IpAddr, path: &str, location: &str) -> Option<Location> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = location.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| scheme.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return absolute(ip, &location.parse().ok()?);
    }
    if location.is_empty() || location.starts_with("//") {
        return None;
    }
    let path = path.split('?').next().unwrap_or_default();
    let path = if location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with('?') {
        format!("{path}{location}")
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    Some(Location { at: None, path })
}

fn absolute(ip: IpAddr, uri: &Uri) -> Option<Location> {
    let tls = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    if host.parse() != Ok(ip) {
        return None;
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some(Location {
        at: Some((tls, port)),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_within_the_address_only() {
        let ip = "10.0.0.1".parse().unwrap();
        let leads = |location: &str| within(ip, "/a/b?c", location);
        let here = |path: &str| {
            let path = path.to_owned();
            Some(Location { at: None, path })
        };
        let there = |at, path: &str| {
            let path = path.to_owned();
            Some(Location { at: Some(at), path })
        };
        assert_eq!(leads("/login#top"), here("/login"));
        assert_eq!(leads("login?x=1"), here("/a/login?x=1"));
        assert_eq!(leads("?d"), here("/a/b?d"));
        let back = "/login?next=http://10.0.0.2/";
        assert_eq!(leads(back), here(back));
        assert_eq!(leads("http://10.0.0.1/x"), there((false, 80), "/x"));
        assert_eq!(leads("https://10.0.0.1:8443"), there((true, 8443), "/"));
        for elsewhere in [
            "http://10.0.0.2/",
            "http://app.example/",
            "//10.0.0.1/",
            "ftp://10.0.0.1/",
            "http://",
            "",
            "#here",
        ] {
            assert_eq!(leads(elsewhere), None, "{elsewhere}");
        }
        let ip = "2001:db8::1".parse().unwrap();
        assert_eq!(
            within(ip, "/", "http://[2001:db8::1]:81/"),
            there((false, 81), "/")
        );
    }
}
