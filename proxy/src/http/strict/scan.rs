//! Follows the framing of HTTP/1 requests and says what must be refused. Pure.

use super::line;

/// Name of the field that carries a [`Refusal`] to the stack. Whoever else sends it refuses only themselves.
pub const REFUSED: &str = "weft-refused";

/// Fields of a head, or of trailers. The codec's own limit is one more: that one tells the stack of a refusal.
pub const MAX_FIELDS: usize = 99;
/// Bytes of a head, or of trailers, their line ends included. RFC 9112 section 3 asks for 8000 in the first line alone.
pub const MAX_HEAD: usize = 64 * 1024;
/// Bytes of one line.
pub(super) const MAX_LINE: usize = 32 * 1024;
/// Bytes of all chunk extensions of a body.
const MAX_EXTENSIONS: usize = 4 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A line ends without CR.
    BareLf,
    /// A field goes on in the next line.
    Folded,
    /// Something between the name of a field and its colon, no colon at all, or no name.
    FieldName,
    /// A control character in the value of a field.
    FieldValue,
    /// Content-Length and Transfer-Encoding.
    TwoFramings,
    /// More than one Content-Length.
    TwoLengths,
    /// A Content-Length that is not a number.
    Length,
    /// A Transfer-Encoding other than one `chunked`, or in HTTP/1.0.
    Encoding,
    /// The first line names HTTP and is no request.
    StartLine,
    /// The target has no form that a request may have.
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Not HTTP at all.
    NotHttp,
    /// Too many bytes or fields.
    TooLarge,
    /// The head took too long.
    Late,
    /// The chunks or trailers of a body; the head is with the stack already, so the codec's own error says it.
    Body,
}

impl Refusal {
    /// All of them, in the order of their values.
    pub const ALL: [Refusal; 15] = {
        use Refusal::*;
        [
            BareLf,
            Folded,
            FieldName,
            FieldValue,
            TwoFramings,
            TwoLengths,
            Length,
            Encoding,
            StartLine,
            Target,
            Version,
            NotHttp,
            TooLarge,
            Late,
            Body,
        ]
    };

    /// As the value of [`REFUSED`] says it.
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let letter = value.first()?.checked_sub(b'a')?;
        Self::ALL.get(usize::from(letter)).copied()
    }

    /// A sentence for the client.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::BareLf => "a line of the head ends without CR",
            Refusal::Folded => "a header field is folded over several lines",
            Refusal::FieldName => "a header field has no proper name",
            Refusal::FieldValue => "a header field has a control character in its value",
            Refusal::TwoFramings => "both Content-Length and Transfer-Encoding",
            Refusal::TwoLengths => "more than one Content-Length",
            Refusal::Length => "Content-Length is not a number",
            Refusal::Encoding => "Transfer-Encoding is something else than one `chunked`",
            Refusal::StartLine => "the first line is not a method, a target and a version",
            Refusal::Target => {
                "the target is not a path or address, or has bytes that must be escaped"
            }
            Refusal::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
            Refusal::NotHttp => "the first line is not that of an HTTP request",
            Refusal::TooLarge => "the head has too many bytes or fields, or too long a line",
            Refusal::Late => "the head was not finished in time",
            Refusal::Body => "a chunk or trailer is malformed",
        }
    }

    /// What stands in place of what was refused: the end of the head, or bytes that no chunk and no trailer begins with.
    pub(super) fn ending(self, place: Place) -> String {
        let start = match place {
            Place::Between => "GET / HTTP/1.1\r\nhost: refused\r\n",
            Place::Head => "",
            Place::Body => return "\0\r\n\r\n".into(),
        };
        format!("{start}{REFUSED}: {}\r\n\r\n", (b'a' + self as u8) as char)
    }
}

/// Where in a request the scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before the first line of a request.
    Between,
    /// Behind its first line.
    Head,
    /// In its body.
    Body,
}

/// Follows the framing of requests. Pure; fed in pieces of any size.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    framing: Framing,
    /// Bytes of this head, of the extensions of this body, or of these trailers.
    size: usize,
    fields: usize,
    /// Heads that have begun.
    heads: u64,
}

/// What a head has said about its body so far.
#[derive(Debug, Default)]
struct Framing {
    old: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Between,
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

/// What a piece turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// So many bytes are in order; what follows is an unfinished line, or refused.
    pub passed: usize,
    /// Why the rest is refused.
    pub refused: Option<Refusal>,
}

