//! Findings of Jepsen and others in other brokers.

use std::time::Duration;

use rmom_core::marks::Mark;
use rmom_sim::{DatabaseFault, history::Event};
use rmom_sim_lab::scenario::{Action, Host, ProducerKind};

use crate::support::{
    acknowledged, acknowledged_as_duplicate, brokers, claimed_again, is_append_of, managers, producers, run, scenario,
    stored, subscribed_again,
};

/// All hosts lose their power in the instant of an acknowledgement. Acknowledged messages are on the disk.
#[test]
fn acknowledged_before_fsync_and_lost() {
    run(&scenario(), &[Mark::ActivatedWithMessages], |driver| {
        for _ in 0..3 {
            driver.wait_for("an acknowledgement", acknowledged)?;
            let all = [vec![Host::Database], brokers(), managers()].concat();
            let dark = all.into_iter().map(|host| driver.begin(Action::PowerLoss(host))).collect::<Vec<_>>();
            driver.run_for(Duration::from_millis(500))?;
            dark.into_iter().for_each(|step| driver.end(step));
        }
        Ok(())
    });
}

/// An owner crashes in the instant of a commit, before it acknowledges. The retry reaches another owner, which recognizes
/// the duplicate.
#[test]
fn a_lost_acknowledgement_and_its_retry_are_stored_once() {
    run(&scenario(), &[Mark::DuplicateStored, Mark::HeadersRead], |driver| {
        driver.wait_for("a commit", stored)?;
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        driver.wait_for("the retry", acknowledged_as_duplicate)?;
        Ok(())
    });
}

/// The database loses the answers to commits, and then closes connections before commits. The owner does not guess which of
/// these happened: it claims the queue, reads the log, acknowledges messages that are there, and appends the others again.
#[test]
fn a_lost_answer_of_the_store_is_not_guessed() {
    let mut scenario = scenario();
    // A producer that relies on each answer: it pushes failed messages again, under another id, but not those that may be
    // stored.
    scenario.workload.producers[1].kind = ProducerKind::RawPlain;
    run(&scenario, &[Mark::AppendUnknown, Mark::RecoveredStored, Mark::RecoveredAbsent], |driver| {
        for fault in [DatabaseFault::LoseReplies, DatabaseFault::AbortWrites] {
            let unsure = driver.begin(Action::Database(fault));
            driver.run_for(Duration::from_millis(300))?;
            driver.end(unsure);
            driver.wait_for("an acknowledgement", acknowledged)?;
        }
        Ok(())
    });
}

/// All messages of a queue have expired and been removed when its owner crashes. Offsets continue from the old end.
#[test]
fn offsets_that_go_back_or_restart_at_zero() {
    let mut scenario = scenario();
    scenario.topology.message_ttl_millis = Some(1_000);
    run(&scenario, &[Mark::TrimmedToEmpty, Mark::ActivatedWhenTrimmedEmpty], |driver| {
        driver.run_for(Duration::from_millis(500))?;
        let silent = driver.begin(Action::Cut { between: producers(), and: brokers() });
        driver.run_for(Duration::from_secs(4))?;
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        driver.end(silent);
        driver.wait_for("a new message", stored)?;
        Ok(())
    });
}

/// All links are cut for longer than any lease. After they are repaired, the cluster works, and when an owner crashes then,
/// a manager leads and finds another owner.
#[test]
fn no_progress_after_heal() {
    run(&scenario(), &[Mark::LeaseRanOutPushing, Mark::LeadUnreachable], |driver| {
        let all = [vec![Host::Database], brokers(), managers()].concat();
        let cuts = (1..all.len()).map(|nth| Action::Cut { between: vec![all[nth]], and: all[..nth].to_vec() });
        let cuts = cuts.map(|cut| driver.begin(cut)).collect::<Vec<_>>();
        driver.run_for(Duration::from_secs(8))?;
        cuts.into_iter().for_each(|cut| driver.end(cut));
        driver.wait_for("an acknowledgement", acknowledged)?;
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        Ok(())
    });
}

/// All brokers but one, and a manager, are lost for good. The others do without them; the last of a kind is spared.
#[test]
fn hosts_that_never_come_back() {
    run(&scenario(), &[Mark::MovedFromDead], |driver| {
        let owner = driver.owner(1);
        driver.begin(Action::Lose(owner));
        for host in [brokers(), managers()].concat() {
            driver.begin(Action::Lose(host));
        }
        driver.wait_for("another owner", claimed_again)?;
        driver.wait_for("an acknowledgement", acknowledged)?;
        Ok(())
    });
}

