//! A store that comes back in an older state, for example after an operator restored a backup or mounted the wrong disk.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_client::{Client, Position, Start, Uuid};
use rmom_core::model::QueueLabel;
use rmom_sim::{history::Event, isolated};

use crate::support::{act, cluster, owner};

/// Pushes messages, one by one.
async fn push(client: Client, messages: u64) -> turmoil::Result {
    let producer = client.producer("orders").delivery_timeout(Duration::from_secs(10)).open().await?;
    for _ in 0..messages {
        producer.push("an order").await?;
    }
    Ok(())
}

/// Some messages are stored, then ten more, which a consumer takes. Then the store comes back with the first ones only.
/// Nothing is deleted, no offset is used again, and both sides get an error; when the right store is back, everything
/// continues. `pause` is the age of the copy, and the time between the restoration and the next push.
fn it_comes_back_with(messages: u64, pause: Duration) {
    isolated(|| {
        let mut cluster = cluster(2);
        let known = Arc::new(Mutex::new((Uuid::nil(), None::<Position>)));
        let place = known.clone();
        act(&mut cluster, "first", move |client| async move {
            client.admin().create_queue("orders").await?;
            place.lock().0 = client.admin().create_channel("orders", None, Start::Earliest).await?.id;
            push(client, messages).await
        });
        let old = cluster.database().snapshot();
        cluster.run_for(pause).unwrap();
        let place = known.clone();
        act(&mut cluster, "then", move |client| async move {
            push(client.clone(), 10).await?;
            let channel = place.lock().0;
            let mut consumer = client.subscribe(channel).build();
            while consumer.position().is_none_or(|position| position.offset < messages + 10) {
                consumer.next().await?;
            }
            place.lock().1 = consumer.position();
            Ok(())
        });
        let right = cluster.database().snapshot();
        let (channel, position) = *known.lock();
        let position = position.unwrap();

        cluster.database().restore(old.clone());
        cluster.run_for(pause).unwrap();
        act(&mut cluster, "afterwards", move |client| async move {
            let pushed = push(client.clone(), 1).await;
            assert!(format!("{pushed:?}").contains("STORE_ROLLED_BACK"), "{pushed:?}");
            let resumed = client.subscribe(channel).resume_from(position).build().next().await;
            assert_eq!(resumed.unwrap_err().code(), "STORE_ROLLED_BACK");
            Ok(())
        });
        cluster.run_for(Duration::from_secs(20)).unwrap();
        let found = cluster.database().snapshot();
        let queue = found.queue(&QueueLabel::parse("orders").unwrap()).unwrap().id;
        assert_eq!(found.read(queue, Default::default(), usize::MAX), old.read(queue, Default::default(), usize::MAX));
        assert_eq!(found.channels(None), old.channels(None));

        cluster.database().restore(right);
        let halted = owner(&cluster, "orders");
        cluster.crash(&halted);
        act(&mut cluster, "in the end", move |client| async move {
            push(client.clone(), 1).await?;
            let next = client.subscribe(channel).resume_from(position).build().next().await?;
            assert_eq!(next.offset, position.offset + 1);
            Ok(())
        });
        let records = cluster.recorder().records();
        let offsets = records.iter().filter_map(|record| match &record.event {
            Event::Stored { messages, .. } => Some(messages.iter().map(|message| message.offset)),
            _ => None,
        });
        assert_eq!(offsets.flatten().collect::<Vec<_>>(), (1..=messages + 11).collect::<Vec<_>>());
    });
}

/// The broker notices when it renews its lease.
#[test]
fn a_store_that_comes_back_stale() {
    it_comes_back_with(5, Duration::from_secs(5));
}

/// The broker notices when it appends.
#[test]
fn a_store_that_comes_back_empty() {
    it_comes_back_with(0, Duration::ZERO);
}
