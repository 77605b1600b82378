//! The mistakes of the system that rmom re-implements.

use std::time::Duration;

use rmom_core::marks::Mark;
use rmom_sim::history::Event;
use rmom_sim_lab::scenario::{Action, Host};

use crate::support::{
    acknowledged_as_duplicate, brokers, claimed_again, is_append_of, managers, producers, run, scenario, stored,
    subscribed_again,
};

/// A broker that the managers consider dead is alive, and its clients still push to it. It must not accept anything.
#[test]
fn a_replaced_broker_that_goes_on_accepting_pushes() {
    run(&scenario(), &[Mark::AppendFenced], |driver| {
        let replaced = driver.owner(1);
        driver.begin(Action::Cut { between: managers(), and: vec![replaced] });
        driver.wait_for("another owner", claimed_again)?;
        driver.wait_for("a push to the replaced one", |event| is_append_of(replaced, event))?;
        Ok(())
    });
}

/// A push whose acknowledgement is lost is retried. It is stored once, under one id.
#[test]
fn a_retried_push_is_one_message() {
    run(&scenario(), &[Mark::DuplicateStored], |driver| {
        let owner = driver.owner(1);
        let lost = driver.begin(Action::CutOneway { from: vec![owner], to: producers() });
        driver.wait_for("a push that is stored and not acknowledged", stored)?;
        driver.run_for(Duration::from_secs(5))?;
        driver.end(lost);
        driver.wait_for("its retry", acknowledged_as_duplicate)?;
        Ok(())
    });
}

/// All managers crash in the instant in which a queue is assigned, before they notify the broker. The new owner finds out by
/// itself, and so does the next one when that owner crashes in the instant of its claim.
#[test]
fn a_manager_that_dies_between_rebuild_and_ownership_leaves_no_queue_stuck() {
    run(&scenario(), &[Mark::NewsByPolling], |driver| {
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("the decision", |event| matches!(event, Event::Assigned { .. }))?;
        let dead = managers().into_iter().map(|manager| driver.begin(Action::Crash(manager))).collect::<Vec<_>>();
        driver.wait_for("an owner that found out by itself", claimed_again)?;
        driver.begin(Action::Crash(driver.owner(1)));
        dead.into_iter().for_each(|step| driver.end(step));
        driver.wait_for("the next owner", claimed_again)?;
        Ok(())
    });
}

