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
    protocol::{
        CloseFrame, Role, WebSocketConfig,
        frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use crate::settings::Limits;

/// How much is read at once. An idle connection keeps a buffer of this size; tungstenite's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Output beyond this is handed to the stream while more is being queued.
const WRITE_BUFFER_BYTES: usize = 32 * 1024;
/// An idle connection keeps an output buffer of this size at most: enough for one small answer after another.
const KEPT_OUTPUT_BYTES: usize = 1024;

/// The server's end of a WebSocket.
pub(crate) struct Socket<S> {
    inner: WebSocket<Adapter<S>>,
    max_buffered_bytes: usize,
    /// Whether a message was too large to be read, or what arrived is no WebSocket: the codec cannot go on, and no close
    /// frame is to be waited for (RFC 6455 section 7.1.7).
    is_stuck: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket whose handshake is done. `read` is what came behind the handshake.
    pub(crate) fn new(stream: S, read: &[u8], limits: &Limits, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes))
            .read_buffer_size(READ_BUFFER_BYTES)
            // Output waits in the adapter.
            .write_buffer_size(0);
        let adapter = Adapter {
            stream,
            waker: Waker::noop().clone(),
            output: Vec::new(),
            output_taken: 0,
            taken_bytes: 0,
            received_bytes: 0,
        };
        Self {
            inner: WebSocket::from_partially_read(adapter, read.to_vec(), Role::Server, Some(config)),
            max_buffered_bytes: limits.max_buffered_bytes,
            is_stuck: false,
        }
    }

    /// Changes how large a message may be.
    pub(crate) fn set_max_message_bytes(&mut self, bytes: usize) {
        self.inner.set_config(|config| {
            config.max_message_size = Some(bytes);
            config.max_frame_size = Some(bytes);
        });
    }

    /// The next message.
    pub(crate) fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Result<Message, Error>> {
        self.inner.get_mut().waits_for(cx);
        let read = self.inner.read();
        self.is_stuck |= matches!(read, Err(Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)));
        or_pending(read)
    }

    /// Queues a text. What the stream does not take now goes with a later flush. Not to be called once the socket
    /// closes.
    pub(crate) fn queue(&mut self, cx: &Context<'_>, text: String) -> Result<(), Error> {
        self.queue_message(cx, Message::text(text))
    }

    /// Queues a text or a binary message in the same way.
    pub(crate) fn queue_message(&mut self, cx: &Context<'_>, message: Message) -> Result<(), Error> {
        let adapter = self.inner.get_mut();
        if adapter.waiting_bytes() + message.len() > self.max_buffered_bytes {
            return Err(Error::WriteBufferFull(message.into()));
        }
        adapter.waits_for(cx);
        let kind = if message.is_binary() { Data::Binary } else { Data::Text };
        // Not through tungstenite, whose buffer keeps the size that the largest message gave it.
        Frame::message(message.into_data(), OpCode::Data(kind), true).format(&mut adapter.output)?;
        if adapter.waiting_bytes() <= WRITE_BUFFER_BYTES {
            return Ok(());
        }
        match or_pending(adapter.hand_over().map_err(Error::Io)) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Queues a ping.
    pub(crate) fn ping(&mut self, cx: &Context<'_>) -> Result<(), Error> {
        self.inner.get_mut().waits_for(cx);
        match or_pending(self.inner.write(Message::Ping(bytes::Bytes::new()))) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// How many bytes the peer's side has taken so far.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.inner.get_ref().taken_bytes
    }

    /// How many bytes the peer has sent so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.inner.get_ref().received_bytes
    }

    /// Hands everything queued to the stream.
    pub(crate) fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.get_mut().waits_for(cx);
        match ready!(or_pending(self.inner.flush())) {
            // The close handshake is complete; the answer to the peer's frame may still wait here.
            Err(Error::ConnectionClosed) => or_pending(self.inner.get_mut().hand_over().map_err(Error::Io)),
            other => Poll::Ready(other),
        }
    }

    /// Forgets the output that the peer has not begun to take, down to the end of the message that it stands in, so that
    /// a close frame comes next.
    pub(crate) fn cut_short(&mut self) {
        let adapter = self.inner.get_mut();
        let mut end = 0;
        while end < adapter.output_taken {
            let Some(length) = frame_bytes(&adapter.output[end..]) else { break };
            end += length;
        }
        adapter.output.truncate(end.max(adapter.output_taken));
        adapter.output.drain(..adapter.output_taken);
        adapter.output.shrink_to_fit();
        adapter.output_taken = 0;
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
        while !self.is_stuck {
            match std::future::poll_fn(|cx| self.poll_read(cx)).await {
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return,
                Err(_) => break,
            }
        }
        // What arrives is no WebSocket any more: read on to the end, as closing on unread bytes resets the
        // connection.
        let stream = &mut self.inner.get_mut().stream;
        if stream.shutdown().await.is_ok() {
            // On the heap: the future of every connection has room for its arrays.
            let mut discarded = vec![0; 1024];
            while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {}
        }
    }
}

/// How many bytes the frame at the beginning of `output` has, its header included. A server's frames are not masked
/// (RFC 6455 section 5.2).
fn frame_bytes(output: &[u8]) -> Option<usize> {
    let (header, payload) = match output.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(output.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(output.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    usize::try_from(payload).ok()?.checked_add(header)
}

fn or_pending<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

/// An async stream as tungstenite sees it: blocking calls that would block say so, and wake the task later. Output
/// waits here: tungstenite's control frames and our texts, in the order they were queued.
///
/// Invariant: the output begins with a frame and holds whole ones, until [`Socket::cut_short`].
struct Adapter<S> {
    stream: S,
    waker: Waker,
    output: Vec<u8>,
    /// How much of the output the stream has taken.
    output_taken: usize,
    taken_bytes: u64,
    received_bytes: u64,
}

impl<S> Adapter<S> {
    fn waits_for(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.output.len() - self.output_taken
    }
}

impl<S: AsyncWrite + Unpin> Adapter<S> {
    /// Hands the output to the stream.
    fn hand_over(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        while self.output_taken < self.output.len() {
            let rest = &self.output[self.output_taken..];
            match Pin::new(&mut self.stream).poll_write(&mut cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(taken)) => {
                    self.output_taken += taken;
                    self.taken_bytes += taken as u64;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        if self.output.capacity() > KEPT_OUTPUT_BYTES {
            self.output = Vec::new();
        }
        self.output.clear();
        self.output_taken = 0;
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> Read for Adapter<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(result) => {
                let read = buffer.filled().len();
                self.received_bytes += read as u64;
                result.map(|()| read)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Adapter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_flush(&mut cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
