//! Mistakes that show at the edge, where applications are: scripts over a bare cluster.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rmom_client::{Client, NewMessage, Position, Start, Uuid};
use rmom_core::ports::Transport as _;
use rmom_net::grpc::error_info;
use rmom_proto::messages::{Push, message_stream_client::MessageStreamClient};
use rmom_sim::{Journal, SimNet, broker_host, history::Event, isolated};
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use crate::support::{act, cluster, owner};

/// Every call accepts labels and topics in upper or lower case, even at a broker that took over the queue.
#[test]
fn labels_are_folded_everywhere() {
    isolated(|| {
        let mut cluster = cluster(2);
        act(&mut cluster, "before", |client| async move {
            let admin = client.admin();
            assert_eq!(admin.create_queue("Orders").await?.label, "orders");
            assert_eq!(admin.create_queue("ORDERS").await.unwrap_err().code(), "QUEUE_EXISTS");
            round_trip(&client).await
        });
        let first = owner(&cluster, "OrdeRs");
        cluster.crash(&first);
        act(&mut cluster, "after", |client| async move {
            round_trip(&client).await?;
            let admin = client.admin();
            admin.delete_queue("oRdErS").await?;
            assert_eq!(admin.queue("orders").await.unwrap_err().code(), "QUEUE_NOT_FOUND");
            Ok(())
        });
        let claims = cluster.recorder().count(|record| matches!(record.event, Event::Claimed { .. }));
        assert_eq!(claims, 2, "the queue did not move");
    });
}

/// A message pushed under one spelling arrives on a channel that was created under another.
async fn round_trip(client: &Client) -> turmoil::Result {
    let admin = client.admin();
    let channel = admin.create_channel("oRDERS", Some("News"), Start::Latest).await?;
    assert_eq!((channel.queue_label.as_str(), channel.topic.as_deref()), ("orders", Some("news")));
    let producer = client.producer("OrderS").open().await?;
    producer.push(NewMessage::new("good").topic("nEWS")).await?;
    let message = client.subscribe(channel.id).build().next().await?;
    assert_eq!((&message.content[..], message.topic.as_deref()), (&b"good"[..], Some("news")));
    assert_eq!(admin.queue("ordERS").await?.label, "orders");
    assert_eq!(admin.topics("ORDERs").await?, ["news"]);
    assert_eq!(admin.queue_channels("orDERs").await?.len(), 1);
    admin.delete_channel(channel.id).await?;
    Ok(())
}

/// A broker refuses a push for a queue that it does not host, and the refusal names the host. Nothing is stored: at the
/// right broker, the message is the first.
#[test]
fn nothing_is_stored_for_a_queue_hosted_elsewhere() {
    isolated(|| {
        let mut cluster = cluster(2);
        act(&mut cluster, "operator", |client| async move {
            client.admin().create_queue("orders").await?;
            Ok(())
        });
        let right = owner(&cluster, "orders");
        let wrong = [1, 2].map(broker_host).into_iter().find(|broker| *broker != right).unwrap();
        let place = right.clone();
        act(&mut cluster, "lost", move |_| async move {
            let refusal = push_to(&wrong).await.unwrap_err();
            let info = error_info(&refusal).ok_or("a refusal without details")?;
            assert_eq!((info.reason.as_str(), info.metadata.get("host")), ("NOT_HOSTED", Some(&place)));
            assert_eq!(push_to(&place).await?, 1);
            Ok(())
        });
        let mut stored = cluster.recorder().records().into_iter().filter_map(|record| match record.event {
            Event::Stored { messages, by, .. } => Some((messages.len(), by)),
            _ => None,
        });
        assert_eq!((stored.next(), stored.next()), (Some((1, right)), None));
    });
}

/// Pushes like the original's clients, and returns the message's offset.
async fn push_to(broker: &str) -> Result<u64, tonic::Status> {
    let line: Channel = Endpoint::from_shared(format!("http://{broker}:50051")).unwrap().connect_with_connector_lazy(
        tower::service_fn(|uri: http::Uri| async move {
            SimNet.connect(uri.authority().expect("it has one").as_str()).await.map(TokioIo::new)
        }),
    );
    let push = Push { queue_label: "orders".into(), content: "an order".into(), ..Push::default() };
    Ok(MessageStreamClient::new(line).push_to_queue(push).await?.into_inner().offset)
}

/// The data that an application keeps when it crashes.
#[derive(Debug, Default)]
struct Disk {
    processed: Vec<u64>,
    position: Option<Position>,
}

/// An application crashes again and again while it holds a message that it has not processed. Its saved position covers
/// neither that message nor any that arrived after it, so its successor receives all of them.
#[test]
fn a_position_committed_before_the_message_was_processed() {
    const MESSAGES: u64 = 60;
    isolated(|| {
        let mut cluster = cluster(2);
        let channel = Arc::new(Mutex::new(Uuid::nil()));
        let place = channel.clone();
        act(&mut cluster, "producer", |client| async move {
            client.admin().create_queue("orders").await?;
            *place.lock() = client.admin().create_channel("orders", None, Start::Earliest).await?.id;
            let producer = client.producer("orders").open().await?;
            for _ in 0..MESSAGES {
                producer.push("an order").await?;
            }
            Ok(())
        });
        let channel = *channel.lock();
        let disk = Arc::new(Mutex::new(Disk::default()));
        let taken = Journal::default();
        let (kept, notes) = (disk.clone(), taken.clone());
        cluster.service("application", move |client| {
            let (kept, notes) = (kept.clone(), notes.clone());
            async move {
                let resumed = kept.lock().position;
                let builder = client.subscribe(channel);
                let mut consumer = match resumed {
                    Some(position) => builder.resume_from(position).build(),
                    None => builder.build(),
                };
                loop {
                    // The application saves the position from before this message arrived.
                    kept.lock().position = consumer.position();
                    let offset = consumer.next().await?.offset;
                    notes.record(offset);
                    sleep(Duration::from_millis(20)).await;
                    let mut kept = kept.lock();
                    kept.processed.push(offset);
                    kept.position = consumer.position();
                }
            }
        });
        for taken_by_then in [1, 10, 11, 30] {
            cluster.run_until(|_| taken.events().last().is_some_and(|(_, last)| *last == taken_by_then)).unwrap();
            assert!(!disk.lock().processed.contains(&taken_by_then), "it is in nobody's hands");
            cluster.crash("application");
            cluster.run_for(Duration::from_millis(200)).unwrap();
            cluster.restart("application");
        }
        cluster.run_until(|_| disk.lock().processed.last() == Some(&MESSAGES)).unwrap();
        assert_eq!(disk.lock().processed, (1..=MESSAGES).collect::<Vec<_>>());
        assert_eq!(taken.events().len() as u64, MESSAGES + 4, "four messages were taken twice, and no others");
    });
}
