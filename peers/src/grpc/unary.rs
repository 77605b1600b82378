//! A call for each message.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rmom_proto::messages::{Push, message_stream_client::MessageStreamClient};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{QUEUE, connect, endpoint, ttl_millis};
use crate::load::{Clock, Error, Figures, Load, content, lock, runtime};

/// As `rmom bench push --mode unary`: `in_flight` tasks over one connection, each with one call after the other.
pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    runtime()?.block_on(async {
        let client = connect(&endpoint(at)?).await?;
        let run = Arc::new(Run {
            clock: Clock::start(*load),
            size: load.size,
            next: AtomicU64::new(0),
            figures: Mutex::new(Figures::new(load)),
        });
        let mut lanes: JoinSet<_> = (0..load.in_flight).map(|_| push(client.clone(), Arc::clone(&run))).collect();
        while let Some(lane) = lanes.join_next().await {
            lane.map_err(|error| Error::Other(error.to_string()))??;
        }
        let run = Arc::into_inner(run).ok_or_else(|| Error::Other("a task goes on".to_owned()))?;
        run.figures.into_inner().map_err(|error| Error::Other(error.to_string()))
    })
}

/// What the tasks share.
struct Run {
    clock: Clock,
    size: usize,
    next: AtomicU64,
    figures: Mutex<Figures>,
}

async fn push(mut client: MessageStreamClient<Channel>, run: Arc<Run>) -> Result<(), Error> {
    while !run.clock.is_over() {
        let sent = run.clock.now();
        let content = content(run.next.fetch_add(1, Relaxed), sent, run.size).into();
        let push = Push { content, queue_label: QUEUE.to_owned(), ttl_millis: ttl_millis(), ..Push::default() };
        client.push_to_queue(push).await?;
        let now = run.clock.now();
        if run.clock.is_measured(now) {
            let mut figures = lock(&run.figures);
            figures.stored += 1;
            figures.acknowledged_after.saturating_record(now - sent);
        }
    }
    Ok(())
}
