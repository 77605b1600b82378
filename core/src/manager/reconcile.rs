//! The one loop that keeps every queue on a live broker in all cases: boot, a broker's death, an orderly stop, a drain. It
//! looks at the present state, not at changes, so missing or repeating something does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::{
    Inner,
    placement::{Candidate, fewest_queues},
    rebalance::Rebalancer,
    registry::Registry,
    status::CycleStatus,
};
use crate::{
    model::{Assignment, BrokerAddr, BrokerId, QueueId, QueueLabel, limits::MAX_ASSIGNED_QUEUES},
    ports::{Assign, Assigned, BrokerRecord, BrokerState, QueueRecord, StoreError},
};

/// The shortest cycle, whatever the configuration, so that the loop never spins.
pub(super) const MIN_CYCLE: Duration = Duration::from_millis(10);

/// Number of queues that one call of the store reads. Each call has a deadline of its own.
const QUEUES_PER_PAGE: u32 = 5_000;

/// The reason for an assignment; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Its broker does not answer.
    Dead,
    /// Its broker stopped in good order.
    Stopped,
    /// It has no broker.
    Unassigned,
    /// Its broker is being drained.
    Draining,
    /// Its broker has more queues than another.
    Uneven,
}

/// A planned assignment of a queue to another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) queue: QueueId,
    pub(super) label: QueueLabel,
    /// The assignment on which the plan is based. If it has changed, the move is void.
    pub(super) expected: Assignment,
    pub(super) from: Option<BrokerAddr>,
    pub(super) to: (BrokerId, BrokerAddr),
    pub(super) why: Why,
}

/// The planned moves, and the queues that cannot be helped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The most urgent first.
    pub(super) moves: Vec<Move>,
    /// No live broker takes queues, so nothing can be assigned.
    pub(super) starved: bool,
    /// Number of queues without a live broker and without one to go to.
    pub(super) stranded: usize,
}

/// Plans the moves that give every queue a live broker that takes queues; other queues stay. Each queue goes to the broker
/// that has the fewest at that point. `alive` are the brokers that answered just now. If no broker takes queues, nothing
/// moves.
pub(super) fn plan(queues: &[QueueRecord], brokers: &[BrokerRecord], alive: &BTreeSet<BrokerId>) -> Plan {
    let known: BTreeMap<BrokerId, &BrokerRecord> = brokers.iter().map(|broker| (broker.id, broker)).collect();
    let why_move = |queue: &QueueRecord| {
        let Some((id, _)) = queue.assignee else { return Some(Why::Unassigned) };
        match known.get(&id) {
            Some(broker) if broker.state == BrokerState::Stopped => Some(Why::Stopped),
            Some(broker) if alive.contains(&id) => (broker.state == BrokerState::Draining).then_some(Why::Draining),
            _ => Some(Why::Dead),
        }
    };
    let mut counts: BTreeMap<BrokerId, u64> = BTreeMap::new();
    for (id, _) in queues.iter().filter_map(|queue| queue.assignee.as_ref()) {
        *counts.entry(*id).or_default() += 1;
    }
    let mut candidates: Vec<Candidate> = known
        .values()
        .filter(|broker| broker.state == BrokerState::Up && alive.contains(&broker.id))
        .map(|broker| Candidate { queues: counts.get(&broker.id).copied().unwrap_or(0), ..Candidate::from(*broker) })
        .collect();

    let mut to_move: Vec<_> = queues.iter().filter_map(|queue| Some((why_move(queue)?, queue))).collect();
    to_move.sort_by_key(|(why, queue)| (*why, queue.id));
    let mut plan = Plan { starved: candidates.is_empty(), ..Plan::default() };
    for (why, queue) in to_move {
        match fewest_queues(&mut candidates, |_| 0) {
            Some(target) => {
                target.queues += 1;
                plan.moves.push(Move {
                    queue: queue.id,
                    label: queue.label.clone(),
                    expected: queue.assignment,
                    from: queue.assignee.as_ref().map(|(_, addr)| addr.clone()),
                    to: (target.id, target.addr.clone()),
                    why,
                });
            }
            None => plan.stranded += usize::from(why != Why::Draining),
        }
    }
    plan
}

/// Whether a cycle did everything that there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// There are more queues to move than one cycle moves.
    More,
}

/// The state that the loop keeps from cycle to cycle.
#[derive(Default)]
struct Memory {
    said: Said,
    rebalancer: Rebalancer,
    /// Queues whose moves were tried and not made. Other queues go first, so that these cannot hold them up.
    postponed: BTreeSet<QueueId>,
}

/// The messages logged so far, so that each is logged once.
#[derive(Default)]
struct Said {
    store_failed: bool,
    starved: bool,
    unregistered: BTreeSet<BrokerAddr>,
}

