//! Streams around another one: each reads in a way of its own, and all write the same.

/// What is written goes to the stream inside; `wrote`, where it is named, sees how much was taken.
macro_rules! writes_through {
    ($outer:ty, $inner:ident $(, $wrote:ident)?) => {
        const _: () = {
            use std::io::{self, IoSlice};
            use std::pin::Pin;
            use std::task::{Context, Poll};
            use tokio::io::AsyncWrite;

            impl AsyncWrite for $outer {
                fn poll_write(
                    mut self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    buf: &[u8],
                ) -> Poll<io::Result<usize>> {
                    let written = Pin::new(&mut self.$inner).poll_write(cx, buf);
                    $(self.$wrote(&written);)?
                    written
                }
                fn poll_write_vectored(
                    mut self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                    bufs: &[IoSlice<'_>],
                ) -> Poll<io::Result<usize>> {
                    let written = Pin::new(&mut self.$inner).poll_write_vectored(cx, bufs);
                    $(self.$wrote(&written);)?
                    written
                }
                fn is_write_vectored(&self) -> bool {
                    self.$inner.is_write_vectored()
                }
                fn poll_flush(
                    mut self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                ) -> Poll<io::Result<()>> {
                    Pin::new(&mut self.$inner).poll_flush(cx)
                }
                fn poll_shutdown(
                    mut self: Pin<&mut Self>,
                    cx: &mut Context<'_>,
                ) -> Poll<io::Result<()>> {
                    Pin::new(&mut self.$inner).poll_shutdown(cx)
                }
            }
        };
    };
}

pub(crate) use writes_through;
