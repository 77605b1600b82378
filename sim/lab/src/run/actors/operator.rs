//! The operator, which creates and deletes queues and channels and drains brokers. It repeatedly compares the desired state
//! with the state that it knows, and takes the next step.

use rmom_client::{Admin, Client, Error, Start};
use rmom_sim::{broker_host, history::Event};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Actor, LOOK, RETRY, consumer_library::create_channel, idle, prober, spelled, watch};
use crate::run::run_state::Queue;

pub(super) async fn run(actor: Actor, client: Client) {
    let probing = prober::run(actor.clone(), client.clone());
    let operating = async {
        set_up(&actor, &client).await;
        loop {
            if !work(&actor, &client).await {
                sleep(LOOK).await;
            }
        }
    };
    let (watching, idling) = (watch::run(actor.clone(), client.clone()), idle::run(actor.clone(), client.clone()));
    tokio::join!(biased; operating, probing, watching, idling);
}

/// Waits for the brokers, then creates the initial queues.
async fn set_up(actor: &Actor, client: &Client) {
    let brokers = usize::from(actor.run.scenario.topology.brokers.max(1));
    while !actor.run.with(|state| state.ready) {
        let live = client.admin().brokers().await.map_or(0, |all| all.iter().filter(|broker| broker.live).count());
        if live < brokers {
            sleep(LOOK).await;
            continue;
        }
        while work(actor, client).await {}
        actor.run.with(|state| state.ready = state.queues.iter().all(Queue::is_settled));
    }
}

/// Takes one step. False if there is nothing to do.
async fn work(actor: &Actor, client: &Client) -> bool {
    let admin = client.admin();
    // Drains come first: while all brokers are drained, no queue can be created.
    let drains = actor.run.with(|state| state.drains.clone());
    for (broker, drain) in drains {
        if !drain.is_settled() {
            set_drain(actor, &admin, broker, drain.wanted > 0).await;
            return true;
        }
    }
    if let Some(channel) = actor.run.with(|state| state.doomed.pop_first()) {
        delete_channel(actor, &admin, channel).await;
        return true;
    }
    let queues = actor.run.with(|state| state.queues.clone());
    for (index, queue) in queues.iter().enumerate() {
        if queue.deletes_done < queue.deletes_wanted {
            if queue.id.is_none() {
                // The queue did not exist when it was due for deletion.
                actor.run.with(|state| state.queues[index].deletes_done = queue.deletes_wanted);
            } else {
                delete_queue(actor, &admin, index, queue.deletes_wanted).await;
            }
            return true;
        }
        match queue.id {
            None if queue.unwanted == 0 => {
                create_queue(actor, &admin, index).await;
                return true;
            }
            Some(_) if queue.extra.len() < queue.churn => {
                let created = create_channel(actor, client, &queue.label, 0, Start::Earliest).await;
                match created {
                    Some((channel, _, _)) => actor.run.with(|state| state.queues[index].extra.push(channel)),
                    None => sleep(RETRY).await,
                }
                return true;
            }
            Some(_) if queue.extra.len() > queue.churn => {
                if let Some(channel) = queue.extra.last()
                    && delete_channel(actor, &admin, *channel).await
                {
                    actor.run.with(|state| state.queues[index].extra.retain(|extra| extra != channel));
                }
                return true;
            }
            _ => {}
        }
    }
    false
}

fn failed(op: u64, error: &Error) -> Event {
    Event::AdminFailed { op, code: error.code().to_owned(), unknown: error.outcome_unknown() }
}

async fn create_queue(actor: &Actor, admin: &Admin, index: usize) {
    let label = actor.run.with(|state| state.queues[index].label.clone());
    let op = actor.run.call(&actor.host, |op| Event::QueueCreating { op, label: label.clone() });
    let error = match admin.create_queue(&spelled(&label, op)).await {
        Ok(queue) => {
            actor.run.with(|state| state.queues[index].id = Some(queue.id));
            return actor.run.answered(&actor.host, op, Event::QueueCreated { op, label, queue_id: queue.id });
        }
        Err(error) => error,
    };
    actor.run.answered(&actor.host, op, failed(op, &error));
    // An earlier attempt may have created the queue, or this one despite its error.
    let found = admin.queue(&label).await.ok().map(|queue| queue.id);
    let found = found.filter(|id| actor.run.with(|state| !state.queues[index].deleted.contains(id)));
    actor.run.with(|state| state.queues[index].id = found);
    if found.is_none() {
        sleep(RETRY).await;
    }
}

async fn delete_queue(actor: &Actor, admin: &Admin, index: usize, deletes: u64) {
    let label = actor.run.with(|state| {
        let queue = &state.queues[index];
        state.channels.retain(|_, of| Some(*of) != queue.id);
        queue.label.clone()
    });
    let op = actor.run.call(&actor.host, |op| Event::QueueDeleting { op, label: label.clone() });
    match admin.delete_queue(&spelled(&label, op)).await {
        Err(error) if error.code() != "QUEUE_NOT_FOUND" => {
            actor.run.answered(&actor.host, op, failed(op, &error));
            sleep(RETRY).await;
        }
        // A queue that does not exist was deleted by an earlier attempt that got no answer.
        _ => {
            actor.run.with(|state| {
                let queue = &mut state.queues[index];
                queue.deletes_done = deletes;
                queue.extra.clear();
                if let Some(id) = queue.id.take() {
                    queue.deleted.insert(id);
                }
            });
            actor.run.answered(&actor.host, op, Event::QueueDeleted { op, label });
        }
    }
}

/// Deletes a channel. True once the channel does not exist.
pub(super) async fn delete_channel(actor: &Actor, admin: &Admin, channel: Uuid) -> bool {
    actor.run.with(|state| state.channels.remove(&channel));
    let op = actor.run.call(&actor.host, |op| Event::ChannelDeleting { op, channel });
    match admin.delete_channel(channel).await {
        Err(error) if error.code() != "CHANNEL_NOT_FOUND" => {
            actor.run.answered(&actor.host, op, failed(op, &error));
            sleep(RETRY).await;
            false
        }
        _ => {
            actor.run.answered(&actor.host, op, Event::ChannelDeleted { op, channel });
            true
        }
    }
}

async fn set_drain(actor: &Actor, admin: &Admin, broker: u8, wanted: bool) {
    let host = broker_host(usize::from(broker));
    let id = match admin.brokers().await {
        Ok(brokers) => brokers.into_iter().find(|broker| broker.host == host).and_then(|broker| broker.id),
        Err(_) => None,
    };
    let Some(id) = id else {
        sleep(RETRY).await;
        return;
    };
    actor.run.with(|state| state.drains.entry(broker).or_default().is = None);
    let done = if wanted { admin.drain(id).await } else { admin.undrain(id).await };
    if done.is_ok() {
        actor.run.with(|state| state.drains.entry(broker).or_default().is = Some(wanted));
    } else {
        sleep(RETRY).await;
    }
}