impl Inner {
    /// Runs the loop. Never returns.
    pub(super) async fn run_cycles(&self) {
        let mut memory = Memory::default();
        loop {
            let started = Instant::now();
            let mut cycle = CycleStatus {
                duration: started.elapsed(),
                age: started.elapsed(),
                led: self.leadership.is_leading(),
                live_brokers: 0,
                queues: 0,
                stranded: 0,
                error: None,
            };
            let result = self.cycle(&mut cycle, &mut memory).await;
            let more = result == Ok(Progress::More);
            cycle.duration = started.elapsed();
            cycle.error = result.as_ref().err().map(ToString::to_string);
            self.counters.update(|counters| {
                counters.cycles += 1;
                counters.cycles_failed += u64::from(result.is_err());
            });
            match result {
                Err(error) if !memory.said.store_failed => warn!(%error, "a cycle was cut short; trying again"),
                Ok(_) if memory.said.store_failed => info!("cycles run through again"),
                _ => {}
            }
            memory.said.store_failed = cycle.error.is_some();
            *self.last_cycle.lock() = Some((Instant::now(), cycle));
            if more {
                // The brokers are probed again before the rest is moved: another one may have died in the meantime.
                continue;
            }
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = sleep_until(started + self.settings.cycle.max(MIN_CYCLE)) => {}
            }
        }
    }

    /// One turn: reads the list of brokers and, as the leader, probes them and brings the assignments into line.
    async fn cycle(&self, cycle: &mut CycleStatus, memory: &mut Memory) -> Result<Progress, StoreError> {
        let Memory { said, rebalancer, postponed } = memory;
        let registry = Arc::new(Registry::read(&self.store, self.store_deadline()).await?);
        *self.registry.lock() = Some(Arc::clone(&registry));
        let registered = registry.brokers.iter().map(|broker| &broker.addr);
        self.probes.keep(&registered.chain(&self.settings.moms).collect());
        if !cycle.led {
            rebalancer.disturb();
            return Ok(Progress::Done);
        }
        self.report_unregistered(&registry, said);
        let alive = self.probe_round(&registry).await;
        // Read after the probes, so that queues created or moved in the meantime are seen.
        let queues = self.all_queues().await?;
        let plan = plan(&queues, &registry.brokers, &alive);
        cycle.live_brokers = alive.len();
        cycle.queues = queues.len();
        cycle.stranded = plan.stranded;
        report_starved(&plan, said);
        if !self.leadership.is_leading() {
            // The probes may be as old as the lease that ran out in the meantime: the present leader does the work.
            mark!(LeadLapsed);
            return Ok(Progress::Done);
        }
        if plan.moves.is_empty() && plan.stranded == 0 {
            self.rebalance_step(rebalancer, &registry, &alive, &queues).await?;
        } else {
            rebalancer.disturb();
        }
        let planned: BTreeSet<QueueId> = plan.moves.iter().map(|planned| planned.queue).collect();
        postponed.retain(|queue| planned.contains(queue));
        let (drained, urgent) = plan.moves.into_iter().partition(|planned| planned.why == Why::Draining);
        let progress = self.carry_out(urgent, postponed).await?;
        if progress == Progress::Done {
            self.drain_step(rebalancer, drained, postponed).await?;
        }
        Ok(progress)
    }

    /// All live queues, page by page, so that no call takes longer because there are many.
    pub(super) async fn all_queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut queues: Vec<QueueRecord> = Vec::new();
        loop {
            let after = queues.last().map_or(QueueId::ZERO, |queue| queue.id);
            let page = self.store.catalog().queues_after(after, QUEUES_PER_PAGE);
            let page = self.store.read(self.store_deadline(), page).await?;
            let is_last = page.len() < QUEUES_PER_PAGE as usize;
            queues.extend(page);
            if is_last {
                return Ok(queues);
            }
        }
    }

    /// Probes every registered broker that may be alive and, for the operator's information, the listed brokers that never
    /// registered.
    pub(super) async fn probe_round(&self, registry: &Registry) -> BTreeSet<BrokerId> {
        let probed = registry.brokers.iter().filter(|broker| broker.state != BrokerState::Stopped);
        let registered = probed.filter(|broker| !registry.is_gone(broker)).map(|broker| {
            // Once its lease has run out, the broker itself refuses heartbeats. It is asked once nevertheless, in case that
            // only the store's clock has jumped.
            let attempts = if registry.lease_current(broker) { self.settings.probe_attempts() } else { 1 };
            (Some(broker.id), broker.addr.clone(), attempts)
        });
        let unregistered = self.unregistered(registry).map(|addr| (None, addr.clone(), 1));
        let answered = self.probes.probe_all(registered.chain(unregistered).collect()).await;
        answered.into_iter().flatten().collect()
    }

    /// Makes moves, many at once: [`ManagerSettings::max_moves_per_cycle`](super::ManagerSettings) at most, and for no
    /// longer than a cycle, so that the brokers are probed again in time. If a group of moves fails, the other groups are
    /// still made.
    async fn carry_out(&self, moves: Vec<Move>, postponed: &mut BTreeSet<QueueId>) -> Result<Progress, StoreError> {
        let until = Instant::now() + self.settings.cycle.max(MIN_CYCLE);
        let moves = postponed_last(moves, postponed);
        let (moves, left) = moves.split_at(moves.len().min(self.settings.max_moves_per_cycle.max(1)));
        let (mut more, mut failed, mut concerned) = (!left.is_empty(), None, BTreeSet::new());
        for (n, some) in moves.chunks(MAX_ASSIGNED_QUEUES).enumerate() {
            if !self.leadership.is_leading() {
                mark!(LeadLapsed);
                more = false;
                break;
            }
            if n > 0 && Instant::now() >= until {
                more = true;
                break;
            }
            if let Err(error) = self.assign(some.to_vec(), postponed, &mut concerned).await {
                failed.get_or_insert(error);
            }
        }
        for addr in concerned {
            self.nudges.refresh(addr);
        }
        mark!(MovesLeft if more);
        match failed {
            Some(error) => Err(error),
            None if more => Ok(Progress::More),
            None => Ok(Progress::Done),
        }
    }

    /// Makes up to [`MAX_ASSIGNED_QUEUES`] moves in one transaction, and returns those that were made. The others are
    /// postponed. The brokers to notify are added to `concerned`.
    pub(super) async fn assign(
        &self,
        mut moves: Vec<Move>,
        postponed: &mut BTreeSet<QueueId>,
        concerned: &mut BTreeSet<BrokerAddr>,
    ) -> Result<Vec<Move>, StoreError> {
        moves.sort_by_key(|planned| planned.queue);
        postponed.extend(moves.iter().map(|planned| planned.queue));
        let assign = |planned: &Move| Assign { queue: planned.queue, expected: planned.expected, to: planned.to.0 };
        let group: Vec<Assign> = moves.iter().map(assign).collect();
        let assigned = self.store.write(self.store_deadline(), self.store.catalog().assign_queues(&group)).await;
        // The next cycle finds out how far this one got.
        mark!(AssignFailed if assigned.is_err());
        let (mut made, mut summary) = (Vec::new(), BTreeMap::new());
        for (planned, assigned) in moves.into_iter().zip(assigned?) {
            match assigned {
                Assigned::Done(_) => {
                    postponed.remove(&planned.queue);
                    self.moved(&planned, concerned);
                    let between = (planned.why, planned.from.clone(), planned.to.1.clone());
                    summary.entry(between).or_insert_with(Vec::new).push(planned.label.clone());
                    made.push(planned);
                }
                Assigned::Changed => {
                    mark!(AssignLostRace);
                    debug!(queue = %planned.label, "the queue was assigned or deleted meanwhile, or is being changed");
                    self.counters.update(|counters| counters.lost_races += 1);
                }
                Assigned::NoSuchBroker => {
                    warn!(queue = %planned.label, broker = %planned.to.1, "the queue was not assigned: the broker is not registered");
                }
            }
        }
        for ((why, from, to), labels) in summary {
            let from = from.as_ref().map(tracing::field::display);
            info!(queues = labels.len(), first = %labels[0], from, %to, ?why, "assigned queues");
        }
        Ok(made)
    }

    /// Counts a move, and adds the broker to notify: the newly assigned one, or, where the leader itself asks the new one to
    /// serve the queue, the present one.
    fn moved(&self, planned: &Move, concerned: &mut BTreeSet<BrokerAddr>) {
        mark!(MovedFromDead if planned.why == Why::Dead);
        mark!(MovedFromDraining if planned.why == Why::Draining);
        mark!(MovedToLevel if planned.why == Why::Uneven);
        self.counters.update(|counters| match planned.why {
            Why::Dead => counters.failovers += 1,
            Why::Stopped | Why::Draining => counters.handovers += 1,
            Why::Unassigned => counters.placed += 1,
            Why::Uneven => counters.rebalanced += 1,
        });
        match planned.why {
            Why::Dead | Why::Stopped | Why::Unassigned => concerned.extend([planned.to.1.clone()]),
            Why::Draining | Why::Uneven => concerned.extend(planned.from.clone()),
        }
    }

    fn report_unregistered(&self, registry: &Registry, said: &mut Said) {
        let unregistered: BTreeSet<BrokerAddr> = self.unregistered(registry).cloned().collect();
        for addr in unregistered.difference(&said.unregistered) {
            warn!(broker = %addr, "a listed broker never registered in the store; it is given no queues");
        }
        said.unregistered = unregistered;
    }
}

