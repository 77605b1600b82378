//! Counts pushes before they are read. This is the body of `PushToQueue` or `PushStream`; it takes room at its broker for
//! each message before it lets the message's bytes through.
//!
//! A gRPC message begins with its length. While there is no room, nothing more is read, so that HTTP/2's flow control holds
//! the client back. The room taken for a message is handed to the method beside the decoded message, in the same order.

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use rmom_core::{
    broker::{BrokerError, Held, Kept, PushRoom, ROOM_TIMEOUT, Turn},
    model::Code,
};
use rmom_proto::contract::FRAME_PREFIX_BYTES;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};
use tonic::Status;

use super::status::{status, to_status};
use crate::serve::Peer;

/// How long a client may send nothing while a message for which room was taken is incomplete.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long such a message may take to arrive in full: 4 MiB at 36 kB a second.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Added to the bytes of each message: its entry in the ledger. Otherwise empty messages would cost nothing.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// State shared by a request's body and the method that reads it; an extension of the request.
#[derive(Clone)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

struct Entries {
    room: PushRoom,
    /// One entry for each message that was let through and not taken yet.
    held: VecDeque<Held>,
}

impl Ledger {
    fn new(room: PushRoom) -> Self {
        Self(Arc::new(Mutex::new(Entries { room, held: VecDeque::with_capacity(1) })))
    }

    /// From now on, messages take room here.
    pub(super) fn set_room(&self, room: PushRoom) {
        let mut entries = self.0.lock();
        entries.room = room.from_where(&entries.room);
    }

    fn knows_queue(&self) -> bool {
        self.0.lock().room.knows_queue()
    }

    fn room(&self) -> PushRoom {
        self.0.lock().room.clone()
    }

    /// The room that was taken for the next message that the method has read.
    pub(super) fn take(&self) -> Option<Held> {
        let mut held = self.0.lock().held.pop_front()?;
        held.arrived();
        Some(held)
    }
}

/// The room for a peer's pushes. Its address has a share in it, if addresses count.
fn room_for(peer: Option<&Peer>, room: PushRoom) -> PushRoom {
    match peer.and_then(Peer::origin) {
        Some(origin) => room.from_origin(origin),
        None => room,
    }
}

/// Counts the messages of a request's body; a unary request has at most one.
pub(super) fn count(room: PushRoom, largest: usize, request: Request, unary: bool) -> Request {
    let peer = request.extensions().get::<Peer>();
    let waits = peer.map(|peer| (peer.waits.clone(), peer.max_waits));
    let ledger = Ledger::new(room_for(peer, room));
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(ledger.clone());
    Request::from_parts(parts, Body::new(Counted::new(body, ledger, waits, largest, unary)))
}

enum Granted {
    Turn(Turn),
    Room(Held),
}

/// See the module's documentation.
struct Counted<B> {
    inner: B,
    ledger: Ledger,
    /// The connection's limit on requests that wait before they are read: permits, and their total number.
    waits: Option<(Arc<Semaphore>, usize)>,
    wait: Option<OwnedSemaphorePermit>,
    /// Longer messages are let through without room: tonic refuses them as soon as it sees their length.
    largest: usize,
    /// The request has one message. tonic would decode further ones, and nothing would take their room.
    unary: bool,
    /// The beginning of a message's prefix, if the prefix came in pieces.
    prefix: ([u8; FRAME_PREFIX_BYTES], usize),
    /// Bytes of the current message that have not been let through yet.
    rest: usize,
    /// The first message was let through. In a stream, it names the queue.
    began: bool,
    /// Bytes that were read and not let through yet.
    chunk: Bytes,
    turn: Option<Turn>,
    ahead: Option<Kept>,
    waiting: Option<BoxFuture<'static, Result<Granted, BrokerError>>>,
    waiting_since: Instant,
    /// How long the current message may still wait for room, and for its queue.
    patience: Duration,
    /// When the current message has to be complete, once the body has begun to wait for it.
    latest: Option<Instant>,
    /// When the next bytes have to arrive; set anew whenever some do.
    deadline: Option<Pin<Box<Sleep>>>,
    deadline_set: bool,
}

