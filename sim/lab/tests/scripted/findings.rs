//! Findings of Jepsen and others in other brokers.

use std::time::Duration;

use rmom_core::marks::Mark;
use rmom_sim::{DatabaseFault, history::Event};
use rmom_sim_lab::scenario::{Action, Host, ProducerKind};

use crate::support::{
    acknowledged, acknowledged_as_duplicate, brokers, claimed_again, is_append_of, managers, play, producers, scenario,
    stored, subscribed_again,
};

/// All hosts lose their power in the instant of an acknowledgement. Acknowledged messages are on the disk.
#[test]
fn acknowledged_before_fsync_and_lost() {
    play(&scenario(), &[Mark::ActivatedWithMessages], |hand| {
        for _ in 0..3 {
            hand.wait_for("an acknowledgement", acknowledged)?;
            let all = [vec![Host::Database], brokers(), managers()].concat();
            let dark = all.into_iter().map(|host| hand.begin(Action::PowerLoss(host))).collect::<Vec<_>>();
            hand.run_for(Duration::from_millis(500))?;
            dark.into_iter().for_each(|step| hand.end(step));
        }
        Ok(())
    });
}

/// An owner crashes in the instant of a commit, before it acknowledges. The retry reaches another owner, which recognizes
/// the duplicate.
#[test]
fn a_lost_acknowledgement_and_its_retry_are_stored_once() {
    play(&scenario(), &[Mark::DuplicateStored, Mark::HeadersRead], |hand| {
        hand.wait_for("a commit", stored)?;
        hand.begin(Action::Crash(hand.owner(1)));
        hand.wait_for("another owner", claimed_again)?;
        hand.wait_for("the retry", acknowledged_as_duplicate)?;
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
    play(&scenario, &[Mark::AppendUnknown, Mark::RecoveredStored, Mark::RecoveredAbsent], |hand| {
        for fault in [DatabaseFault::LoseReplies, DatabaseFault::AbortWrites] {
            let unsure = hand.begin(Action::Database(fault));
            hand.run_for(Duration::from_millis(300))?;
            hand.end(unsure);
            hand.wait_for("an acknowledgement", acknowledged)?;
        }
        Ok(())
    });
}

/// All messages of a queue have expired and been removed when its owner crashes. Offsets continue from the old end.
#[test]
fn offsets_that_go_back_or_restart_at_zero() {
    let mut scenario = scenario();
    scenario.topology.message_ttl_millis = Some(1_000);
    play(&scenario, &[Mark::TrimmedToEmpty, Mark::ActivatedWhenTrimmedEmpty], |hand| {
        hand.run_for(Duration::from_millis(500))?;
        let silent = hand.begin(Action::Cut { between: producers(), and: brokers() });
        hand.run_for(Duration::from_secs(4))?;
        hand.begin(Action::Crash(hand.owner(1)));
        hand.wait_for("another owner", claimed_again)?;
        hand.end(silent);
        hand.wait_for("a new message", stored)?;
        Ok(())
    });
}

/// All links are cut for longer than any lease. After they are repaired, the cluster works, and when an owner crashes then,
/// a manager leads and finds another owner.
#[test]
fn no_progress_after_heal() {
    play(&scenario(), &[Mark::LeaseRanOutPushing, Mark::LeadUnreachable], |hand| {
        let all = [vec![Host::Database], brokers(), managers()].concat();
        let cuts = (1..all.len()).map(|nth| Action::Cut { between: vec![all[nth]], and: all[..nth].to_vec() });
        let cuts = cuts.map(|cut| hand.begin(cut)).collect::<Vec<_>>();
        hand.run_for(Duration::from_secs(8))?;
        cuts.into_iter().for_each(|cut| hand.end(cut));
        hand.wait_for("an acknowledgement", acknowledged)?;
        hand.begin(Action::Crash(hand.owner(1)));
        hand.wait_for("another owner", claimed_again)?;
        Ok(())
    });
}

/// All brokers but one, and a manager, are lost for good. The others do without them; the last of a kind is spared.
#[test]
fn hosts_that_never_come_back() {
    play(&scenario(), &[Mark::MovedFromDead], |hand| {
        let owner = hand.owner(1);
        hand.begin(Action::Lose(owner));
        for host in [brokers(), managers()].concat() {
            hand.begin(Action::Lose(host));
        }
        hand.wait_for("another owner", claimed_again)?;
        hand.wait_for("an acknowledgement", acknowledged)?;
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
    play(&scenario, &[Mark::LeaseRanOutPushing], |hand| {
        let paused = hand.owner(1);
        hand.wait_for("that no append is on its way", acknowledged)?;
        let under_way = hand.begin(Action::Hold { between: vec![paused], and: vec![Host::Database] });
        hand.wait_for("a push", |event| matches!(event, Event::PushSent { .. }))?;
        hand.run_for(Duration::from_millis(100))?;
        let frozen = hand.begin(Action::Freeze(paused));
        // No producer pushes, so that no other message takes the offset of the append: only the fence can stop it.
        let silent = hand.begin(Action::Cut { between: producers(), and: brokers() });
        hand.wait_for("another owner", claimed_again)?;
        hand.run_for(Duration::from_secs(2))?;
        hand.end(frozen);
        hand.end(under_way);
        hand.wait_for("the append", |event| is_append_of(paused, event))?;
        hand.end(silent);
        hand.run_for(Duration::from_secs(2))
    });
}

/// The managers restart, including the leader. Consumers are served meanwhile; and when their broker crashes after that, the
/// new leader finds them another one.
#[test]
fn a_consumer_that_stalls_after_the_leader_restarts() {
    let delivered = |event: &Event| matches!(event, Event::Delivered { .. });
    play(&scenario(), &[Mark::LeadTakenOver, Mark::MovedFromDead], |hand| {
        let down = managers().into_iter().map(|manager| hand.begin(Action::Crash(manager))).collect::<Vec<_>>();
        hand.wait_for("a delivery without managers", delivered)?;
        down.into_iter().for_each(|step| hand.end(step));
        hand.run_for(Duration::from_secs(3))?;
        hand.wait_for("a delivery under the new leader", delivered)?;
        hand.begin(Action::Crash(hand.owner(1)));
        hand.wait_for("another owner", claimed_again)?;
        hand.wait_for("a subscription to it", subscribed_again)?;
        hand.wait_for("a delivery by it", delivered)?;
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
    play(&scenario, &[Mark::NamedProducerWentOn], |hand| {
        for _ in 0..3 {
            let commit = hand.wait_for("a commit", stored)?;
            let dead = hand.begin(Action::Crash(Host::Producer(1)));
            hand.run_for(Duration::from_millis(200))?;
            hand.end(dead);
            let next = hand.wait_for("its next push", |event| matches!(event, Event::PushSent { .. }))?;
            if let (Event::Stored { messages, .. }, Event::PushSent { sequence, .. }) = (commit.event, next.event) {
                assert!(messages.iter().all(|message| message.sequence < sequence), "it begins again at {sequence}");
            }
            hand.wait_for("an acknowledgement", acknowledged)?;
        }
        Ok(())
    });
}

/// Brokers and managers lose their links to the database. A broker and a manager report that they are not healthy;
/// afterwards all report that they are (that is part of convergence).
#[test]
fn health_green_while_broken() {
    let unwell = |event: &Event, whose: &str| matches!(event, Event::Health { of, healthy: false, expected: Some(false) } if of.starts_with(whose));
    play(&scenario(), &[Mark::HeartbeatRefused], |hand| {
        let all = [brokers(), managers()].concat();
        hand.begin(Action::Cut { between: vec![Host::Database], and: all });
        hand.wait_for("a broker that says so", |event| unwell(event, "broker"))?;
        hand.wait_for("a manager that says so", |event| unwell(event, "manager"))?;
        Ok(())
    });
}
