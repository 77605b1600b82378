//! Room for pushes: the bytes of a push are counted before they are read from its connection, and until it is answered.
//!
//! A broker has room for `max_pending_bytes`, and a queue for a share of it, so that a queue that is stuck does not hold up
//! the pushes to the others. A reader of pushes
//!
//! 1. takes a *turn*, which bounds how many beginnings of messages lie in memory while they wait,
//! 2. reads the beginning, which tells the message's length,
//! 3. takes so many bytes, and gives the turn back,
//! 4. reads the rest, and hands the message over together with what it holds of the room.
//!
//! A length is only what its client claims. So messages that are not fully read hold a part of the room at most for each
//! origin, or more where half of the room, and of the queue's share, stays free for others; and a message that waits for that part holds neither a turn nor its queue's share meanwhile: a client that
//! announces much and sends nothing keeps others waiting no longer than it takes to find that out.
//!
//! Turns are never needed in the middle of a message: what has begun can always be finished. A stream of pushes names its
//! queue when it is opened, and waits for the queue's share before it reads. A single push names its queue somewhere inside:
//! it waits for the share afterwards, with the broker's bytes in hand, and is refused when too many wait like that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{BrokerError, count::count};
use crate::model::Origin;

/// The most that a room holds: its bytes are permits of a semaphore, of which 32 bits are taken at once.
pub const MAX_ROOM_BYTES: usize = u32::MAX as usize;
/// How long a push waits for room: for a turn, for bytes, and for its queue's share, all together. Then it is refused as
/// overloaded, and nothing of it was stored.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(10);
/// One queue has this part of the broker's room.
pub const QUEUE_SHARE: usize = 4;
/// Single pushes that wait for a queue's share hold this part of the broker's room besides: three queues that are stuck leave
/// some of it to others.
pub const WAITING_SHARE: usize = 16;
/// Messages from one origin that are not fully read hold this part of the broker's room in any case: a quarter of what a queue
/// has. Beyond it they leave half of the room, and of the queue's share, to others.
pub const ARRIVING_SHARE: usize = 16;
/// Beginnings of messages that may wait for room at once, over all queues. Each takes up to a frame of HTTP/2.
pub const MAX_TURNS: usize = 256;
/// As many of them may be for one queue.
pub const MAX_TURNS_OF_QUEUE: usize = 8;
/// Bytes that may wait for room although nobody took a turn for them: they came in one piece with the end of the message
/// before.
pub const MAX_AHEAD_BYTES: usize = 16 << 20;
/// As many of them may come from one origin.
const MAX_AHEAD_BYTES_OF_ORIGIN: usize = MAX_AHEAD_BYTES / 2;
/// What a push takes in memory once it is decoded is at most so many times what it holds of the room, or it is refused.
pub const MAX_EXPANSION: usize = 16;

/// The room of a broker.
#[derive(Debug)]
pub(super) struct Room {
    bytes: Bytes,
    turns: Arc<Semaphore>,
    ahead: Bytes,
    /// Of each origin that has requests now; no more entries than those.
    arriving: Mutex<BTreeMap<Origin, Weak<Arriving>>>,
    waited: AtomicU64,
    refused: AtomicU64,
}

/// A queue's share of it.
#[derive(Debug)]
pub(super) struct Share {
    bytes: Bytes,
    /// What single pushes may hold of the broker's room while they wait for `bytes`.
    waiting: Bytes,
    turns: Arc<Semaphore>,
}

/// What messages from one origin may hold that are not fully read.
#[derive(Debug)]
struct Arriving {
    bytes: Bytes,
    ahead: Bytes,
    room: Arc<Room>,
    origin: Origin,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut all = self.room.arriving.lock();
        // A later request from there may have made another already.
        if all.get(&self.origin).is_some_and(|arriving| arriving.strong_count() == 0) {
            all.remove(&self.origin);
        }
    }
}

