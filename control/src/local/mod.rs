//! A node without Kubernetes: pods from injected manifests as network namespaces on one machine, for users, the demo and
//! the end-to-end tests alike.
//!
//! ```text
//!  meshctl local up ── Runtime::up ──► sandbox (user, network, mount, PID namespaces; one process tree)
//!        │                              └─ supervisor (PID 1): folders ─► inject ─► workloads ─► pods
//!        │  Unix socket                     ├─ weft-control           (node namespace, 10.42.0.1)
//!        └─ Client: apply, get, exec …      ├─ pod default/web-…      (own namespace, 10.42.x.y)
//!                                           │    ├─ weft-init, weft-proxy, application
//!                                           └─ bridge weft0, Service rules, hosts files
//! ```
//!
//! [`options`] what can be chosen · [`client`] the handle · [`wire`] what crosses the socket · [`roles`] the hidden
//! programs inside this one · [`sandbox`] namespaces and rungs · [`supervisor`] the one loop · [`workloads`],
//! [`spec`], [`addresses`], [`hosts`], [`nat`], [`loopback`] decisions as values · [`kubelet`], [`container`],
//! [`probes`] one pod's life · [`bridge`], [`relays`] how pods and Services are reached.

mod addresses;
mod bridge;
mod children;
mod client;
mod cluster;
mod container;
mod controller;
mod enter;
mod files;
mod hosts;
mod kubelet;
mod logs;
mod lookup;
mod loopback;
mod mesh;
mod nat;
mod network;
mod node;
mod objects;
mod options;
mod pause;
mod probes;
mod programs;
mod relays;
mod requests;
mod roles;
mod rootfs;
mod sandbox;
mod server;
mod services;
mod shown;
mod spec;
mod start;
mod supervisor;
mod sys;
mod volumes;
mod wire;
mod workloads;

pub use client::{Client, Exec, Output};
pub use options::{Access, Options, Rung, default_state};
pub use roles::dispatch;
pub use start::Runtime;
pub use wire::{ContainerInfo, PodInfo, PortInfo, ServiceInfo, Status};
