//! Which exchanges a tap wants to see. Everything that is said must fit; pure.

use crate::connection::Direction;
use crate::http::Request;

/// What must fit. The default fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this direction.
    pub direction: Option<Direction>,
    /// Method; empty: any.
    pub method: String,
    /// Start of the path.
    pub path_prefix: String,
    /// Namespace of the other end; empty: any.
    pub peer_namespace: String,
    /// The other end: `deploy/web` (outbound), `sa/web` (inbound); empty: any.
    pub peer_workload: String,
    /// `ns/name:port` as called, or `ns/name` for every port; empty: any.
    pub service: String,
    /// Fields of the request; an empty value: the field is there.
    pub fields: Vec<(String, String)>,
    /// Statuses from and to; 0: any.
    pub status: (u16, u16),
    /// Only what policy denied.
    pub denied_only: bool,
}

/// What is known with the head of the answer.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Status.
    pub status: u16,
    /// Code and name of the error, where a proxy answered.
    pub error: String,
    /// Namespace of the other end.
    pub peer_namespace: &'a str,
    /// The other end.
    pub peer_workload: &'a str,
    /// As called.
    pub service: &'a str,
}

impl Filter {
    /// Does the request fit, as far as it alone can tell?
    pub fn request(&self, direction: Direction, request: &Request) -> bool {
        self.direction.is_none_or(|only| only == direction)
            && (self.method.is_empty() || self.method == request.method().as_str())
            && request.uri().path().starts_with(&self.path_prefix)
            && self.fields.iter().all(|(name, value)| {
                let mut values = request.headers().get_all(name).iter();
                values.any(|at| value.is_empty() || at.as_bytes() == value.as_bytes())
            })
    }

    /// Does the rest fit?
    pub fn answer(&self, seen: &Seen<'_>) -> bool {
        let is = |wanted: &str, at: &str| wanted.is_empty() || wanted == at;
        let (from, to) = self.status;
        (from == 0 || (from..=to).contains(&seen.status))
            && (!self.denied_only || seen.error.ends_with(" denied"))
            && is(&self.peer_namespace, seen.peer_namespace)
            && is(&self.peer_workload, seen.peer_workload)
            && (is(&self.service, seen.service)
                || seen
                    .service
                    .rsplit_once(':')
                    .is_some_and(|(name, _)| name == self.service))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::Body;

    fn seen(status: u16, error: &str) -> Seen<'_> {
        Seen {
            status,
            error: error.to_owned(),
            peer_namespace: "shop",
            peer_workload: "deploy/web",
            service: "shop/web:80",
        }
    }

    #[test]
    fn everything_that_is_said_must_fit() {
        let request = http::Request::post("/api/read?x=1")
            .header("x-user", "ann")
            .body(Body::empty())
            .unwrap();
        let filter = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter
        };
        for (fits, filter) in [
            (true, filter(|_| {})),
            (true, filter(|at| at.method = "POST".into())),
            (false, filter(|at| at.method = "GET".into())),
            (true, filter(|at| at.path_prefix = "/api".into())),
            (false, filter(|at| at.path_prefix = "/b".into())),
            (false, filter(|at| at.direction = Some(Direction::Inbound))),
            (
                true,
                filter(|at| at.fields = vec![("x-user".into(), String::new())]),
            ),
            (
                false,
                filter(|at| at.fields = vec![("x-user".into(), "bob".into())]),
            ),
        ] {
            assert_eq!(
                filter.request(Direction::Outbound, &request),
                fits,
                "{filter:?}"
            );
        }
        for (fits, filter, seen) in [
            (true, filter(|_| {}), seen(200, "")),
            (
                true,
                filter(|at| at.status = (500, 599)),
                seen(503, "E104 no-endpoints"),
            ),
            (false, filter(|at| at.status = (500, 599)), seen(404, "")),
            (
                true,
                filter(|at| at.denied_only = true),
                seen(403, "E111 denied"),
            ),
            (false, filter(|at| at.denied_only = true), seen(403, "")),
            (
                true,
                filter(|at| at.service = "shop/web".into()),
                seen(200, ""),
            ),
            (
                false,
                filter(|at| at.service = "shop/we".into()),
                seen(200, ""),
            ),
            (
                false,
                filter(|at| at.peer_workload = "deploy/x".into()),
                seen(200, ""),
            ),
        ] {
            assert_eq!(filter.answer(&seen), fits, "{filter:?}");
        }
    }
}
