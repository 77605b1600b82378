//! Reads back the messages that a run stored.

use std::{future::Future, sync::atomic::Ordering::Relaxed};

use rmom_client::{Channel, Consumer, Start, Uuid};
use tokio::time::timeout;

use super::{
    env::{Counter, Env, PATIENCE, Task, broken, join},
    payload::{Checker, Header},
};
use crate::cli::{error::CliError, session::Session};

/// Number of queues that are read at once.
const AT_ONCE: usize = 8;

/// A queue, and the number of messages that each of its producers stored.
pub(super) struct Stored {
    pub(super) queue: String,
    pub(super) first_producer: u32,
    pub(super) made: Vec<u64>,
}

/// Reads every queue from its beginning and checks that each message is there once, and each producer's are in order.
pub(super) async fn read_back(env: &Env, queues: Vec<Stored>) -> Result<(), CliError> {
    env.tell("checking the stored messages");
    let admin = env.client().admin();
    let create = |number: u32| admin.create_channel(&queues[number as usize].queue, None, Start::Earliest);
    let channels = env.for_each(queues.len() as u32, create).await?;
    let mut queues: Vec<_> = queues.into_iter().zip(channels).collect();
    let read = Counter::default();
    let all = async {
        while !queues.is_empty() {
            let some = queues.split_off(queues.len().saturating_sub(AT_ONCE));
            let task = |(stored, channel): (Stored, Channel)| {
                let (session, read) = (env.session.clone(), Counter::clone(&read));
                Task::spawn(async move { read_queue(&session, &stored, channel.id, &read).await })
            };
            join(some.into_iter().map(task).collect()).await?;
        }
        Ok(())
    };
    env.watch("checking the stored messages", &read, all).await
}

async fn read_queue(session: &Session, stored: &Stored, channel: Uuid, read: &Counter) -> Result<(), CliError> {
    let total = ends_where_it_should(session, stored).await?;
    let producers = u32::try_from(stored.made.len()).unwrap_or(u32::MAX);
    let mut checker = Checker::new(stored.first_producer, producers, 0, 1);
    receive(session, channel, &mut checker, total, |_| {
        read.fetch_add(1, Relaxed);
    })
    .await
    .map(drop)
}

/// Fails if the queue has more or fewer messages than were pushed; returns their number.
pub(super) async fn ends_where_it_should(session: &Session, stored: &Stored) -> Result<u64, CliError> {
    let total = stored.made.iter().sum();
    let queue = session.client.admin().queue(&stored.queue).await.map_err(|error| session.explain(&error))?;
    match queue.live {
        Some(live) if live.last_offset != total => {
            let end = live.last_offset;
            Err(CliError::refused(format_args!("{total} messages were pushed, and the queue ends at {end}")))
        }
        _ => Ok(total),
    }
}

/// Receives until this many messages have arrived.
pub(super) async fn receive(
    session: &Session,
    channel: Uuid,
    checker: &mut Checker,
    total: u64,
    mut seen: impl FnMut(Header),
) -> Result<Consumer, CliError> {
    let mut consumer = session.client.subscribe(channel).build();
    while checker.received() < total {
        seen(next(session, &mut consumer, checker).await?);
    }
    Ok(consumer)
}

/// Receives one message that has to come, and checks it.
pub(super) async fn next(
    session: &Session,
    consumer: &mut Consumer,
    checker: &mut Checker,
) -> Result<Header, CliError> {
    let message = within_patience(consumer.next(), checker.received()).await?;
    let message = message.map_err(|error| session.explain(&error))?;
    checker.check(&message.content).map_err(|error| broken("a subscriber", &error))
}

/// Fails if the awaited message does not come in time.
pub(super) async fn within_patience<T>(work: impl Future<Output = T>, received: u64) -> Result<T, CliError> {
    let late = |_| CliError::refused(format_args!("LOST: nothing came for {PATIENCE:?} after {received} messages"));
    timeout(PATIENCE, work).await.map_err(late)
}
