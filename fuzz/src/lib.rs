//! Fuzz targets as functions of bytes: each panics if something that must hold does not. Untrusted bytes never panic,
//! never grow memory without bound, never hang.

include!("all.rs");
