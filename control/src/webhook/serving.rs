//! The certificate that the webhook shows: in memory only, made anew in time and whenever another authority signs. New
//! connections get the new one, those that are open stay.

use super::authority::Authorities;
use anyhow::{Context, Result};
use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use weft_proxy_api::names;

/// Life of a serving certificate.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The certificate in use; none before the first [`Serving::renew`].
pub struct Serving {
    names: Vec<String>,
    current: RwLock<Option<Current>>,
}

struct Current {
    shown: Arc<CertifiedKey>,
    /// The authority that signed it.
    issuer: String,
    made: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serving").field(&self.names).finish() // never the key
    }
}

impl Serving {
    /// For the controller's Service in a namespace.
    pub fn new(namespace: &str) -> Self {
        let service = format!("{}.{namespace}.svc", names::CONTROL_ACCOUNT);
        let names = vec![format!("{service}.cluster.local"), service];
        Self {
            names,
            current: RwLock::new(None),
        }
    }

    /// Makes a new certificate if one is due: true if it did.
    pub fn renew(&self, authorities: &Authorities, now: OffsetDateTime) -> Result<bool> {
        if self.is_good(authorities, now) {
            return Ok(false);
        }
        let leaf = authorities.leaf(&self.names, LIFE, now)?;
        let shown = CertifiedKey::from_der(leaf.chain, leaf.key, &aws_lc_rs::default_provider())
            .context("the new certificate cannot be used")?;
        *self.current.write() = Some(Current {
            shown: Arc::new(shown),
            issuer: authorities.current().to_owned(),
            made: now,
            not_after: leaf.not_after,
        });
        Ok(true)
    }

    /// Is it of this authority, and less than 70 % of its life over?
    fn is_good(&self, authorities: &Authorities, now: OffsetDateTime) -> bool {
        self.current.read().as_ref().is_some_and(|current| {
            let due = current.made + (current.not_after - current.made) * 7 / 10;
            current.issuer == authorities.current() && now >= current.made - LIFE && now < due
        })
    }

    /// Until when the certificate counts, seconds since 1970; 0: there is none.
    pub fn not_after(&self) -> u64 {
        let current = self.current.read();
        let seconds = current.as_ref().map(|it| it.not_after.unix_timestamp());
        seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(0)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().as_ref().map(|it| it.shown.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_renewed_in_time_and_with_the_authority() {
        let hour = Duration::from_secs(3600);
        let year = hour * 24 * 365;
        let now = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        let serving = Serving::new("weft-system");
        assert_eq!(serving.not_after(), 0);
        let one = Authorities::new(year, now).unwrap();
        assert!(serving.renew(&one, now).unwrap());
        assert!(!serving.renew(&one, now + hour * 16).unwrap());
        assert!(serving.renew(&one, now + hour * 17).unwrap());
        let two = Authorities::new(year, now).unwrap();
        assert!(serving.renew(&two, now + hour * 17).unwrap());
        assert_eq!(serving.not_after(), 1_900_000_000 + 41 * 3600);
    }
}
