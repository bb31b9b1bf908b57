//! Replays the corpora of `tests/conformance` through the codecs and the check, and holds each case to its reaction.

use super::*;

const REQUESTS: &str = include_str!("../../../../tests/conformance/http1_requests.txt");
const RESPONSES: &str = include_str!("../../../../tests/conformance/http1_responses.txt");

struct Case {
    name: &'static str,
    reactions: Vec<String>,
    bytes: Vec<u8>,
}

fn cases(text: &'static str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("= ") {
            let (reactions, bytes) = Default::default();
            cases.push(Case {
                name,
                reactions,
                bytes,
            });
        } else if let (Some(case), Some(reaction)) = (cases.last_mut(), line.strip_prefix("> ")) {
            let reaction = unescape(&repeat(reaction));
            case.reactions.push(reaction.replace(", []", " []"));
        } else if let Some(case) = cases.last_mut() {
            case.bytes.extend(bytes(&unescape(&repeat(line))));
        }
    }
    cases
}

/// `{3*ab}` is `ababab`; the innermost first.
fn repeat(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(end) = text.find('}') {
        let start = text[..end].rfind('{').unwrap();
        let (count, what) = text[start + 1..end].split_once('*').unwrap();
        let whole = what.repeat(count.parse().unwrap());
        text.replace_range(start..=end, &whole);
    }
    text
}

/// One character for each byte.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        out.push(match rest.next().unwrap() {
            'r' => '\r',
            'n' => '\n',
            't' => '\t',
            '0' => '\0',
            '\\' => '\\',
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&digits, 16).unwrap())
            }
            other => panic!("\\{other} in the corpus"),
        });
    }
    out
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|character| u8::try_from(character).unwrap())
        .collect()
}

/// Every byte as the character of its number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Answers with the request as it arrived, and keeps it.
fn recording() -> (Client, Arc<parking_lot::Mutex<Vec<String>>>) {
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let keep = seen.clone();
    let answer = move |request: Request| {
        let seen = keep.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={}", latin1(value.as_bytes())))
                .collect();
            let text = format!(
                "{} {} {} [{}]",
                head.method,
                head.uri,
                fields.join(","),
                latin1(&body)
            );
            seen.lock().push(text);
            Ok(Response::new(Body::full("answered")))
        }
    };
    (application(answer, HttpVersion::Http1).0, seen)
}

/// Status and `weft-error` code of every answer on a connection.
fn answers(text: &str) -> Vec<(u16, String)> {
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, _)| {
        let head = text[at..].split("\r\n\r\n").next().unwrap();
        // The texts of errors name versions too.
        Some((head, head.split(' ').nth(1)?.parse().ok()?))
    });
    heads
        .map(|(head, status)| {
            let error = head
                .lines()
                .find_map(|line| line.strip_prefix("weft-error: "));
            let code = error
                .and_then(|error| error.split(' ').next())
                .unwrap_or_default();
            (status, code.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn corpus_of_requests_none_is_read_in_two_ways() {
    let mut wrong = Vec::new();
    for case in cases(REQUESTS) {
        for piece in [usize::MAX, 1, 7] {
            let name = format!("{} in pieces of {piece}", case.name);
            if piece < 8 && case.bytes.len() > 3000 {
                continue;
            }
            let (client, seen) = recording();
            let mut proxy = proxy(client, HttpVersion::Http1);
            let served = case.reactions[0].starts_with("200");
            let mut sent = case.bytes.clone();
            if case.reactions[0].ends_with(char::is_numeric) && case.reactions[0] != "499 E128" {
                sent.extend(b"GET /smuggled HTTP/1.1\r\nHost: w\r\n\r\n");
            }
            let text = exchange(&mut proxy, &sent, piece).await;
            let seen = seen.lock().clone();
            let got = answers(&text);
            let got: Vec<String> = match served {
                true if got.iter().all(|answer| *answer == (200, String::new())) => {
                    seen.iter().map(|seen| format!("200 {seen}")).collect()
                }
                _ if !seen.is_empty() => vec![format!("the application saw {seen:?}")],
                _ if got.is_empty() => vec!["closed".into()],
                _ => got
                    .iter()
                    .map(|(status, code)| format!("{status} {code}"))
                    .collect(),
            };
            if got != case.reactions {
                wrong.push(format!("{name}: {got:?}: {}", text.escape_debug()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends everything, ends that half, and reads until the proxy ends the other.
async fn exchange(proxy: &mut Proxy, sent: &[u8], piece: usize) -> String {
    let (mut read, mut write) = tokio::io::split(&mut proxy.io);
    let sending = async {
        for piece in sent.chunks(piece.min(sent.len().max(1))) {
            // The proxy may close before it has read everything.
            if write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = write.shutdown().await;
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(sending, read.read_to_end(&mut answer));
    let _ = read;
    latin1(&answer)
}

#[tokio::test]
async fn corpus_of_responses_a_hostile_application_cannot_confuse_a_client() {
    let mut wrong = Vec::new();
    for case in cases(RESPONSES) {
        let bytes = case.bytes.clone();
        let (client, dialled) = behind(move |mut io| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    if io.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = io.write_all(&bytes).await;
            });
        });
        let mut proxy = proxy(client, HttpVersion::Http1);
        // A second request shows whether anything is left on the connection that is read as its answer.
        let request = b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 0\r\n\r\n";
        let text = exchange(&mut proxy, &request.repeat(2), usize::MAX).await;
        let (status, code) = answers(&text).into_iter().next().unwrap_or_default();
        let body = text
            .split_once("\r\n\r\n")
            .map(|(head, rest)| (head.to_owned(), rest.to_owned()));
        let (head, rest) = body.unwrap_or_default();
        let got = match code.as_str() {
            _ if text.is_empty() => "closed".into(),
            "" => format!("{status} {}", shown(&head, &rest)),
            code => format!("{status} {code}"),
        };
        if got != case.reactions[0] || dialled.load(Relaxed) == 0 || text.contains("E999") {
            wrong.push(format!("{}: {got}: {}", case.name, text.escape_debug()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first body of `rest`, or that it broke off.
fn shown(head: &str, rest: &str) -> String {
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if let Some(length) = field("content-length:") {
        let length: usize = length.parse().unwrap();
        return rest
            .get(..length)
            .map_or("broken".into(), |body| format!("[{body}]"));
    }
    if field("transfer-encoding:").is_none() {
        return "[]".into();
    }
    let (mut body, mut rest) = (String::new(), rest);
    loop {
        let Some((size, after)) = rest.split_once("\r\n") else {
            return "broken".into();
        };
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(data) = after.get(..size) else {
            return "broken".into();
        };
        if size == 0 {
            return format!("[{body}]");
        }
        body += data;
        rest = &after[size + 2..];
    }
}
