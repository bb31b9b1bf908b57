//! Where an address leads: routes, backends and endpoints.

use super::matching::{HttpMatch, RequestView};
use super::settings::ServiceSettings;
use super::{Protocol, ServicePort};
use crate::identity::SpiffeId;
use std::net::SocketAddr;

/// Where one `ip:port` leads.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound {
    /// A Service.
    Service(Service),
    /// A pod, called by its own address.
    Endpoint(Endpoint),
    /// Nothing the mesh knows: dialled as it is, in plain.
    PassThrough,
    /// Must not be dialled.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A Service and its routes.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The Service that was called.
    pub name: ServicePort,
    /// What its port was declared to speak.
    pub protocol: Protocol,
    /// The first that fits decides; never empty, and the last one has no matches.
    pub routes: Vec<Route>,
    /// How it is called.
    pub settings: Box<ServiceSettings>,
}

/// Requests that share their backends.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The object that made it, e.g. `TrafficSplit default/web`; `None`: the service's own endpoints.
    pub object: Option<String>,
    /// Any must fit; empty: every request.
    pub matches: Vec<HttpMatch>,
    /// Weighted choices; all weights 0 (or no backend): 503.
    pub backends: Vec<Backend>,
}

/// A weighted choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// The Service that serves it.
    pub name: ServicePort,
    /// Share relative to the other backends of the route.
    pub weight: u64,
    /// Name of its endpoint set.
    pub endpoints: String,
}

/// One place that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port of the pod.
    pub address: SocketAddr,
    /// Identity it must prove; `None`: no proxy there, plain.
    pub identity: Option<SpiffeId>,
    /// Namespace of the pod, for labels.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Label of the workload, e.g. `deploy/web`.
    pub workload: String,
    /// Zone of its node; empty: unknown.
    pub zone: String,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// What the port was declared to speak.
    pub protocol: Protocol,
}

impl Service {
    /// Index of the first route that fits an HTTP request; the last one fits everything.
    pub fn route_http(&self, request: &RequestView<'_>) -> usize {
        self.first(|route| {
            route.matches.is_empty() || route.matches.iter().any(|m| m.fits(request))
        })
    }

    /// Index of the route for bytes of which nothing is known: the first without matches.
    pub fn route_tcp(&self) -> usize {
        self.first(|route| route.matches.is_empty())
    }

    /// Index of the route for TLS that the application speaks itself, to the server it names (SNI, normalised as a
    /// host). Nothing else of it can be read, so only matches about nothing but `host` can fit.
    pub fn route_tls(&self, server: &str) -> usize {
        self.first(|route| {
            route.matches.is_empty() || route.matches.iter().any(|m| m.fits_server(server))
        })
    }

    fn first(&self, fits: impl Fn(&Route) -> bool) -> usize {
        let last = self.routes.len().saturating_sub(1);
        self.routes.iter().position(fits).unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::matching::{HeaderMatch, TextMatch};

    fn route(path: Option<&str>) -> Route {
        let matches = path.map(|path| HttpMatch {
            object: "HTTPRouteGroup default/api".into(),
            name: path.into(),
            path: Some(TextMatch::regex_prefix(path).unwrap()),
            methods: vec![],
            headers: vec![],
        });
        Route {
            object: None,
            matches: matches.into_iter().collect(),
            backends: vec![],
        }
    }

    #[test]
    fn d26_the_first_route_that_fits_decides() {
        let name = ServicePort {
            namespace: "default".into(),
            name: "web".into(),
            port: 80,
        };
        let routes = vec![route(Some("/a")), route(Some("/a/b")), route(None)];
        let service = Service {
            name,
            protocol: Protocol::Detect,
            routes,
            settings: Box::default(),
        };
        let headers = http::HeaderMap::new();
        for (path, expected) in [("/a/b", 0), ("/a", 0), ("/c", 2)] {
            let request = RequestView {
                method: "GET",
                path,
                host: "web",
                headers: &headers,
            };
            assert_eq!(service.route_http(&request), expected, "{path}");
        }
        // D31: bytes that are not HTTP follow no conditional split
        assert_eq!(service.route_tcp(), 2);
    }

    #[test]
    fn tls_follows_what_is_about_its_server_name_alone() {
        let host = |pattern: &str| HeaderMatch {
            name: "host".into(),
            value: TextMatch::regex_full(pattern).unwrap(),
        };
        let with = |path: Option<&str>, methods: &[&str], headers: Vec<HeaderMatch>| {
            let mut route = route(Some(path.unwrap_or("/")));
            let only = &mut route.matches[0];
            only.path = path.map(|path| TextMatch::regex_prefix(path).unwrap());
            only.methods = methods.iter().map(|m| (*m).to_owned()).collect();
            only.headers = headers;
            route
        };
        let other = HeaderMatch {
            name: "x-beta".into(),
            value: TextMatch::regex_full(".*").unwrap(),
        };
        let routes = vec![
            with(Some("/a"), &[], vec![host("beta.example")]),
            with(None, &["GET"], vec![host("beta.example")]),
            with(None, &[], vec![host("beta.example"), other]),
            with(None, &[], vec![]),
            with(None, &[], vec![host("beta.*"), host(".*example")]),
            route(None),
        ];
        let name = ServicePort {
            namespace: "default".into(),
            name: "web".into(),
            port: 443,
        };
        let service = Service {
            name,
            protocol: Protocol::Detect,
            routes,
            settings: Box::default(),
        };
        for (server, expected) in [("beta.example", 4), ("beta.other", 5), ("", 5)] {
            assert_eq!(service.route_tls(server), expected, "{server}");
        }
    }
}
