//! `PushStream`: pushes with acknowledgements in flight.
//!
//! One half reads requests and submits them, waiting while the broker's buffers are full. The other half turns the results,
//! in order, into cumulative acknowledgements. A client that does not read its acknowledgements is no longer read from.
//!
//! The reading half is a task of its own, which ends with the response stream. HTTP/2 polls a response only while its client
//! gives it window, but the deadlines of the reading half have to pass without that, too.

use std::{
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt as _, future::BoxFuture, stream};
use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError, Held, PushSession, RunReceipt},
    model::{Code, Offset, QueueId, Sequence},
};
use rmom_proto::messages::{PushAck, PushStreamRequest, push_stream_request::Request};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    counted::Ledger,
    deadline::too_large,
    parse,
    status::{status, to_status},
};

/// Runs submitted on one stream and not acknowledged yet; further requests wait.
pub const MAX_PENDING_RUNS: usize = 1_024;
/// How long a client may take to send the stream's opening.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

type Receipt = BoxFuture<'static, Result<RunReceipt, BrokerError>>;

/// Items that the reading half hands to the acknowledging half, in order.
enum Step {
    Opened(QueueId),
    Submitted(Receipt),
    /// The end of the stream. Everything before it is acknowledged first.
    Failed(Status),
}

/// Serves one stream: acknowledgements, followed by the first error, if there was one.
pub(super) fn serve<S>(
    broker: Broker<Call>,
    requests: S,
    ledger: Option<Ledger>,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<PushAck, Status>> + Send + 'static
where
    S: Stream<Item = Result<PushStreamRequest, Status>> + Send + Unpin + 'static,
{
    let (steps, submitted) = mpsc::channel(MAX_PENDING_RUNS);
    let reading = async move {
        if let Err(status) = read(&broker, requests, ledger.as_ref(), &shutdown, &steps).await {
            // The receiver is gone if the stream ended on an earlier error.
            let _ = steps.send(Step::Failed(status)).await;
        }
    };
    Driven::new(reading, acknowledge(submitted))
}

/// A stream and the task that feeds it. Dropping it ends the task.
struct Driven<S> {
    driver: JoinSet<()>,
    stream: Pin<Box<S>>,
}

impl<S> Driven<S> {
    fn new(reading: impl Future<Output = ()> + Send + 'static, stream: S) -> Self {
        let mut driver = JoinSet::new();
        driver.spawn(reading);
        Self { driver, stream: Box::pin(stream) }
    }
}

impl<S: Stream<Item = Result<PushAck, Status>>> Stream for Driven<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match ready!(self.stream.as_mut().poll_next(cx)) {
            // An orderly end is reported only once the task has ended in order, too.
            None => match ready!(self.driver.poll_join_next(cx)) {
                Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
                _ => Poll::Ready(None),
            },
            Some(Err(status)) => {
                // Requests after the error would get no answer.
                self.driver.abort_all();
                Poll::Ready(Some(Err(status)))
            }
            ack => Poll::Ready(ack),
        }
    }
}

fn invalid<T>(field: &'static str, reason: &'static str) -> Result<T, Status> {
    Err(to_status(&BrokerError::Invalid { field, reason }))
}

