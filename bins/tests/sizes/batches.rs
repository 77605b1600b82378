//! Stored batches: a broker that takes a queue over does not read what the queue holds.

use std::time::Duration;

use rmom_client::Start;

use crate::{
    count, fill, row, seconds, size,
    system::{System, failover_bound},
};

/// What the larger queue is compared with.
const FEW: u64 = 1_000;

#[test]
fn a_queue_is_served_as_soon_however_many_batches_it_holds() {
    let many = size(20_000, 20_000_000);
    let bound = failover_bound(2, Duration::from_millis(10));
    let mut system = System::start(|_| ());
    let queues = [("few", FEW), ("many", many)].map(|(label, batches)| {
        let queue = system.create_queue(label);
        let mut session = system.session();
        system.runtime.block_on(fill::batches(&mut session, queue, batches));
        (label, queue, batches)
    });
    let times = queues.map(|(label, queue, batches)| {
        let channel = system.runtime.block_on(system.client.admin().create_channel(label, None, Start::Earliest));
        let channel = channel.unwrap().id;
        let took = system.failover(label);
        let (_, end) = system.served(label);
        assert_eq!(end, batches + 1, "{label}: the push is behind all that was stored");
        for offset in [1, batches / 2, batches] {
            let message = system.deliver(channel, queue, offset);
            assert_eq!(message.content, fill::content(offset));
        }
        assert_eq!(system.deliver(channel, queue, batches + 1).content, "pushed");
        assert!(took < bound, "{label}: {took:?} until it was served, the bound is {bound:?}");
        took
    });
    let [few, many_took] = times;
    let beside = format!("{} with {} batches", seconds(few), count(FEW));
    row("stored batches: push after SIGKILL", count(many), seconds(many_took), seconds(bound), beside);
}
