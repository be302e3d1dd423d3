//! TLS sessions with whoever is there.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::dial::Stream;
use crate::health::failure::Failure;

static CONNECTOR: LazyLock<Result<TlsConnector, Error>> = LazyLock::new(connector);

/// Shakes hands on `stream`. A `host` that is a name is asked for (SNI), an address is not.
pub(super) async fn secure(
    stream: Stream,
    address: SocketAddr,
    host: Option<&str>,
) -> Result<TlsStream<Stream>, Failure> {
    let connector = CONNECTOR
        .as_ref()
        .map_err(|error| Failure::Ours(error.to_string()))?;
    let name = host.map(without_port).and_then(|host| {
        let name = ServerName::try_from(host.to_owned());
        name.ok()
    });
    let name = name.unwrap_or_else(|| ServerName::from(address.ip()));
    let shaken = connector.connect(name, stream).await;
    // The library wraps its own errors into errors of the connection.
    shaken.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
        tls.map_or_else(
            || Failure::from(&error),
            |tls: &Error| Failure::Tls(tls.to_string()),
        )
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn connector() -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let anyone = Arc::new(Anyone(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(anyone)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate, as the kubelet does: a probe asks whether a backend answers, not who
/// it is. Signatures are not looked at either, since nothing says whose they should be.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_is_asked_for_has_no_port() {
        assert_eq!(without_port("app.example:8443"), "app.example");
        assert_eq!(without_port("app.example"), "app.example");
    }

    #[test]
    fn there_is_a_connector() {
        assert!(CONNECTOR.is_ok());
    }
}
