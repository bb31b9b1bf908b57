//! A WebSocket echo server and client (RFC 6455), with nothing between them and the bytes: frames of every length form,
//! masked by the client, a ping, and a close that is answered.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) mod http2;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What the server proves it has read with (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

type Stream = BufReader<TcpStream>;

/// Serves one connection.
pub(crate) async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let head = head(&mut stream).await?;
    let key = field(&head, "sec-websocket-key").context("not a WebSocket handshake")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept(&key)
    );
    stream.write_all(answer.as_bytes()).await?;
    echo(stream).await
}

/// Sends frames back until one says that the client closes.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    loop {
        match receive(&mut stream).await? {
            (CLOSE, payload) => {
                send(&mut stream, CLOSE, &payload, None).await?;
                return Ok(stream.shutdown().await?);
            }
            (PING, payload) => send(&mut stream, PONG, &payload, None).await?,
            (kind, payload) => send(&mut stream, kind, &payload, None).await?,
        }
    }
}

/// Talks to the echo at `to` and prints what it found.
pub(crate) async fn client(to: &str) -> anyhow::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    let ask = format!(
        "GET /chat HTTP/1.1\r\nHost: {to}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await?;
    let head = head(&mut stream).await?;
    ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    ensure!(
        field(&head, "sec-websocket-accept").as_deref() == Some(&accept(KEY)),
        "{head}"
    );
    converse(stream).await
}

/// Sends frames of every kind, and looks at what comes back.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let mask = Some([1, 2, 3, 4]);
    for size in [0, 5, 125, 126, 65_535, 65_536, 300_000] {
        let payload = vec![b'x'; size];
        send(&mut stream, TEXT, &payload, mask).await?;
        ensure!(
            receive(&mut stream).await? == (TEXT, payload),
            "{size} bytes did not come back"
        );
    }
    send(&mut stream, PING, b"there?", mask).await?;
    ensure!(receive(&mut stream).await? == (PONG, b"there?".to_vec()));
    send(&mut stream, CLOSE, &[3, 0xe8], mask).await?;
    ensure!(receive(&mut stream).await? == (CLOSE, vec![3, 0xe8]));
    ensure!(stream.read(&mut [0]).await? == 0, "and then it ends");
    println!("echoed");
    Ok(())
}

async fn head(stream: &mut Stream) -> anyhow::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            bail!("the head broke off: {head}");
        }
    }
    Ok(head)
}

fn field(head: &str, name: &str) -> Option<String> {
    let found = head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    found.map(str::to_owned)
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> anyhow::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        length @ 0..126 => frame.push(masked | u8::try_from(length)?),
        length @ 126..65_536 => {
            frame.push(masked | 126);
            frame.extend(u16::try_from(length)?.to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| frame.extend(mask)).unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<(u8, Vec<u8>)> {
    let mut start = [0; 2];
    stream.read_exact(&mut start).await?;
    let length = match start[1] & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    ensure!(length <= 1 << 20, "a frame of {length} bytes");
    let mut mask = [0; 4];
    if start[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; usize::try_from(length)?];
    stream.read_exact(&mut payload).await?;
    let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    Ok((start[0] & 0xf, unmasked.collect()))
}

fn accept(key: &str) -> String {
    let text = format!("{key}{GUID}");
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        text.as_bytes(),
    );
    base64(digest.as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0usize, |all, at| {
            all << 8 | usize::from(three.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * at) & 63];
            text.push(if at <= three.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(super::accept(super::KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
