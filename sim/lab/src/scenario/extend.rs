//! Additions to some scenarios: small limits, impatient producers, many queues. They are drawn separately, so that they
//! change nothing else of a scenario.

use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    Action, ConsumerKind, ConsumerPlan, Host, Limits, ProducerKind, ProducerPlan, Scenario, Step, generate::Draw,
};

/// Separates these draws from the others of the same seed.
const SALT: u64 = 0x517c_c1b7_2722_0a95;
/// Percentage of seeds with small limits.
const SMALL: u32 = 25;
/// Percentage with producers that give up.
const IMPATIENT: u32 = 15;
/// Percentage with a library producer that pushes messages which are too large.
const TOO_LARGE: u32 = 15;
/// Percentage of raw producers that push several messages at once.
const PIPELINED: u32 = 40;
/// Percentage with many queues.
const MANY_QUEUES: u32 = 3;
/// The number of queues then, each with a subscriber.
const QUEUES: (u64, u64) = (17, 22);
/// Percentage of runs that go on for a while after convergence.
const LINGERING: u32 = 8;
/// How long such a run goes on. By its end, deleted and expired data must be gone.
const LINGER_MILLIS: u64 = 24_000;
/// Percentage with a subscriber that falls behind on expiring messages.
const BEHIND: u32 = 8;
/// Percentage with no manager for a while and no other fault.
const WITHOUT_MANAGERS: u32 = 4;
/// With small limits, the number of connections that a broker accepts from one address: more than a client has while its
/// connections break.
const CONNECTIONS: u32 = 24;
/// With small limits, in most seeds, how long the database takes per row that it reads: a statement that reads some hundred
/// rows misses its deadline.
const ROW_MICROS: u64 = 10_000;
/// Percentage of scenarios with one of the original's consumers in which brokers delete idle channels.
const IDLE: u32 = 50;
/// With small limits, held messages must arrive before producers are forgotten.
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
    // Not both: a client that tries each of many queues in turn, with few look-ups per second, takes longer to recover than
    // any bound allows.
    if draw.chance(SMALL) && u64::from(scenario.workload.queues) < QUEUES.0 {
        small_limits(scenario, &mut draw);
    }
    // This replaces the other faults of a run, except where they lead to a corner that few seeds reach.
    let is_rare = |step: &Step| matches!(step.action, Action::RecreateQueue(_));
    if !scenario.steps.iter().any(is_rare) && draw.chance(WITHOUT_MANAGERS) {
        without_managers(scenario, &mut draw);
    }
    // Last, so that it changes no other choice.
    let consumers = &scenario.workload.consumers;
    if consumers.iter().any(|plan| plan.kind == ConsumerKind::RawOriginal) && draw.chance(IDLE) {
        scenario.topology.channel_idle_millis = Some(draw.one_of(&[1_000, 2_000, 4_000]));
    }
}

/// Stops all managers, long after the queues were assigned and for longer than any probe takes: brokers serve as before.
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

/// A subscriber that takes nothing for a while. Its messages are so large that its connection cannot hold all of them, and
/// they expire meanwhile.
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
        // At most ten times as many producers may wait to be saved: healthy producers push less than that between two trims.
        snapshot_batches: draw.one_of(&[5, 20, 50]),
        page_batches: draw.one_of(&[1, 2, 5]),
        page_bytes: draw.one_of(&[100, 1_000, 10_000]),
        pending_bytes: draw.one_of(&[1_000, 10_000, 40_000]),
        lookups: draw.one_of(&[5, 10, 30]),
        connections: draw.one_of(&[0, 0, CONNECTIONS]),
        row_micros: draw.one_of(&[0, ROW_MICROS, ROW_MICROS]),
    };
    // Such a page is filled by a hundred rows, which must be read in time.
    if limits.page_bytes >= 10_000 {
        limits.row_micros /= 2;
    }
    scenario.topology.limits = Some(limits);
    // A message must not be pushed again after its producer was forgotten.
    scenario.workload.delivery_millis.get_or_insert(5_000);
    for step in &mut scenario.steps {
        if matches!(step.action, Action::Hold { .. } | Action::Freeze(_)) {
            step.for_millis = step.for_millis.min(LONGEST_HOLD_MILLIS);
        }
    }
}
