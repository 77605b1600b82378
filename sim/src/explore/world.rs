//! The cluster from the point of view of an application's test.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_client::Client;
use tokio::time::sleep;

use super::{Explore, TestError, faults::Schedule};
use crate::{Cluster, SimError};

/// The time after which a service that ended is restarted, like by a supervisor.
const RESTART: Duration = Duration::from_secs(1);
/// The limit on simulated time for setting up.
const SETUP: Duration = Duration::from_secs(30);

/// A cluster, the services of an application on hosts of their own, and all faults.
///
/// There are no faults until time first passes in [`World::run_until`] or [`World::run_for`].
pub struct World<'a> {
    cluster: Cluster,
    services: Vec<String>,
    settings: &'a Explore,
    schedule: Option<Schedule>,
    log: &'a Mutex<Vec<String>>,
    setups: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(settings: &'a Explore, seed: u64, log: &'a Mutex<Vec<String>>) -> Self {
        let cluster =
            Cluster::builder(seed).managers(settings.managers).brokers(settings.brokers).limit(Duration::MAX).build();
        Self { cluster, services: Vec::new(), settings, schedule: None, log, setups: 0 }
    }

    /// Runs a task to its end in the absence of faults, for example to create queues and channels.
    ///
    /// # Errors
    /// The task's error, or that it takes too long.
    pub fn setup<T, F>(&mut self, act: impl FnOnce(Client) -> F + 'static) -> Result<T, TestError>
    where
        T: 'static,
        F: Future<Output = Result<T, TestError>> + 'static,
    {
        assert!(self.schedule.is_none(), "set up before time passes");
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        self.setups += 1;
        self.cluster.client(&format!("setup-{}", self.setups), |client| async move {
            while !client.admin().brokers().await.is_ok_and(|brokers| brokers.iter().any(|broker| broker.live)) {
                sleep(Duration::from_millis(50)).await;
            }
            *place.lock() = Some(act(client).await);
            Ok(())
        });
        let deadline = self.cluster.elapsed() + SETUP;
        self.cluster.run_until(|cluster| result.lock().is_some() || cluster.elapsed() >= deadline)?;
        let result = result.lock().take();
        result.unwrap_or_else(|| Err(SimError::TimeUp(SETUP).into()))
    }

    /// Starts a service on a host of its own, with a client that knows all managers. When its host crashes or the service
    /// returns, it is restarted by another call of `service`, which has to bring everything that survives (its database, for
    /// example).
    pub fn service<F>(&mut self, name: &str, service: impl Fn(Client) -> F + 'static)
    where
        F: Future<Output = Result<(), TestError>> + 'static,
    {
        let service = Arc::new(service);
        self.services.push(name.to_owned());
        self.cluster.service(name, move |client| {
            let service = service.clone();
            async move {
                loop {
                    // A supervisor restarts a service for any reason. The test itself checks for errors.
                    let _ended = service(client.clone()).await;
                    sleep(RESTART).await;
                }
            }
        });
    }

    /// Lets time pass, with faults, until `done` returns true.
    ///
    /// # Errors
    /// If `done` is still false when the patience is over, or the simulation fails.
    pub fn run_until(&mut self, mut done: impl FnMut() -> bool) -> Result<(), TestError> {
        self.advance(|_| done())
    }

    /// Lets this much simulated time pass, with faults.
    ///
    /// # Errors
    /// If the patience is over, or the simulation fails.
    pub fn run_for(&mut self, time: Duration) -> Result<(), TestError> {
        let end = self.cluster.elapsed() + time;
        self.advance(|now| now >= end)
    }

    fn advance(&mut self, mut done: impl FnMut(Duration) -> bool) -> Result<(), TestError> {
        let (cluster, settings) = (&mut self.cluster, self.settings);
        let schedule = match &mut self.schedule {
            Some(schedule) => schedule,
            empty => empty.insert(Schedule::new(cluster, settings, &self.services)),
        };
        let began = schedule.began();
        while !done(cluster.elapsed()) {
            schedule.advance(cluster, self.log);
            if cluster.elapsed() >= began + settings.faults_last + settings.patience {
                let patience = settings.patience;
                return Err(format!("not done within {patience:?} after all faults were over: something hangs").into());
            }
            cluster.tick()?;
        }
        Ok(())
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.cluster.elapsed()
    }

    /// The cluster, for tests that inject faults themselves.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}
