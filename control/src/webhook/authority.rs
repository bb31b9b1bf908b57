//! Who signs the webhook's serving certificates: a small authority of its own, known to nobody but the API server. Pure:
//! the time comes in.
//!
//! ```text
//! current ──two thirds of its life──▶ current + next ──once everybody trusts next──▶ next as current, old still trusted
//! ```
//!
//! The API server is told of the next one long before anything is signed with it, so a change makes no gap.

use anyhow::{Context, Result, anyhow};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;

/// A certificate counts from a little before it was made: clocks differ.
const SKEW: Duration = Duration::from_secs(60);
/// At most this long the next authority is only trusted, and nothing is signed with it.
const SPREAD: Duration = Duration::from_secs(3600);

const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const OLD: &str = "old.crt";

/// A certificate and its key (PEM).
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    cert: String,
    key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive() // never the key
    }
}

/// The authority in use, and those before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    current: Authority,
    next: Option<Authority>,
    /// Trusted until it expires: a replica may still serve a certificate signed by it.
    old: Option<String>,
}

/// A serving certificate and its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate alone: its issuer is what is trusted.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Until when it counts.
    pub not_after: OffsetDateTime,
}

impl Authorities {
    /// A first authority.
    pub fn new(life: Duration, now: OffsetDateTime) -> Result<Self> {
        Ok(Self {
            current: Authority::new(life, now)?,
            next: None,
            old: None,
        })
    }

    /// What the API server is to trust (PEM).
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.cert.as_str());
        let all = [Some(self.current.cert.as_str()), next, self.old.as_deref()];
        all.into_iter().flatten().collect()
    }

    /// Which authority signs; changes when another one takes its place.
    pub fn current(&self) -> &str {
        &self.current.cert
    }

    /// Does another authority sign here than in `before`, while that one still counts?
    pub fn replaces(&self, before: &Self) -> bool {
        self.old.as_deref() == Some(before.current.cert.as_str())
    }

    /// What is due at `now`; `None`: nothing.
    pub fn step(&self, life: Duration, now: OffsetDateTime) -> Result<Option<Self>> {
        let (from, to) = life_of(&self.current.cert)?;
        if now >= to || now + SPREAD < from {
            // Nobody looked for long, or the clock went back to before it was made: whatever was signed is worth nothing now.
            return Self::new(life, now).map(Some);
        }
        if let Some(next) = &self.next {
            let (since, _) = life_of(&next.cert)?;
            return Ok((now - since >= SPREAD.min(life / 6)).then(|| Self {
                current: next.clone(),
                next: None,
                old: Some(self.current.cert.clone()),
            }));
        }
        if now - from >= (to - from) * 2 / 3 {
            return Ok(Some(Self {
                next: Some(Authority::new(life, now)?),
                ..self.clone()
            }));
        }
        let over = match &self.old {
            Some(old) => life_of(old)?.1 <= now,
            None => false,
        };
        Ok(over.then(|| Self {
            old: None,
            ..self.clone()
        }))
    }

    /// A serving certificate for these names.
    pub fn leaf(&self, names: &[String], life: Duration, now: OffsetDateTime) -> Result<Leaf> {
        let key = KeyPair::from_pem(&self.current.key)
            .map_err(|error| anyhow!("{} is not a private key: {error}", CURRENT[1]))?;
        let issuer = Issuer::from_ca_cert_der(&der(&self.current.cert)?, key)
            .map_err(|error| anyhow!("{}: {error}", CURRENT[0]))?;
        let not_after = (now + life).min(life_of(&self.current.cert)?.1);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = named("weft webhook");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (now - SKEW, not_after);
        let key = KeyPair::generate().context("cannot make a key")?;
        let cert = params.signed_by(&key, &issuer)?;
        Ok(Leaf {
            chain: vec![cert.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_after,
        })
    }

    /// As the data of a Secret.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let pair = |names: [&str; 2], it: &Authority| {
            [(names[0], it.cert.clone()), (names[1], it.key.clone())]
                .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
        };
        let mut data = BTreeMap::from(pair(CURRENT, &self.current));
        data.extend(self.next.iter().flat_map(|next| pair(NEXT, next)));
        let old = self.old.iter();
        data.extend(old.map(|old| (OLD.to_owned(), ByteString(old.clone().into_bytes()))));
        data
    }

    /// From the data of a Secret. What cannot be read is an error that names the entry, never the key.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let bytes = data.get(name).map(|bytes| bytes.0.clone());
            let text = bytes.map(String::from_utf8).transpose();
            text.map_err(|_| anyhow!("{name} is not PEM"))
        };
        let pair = |names: [&str; 2]| -> Result<Option<Authority>> {
            let (Some(cert), Some(key)) = (text(names[0])?, text(names[1])?) else {
                return Ok(None);
            };
            let pair = KeyPair::from_pem(&key)
                .map_err(|_| anyhow!("{} is not a private key", names[1]))?;
            let leaf = der(&cert).with_context(|| names[0].to_owned())?;
            let (_, parsed) =
                x509_parser::parse_x509_certificate(&leaf).with_context(|| names[0].to_owned())?;
            match parsed.public_key().raw == pair.subject_public_key_info().as_slice() {
                true => Ok(Some(Authority { cert, key })),
                false => Err(anyhow!("{} is not the key of {}", names[1], names[0])),
            }
        };
        let old = text(OLD)?;
        if let Some(old) = &old {
            life_of(old).context(OLD)?;
        }
        Ok(Self {
            current: pair(CURRENT)?
                .with_context(|| format!("{} or {} is missing", CURRENT[0], CURRENT[1]))?,
            next: pair(NEXT)?,
            old,
        })
    }
}

