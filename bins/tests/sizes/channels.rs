//! Channels: a failover reads none of them, and an operation on one of them does not read the others.

use std::time::{Duration, Instant};

use rmom_client::{Start, Uuid};

use crate::{
    count, fill, millis, row, seconds, size,
    support::get,
    system::{System, failover_bound},
};

/// Number of queues over which the channels are spread.
const QUEUES: u32 = 20;
/// The smaller number of channels, for comparison.
const FEW: u64 = 1_000;
/// Tolerance in pages touched.
const SOME: i64 = 100;
/// Channels on one page of the list.
const PAGE: usize = 10;

/// The measurements at one size.
struct Measured {
    failover: Duration,
    /// Pages touched by all operations of [`one_channel`], and by a creation.
    pages: [i64; 2],
    /// Look-up, page of all, page of a queue, deletion, creation.
    times: [Duration; 5],
}

#[test]
fn a_channel_costs_the_same_however_many_there_are() {
    let many = size(40_000, 1_000_000);
    let bound = failover_bound(QUEUES, Duration::from_millis(10));
    let mut system = System::start(|_| ());
    let queues = Vec::from_iter((0..QUEUES).map(|n| system.create_queue(&format!("q{n}"))));
    let mut there = 0;
    let [few, most] = [FEW, many].map(|channels| {
        let mut session = system.session();
        let more = (channels - there) / u64::from(QUEUES);
        system.runtime.block_on(fill::channels(&mut session, &queues, more));
        there = channels;
        let measured = measure(&mut system);
        let took = measured.failover;
        assert!(took < bound, "{channels} channels: {took:?} until a queue was served, the bound is {bound:?}");
        measured
    });
    let most_pages = few.pages[0] + SOME;
    assert!(most.pages[0] < most_pages, "{:?}, then {:?} pages were touched", few.pages, most.pages);
    // A creation counts the channels of its queue; a page of the index holds more than a hundred of them.
    let counted = i64::try_from((many - FEW) / u64::from(QUEUES) / 100).unwrap();
    let most_created = few.pages[1] + SOME + counted;
    assert!(most.pages[1] < most_created, "{:?}, then {:?} pages were touched", few.pages, most.pages);

    let beside = |few: &str| format!("{few} with {}", count(FEW));
    row(
        "channels: push after SIGKILL",
        count(many),
        seconds(most.failover),
        seconds(bound),
        beside(&seconds(few.failover)),
    );
    let names = ["look-up", "first 10 of all", "first 10 of a queue", "deletion", "creation"];
    for (at, name) in names.into_iter().enumerate() {
        let group = usize::from(at == 4);
        let pages = [most_pages, most_created][group];
        let what = if group == 0 { "these four" } else { "it" };
        row(
            &format!("channels: {name}"),
            count(many),
            format!("{}, {what} {} pages", millis(most.times[at]), most.pages[group]),
            format!("{pages} pages"),
            beside(&format!("{}, {} pages", millis(few.times[at]), few.pages[group])),
        );
    }
}

fn measure(system: &mut System) -> Measured {
    let failover = system.failover("q0");
    let mut times = [Duration::ZERO; 5];
    let one_channels = system.pages_touched("channel", |system| {
        system.served("q1");
        times[..4].copy_from_slice(&one_channel(system));
    });
    let creation = system.pages_touched("channel", |system| {
        system.served("q1");
        times[4] =
            timed(|| system.runtime.block_on(system.client.admin().create_channel("q1", None, Start::Latest)).unwrap())
                .0;
    });
    Measured { failover, pages: [one_channels, creation], times }
}

/// Times a look-up, two lists and a deletion.
fn one_channel(system: &System) -> [Duration; 4] {
    let manager = &system.cluster.managers[0].authority;
    let page = |path: &str| {
        let (status, body) = get(manager, &format!("{path}?limit={PAGE}")).expect("a manager answers");
        assert_eq!(status, 200, "{body}");
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        page["channels"].as_array().unwrap().clone()
    };
    let (all, channels) = timed(|| page("/v1/channels"));
    assert_eq!(channels.len(), PAGE, "a page is full");
    let (of_queue, channels) = timed(|| page("/v1/queues/q1/channels"));
    let id: Uuid = serde_json::from_value(channels[0]["id"].clone()).unwrap();
    let admin = system.client.admin();
    let (look_up, _) = timed(|| system.runtime.block_on(admin.channel(id)).unwrap());
    let (deletion, ()) = timed(|| system.runtime.block_on(admin.delete_channel(id)).unwrap());
    [look_up, all, of_queue, deletion]
}

fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let done = act();
    (began.elapsed(), done)
}
