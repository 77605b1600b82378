//! A commit that waits for a synchronous standby, and is cut short: it stands on one machine only, and PostgreSQL shows it to
//! everybody. Nothing that rests on it may be answered before the standby has it.

use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

use rmom_core::{
    access::Call,
    broker::{Broker, BrokerSettings, NewMessage, ProducerStamp, PushRequest},
    model::{BrokerAddr, ChannelId, ProducerEpoch, ProducerId, ProducerKey, QueueLabel, Sequence, Start, Topic},
    ports::{Catalog as _, CreateChannel, CreateQueue, Log as _},
};
use rmom_net::{clock::SystemUptime, entropy::OsEntropy, store::PostgresStore, testing::PgServer};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::support::Bench;

const PATIENCE: Duration = Duration::from_secs(60);
/// For so long the standby is away.
const AWAY: Duration = Duration::from_secs(30);
/// So often the statements or sessions of rmom are ended meanwhile.
const ENDED_EVERY: Duration = Duration::from_secs(1);

/// A primary whose commits wait for its standby.
struct Pair {
    primary: Arc<PgServer>,
    standby: PgServer,
}

impl Pair {
    async fn start() -> (Self, Bench) {
        let primary = Arc::new(PgServer::start());
        let bench = Bench::on(Arc::clone(&primary)).await;
        let standby = primary.start_standby(&[]);
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'").await;
        primary.execute("SELECT pg_reload_conf()").await;
        (Self { primary, standby }, bench)
    }

    /// Ends what rmom's sessions do now, or the sessions.
    async fn end(&self, function: &str) {
        let sql = format!("SELECT {function}(pid) FROM pg_stat_activity WHERE application_name = 'rmom'");
        self.primary.execute(&sql).await;
    }

    /// Waits until a commit waits for the standby.
    async fn until_a_commit_waits(&self, bench: &Bench) {
        let mut conn = bench.database.connect().await;
        let waiting = async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut conn).await.unwrap() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("a commit waits");
    }
}

/// One message, which its producer pushes again and again until it is acknowledged.
async fn push(broker: Broker<Call>) -> Instant {
    let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(1)), epoch: ProducerEpoch::ZERO };
    let sequence = Sequence::new(1);
    let stamp = ProducerStamp { key, lowest_unacknowledged: sequence };
    loop {
        let request = PushRequest {
            label: QueueLabel::parse("q").unwrap(),
            queue: None,
            producer: Some((stamp, sequence)),
            message: NewMessage { content: "message".into(), ..NewMessage::default() },
        };
        match broker.push(request).await {
            Ok(_) => return Instant::now(),
            Err(_) => {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The standby is away while a message is pushed, and `function` ends rmom's statements or sessions meanwhile.
async fn nothing_is_acknowledged_before_the_standby_has_it(function: &str) {
    let (pair, bench) = Pair::start().await;
    let store = Arc::new(PostgresStore::connect(bench.direct()).await.unwrap());
    let settings = BrokerSettings::new(BrokerAddr { host: "localhost".into(), port: 1 });
    let (broker, tasks) = Broker::spawn(settings, store.clone(), Arc::new(OsEntropy), Arc::new(SystemUptime));
    let broker = broker.on_behalf_of(Call::of_process());
    let created = async {
        while broker.create_queue(&QueueLabel::parse("q").unwrap()).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, created).await.expect("the queue is created");
    pair.standby.kill9();
    let pushing = tokio::spawn(push(broker.clone()));
    pair.until_a_commit_waits(&bench).await;
    let until = Instant::now() + AWAY;
    while Instant::now() < until {
        sleep(ENDED_EVERY).await;
        pair.end(function).await;
    }
    assert!(!pushing.is_finished(), "acknowledged, and on one machine only");
    pair.standby.restart();
    timeout(PATIENCE, pushing).await.expect("it is acknowledged in the end").unwrap();
    let queue = store.queue(&QueueLabel::parse("q").unwrap()).await.unwrap().unwrap();
    assert_eq!(store.tail(queue.id).await.unwrap().messages, 1);
    tasks.abort();
}

/// Makes a call whose commit is cut short, and makes it again. It is answered only when the standby is back.
async fn is_answered_when_the_standby_has_it<T, E, F>(pair: &Pair, bench: &Bench, call: impl Fn() -> F) -> T
where
    T: Send + 'static,
    E: Debug + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    pair.standby.kill9();
    let first = tokio::spawn(call());
    pair.until_a_commit_waits(bench).await;
    pair.end("pg_terminate_backend").await;
    assert!(first.await.unwrap().is_err(), "nobody can know");
    let again = tokio::spawn(call());
    pair.until_a_commit_waits(bench).await;
    assert!(!again.is_finished());
    pair.standby.restart();
    // The second call may have waited for too long.
    let _ = again.await.unwrap();
    call().await.expect("the standby is back")
}

#[tokio::test]
async fn what_was_made_by_a_call_that_was_cut_short_is_answered_when_the_standby_has_it() {
    let (pair, bench) = Pair::start().await;
    let store = Arc::new(PostgresStore::connect(bench.direct()).await.unwrap());
    let label = QueueLabel::parse("q").unwrap();
    let create = CreateQueue { label, assignee: None, request: Uuid::from_u128(1) };
    let queue = is_answered_when_the_standby_has_it(&pair, &bench, || {
        let (store, create) = (Arc::clone(&store), create.clone());
        async move { store.create_queue(&create).await }
    })
    .await
    .id;
    let id = ChannelId::new(Uuid::from_u128(2));
    let create = CreateChannel { id, queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
    let channel = is_answered_when_the_standby_has_it(&pair, &bench, || {
        let (store, create) = (Arc::clone(&store), create.clone());
        async move { store.create_channel(&create).await }
    })
    .await;
    assert_eq!(channel.id, id);
    let deleted = is_answered_when_the_standby_has_it(&pair, &bench, || {
        let store = Arc::clone(&store);
        async move { store.delete_channel(id).await }
    });
    assert!(!deleted.await, "it was deleted by the first call");
    let deleted = is_answered_when_the_standby_has_it(&pair, &bench, || {
        let store = Arc::clone(&store);
        async move { store.delete_queue(queue).await }
    });
    assert!(!deleted.await);
}

#[tokio::test]
async fn what_was_committed_by_a_session_that_ended_is_not_acknowledged() {
    nothing_is_acknowledged_before_the_standby_has_it("pg_terminate_backend").await;
}

#[tokio::test]
async fn what_was_committed_by_a_statement_that_was_cancelled_is_not_acknowledged() {
    nothing_is_acknowledged_before_the_standby_has_it("pg_cancel_backend").await;
}

/// A server also warns of what has nothing to do with a commit.
#[tokio::test]
async fn a_warning_of_something_else_leaves_no_doubt() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    bench
        .database
        .execute(
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE WARNING ''of something else''; RETURN NEW; END'; \
             CREATE TRIGGER warn BEFORE INSERT ON batch FOR EACH ROW EXECUTE FUNCTION warn()",
        )
        .await;
    owner.stored().await;
    assert_eq!(owner.check_log().await, owner.tail.end);
}