/// So many bytes.
#[derive(Debug)]
struct Bytes {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Bytes {
    fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS.min(MAX_ROOM_BYTES));
        Self { free: Arc::new(Semaphore::new(limit)), limit }
    }

    /// What is larger than all there is takes all of it: the size of a message has a limit of its own.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.limit)).unwrap_or(u32::MAX)
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(self.permits(bytes)).ok()
    }

    /// True if half of it stays free when so many bytes are taken.
    fn has_plenty_for(&self, bytes: usize) -> bool {
        self.free.available_permits() >= self.permits(bytes) as usize + self.limit / 2
    }

    fn lack(&self, bytes: usize) -> bool {
        self.free.available_permits() < self.permits(bytes) as usize
    }

    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.free.clone().acquire_many_owned(self.permits(bytes)).await.ok()
    }
}

impl Room {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Bytes::new(limit),
            turns: Arc::new(Semaphore::new(MAX_TURNS)),
            ahead: Bytes::new(MAX_AHEAD_BYTES),
            arriving: Mutex::default(),
            waited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    fn arriving(self: &Arc<Self>, origin: &Origin) -> Arc<Arriving> {
        let mut all = self.arriving.lock();
        if let Some(arriving) = all.get(origin).and_then(Weak::upgrade) {
            return arriving;
        }
        let bytes = Bytes::new(self.bytes.limit / ARRIVING_SHARE);
        let ahead = Bytes::new(MAX_AHEAD_BYTES_OF_ORIGIN);
        let arriving = Arc::new(Arriving { bytes, ahead, room: self.clone(), origin: origin.clone() });
        all.insert(origin.clone(), Arc::downgrade(&arriving));
        arriving
    }

    /// Bytes taken.
    pub(super) fn used(&self) -> usize {
        self.bytes.limit - self.bytes.free.available_permits().min(self.bytes.limit)
    }

    pub(super) fn limit(&self) -> usize {
        self.bytes.limit
    }

    /// Pushes that waited, and pushes that were refused because they would have waited too long, or with too many.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.waited.load(Relaxed), self.refused.load(Relaxed))
    }

    fn refuse(&self, what: &'static str, limit: usize) -> BrokerError {
        mark!(PushRefusedForRoom);
        count(&self.refused, 1);
        BrokerError::Overloaded { what, limit }
    }

    /// Waits for something, but for no longer than `patience`, of which it takes what the wait took.
    async fn within<T>(
        &self,
        limit: usize,
        patience: &mut Duration,
        wait: impl Future<Output = Option<T>>,
    ) -> Result<T, BrokerError> {
        count(&self.waited, 1);
        let since = Instant::now();
        match timeout(*patience, wait).await {
            Ok(Some(taken)) => {
                *patience = patience.saturating_sub(since.elapsed());
                Ok(taken)
            }
            Ok(None) => Err(BrokerError::ShuttingDown),
            Err(_) => Err(self.refuse("bytes of pushes that are not stored yet", limit)),
        }
    }
}

impl Share {
    pub(super) fn new(room: usize) -> Arc<Self> {
        let limit = room / QUEUE_SHARE;
        Arc::new(Self {
            bytes: Bytes::new(limit),
            waiting: Bytes::new(room / WAITING_SHARE),
            turns: Arc::new(Semaphore::new(MAX_TURNS_OF_QUEUE)),
        })
    }
}

/// The room that a reader of pushes takes: the broker's, and the queue's if it is known.
#[derive(Clone, Debug)]
pub struct PushRoom {
    room: Arc<Room>,
    share: Option<Arc<Share>>,
    arriving: Option<Arc<Arriving>>,
    patience: Duration,
}

/// The right to read the beginning of a message. Given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    all: Option<OwnedSemaphorePermit>,
    _of_queue: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Gives back what other queues need of it: only the queue's own turn is kept.
    pub fn leave_to_others(&mut self) {
        self.all = None;
    }
}

