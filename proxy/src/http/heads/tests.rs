#![allow(clippy::unwrap_used)]
use super::*;

const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
    bytes.extend(vec![0; length.into()]);
    bytes
}

#[test]
fn a_head_lasts_from_its_first_byte_to_the_frame_that_ends_it() {
    let open = frame(HEADERS, 0, 5);
    let close = frame(CONTINUATION, END_HEADERS, 3);
    let rows: [(&str, Vec<u8>, Option<u64>); 8] = [
        ("nothing", vec![], Some(0)),
        ("a preface and settings", START.to_vec(), None),
        (
            "a whole head",
            [START, &frame(HEADERS, END_HEADERS, 5)].concat(),
            None,
        ),
        ("half a head", [START, &open].concat(), Some(1)),
        (
            "half of the frame that ends it",
            [START, &open, &close[..close.len() - 1]].concat(),
            Some(1),
        ),
        ("both halves", [START, &open, &close].concat(), None),
        (
            "a body that stalls",
            [START, &frame(0, 0, 9)[..12]].concat(),
            None,
        ),
        (
            "a second head",
            [START, &open, &close, &open].concat(),
            Some(2),
        ),
    ];
    for (name, bytes, expected) in rows {
        let mut whole = Frames::default();
        whole.pass(&bytes);
        assert_eq!(whole.unfinished(), expected, "{name}");
        let mut pieces = Frames::default();
        bytes.iter().for_each(|byte| pieces.pass(&[*byte]));
        assert_eq!(pieces.unfinished(), expected, "{name}, byte by byte");
    }
}

#[test]
fn a_head_without_payload_is_complete_with_its_flag() {
    let mut frames = Frames::default();
    frames.pass(START);
    frames.pass(&frame(HEADERS, 0, 0));
    assert_eq!(frames.unfinished(), Some(1));
    frames.pass(&frame(CONTINUATION, END_HEADERS, 0));
    assert_eq!(frames.unfinished(), None);
}
