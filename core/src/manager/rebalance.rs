//! Rebalancing: after a restart, or when a broker comes back or is added, some brokers have many queues and others few. The
//! leader spreads the queues again, a few per cycle, while the cluster is otherwise settled.
//!
//! A move is an assignment like any other: a short pause for the queue. So moves are kept few. Queues move only after the
//! brokers have been the same for a while, and not for a small difference; the next step waits until the queues of the last
//! one are served; and each queue moves only once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{
    Inner, ManagerError,
    reconcile::{Move, Why, plan, postponed_last},
    registry::Registry,
};
use crate::{
    model::{BrokerAddr, BrokerId, Incarnation, QueueId, QueueLabel, limits::MAX_ASSIGNED_QUEUES},
    ports::{BrokerControl, BrokerState, QueueRecord, StoreError},
};

/// Limit on the queues that one call of [`Manager::rebalance`](super::Manager::rebalance) moves; the caller can repeat it.
const MOVES_PER_CALL: usize = 16;

/// The result of a call to rebalance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalanced {
    /// The queues that were assigned to other brokers.
    pub moved: Vec<MovedQueue>,
    /// Number of moves left until the brokers are level. If it is not 0, call again.
    pub left: usize,
}

/// A queue that was assigned to another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedQueue {
    /// Its label.
    pub label: QueueLabel,
    /// Its broker before the move.
    pub from: BrokerAddr,
    /// The broker that it was assigned to.
    pub to: BrokerAddr,
    /// True if the new broker reported that it serves the queue. If not, it had no time to, or cannot; it may still do so.
    pub served: bool,
}

/// The brokers that take queues, each with its present run. While this set stays the same, the cluster is settled.
type Lives = BTreeSet<(BrokerId, Incarnation)>;

/// The lives of the brokers that answered and take queues. `None` while a broker that should be alive does not answer.
fn lives(registry: &Registry, alive: &BTreeSet<BrokerId>) -> Option<Lives> {
    let expected = registry.brokers.iter().filter(|broker| registry.lease_current(broker));
    if expected.map(|broker| broker.id).any(|id| !alive.contains(&id)) {
        return None;
    }
    let up = registry.brokers.iter().filter(|broker| broker.state == BrokerState::Up && alive.contains(&broker.id));
    Some(up.map(|broker| (broker.id, broker.incarnation)).collect())
}

/// Number of queues of each of the brokers.
fn counts(queues: &[QueueRecord], hosts: impl IntoIterator<Item = BrokerId>) -> BTreeMap<BrokerId, u64> {
    let mut counts: BTreeMap<_, _> = hosts.into_iter().map(|id| (id, 0)).collect();
    for (id, _) in queues.iter().filter_map(|queue| queue.assignee.as_ref()) {
        if let Some(count) = counts.get_mut(id) {
            *count += 1;
        }
    }
    counts
}

/// The difference between the fullest and the emptiest broker, and the difference that is tolerated without a move:
/// `tolerated`, or a tenth of the average if that is more.
fn difference(counts: &BTreeMap<BrokerId, u64>, tolerated: u64) -> (u64, u64) {
    let (Some(most), Some(fewest)) = (counts.values().max(), counts.values().min()) else { return (0, tolerated) };
    let average = counts.values().sum::<u64>() / counts.len() as u64;
    (most - fewest, tolerated.max(average / 10))
}

/// The fewest moves after which the numbers of queues of the `hosts` differ by one at most. Queues on other brokers stay,
/// and so do `settled` queues. Each move takes from the fullest and gives to the emptiest, so any number of moves from the
/// beginning brings the brokers nearer to each other. The newest queues of a broker move first.
pub(super) fn level(
    queues: &[QueueRecord],
    hosts: &BTreeMap<BrokerId, BrokerAddr>,
    settled: &BTreeSet<QueueId>,
) -> Vec<Move> {
    let mut movable: BTreeMap<BrokerId, Vec<&QueueRecord>> = BTreeMap::new();
    for queue in queues.iter().filter(|queue| !settled.contains(&queue.id)) {
        if let Some((id, _)) = queue.assignee.as_ref().filter(|(id, _)| hosts.contains_key(id)) {
            movable.entry(*id).or_default().push(queue);
        }
    }
    for queues in movable.values_mut() {
        queues.sort_by_key(|queue| queue.id);
    }
    // (number of queues, broker): the fullest is the last, and the emptiest the first.
    let counts = counts(queues, hosts.keys().copied());
    let mut order: BTreeSet<(u64, BrokerId)> = counts.into_iter().map(|(id, count)| (count, id)).collect();
    let mut moves = Vec::new();
    while let Some(&(fewest, to)) = order.first() {
        // A broker that only has queues which were moved just now cannot give any.
        let fullest = order.iter().rev().find(|(_, id)| movable.get(id).is_some_and(|queues| !queues.is_empty()));
        let Some(&(most, from)) = fullest.filter(|(most, _)| *most > fewest + 1) else { break };
        let Some(queue) = movable.get_mut(&from).and_then(Vec::pop) else { break };
        order.remove(&(fewest, to));
        order.remove(&(most, from));
        order.insert((fewest + 1, to));
        order.insert((most - 1, from));
        moves.push(Move {
            queue: queue.id,
            label: queue.label.clone(),
            expected: queue.assignment,
            from: Some(hosts[&from].clone()),
            to: (to, hosts[&to].clone()),
            why: Why::Uneven,
        });
    }
    moves
}

