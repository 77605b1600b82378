//! Sources of randomness that libraries use.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use rand::Rng as _;
use tokio::task::JoinSet;

/// A source of values that may differ between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The iteration order of a std hash map.
    HashMap,
    /// The wall clock.
    SystemTime,
    /// The monotonic clock.
    Instant,
    /// A random UUID.
    Uuid,
    /// The thread's generator.
    Rng,
    /// The branch that `tokio::select!` takes if several are ready.
    Select,
}

impl Source {
    pub(crate) const ALL: [Self; 6] =
        [Self::HashMap, Self::SystemTime, Self::Instant, Self::Uuid, Self::Rng, Self::Select];

    /// True if it differs from seed to seed; clocks do not.
    pub(crate) fn is_random(self) -> bool {
        !matches!(self, Self::SystemTime | Self::Instant)
    }

    /// Reads a value from it.
    pub(crate) async fn ask(self) -> String {
        match self {
            Self::HashMap => {
                let map: HashMap<u32, u32> = (0..16).map(|n| (n, n)).collect();
                format!("{:?}", map.into_keys().collect::<Vec<_>>())
            }
            Self::SystemTime => format!("{:?}", SystemTime::now()),
            Self::Instant => {
                // The difference of two readings is all that can be shown, so real time must pass before the second.
                let start = Instant::now();
                std::thread::sleep(Duration::from_micros(50));
                format!("{:?} {:?}", start.elapsed(), start)
            }
            Self::Uuid => uuid::Uuid::new_v4().to_string(),
            Self::Rng => format!("{}", rand::rng().random::<u64>()),
            Self::Select => {
                let mut taken = Vec::new();
                for _ in 0..32 {
                    taken.push(tokio::select! {
                        () = async {} => 'a',
                        () = async {} => 'b',
                        () = async {} => 'c',
                    });
                }
                taken.into_iter().collect()
            }
        }
    }
}

/// The value that it gives on this thread, outside of a simulated host.
pub(crate) fn outside(source: Source) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(source.ask())
}

/// Tasks that report when they are dropped, as a crash does; their order is a source of randomness too.
pub(crate) fn dropped_at_a_crash(note: impl Fn(u32) + Clone + Send + 'static) -> JoinSet<()> {
    struct Last<F: Fn(u32)>(F, u32);
    impl<F: Fn(u32)> Drop for Last<F> {
        fn drop(&mut self) {
            self.0(self.1);
        }
    }
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let last = Last(note.clone(), number);
        tasks.spawn(async move {
            let _last = last;
            std::future::pending::<()>().await;
        });
    }
    tasks
}
