//! Long conversations over narrow pipes: bodies framed and cut at random, read at once, later, elsewhere, in part or not at
//! all. Each answer has to be the right one, and none may be waited for in vain.

use super::*;
use http_body::Frame;

/// Always the same numbers after the same start (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn text(&mut self, limit: usize) -> String {
        let length = self.below(limit);
        (0..length)
            .map(|at| char::from(b'a' + (at % 26) as u8))
            .collect()
    }
}

/// What becomes of the body is said by the path.
async fn application(request: Request) -> Result<Response, Error> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let answer = match path.as_str() {
        // While it still comes.
        "/echo" => body,
        "/whole" => Body::full(body.collect().await?.to_bytes()),
        // By another task, which may be slower than the answer.
        "/elsewhere" => {
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                while let Some(Ok(_)) = body.frame().await {
                    tokio::task::yield_now().await;
                }
            });
            Body::full("elsewhere")
        }
        "/part" => {
            let _ = body.frame().await;
            Body::frames([Ok(Frame::data(Bytes::from("part")))])
        }
        _ => Body::full("unread"),
    };
    Ok(Response::new(answer))
}

/// A request, and the body of its answer.
fn request(random: &mut Random) -> (String, String) {
    let path = ["/echo", "/whole", "/elsewhere", "/part", "/unread"][random.below(5)];
    let body = random.text(3000);
    let (framing, framed) = match random.below(3) {
        0 => (format!("Content-Length: {}\r\n", body.len()), body.clone()),
        1 if body.is_empty() => (String::new(), String::new()),
        _ => (
            "Transfer-Encoding: chunked\r\n".into(),
            chunks(&body, random),
        ),
    };
    let request = format!("POST {path} HTTP/1.1\r\nHost: w\r\n{framing}\r\n{framed}");
    let answer = match path {
        "/echo" | "/whole" => body,
        path => path[1..].to_owned(),
    };
    (request, answer)
}

fn chunks(mut body: &str, random: &mut Random) -> String {
    let mut framed = String::new();
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(1 + random.below(body.len()));
        framed += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
        body = rest;
    }
    framed + "0\r\n\r\n"
}

/// The bodies of the answers.
fn bodies(mut text: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = String::new();
        text = rest;
        if let Some(length) = length {
            let (whole, rest) = text.split_at(length.parse().unwrap());
            (body, text) = (whole.to_owned(), rest);
        } else {
            loop {
                let (size, rest) = text.split_once("\r\n").unwrap();
                let (chunk, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
                body += chunk;
                text = rest.strip_prefix("\r\n").unwrap();
                if size == "0" {
                    break;
                }
            }
        }
        bodies.push(body);
    }
    bodies
}

/// A connection to a service, through a pipe that holds so many bytes.
fn serve(service: HttpService, room: usize) -> (DuplexStream, JoinHandle<Result<(), Error>>) {
    let (ours, theirs) = duplex(room);
    let serving = tokio::spawn(async move {
        let (_drain, watch) = Drain::new();
        let io = Io::Memory(theirs);
        server::serve(io, HttpVersion::Http1, service, connection(), watch).await
    });
    (ours, serving)
}

/// The application, or a proxy in front of it.
fn service(far: bool, room: usize) -> HttpService {
    let near = HttpService::new(service_fn(application));
    if !far {
        return near;
    }
    let client = Client::memory(move |_| Ok(Io::Memory(serve(near.clone(), room).0)));
    stack(client, &connection())
}

async fn conversation(number: u64, far: bool) {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (requests, expected): (Vec<_>, Vec<_>) = (0..20).map(|_| request(&mut random)).unzip();
    let (here, there) = (1 + random.below(700), 1 + random.below(700));
    let (mut io, serving) = serve(service(far, there), here);
    let (mut read, mut write) = tokio::io::split(&mut io);
    let bytes = requests.concat();
    let sending = async {
        let mut rest = bytes.as_bytes();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(1 + random.below(rest.len().min(2000)));
            write.write_all(piece).await.unwrap();
            if random.below(4) == 0 {
                tokio::task::yield_now().await;
            }
            rest = later;
        }
        write.shutdown().await.unwrap();
    };
    let mut answers = String::new();
    let (_, end) = tokio::join!(sending, read.read_to_string(&mut answers));
    end.unwrap();
    assert_eq!(bodies(&answers), expected, "conversation {number}");
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_lost_or_mistaken_however_bodies_are_read() {
    for number in 0..200 {
        let far = number % 2 == 1;
        // The clock moves only when everything waits for something else.
        let ended = tokio::time::timeout(Duration::from_secs(60), conversation(number, far)).await;
        assert!(ended.is_ok(), "conversation {number} stands still");
    }
}
