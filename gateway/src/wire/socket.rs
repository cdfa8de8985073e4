//! A WebSocket as a state machine to be polled: tungstenite's codec over an async stream.
//!
//! One task owns the socket, reads and writes, so that one waker serves both directions and nothing is shared or
//! locked.

use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::{
    Error, Message, WebSocket,
    protocol::{CloseFrame, Role, WebSocketConfig},
};

use crate::settings::Limits;

/// How much is read at once. An idle connection keeps a buffer of this size; tungstenite's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Output beyond this is handed to the stream while more is being queued.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;

/// The server's end of a WebSocket.
pub(crate) struct Socket<S> {
    inner: WebSocket<Adapter<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket whose handshake is done. `read` is what came behind the handshake.
    pub(crate) fn new(stream: S, read: &[u8], limits: &Limits, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(limits.max_buffered_bytes.max(WRITE_BUFFER_BYTES + 1));
        let adapter = Adapter { stream, waker: Waker::noop().clone(), written: 0 };
        Self { inner: WebSocket::from_partially_read(adapter, read.to_vec(), Role::Server, Some(config)) }
    }

    /// Changes how large a message may be.
    pub(crate) fn set_max_message_bytes(&mut self, bytes: usize) {
        self.inner.set_config(|config| {
            config.max_message_size = Some(bytes);
            config.max_frame_size = Some(bytes);
        });
    }

    /// How many bytes the stream has taken since the handshake.
    pub(crate) fn written(&self) -> u64 {
        self.inner.get_ref().written
    }

    /// The next message.
    pub(crate) fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Result<Message, Error>> {
        self.inner.get_mut().waits_for(cx);
        or_pending(self.inner.read())
    }

    /// Queues a message. What does not fit the stream now goes with a later flush.
    pub(crate) fn queue(&mut self, cx: &Context<'_>, message: Message) -> Result<(), Error> {
        self.inner.get_mut().waits_for(cx);
        match or_pending(self.inner.write(message)) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Hands everything queued to the stream.
    pub(crate) fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.get_mut().waits_for(cx);
        match ready!(or_pending(self.inner.flush())) {
            // The close handshake is complete, and with it the flush.
            Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }

    /// Closes: sends the close frame, then waits for the peer's, so that the frame is not lost to a reset.
    pub(crate) async fn close(&mut self, frame: CloseFrame) {
        let sent = std::future::poll_fn(|cx| {
            self.inner.get_mut().waits_for(cx);
            // Queued at the first poll; later ones find the socket closing and only flush.
            or_pending(self.inner.close(Some(frame.clone())))
        });
        if sent.await.is_err() {
            return;
        }
        let end = loop {
            match std::future::poll_fn(|cx| self.poll_read(cx)).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        if matches!(end, Error::ConnectionClosed | Error::AlreadyClosed) {
            return;
        }
        // What arrives is no WebSocket any more: read on to the end, as closing on unread bytes resets the
        // connection.
        let stream = &mut self.inner.get_mut().stream;
        if stream.shutdown().await.is_ok() {
            let mut discarded = [0; 1024];
            while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
        }
    }
}

fn or_pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

/// An async stream as tungstenite sees it: blocking calls that would block say so, and wake the task later.
struct Adapter<S> {
    stream: S,
    waker: Waker,
    /// Bytes that the stream has taken.
    written: u64,
}

impl<S> Adapter<S> {
    fn waits_for(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Adapter<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Adapter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_write(&mut cx, bytes) {
            Poll::Ready(result) => result.inspect(|taken| self.written += *taken as u64),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_flush(&mut cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
