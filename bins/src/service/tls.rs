//! The transports that a configuration selects.

use std::sync::Arc;

use rmom_core::ports::Transport;
use rmom_net::transport::{Identity, Tcp, Tls, TlsError, TlsFiles};

use crate::config::TlsConfig;

/// The reason why a transport cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

/// The transports for listening and for connecting.
pub struct Transports {
    /// TLS if a certificate is configured.
    pub listen: Arc<dyn Transport>,
    /// TLS if a CA is configured.
    pub connect: Arc<dyn Transport>,
}

impl Transports {
    /// The transports that the configuration selects; TCP by default. If `addresses_tell` is false, handshakes are not
    /// limited by address, as connections are not (`max_connections_per_peer`: 0).
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(config: &TlsConfig, addresses_tell: bool) -> Result<Self, TransportError> {
        let tcp: Arc<dyn Transport> = Arc::new(Tcp);
        if config.is_empty() {
            return Ok(Self { listen: Arc::clone(&tcp), connect: tcp });
        }
        let identity = match (&config.cert, &config.key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate: certificate.clone(), key: key.clone() }),
            _ => None,
        };
        let files = TlsFiles { identity, server_ca: config.ca.clone(), client_ca: config.client_ca.clone() };
        let tls = Tls::from_files(&files)?;
        let tls: Arc<dyn Transport> = Arc::new(if addresses_tell { tls } else { tls.behind_a_proxy() });
        let choose = |file: &Option<_>| Arc::clone(if file.is_some() { &tls } else { &tcp });
        Ok(Self { listen: choose(&config.cert), connect: choose(&config.ca) })
    }
}