impl<B> Counted<B> {
    fn new(inner: B, ledger: Ledger, waits: Option<(Arc<Semaphore>, usize)>, largest: usize, unary: bool) -> Self {
        Self {
            inner,
            ledger,
            waits,
            wait: None,
            largest,
            unary,
            prefix: ([0; FRAME_PREFIX_BYTES], 0),
            rest: 0,
            began: false,
            chunk: Bytes::new(),
            turn: None,
            ahead: None,
            waiting: None,
            waiting_since: Instant::now(),
            patience: ROOM_TIMEOUT,
            latest: None,
            deadline: None,
            deadline_set: false,
        }
    }

    /// Takes room for a message whose prefix is complete. If there is none, begins to wait. `here` bytes came with the
    /// prefix.
    fn admit_message(&mut self, here: usize) -> Result<bool, BrokerError> {
        let [_, length @ ..] = self.prefix.0;
        let length = u32::from_be_bytes(length) as usize;
        if length <= self.largest {
            let bytes = length + MESSAGE_OVERHEAD_BYTES;
            let mut entries = self.ledger.0.lock();
            let whole = here >= length;
            match if whole { entries.room.try_take(bytes) } else { entries.room.try_take_arriving(bytes) } {
                Some(held) => entries.held.push_back(held.patient_for(self.patience)),
                None => {
                    let room = entries.room.clone().patient_for(self.patience);
                    drop(entries);
                    self.begin_to_wait()?;
                    // A push that waits only for its queue keeps no turn that other queues need, and a push that waits for
                    // its origin keeps none that other origins need.
                    let origin_lacks = !whole && room.origin_lacks(bytes);
                    let own_lacks = origin_lacks || room.queue_lacks(bytes);
                    if self.ahead.is_none() && (self.turn.is_none() || own_lacks) {
                        self.ahead = Some(room.keep(self.chunk.len())?);
                    }
                    if origin_lacks {
                        self.turn = None;
                    } else if let Some(turn) = self.turn.as_mut().filter(|_| own_lacks) {
                        turn.leave_to_others();
                    }
                    self.waiting = Some(
                        async move {
                            let held = if whole { room.take(bytes).await } else { room.take_arriving(bytes).await };
                            held.map(Granted::Room)
                        }
                        .boxed(),
                    );
                    return Ok(false);
                }
            }
        }
        self.begin(length);
        Ok(true)
    }

    /// Called before the message waits. While requests wait unread, the bytes sent for them fill the connection's window,
    /// which other requests need; so only a limited number may wait.
    fn begin_to_wait(&mut self) -> Result<(), BrokerError> {
        self.waiting_since = Instant::now();
        if let (None, Some((waits, limit))) = (&self.wait, &self.waits) {
            let refuse = |_| self.ledger.room().refuse_to_wait(*limit);
            self.wait = Some(waits.clone().try_acquire_owned().map_err(refuse)?);
        }
        Ok(())
    }

    /// Lets through the message whose prefix was read, beginning with the part of the prefix that was held back.
    fn begin(&mut self, length: usize) {
        self.prefix.1 = 0;
        self.wait = None;
        self.patience = ROOM_TIMEOUT;
        self.rest += length;
        (self.latest, self.deadline_set) = (None, false);
    }

    /// The number of bytes of the chunk that may be let through now.
    fn admit(&mut self) -> Result<usize, BrokerError> {
        let mut through = 0;
        loop {
            let body = self.rest.min(self.chunk.len() - through);
            self.rest -= body;
            through += body;
            if through == self.chunk.len() {
                return Ok(through);
            }
            if self.began && self.unary {
                return Err(BrokerError::Invalid { field: "request", reason: "it has a second message; send one" });
            }
            // The first message of a stream names the queue, so the messages after it wait until it has been read.
            if self.began && through > 0 && self.prefix.1 == 0 && !self.ledger.knows_queue() {
                return Ok(through);
            }
            let (prefix, filled) = &mut self.prefix;
            let take = (FRAME_PREFIX_BYTES - *filled).min(self.chunk.len() - through);
            prefix[*filled..*filled + take].copy_from_slice(&self.chunk[through..through + take]);
            *filled += take;
            if *filled < FRAME_PREFIX_BYTES {
                return Ok(through + take);
            }
            self.began = true;
            self.rest = take;
            if !self.admit_message(self.chunk.len() - through - take)? {
                // The decoder makes room for a message as soon as its prefix is complete, so the end of the prefix is held
                // back too.
                return Ok(through);
            }
        }
    }
}

