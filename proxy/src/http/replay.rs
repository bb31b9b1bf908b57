//! A request body that can be sent once more: what is read of it is kept, up to a limit, until the request is done.
//! Beyond the limit the body just passes, and the request cannot be sent again.

use super::Body;
use crate::error::{Error, ErrorKind};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Most bytes kept of one body.
pub const MOST_KEPT: usize = 64 * 1024;

/// What is kept of a body, for whoever may send it again.
pub(crate) struct Replay(Arc<Mutex<Kept>>);

/// One sending of the body.
pub(super) struct Reader {
    kept: Arc<Mutex<Kept>>,
    /// Which sending; only the last one may read.
    turn: u32,
    /// Bytes sent.
    sent: usize,
    trailers_sent: bool,
}

struct Kept {
    /// What was not read yet.
    rest: Body,
    hint: SizeHint,
    /// One piece, so that many small frames do not each hold on to a large buffer.
    read: Vec<u8>,
    trailers: Option<HeaderMap>,
    turn: u32,
    /// Too long, or broken: not to be had again.
    lost: bool,
}

impl Replay {
    /// Keeps what is read of `body`, and gives back what to send first. `None`: it is known to be too long.
    pub(crate) fn of(body: &mut Body) -> Option<Self> {
        let hint = body.size_hint();
        if hint.lower() > MOST_KEPT as u64 {
            return None;
        }
        let client = body.client();
        let replay = Self(Arc::new(Mutex::new(Kept {
            rest: std::mem::take(body),
            hint,
            read: Vec::new(),
            trailers: None,
            turn: 0,
            lost: false,
        })));
        *body = replay.reader(0);
        body.set_client(client.unwrap_or(0));
        Some(replay)
    }

    /// The body from its beginning; whoever was sending it before is cut off. `None`: not all of it was kept.
    pub(crate) fn again(&self) -> Option<Body> {
        let turn = {
            let mut kept = self.0.lock();
            if kept.lost {
                return None;
            }
            kept.turn += 1;
            kept.turn
        };
        Some(self.reader(turn))
    }

    fn reader(&self, turn: u32) -> Body {
        Body::replayed(Reader {
            kept: self.0.clone(),
            turn,
            sent: 0,
            trailers_sent: false,
        })
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            if self.read.len() + data.len() > MOST_KEPT {
                self.lose();
            } else if !self.lost {
                self.read.extend_from_slice(data);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.read = Vec::new();
    }
}

impl Reader {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut kept = self.kept.lock();
        if kept.turn != self.turn {
            return Poll::Ready(Some(Err(Error::new(ErrorKind::ClientGone))));
        }
        if !kept.lost && self.sent < kept.read.len() {
            let data = Bytes::copy_from_slice(&kept.read[self.sent..]);
            self.sent = kept.read.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        // Read by an earlier sending: the rest has nothing more.
        if let Some(trailers) = kept.trailers.clone().filter(|_| !self.trailers_sent) {
            self.trailers_sent = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut kept.rest).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                kept.keep(frame);
                self.sent += frame.data_ref().map_or(0, Bytes::len);
                self.trailers_sent |= frame.is_trailers();
            }
            Some(Err(_)) => kept.lose(),
            None => {}
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        let all = kept.lost || self.sent >= kept.read.len();
        let trailers = kept.trailers.is_none() || self.trailers_sent;
        kept.turn == self.turn && all && trailers && kept.rest.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        match kept.hint.exact() {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.sent as u64)),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;

    async fn text(body: Body) -> (String, bool) {
        let all = body.collect().await.unwrap();
        let trailers = all.trailers().is_some();
        (
            String::from_utf8(all.to_bytes().to_vec()).unwrap(),
            trailers,
        )
    }

    fn data(bytes: &'static str) -> Result<Frame<Bytes>, Error> {
        Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_is_sent_again_from_its_beginning_with_its_trailers() {
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", http::HeaderValue::from_static("1"));
        let frames = [data("one "), data("two"), Ok(Frame::trailers(fields))];
        let mut body = Body::frames(frames);
        let replay = Replay::of(&mut body).unwrap();
        assert_eq!(text(body).await, ("one two".into(), true));
        let again = replay.again().unwrap();
        assert!(!again.is_end_stream());
        assert_eq!(text(again).await, ("one two".into(), true));
        assert_eq!(
            text(replay.again().unwrap()).await,
            ("one two".into(), true)
        );
    }

    #[tokio::test]
    async fn a_body_read_in_part_goes_on_where_it_stopped() {
        let mut body = Body::frames([data("one "), data("two")]);
        let replay = Replay::of(&mut body).unwrap();
        body.frame().await.unwrap().unwrap();
        let again = replay.again().unwrap();
        assert!(body.frame().await.unwrap().is_err(), "its turn is over");
        assert_eq!(text(again).await, ("one two".into(), false));
    }

    #[tokio::test]
    async fn what_is_too_long_passes_and_is_not_kept() {
        let mut known = Body::full(vec![0; MOST_KEPT + 1]);
        assert!(Replay::of(&mut known).is_none());
        assert_eq!(known.size_hint().exact(), Some(MOST_KEPT as u64 + 1));
        let half = || Ok(Frame::data(Bytes::from(vec![1; MOST_KEPT / 2 + 1])));
        let mut body = Body::frames([half(), half(), half()]);
        let replay = Replay::of(&mut body).unwrap();
        let all = body.collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), 3 * (MOST_KEPT / 2 + 1));
        assert!(replay.again().is_none());
    }

    #[tokio::test]
    async fn the_length_stays_known() {
        let mut body = Body::full("hello");
        let replay = Replay::of(&mut body).unwrap();
        assert_eq!(body.size_hint().exact(), Some(5));
        drop(body);
        assert_eq!(replay.again().unwrap().size_hint().exact(), Some(5));
    }
}