/// The right to keep bytes that were read without a turn. Given back when it is dropped.
#[derive(Debug)]
pub struct Kept {
    _all: OwnedSemaphorePermit,
    _of_origin: Option<OwnedSemaphorePermit>,
}

/// What a push takes of the room. Given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: usize,
    of_broker: OwnedSemaphorePermit,
    of_queue: Option<OwnedSemaphorePermit>,
    arriving: Option<OwnedSemaphorePermit>,
    /// For how long its push may still wait.
    patience: Duration,
}

impl Held {
    /// From now on its push waits for so long at most.
    #[must_use]
    pub fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The message is fully read.
    pub fn arrived(&mut self) {
        self.arriving = None;
    }
}

impl PushRoom {
    pub(super) fn new(room: Arc<Room>, share: Option<Arc<Share>>) -> Self {
        Self { room, share, arriving: None, patience: ROOM_TIMEOUT }
    }

    /// A room of so many bytes.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn for_tests(limit: usize) -> Self {
        Self::new(Room::new(limit), None)
    }

    /// The same room, for a new queue.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of_queue_for_tests(&self) -> Self {
        Self::new(self.room.clone(), Some(Share::new(self.room.limit()))).from_where(self)
    }

    /// From now on messages that are not fully read count for this origin.
    #[must_use]
    pub fn from_origin(mut self, origin: &Origin) -> Self {
        self.arriving = Some(self.room.arriving(origin));
        self
    }

    /// The same room, for a push that may still wait for so long.
    #[must_use]
    pub const fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same room, for messages that come from where those of `other` do.
    #[must_use]
    pub fn from_where(mut self, other: &Self) -> Self {
        self.arriving.clone_from(&other.arriving);
        self
    }

    /// True if the queue has no room left for so many bytes, whatever there is for others.
    #[must_use]
    pub fn queue_lacks(&self, bytes: usize) -> bool {
        self.share.as_ref().is_some_and(|share| share.bytes.lack(bytes))
    }

    /// True if its origin may not claim so many bytes now, for a message of which there is only a beginning.
    #[must_use]
    pub fn origin_lacks(&self, bytes: usize) -> bool {
        self.arriving.as_ref().is_some_and(|arriving| arriving.bytes.lack(bytes)) && !self.has_plenty_for(bytes)
    }

    /// True if nobody else needs what an origin may not claim in any case.
    fn has_plenty_for(&self, bytes: usize) -> bool {
        self.room.bytes.has_plenty_for(bytes)
            && self.share.as_ref().is_none_or(|share| share.bytes.has_plenty_for(bytes))
    }

    /// True once it counts for a queue too.
    #[must_use]
    pub fn knows_queue(&self) -> bool {
        self.share.is_some()
    }

    /// A turn, if there is one now.
    #[must_use]
    pub fn try_turn(&self) -> Option<Turn> {
        let of_queue = match &self.share {
            Some(share) => Some(share.turns.clone().try_acquire_owned().ok()?),
            None => None,
        };
        Some(Turn { all: Some(self.room.turns.clone().try_acquire_owned().ok()?), _of_queue: of_queue })
    }

    /// A turn, as soon as there is one.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] after [`ROOM_TIMEOUT`], or what is left of it.
    pub async fn turn(self) -> Result<Turn, BrokerError> {
        let mut patience = self.patience;
        let wait = async {
            // The queue's first: who waits for it holds nothing that other queues need.
            let of_queue = match &self.share {
                Some(share) => Some(share.turns.clone().acquire_owned().await.ok()?),
                None => None,
            };
            Some(Turn { all: Some(self.room.turns.clone().acquire_owned().await.ok()?), _of_queue: of_queue })
        };
        self.room.within(self.room.limit(), &mut patience, wait).await
    }

    /// The right to keep bytes that were read without a turn.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] if too many have it.
    pub fn keep(&self, bytes: usize) -> Result<Kept, BrokerError> {
        let what = "bytes that were read ahead of pushes";
        let of_origin = match &self.arriving {
            Some(arriving) => {
                Some(arriving.ahead.try_take(bytes).ok_or_else(|| self.room.refuse(what, MAX_AHEAD_BYTES_OF_ORIGIN))?)
            }
            None => None,
        };
        let all = self.room.ahead.try_take(bytes).ok_or_else(|| self.room.refuse(what, MAX_AHEAD_BYTES))?;
        Ok(Kept { _all: all, _of_origin: of_origin })
    }

    /// A push is refused because `limit` others of its connection wait already. It is counted with the rest.
    #[must_use]
    pub fn refuse_to_wait(&self, limit: usize) -> BrokerError {
        self.room.refuse("pushes that wait for room on one connection", limit)
    }

    /// So many bytes, if there is room for them now.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Held> {
        self.try_take_for(bytes, None)
    }

    /// So many bytes, for a message of which there is only a beginning.
    #[must_use]
    pub fn try_take_arriving(&self, bytes: usize) -> Option<Held> {
        self.try_take_for(bytes, self.arriving.as_deref())
    }

    fn try_take_for(&self, bytes: usize, arriving: Option<&Arriving>) -> Option<Held> {
        let arriving = match arriving.map(|arriving| arriving.bytes.try_take(bytes)) {
            Some(None) if !self.has_plenty_for(bytes) => return None,
            arriving => arriving.flatten(),
        };
        let of_queue = match &self.share {
            Some(share) => Some(share.bytes.try_take(bytes)?),
            None => None,
        };
        let of_broker = self.room.bytes.try_take(bytes)?;
        Some(Held { bytes, of_broker, of_queue, arriving, patience: self.patience })
    }

    /// So many bytes, as soon as there is room for them.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] after [`ROOM_TIMEOUT`].
    pub async fn take(mut self, bytes: usize) -> Result<Held, BrokerError> {
        self.arriving = None;
        self.take_arriving(bytes).await
    }

    /// So many bytes, for a message of which there is only a beginning, as soon as there is room for them.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] after [`ROOM_TIMEOUT`].
    pub async fn take_arriving(self, bytes: usize) -> Result<Held, BrokerError> {
        mark!(PushWaitedForRoom if self.share.is_none(), else StreamWaitedForRoom);
        let wait = async {
            // What all need comes last: a push that waits for its queue or its origin holds nothing of it.
            let (of_queue, arriving) = self.take_its_own(bytes).await?;
            let of_broker = self.room.bytes.take(bytes).await?;
            Some(Held { bytes, of_broker, of_queue, arriving, patience: Duration::ZERO })
        };
        let mut patience = self.patience;
        let limit = self.share.as_ref().map_or(self.room.limit(), |share| share.bytes.limit);
        let held = self.room.within(limit, &mut patience, wait).await?;
        Ok(held.patient_for(patience))
    }

    /// So many bytes of the queue's share, and of what its origin may claim. It holds neither while it waits for the other:
    /// other origins need the share, and other queues what the origin may claim.
    async fn take_its_own(&self, bytes: usize) -> Option<(Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>)> {
        let (share, arriving) = match (&self.share, &self.arriving) {
            (None, None) => return Some((None, None)),
            (Some(share), None) => return Some((Some(share.bytes.take(bytes).await?), None)),
            (None, Some(arriving)) => return Some((None, Some(arriving.bytes.take(bytes).await?))),
            (Some(share), Some(arriving)) => (&share.bytes, &arriving.bytes),
        };
        loop {
            let of_queue = share.take(bytes).await?;
            if let Some(of_origin) = arriving.try_take(bytes) {
                return Some((Some(of_queue), Some(of_origin)));
            }
            drop(of_queue);
            let of_origin = arriving.take(bytes).await?;
            if let Some(of_queue) = share.try_take(bytes) {
                return Some((Some(of_queue), Some(of_origin)));
            }
        }
    }

    /// So many bytes, for a message that is in memory already.
    pub(super) async fn take_now_or_wait(self, bytes: usize) -> Result<Held, BrokerError> {
        match self.try_take(bytes) {
            Some(held) => Ok(held),
            None => self.take(bytes).await,
        }
    }

    /// What a message takes that was not counted when it was read: of the queue's share, which is known by now. Waits for it
    /// with the broker's bytes in hand, as few pushes as possible do.
    pub(super) async fn share(&self, held: &mut Held) -> Result<(), BrokerError> {
        let Some(share) = self.share.as_ref().filter(|_| held.of_queue.is_none()) else { return Ok(()) };
        held.of_queue = Some(match share.bytes.try_take(held.bytes) {
            Some(taken) => taken,
            None => {
                let what = "bytes of pushes to this queue that are not stored yet";
                let Some(_waiting) = share.waiting.try_take(held.bytes) else {
                    return Err(self.room.refuse(what, share.bytes.limit));
                };
                mark!(PushWaitedForShare);
                let taken = share.bytes.take(held.bytes);
                self.room.within(share.bytes.limit, &mut held.patience, taken).await?
            }
        });
        Ok(())
    }

    /// Counts what a push takes in memory beyond what it took on the wire: as far as there is room for `wanted`, and for a
    /// part of all that it takes in any case. To wait with bytes in hand could be to wait for each other.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] if there is no room for `in_memory` divided by [`MAX_EXPANSION`]: tiny messages and empty
    /// headers would count for much less than they take.
    pub(super) fn grow(&self, held: &mut Held, wanted: usize, in_memory: usize) -> Result<(), BrokerError> {
        let least = in_memory / MAX_EXPANSION;
        if self.try_grow(held, wanted.max(least)) || self.try_grow(held, least) {
            return Ok(());
        }
        Err(self.room.refuse("bytes of pushes that are not stored yet", self.room.limit()))
    }

    fn try_grow(&self, held: &mut Held, bytes: usize) -> bool {
        let more = bytes.saturating_sub(held.bytes);
        if more == 0 {
            return true;
        }
        let Some(of_broker) = self.room.bytes.try_take(more) else { return false };
        if let (Some(share), Some(of_queue)) = (&self.share, &mut held.of_queue) {
            let Some(taken) = share.bytes.try_take(more) else { return false };
            of_queue.merge(taken);
        }
        held.of_broker.merge(of_broker);
        held.bytes = bytes;
        true
    }
}

