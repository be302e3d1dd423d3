//! The addresses that a Service writes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use sluice_conf::FrontendKind;
use sluice_conf::table::unusable;

use super::{Checker, ServiceType, Vip};
use crate::{address, annotations};

impl Checker<'_> {
    pub(super) fn vips(
        &mut self,
        kind: ServiceType,
        spec: &api::ServiceSpec,
        service: &api::Service,
    ) -> Vec<Vip> {
        let mut written = cluster_ips(spec);
        if kind == ServiceType::LoadBalancer {
            written.extend(load_balancer_ips(spec, service));
        } else {
            self.warn_of_lost_addresses(kind, spec, service);
        }
        written.extend(external_ips(spec));
        let mut vips: Vec<Vip> = Vec::new();
        for (field, text, kind) in written {
            if let Some(address) = self.address(&field, &text)
                && !vips.iter().any(|vip| vip.address == address)
            {
                let place = self.place(field);
                vips.push(Vip {
                    address,
                    kind,
                    place,
                });
            }
        }
        vips
    }

    fn warn_of_lost_addresses(
        &mut self,
        kind: ServiceType,
        spec: &api::ServiceSpec,
        service: &api::Service,
    ) {
        let name = annotations::LOAD_BALANCER_IPS;
        let annotated = annotations::get(&service.metadata.annotations, name).is_some();
        let written = spec.load_balancer_ip.as_deref().unwrap_or_default();
        let lost = [
            (annotations::field(name), annotated),
            ("spec.loadBalancerIP".to_owned(), !written.is_empty()),
        ];
        for (field, _) in lost.into_iter().filter(|(_, lost)| *lost) {
            let kind = kind.as_str();
            let message = format!("has no effect for type {kind}; it needs type LoadBalancer");
            self.report.warn(field, message);
        }
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let Some(address) = address::address(text) else {
            self.report
                .refuse(field, format!("{text:?} is not an IP address"));
            return None;
        };
        match unusable(address) {
            None => Some(address),
            Some(why) => {
                let message = format!("{address} is {why}; clients could never reach it");
                self.report.refuse(field, message);
                None
            }
        }
    }
}

type Written = (String, String, FrontendKind);

fn cluster_ips(spec: &api::ServiceSpec) -> Vec<Written> {
    let first = spec
        .cluster_ip
        .iter()
        .map(|ip| ("spec.clusterIP".to_owned(), ip));
    let all = spec.cluster_ips.iter().flatten().enumerate();
    first
        .chain(all.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip)))
        .filter(|(_, ip)| !ip.is_empty() && *ip != "None")
        .map(|(field, ip)| (field, ip.clone(), FrontendKind::ClusterIp))
        .collect()
}

fn load_balancer_ips(spec: &api::ServiceSpec, service: &api::Service) -> Vec<Written> {
    let mut written = Vec::new();
    let mut add = |field: String, ip: &str| {
        if !ip.is_empty() {
            written.push((field, ip.to_owned(), FrontendKind::LoadBalancer));
        }
    };
    if let Some(ip) = &spec.load_balancer_ip {
        add("spec.loadBalancerIP".to_owned(), ip);
    }
    let name = annotations::LOAD_BALANCER_IPS;
    let annotated = annotations::get(&service.metadata.annotations, name);
    for ip in annotated.into_iter().flat_map(|list| list.split(',')) {
        add(annotations::field(name), ip.trim());
    }
    let status = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_deref());
    for (index, entry) in ingress.unwrap_or_default().iter().enumerate() {
        // Proxy: the address belongs to a load balancer that must stay in the path (KEP-1860).
        let proxied = entry.ip_mode.as_deref() == Some("Proxy");
        if let Some(ip) = entry.ip.as_ref().filter(|_| !proxied) {
            add(format!("status.loadBalancer.ingress[{index}].ip"), ip);
        }
    }
    written
}

fn external_ips(spec: &api::ServiceSpec) -> impl Iterator<Item = Written> {
    let written = spec.external_ips.iter().flatten().enumerate();
    written.map(|(index, ip)| {
        let field = format!("spec.externalIPs[{index}]");
        (field, ip.clone(), FrontendKind::ExternalIp)
    })
}