/// The addresses of these brokers.
fn hosts(registry: &Registry, lives: &Lives) -> BTreeMap<BrokerId, BrokerAddr> {
    let host = |id: &BrokerId| Some((*id, registry.get(*id)?.addr.clone()));
    lives.iter().filter_map(|(id, _)| host(id)).collect()
}

/// The state that the loop keeps from cycle to cycle.
#[derive(Default)]
pub(super) struct Rebalancer {
    /// The present brokers, and the time since when they have been the same. `None` means that the cluster is not settled.
    calm: Option<(Instant, Lives)>,
    /// Queues that were moved since levelling began. `None` means that it has not begun. Levelling ends when the brokers are
    /// level, and when a broker goes or comes.
    moved: Option<BTreeSet<QueueId>>,
    /// The last step, of levelling or of a drain. It lasts until the brokers serve their new queues; true if they serve all
    /// of them.
    step: JoinSet<bool>,
    /// The end of a pause of drains, made because a queue of the last step is not served.
    drain_paused: Option<Instant>,
}

impl Rebalancer {
    /// The cluster is not settled: nothing moves until the brokers have been the same for a while.
    pub(super) fn disturb(&mut self) {
        self.calm = None;
        self.moved = None;
    }

    /// Notes the present brokers. True if they have been the same for this long.
    fn is_calm(&mut self, lives: &Lives, long: Duration) -> bool {
        match &self.calm {
            Some((since, same)) if same == lives => since.elapsed() >= long,
            _ => {
                self.disturb();
                self.calm = Some((Instant::now(), lives.clone()));
                long.is_zero()
            }
        }
    }

    /// The result of the last step, or `None` while it is under way.
    fn last_step(&mut self) -> Option<bool> {
        if self.step.is_empty() {
            return Some(true);
        }
        // A task that panicked has served nothing.
        self.step.try_join_next().map(|served| served.unwrap_or(false))
    }
}

impl Inner {
    /// One step towards level, at the end of a cycle that had nothing else to move.
    pub(super) async fn rebalance_step(
        &self,
        rebalancer: &mut Rebalancer,
        registry: &Registry,
        alive: &BTreeSet<BrokerId>,
        queues: &[QueueRecord],
    ) -> Result<(), StoreError> {
        let Some(lives) = lives(registry, alive).filter(|_| self.settings.rebalance) else {
            rebalancer.disturb();
            return Ok(());
        };
        if !rebalancer.is_calm(&lives, self.settings.rebalance_after) {
            return Ok(());
        }
        match rebalancer.last_step() {
            None => return Ok(()),
            Some(true) => {}
            Some(false) => {
                warn!("a queue that was moved to level the brokers is not served yet; no more are moved for a while");
                rebalancer.disturb();
                return Ok(());
            }
        }
        let hosts = hosts(registry, &lives);
        let (difference, tolerated) =
            difference(&counts(queues, hosts.keys().copied()), self.settings.rebalance_tolerance);
        if rebalancer.moved.is_none() && difference <= tolerated {
            return Ok(());
        }
        let settled = rebalancer.moved.get_or_insert_default();
        let mut moves = level(queues, &hosts, settled);
        if moves.is_empty() {
            info!(queues = settled.len(), "the brokers are level again");
            rebalancer.moved = None;
            return Ok(());
        }
        if settled.is_empty() {
            info!(queues = moves.len(), difference, "levelling the brokers: moving queues, a few at a time");
        }
        moves.truncate(self.settings.rebalance_moves_per_cycle.clamp(1, MAX_ASSIGNED_QUEUES));
        settled.extend(moves.iter().map(|planned| planned.queue));
        self.step(rebalancer, moves, &mut BTreeSet::new()).await
    }

