//! Certificates and keys.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{beside, table::About, tree::Section};

/// The section `tls`: files in PEM, relative to the configuration file. Without it, there is no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TlsConfig {
    /// This server's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The authority that signed the certificates of the servers to which this program connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The authority that signed clients' certificates. If set, clients without a certificate are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

impl TlsConfig {
    pub(super) fn read(mut section: Section<'_>, file: &Path) -> Self {
        section.heading("TLS");
        let mut path = |key, limits, meaning| {
            let path: PathBuf = section.optional(About { key, unit: "file", meaning }, limits)?;
            let path = beside(file, &path);
            if !path.is_file() {
                section.problem(key, format!("there is no file {}", path.display()));
            }
            Some(path)
        };
        let config = Self {
            cert: path("cert", "with `key`", "This server's certificate chain."),
            key: path("key", "with `cert`", "Its private key."),
            ca: path(
                "ca",
                "",
                "The authorities that signed the certificates of the servers that this program connects to.",
            ),
            client_ca: path(
                "client_ca",
                "needs `cert`",
                "The authorities that signed the clients' certificates. If it is set, clients without a certificate are refused.",
            ),
        };
        if config.cert.is_some() != config.key.is_some() {
            let missing = if config.cert.is_some() { "key" } else { "cert" };
            section.problem(missing, "missing; a certificate and its key go together");
        }
        if config.client_ca.is_some() && config.cert.is_none() {
            section.problem("client_ca", "needs cert and key too: only a TLS server can ask for clients' certificates");
        }
        section.finish();
        config
    }

    /// True if nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
