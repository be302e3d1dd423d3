//! Which Services of type LoadBalancer are this gateway's to serve.

use k8s_openapi::api::core::v1::Service;

use crate::service::LOAD_BALANCER_CLASS;

/// Which classes are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classes {
    /// Whether a Service without a class is.
    pub unset: bool,
}

impl Default for Classes {
    fn default() -> Self {
        Self { unset: true }
    }
}

impl Classes {
    /// Whether the Service is of type LoadBalancer and its addresses are this gateway's to give
    /// and to serve; those of another class must be left to others (core/v1 loadBalancerClass).
    pub fn serve(self, service: &Service) -> bool {
        let Some(spec) = &service.spec else {
            return false;
        };
        let class = spec.load_balancer_class.as_deref();
        spec.type_.as_deref() == Some("LoadBalancer")
            && class.map_or(self.unset, |class| class == LOAD_BALANCER_CLASS)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;

    fn service(kind: &str, class: Option<&str>) -> Service {
        let spec = ServiceSpec {
            type_: Some(kind.to_owned()),
            load_balancer_class: class.map(str::to_owned),
            ..ServiceSpec::default()
        };
        Service {
            spec: Some(spec),
            ..Service::default()
        }
    }

    #[test]
    fn balancers_of_another_class_are_left_to_others() {
        let all = Classes::default();
        let named = Classes { unset: false };
        for (class, by_all, by_named) in [
            (None, true, false),
            (Some("sluice.dev/gateway"), true, true),
            (Some("example.com/other"), false, false),
        ] {
            let service = service("LoadBalancer", class);
            assert_eq!(
                (all.serve(&service), named.serve(&service)),
                (by_all, by_named)
            );
        }
        assert!(!all.serve(&service("NodePort", None)));
        assert!(!all.serve(&Service::default()));
    }
}
