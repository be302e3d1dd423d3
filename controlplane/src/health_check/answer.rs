//! What is answered, as values: nothing here reads or writes.

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::server::HealthCheck;

/// How many endpoints are behind this gateway, for load balancers that weigh
/// (kube-proxy pkg/proxy/healthcheck/service_health.go).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceBody<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// The answer of a health check node port, to any request: 200 when there are local endpoints and
/// the gateway is healthy, else 503.
pub fn service(check: &HealthCheck, proxy_healthy: bool) -> Response<String> {
    let body = ServiceBody {
        service: Name {
            namespace: &check.service.namespace,
            name: &check.service.name,
        },
        local_endpoints: check.local_endpoints,
        service_proxy_healthy: proxy_healthy,
    };
    let is_well = check.local_endpoints > 0 && proxy_healthy;
    let mut answer = json(is_well, indented(&body));
    let weight = HeaderValue::from(check.local_endpoints);
    answer.headers_mut().insert(WEIGHT, weight);
    answer
}

/// 200 or 503 with a body of JSON.
pub(super) fn json(is_well: bool, body: String) -> Response<String> {
    let mut answer = Response::new(body);
    if !is_well {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

/// There is nothing at this path.
pub(super) fn not_found() -> Response<String> {
    let mut answer = Response::new("there are /healthz and /livez\n".to_owned());
    *answer.status_mut() = StatusCode::NOT_FOUND;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

/// JSON with tabs, as kube-proxy writes it.
fn indented(body: &ServiceBody<'_>) -> String {
    let mut text = Vec::new();
    let mut writer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    // Writing strings and numbers into memory cannot fail, and JSON is UTF-8.
    let _ = body.serialize(&mut writer);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::NamespacedName;

    fn answer(local_endpoints: usize, proxy_healthy: bool) -> Response<String> {
        let check = HealthCheck {
            service: NamespacedName::new("shop", "web"),
            port: 30500,
            local_endpoints,
        };
        service(&check, proxy_healthy)
    }

    #[test]
    fn the_answer_is_that_of_kube_proxy_byte_for_byte() {
        let answer = answer(3, true);
        assert_eq!(answer.status(), 200);
        let mut headers: Vec<(&str, &[u8])> = Vec::new();
        for (name, value) in answer.headers() {
            headers.push((name.as_str(), value.as_bytes()));
        }
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                ("content-type", b"application/json".as_slice()),
                ("x-content-type-options", b"nosniff"),
                ("x-load-balancing-endpoint-weight", b"3"),
            ]
        );
        let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 3,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!(answer.body(), body);
    }

    #[test]
    fn it_takes_local_endpoints_and_a_healthy_gateway_to_be_well() {
        for (endpoints, healthy, status) in [
            (1, true, 200),
            (0, true, 503),
            (1, false, 503),
            (0, false, 503),
        ] {
            let answer = answer(endpoints, healthy);
            assert_eq!(answer.status(), status, "{endpoints} {healthy}");
            let body: serde_json::Value = serde_json::from_str(answer.body()).unwrap();
            assert_eq!(body["localEndpoints"], endpoints);
            assert_eq!(body["serviceProxyHealthy"], healthy);
            let weight = answer.headers().get(WEIGHT).unwrap();
            assert_eq!(weight.as_bytes(), endpoints.to_string().as_bytes());
            assert_eq!(answer.headers().len(), 3);
        }
    }
}
