//! What the controller asks of the Kubernetes API besides watching it (that is [`crate::source::kube`]).
//!
//! * [`connect`]: the client.
//! * [`review`]: whom a projected token stands for.
//! * [`secret`]: the certificate authority, kept in a Secret.
//! * [`lease`]: which replica writes status.
//! * [`rbac`]: what all of it may do, and no more.

pub mod connect;
pub mod lease;
pub mod rbac;
pub mod review;
pub mod secret;

pub use ::kube::Client;
