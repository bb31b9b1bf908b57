//! Follows the framing of HTTP/1 requests and says what must be refused. Pure.

/// Name of the field that carries a [`Refusal`] to the stack. Whoever else sends it refuses only themselves.
pub const REFUSED: &str = "weft-refused";

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A line ends without CR.
    BareLf,
    /// A field goes on in the next line.
    Folded,
    /// Something between the name of a field and its colon, or no colon at all.
    FieldName,
    /// Content-Length and Transfer-Encoding.
    TwoFramings,
    /// More than one Content-Length.
    TwoLengths,
    /// A Content-Length that is not a number.
    Length,
    /// The head took too long.
    Late,
}

impl Refusal {
    pub(super) const ALL: [Refusal; 7] = {
        use Refusal::*;
        [
            BareLf,
            Folded,
            FieldName,
            TwoFramings,
            TwoLengths,
            Length,
            Late,
        ]
    };

    /// As the value of [`REFUSED`] says it.
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let digit = value.first()?.checked_sub(b'0')?;
        Self::ALL.get(usize::from(digit)).copied()
    }

    /// A sentence for the client.
    pub fn explain(self) -> &'static str {
        match self {
            Refusal::BareLf => "a line of the head ends without CR",
            Refusal::Folded => "a header field is folded over several lines",
            Refusal::FieldName => "a header field has no proper name",
            Refusal::TwoFramings => "both Content-Length and Transfer-Encoding",
            Refusal::TwoLengths => "more than one Content-Length",
            Refusal::Length => "Content-Length is not a number",
            Refusal::Late => "the head was not finished in time",
        }
    }

    /// What ends the head in place of what was refused.
    pub(super) fn ending(self, begun: bool) -> String {
        let start = if begun {
            ""
        } else {
            "GET / HTTP/1.1\r\nhost: refused\r\n"
        };
        format!("{start}{REFUSED}: {}\r\n\r\n", self as u8)
    }
}

/// Follows the framing of requests. Pure; fed in pieces of any size.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests, or in a head whose first line was seen.
    Head {
        begun: bool,
    },
    Body(u64),
    ChunkSize,
    /// Its line end included.
    ChunkData(u64),
    Trailers,
    /// The codec will see for itself.
    Unwatched,
}

impl Default for State {
    fn default() -> Self {
        State::Head { begun: false }
    }
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
            match &mut self.state {
                State::Unwatched => at = bytes.len(),
                State::Body(left) | State::ChunkData(left) => {
                    let taken =
                        usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= taken as u64;
                    at += taken;
                    self.after_data();
                }
                _ => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        break;
                    };
                    if let Err(refused) = self.line(&rest[..end]) {
                        return Scanned {
                            passed: at,
                            refused: Some(refused),
                        };
                    }
                    at += end + 1;
                }
            }
        }
        Scanned {
            passed: at,
            refused: None,
        }
    }

    /// Is a head under way?
    pub fn in_head(&self) -> bool {
        self.state == State::Head { begun: true }
    }

    pub(super) fn between(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    fn after_data(&mut self) {
        match self.state {
            State::Body(0) => self.state = State::default(),
            State::ChunkData(0) => self.state = State::ChunkSize,
            _ => {}
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(line) = line.strip_suffix(b"\r") else {
            return if self.between() {
                Err(Refusal::BareLf)
            } else {
                self.unwatch()
            };
        };
        match self.state {
            State::Head { begun: false } => {
                self.state = State::Head {
                    begun: !line.is_empty(),
                }
            }
            State::Head { begun: true } if line.is_empty() => self.head_ended(),
            State::Head { begun: true } => self.field(line)?,
            State::ChunkSize => self.chunk(line)?,
            State::Trailers if line.is_empty() => self.state = State::default(),
            _ => {}
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Refusal::Folded);
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(Refusal::FieldName)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.ends_with(b" ") || name.ends_with(b"\t") {
            return Err(Refusal::FieldName);
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.chunked = true;
                if self.length.is_some() {
                    Err(Refusal::TwoFramings)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value)
            .ok()
            .filter(|_| digits)
            .and_then(|text| text.parse().ok());
        match (
            self.length.replace(number.ok_or(Refusal::Length)?),
            self.chunked,
        ) {
            (Some(_), _) => Err(Refusal::TwoLengths),
            (None, true) => Err(Refusal::TwoFramings),
            (None, false) => Ok(()),
        }
    }

    fn head_ended(&mut self) {
        self.state = match (std::mem::take(&mut self.chunked), self.length.take()) {
            (true, _) => State::ChunkSize,
            (false, Some(length)) if length > 0 => State::Body(length),
            _ => State::default(),
        };
    }

    /// Chunks are judged by the codec; here they are only followed.
    fn chunk(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let digits = line
            .iter()
            .position(|byte| !byte.is_ascii_hexdigit())
            .unwrap_or(line.len());
        let size = std::str::from_utf8(&line[..digits])
            .ok()
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        self.state = match size {
            Some(0) => State::Trailers,
            Some(size) if size < u64::MAX - 2 => State::ChunkData(size + 2),
            _ => State::Unwatched,
        };
        Ok(())
    }

    pub(super) fn unwatch(&mut self) -> Result<(), Refusal> {
        self.state = State::Unwatched;
        Ok(())
    }
}
