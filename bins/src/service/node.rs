//! A broker or manager together with its server: a unit that runs, stops and crashes.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use rmom_core::ports::Listener;
use rmom_net::serve::{ServeSettings, ServeStats, serve};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

/// The reason why a node ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEnd<E> {
    /// Its core ended, with this reason.
    Core(E),
    /// It panicked: a defect.
    Panicked(String),
}

/// A listening server, which gets its core later.
pub struct Node<E> {
    server: JoinHandle<()>,
    stop: CancellationToken,
    core: Option<JoinHandle<E>>,
}

impl<E: Send + 'static> Node<E> {
    /// Serves a router at once. `router` gets the token that tells it to end its streams.
    #[must_use]
    pub fn serve(
        listener: Box<dyn Listener>,
        settings: ServeSettings,
        stats: Arc<ServeStats>,
        router: impl FnOnce(CancellationToken) -> Router,
    ) -> Self {
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router(stop.clone()), settings, stats, stop.clone()));
        Self { server, stop, core: None }
    }

    /// Cancelled when the server stops.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Sets the core's task; when it ends, the node ends.
    pub fn set_core(&mut self, core: JoinHandle<E>) {
        self.core = Some(core);
    }

    /// Waits until the node ends by itself. Cancel-safe.
    pub async fn ended(&mut self) -> NodeEnd<E> {
        let core = async {
            match &mut self.core {
                Some(core) => core.await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            biased;
            end = core => end,
            end = &mut self.server => match end {
                Ok(()) => return NodeEnd::Panicked("the server ended without being asked to".to_owned()),
                Err(error) => Err(error),
            },
        };
        // A finished task must not be awaited again.
        self.core = None;
        end.map_or_else(|error| NodeEnd::Panicked(panic_text(error)), NodeEnd::Core)
    }

    /// Stops in good order: first the core, through `stop_core`, then the server. Has no time limit of its own.
    pub async fn shutdown(mut self, stop_core: impl Future<Output = ()>) {
        stop_core.await;
        self.stop.cancel();
        let _ = (&mut self.server).await;
    }

    /// Ends at once, like a killed process: connections are closed, nothing is handed over. Returns when everything has
    /// ended, so that the port is free again.
    pub async fn crash(mut self) {
        self.server.abort();
        let core = self.core.take();
        if let Some(core) = &core {
            core.abort();
        }
        let _ = (&mut self.server).await;
        if let Some(core) = core {
            let _ = core.await;
        }
    }
}

impl<E> Drop for Node<E> {
    fn drop(&mut self) {
        self.server.abort();
        if let Some(core) = &self.core {
            core.abort();
        }
    }
}

fn panic_text(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was aborted".to_owned() };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "it panicked".to_owned(), |text| (*text).to_owned()),
    }
}

/// How long requests in flight may take once the core has stopped.
#[must_use]
pub fn serve_settings(shutdown_deadline: Duration) -> ServeSettings {
    ServeSettings { shutdown_deadline, ..ServeSettings::default() }
}
