//! The environment of a run: a cluster, queues, measurement of costs, and progress.

use std::{
    fmt::Write as _,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget};
use rmom_client::{Client, Error, NewMessage};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::transport::Endpoint;

use super::{
    args::TargetArgs,
    clock::{Clock, Micros},
    cluster::OwnCluster,
    payload::Broken,
    usage::{Cost, Usage},
};
use crate::cli::{
    args::TlsArgs,
    error::CliError,
    output::{count, tell},
    session::Session,
};
use crate::service::authority;

/// Limit on the administrative calls at once.
const ADMIN_CALLS: usize = 32;
/// How long the end of a run may take to delete its queues.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// Pause before a busy cluster is called again.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(250);
/// How long an awaited message may be missing before it counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Lifetime of messages: they outlive every run, even if the brokers' default lifetime is shorter.
pub(super) const TTL: Duration = Duration::from_secs(2 * 3_600);

/// See the module's documentation.
pub(super) struct Env {
    pub(super) session: Session,
    pub(super) own: Option<OwnCluster>,
    tls: bool,
    run: String,
    queues: Mutex<Vec<String>>,
    progress: ProgressBar,
}

impl Env {
    /// Starts a cluster if the arguments ask for one.
    pub(super) async fn start(
        target: &TargetArgs,
        default_brokers: u16,
        managers: &[String],
        tls: &TlsArgs,
    ) -> Result<Self, CliError> {
        let own = OwnCluster::start(target, default_brokers).await?;
        let session = match &own {
            Some(own) => Session::new(std::slice::from_ref(&own.manager), &TlsArgs::default(), |builder| builder),
            None => Session::new(managers, tls, |builder| builder),
        }?;
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        // Hidden if standard error is not a terminal.
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let run = format!("bench-{nanos:x}-{}", std::process::id());
        let tls = own.is_none() && tls.ca.is_some();
        Ok(Self { session, own, tls, run, queues: Mutex::default(), progress })
    }

