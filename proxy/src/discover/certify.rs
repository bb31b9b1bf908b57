//! The signing call: CSR and token in, certificate chain out. Made over a connection of its own, without a certificate.

use super::client::{ConnectError, ControlClient, Credentials};
use std::time::Duration;
use tokio::time::timeout;
use weft_proxy_api::wire::generated::CertifyRequest;
use weft_proxy_api::wire::generated::identity_client::IdentityClient;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest chain and most roots accepted.
const MOST_CERTIFICATES: usize = 64;

/// A signed identity.
#[derive(Debug, Clone)]
pub struct Certified {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// End of the leaf, seconds since 1970.
    pub not_after: u64,
    /// The trust bundle, DER.
    pub roots: Vec<Vec<u8>>,
}

/// Asks for certificates.
#[derive(Clone)]
pub struct Certifier(ControlClient);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The controller cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The controller refused, or the call broke.
    #[error("the controller did not sign ({code:?}): {message}")]
    Refused {
        /// gRPC code.
        code: tonic::Code,
        /// What it said.
        message: String,
    },
    /// No answer.
    #[error("the controller did not answer in {TIMEOUT:?}")]
    Timeout,
    /// The answer cannot be used.
    #[error("the controller's answer is malformed: {0}")]
    Malformed(&'static str),
}

impl Certifier {
    /// Over this client.
    pub fn new(client: ControlClient) -> Self {
        Self(client)
    }

    /// One signing call.
    pub async fn certify(
        &self,
        csr_der: Vec<u8>,
        token: String,
    ) -> Result<Certified, CertifyError> {
        timeout(TIMEOUT, self.call(csr_der, token))
            .await
            .unwrap_or(Err(CertifyError::Timeout))
    }

    async fn call(&self, csr: Vec<u8>, token: String) -> Result<Certified, CertifyError> {
        let channel = self.0.connect(Credentials::Token).await?;
        let mut client = IdentityClient::with_origin(channel, self.0.origin());
        let answer = client.certify(CertifyRequest { csr, token }).await;
        let refused = |s: tonic::Status| CertifyError::Refused {
            code: s.code(),
            message: s.message().to_owned(),
        };
        let answer = answer.map_err(refused)?.into_inner();
        check(Certified {
            chain: answer.chain,
            not_after: answer.not_after,
            roots: answer.roots,
        })
    }
}

fn check(certified: Certified) -> Result<Certified, CertifyError> {
    let fits = |list: &[Vec<u8>]| !list.is_empty() && list.len() <= MOST_CERTIFICATES;
    if !fits(&certified.chain) {
        return Err(CertifyError::Malformed("the chain is empty or too long"));
    }
    if !fits(&certified.roots) {
        return Err(CertifyError::Malformed(
            "the trust bundle is empty or too long",
        ));
    }
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_chain_or_roots_is_refused() {
        let some = || vec![vec![1]];
        let certified = |chain, roots| Certified {
            chain,
            not_after: 1,
            roots,
        };
        assert!(check(certified(some(), some())).is_ok());
        assert!(check(certified(Vec::new(), some())).is_err());
        assert!(check(certified(some(), Vec::new())).is_err());
        assert!(check(certified(vec![vec![1]; 65], some())).is_err());
    }
}