impl<B> HttpBody for Counted<B>
where
    B: HttpBody<Data = Bytes, Error = axum::Error> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(waiting) = &mut this.waiting {
                let granted = ready!(waiting.as_mut().poll(cx));
                this.waiting = None;
                this.patience = this.patience.saturating_sub(this.waiting_since.elapsed());
                match granted {
                    Ok(Granted::Turn(turn)) => this.turn = Some(turn),
                    Ok(Granted::Room(held)) => {
                        let [_, length @ ..] = this.prefix.0;
                        this.ledger.0.lock().held.push_back(held);
                        this.begin(u32::from_be_bytes(length) as usize);
                    }
                    Err(error) => return Poll::Ready(Some(Err(failed(to_status(&error))))),
                }
            }
            if !this.chunk.is_empty() {
                let through = match this.admit() {
                    Ok(through) => through,
                    Err(error) => return Poll::Ready(Some(Err(failed(to_status(&error))))),
                };
                if through == this.chunk.len() {
                    (this.turn, this.ahead) = (None, None);
                } else if this.waiting.is_none() && this.turn.take().is_some() {
                    // The message waits for its queue, which may take as long as an activation.
                    match this.ledger.room().keep(this.chunk.len() - through) {
                        Ok(ahead) => this.ahead = Some(ahead),
                        Err(error) => return Poll::Ready(Some(Err(failed(to_status(&error))))),
                    }
                }
                if through > 0 {
                    return Poll::Ready(Some(Ok(Frame::data(this.chunk.split_to(through)))));
                }
                continue;
            }
            let between = this.rest == 0;
            if between && this.turn.is_none() {
                let room = this.ledger.room();
                match room.try_turn() {
                    Some(turn) => this.turn = Some(turn),
                    None => {
                        if let Err(error) = this.begin_to_wait() {
                            return Poll::Ready(Some(Err(failed(to_status(&error)))));
                        }
                        let room = room.patient_for(this.patience);
                        this.waiting = Some(async move { room.turn().await.map(Granted::Turn) }.boxed());
                        continue;
                    }
                }
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.deadline_set &= data.is_empty();
                        this.chunk = data;
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Poll::Ready(end) => {
                    this.turn = None;
                    return Poll::Ready(end);
                }
                Poll::Pending => {
                    // A silent client keeps neither turn nor place in the line.
                    (this.turn, this.wait) = (None, None);
                    if between {
                        this.patience = ROOM_TIMEOUT;
                    }
                    // A unary push that has arrived is not answered before its request has ended, and it holds room.
                    if between && !(this.unary && this.began) {
                        return Poll::Pending;
                    }
                    ready!(this.poll_deadline(cx));
                    let late = format!(
                        "the rest of a request did not come: nothing for {STALL_TIMEOUT:?}, or not all within {MESSAGE_TIMEOUT:?}"
                    );
                    return Poll::Ready(Some(Err(failed(status(Code::DeadlineExceeded, late, Vec::new())))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunk.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<B> Counted<B> {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let latest = *self.latest.get_or_insert(now + MESSAGE_TIMEOUT);
        let until = latest.min(now + STALL_TIMEOUT);
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if !self.deadline_set {
            self.deadline_set = true;
            deadline.as_mut().reset(until);
        }
        deadline.as_mut().poll(cx)
    }
}

/// tonic takes the status from the error with which a body fails.
fn failed(status: Status) -> axum::Error {
    axum::Error::new(status)
}

#[cfg(test)]
mod tests;
