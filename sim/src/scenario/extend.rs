//! What some scenarios have beside: small limits, short patience, many queues. It is drawn by itself, so that it changes nothing
//! else of a scenario.

use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    Action, ConsumerKind, ConsumerPlan, Host, Limits, ProducerKind, ProducerPlan, Scenario, Step, generate::Draw,
};

/// Tells these choices from the others of the same seed.
const SALT: u64 = 0x517c_c1b7_2722_0a95;
/// How many of a hundred seeds have small limits.
const SMALL: u32 = 25;
/// How many have producers that give up.
const IMPATIENT: u32 = 15;
/// How many have a library producer that pushes what is too large.
const TOO_LARGE: u32 = 15;
/// Of those with a raw producer, how many have it push several messages at once.
const PIPELINED: u32 = 40;
/// How many have many queues.
const MANY_QUEUES: u32 = 3;
/// As many, with a subscriber each.
const QUEUES: (u64, u64) = (17, 22);
/// How many go on when all is well.
const LINGERING: u32 = 8;
/// How long a run goes on. What was deleted or has expired must be gone by its end.
const LINGER_MILLIS: u64 = 24_000;
/// How many have a subscriber that is behind, on messages that expire.
const BEHIND: u32 = 8;
/// How many have no manager for a while, and nothing else that goes wrong.
const WITHOUT_MANAGERS: u32 = 4;
/// With small limits one address has so many connections to a broker: more than a client has whose connections break.
const CONNECTIONS: u32 = 24;
/// With small limits, in most seeds a row that the database reads takes so long: a statement that reads some hundred misses its
/// deadline.
const ROW_MICROS: u64 = 10_000;
/// Of those with one of the original's consumers, how many delete channels that nobody subscribes to.
const IDLE: u32 = 50;
/// With small limits what is held arrives before producers are forgotten.
const LONGEST_HOLD_MILLIS: u64 = 3_000;

pub(super) fn extend(scenario: &mut Scenario) {
    let mut draw = Draw(StdRng::seed_from_u64(scenario.seed ^ SALT));
    let workload = &mut scenario.workload;
    for plan in workload.producers.iter_mut().filter(|plan| plan.kind == ProducerKind::RawStamped) {
        if draw.chance(PIPELINED) {
            plan.kind = ProducerKind::RawPipelined;
        }
    }
    if draw.chance(IMPATIENT) {
        workload.delivery_millis = Some(draw.one_of(&[1_500, 3_000, 5_000]));
    }
    if draw.chance(TOO_LARGE) {
        let is_library = |plan: &&mut ProducerPlan| matches!(plan.kind, ProducerKind::Library | ProducerKind::Named);
        for plan in workload.producers.iter_mut().filter(is_library) {
            plan.too_large_every = draw.one_of(&[20, 50]);
        }
    }
    if draw.chance(LINGERING) {
        workload.linger_millis = LINGER_MILLIS;
    }
    if draw.chance(MANY_QUEUES) {
        workload.queues = u8::try_from(draw.between(QUEUES.0, QUEUES.1)).unwrap_or(u8::MAX);
    }
    if draw.chance(BEHIND) {
        behind(scenario, &mut draw);
    }
    // Not both: one who tries each of many queues in turn, with few look-ups a second, takes longer than anything may take to come
    // back.
    if draw.chance(SMALL) && u64::from(scenario.workload.queues) < QUEUES.0 {
        small_limits(scenario, &mut draw);
    }
    let consumers = &scenario.workload.consumers;
    if consumers.iter().any(|plan| plan.kind == ConsumerKind::RawOriginal) && draw.chance(IDLE) {
        scenario.topology.channel_idle_millis = Some(draw.one_of(&[1_000, 2_000, 4_000]));
    }
    // This takes the place of what else befalls a run, and not where that leads to a corner that few seeds reach.
    let is_rare = |step: &Step| matches!(step.action, Action::RecreateQueue(_));
    if !scenario.steps.iter().any(is_rare) && draw.chance(WITHOUT_MANAGERS) {
        without_managers(scenario, &mut draw);
    }
}

/// All managers end, long after the queues were assigned and for longer than any probe takes: brokers serve as before.
fn without_managers(scenario: &mut Scenario, draw: &mut Draw) {
    let producer = &mut scenario.workload.producers[0];
    *producer = ProducerPlan {
        kind: ProducerKind::RawStamped,
        pace_millis: 100,
        burst: 1,
        pushes: producer.pushes.max(150),
        ..producer.clone()
    };
    let at_millis = draw.between(8_000, 9_000);
    let end = |manager| Step { at_millis, for_millis: 5_000, action: Action::Crash(Host::Manager(manager)) };
    scenario.steps = (1..=scenario.topology.managers).map(end).collect();
}

/// A subscriber that takes nothing for a while, of messages so large that its connection does not hold all of them, and so
/// short-lived that they expire meanwhile.
fn behind(scenario: &mut Scenario, draw: &mut Draw) {
    let workload = &mut scenario.workload;
    let (producer, consumer) = (&workload.producers[0], &workload.consumers[0]);
    let queue = producer.queue;
    let ttl_millis = Some(draw.between(1_000, 2_000));
    workload.producers[0] = ProducerPlan {
        kind: ProducerKind::RawStamped,
        pace_millis: 20,
        burst: 1,
        ttl_millis,
        body_bytes: 8_000,
        pushes: producer.pushes.max(250),
        ..producer.clone()
    };
    workload.consumers[0] =
        ConsumerPlan { kind: ConsumerKind::RawResuming, queue, topic: None, work_millis: 0, ..consumer.clone() };
    let mut at_millis = draw.between(500, 1_500);
    for _ in 0..2 {
        let for_millis = draw.between(2_500, 4_000);
        scenario.steps.push(Step { at_millis, for_millis, action: Action::StallConsumer(1) });
        at_millis += for_millis + 1_000;
    }
    scenario.steps.sort_by_key(|step| step.at_millis);
}

fn small_limits(scenario: &mut Scenario, draw: &mut Draw) {
    let mut limits = Limits {
        // Ten times as many may wait to be saved, and no more: producers that are well do not push as many between two trims.
        snapshot_batches: draw.one_of(&[5, 20, 50]),
        page_batches: draw.one_of(&[1, 2, 5]),
        page_bytes: draw.one_of(&[100, 1_000, 10_000]),
        pending_bytes: draw.one_of(&[1_000, 10_000, 40_000]),
        lookups: draw.one_of(&[5, 10, 30]),
        connections: draw.one_of(&[0, 0, CONNECTIONS]),
        row_micros: draw.one_of(&[0, ROW_MICROS, ROW_MICROS]),
    };
    // A hundred rows fill such a page, which is to be read in time.
    if limits.page_bytes >= 10_000 {
        limits.row_micros /= 2;
    }
    scenario.topology.limits = Some(limits);
    // What is forgotten must not be pushed again.
    scenario.workload.delivery_millis.get_or_insert(5_000);
    for step in &mut scenario.steps {
        if matches!(step.action, Action::Hold { .. } | Action::Freeze(_)) {
            step.for_millis = step.for_millis.min(LONGEST_HOLD_MILLIS);
        }
    }
}
