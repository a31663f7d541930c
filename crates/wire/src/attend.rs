//! One connection over its life: at rest until its client says something, and then served until it is at rest again.
//! Guards that a client that is connected and says nothing costs next to nothing: what HTTP needs to read and write (some
//! 16 KiB) is there only while it is spoken.
//!
//! Must never decide by itself that a connection is at rest: hyper says so when it is asked to end an idle connection, and
//! whatever is not idle is served to its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, mem};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::incoming::{Connection, Visitor};

/// Largest head of a request, and what is read of a body at a time, bytes.
const BUFFER: usize = 64 * 1024;
/// After so long without a byte since its last answer, a connection is at rest.
const QUIET: Duration = Duration::from_secs(1);
/// How long saying good-bye may take.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// What is known of a connection while hyper holds it.
#[derive(Default)]
struct Traffic {
    /// Requests whose answers are not out.
    under_way: AtomicUsize,
    /// Bytes read, and how many they were when the last answer was out.
    read: AtomicU64,
    settled: AtomicU64,
    /// The client does not take what was written.
    stuck: AtomicBool,
    ended: AtomicBool,
}

impl Traffic {
    /// Whether everything that was asked is answered and nothing was said since. The beginning of a request is something.
    fn is_quiet(&self) -> bool {
        let read = self.read.load(Ordering::Acquire);
        self.under_way.load(Ordering::Acquire) == 0
            && read > 0
            && read == self.settled.load(Ordering::Acquire)
            && !self.stuck.load(Ordering::Acquire)
            && !self.ended.load(Ordering::Acquire)
    }
}

/// A connection that counts, and gives back what was read ahead.
struct Line {
    connection: Connection,
    ahead: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl Line {
    /// Waits for the client to say something; `false` when it hangs up instead.
    async fn speaks(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return true;
        }
        let mut first = [0; 64];
        let read = self.connection.read(&mut first).await.unwrap_or(0);
        self.ahead.extend_from_slice(&first[..read]);
        read > 0
    }

    fn note<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.traffic.stuck.store(written.is_pending(), Ordering::Release);
        written
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            match Pin::new(&mut self.connection).poll_read(context, buffer) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        } else {
            let ahead = mem::take(&mut self.ahead);
            let (now, later) = ahead.split_at(ahead.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.ahead = later.to_vec();
        }
        let read = buffer.filled().len() - before;
        self.traffic.read.fetch_add(read as u64, Ordering::AcqRel);
        if read == 0 && buffer.remaining() > 0 {
            self.traffic.ended.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(context, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(context);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// A request under way, until its answer is out.
struct UnderWay(Arc<Traffic>);

impl UnderWay {
    fn begin(traffic: &Arc<Traffic>) -> Self {
        traffic.under_way.fetch_add(1, Ordering::AcqRel);
        Self(traffic.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.settled.store(self.0.read.load(Ordering::Acquire), Ordering::Release);
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, with the request it answers.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves `router` on a connection until either side ends it, or until `stopping`: then what is under way ends.
pub(crate) async fn attend(
    connection: Connection,
    router: Router,
    header_time: Duration,
    stopping: CancellationToken,
) -> hyper::Result<()> {
    let mut line = Line { connection, ahead: Vec::new(), traffic: Arc::default() };
    loop {
        let speaks = tokio::select! {
            speaks = tokio::time::timeout(header_time, line.speaks()) => speaks.unwrap_or(false),
            () = stopping.cancelled() => false,
        };
        if !speaks {
            // Who is gone does not hear it.
            let _ = tokio::time::timeout(GOOD_BYE, line.shutdown()).await;
            return Ok(());
        }
        line.traffic = Arc::default();
        // In a box of its own, so that a connection at rest does not carry the room for one that is served.
        match Box::pin(converse(line, &router, header_time, &stopping)).await? {
            Some(at_rest) => line = at_rest,
            None => return Ok(()),
        }
    }
}

/// Serves requests until the connection ends, or is at rest: then it comes back.
async fn converse(
    line: Line,
    router: &Router,
    header_time: Duration,
    stopping: &CancellationToken,
) -> hyper::Result<Option<Line>> {
    let (traffic, visitor) = (line.traffic.clone(), line.connection.visitor().clone());
    let counted = traffic.clone();
    let service = service_fn(move |request| answer(request, router.clone(), &visitor, UnderWay::begin(&counted)));
    let mut conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(line), service);
    let mut ending = false;
    loop {
        tokio::select! {
            ended = &mut conversation => return ended.map(|()| None),
            () = stopping.cancelled(), if !ending => {
                Pin::new(&mut conversation).graceful_shutdown();
                ending = true;
            }
            () = tokio::time::sleep(QUIET), if !ending => {
                if !traffic.is_quiet() {
                    continue;
                }
                // An idle conversation is over at once; one that is not goes on to the end of its last answer.
                Pin::new(&mut conversation).graceful_shutdown();
                ending = true;
                if let Poll::Ready(ended) = poll_fn(|context| Poll::Ready(conversation.poll_without_shutdown(context))).await {
                    ended?;
                    let parts = conversation.into_parts();
                    let mut line = parts.io.into_inner();
                    let mut ahead = parts.read_buf.to_vec();
                    ahead.append(&mut line.ahead);
                    line.ahead = ahead;
                    return Ok(Some(line));
                }
            }
        }
    }
}

type Answered = Pin<Box<dyn Future<Output = Result<hyper::Response<Answer>, std::convert::Infallible>> + Send>>;

fn answer(mut request: hyper::Request<Incoming>, mut router: Router, visitor: &Visitor, under_way: UnderWay) -> Answered {
    let extensions = request.extensions_mut();
    extensions.extend(visitor.known.clone());
    extensions.insert(visitor.clone());
    let answering = router.call(request);
    Box::pin(async move { Ok(answering.await?.map(|body| Answer { body, _under_way: under_way })) })
}
