//! Stored batches: a broker that takes over a queue does not read the queue's messages.

use std::time::Duration;

use rmom_client::Start;

use crate::{
    count, fill, row, seconds, size,
    system::{System, failover_bound},
};

/// The number in the smaller queue, for comparison.
const FEW: u64 = 1_000;
/// Tolerance in pages touched by a start.
const SOME: i64 = 200;

#[test]
fn a_queue_is_served_as_soon_however_many_batches_it_holds() {
    let many = size(20_000, 20_000_000);
    let bound = failover_bound(2, Duration::from_millis(10));
    let mut system = System::start(|_| ());
    let mut pages = Vec::new();
    let queues = [("few", FEW), ("many", many)].map(|(label, batches)| {
        let queue = system.create_queue(label);
        let mut session = system.session();
        system.runtime.block_on(fill::batches(&mut session, queue, batches, 1));
        pages.push(system.pages_touched("batch", |system| system.push(label)));
        (label, queue, batches)
    });
    // The second start activates both queues, and touches at most twice as many pages.
    assert!(pages[1] < 2 * pages[0] + SOME, "{pages:?} pages were touched until few and then many batches were served");
    let times = queues.map(|(label, queue, batches)| {
        let channel = system.runtime.block_on(system.client.admin().create_channel(label, None, Start::Earliest));
        let channel = channel.unwrap().id;
        let took = system.failover(label);
        let (_, end) = system.served(label);
        assert_eq!(end, batches + 2, "{label}: both pushes are behind all that was stored");
        for offset in [1, batches / 2, batches] {
            let message = system.deliver(channel, queue, offset);
            assert_eq!(message.content, fill::content(offset));
        }
        assert_eq!(system.deliver(channel, queue, batches + 2).content, "pushed");
        assert!(took < bound, "{label}: {took:?} until it was served, the bound is {bound:?}");
        took
    });
    let [few, many_took] = times;
    println!("pages touched from start to push: {pages:?}");
    let beside = format!("{} with {} batches", seconds(few), count(FEW));
    row("stored batches: push after SIGKILL", count(many), seconds(many_took), seconds(bound), beside);
}
