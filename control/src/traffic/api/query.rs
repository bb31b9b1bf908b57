//! What is asked of the API, read from query strings: bounded, and refused with a reason.

use crate::traffic::gate::Right;
use crate::traffic::rows::Resource;
use crate::traffic::show::Wanted;
use crate::traffic::table::LONGEST;
use crate::traffic::tiers;
use std::time::Duration;
use weft_proxy_api::policy::MetricsTier;

/// Window where none is said.
const WINDOW: Duration = Duration::from_secs(60);
/// How long another detail of metrics is kept where nothing is said.
const DETAIL: Duration = Duration::from_secs(600);

/// What was asked, read from the query string.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    pub(super) window: Option<Duration>,
    pub(super) fresh: bool,
    pub(super) resource: Option<Resource>,
    pub(super) namespace: Option<String>,
    pub(super) service: Option<String>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) from: Option<Resource>,
    pub(super) to: Option<Resource>,
}

impl Asked {
    /// Of a query string; what is wrong with it is said.
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self {
            window: Some(WINDOW),
            ..Self::default()
        };
        for pair in pairs(query) {
            let (key, value) = pair?;
            match key {
                "window" => asked.window = window(&value)?,
                "fresh" => asked.fresh = true,
                "resource" => asked.resource = Some(value.parse()?),
                "namespace" => asked.namespace = Some(value),
                "service" => asked.service = Some(value),
                "label" => asked.labels.push(label(&value)?),
                "from" => asked.from = Some(value.parse()?),
                "to" => asked.to = Some(value.parse()?),
                _ => return Err(format!("{key:?} is unknown")),
            }
        }
        Ok(asked)
    }
}

/// In what detail whose metrics are wanted.
pub(super) struct Order {
    pub(super) pods: Wanted,
    pub(super) tier: Option<(MetricsTier, Duration)>,
}

impl Order {
    /// Of a query string; what is wrong with it is said.
    pub(super) fn read(query: &str) -> Result<Self, String> {
        let (mut pods, mut tier, mut seconds) = (Wanted::default(), None, DETAIL);
        for pair in pairs(query) {
            let (key, value) = pair?;
            match key {
                "tier" => tier = Some(value.parse()?),
                "seconds" => {
                    let given = value.parse().map(Duration::from_secs);
                    let fits = given
                        .ok()
                        .filter(|at| !at.is_zero() && *at <= tiers::LONGEST);
                    let longest = tiers::LONGEST.as_secs();
                    seconds = fits.ok_or_else(|| format!("seconds: give 1 to {longest}"))?;
                }
                "resource" | "namespace" => drop(pods.take(key, &value)?),
                _ => return Err(format!("{key:?} is unknown")),
            }
        }
        let tier = tier.map(|tier| (tier, seconds));
        Ok(Self { pods, tier })
    }
}

/// The keys of a query string with their values.
fn pairs(query: &str) -> impl Iterator<Item = Result<(&str, String), String>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let text = decoded(value).ok_or_else(|| format!("{key}: {value:?} is no text"))?;
        Ok((key, text))
    })
}

/// Seconds, or `start`.
pub fn window(text: &str) -> Result<Option<Duration>, String> {
    if text == "start" {
        return Ok(None);
    }
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds
        .filter(|window| (Duration::from_secs(1)..=LONGEST).contains(window))
        .map(Some)
        .ok_or_else(|| {
            let longest = LONGEST.as_secs();
            format!("window: {text:?} is neither 1 to {longest} seconds nor start")
        })
}

/// `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no label like app=web"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Percent-decoded (RFC 3986 section 2.1); `None`: it is not.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (rest.next()? as char, rest.next()? as char);
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encoded, so that [`decoded`] gives it back.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// The query string of a tap.
pub(super) fn wanted(query: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for pair in pairs(query) {
        let (key, value) = pair?;
        if !wanted.take(key, &value)? {
            return Err(format!("{key:?} is unknown"));
        }
    }
    Ok(wanted)
}

/// What a request for this path of the API wants to see or do.
pub(super) fn right(path: Option<&str>, query: &str) -> Right {
    let mut namespaces = query
        .split('&')
        .filter_map(|part| part.strip_prefix("namespace="));
    // Said twice, the last one counts, as where it is read.
    let namespace = namespaces.next_back().and_then(decoded).unwrap_or_default();
    match path {
        Some("tap") => Right::Tap(namespace),
        Some("metrics") => Right::Metrics(namespace),
        _ => Right::Figures,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_query_is_read_or_refused_with_a_reason() {
        let asked = Asked::read("window=start&fresh&resource=svc%2Fweb&label=a%3Db").unwrap();
        assert_eq!((asked.window, asked.fresh), (None, true));
        assert_eq!(asked.resource, Some("svc/web".parse().unwrap()));
        assert_eq!(asked.labels, [("a".into(), "b".into())]);
        assert_eq!(Asked::read("").unwrap().window, Some(WINDOW));
        for (query, part) in [
            ("window=0", "window"),
            ("window=601", "600"),
            ("resource=thing", "thing"),
            ("label=a", "label"),
            ("window=%zz", "text"),
            ("x=1", "unknown"),
        ] {
            let reason = Asked::read(query).unwrap_err();
            assert!(reason.contains(part), "{query}: {reason}");
        }
    }

    #[test]
    fn an_order_says_whose_metrics_how_and_how_long() {
        let order = Order::read("resource=deploy/web&tier=endpoints&seconds=60").unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(order.tier, Some((MetricsTier::Endpoints, minute)));
        assert_eq!(order.pods.resource, Some("deploy/web".parse().unwrap()));
        assert_eq!(Order::read("namespace=shop").unwrap().tier, None);
        for wrong in ["tier=all", "seconds=0", "seconds=86401", "path=/", "x=1"] {
            assert!(Order::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_for_decides_what_right_it_takes() {
        let of = |path: &str, query: &str| right(Some(path), query).to_string();
        let tap = "watch pods/tap of weft.mesh in ";
        let namespace = of("tap", "resource=pod&namespace=shop%2D1");
        assert_eq!(namespace, format!("{tap}namespace shop-1"));
        assert_eq!(
            of("tap", "resource=ns/shop"),
            format!("{tap}all namespaces")
        );
        let twice = of("tap", "namespace=mine&namespace=theirs");
        assert_eq!(twice, format!("{tap}namespace theirs"));
        assert!(of("metrics", "").starts_with("update pods/metrics"));
        assert!(of("why", "namespace=shop").starts_with("get traffic"));
    }

    #[test]
    fn texts_survive_the_query_string() {
        for text in ["deploy/web", "a=b&c", "é %"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
    }
}
