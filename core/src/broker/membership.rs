//! The broker as the store knows it: it registers, keeps its lease, and retires. The lease is kept in two tasks of their own that
//! nothing else holds up: one renews it, the other sees it run out.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    api::{BrokerError, BrokerExit},
    count::count,
    inner::Inner,
    queue::Context,
};
use crate::{
    model::{BrokerId, Generation, Incarnation, Renewals},
    ports::{Register, RegisterError, RenewError},
};

/// How soon the broker tries again to register.
const REGISTER_RETRY: Duration = Duration::from_millis(200);

/// Registers the broker, for as long as it takes the store to answer. Returns its id and the generation to begin with.
pub(super) async fn register(inner: &Inner, incarnation: Incarnation) -> (BrokerId, Generation) {
    let settings = &inner.settings;
    let mut register = Register { addr: settings.addr.clone(), incarnation, replaces: None, lease: settings.lease };
    loop {
        let asked_at = inner.moments.now();
        let attempt = inner.catalog.register_broker(&register);
        let error = match tokio::time::timeout(settings.store_timeout, attempt).await {
            Ok(Ok(registration)) => {
                inner.clock.read(asked_at.at, registration.store_time);
                inner.lease.renewed(asked_at, settings.lease);
                tracing::info!(broker = %registration.broker, addr = %settings.addr, %incarnation, "registered");
                return (registration.broker, registration.generation);
            }
            // The run before this one, or another process that starts now: the last one to register stays.
            Ok(Err(RegisterError::Taken { by })) => {
                register.replaces = Some(by);
                continue;
            }
            Ok(Err(RegisterError::Store(error))) => error.to_string(),
            Err(_) => format!("no answer within {:?}", settings.store_timeout),
        };
        mark!(RegistrationRetried);
        tracing::warn!(error, "cannot register with the store; trying again");
        tokio::time::sleep(REGISTER_RETRY).await;
    }
}

/// What the lease's task learnt from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Something changed that this broker should look at.
    pub(super) generation: Generation,
    /// How often the store was found to have gone back.
    pub(super) rolled_back: u64,
}

/// Sees the lease run out, at the instant, while the rest of this broker may wait for the store. Streams end, so that their
/// clients find the queues' next owner. The fence decides which appends on their way are still stored. Never ends.
pub(super) async fn watch_lease(inner: Arc<Inner>) -> BrokerExit {
    let mut lease = inner.lease.watch();
    loop {
        let until = *lease.borrow_and_update();
        tokio::select! {
            biased;
            Ok(()) = lease.changed() => {}
            () = async {
                match until {
                    Some(granted) => tokio::time::sleep_until(granted.until()).await,
                    None => pending().await,
                }
            } => if inner.lease.run_out() {
                tracing::error!("the lease ran out: the store does not answer, or this process was paused");
                mark!(LeaseRanOutPushing if inner.room.used() > 0,
                    else LeaseRanOutIdle);
                for handle in inner.queues.read().values() {
                    handle.shared.evict(&BrokerError::LeaseExpired);
                }
            },
        }
    }
}

/// Renews the lease; ends only when another run took this broker's place.
pub(super) async fn keep_lease(
    inner: Arc<Inner>,
    broker: BrokerId,
    incarnation: Incarnation,
    news: watch::Sender<News>,
) -> BrokerExit {
    let lease = inner.settings.lease;
    let (interval, retry) = (lease / 3, lease / 15);
    // One answer that is lost must not cost the lease.
    let timeout = inner.settings.store_timeout.min(interval);
    let mut renewals = Renewals::ZERO;
    let mut generation = news.borrow().generation;
    let mut wait = interval;
    // A failure that lasts is logged once.
    let mut failing = false;
    loop {
        tokio::time::sleep(wait).await;
        let asked_at = inner.moments.now();
        let attempt = inner.catalog.renew_broker(broker, incarnation, lease);
        let error = match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(renewal)) => {
                let lapsed = !inner.lease.is_current();
                if std::mem::take(&mut failing) {
                    tracing::info!(lapsed, "the store answers again: the lease is renewed");
                }
                mark!(LeaseCameBackUnchanged if lapsed && renewal.generation == generation);
                mark!(LeaseCameBackChanged if lapsed && renewal.generation != generation);
                inner.clock.read(asked_at.at, renewal.store_time);
                inner.lease.renewed(asked_at, lease);
                inner.draining.store(renewal.draining, Relaxed);
                let rolled_back = renewal.renewals <= renewals || renewal.generation < generation;
                if rolled_back {
                    tracing::error!(
                        found = renewal.renewals.get(),
                        expected = renewals.next().get(),
                        "the store was rolled back: an older copy was restored, or it lost data"
                    );
                }
                if rolled_back || lapsed || renewal.generation != generation {
                    news.send_modify(|news| {
                        news.generation = renewal.generation;
                        news.rolled_back += u64::from(rolled_back);
                    });
                }
                (renewals, generation) = (renewal.renewals, renewal.generation);
                wait = interval;
                continue;
            }
            Ok(Err(RenewError::Replaced)) => {
                tracing::error!(addr = %inner.settings.addr, "another process registered under this broker's host and port");
                return BrokerExit::Replaced;
            }
            Ok(Err(RenewError::Store(error))) => error.to_string(),
            Err(_) => format!("no answer within {timeout:?}"),
        };
        count(&inner.failed_renewals, 1);
        mark!(RenewalFailed);
        if std::mem::replace(&mut failing, true) {
            tracing::debug!(error, "cannot renew the lease; trying again");
        } else {
            tracing::warn!(error, "cannot renew the lease; trying again until the store answers");
        }
        wait = retry;
    }
}

/// Tells the store that the broker stops, so that managers need not wait for its lease to run out.
pub(super) async fn retire(inner: &Inner) {
    let Some(registered) = inner.registered.borrow().clone() else { return };
    let Context { broker, incarnation, .. } = *registered.context;
    let retire = inner.catalog.retire_broker(broker, incarnation);
    match tokio::time::timeout(inner.settings.store_timeout, retire).await {
        Ok(Ok(())) => tracing::info!(%broker, "retired"),
        Ok(Err(error)) => tracing::warn!(%error, "cannot retire; the lease will run out by itself"),
        Err(_) => tracing::warn!("no time to retire; the lease will run out by itself"),
    }
}
