//! A Pod's readinessProbe as a probe from outside.
//!
//! What the kubelet asks from the node is asked from the gateway instead. Commands cannot be run
//! from outside, and hosts other than the Pod are not probed; both are reported.
//! `initialDelaySeconds` is not waited for: when the Pod was started is not known here.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe as PodProbe;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::probe::{Accept, Action, Http, Probe, Timing};
use crate::field::{FieldError, Reason};

/// What to ask a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Readiness {
    /// The Pod's port.
    pub port: u16,
    /// What to ask there.
    pub probe: Probe,
}

/// `probe` of `container` as a probe from outside; `field` is where it stands.
///
/// # Errors
/// The field that asks for something that cannot be done from outside.
pub fn of_probe(
    probe: &PodProbe,
    container: &Container,
    field: &str,
) -> Result<Readiness, FieldError> {
    let (port, action) = action(probe, container, field)?;
    let timing = timing(probe);
    let probe = Probe { action, timing };
    Ok(Readiness { port, probe })
}

fn action(
    probe: &PodProbe,
    container: &Container,
    field: &str,
) -> Result<(u16, Action), FieldError> {
    if let Some(http) = &probe.http_get {
        let field = format!("{field}.httpGet");
        here(http.host.as_deref(), &field)?;
        let port = port_of(&http.port, container, &field)?;
        return Ok((port, Action::Http(http_of(http, &field)?)));
    }
    if let Some(socket) = &probe.tcp_socket {
        let field = format!("{field}.tcpSocket");
        here(socket.host.as_deref(), &field)?;
        let port = port_of(&socket.port, container, &field)?;
        return Ok((port, Action::Connect));
    }
    if let Some(grpc) = &probe.grpc {
        let port = number(grpc.port, &format!("{field}.grpc.port"))?;
        let service = grpc.service.clone().unwrap_or_default();
        return Ok((port, Action::Grpc { service }));
    }
    if probe.exec.is_some() {
        let why = "commands cannot be run from outside the Pod; write the condition Ready into its status, or \
                   another probe";
        return Err(unsuitable(format!("{field}.exec"), why));
    }
    let why = "names no httpGet, tcpSocket or grpc";
    Err(FieldError::new(field, Reason::Required, why))
}

fn here(host: Option<&str>, field: &str) -> Result<(), FieldError> {
    match host {
        None | Some("") => Ok(()),
        Some(_) => Err(unsuitable(
            format!("{field}.host"),
            "only the Pod itself is probed; a virtual host belongs into the header Host",
        )),
    }
}

fn unsuitable(field: String, why: &str) -> FieldError {
    FieldError::new(field, Reason::NotSupported, why)
}

fn http_of(http: &HTTPGetAction, field: &str) -> Result<Http, FieldError> {
    let tls = match http.scheme.as_deref() {
        None | Some("" | "HTTP") => false,
        Some("HTTPS") => true,
        Some(_) => {
            return Err(unsuitable(
                format!("{field}.scheme"),
                "is neither HTTP nor HTTPS",
            ));
        }
    };
    let headers = http.http_headers.iter().flatten();
    let headers = headers.map(|header| (header.name.clone(), header.value.clone()));
    let (hosts, headers): (Vec<_>, Vec<_>) =
        headers.partition(|(name, _)| name.eq_ignore_ascii_case("host"));
    let http = Http {
        tls,
        path: http.path.clone().unwrap_or_default(),
        host: hosts.into_iter().next_back().map(|(_, host)| host),
        headers,
        accept: Accept::Kubelet,
    };
    http.check()
        .map_err(|why| FieldError::new(field, Reason::Invalid, why))?;
    Ok(http)
}

/// The number of a port, or of the container's port of that name (pkg/probe/util.go,
/// `ResolveContainerPort`).
fn port_of(port: &IntOrString, container: &Container, field: &str) -> Result<u16, FieldError> {
    let field = format!("{field}.port");
    match port {
        IntOrString::Int(port) => number(*port, &field),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name));
            let port = named.map(|port| port.container_port);
            let port = port.or_else(|| name.parse().ok());
            let port = port.ok_or_else(|| {
                let why = format!("the container has no port of the name {name:?}");
                FieldError::new(&field, Reason::Invalid, why)
            })?;
            number(port, &field)
        }
    }
}