/// The moves in their order, with those of postponed queues last.
pub(super) fn postponed_last(mut moves: Vec<Move>, postponed: &BTreeSet<QueueId>) -> Vec<Move> {
    moves.sort_by_key(|planned| postponed.contains(&planned.queue));
    moves
}

fn report_starved(plan: &Plan, said: &mut Said) {
    if plan.starved && !said.starved {
        mark!(NoLiveBroker);
        warn!(stranded_queues = plan.stranded, "no live broker takes queues; they stay where they are until one does");
    } else if said.starved && !plan.starved {
        info!("a live broker takes queues again");
    }
    said.starved = plan.starved;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Incarnation, StoreTime};

    fn addr(id: u64) -> BrokerAddr {
        BrokerAddr { host: format!("b{id}"), port: 1 }
    }

    fn broker(id: u64, state: BrokerState) -> BrokerRecord {
        BrokerRecord {
            id: BrokerId::new(id),
            addr: addr(id),
            incarnation: Incarnation::new(Uuid::nil()),
            state,
            lease_until: StoreTime::NEVER,
            lease: std::time::Duration::ZERO,
            queues: 0,
        }
    }

    fn queue(id: u64, assignee: Option<u64>) -> QueueRecord {
        QueueRecord {
            id: QueueId::new(id),
            label: QueueLabel::parse(&format!("q{id}")).unwrap(),
            assignee: assignee.map(|id| (BrokerId::new(id), addr(id))),
            assignment: Assignment::new(10 + id),
        }
    }

    fn alive(ids: &[u64]) -> BTreeSet<BrokerId> {
        ids.iter().copied().map(BrokerId::new).collect()
    }

    fn summary(plan: &Plan) -> Vec<(u64, Why, u64)> {
        plan.moves.iter().map(|planned| (planned.queue.get(), planned.why, planned.to.0.get())).collect()
    }

    use BrokerState::{Draining, Stopped, Up};

    #[test]
    fn what_is_well_stays() {
        let brokers = [broker(1, Up), broker(2, Up)];
        // An uneven load is not urgent: see `rebalance`.
        let queues = [queue(1, Some(1)), queue(2, Some(1)), queue(3, Some(1))];
        assert_eq!(plan(&queues, &brokers, &alive(&[1, 2])), Plan::default());
    }

    #[test]
    fn the_queues_of_a_dead_broker_are_spread() {
        let brokers = [broker(1, Up), broker(2, Up), broker(3, Up)];
        let queues = [queue(1, Some(1)), queue(2, Some(1)), queue(3, Some(1)), queue(4, Some(2))];
        let plan = plan(&queues, &brokers, &alive(&[2, 3]));
        assert_eq!(summary(&plan), [(1, Why::Dead, 3), (2, Why::Dead, 2), (3, Why::Dead, 3)]);
        assert_eq!(plan.moves[0].expected, Assignment::new(11));
        assert_eq!(plan.moves[0].from, Some(addr(1)));
    }

    #[test]
    fn a_queue_without_broker_gets_one() {
        let queues = [queue(1, None)];
        assert_eq!(summary(&plan(&queues, &[broker(1, Up)], &alive(&[1]))), [(1, Why::Unassigned, 1)]);
    }

    #[test]
    fn a_draining_broker_is_relieved_last_and_given_nothing() {
        let brokers = [broker(1, Draining), broker(2, Up), broker(3, Stopped), broker(4, Up)];
        let queues = [queue(1, Some(1)), queue(2, Some(3)), queue(3, Some(4)), queue(4, None)];
        let plan = plan(&queues, &brokers, &alive(&[1, 2]));
        let expected = [(3, Why::Dead, 2), (2, Why::Stopped, 2), (4, Why::Unassigned, 2), (1, Why::Draining, 2)];
        assert_eq!(summary(&plan), expected);
    }

    #[test]
    fn a_draining_broker_that_died_is_dead() {
        let brokers = [broker(1, Draining), broker(2, Up)];
        assert_eq!(summary(&plan(&[queue(1, Some(1))], &brokers, &alive(&[2]))), [(1, Why::Dead, 2)]);
    }

    #[test]
    fn without_a_live_broker_nothing_moves() {
        let brokers = [broker(1, Up), broker(2, Up)];
        let queues = [queue(1, Some(1)), queue(2, None)];
        assert_eq!(plan(&queues, &brokers, &alive(&[])), Plan { moves: Vec::new(), starved: true, stranded: 2 });
        // A stopped broker gets nothing, even if something answers at its address, and a draining one keeps its queues.
        let brokers = [broker(1, Stopped), broker(2, Draining)];
        let queues = [queue(1, Some(1)), queue(2, Some(2))];
        assert_eq!(plan(&queues, &brokers, &alive(&[1, 2])), Plan { moves: Vec::new(), starved: true, stranded: 1 });
    }
}
