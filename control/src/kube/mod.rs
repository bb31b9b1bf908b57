//! What the controller asks of the Kubernetes API besides watching it (that is [`crate::source::kube`]).
//!
//! * [`connect`]: the client.
//! * [`review`], `doubt`: whom a projected token stands for, and how much one address may ask in vain.
//! * [`observers`]: who may look at the traffic.
//! * [`secret`]: the certificate authority, kept in a Secret.
//! * [`lease`]: which replica writes status.
//! * [`status`], `shares`, [`writer`], `round`, `retries`: what users read of their objects.
//! * [`metrics_api`]: traffic as objects of `metrics.smi-spec.io`, by the API server's aggregator.
//! * [`rbac`]: what all of it may do, and no more.

pub mod connect;
mod doubt;
pub mod lease;
pub mod metrics_api;
pub mod observers;
pub mod rbac;
mod remembered;
mod retries;
pub mod review;
pub(crate) mod round;
pub mod secret;
mod shares;
pub mod status;
pub mod writer;

pub use ::kube::Client;
