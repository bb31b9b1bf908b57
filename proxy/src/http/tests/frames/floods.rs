//! Clients that send too much of what is allowed.

use super::*;

#[tokio::test]
async fn floods_end_their_connection_or_cost_next_to_nothing() {
    let repeat = |frames: &dyn Fn(u32) -> Vec<u8>, times: u32| -> Vec<u8> {
        (0..times).flat_map(|at| frames(at * 2 + 1)).collect()
    };
    let reset = |stream| [get(stream), frame(RST_STREAM, 0, stream, &number(8))].concat();
    let broken = |stream| {
        [
            post(stream, &[]),
            frame(WINDOW_UPDATE, 0, stream, &number(0x7fff_ffff)),
        ]
        .concat()
    };
    let endless = [
        frame(HEADERS, END_STREAM, 1, &fields(&GET)),
        repeat(
            &|_| frame(CONTINUATION, 0, 1, &fields(&[("x", "y")])),
            10_000,
        ),
    ];
    // One entry in the table, then a byte for each use of it.
    let entry = [&[0x40, 1, b'x', 100][..], &[b'y'; 100]].concat();
    let bomb = [fields(&GET), entry, vec![0xbe; 16_000]].concat();
    let rows: Vec<(&str, Vec<u8>, Told)> = vec![
        ("rapid reset", repeat(&reset, 2000), Ends(CALM)),
        (
            "streams that make us reset them",
            repeat(&broken, 4000),
            Ends(CALM),
        ),
        ("CONTINUATION without end", endless.concat(), Ends(CALM)),
        (
            "a field list that grows a hundredfold",
            frame(HEADERS, WHOLE, 1, &bomb),
            Ends(CALM),
        ),
        (
            "empty DATA",
            [post(1, &[]), repeat(&|_| frame(DATA, 0, 1, &[]), 20_000)].concat(),
            Ends(CALM),
        ),
        (
            "PING",
            repeat(&|_| frame(PING, 0, 0, &[0; 8]), 5000),
            Nothing,
        ),
        (
            "SETTINGS",
            repeat(&|_| frame(SETTINGS, 0, 0, &setting(3, 7)), 5000),
            Nothing,
        ),
        (
            "PRIORITY",
            repeat(&|stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]), 5000),
            Nothing,
        ),
        (
            "WINDOW_UPDATE",
            repeat(&|_| frame(WINDOW_UPDATE, 0, 0, &number(1)), 5000),
            Nothing,
        ),
        (
            "unknown frames",
            repeat(&|_| frame(0x99, 0, 0, b"xyz"), 5000),
            Nothing,
        ),
    ];
    check(rows).await;
}
