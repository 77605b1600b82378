//! SQLite and the model of a store side by side: every operation on both has the same answer, even after the file is
//! reopened. The operations are those of the conformance suite (`rmom_core::store::conformance`).

pub mod seeds;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rmom_core::{
    model::StoreTime,
    ports::Store,
    store::conformance::{Harness, ManualClock, START, matches_the_model_on},
};
use rmom_net::store::{SqliteOptions, SqliteStore};
use tempfile::TempDir;
use tokio::{runtime::Builder, time::timeout};

/// An in-memory file system, if there is one.
const MEMORY: &str = "/dev/shm";
/// Longer than any sequence of operations takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file with empty tables, since creating it takes longer than most sequences.
static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();

struct Files {
    folder: TempDir,
    clock: Arc<ManualClock>,
    made: AtomicU32,
}

impl Files {
    fn new() -> Self {
        let folder = if Path::new(MEMORY).is_dir() { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder can be made");
        Self { folder, clock: Arc::new(ManualClock::new(START)), made: AtomicU32::new(0) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.made.load(Relaxed)))
    }

    async fn open(&self) -> Arc<dyn Store> {
        let options = SqliteOptions::new(self.file());
        Arc::new(SqliteStore::open(options, self.clock.clone()).await.expect("the file can be opened"))
    }
}

#[async_trait]
impl Harness for Files {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.made.fetch_add(1, Relaxed);
        self.clock.set(START);
        let file = self.file();
        if let Some(empty) = EMPTY.get() {
            fs::write(&file, empty).expect("the file can be written");
        }
        let store = self.open().await;
        // Before any connection, the file holds the whole database.
        EMPTY.get_or_init(|| fs::read(&file).expect("the file can be read"));
        store
    }

    async fn set_clock(&self, now: StoreTime) {
        self.clock.set(now);
    }

    async fn reopen(&self) -> Arc<dyn Store> {
        self.open().await
    }
}

/// Runs one input: operations, as `rmom_core` reads them from bytes.
///
/// # Panics
/// If the stores differ.
pub fn run(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let files = Files::new();
        let compared = timeout(PATIENCE, matches_the_model_on(&files, data)).await.expect("something hangs");
        if let Err(difference) = compared {
            panic!("{difference}");
        }
    });
}