#[cfg(test)]
pub(super) fn held_for_tests() -> Held {
    PushRoom::new(Room::new(1), None).try_take(1).expect("the room is empty")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: usize = 400;

    /// A broker's room, and those of two queues.
    fn rooms() -> [PushRoom; 3] {
        let room = Room::new(LIMIT);
        let of_queue = || PushRoom::new(room.clone(), Some(Share::new(LIMIT)));
        [PushRoom::new(room.clone(), None), of_queue(), of_queue()]
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_has_its_share_and_the_others_go_on() {
        let [_, stuck, other] = rooms();
        let held = stuck.try_take(LIMIT / QUEUE_SHARE).expect("there is room");
        assert!(stuck.try_take(1).is_none());
        let begun = Instant::now();
        let refused = stuck.clone().take(1).await.unwrap_err();
        assert_eq!(begun.elapsed(), ROOM_TIMEOUT);
        assert_eq!(
            refused.to_string(),
            "bytes of pushes that are not stored yet: the limit of 100 is reached; try again later"
        );
        assert!(other.try_take(100).is_some());
        drop(held);
        assert!(stuck.try_take(100).is_some());
        assert_eq!(stuck.room.used(), 0);
        assert_eq!(stuck.room.counts(), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn single_pushes_wait_for_the_share_in_small_numbers() {
        let [unknown, stuck, other] = rooms();
        let first = stuck.try_take(100).unwrap();
        let mut waits = unknown.try_take(LIMIT / WAITING_SHARE).unwrap();
        let mut waiting = Box::pin(stuck.share(&mut waits));
        assert!((&mut waiting).now_or_never().is_none());
        let mut refused = unknown.try_take(1).unwrap();
        let error = stuck.share(&mut refused).await.unwrap_err();
        assert!(matches!(error, BrokerError::Overloaded { limit: 100, .. }), "{error}");
        drop(refused);
        let mut goes_on = unknown.try_take(100).unwrap();
        other.share(&mut goes_on).await.unwrap();
        drop(first);
        waiting.await.unwrap();
        drop(waits);
        drop(goes_on);
        assert_eq!(unknown.room.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn all_waits_of_a_push_together_have_one_deadline() {
        let [unknown, stuck, _] = rooms();
        let _stuck = stuck.try_take(LIMIT / QUEUE_SHARE).unwrap();
        let rest = unknown.try_take(LIMIT - LIMIT / QUEUE_SHARE).unwrap();
        let begun = Instant::now();
        let free = async {
            sleep(ROOM_TIMEOUT * 2 / 3).await;
            drop(rest);
        };
        let (held, ()) = tokio::join!(unknown.clone().take(5), free);
        let refused = stuck.share(&mut held.unwrap()).await.unwrap_err();
        assert!(matches!(refused, BrokerError::Overloaded { .. }), "{refused}");
        assert_eq!(begun.elapsed(), ROOM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn three_stuck_queues_leave_room_for_a_fourth() {
        let [unknown, a, b] = rooms();
        let [c, goes_on] = [(); 2].map(|()| PushRoom::new(a.room.clone(), Some(Share::new(LIMIT))));
        let stuck = [a, b, c];
        let _held: Vec<_> = stuck.iter().map(|queue| queue.try_take(LIMIT / QUEUE_SHARE).unwrap()).collect();
        let mut waiting = Vec::new();
        for queue in stuck.into_iter().cycle().take(60) {
            let unknown = unknown.clone();
            let waits = async move {
                let mut held = unknown.try_take(5).ok_or(BrokerError::ShuttingDown)?;
                queue.share(&mut held).await.map(|()| held)
            };
            let mut waits = Box::pin(waits);
            if (&mut waits).now_or_never().is_none() {
                waiting.push(waits);
            }
        }
        let mut pushed = unknown.try_take(LIMIT / WAITING_SHARE).expect("there is room for the fourth");
        goes_on.share(&mut pushed).await.unwrap();
    }

    #[test]
    fn what_is_claimed_and_not_sent_is_a_part_of_the_room() {
        let [unknown, queue, _] = rooms();
        let [here, neighbour, elsewhere] =
            ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1"].map(|peer| unknown.clone().from_origin(&Origin::of(peer)));
        let mut claimed = here.try_take_arriving(LIMIT / ARRIVING_SHARE).unwrap();
        // More only as long as half of the room stays free.
        assert!(here.try_take_arriving(LIMIT / 2 + 1).is_none());
        let more = here.try_take_arriving(LIMIT / 2 - LIMIT / ARRIVING_SHARE).unwrap();
        assert!(here.try_take_arriving(1).is_none() && neighbour.try_take_arriving(1).is_none());
        assert!(queue.clone().from_where(&neighbour).try_take_arriving(1).is_none(), "whichever queue it is for");
        assert!(here.try_take(1).is_some(), "what is in memory counts for nobody");
        assert!(elsewhere.try_take_arriving(LIMIT / ARRIVING_SHARE).is_some());
        assert!(queue.from_where(&elsewhere).try_take_arriving(LIMIT / ARRIVING_SHARE).is_some());
        claimed.arrived();
        assert!(neighbour.try_take_arriving(LIMIT / ARRIVING_SHARE).is_some());
        drop((claimed, more, here, neighbour, elsewhere));
        assert_eq!(unknown.room.used(), 0);
        assert!(unknown.room.arriving.lock().is_empty(), "origins without requests are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_that_waits_for_its_origin_keeps_no_share_from_others() {
        let [unknown, queue, _] = rooms();
        let [here, elsewhere] = ["10.0.0.1:1", "10.0.0.2:1"].map(|peer| unknown.clone().from_origin(&Origin::of(peer)));
        let claimed = here.try_take_arriving(LIMIT / ARRIVING_SHARE).unwrap();
        let push = || queue.clone().from_where(&here).take_arriving(LIMIT / QUEUE_SHARE);
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(push())).collect();
        assert!(waiting.iter_mut().all(|push| push.now_or_never().is_none()));
        let other = queue.clone().from_where(&elsewhere).try_take_arriving(LIMIT / QUEUE_SHARE);
        assert!(other.is_some(), "nothing was sent, so the queue takes pushes from others");
        drop(claimed);
        assert!(waiting.iter_mut().all(|push| push.now_or_never().is_none()), "now they wait for the queue");
        drop(other);
        for push in waiting {
            drop(push.await.unwrap());
        }
        assert_eq!(unknown.room.used(), 0);
    }

    #[test]
    fn one_origin_keeps_half_of_what_is_read_ahead() {
        let [unknown, ..] = rooms();
        let [here, elsewhere] = ["10.0.0.1:1", "10.0.0.2:1"].map(|peer| unknown.clone().from_origin(&Origin::of(peer)));
        let kept = here.keep(MAX_AHEAD_BYTES_OF_ORIGIN).unwrap();
        assert!(here.keep(1).is_err() && elsewhere.keep(1).is_ok());
        drop(kept);
        assert!(here.keep(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn turns_of_a_stuck_queue_are_few() {
        let [unknown, stuck, other] = rooms();
        let turns: Vec<_> = (0..MAX_TURNS_OF_QUEUE).map(|_| stuck.try_turn().unwrap()).collect();
        assert!(stuck.try_turn().is_none());
        assert!(other.try_turn().is_some() && unknown.try_turn().is_some());
        assert!(stuck.clone().turn().await.is_err(), "after a while");
        drop(turns);
        stuck.turn().await.unwrap();
    }

    #[tokio::test]
    async fn what_is_larger_than_all_takes_all() {
        let [unknown, of_queue, _] = rooms();
        let held = unknown.try_take(LIMIT * 9).unwrap();
        assert_eq!(unknown.room.used(), LIMIT);
        drop(held);
        let held = of_queue.try_take(LIMIT * 9).unwrap();
        assert!(unknown.try_take(1).is_none());
        drop(held);
        assert_eq!(unknown.room.used(), 0);
    }

    #[tokio::test]
    async fn what_a_message_takes_beyond_the_wire_is_counted_while_there_is_room() {
        let [_, queue, _] = rooms();
        let mut held = queue.try_take(10).unwrap();
        queue.grow(&mut held, 60, 60).unwrap();
        assert_eq!(queue.room.used(), 60);
        queue.grow(&mut held, 200, 60 * MAX_EXPANSION).unwrap();
        assert_eq!(queue.room.used(), 60, "beyond the share it is not");
        queue.grow(&mut held, 5, 5).unwrap();
        // What takes many times as much in memory has to be counted in any case.
        queue.grow(&mut held, 60, 80 * MAX_EXPANSION).unwrap();
        assert_eq!(queue.room.used(), 80);
        let error = queue.grow(&mut held, 60, 200 * MAX_EXPANSION).unwrap_err();
        assert!(matches!(error, BrokerError::Overloaded { .. }), "{error}");
        drop(held);
        assert_eq!(queue.room.used(), 0);
    }
}
