//! One stream out of several kinds of stream.

/// Forwards reading and writing to whichever variant it is. Every variant takes several buffers at once.
macro_rules! forward_stream {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $( Self::$variant(stream) => std::pin::Pin::new(stream).poll_read(cx, buf), )+
                }
            }
        }

        impl tokio::io::AsyncWrite for $name {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $( Self::$variant(stream) => std::pin::Pin::new(stream).poll_write(cx, bytes), )+
                }
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                parts: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                match self.get_mut() {
                    $( Self::$variant(stream) => {
                        std::pin::Pin::new(stream).poll_write_vectored(cx, parts)
                    } )+
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $( Self::$variant(stream) => std::pin::Pin::new(stream).poll_flush(cx), )+
                }
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                match self.get_mut() {
                    $( Self::$variant(stream) => std::pin::Pin::new(stream).poll_shutdown(cx), )+
                }
            }
        }
    };
}
pub(crate) use forward_stream;