/// Reads and submits until the client has finished.
async fn read<S>(
    broker: &Broker<Call>,
    mut requests: S,
    ledger: Option<&Ledger>,
    shutdown: &CancellationToken,
    steps: &mpsc::Sender<Step>,
) -> Result<(), Status>
where
    S: Stream<Item = Result<PushStreamRequest, Status>> + Send + Unpin,
{
    let first = timeout(OPEN_TIMEOUT, requests.next())
        .await
        .map_err(|_| status(Code::DeadlineExceeded, format!("no first request within {OPEN_TIMEOUT:?}"), Vec::new()))?;
    let Some(first) = first else { return Ok(()) };
    let open = match first.map_err(decoding_error)?.request {
        Some(Request::Open(open)) => parse::open_push(&open).map_err(|error| to_status(&error))?,
        _ => return invalid("open", "the first request of a stream opens it"),
    };
    // Without a producer, sequences serve only for acknowledgements, so this stream assigns them itself.
    let mut unnumbered = open.producer.is_none().then(|| Sequence::ZERO.next());
    // The opening has been read, and its queue may take as long as an activation: the opening keeps no room meanwhile.
    drop(ledger.and_then(Ledger::take));
    let mut session = broker.open_push(open).await.map_err(|error| to_status(&error))?;
    if let Some(ledger) = ledger {
        // From here on, messages count for the queue too.
        ledger.set_room(session.room());
    }
    if steps.send(Step::Opened(session.queue())).await.is_err() {
        return Ok(());
    }
    loop {
        let request = tokio::select! {
            biased;
            request = requests.next() => request,
            () = shutdown.cancelled() => return Err(to_status(&BrokerError::ShuttingDown)),
        };
        let Some(request) = request else { return Ok(()) };
        let held = ledger.and_then(Ledger::take);
        let receipt = submit(&mut session, request.map_err(decoding_error)?, held, &mut unnumbered).await?;
        if steps.send(Step::Submitted(receipt)).await.is_err() {
            return Ok(());
        }
    }
}

async fn submit(
    session: &mut PushSession,
    request: PushStreamRequest,
    held: Option<Held>,
    unnumbered: &mut Option<Sequence>,
) -> Result<Receipt, Status> {
    let run = match request.request {
        Some(Request::Messages(run)) => parse::push_run(run).map_err(|error| to_status(&error))?,
        Some(Request::Open(_)) => return invalid("open", "the stream is open already"),
        None => return invalid("request", "it is empty"),
    };
    if let Some(next) = unnumbered {
        if run.first != *next {
            return invalid("first_sequence", "without a producer sequences count 1, 2, 3 … without a gap");
        }
        *next = next.plus(run.messages.len() as u64);
    }
    let receipt = match held {
        Some(held) => session.submit_held(run, held).await.map(FutureExt::boxed),
        None => session.submit(run).await.map(FutureExt::boxed),
    };
    receipt.map_err(|error| to_status(&error))
}

/// A request that tonic could not decode.
fn decoding_error(error: Status) -> Status {
    if error.code() == tonic::Code::OutOfRange { too_large("content", &error) } else { error }
}

/// The acknowledging half.
struct Acks {
    steps: mpsc::Receiver<Step>,
    /// Taken from `steps`, but not ready yet or not to be joined with the steps before it.
    held: Option<Step>,
    queue: u64,
    duplicates: u64,
}

fn acknowledge(steps: mpsc::Receiver<Step>) -> impl Stream<Item = Result<PushAck, Status>> + Send {
    let acks = Acks { steps, held: None, queue: 0, duplicates: 0 };
    stream::unfold(Some(acks), |acks| async move {
        let mut acks = acks?;
        let next = acks.next().await?;
        let more = next.is_ok().then_some(acks);
        Some((next, more))
    })
}

impl Acks {
    async fn next(&mut self) -> Option<Result<PushAck, Status>> {
        let step = match self.held.take() {
            Some(step) => step,
            None => self.steps.recv().await?,
        };
        match step {
            Step::Opened(queue) => {
                self.queue = queue.get();
                Some(Ok(PushAck { queue_id: self.queue, ..PushAck::default() }))
            }
            Step::Submitted(receipt) => match receipt.await {
                Ok(receipt) => Some(Ok(self.join_ready(receipt))),
                Err(error) => Some(Err(to_status(&error))),
            },
            Step::Failed(status) => Some(Err(status)),
        }
    }