    /// One step of moving queues away from drained brokers. These still serve them, so there is no hurry, and few queues
    /// pause at once.
    pub(super) async fn drain_step(
        &self,
        rebalancer: &mut Rebalancer,
        moves: Vec<Move>,
        postponed: &mut BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        if moves.is_empty() {
            return Ok(());
        }
        match rebalancer.last_step() {
            None => {
                mark!(DrainWaits);
                return Ok(());
            }
            Some(true) => {}
            Some(false) => {
                let pause = self.settings.rebalance_after;
                warn!(left = moves.len(), ?pause, "a queue that was moved is not served yet; the drain pauses");
                rebalancer.drain_paused = Some(Instant::now() + pause);
            }
        }
        if rebalancer.drain_paused.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let mut moves = postponed_last(moves, postponed);
        moves.truncate(self.settings.drain_moves_per_cycle.clamp(1, MAX_ASSIGNED_QUEUES));
        self.step(rebalancer, moves, postponed).await
    }

    /// Assigns queues whose brokers serve them, and makes the new brokers serve them; the next step waits for that.
    async fn step(
        &self,
        rebalancer: &mut Rebalancer,
        moves: Vec<Move>,
        postponed: &mut BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        let assigned = self.assign_and_tell(moves, postponed).await?;
        let (control, limit) = (Arc::clone(&self.control), self.settings.nudge_deadline);
        rebalancer.step.spawn(async move { serve(&*control, &assigned, limit).await.into_iter().all(|served| served) });
        Ok(())
    }

    /// Assigns queues as planned, and tells the brokers that have them; returns the moves that were made.
    async fn assign_and_tell(
        &self,
        moves: Vec<Move>,
        postponed: &mut BTreeSet<QueueId>,
    ) -> Result<Vec<Move>, StoreError> {
        let mut relieved = BTreeSet::new();
        let assigned = self.assign(moves, postponed, &mut relieved).await?;
        for addr in relieved {
            self.nudges.refresh(addr);
        }
        Ok(assigned)
    }

    /// Moves up to [`MOVES_PER_CALL`] queues now, whether or not this manager leads.
    pub(super) async fn rebalance(&self, by: Instant) -> Result<Rebalanced, ManagerError> {
        let registry = Registry::read(&self.store, by).await?;
        let alive = self.probe_round(&registry).await;
        let queues = self.all_queues().await?;
        let lives = lives(&registry, &alive).ok_or(ManagerError::Unsettled("a broker does not answer"))?;
        let urgent = plan(&queues, &registry.brokers, &alive);
        if urgent.starved {
            return Err(ManagerError::NoBroker);
        }
        if !urgent.moves.is_empty() {
            return Err(ManagerError::Unsettled("queues are on their way to other brokers"));
        }
        let mut moves = level(&queues, &hosts(&registry, &lives), &BTreeSet::new());
        let left = moves.len().saturating_sub(MOVES_PER_CALL);
        moves.truncate(MOVES_PER_CALL);
        let assigned = self.assign_and_tell(moves, &mut BTreeSet::new()).await?;
        let limit = self.settings.nudge_deadline.min(by.saturating_duration_since(Instant::now()));
        let served = serve(&*self.control, &assigned, limit).await;
        let moved = assigned.into_iter().zip(served).filter_map(|(planned, served)| {
            Some(MovedQueue { label: planned.label, from: planned.from?, to: planned.to.1, served })
        });
        Ok(Rebalanced { moved: moved.collect(), left })
    }
}