/// After a failover the same channels exist, with their ids and topics, and are served.
#[test]
fn channels_survive_a_failover() {
    run(&scenario(), &[Mark::MovedFromDead, Mark::StartedAfterPosition], |driver| {
        driver.begin(Action::Crash(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        driver.wait_for("a subscription to the new owner", subscribed_again)?;
        driver.wait_for("a manager's word on a channel", |event| matches!(event, Event::ChannelSeen { .. }))?;
        Ok(())
    });
}

/// Producers push much more than the broker keeps in memory, while one subscriber takes nothing and another one is away.
#[test]
fn a_full_buffer_drops_nothing() {
    let mut scenario = scenario();
    scenario.topology.queue_buffer_messages = 4;
    scenario.workload.producers.iter_mut().for_each(|plan| plan.body_bytes = 8_000);
    run(&scenario, &[Mark::CacheOverflowed, Mark::FellBackToStore, Mark::CameBackToCache], |driver| {
        driver.begin(Action::StallConsumer(1));
        driver.begin(Action::LeaveConsumer(2));
        driver.run_for(Duration::from_secs(5))
    });
}

/// Brokers' clocks are hours away from the database's, which is set forward as well. Messages live as long as they should by
/// the database's clock, no later delivery starts, and then they leave the store.
#[test]
fn expiry_by_the_databases_clock_and_purged() {
    const HOUR: i64 = 3_600_000;
    let mut scenario = scenario();
    scenario.topology.message_ttl_millis = Some(3_000);
    scenario.topology.queue_buffer_messages = 1_000;
    run(&scenario, &[Mark::Trimmed, Mark::ExpiredInCache], |driver| {
        for (broker, hours) in brokers().into_iter().zip([-2, 2, 12]) {
            driver.begin(Action::ClockJump { host: broker, millis: hours * HOUR });
        }
        driver.run_for(Duration::from_secs(2))?;
        let away = driver.begin(Action::LeaveConsumer(1));
        driver.run_for(Duration::from_millis(500))?;
        driver.begin(Action::ClockJump { host: Host::Database, millis: HOUR });
        let gone = driver.wait_for("what has expired is gone", |event| matches!(event, Event::Trimmed { .. }))?;
        // Longer than a broker may take to learn the time. Its memory still holds messages that the store has removed.
        driver.run_for(Duration::from_secs(2))?;
        driver.end(away);
        let next = driver.wait_for("what lives", |event| matches!(event, Event::Delivered { .. }))?;
        if let (Event::Trimmed { through, .. }, Event::Delivered { offset, .. }) = (gone.event, next.event) {
            assert!(offset > through, "offset {offset} was delivered, and all up to {through} had expired");
        }
        Ok(())
    });
}

/// The old owner goes on storing after the queue is assigned to the next one, until that one's claim, which takes some time.
/// The new owner's subscribers receive all of it.
#[test]
fn what_is_pushed_during_a_rebuild_reaches_the_new_owners_subscribers() {
    let mut scenario = scenario();
    scenario.workload.producers.iter_mut().for_each(|plan| plan.pace_millis = 4);
    run(&scenario, &[Mark::ActivatedWithMessages], |driver| {
        let old = driver.owner(1);
        driver.begin(Action::Cut { between: managers(), and: vec![old] });
        driver.wait_for("the decision", |event| matches!(event, Event::Assigned { .. }))?;
        let (new, database) = (vec![driver.owner(1)], vec![Host::Database]);
        let slow = driver.begin(Action::Slow { between: new, and: database, latency_millis: 30 });
        driver.wait_for("more that the old owner stores", |event| is_append_of(old, event))?;
        driver.wait_for("the new owner", claimed_again)?;
        driver.end(slow);
        driver.wait_for("a subscription to it", subscribed_again)?;
        Ok(())
    });
}

/// A queue is deleted, and the channels of the others are not.
#[test]
fn deleting_a_queue_leaves_the_channels_of_others() {
    let mut scenario = scenario();
    scenario.workload.queues = 2;
    scenario.workload.consumers[2].queue = 2;
    run(&scenario, &[Mark::LetGoDeleted], |driver| {
        driver.begin(Action::RecreateQueue(2));
        driver.wait_for("the deletion", |event| matches!(event, Event::QueueTombstoned { .. }))?;
        driver.wait_for("a manager's word on a channel", |event| matches!(event, Event::ChannelSeen { .. }))?;
        Ok(())
    });
}

/// A frozen broker does not answer heartbeats at all. After a deadline it is dead.
#[test]
fn a_heartbeat_without_an_answer_is_death() {
    run(&scenario(), &[Mark::BrokerDead, Mark::BrokerBack], |driver| {
        driver.begin(Action::Freeze(driver.owner(1)));
        driver.wait_for("another owner", claimed_again)?;
        Ok(())
    });
}

/// A broker that cannot reach the database answers heartbeats with an error. It is dead as well.
#[test]
fn a_heartbeat_that_is_answered_with_an_error_is_death() {
    run(&scenario(), &[Mark::HeartbeatRefused, Mark::MovedFromDead], |driver| {
        driver.begin(Action::Cut { between: vec![driver.owner(1)], and: vec![Host::Database] });
        driver.wait_for("another owner", claimed_again)?;
        Ok(())
    });
}

/// The only broker restarts: it serves the same channels as before without being told.
#[test]
fn channels_are_there_after_a_broker_restarts() {
    let mut scenario = scenario();
    scenario.topology.brokers = 1;
    run(&scenario, &[Mark::StartedAfterPosition], |driver| {
        let crashed = driver.begin(Action::Crash(Host::Broker(1)));
        driver.run_for(Duration::from_millis(500))?;
        driver.end(crashed);
        driver.wait_for("a subscription to the restarted broker", subscribed_again)?;
        driver.wait_for("a manager's word on a channel", |event| matches!(event, Event::ChannelSeen { .. }))?;
        Ok(())
    });
}
