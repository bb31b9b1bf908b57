//! What endpoints answer.

use super::*;

/// What becomes of a request whose endpoint answers with these bytes.
async fn endpoint_sends(bytes: Vec<u8>) -> Result<(u16, bool), ErrorKind> {
    let (client, _) = behind(move |mut io| {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let mut read = Vec::new();
            // The preface, the settings, and the head of the request: its HEADERS frame is the first on stream 1.
            while !read.windows(5).any(|at| at[1..] == [0, 0, 0, 1]) {
                if io.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let settings = frame(SETTINGS, 0, 0, &[]);
            let _ = io.write_all(&[&settings, &bytes[..]].concat()).await;
            // Ends what would otherwise wait for more.
            let _ = io.shutdown().await;
            let mut rest = Vec::new();
            let _ = io.read_to_end(&mut rest).await;
        });
    });
    let response = send(&client, http2("/", Body::empty()))
        .await
        .map_err(|error| error.kind())?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await.is_ok()))
}

#[tokio::test]
async fn an_endpoint_that_breaks_a_rule_breaks_only_its_own_answer() {
    use ErrorKind::{UpstreamProtocol, UpstreamReset};
    let ok = [(":status", "200")];
    let head =
        |flags, more: &[(&str, &str)]| frame(HEADERS, flags, 1, &fields(&[&ok[..], more].concat()));
    type Row = (
        &'static str,
        Vec<u8>,
        Result<(u16, bool), &'static [ErrorKind]>,
    );
    let rows: Vec<Row> = vec![
        ("an answer", head(WHOLE, &[]), Ok((200, true))),
        (
            "an answer with a body",
            [head(END_HEADERS, &[]), frame(DATA, END_STREAM, 1, b"hi")].concat(),
            Ok((200, true)),
        ),
        (
            "an interim answer first",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", "103")])),
                head(WHOLE, &[]),
            ]
            .concat(),
            Ok((200, true)),
        ),
        (
            "no status",
            frame(HEADERS, WHOLE, 1, &fields(&[("x", "y")])),
            Err(&[UpstreamProtocol]),
        ),
        (
            "a status that is none",
            frame(HEADERS, WHOLE, 1, &fields(&[(":status", "2000")])),
            Err(&[UpstreamProtocol]),
        ),
        (
            "a name in capitals",
            head(WHOLE, &[("Upper", "x")]),
            Err(&[UpstreamProtocol]),
        ),
        (
            "CR LF in a value",
            head(WHOLE, &[("x", "a\r\nb: c")]),
            Err(&[UpstreamProtocol]),
        ),
        (
            "transfer-encoding",
            head(WHOLE, &[("transfer-encoding", "chunked")]),
            Err(&[UpstreamProtocol]),
        ),
        (
            "DATA before the head",
            frame(DATA, END_STREAM, 1, b"hi"),
            Err(&[UpstreamProtocol]),
        ),
        (
            "a stream nobody opened",
            frame(HEADERS, WHOLE, 3, &fields(&ok)),
            Err(&[UpstreamProtocol]),
        ),
        (
            "PUSH_PROMISE",
            frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&number(2)[..], &fields(&GET)].concat(),
            ),
            Err(&[UpstreamProtocol]),
        ),
        (
            "a frame larger than allowed",
            frame(DATA, 0, 1, &vec![0; 20_000]),
            Err(&[UpstreamProtocol]),
        ),
        (
            "an index beyond the tables",
            frame(HEADERS, WHOLE, 1, &[0xff, 0x80, 0x01]),
            Err(&[UpstreamProtocol]),
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &fields(&ok)),
            Err(&[UpstreamProtocol]),
        ),
        (
            "SETTINGS that are wrong",
            frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
            Err(&[UpstreamProtocol]),
        ),
        (
            "a reset",
            frame(RST_STREAM, 0, 1, &number(2)),
            Err(&[UpstreamReset]),
        ),
        (
            "GOAWAY",
            frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]),
            Err(&[UpstreamReset]),
        ),
        ("nothing", Vec::new(), Err(&[UpstreamReset])),
        (
            "less than its length",
            [
                head(END_HEADERS, &[("content-length", "3")]),
                frame(DATA, END_STREAM, 1, b"ab"),
            ]
            .concat(),
            Ok((200, false)),
        ),
        (
            "more than its length",
            [
                head(END_HEADERS, &[("content-length", "1")]),
                frame(DATA, END_STREAM, 1, b"ab"),
            ]
            .concat(),
            Ok((200, false)),
        ),
        (
            "a body that breaks off",
            [head(END_HEADERS, &[]), frame(DATA, 0, 1, b"ab")].concat(),
            Ok((200, false)),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, wanted) in rows {
        let got = endpoint_sends(bytes).await;
        let fits = match (&got, wanted) {
            (Ok(got), Ok(wanted)) => *got == wanted,
            (Err(kind), Err(kinds)) => kinds.contains(kind),
            _ => false,
        };
        if !fits {
            wrong.push(format!("{name}: {got:?} in place of {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