impl Scanner {
    /// Looks at the next bytes; those after `passed` are to be shown again, with more behind them.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let State::Body(left) | State::ChunkData(left) = &mut self.state {
                let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= taken as u64;
                at += taken;
                self.after_data();
                continue;
            }
            let refused = match memchr::memchr(b'\n', rest) {
                Some(end) => match self.line(&rest[..end]) {
                    Ok(()) => {
                        at += end + 1;
                        continue;
                    }
                    Err(refused) => Some(refused),
                },
                None => (rest.len() > MAX_LINE).then(|| self.too_large()),
            };
            return Scanned {
                passed: at,
                refused,
            };
        }
        Scanned {
            passed: at,
            refused: None,
        }
    }

    /// Where the next byte belongs.
    pub fn place(&self) -> Place {
        match self.state {
            State::Between => Place::Between,
            State::Head => Place::Head,
            _ => Place::Body,
        }
    }

    /// Number of the head that the next byte belongs to, or begins.
    pub(super) fn head(&self) -> u64 {
        match self.state {
            State::Head => self.heads,
            _ => self.heads + 1,
        }
    }

    fn after_data(&mut self) {
        match self.state {
            State::Body(0) => self.state = State::Between,
            State::ChunkData(0) => self.state = State::ChunkEnd,
            _ => {}
        }
    }

    fn too_large(&self) -> Refusal {
        match self.place() {
            Place::Body => Refusal::Body,
            Place::Between | Place::Head => Refusal::TooLarge,
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(match self.place() {
                // Without CR, and not HTTP either: then that is what is wrong with it.
                Place::Between if line::start(line) == Err(Refusal::NotHttp) => Refusal::NotHttp,
                Place::Between | Place::Head => Refusal::BareLf,
                Place::Body => Refusal::Body,
            });
        };
        match self.state {
            State::Between => self.start(line),
            State::Head if line.is_empty() => {
                self.head_ended();
                Ok(())
            }
            State::Head => {
                self.grows(line, 1)?;
                let (name, value) = line::field(line)?;
                self.framing.field(name, value)
            }
            State::ChunkSize => self.chunk(line).ok_or(Refusal::Body),
            State::ChunkEnd if line.is_empty() => {
                self.state = State::ChunkSize;
                Ok(())
            }
            State::Trailers if line.is_empty() => {
                *self = Self {
                    heads: self.heads,
                    ..Self::default()
                };
                Ok(())
            }
            State::Trailers => {
                self.grows(line, 1)?;
                line::field(line).map(drop).map_err(|_| Refusal::Body)
            }
            State::ChunkEnd | State::Body(_) | State::ChunkData(_) => Err(Refusal::Body),
        }
    }

    fn grows(&mut self, line: &[u8], fields: usize) -> Result<(), Refusal> {
        self.size += line.len() + 2;
        self.fields += fields;
        let fits = self.size <= MAX_HEAD && self.fields <= MAX_FIELDS && line.len() <= MAX_LINE;
        fits.then_some(()).ok_or_else(|| self.too_large())
    }

    fn start(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.grows(line, 0)?;
        // Empty lines before a request are allowed (RFC 9112 section 2.2).
        if !line.is_empty() {
            self.framing.old = line::start(line)?.old;
            self.state = State::Head;
            self.heads += 1;
        }
        Ok(())
    }

    fn head_ended(&mut self) {
        let framing = std::mem::take(&mut self.framing);
        (self.size, self.fields) = (0, 0);
        self.state = match framing.length {
            _ if framing.chunked => State::ChunkSize,
            Some(length) if length > 0 => State::Body(length),
            _ => State::Between,
        };
    }

    fn chunk(&mut self, line: &[u8]) -> Option<()> {
        let (size, extension) = line::chunk(line)?;
        self.size += extension;
        self.state = match size {
            0 => State::Trailers,
            size => State::ChunkData(size),
        };
        let fits = self.size <= MAX_EXTENSIONS;
        if size == 0 {
            self.size = 0;
        }
        fits.then_some(())
    }
}

impl Framing {
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|_| digits)
            .and_then(|text| text.parse::<i64>().ok())
            .and_then(|number| u64::try_from(number).ok());
        match (
            self.length.replace(number.ok_or(Refusal::Length)?),
            self.chunked,
        ) {
            (Some(_), _) => Err(Refusal::TwoLengths),
            (None, true) => Err(Refusal::TwoFramings),
            (None, false) => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::TwoFramings);
        }
        if self.old || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Encoding);
        }
        self.chunked = true;
        Ok(())
    }
}
