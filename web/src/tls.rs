//! TLS from two PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A server's side of TLS.
#[derive(Clone)]
pub struct Tls(pub(crate) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no {wanted} in PEM form: {reason}")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What there is.
        reason: String,
    },
    /// The files do not go together, or are of a kind that is not known.
    #[error("the certificate {certificate} cannot be used with the key {key}: {reason}")]
    Mismatch {
        /// Of `--tls-cert`.
        certificate: PathBuf,
        /// Of `--tls-key`.
        key: PathBuf,
        /// Cause.
        reason: String,
    },
}

/// TLS 1.2 and 1.3, from a chain of certificates (its own first) and its key.
///
/// # Errors
/// A file cannot be read, is not PEM, or the two do not belong together.
pub fn open(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
    let chain = read(certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| not_pem(certificate, "certificate", error))?;
    if chain.is_empty() {
        return Err(not_pem(certificate, "certificate", PemError::NoItemsFound));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| not_pem(key, "private key", error))?;
    let mismatch = |error: rustls::Error| TlsError::Mismatch {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        reason: error.to_string(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls(TlsAcceptor::from(Arc::new(config))))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Io { path: path.to_path_buf(), source })
}

fn not_pem(path: &Path, wanted: &'static str, error: PemError) -> TlsError {
    let reason = match error {
        PemError::NoItemsFound => format!("there is no `-----BEGIN {}`", wanted.to_uppercase()),
        other => other.to_string(),
    };
    TlsError::NotPem { path: path.to_path_buf(), wanted, reason }
}

#[cfg(test)]
mod tests;