fn number(port: i32, field: &str) -> Result<u16, FieldError> {
    let number = u16::try_from(port).ok().filter(|port| *port > 0);
    number.ok_or_else(|| {
        let why = format!("{port} is not a port, which is 1-65535");
        FieldError::new(field, Reason::Invalid, why)
    })
}

/// With the API server's defaults (pkg/apis/core/v1/defaults.go, `SetDefaults_Probe`).
fn timing(probe: &PodProbe) -> Timing {
    let or = |value: Option<i32>, default: u32| {
        let value = value.and_then(|value| u32::try_from(value).ok());
        value.filter(|value| *value > 0).unwrap_or(default)
    };
    Timing {
        period: Duration::from_secs(or(probe.period_seconds, 10).into()),
        timeout: Duration::from_secs(or(probe.timeout_seconds, 1).into()),
        success: or(probe.success_threshold, 1),
        failure: or(probe.failure_threshold, 3),
        jitter_percent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(probe: &str) -> Result<Readiness, String> {
        let text = format!(
            r#"{{"name": "c", "ports": [{{"name": "web", "containerPort": 8080}}],
                "readinessProbe": {probe}}}"#
        );
        let container: Container = serde_json::from_str(&text).unwrap();
        let probe = container.readiness_probe.as_ref().unwrap();
        let field = "spec.containers[0].readinessProbe";
        of_probe(probe, &container, field).map_err(|error| error.to_string())
    }

    #[test]
    fn an_http_probe_keeps_port_path_headers_and_timing() {
        let read = read(
            r#"{"httpGet": {"port": "web", "path": "/ready", "scheme": "HTTPS",
                "httpHeaders": [{"name": "host", "value": "app.example"},
                                {"name": "X-Probe", "value": "1"}]},
                "periodSeconds": 3, "timeoutSeconds": 2, "successThreshold": 4,
                "failureThreshold": 5}"#,
        );
        let http = Http {
            tls: true,
            path: "/ready".into(),
            host: Some("app.example".into()),
            headers: vec![("X-Probe".into(), "1".into())],
            accept: Accept::Kubelet,
        };
        let timing = Timing {
            period: Duration::from_secs(3),
            timeout: Duration::from_secs(2),
            success: 4,
            failure: 5,
            jitter_percent: None,
        };
        let action = Action::Http(http);
        let probe = Probe { action, timing };
        assert_eq!(read, Ok(Readiness { port: 8080, probe }));
    }

    #[test]
    fn tcp_and_grpc_probes_have_the_defaults_of_the_api() {
        let tcp = read(r#"{"tcpSocket": {"port": 5432}}"#).unwrap();
        assert_eq!((tcp.port, tcp.probe.action), (5432, Action::Connect));
        let timing = Timing {
            period: Duration::from_secs(10),
            ..Timing::default()
        };
        assert_eq!(tcp.probe.timing, timing);
        let grpc = read(r#"{"grpc": {"port": 9000, "service": "store"}}"#).unwrap();
        let service = "store".to_owned();
        assert_eq!(
            (grpc.port, grpc.probe.action),
            (9000, Action::Grpc { service })
        );
    }

    #[test]
    fn what_cannot_be_asked_from_outside_is_named() {
        for (probe, expected) in [
            (
                r#"{"exec": {"command": ["true"]}}"#,
                "spec.containers[0].readinessProbe.exec: commands cannot be run from outside the \
                 Pod; write the condition Ready into its status, or another probe",
            ),
            (
                r#"{"httpGet": {"port": 80, "host": "127.0.0.1"}}"#,
                "spec.containers[0].readinessProbe.httpGet.host: only the Pod itself is probed; a \
                 virtual host belongs into the header Host",
            ),
            (
                r#"{"tcpSocket": {"port": "db"}}"#,
                "spec.containers[0].readinessProbe.tcpSocket.port: the container has no port of \
                 the name \"db\"",
            ),
            (
                r#"{"grpc": {"port": 70000}}"#,
                "spec.containers[0].readinessProbe.grpc.port: 70000 is not a port, which is 1-65535",
            ),
            (
                r#"{"httpGet": {"port": 80, "path": "/a b"}}"#,
                "spec.containers[0].readinessProbe.httpGet: path \"/a b\": invalid uri character",
            ),
            (
                "{}",
                "spec.containers[0].readinessProbe: names no httpGet, tcpSocket or grpc",
            ),
        ] {
            assert_eq!(read(probe).unwrap_err(), expected);
        }
    }
}