/// A broker is frozen, with an append in transit, for longer than its lease. When it thaws, the append arrives after another
/// owner's claim, and is fenced.
#[test]
fn a_broker_that_pauses_past_its_lease_and_then_finishes_its_append() {
    let mut scenario = scenario();
    // Producers that wait for each acknowledgement before the next push.
    scenario.workload.producers.retain(|plan| plan.kind == ProducerKind::RawStamped);
    run(&scenario, &[Mark::LeaseRanOutPushing], |driver| {
        let paused = driver.owner(1);
        driver.wait_for("that no append is on its way", acknowledged)?;
        let under_way = driver.begin(Action::Hold { between: vec![paused], and: vec![Host::Database] });
        driver.wait_for("a push", |event| matches!(event, Event::PushSent { .. }))?;
        driver.run_for(Duration::from_millis(100))?;
        let frozen = driver.begin(Action::Freeze(paused));
        // No producer pushes, so that no other message takes the offset of the append: only the fence can stop it.
        let silent = driver.begin(Action::Cut { between: producers(), and: brokers() });
        driver.wait_for("another owner", claimed_again)?;
        driver.run_for(Duration::from_secs(2))?;
        driver.end(frozen);
        driver.end(under_way);
        driver.wait_for("the append", |event| is_append_of(paused, event))?;
        driver.end(silent);
        driver.run_for(Duration::from_secs(2))
    });
}

/// The managers restart, including the leader. Consumers are served meanwhile; and when their broker crashes after that, the
/// new leader finds them another one.
#[test]
fn a_consumer_that_stalls_after_the_leader_restarts() {
    let delivered = |event: &Event| matches!(event, Event::Delivered { .. });
    run(&scenario(), &[Mark::LeadTakenOver, Mark::MovedFromDead], |driver| {
        let down = managers().into_iter().map(|manager| driver.begin(Action::Crash(manager))).collect::<Vec<_>>();
        driver.wait_for("a delivery without managers", delivered)?;
        down.into_iter().for_each(|step| driver.end(step));
        driver.run_for(Duration::from_secs(3))?;
        driver.wait_for("a delivery under the new leader", delivered)?;
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        driver.wait_for("a subscription to it", subscribed_again)?;
        driver.wait_for("a delivery by it", delivered)?;
        Ok(())
    });
}

/// A named producer crashes in the instant in which some of its messages are stored, before it is told. After a
/// restart it learns the last stored sequence and continues after it: nothing is lost, and nothing arrives twice.
#[test]
fn unacknowledged_messages_orphaned() {
    let mut scenario = scenario();
    scenario.workload.producers.truncate(1);
    scenario.workload.producers[0].kind = ProducerKind::Named;
    run(&scenario, &[Mark::NamedProducerWentOn], |driver| {
        for _ in 0..3 {
            let commit = driver.wait_for("a commit", stored)?;
            let dead = driver.begin(Action::Crash(Host::Producer(1)));
            driver.run_for(Duration::from_millis(200))?;
            driver.end(dead);
            let next = driver.wait_for("its next push", |event| matches!(event, Event::PushSent { .. }))?;
            if let (Event::Stored { messages, .. }, Event::PushSent { sequence, .. }) = (commit.event, next.event) {
                assert!(messages.iter().all(|message| message.sequence < sequence), "it begins again at {sequence}");
            }
            driver.wait_for("an acknowledgement", acknowledged)?;
        }
        Ok(())
    });
}

/// Brokers and managers lose their links to the database. A broker and a manager report that they are not healthy;
/// afterwards all report that they are (that is part of convergence).
#[test]
fn health_green_while_broken() {
    let unwell = |event: &Event, whose: &str| matches!(event, Event::Health { of, healthy: false, expected: Some(false) } if of.starts_with(whose));
    run(&scenario(), &[Mark::HeartbeatRefused], |driver| {
        let all = [brokers(), managers()].concat();
        driver.begin(Action::Cut { between: vec![Host::Database], and: all });
        driver.wait_for("a broker that says so", |event| unwell(event, "broker"))?;
        driver.wait_for("a manager that says so", |event| unwell(event, "manager"))?;
        Ok(())
    });
}