    /// Waits until a cluster that was started here is ready.
    pub(super) async fn ready(&self) -> Result<(), CliError> {
        let Some(own) = &self.own else { return Ok(()) };
        let ready = timeout(PATIENCE, all_live(&self.session, own.brokers.len())).await;
        ready.map_err(|_| CliError::unavailable("the brokers did not start"))?
    }

    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }

    pub(super) fn explain(&self, error: &Error) -> CliError {
        self.session.explain(error)
    }

    /// The broker of a queue, for connections without the client library.
    pub(super) async fn endpoint(&self, queue: &str) -> Result<Endpoint, CliError> {
        if self.tls {
            return Err(CliError::usage(
                "unary calls, --resend, and subscribers that share connections are measured without TLS",
            ));
        }
        let queue = self.client().admin().queue(queue).await.map_err(|error| self.explain(&error))?;
        let authority = authority(&queue.host.unwrap_or_default(), queue.port.unwrap_or_default());
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(CliError::unavailable)?;
        Ok(endpoint.tcp_nodelay(true))
    }

    /// Creates queues that are deleted at the end.
    pub(super) async fn create_queues(&self, number: u32) -> Result<Vec<String>, CliError> {
        let labels: Vec<String> = (0..number).map(|number| format!("{}-{number}", self.run)).collect();
        self.lock().extend(labels.iter().cloned());
        let admin = self.client().admin();
        let created = AtomicU64::new(0);
        let create = |label: &String| {
            let (admin, label) = (admin.clone(), label.clone());
            let created = &created;
            async move {
                // A queue created by a call whose answer was lost counts as created.
                let create = || async {
                    match admin.create_queue(&label).await {
                        Err(error) if error.code() != "QUEUE_EXISTS" => Err(error),
                        _ => Ok(()),
                    }
                };
                let result = self.patiently(create).await;
                self.tell_count("creating queues", created.fetch_add(1, Relaxed) + 1);
                result
            }
        };
        let done = stream::iter(labels.iter().map(create)).buffer_unordered(ADMIN_CALLS).try_collect::<Vec<()>>();
        done.await.map_err(|error| self.explain(&error))?;
        Ok(labels)
    }

    /// Does `work` for each of `0..number`, several at once.
    pub(super) async fn for_each<T, F: Future<Output = Result<T, Error>>>(
        &self,
        number: u32,
        work: impl Fn(u32) -> F,
    ) -> Result<Vec<T>, CliError> {
        let work = &work;
        let calls = (0..number).map(|number| self.patiently(move || work(number)));
        let done = stream::iter(calls).buffered(ADMIN_CALLS).try_collect();
        done.await.map_err(|error| self.explain(&error))
    }

    /// Repeats a call while a cluster that was started here is too busy to answer in time, as it will recover. Other
    /// clusters may not.
    async fn patiently<T, F: Future<Output = Result<T, Error>>>(&self, call: impl Fn() -> F) -> Result<T, Error> {
        let started = Instant::now();
        loop {
            match call().await {
                Err(error) if error.is_retryable() && self.own.is_some() && started.elapsed() < PATIENCE => {
                    sleep(BUSY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The usage of this process, and of those that it started.
    pub(super) fn usages(&self) -> Vec<(String, Usage)> {
        let this = Usage::of(std::process::id()).map(|usage| ("rmom bench".to_owned(), usage));
        let own = self.own.iter().flat_map(OwnCluster::usages);
        own.chain(this).collect()
    }

    /// The costs of the processes during the measured time.
    pub(super) async fn costs(&self, clock: &Clock) -> Vec<Cost> {
        tokio::time::sleep_until(clock.instant(clock.measured_from)).await;
        let before = self.usages();
        tokio::time::sleep_until(clock.instant(clock.end)).await;
        self.costs_since(before)
    }

    pub(super) fn costs_since(&self, before: Vec<(String, Usage)>) -> Vec<Cost> {
        let after = self.usages();
        let cost = |(name, before): (String, Usage)| {
            let (_, after) = after.iter().find(|(other, _)| *other == name)?;
            Some(Cost::between(name, before, *after))
        };
        before.into_iter().filter_map(cost).collect()
    }

    /// Shows the current step.
    pub(super) fn tell(&self, what: impl Into<String>) {
        self.progress.set_message(what.into());
        self.progress.set_style(style());
        self.progress.tick();
    }

    fn tell_count(&self, what: &str, number: u64) {
        self.tell(format!("{what}: {}", count(number)));
    }

    /// Shows a growing number while `work` is done.
    pub(super) async fn watch<T>(&self, what: &str, grows: &AtomicU64, work: impl Future<Output = T>) -> T {
        let mut ticks = interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let show = async {
            let mut last = grows.load(Relaxed);
            loop {
                ticks.tick().await;
                let now = grows.load(Relaxed);
                let rate = (now - last) as f64 / PROGRESS.as_secs_f64();
                let mut line = format!("{what}: {}", count(now));
                let _ = write!(line, ", {} a second", count(rate as u64));
                self.tell(line);
                last = now;
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            () = show => unreachable!("it never ends"),
        }
    }

    /// Deletes the queues, and stops the cluster if it was started here.
    pub(super) async fn end(self) {
        self.tell("cleaning up");
        let queues = std::mem::take(&mut *self.lock());
        // A cluster started for the run goes as a whole.
        if self.own.is_none() {
            let admin = self.client().admin();
            let delete = |label: String| {
                let admin = admin.clone();
                async move { u64::from(admin.delete_queue(&label).await.is_err_and(|e| e.code() != "QUEUE_NOT_FOUND")) }
            };
            let all = stream::iter(queues).map(delete).buffer_unordered(ADMIN_CALLS);
            let left = timeout(CLEAN_UP, all.fold(0, |sum, left| async move { sum + left })).await;
            match left {
                Ok(0) => {}
                Ok(left) => tell(format_args!("rmom: {left} queues of the run are left behind: {}-…", self.run)),
                Err(_) => tell(format_args!("rmom: queues of the run are left behind: {}-…", self.run)),
            }
        }
        self.progress.finish_and_clear();
        if let Some(own) = self.own {
            own.stop().await;
        }
    }
}

/// Waits until the manager counts this many brokers as alive.
async fn all_live(session: &Session, number: usize) -> Result<(), CliError> {
    loop {
        let brokers = session.client.admin().brokers().await.map_err(|error| session.explain(&error))?;
        if brokers.iter().filter(|broker| broker.live).count() == number {
            return Ok(());
        }
        pause().await;
    }
}

fn style() -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template("{msg}").unwrap_or_else(|_| indicatif::ProgressStyle::default_bar())
}

/// A message of a run.
pub(super) fn message(content: bytes::Bytes, number: u64, topics: u32) -> NewMessage {
    let message = NewMessage::new(content).ttl(TTL);
    match topics {
        0 => message,
        topics => message.topic(topic(number % u64::from(topics))),
    }
}

/// The name of a topic; topics count from 0.
pub(super) fn topic(number: u64) -> String {
    format!("topic-{number}")
}

/// The error of a broken promise: the run has failed, regardless of its measurements.
pub(super) fn broken(who: &str, broken: &Broken) -> CliError {
    CliError::refused(format_args!("{who}: {broken}"))
}

/// Waits until a time of the run.
pub(super) async fn until(clock: &Clock, at: Micros) {
    tokio::time::sleep_until(clock.instant(at)).await;
}

/// The results of all tasks in order, or at once the error of the first that fails.
pub(super) async fn join<T>(tasks: Vec<Task<T>>) -> Result<Vec<T>, CliError> {
    let numbered =
        tasks.into_iter().enumerate().map(|(index, task)| async move { task.await.map(|done| (index, done)) });
    let mut done: Vec<(usize, T)> = numbered.collect::<stream::FuturesUnordered<_>>().try_collect().await?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, done)| done).collect())
}

/// A task that ends with its handle.
pub(super) struct Task<T>(tokio::task::JoinHandle<Result<T, CliError>>);

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(work: impl Future<Output = Result<T, CliError>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, CliError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|result| {
            result.unwrap_or_else(|error| Err(CliError::refused(format_args!("a task of the run ended: {error}"))))
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A number that tasks increase, and that progress shows.
pub(super) type Counter = Arc<AtomicU64>;

/// Pauses briefly between checks of a condition.
pub(super) async fn pause() {
    sleep(Duration::from_millis(2)).await;
}