/// Makes the new broker of each queue serve it; returns for each queue whether it does.
async fn serve(control: &dyn BrokerControl, assigned: &[Move], limit: Duration) -> Vec<bool> {
    let serve = |planned: &Move| {
        let (label, addr) = (planned.label.clone(), planned.to.1.clone());
        async move { matches!(timeout(limit, control.rebuild(&addr, &label, limit)).await, Ok(Ok(()))) }
    };
    stream::iter(assigned.iter().map(serve)).buffered(MOVES_PER_CALL).collect().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Assignment;

    fn addr(id: BrokerId) -> BrokerAddr {
        BrokerAddr { host: format!("b{id}"), port: 1 }
    }

    fn hosts(n: u64) -> BTreeMap<BrokerId, BrokerAddr> {
        (1..=n).map(BrokerId::new).map(|id| (id, addr(id))).collect()
    }

    /// Queues 1, 2, 3 …, with the given number for each broker.
    fn queues(counts: &[u64]) -> Vec<QueueRecord> {
        let of = (1..).zip(counts).flat_map(|(broker, &count)| (0..count).map(move |_| BrokerId::new(broker)));
        let record = |(id, broker): (u64, BrokerId)| QueueRecord {
            id: QueueId::new(id),
            label: QueueLabel::parse(&format!("q{id}")).unwrap(),
            assignee: Some((broker, addr(broker))),
            assignment: Assignment::new(1),
        };
        (1..).zip(of).map(record).collect()
    }

    fn carry_out(queues: &mut [QueueRecord], moves: &[Move]) {
        for planned in moves {
            let queue = queues.iter_mut().find(|queue| queue.id == planned.queue).unwrap();
            assert_eq!(
                (queue.assignment, queue.assignee.as_ref().map(|(_, addr)| addr)),
                (Assignment::new(1), planned.from.as_ref())
            );
            queue.assignee = Some(planned.to.clone());
            queue.assignment = queue.assignment.next();
        }
    }

    fn spread(queues: &[QueueRecord], hosts: &BTreeMap<BrokerId, BrokerAddr>) -> Vec<u64> {
        counts(queues, hosts.keys().copied()).into_values().collect()
    }

    /// The least number of queues that have to move: for each broker those beyond its share, the fullest brokers having the
    /// larger shares.
    fn fewest_moves(counts: &[u64]) -> u64 {
        let (total, brokers) = (counts.iter().sum::<u64>(), counts.len() as u64);
        let mut counts = counts.to_vec();
        counts.sort_by(|a, b| b.cmp(a));
        let share = |place: u64| total / brokers + u64::from(place < total % brokers);
        (0..).zip(counts).map(|(place, count)| count.saturating_sub(share(place))).sum()
    }

    #[test]
    fn the_newest_queues_of_the_fullest_go_to_the_emptiest() {
        let queues = queues(&[5, 2, 0]);
        let moves = level(&queues, &hosts(3), &BTreeSet::new());
        let moves: Vec<_> = moves.iter().map(|planned| (planned.queue.get(), planned.to.0.get())).collect();
        assert_eq!(moves, [(5, 3), (4, 3)]);
    }

    #[test]
    fn what_is_elsewhere_stays() {
        // Broker 3 is draining or dead.
        let queues = queues(&[4, 0, 9]);
        let moves = level(&queues, &hosts(2), &BTreeSet::new());
        assert_eq!(moves.len(), 2);
        assert!(moves.iter().all(|planned| planned.to.0 == BrokerId::new(2) && planned.queue.get() <= 4));
    }

    #[test]
    fn small_differences_are_tolerated() {
        let differs = |most, fewest| difference(&counts(&queues(&[most, fewest]), hosts(2).into_keys()), 2);
        assert_eq!(differs(3, 1), (2, 2));
        assert_eq!(differs(100, 80), (20, 9));
        assert_eq!(difference(&BTreeMap::new(), 2), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn calm_begins_anew_with_each_change() {
        let long = Duration::from_secs(30);
        let life = |run| Lives::from([(BrokerId::new(1), Incarnation::new(uuid::Uuid::from_u128(run)))]);
        let mut rebalancer = Rebalancer::default();
        assert!(!rebalancer.is_calm(&life(1), long));
        tokio::time::sleep(long).await;
        assert!(rebalancer.is_calm(&life(1), long));
        rebalancer.moved = Some(BTreeSet::new());
        // The same broker in another run.
        assert!(!rebalancer.is_calm(&life(2), long));
        assert_eq!(rebalancer.moved, None);
        tokio::time::sleep(long / 2).await;
        rebalancer.disturb();
        tokio::time::sleep(long / 2).await;
        assert!(!rebalancer.is_calm(&life(2), long));
    }

    proptest! {
        #[test]
        fn it_is_level_after_the_fewest_moves(before in prop::collection::vec(0_u64..40, 1..8), step in 1_usize..5) {
            let hosts = hosts(before.len() as u64);
            let mut queues = queues(&before);
            let all = level(&queues, &hosts, &BTreeSet::new());
            prop_assert_eq!(all.len() as u64, fewest_moves(&before));
            prop_assert_eq!(&all, &level(&queues, &hosts, &BTreeSet::new()));
            // Moving a few at a time, each queue once, gives the same result.
            let mut moved = BTreeSet::new();
            let mut steps = Vec::new();
            loop {
                let mut moves = level(&queues, &hosts, &moved);
                moves.truncate(step);
                if moves.is_empty() {
                    break;
                }
                let gap = |queues: &[QueueRecord]| difference(&counts(queues, hosts.keys().copied()), 0).0;
                let wide = gap(&queues);
                carry_out(&mut queues, &moves);
                prop_assert!(gap(&queues) <= wide);
                for planned in moves {
                    prop_assert!(moved.insert(planned.queue), "{} was moved twice", planned.queue);
                    steps.push((planned.queue, planned.to.0));
                }
            }
            let all: Vec<_> = all.into_iter().map(|planned| (planned.queue, planned.to.0)).collect();
            prop_assert_eq!(steps, all);
            let after = spread(&queues, &hosts);
            prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{:?}", after);
        }
    }
}
