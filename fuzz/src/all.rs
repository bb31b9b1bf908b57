// Shared by the fuzz workspace and by the tests that replay its seeds.

/// A target: its name, which is also its folder of seeds, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("detect", detect),
    ("http1", http1),
    ("frames", frames),
    ("wire", wire),
    ("resource", resource),
    ("path", path),
    ("pattern", pattern),
    ("manifest", manifest),
    ("inject", inject),
    ("scrape", scrape),
];

/// The first bytes of a connection. More bytes never take an answer back, and the limit ends every wait.
pub fn detect(bytes: &[u8]) {
    use weft_proxy::detect::{Answer, MAX_BYTES, detect};
    let whole = detect(bytes, false);
    let ended = detect(bytes, true);
    assert!(!matches!(ended, Answer::NeedMore), "an ended connection has an answer");
    if let Answer::Is(seen) = &ended
        && let Some(name) = seen.server_name()
    {
        assert!(!name.ends_with('.') && !name.contains(char::is_whitespace), "{name:?}");
        assert_eq!(name, name.to_lowercase());
    }
    if bytes.len() >= MAX_BYTES {
        assert!(!matches!(whole, Answer::NeedMore), "the limit ends the wait");
    }
    for length in 0..bytes.len().min(600) {
        let early = detect(&bytes[..length], false);
        if !matches!(early, Answer::NeedMore) {
            assert_eq!(format!("{early:?}"), format!("{:?}", detect(&bytes[..length + 1], false)), "at {length}");
        }
    }
}

/// A request that is taken is read by another codec as well, complete, from its first byte to its last. And it does not
/// matter how the bytes were cut.
pub fn http1(bytes: &[u8]) {
    use weft_proxy::http::h1::look::requests;
    let bytes = &bytes[..bytes.len().min(4096)];
    let whole = requests(bytes, bytes.len());
    let size = usize::from(bytes.first().copied().unwrap_or(1) % 16) + 1;
    for size in [1, size] {
        assert_eq!(whole, requests(bytes, size), "whole, and by {size}");
    }
    let mut start = 0;
    for (_, end) in whole.requests {
        another_reads_one(&bytes[start..end]);
        start = end;
    }
}

/// One request, as ours says, through a codec of others.
fn another_reads_one(bytes: &[u8]) {
    use http_body_util::{BodyExt, Empty};
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response};
    use std::cell::Cell;
    let read = Cell::new(0);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let tunnel = request.method() == hyper::Method::CONNECT;
        let body = request.into_body().collect();
        let read = &read;
        async move {
            // A tunnel has no body; the stack refuses it by its method.
            if !tunnel {
                body.await?;
            }
            read.set(read.get() + 1);
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut codec = hyper::server::conn::http1::Builder::new();
    codec.header_read_timeout(None).half_close(true).max_headers(100);
    let io = hyper_util::rt::TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
    let serving = codec.serve_connection(io, service);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let ended = runtime.expect("a runtime").block_on(serving);
    assert!(read.get() == 1, "{} requests ({ended:?}) in {}", read.get(), bytes.escape_ascii());
}

/// How the frames of HTTP/2 are cut does not matter to where their heads end.
pub fn frames(bytes: &[u8]) {
    use weft_proxy::http::heads::Frames;
    let (mut whole, mut pieces) = (Frames::default(), Frames::default());
    whole.pass(bytes);
    let size = usize::from(bytes.first().copied().unwrap_or(1) % 16) + 1;
    bytes.chunks(size).for_each(|piece| pieces.pass(piece));
    assert_eq!(whole.unfinished(), pieces.unfinished());
}

/// A message of the controller: decoded or refused field by field; what was decoded survives the way back.
pub fn wire(bytes: &[u8]) {
    use prost::Message;
    use weft_proxy_api::wire::{decode, encode, generated::SyncResponse};
    let Ok(message) = SyncResponse::decode(bytes) else { return };
    let items: Vec<_> = decode::response(&message).into_iter().filter_map(Result::ok).collect();
    let again = decode::response(&encode::response(&items));
    let again: Vec<_> = again.into_iter().filter_map(Result::ok).collect();
    assert_eq!(items, again);
}

/// What a proxy asks for.
pub fn resource(bytes: &[u8]) {
    use prost::Message;
    use weft_proxy_api::wire::{decode, encode, generated::Resource};
    let Ok(message) = Resource::decode(bytes) else { return };
    if let Ok(resource) = decode::resource(&message) {
        assert_eq!(decode::resource(&encode::resource(&resource)), Ok(resource));
    }
}

/// The canonical form of a path is its own canonical form, and never leads upwards.
pub fn path(bytes: &[u8]) {
    use weft_proxy_api::policy::path;
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(canonical) = path::normalise(text) {
        assert_eq!(path::normalise(&canonical).as_deref(), Ok(&*canonical));
        assert!(!canonical.split('/').any(|segment| segment == ".."), "{canonical}");
    }
    if let Some(host) = path::normalise_host(text) {
        assert_eq!(path::normalise_host(&host).as_deref(), Some(&*host), "{text:?}");
    }
}

/// A pattern, and a text to match: whatever the open end accepts, the text starts with what the closed one accepts.
pub fn pattern(bytes: &[u8]) {
    use weft_proxy_api::policy::matching::TextMatch;
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, subject) = text.split_once('\n').unwrap_or((text, ""));
    if let (Ok(open), Ok(closed)) = (TextMatch::regex_prefix(pattern), TextMatch::regex_full(pattern)) {
        assert!(!closed.fits(subject) || open.fits(subject), "{pattern:?} {subject:?}");
    }
}

/// A file of manifests: every object and problem knows its place, and messages stay short.
pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (_, problems) = weft_control::manifest::parse("fuzz.yaml", &text);
    for problem in problems {
        assert!(problem.to_string().len() < 4096, "{problem}");
    }
}

/// Injection changes nothing the second time, and can be undone to the byte.
pub fn inject(bytes: &[u8]) {
    use weft_control::inject::{Settings, inject, uninject};
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let settings = Settings::default();
    let once = inject(text, &settings).text;
    assert_eq!(inject(&once, &settings).text, once);
    if once != text {
        assert_eq!(uninject(&once).text, text);
    }
}

/// What a proxy says at `/metrics`.
pub fn scrape(bytes: &[u8]) {
    let _ = weft_control::scrape::Scrape::parse(&String::from_utf8_lossy(bytes));
}
