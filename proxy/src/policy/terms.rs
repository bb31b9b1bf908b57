//! What holds for a request to a Service beyond where it goes: timeouts, retries, faults. Compiled once per version; a
//! Service that nobody said anything about costs a request one branch.

use crate::http::{Request, is_grpc, validate};
use std::sync::Arc;
use weft_proxy_api::policy::matching::RequestView;
use weft_proxy_api::policy::settings::{Fault, RequestSettings, Retry, ServiceSettings, Timeouts};

/// The terms of a Service.
#[derive(Debug, Default)]
pub struct ServiceTerms {
    /// Same order as the settings' rules.
    rules: Vec<Option<Arc<Terms>>>,
    others: Option<Arc<Terms>>,
}

/// The terms of a request.
#[derive(Debug)]
pub struct Terms {
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Answers that are asked for again.
    pub retry: Option<Retry>,
    /// What is done to it on purpose.
    pub fault: Fault,
}

/// What a retry policy allows for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// By HTTP status.
    pub status: bool,
    /// By gRPC code.
    pub grpc: bool,
}

impl ServiceTerms {
    /// Compiles the settings of a Service.
    pub fn new(settings: &ServiceSettings) -> Self {
        Self {
            rules: settings
                .rules
                .iter()
                .map(|rule| Terms::new(&rule.settings))
                .collect(),
            others: Terms::new(&settings.requests),
        }
    }

    /// What holds for a request; `None`: nothing in particular. `settings`: those it was compiled from.
    pub fn of(&self, settings: &ServiceSettings, request: &Request) -> Option<&Arc<Terms>> {
        if self.rules.is_empty() {
            return self.others.as_ref();
        }
        let host = validate::host(request);
        let rule = settings.rule(&RequestView {
            method: request.method().as_str(),
            path: request.uri().path(),
            host: &host,
            headers: request.headers(),
        });
        rule.map_or(&self.others, |rule| &self.rules[rule]).as_ref()
    }
}

impl Terms {
    fn new(settings: &RequestSettings) -> Option<Arc<Self>> {
        (*settings != RequestSettings::default()).then(|| {
            Arc::new(Self {
                timeouts: settings.timeouts,
                retry: settings.retry.clone(),
                fault: settings.fault,
            })
        })
    }
}

impl Allowed {
    /// May this request be sent again because of its answer? `None`: never.
    pub fn of(retry: &Retry, request: &Request) -> Option<Self> {
        let method = request.method();
        let named = |method: &str| retry.methods.iter().any(|name| name == method);
        let fits = match retry.methods.is_empty() {
            true => method.is_idempotent(),
            false => named(method.as_str()),
        };
        let grpc = is_grpc(request.headers());
        let allowed = Self {
            status: fits && !retry.statuses.is_empty(),
            grpc: grpc && retry.grpc != 0 && (fits || retry.methods.is_empty()),
        };
        (allowed.status || allowed.grpc).then_some(allowed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;
    use std::time::Duration;
    use weft_proxy_api::policy::matching::HttpMatch;
    use weft_proxy_api::policy::settings::RequestRule;

    fn request(method: &str, kind: &str) -> Request {
        http::Request::builder()
            .method(method)
            .header("content-type", kind)
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn what_may_be_sent_again_depends_on_method_and_kind() {
        let retry = |methods: &[&str]| Retry {
            attempts: 1,
            statuses: vec![(500, 599)],
            grpc: 1 << 14,
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            backoff: Duration::ZERO,
            max_backoff: Duration::ZERO,
        };
        let allowed = |status, grpc| Some(Allowed { status, grpc });
        let grpc = "application/grpc";
        for (methods, method, kind, expected) in [
            (&[][..], "GET", "", allowed(true, false)),
            (&[], "PUT", "", allowed(true, false)),
            (&[], "POST", "", None),
            (&[], "POST", grpc, allowed(false, true)),
            (&["POST"], "POST", "", allowed(true, false)),
            (&["POST"], "POST", grpc, allowed(true, true)),
            (&["POST"], "GET", "", None),
            (&["GET"], "POST", grpc, None),
        ] {
            let found = Allowed::of(&retry(methods), &request(method, kind));
            assert_eq!(found, expected, "{methods:?} {method} {kind}");
        }
    }

    #[test]
    fn the_rule_that_fits_decides_whole() {
        let timed = |seconds| RequestSettings {
            timeouts: Timeouts {
                request: Some(Duration::from_secs(seconds)),
                ..Timeouts::default()
            },
            ..RequestSettings::default()
        };
        let posts = HttpMatch {
            object: String::new(),
            name: String::new(),
            path: None,
            methods: vec!["POST".into()],
            headers: Vec::new(),
        };
        let mut settings = ServiceSettings {
            requests: timed(1),
            rules: vec![RequestRule {
                object: String::new(),
                matches: vec![posts],
                settings: timed(2),
            }],
            ..ServiceSettings::default()
        };
        let limit = |settings: &ServiceSettings, method| {
            let terms = ServiceTerms::new(settings);
            let found = terms.of(settings, &request(method, ""));
            found.map(|terms| terms.timeouts.request.unwrap().as_secs())
        };
        assert_eq!(limit(&settings, "GET"), Some(1));
        assert_eq!(limit(&settings, "POST"), Some(2));
        settings.rules[0].settings = RequestSettings::default();
        assert_eq!(limit(&settings, "POST"), None, "nothing is inherited");
        assert_eq!(limit(&ServiceSettings::default(), "GET"), None);
    }
}
