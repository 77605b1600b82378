//! A broker logs a lasting fault once, and then at growing intervals.

use std::{
    fmt::{Debug, Write as _},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rmom_core::store::faulty::{Fault, Kind};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::set_default,
};

use super::{label, push, world::World};

/// Collects warnings and errors.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Said {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn batches_that_fail_one_after_another_are_not_told_one_by_one() {
    let said = Said::default();
    let _guard = set_default(said.clone());
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    for (fault, what) in [(Fault::Refused, "pushes refused"), (Fault::RequestLost, "append failed")] {
        for _ in 0..200 {
            world.store.fail_next(1, Kind::Append, fault);
            let _ = broker.push(push(what)).await;
            world.sleep(Duration::from_millis(100)).await;
        }
        let lines: Vec<_> = said.0.lock().iter().filter(|line| line.contains(what)).cloned().collect();
        // At the beginning, and after 10 s; the next is due after 30 s.
        assert!((2..=3).contains(&lines.len()), "{lines:?}");
        assert!(!lines[1].contains("times=1 "), "how often it happened is told: {lines:?}");
    }
}
