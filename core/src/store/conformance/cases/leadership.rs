//! The managers' leader lease.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::{ManagerId, StoreTime, Term},
    ports::Leadership,
    store::conformance::{
        Harness, START,
        support::{Bench, LEASE},
    },
};

async fn lead(bench: &Bench<'_>, manager: ManagerId) -> (ManagerId, Term) {
    let Leadership { leader, term, .. } = bench.store.lead(manager, LEASE).await.unwrap();
    (leader, term)
}

/// Who leads goes on leading while it renews; the others are told who does.
pub async fn a_leader_stays_while_it_renews(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (ManagerId::new(bench.uuid()), ManagerId::new(bench.uuid()));
    assert_eq!(
        bench.store.lead(a, LEASE).await.unwrap(),
        Leadership { leader: a, term: Term::new(1), store_time: START }
    );
    for millis in [0, 2_000, 4_000, 6_000, 8_999] {
        let now: StoreTime = bench.at(millis).await;
        assert_eq!(
            bench.store.lead(b, LEASE).await.unwrap(),
            Leadership { leader: a, term: Term::new(1), store_time: now }
        );
        if millis < 8_000 {
            assert_eq!(lead(&bench, a).await, (a, Term::new(1)));
        }
        bench.reopen().await;
    }
    // The last renewal was at 6,000.
    bench.at(9_000).await;
    assert_eq!(lead(&bench, b).await, (b, Term::new(2)));
    assert_eq!(lead(&bench, a).await, (b, Term::new(2)));
}

/// A lease that ran out can be extended by its holder, if nobody took it.
pub async fn a_leader_that_comes_back_first_goes_on(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (ManagerId::new(bench.uuid()), ManagerId::new(bench.uuid()));
    assert_eq!(lead(&bench, a).await, (a, Term::new(1)));
    bench.at(60_000).await;
    assert_eq!(lead(&bench, a).await, (a, Term::new(1)));
    bench.at(62_999).await;
    assert_eq!(lead(&bench, b).await, (a, Term::new(1)));
    bench.at(63_000).await;
    assert_eq!(lead(&bench, b).await, (b, Term::new(2)));
}

/// Who resigns is succeeded at once; who does not lead cannot resign.
pub async fn a_leader_that_resigns_is_succeeded_at_once(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (ManagerId::new(bench.uuid()), ManagerId::new(bench.uuid()));
    bench.store.resign(a).await.unwrap();
    let (_, first) = lead(&bench, a).await;
    bench.store.resign(b).await.unwrap();
    assert_eq!(lead(&bench, b).await, (a, first));
    bench.store.resign(a).await.unwrap();
    bench.store.resign(a).await.unwrap();
    let (leader, second) = lead(&bench, b).await;
    assert!(leader == b && second > first);
    bench.reopen().await;
    bench.store.resign(b).await.unwrap();
    let (leader, third) = lead(&bench, a).await;
    assert!(leader == a && third > second);
}

/// The clock was hours ahead and is set right: whether the leader resigned, died or lives, somebody leads at once.
pub async fn a_lease_does_not_outlast_a_clock_that_is_set_back(harness: &dyn Harness) {
    const AHEAD: u64 = 10 * 3_600_000;
    for fate in ["resigned", "dead", "alive"] {
        let mut bench = Bench::start(harness).await;
        let (a, b) = (ManagerId::new(bench.uuid()), ManagerId::new(bench.uuid()));
        bench.at(AHEAD).await;
        assert_eq!(lead(&bench, a).await, (a, Term::new(1)));
        if fate == "resigned" {
            bench.store.resign(a).await.unwrap();
        }
        bench.at(0).await;
        bench.reopen().await;
        if fate == "alive" {
            // Who comes first leads: here the leader renews, and its lease is one like any other.
            assert_eq!(lead(&bench, a).await, (a, Term::new(1)));
            assert_eq!(lead(&bench, b).await, (a, Term::new(1)));
            bench.at(2_999).await;
            assert_eq!(lead(&bench, b).await, (a, Term::new(1)));
            bench.at(3_000).await;
        }
        assert_eq!(lead(&bench, b).await, (b, Term::new(2)), "{fate}");
        assert_eq!(lead(&bench, a).await, (b, Term::new(2)), "{fate}");
        // A longer lease than the others' is one from the past all the same.
        let now = bench.at(3_100_000).await;
        let long = bench.store.lead(a, LEASE * 100).await.unwrap();
        assert_eq!(long, Leadership { leader: a, term: Term::new(3), store_time: now });
        assert_eq!(lead(&bench, b).await, (a, Term::new(3)));
    }
}

/// Of managers that reach for a free lease, one gets it, and all are told the same.
pub async fn rival_managers_agree_on_the_leader(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut last = Term::ZERO;
    for round in 1..=10 {
        let rivals: Vec<_> = (0..4)
            .map(|_| {
                let (store, manager) = (Arc::clone(&bench.store), ManagerId::new(bench.uuid()));
                tokio::spawn(async move { store.lead(manager, LEASE).await })
            })
            .collect();
        let mut told = BTreeSet::new();
        for rival in rivals {
            let Leadership { leader, term, .. } = rival.await.unwrap().unwrap();
            told.insert((leader, term));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        let (_, term) = told.pop_first().unwrap();
        assert_eq!(term, last.next());
        last = term;
        bench.at(round * 3_000).await;
    }
}
