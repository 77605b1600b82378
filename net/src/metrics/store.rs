//! How long callers of the store wait for a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::text::{Kind, Text};

/// Callers that wait for the same group of connections, with counts of how their waits ended.
#[derive(Debug)]
pub struct Lane {
    name: &'static str,
    waits: AtomicU64,
    waited_micros: AtomicU64,
    given_up: AtomicU64,
    waiting: AtomicU64,
    vain: Mutex<Option<Vain>>,
    /// There has been a wait in vain. Without one, [`Lane::at_once`] takes no lock.
    any_vain: AtomicBool,
}

/// A series of long waits in vain.
#[derive(Clone, Copy, Debug)]
struct Vain {
    first: Instant,
    last: Instant,
}

/// The series ends after this time without another long wait in vain.
const VAIN_LATELY: Duration = Duration::from_secs(10);
/// A series has to last this long to be worth a complaint: a single wait in vain, or a database that stalls for a moment,
/// does not take a server out of service.
const VAIN_FOR: Duration = Duration::from_secs(5);

/// A caller that gives up sooner has not waited in vain: it was told to stop for another reason.
const LONG_WAIT: Duration = Duration::from_secs(1);

impl Lane {
    /// Creates a lane without waits.
    #[must_use]
    pub fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            waits: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            vain: Mutex::default(),
            any_vain: AtomicBool::new(false),
        })
    }

    /// Begins a wait. Dropping it before [`Wait::ended`] counts as giving up.
    #[must_use]
    pub fn wait(self: &Arc<Self>) -> Wait {
        self.waiting.fetch_add(1, Relaxed);
        Wait { lane: Arc::clone(self), since: Instant::now(), ended: false }
    }

    /// A caller got a connection without waiting.
    pub fn at_once(&self) {
        if self.any_vain.swap(false, Relaxed) {
            *self.vain.lock() = None;
        }
    }

    /// The lane's name in the metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The number of waits so far.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }

    /// The total time of all waits.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited_micros.load(Relaxed))
    }

    /// The number of waits that were given up: at the caller's deadline, or because the answer was no longer needed.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// True if callers have kept giving up long waits for some seconds, and still did so lately.
    #[must_use]
    pub fn waits_in_vain(&self) -> bool {
        self.vain.lock().is_some_and(|Vain { first, last }| last - first >= VAIN_FOR && last.elapsed() <= VAIN_LATELY)
    }

    /// The number of callers that wait now.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}

/// One wait.
#[derive(Debug)]
pub struct Wait {
    lane: Arc<Lane>,
    since: Instant,
    ended: bool,
}

impl Wait {
    /// The caller got a connection.
    pub fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waited = self.since.elapsed();
        if !self.ended && waited >= LONG_WAIT {
            let mut vain = self.lane.vain.lock();
            let first = vain.filter(|vain| self.since - vain.last <= VAIN_LATELY).map_or(self.since, |vain| vain.first);
            *vain = Some(Vain { first: first.min(self.since), last: Instant::now() });
            self.lane.any_vain.store(true, Relaxed);
        } else if self.ended && waited < LONG_WAIT {
            self.lane.at_once();
        }
        let waited = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.lane.waiting.fetch_sub(1, Relaxed);
        self.lane.waits.fetch_add(1, Relaxed);
        self.lane.waited_micros.fetch_add(waited, Relaxed);
        self.lane.given_up.fetch_add(u64::from(!self.ended), Relaxed);
    }
}

/// Adds the counters of a process' connections to the database; the same for brokers and managers.
pub(super) fn store(text: &mut Text, lanes: &[Arc<Lane>]) {
    let each = |of: fn(&Lane) -> String| lanes.iter().map(move |lane| ([("lane", lane.name().to_owned())], of(lane)));
    let help = "Database calls that wait for a connection now.";
    text.metric(Kind::Gauge, "rmom_store_waiting", help, each(|lane| lane.waiting().to_string()));
    let help = "Database calls that waited for a connection.";
    text.metric(Kind::Counter, "rmom_store_waits_total", help, each(|lane| lane.waits().to_string()));
    let help = "Total time that database calls waited for a connection.";
    let seconds = each(|lane| lane.waited().as_secs_f64().to_string());
    text.metric(Kind::Counter, "rmom_store_wait_seconds_total", help, seconds);
    let help = "Database calls that gave up waiting for a connection.";
    text.metric(Kind::Counter, "rmom_store_waits_given_up_total", help, each(|lane| lane.given_up().to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ServeStats;

    #[tokio::test(start_paused = true)]
    async fn waits_are_counted_whether_they_end_or_are_given_up() {
        let lane = Lane::new("work");
        let (first, second) = (lane.wait(), lane.wait());
        assert_eq!((lane.waiting(), lane.waits()), (2, 0));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        first.ended();
        drop(second);
        assert_eq!((lane.waiting(), lane.waits(), lane.given_up()), (0, 2, 1));
        assert_eq!(lane.waited(), Duration::from_secs(3));
        let mut text = Text::new();
        store(&mut text, &[lane]);
        let page = text.finish();
        assert!(page.contains("rmom_store_wait_seconds_total{lane=\"work\"} 3\n"), "{page}");
        assert!(page.contains("rmom_store_waits_given_up_total{lane=\"work\"} 1\n"), "{page}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_after_a_long_wait_is_complained_of_for_a_while() {
        let stats = ServeStats::default();
        let lane = Lane::new("work");
        stats.watch_store(std::slice::from_ref(&lane));
        drop(lane.wait());
        assert_eq!(stats.complaints(), [""; 0], "it did not wait for long");
        let in_vain = async |time| {
            let wait = lane.wait();
            tokio::time::advance(time).await;
            drop(wait);
        };
        in_vain(LONG_WAIT).await;
        assert_eq!(stats.complaints(), [""; 0], "once is nothing to speak of");
        tokio::time::advance(VAIN_LATELY * 2).await;
        in_vain(LONG_WAIT).await;
        assert_eq!(stats.complaints(), [""; 0], "twice within a long time neither");
        tokio::time::advance(VAIN_FOR).await;
        lane.wait().ended();
        in_vain(LONG_WAIT).await;
        assert_eq!(stats.complaints(), [""; 0], "others had a connection meanwhile");
        tokio::time::advance(VAIN_FOR).await;
        in_vain(LONG_WAIT).await;
        assert!(stats.complaints()[0].contains("(work)"), "{:?}", stats.complaints());
        lane.at_once();
        assert_eq!(stats.complaints(), [""; 0]);
        in_vain(VAIN_LATELY * 2).await;
        assert!(stats.complaints()[0].contains("(work)"), "a deadline may be long: {:?}", stats.complaints());
        tokio::time::advance(VAIN_LATELY * 2).await;
        assert_eq!(stats.complaints(), [""; 0]);
    }
}