    /// Acknowledgements are cumulative: when several are ready, the last one is enough.
    fn join_ready(&mut self, mut latest: RunReceipt) -> PushAck {
        self.duplicates += latest.duplicates;
        while self.held.is_none() {
            let Ok(step) = self.steps.try_recv() else { break };
            let Step::Submitted(mut receipt) = step else {
                self.held = Some(step);
                break;
            };
            match (&mut receipt).now_or_never() {
                None => self.held = Some(Step::Submitted(receipt)),
                Some(Err(error)) => self.held = Some(Step::Failed(to_status(&error))),
                Some(Ok(next)) => {
                    self.duplicates += next.duplicates;
                    latest = next;
                }
            }
        }
        PushAck {
            through_sequence: latest.through.get(),
            offset: latest.offset.map_or(0, Offset::get),
            queue_id: self.queue,
            duplicates: self.duplicates,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::sleep};

    use super::*;

    /// A stream whose reading half takes as long as an opening may, and its status at the end.
    fn slow() -> (impl Stream<Item = Result<PushAck, Status>> + Unpin, oneshot::Receiver<()>) {
        let (done, ended) = oneshot::channel();
        let reading = async move {
            sleep(OPEN_TIMEOUT).await;
            done.send(()).unwrap();
        };
        (Driven::new(reading, stream::pending()), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_pass_also_while_the_client_gives_no_window() {
        let (_not_polled, ended) = slow();
        timeout(OPEN_TIMEOUT * 2, ended).await.expect("the deadline passes").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn reading_ends_with_the_stream() {
        let (dropped, ended) = slow();
        drop(dropped);
        ended.await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_after_its_error_although_requests_go_on() {
        let failed = stream::iter([Err(to_status(&BrokerError::Fenced))]);
        let mut driven = Driven::new(std::future::pending(), failed);
        driven.next().await.unwrap().unwrap_err();
        assert!(timeout(OPEN_TIMEOUT, driven.next()).await.expect("it ends").is_none());
    }

    fn receipt(through: u64, duplicates: u64) -> RunReceipt {
        RunReceipt { through: Sequence::new(through), offset: Some(Offset::new(100 + through)), duplicates }
    }

    fn ready(through: u64, duplicates: u64) -> Step {
        Step::Submitted(std::future::ready(Ok(receipt(through, duplicates))).boxed())
    }

    fn pending() -> (oneshot::Sender<RunReceipt>, Step) {
        let (resolve, resolved) = oneshot::channel();
        (resolve, Step::Submitted(async { Ok(resolved.await.unwrap()) }.boxed()))
    }

    fn ack(through_sequence: u64, duplicates: u64) -> PushAck {
        PushAck { through_sequence, offset: 100 + through_sequence, queue_id: 7, duplicates }
    }

    #[tokio::test]
    async fn what_is_ready_is_joined_and_the_opening_is_not() {
        let (steps, submitted) = mpsc::channel(9);
        let mut acks = Box::pin(acknowledge(submitted));
        let (resolve, waits) = pending();
        for step in [Step::Opened(QueueId::new(7)), ready(1, 0), ready(3, 1), waits, ready(9, 2)] {
            steps.send(step).await.unwrap();
        }
        assert_eq!(acks.next().await.unwrap().unwrap(), PushAck { queue_id: 7, ..PushAck::default() });
        assert_eq!(acks.next().await.unwrap().unwrap(), ack(3, 1));
        assert!(acks.next().now_or_never().is_none(), "the third is not stored yet, so the fourth has to wait");
        resolve.send(receipt(5, 0)).unwrap();
        assert_eq!(acks.next().await.unwrap().unwrap(), ack(9, 3));
        drop(steps);
        assert!(acks.next().await.is_none());
    }

    #[tokio::test]
    async fn the_first_error_ends_the_stream_behind_what_was_stored() {
        for failed in [
            Step::Failed(to_status(&BrokerError::Fenced)),
            Step::Submitted(std::future::ready(Err(BrokerError::Fenced)).boxed()),
        ] {
            let (steps, submitted) = mpsc::channel(9);
            let mut acks = Box::pin(acknowledge(submitted));
            for step in [Step::Opened(QueueId::new(7)), ready(1, 0), failed, ready(2, 0)] {
                steps.send(step).await.unwrap();
            }
            acks.next().await.unwrap().unwrap();
            assert_eq!(acks.next().await.unwrap().unwrap(), ack(1, 0));
            assert_eq!(acks.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
            assert!(acks.next().await.is_none());
        }
    }
}
