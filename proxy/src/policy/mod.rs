//! Policy as the proxy uses it: compiled once per version, with weights in tables and metric handles bound.

pub mod affinity;
pub mod inbound;
pub mod outbound;
pub mod rates;
pub mod terms;

pub use affinity::HashSource;
pub use inbound::InboundPlan;
pub use outbound::{
    BackendPlan, Destination, EndpointPlan, FallbackPlan, OutboundPlan, RoutePlan, ServicePlan,
};
pub use rates::RateRule;
pub use terms::{ServiceTerms, Terms};
