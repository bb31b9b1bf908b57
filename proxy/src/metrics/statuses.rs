//! Answers counted by code: common HTTP statuses and gRPC codes each have a slot, the others share one per class.
//! A slot's class (success or failure) is fixed, so that counting an answer is one addition.

use super::bundle::Code;

/// HTTP statuses with a slot of their own.
const COMMON: [u16; 30] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 415, 422, 429, 500, 501, 502, 503, 504,
];
const CLASSES: usize = 6;
const GRPC: usize = 18;
/// Number of slots: common statuses, one per class (`other` included), one per gRPC code and `other`.
pub const SLOTS: usize = COMMON.len() + CLASSES + GRPC;

static HTTP_SLOT: [u8; 600] = http_slots();

const fn http_slots() -> [u8; 600] {
    let mut table = [0; 600];
    let mut code = 0;
    while code < 600 {
        let class = code / 100;
        table[code] = (COMMON.len() + if class == 0 { CLASSES - 1 } else { class - 1 }) as u8;
        code += 1;
    }
    let mut at = 0;
    while at < COMMON.len() {
        table[COMMON[at] as usize] = at as u8;
        at += 1;
    }
    table
}

/// The slot of an answer.
pub(super) fn slot(code: Code) -> usize {
    match code {
        Code::Http(status) => {
            usize::from(*HTTP_SLOT.get(usize::from(status)).unwrap_or(&HTTP_SLOT[0]))
        }
        Code::Grpc(code) => COMMON.len() + CLASSES + usize::from(code).min(GRPC - 1),
    }
}

/// What a slot is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// `200`, or `4xx` for the rest of a class.
    pub status: &'static str,
    /// `14`, or empty where the answer was not gRPC.
    pub grpc: &'static str,
    /// Counts as success.
    pub success: bool,
}

impl Name {
    /// `success` or `failure`.
    pub fn classification(self) -> &'static str {
        if self.success { "success" } else { "failure" }
    }
}

const STATUS_NAMES: [&str; COMMON.len() + CLASSES] = [
    "101", "200", "201", "202", "204", "206", "301", "302", "303", "304", "307", "308", "400",
    "401", "403", "404", "405", "408", "409", "410", "412", "413", "415", "422", "429", "500",
    "501", "502", "503", "504", "1xx", "2xx", "3xx", "4xx", "5xx", "other",
];
const GRPC_NAMES: [&str; GRPC] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "other",
];

/// The name of a slot.
pub fn name(slot: usize) -> Name {
    let http = COMMON.len() + CLASSES;
    if slot < http {
        let status = STATUS_NAMES[slot];
        return Name {
            status,
            grpc: "",
            success: !(status.starts_with('5') || status == "other"),
        };
    }
    let grpc = (slot - http).min(GRPC - 1);
    Name {
        status: "200",
        grpc: GRPC_NAMES[grpc],
        success: grpc_success(grpc as u8),
    }
}

/// The slot as the control API says it: HTTP status (1 to 5 for the rest of a class, 0 for none), and gRPC code + 1 (0
/// where the answer was not gRPC).
pub fn wire(slot: usize) -> (u32, u32) {
    let http = COMMON.len() + CLASSES;
    match slot {
        at if at < COMMON.len() => (u32::from(COMMON[at]), 0),
        at if at < http => (((at - COMMON.len() + 1) % CLASSES) as u32, 0),
        at => (200, (at - http + 1) as u32),
    }
}

/// Not so: unknown, deadline exceeded, permission denied, internal, unavailable, data loss (Linkerd's list), and what is no
/// code at all. What blames the caller counts as success of the server, as it does for HTTP.
pub fn grpc_success(code: u8) -> bool {
    !matches!(code, 2 | 4 | 7 | 13 | 14 | 15 | 17..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_lands_in_its_slot() {
        for (status, expected, success) in [
            (200, "200", true),
            (207, "2xx", true),
            (418, "4xx", true),
            (503, "503", false),
            (599, "5xx", false),
        ] {
            let name = name(slot(Code::Http(status)));
            assert_eq!(
                (name.status, name.grpc, name.success),
                (expected, "", success)
            );
        }
        assert_eq!(name(slot(Code::Http(999))).status, "other");
        assert_eq!(name(slot(Code::Http(0))).status, "other");
    }

    #[test]
    fn slots_have_a_number_on_the_wire() {
        for (code, expected) in [
            (Code::Http(404), (404, 0)),
            (Code::Http(207), (2, 0)),
            (Code::Http(599), (5, 0)),
            (Code::Http(999), (0, 0)),
            (Code::Grpc(0), (200, 1)),
            (Code::Grpc(16), (200, 17)),
            (Code::Grpc(99), (200, 18)),
        ] {
            assert_eq!(wire(slot(code)), expected, "{code:?}");
        }
    }

    #[test]
    fn grpc_codes_have_slots_of_their_own() {
        assert_eq!(
            name(slot(Code::Grpc(0))),
            Name {
                status: "200",
                grpc: "0",
                success: true
            }
        );
        assert_eq!(
            name(slot(Code::Grpc(14))),
            Name {
                status: "200",
                grpc: "14",
                success: false
            }
        );
        assert_eq!(
            name(slot(Code::Grpc(200))),
            Name {
                status: "200",
                grpc: "other",
                success: false
            }
        );
        assert_eq!(slot(Code::Grpc(255)), SLOTS - 1);
    }
}
