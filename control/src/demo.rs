//! `meshctl demo`: an application in the spirit of Faces and emojivoto, run on the one-machine runtime, and a story told
//! with it: shift traffic, roll a workload, let a backend fail, take a permission away and give it back. Each step says
//! what it expects and checks it with the application's own counts and the proxies' metrics.
//!
//! [`app`] the application · [`manifests`] what runs · [`observe`] what is seen · [`story`] the steps · [`screen`] the
//! live view · [`page`] the application in a browser.

pub mod app;
mod manifests;
mod observe;
mod page;
mod screen;
mod story;

pub use screen::lines;
pub use story::{Options, StepReport, Summary, run};
