//! Tests, see beside.
