//! What a proxy reports, measured before it is unfolded: two bytes of a list on the wire can be some hundred in memory,
//! and the message would be read whole before anything of it could be checked.

use super::read::MAX_ENTRIES;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use prost::{Message, decode_length_delimiter};
use weft_proxy_api::wire::generated as pb;

/// Strings of one summary; a proxy's cap of series keeps it far below.
const MAX_STRINGS: usize = 65_536;
/// Bytes of one entry of a summary's lists, with every number at its longest.
const MAX_ENTRY: usize = 8 << 10;
/// Fields of one entry, or of one look: answers, reasons, headers.
const MAX_FIELDS: usize = 256;
/// Looks of one message: a proxy sends a quarter of it.
const MAX_LOOKS: usize = 1_024;
/// Largest look at a request that is handed on: a proxy shows less, and many of them may wait for who reads slowly.
const MAX_LOOK: usize = 64 << 10;

/// Tags of `Summary`.
const STRINGS: u32 = 1;
const LISTS: [u32; 4] = [3, 6, 7, 8];
/// Tag of `TapEvents`.
const EVENTS: u32 = 1;

/// Reads a summary that unfolds to no more than a proxy ever says.
pub fn summary(bytes: &[u8]) -> Result<pb::Summary, String> {
    let (mut strings, mut others) = (0, 0);
    for field in Fields(bytes) {
        let (tag, entry) = field?;
        match tag {
            STRINGS => strings += 1,
            _ => others += 1,
        }
        if strings > MAX_STRINGS || others > LISTS.len() * MAX_ENTRIES {
            return Err("the summary has too many entries".into());
        }
        if LISTS.contains(&tag) {
            few_fields(entry, MAX_ENTRY)?;
        }
    }
    pb::Summary::decode(bytes).map_err(|error| error.to_string())
}

/// Reads many looks. Those that are larger than a proxy of ours makes them are left out.
pub fn looks(bytes: &[u8]) -> Result<Vec<pb::TapEvent>, String> {
    let mut looks = Vec::new();
    for (at, field) in Fields(bytes).enumerate() {
        let (tag, bytes) = field?;
        if at >= MAX_LOOKS {
            return Err(format!("more than {MAX_LOOKS} looks in one message"));
        }
        if tag == EVENTS {
            looks.extend(look(bytes)?);
        }
    }
    Ok(looks)
}

/// Reads one look; `None`: it is larger than a proxy of ours makes them.
pub fn look(bytes: &[u8]) -> Result<Option<pb::TapEvent>, String> {
    if bytes.len() > MAX_LOOK {
        return Ok(None);
    }
    few_fields(bytes, MAX_LOOK)?;
    let look = pb::TapEvent::decode(bytes).map_err(|error| error.to_string())?;
    Ok(Some(look))
}

fn few_fields(bytes: &[u8], most: usize) -> Result<(), String> {
    if bytes.len() > most {
        return Err(format!("an entry of {} bytes, at most {most}", bytes.len()));
    }
    for (at, field) in Fields(bytes).enumerate() {
        field?;
        if at >= MAX_FIELDS {
            return Err(format!("an entry of more than {MAX_FIELDS} fields"));
        }
    }
    Ok(())
}

/// The fields of a message in turn: the tag, and the bytes of what has a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, &'a [u8]), String> {
        let (tag, kind) = decode_key(&mut self.0).map_err(|error| error.to_string())?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, tag, &mut self.0, DecodeContext::default())
                .map_err(|error| error.to_string())?;
            return Ok((tag, Default::default()));
        }
        let length = decode_length_delimiter(&mut self.0).map_err(|error| error.to_string())?;
        let parts = self.0.split_at_checked(length);
        let (field, rest) = parts.ok_or("a field is longer than its message")?;
        self.0 = rest;
        Ok((tag, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// So many empty entries of a list, in two bytes each.
    fn empty(tag: u8, count: usize) -> Vec<u8> {
        [(tag << 3) | 2, 0].repeat(count)
    }

    #[test]
    fn what_a_proxy_says_is_read_as_it_was_said() {
        let edge = pb::Edge {
            latency: vec![u64::MAX; weft_proxy_api::latency::BUCKETS],
            answers: vec![pb::Answers::default(); 60],
            ..pb::Edge::default()
        };
        let said = pb::Summary {
            strings: vec!["a".into(), String::new()],
            edges: vec![edge; MAX_ENTRIES],
            backends: vec![pb::BackendState::default(); MAX_ENTRIES],
            uptime_ms: 7,
            ..pb::Summary::default()
        };
        assert_eq!(summary(&said.encode_to_vec()).unwrap(), said);
        let one = |path: usize| pb::TapEvent {
            path: "x".repeat(path),
            request_headers: vec![pb::Field::default(); 64],
            ..pb::TapEvent::default()
        };
        let said = pb::TapEvents {
            events: vec![one(1), one(MAX_LOOK), one(2)],
        };
        let read = looks(&said.encode_to_vec()).unwrap();
        assert_eq!(read, [one(1), one(2)], "what is too large is left out");
    }

    #[test]
    fn a_few_bytes_do_not_unfold_to_many() {
        assert!(summary(&empty(3, 4 * MAX_ENTRIES)).is_ok());
        for tag in [3, 6, 7, 8, 9] {
            assert!(summary(&empty(tag, 4 * MAX_ENTRIES + 1)).is_err(), "{tag}");
        }
        assert!(summary(&empty(1, MAX_STRINGS + 1)).is_err());
        assert!(looks(&empty(1, MAX_LOOKS)).is_ok());
        assert!(looks(&empty(1, MAX_LOOKS + 1)).is_err());
        let edge = pb::Edge {
            answers: vec![pb::Answers::default(); MAX_FIELDS + 1],
            ..pb::Edge::default()
        };
        let said = pb::Summary {
            edges: vec![edge],
            ..pb::Summary::default()
        };
        assert!(summary(&said.encode_to_vec()).is_err());
        let said = pb::TapEvent {
            response_headers: vec![pb::Field::default(); MAX_FIELDS + 1],
            ..pb::TapEvent::default()
        };
        assert!(look(&said.encode_to_vec()).is_err());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let said = pb::TapEvents {
            events: vec![pb::TapEvent {
                path: "/".into(),
                ..pb::TapEvent::default()
            }],
        };
        let bytes = said.encode_to_vec();
        for length in 1..bytes.len() {
            assert!(looks(&bytes[..length]).is_err(), "{length}");
            assert!(summary(&bytes[..length]).is_err(), "{length}");
        }
    }
}
