//! What the parts of Weft agree on.
//!
//! * [`names`]: every name two parts must spell alike.
//! * [`errors`]: every failure the proxy answers with, and what to do about it.
//! * [`identity`]: who a workload is.
//! * [`latency`]: in which buckets it is counted.
//! * [`policy`]: what the controller tells a proxy, as checked values, and what it means: does this request match, who
//!   may call, which backend. Pure: no sockets, no clock, no runtime. The proxy enforces with these lines and
//!   `meshctl` explains with them.
//! * [`wire`]: the same in protobuf (`proto/weft.proto`), and the way between the two.

pub mod errors;
pub mod identity;
pub mod latency;
pub mod names;
pub mod policy;
#[cfg(feature = "grpc")]
pub mod wire;
