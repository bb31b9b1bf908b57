//! What would happen to a request? Answered from manifests alone, by the code the proxies run.
//!
//! ```text
//! files ──Files──▶ objects ──complete──▶ World ──views──▶ policy ──wire──▶ matching, routes, verdicts ──▶ Answer
//! ```
//!
//! * [`files`]: manifests to objects, one state after the other, as the running controller takes them in.
//! * [`complete`]: what manifests leave to a cluster (pods, addresses) is assumed, and said.
//! * [`question`]: who asks whom for what; [`answer`]: what happens, and why.
//! * `sent`: who asks, and what is sent, as proxies see it.
//! * [`ask`]: routes at the caller, then judges at every pod that could serve; [`why`]: what did not apply.
//! * `applies`: what ServicePolicies add; [`text`]: an answer for people.

pub mod answer;
pub mod applies;
mod ask;
pub mod complete;
pub mod files;
mod judge;
pub mod question;
mod route;
mod sent;
pub mod shown;
pub mod text;
mod udp;
mod why;

pub use answer::Answer;
pub use complete::Completed;
pub use files::Files;
pub use question::Question;

#[cfg(test)]
mod tests;

use crate::views::{self, Mesh, ViewKey};
use std::cell::RefCell;
use std::collections::HashMap;
use weft_proxy_api::wire::{Body, Item, decode, encode};

/// A state of the mesh that can be asked.
#[derive(Debug)]
pub struct Simulation {
    state: Completed,
    /// Views as a proxy has them, by what they are of.
    views: RefCell<HashMap<ViewKey, Body>>,
}

impl Simulation {
    /// The state that these files describe.
    pub fn new(files: &Files, mesh: Mesh) -> Self {
        Self::of(complete::complete(files, mesh))
    }

    /// A state that is complete already.
    pub fn of(state: Completed) -> Self {
        Self {
            state,
            views: RefCell::default(),
        }
    }

    /// What happens to this request.
    pub fn ask(&self, question: &Question) -> Answer {
        ask::ask(self, question)
    }

    /// The state.
    pub fn state(&self) -> &Completed {
        &self.state
    }

    /// A view as a proxy receives it: computed, encoded, decoded. What cannot be decoded is refused by proxies as well.
    pub fn view(&self, key: ViewKey) -> Result<Body, String> {
        if let Some(body) = self.views.borrow().get(&key) {
            return Ok(body.clone());
        }
        let (body, _) = views::compute(&self.state.world, &key);
        let body = over_the_wire(body)?;
        self.views.borrow_mut().insert(key, body.clone());
        Ok(body)
    }
}

/// An answer for programs; where a request cannot be read, `{"error": …}`.
pub fn answered(answer: &Result<Answer, String>) -> serde_json::Value {
    match answer {
        Ok(answer) => serde_json::to_value(answer).unwrap_or_default(),
        Err(why) => serde_json::json!({ "error": why }),
    }
}

fn over_the_wire(body: Body) -> Result<Body, String> {
    use prost::Message;
    use weft_proxy_api::wire::generated::SyncResponse;
    let item = Item {
        id: 1,
        version: encode::version(&body),
        body,
    };
    let bytes = encode::response(&[item]).encode_to_vec();
    let message = SyncResponse::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    match decode::response(&message).pop() {
        Some(Ok(item)) => Ok(item.body),
        Some(Err(bad)) => Err(format!("proxies refuse this policy: {}", bad.error)),
        None => Err("the policy is lost on its way".to_owned()),
    }
}
