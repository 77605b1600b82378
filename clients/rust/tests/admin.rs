//! Administration: what is asked of the managers, and which of them is asked.

mod fake;

use std::time::Duration;

use fake::{World, soon};
use rmom_client::{Start, Uuid};

fn answer(world: &World, request: &str, status: u16, answer: &str) {
    world.state().answers.insert(request.to_owned(), (status, answer.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn calls_and_answers_are_the_managers() {
    let world = World::new();
    let admin = world.client().admin();
    let id = Uuid::from_u128(5);
    let queue = r#""id":7,"label":"a/b","broker_id":1,"host":"b1","port":5"#;
    answer(&world, r#"POST /v1/queues {"label":"A/b"}"#, 201, &format!("{{{queue}}}"));
    assert_eq!(soon(admin.create_queue("A/b")).await.unwrap().id, 7);

    let live = r#""live":{"epoch":3,"last_offset":9,"depth_messages":4,"depth_bytes":400,"oldest_age_millis":1500,
        "subscribers":[{"channel_id":"00000000-0000-0000-0000-000000000005","topic":null,"peer":"p","offset":8,"lag":1}]}"#;
    answer(&world, "GET /v1/queues/a%2Fb ", 200, &format!("{{{queue},{live},\"live_error\":null}}"));
    let live = soon(admin.queue("a/b")).await.unwrap().live.unwrap();
    assert_eq!((live.oldest_age, live.subscribers[0].channel_id), (Duration::from_millis(1500), id));

    answer(&world, "GET /v1/queues ", 200, &format!(r#"{{"queues":[{{{queue}}}]}}"#));
    assert_eq!(soon(admin.queues()).await.unwrap()[0].label, "a/b");

    // Lists come page by page.
    answer(&world, "GET /v1/queues ", 200, &format!(r#"{{"queues":[{{{queue}}}],"next":"a/b"}}"#));
    answer(&world, "GET /v1/queues?after=a%2Fb ", 200, &format!(r#"{{"queues":[{{{queue}}}],"next":null}}"#));
    assert_eq!(soon(admin.queues()).await.unwrap().len(), 2);
    // With what the brokers say, each page is asked for in the same way.
    let listed = r#""live":{"state":"waiting","reason":"why","epoch":0,"last_offset":0,"depth_messages":5,"depth_bytes":50,
        "oldest_age_millis":0,"subscriber_count":3,"largest_lag":4}"#;
    answer(&world, "GET /v1/queues?live=true ", 200, &format!(r#"{{"queues":[{{{queue},{listed}}}],"next":"a/b"}}"#));
    answer(&world, "GET /v1/queues?live=true&after=a%2Fb ", 200, &format!(r#"{{"queues":[{{{queue}}}],"next":null}}"#));
    let queues = soon(admin.live_queues()).await.unwrap();
    let live = queues[0].live.as_ref().unwrap();
    assert_eq!((live.state.as_str(), live.reason.as_deref()), ("waiting", Some("why")));
    assert_eq!((live.subscriber_count, live.largest_lag, live.subscribers.len()), (3, 4, 0));
    assert_eq!((queues.len(), &queues[1].live), (2, &None));
    // Pages that do not go on are an error, and no list without end.
    for (page, next) in [(format!("{{{queue}}}"), r#""a/b""#), (String::new(), r#""c""#)] {
        answer(&world, "GET /v1/queues?after=a%2Fb ", 200, &format!(r#"{{"queues":[{page}],"next":{next}}}"#));
        assert_eq!(soon(admin.queues()).await.unwrap_err().code(), "PROTOCOL_VIOLATION");
    }
    // Nor do pages that lead back by way of another one.
    answer(&world, "GET /v1/queues?after=a%2Fb ", 200, &format!(r#"{{"queues":[{{{queue}}}],"next":"c"}}"#));
    answer(&world, "GET /v1/queues?after=c ", 200, &format!(r#"{{"queues":[{{{queue}}}],"next":"a/b"}}"#));
    assert_eq!(soon(admin.queues()).await.unwrap_err().code(), "PROTOCOL_VIOLATION");

    let channel = r#"{"id":"00000000-0000-0000-0000-000000000005","queue_id":7,"queue_label":"a/b","topic":"t","start":10,"host":null,"port":null}"#;
    answer(&world, r#"POST /v1/queues/a%2Fb/channels {"start":"latest","topic":"T"}"#, 201, channel);
    let created = soon(admin.create_channel("a/b", Some("T"), Start::Latest)).await.unwrap();
    assert_eq!((created.id, created.topic.as_deref(), created.start), (id, Some("t"), 10));
    answer(&world, r#"POST /v1/queues/a%2Fb/channels {"start":3,"topic":null}"#, 201, channel);
    soon(admin.create_channel("a/b", None, Start::Offset(3))).await.unwrap();
    answer(&world, &format!("GET /v1/channels/{id} "), 200, channel);
    // The fake answers every route below /channels/ by itself; this one is ours.
    assert_eq!(soon(admin.channel(id)).await.unwrap().queue_label, "a/b");

    let broker = r#"{"id":1,"host":"b1","port":5,"state":"up","live":true,"lease_current":true,"configured":false,
        "incarnation":"00000000-0000-0000-0000-000000000005","queues":2,"probe":null}"#;
    answer(&world, "GET /v1/brokers ", 200, &format!(r#"{{"brokers":[{broker}]}}"#));
    assert_eq!(soon(admin.brokers()).await.unwrap()[0].queues, 2);
    answer(&world, "POST /v1/brokers/1/drain ", 204, "");
    soon(admin.drain(1)).await.unwrap();
    let counters = r#"{"failovers":1,"handovers":2,"rebalanced":3,"cycles":4}"#;
    let status = format!(
        r#"{{"manager_id":"{id}","leading":true,"leader_id":"{id}","term":2,"brokers":[{broker}],"counters":{counters},
        "healthy":false,"problems":[{{"what":"w","next":"n"}}]}}"#
    );
    answer(&world, "GET /v1/status ", 200, &status);
    let status = soon(admin.status()).await.unwrap();
    assert_eq!((status.counters.rebalanced, status.problems[0].next.as_str()), (3, "n"));
    assert!(status.notes.is_empty(), "an older manager has none");
    answer(&world, "DELETE /v1/brokers/1?force=true ", 204, "");
    soon(admin.forget(1, true)).await.unwrap();
    let moved = r#"{"label":"q","from":{"host":"b1","port":5},"to":{"host":"b2","port":6},"served":true}"#;
    answer(&world, "POST /v1/brokers/rebalance ", 200, &format!(r#"{{"moved":[{moved}],"left":3}}"#));
    let done = soon(admin.rebalance()).await.unwrap();
    assert_eq!((done.left, done.moved[0].to.host.as_str()), (3, "b2"));
    answer(&world, "DELETE /v1/queues/gone ", 404, r#"{"code":"QUEUE_NOT_FOUND","detail":"there is no queue gone"}"#);
    let error = soon(admin.delete_queue("gone")).await.unwrap_err();
    assert_eq!((error.code(), error.outcome_unknown()), ("QUEUE_NOT_FOUND", false));
}

#[tokio::test(start_paused = true)]
async fn bad_names_are_refused_without_asking_anyone() {
    let world = World::new();
    world.state().up.clear();
    let admin = world.client().admin();
    assert_eq!(admin.create_queue("").await.unwrap_err().code(), "INVALID_NAME");
    let channel = admin.create_channel("q", Some(" t"), Start::Earliest).await;
    assert_eq!(channel.unwrap_err().code(), "INVALID_NAME");
    assert!(world.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn managers_are_tried_in_turn_and_the_one_that_answered_is_kept() {
    let world = World::new();
    {
        let mut state = world.state();
        state.up = vec!["m3"];
        state.hanging.push("m2");
    }
    answer(&world, "GET /v1/queues ", 200, r#"{"queues":[]}"#);
    let admin = world.builder().managers(["http://m2", "http://m3"]).build().unwrap().admin();
    let started = tokio::time::Instant::now();
    soon(admin.queues()).await.unwrap();
    assert_eq!(world.seen(), ["cannot reach m1"]);
    assert_eq!(started.elapsed().as_millis(), 1_000, "the connect timeout, once");
    soon(admin.queues()).await.unwrap();
    assert!(world.seen().is_empty());
    assert_eq!(started.elapsed().as_millis(), 1_000);
    world.state().up.clear();
    let error = soon(admin.queues()).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable(), error.outcome_unknown()), ("UNREACHABLE", true, false));
}

#[tokio::test(start_paused = true)]
async fn the_next_manager_is_asked_when_one_is_unwell() {
    let world = World::new();
    {
        let mut state = world.state();
        state.up.push("m2");
        state.manager_error = Some((503, "STORE_UNAVAILABLE"));
    }
    answer(&world, "GET /v1/queues ", 200, r#"{"queues":[]}"#);
    answer(&world, "DELETE /v1/queues/q ", 204, "");
    let client = |managers: &[&str]| world.builder().managers(managers.iter().copied()).build().unwrap();
    // What changes something is not tried again on a guess.
    let admin = client(&["http://m2"]).admin();
    let error = soon(admin.delete_queue("q")).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("STORE_UNAVAILABLE", true));
    // Who asks again is not stuck with it.
    soon(admin.delete_queue("q")).await.unwrap();
    soon(client(&["http://m2"]).admin().queues()).await.unwrap();
    assert_eq!(soon(client(&[]).admin().queues()).await.unwrap_err().code(), "STORE_UNAVAILABLE");
}

#[tokio::test(start_paused = true)]
async fn what_another_server_cannot_find_says_nothing_about_queues() {
    let world = World::new();
    // Nothing is scripted: m1 answers as any web server does that knows nothing of rmom.
    let error = soon(world.client().admin().queue("q")).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("PROTOCOL_VIOLATION", true), "{error}");
    assert!(error.to_string().contains("m1:80") && error.to_string().contains("404 Not Found"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_at_the_manager_leaves_the_outcome_unknown() {
    let world = World::new();
    world.state().manager_error = Some((504, "DEADLINE_EXCEEDED"));
    let error = soon(world.client().admin().create_queue("q")).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable(), error.outcome_unknown()), ("DEADLINE_EXCEEDED", true, true));
    world.state().manager_error = Some((503, "STORE_UNAVAILABLE"));
    assert!(!soon(world.client().admin().create_queue("q")).await.unwrap_err().outcome_unknown());
}

#[tokio::test]
async fn settings_are_checked() {
    let world = World::new();
    let reason = |builder: rmom_client::ClientBuilder| builder.build().unwrap_err().to_string();
    assert!(reason(rmom_client::Client::builder()).starts_with("managers: there are none"));
    assert!(reason(world.builder().managers(["ftp://x"])).starts_with("managers: \"ftp://x\" starts with neither"));
    assert!(reason(world.builder().connect_timeout(Duration::ZERO)).starts_with("connect_timeout: "));
    assert!(reason(world.builder().delivery_timeout(Duration::from_secs(601))).starts_with("delivery_timeout: "));
    let backoff = world.builder().retry_backoff(Duration::from_secs(2), Duration::from_secs(1));
    assert!(reason(backoff).starts_with("retry_backoff: "));
    assert!(world.client().producer("q").max_in_flight(0, 1).open().await.is_err());
}
