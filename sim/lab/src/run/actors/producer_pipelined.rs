//! A producer on the raw wire with several pushes in flight at once, each over a connection of its own. Pushes arrive in any
//! order and with gaps, and each is retried by itself.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
};

use rmom_proto::messages::ProducerStamp;
use rmom_sim::history::Phase;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use uuid::Uuid;

use super::{
    Actor, RETRY,
    producer_raw::{Line, Message, attempt, left},
};
use crate::{run::settings::delivery_timeout, scenario::ProducerPlan};

/// The number of pushes in flight at once; see [`run`].
const IN_FLIGHT: u64 = 4;

/// The state that the tasks of one producer share.
struct Life {
    name: String,
    id: Uuid,
    next: Cell<u64>,
    /// Unacknowledged sequences.
    open: RefCell<BTreeSet<u64>>,
    queue_id: Cell<Option<u64>>,
    /// A message was given up, or the queue was replaced: nothing more is pushed as this producer.
    over: Cell<bool>,
}

impl Life {
    /// The producer stamp of a push.
    fn stamp(&self) -> ProducerStamp {
        let lowest_unacknowledged = self.open.borrow().first().copied().unwrap_or_else(|| self.next.get());
        ProducerStamp { id: self.id.as_bytes().to_vec().into(), epoch: 0, lowest_unacknowledged }
    }
}

pub(super) async fn run(actor: Actor, number: u8, plan: ProducerPlan) {
    actor.wait_for_the_workload().await;
    while actor.may_push() && left(&actor, number, &plan) {
        let life = actor.run.with(|state| {
            let progress = state.producers.entry(number).or_default();
            progress.life += 1;
            progress.life
        });
        let name = format!("p{number}.{life}");
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}:{name}", actor.run.scenario.seed).as_bytes());
        let life = Rc::new(Life {
            name,
            id,
            next: Cell::new(1),
            open: RefCell::default(),
            queue_id: Cell::new(None),
            over: Cell::new(false),
        });
        let one = || push(actor.clone(), life.clone(), number, plan.clone());
        tokio::join!(biased; one(), one(), one(), one());
        sleep(RETRY).await;
    }
    actor.run.with(|state| state.finished.insert(number));
}

/// Pushes one message after the other, each until it has an outcome.
async fn push(actor: Actor, life: Rc<Life>, number: u8, plan: ProducerPlan) {
    let label = actor.run.label(plan.queue);
    let mut line = Line::new(&actor, &label);
    let pace = Duration::from_millis(plan.pace_millis.max(1) * IN_FLIGHT);
    while actor.may_push() && left(&actor, number, &plan) && !life.over.get() {
        let next = Instant::now() + pace;
        actor.run.with(|state| state.producers.entry(number).or_default().pushed += 1);
        let sequence = life.next.replace(life.next.get() + 1);
        life.open.borrow_mut().insert(sequence);
        let give_up_at = Instant::now() + delivery_timeout(&actor.run.scenario);
        loop {
            let message = Message::new(&life.name, sequence, &plan, Some(life.stamp()), life.queue_id.get());
            match attempt(&actor, &mut line, &label, message).await {
                Ok(answer) => {
                    life.queue_id.set(Some(answer.queue_id));
                    life.open.borrow_mut().remove(&sequence);
                    break;
                }
                Err(error) if matches!(error.code.as_str(), "QUEUE_REPLACED" | "QUEUE_NOT_FOUND") => {
                    life.over.set(true);
                    return;
                }
                // By now the broker may have forgotten that it stored the message, and later messages wait for this one.
                Err(_) if Instant::now() >= give_up_at || actor.run.phase() == Some(Phase::Audit) => {
                    life.over.set(true);
                    return;
                }
                // A message that another task gave up leaves a permanent gap.
                Err(_) if life.over.get() => return,
                // Mostly a gap, which the other tasks fill.
                Err(_) => sleep(RETRY / 3).await,
            }
        }
        sleep_until(next).await;
    }
}