impl Authority {
    fn new(life: Duration, now: OffsetDateTime) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        // A name of its own: the old and the new one are told apart by it.
        params.distinguished_name = named(&format!("weft webhook ca {}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // The API server's clock may be behind ours.
        (params.not_before, params.not_after) = (now - SKEW, now + life);
        let cert = params.self_signed(&key)?.pem();
        Ok(Self {
            cert,
            key: key.serialize_pem(),
        })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn der(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("not a certificate: {error}"))
}

/// When it was made, and when it ends.
fn life_of(pem: &str) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let der = der(pem)?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).context("not a certificate")?;
    let validity = cert.validity();
    Ok((
        validity.not_before.to_datetime() + SKEW,
        validity.not_after.to_datetime(),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIFE: Duration = Duration::from_secs(360 * 24 * 3600);

    fn start() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap()
    }

    fn certificates(bundle: &str) -> usize {
        CertificateDer::pem_slice_iter(bundle.as_bytes()).count()
    }

    #[test]
    fn the_next_one_is_trusted_long_before_it_signs() {
        let day = Duration::from_secs(24 * 3600);
        let first = Authorities::new(LIFE, start()).unwrap();
        assert_eq!(first.step(LIFE, start() + day * 239).unwrap(), None);
        let at = start() + day * 240;
        let both = first.step(LIFE, at).unwrap().unwrap();
        assert_eq!(
            (both.current(), certificates(&both.bundle())),
            (first.current(), 2)
        );
        assert_eq!(
            both.step(LIFE, at + Duration::from_secs(3599)).unwrap(),
            None
        );
        let second = both.step(LIFE, at + SPREAD).unwrap().unwrap();
        assert!(second.replaces(&both) && !both.replaces(&first));
        assert_ne!(second.current(), first.current());
        assert_eq!(both.next.as_ref().unwrap().cert, second.current());
        // Whoever still serves a certificate of the first one is still trusted.
        assert!(second.bundle().contains(first.current()));
        assert_eq!(second.step(LIFE, start() + day * 359).unwrap(), None);
        let alone = second.step(LIFE, start() + day * 360).unwrap().unwrap();
        assert_eq!(alone.bundle(), second.current());
    }

    #[test]
    fn one_that_expired_is_replaced_at_once() {
        let first = Authorities::new(LIFE, start()).unwrap();
        let now = start() + LIFE;
        let second = first.step(LIFE, now).unwrap().unwrap();
        assert_eq!(certificates(&second.bundle()), 1);
        assert_ne!(second.current(), first.current());
        assert!(second.leaf(&["a.svc".into()], LIFE, now).unwrap().not_after <= now + LIFE);
    }

    #[test]
    fn one_of_a_time_to_come_is_replaced_when_the_clock_went_back() {
        let ahead = Authorities::new(LIFE, start() + SPREAD * 2).unwrap();
        assert_eq!(ahead.step(LIFE, start() + SPREAD).unwrap(), None);
        let new = ahead.step(LIFE, start()).unwrap().unwrap();
        assert_ne!(new.current(), ahead.current());
        assert_eq!(certificates(&new.bundle()), 1);
    }

    #[test]
    fn it_survives_the_way_through_a_secret() {
        let first = Authorities::new(LIFE, start()).unwrap();
        let both = first.step(LIFE, start() + LIFE * 2 / 3).unwrap().unwrap();
        let last = both.step(LIFE, start() + LIFE * 5 / 6).unwrap().unwrap();
        for state in [first, both, last] {
            assert_eq!(Authorities::from_data(&state.to_data()).unwrap(), state);
        }
    }

    #[test]
    fn a_secret_that_is_not_ours_says_what_is_wrong() {
        let good = Authorities::new(LIFE, start()).unwrap().to_data();
        let other = Authorities::new(LIFE, start()).unwrap().to_data();
        let table: [(&str, Option<&[u8]>, &str); 5] = [
            ("ca.key", None, "ca.crt or ca.key is missing"),
            ("ca.key", Some(b"x"), "ca.key is not a private key"),
            ("ca.key", Some(b"\xff"), "ca.key is not PEM"),
            (
                "ca.key",
                Some(&other["ca.key"].0),
                "ca.key is not the key of ca.crt",
            ),
            ("old.crt", Some(b""), "old.crt"),
        ];
        for (name, bytes, why) in table {
            let mut data = good.clone();
            match bytes {
                Some(bytes) => drop(data.insert(name.into(), ByteString(bytes.to_vec()))),
                None => drop(data.remove(name)),
            }
            let error = Authorities::from_data(&data).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
