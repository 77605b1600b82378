//! A transport within the process, for tests: deterministic, and under tokio's paused clock.

use std::{collections::BTreeMap, io, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use rmom_core::ports::{BoxIo, Listener, Transport};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

/// Bytes that a pipe holds before the writer has to wait for its reader.
const PIPE_BYTES: usize = 64 << 10;

/// Pipes by name; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pipes(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>>>);

impl Pipes {
    /// Listens at a name; a later call for the same name takes it over.
    #[must_use]
    pub fn listen(&self, authority: &str) -> Box<dyn Listener> {
        let (connect, accept) = mpsc::unbounded_channel();
        self.0.lock().insert(authority.to_owned(), connect);
        Box::new(PipeListener { accept, authority: authority.to_owned() })
    }

    /// Connects to a name.
    ///
    /// # Errors
    /// There is no listener of that name.
    pub fn dial(&self, authority: &str) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (near, far) = duplex(PIPE_BYTES);
        self.0.lock().get(authority).ok_or_else(refused)?.send(far).map_err(|_| refused())?;
        Ok(near)
    }
}

#[async_trait]
impl Transport for Pipes {
    async fn connect(&self, authority: &str) -> io::Result<BoxIo> {
        Ok(Box::new(self.dial(authority)?))
    }

    async fn bind(&self, authority: &str) -> io::Result<Box<dyn Listener>> {
        Ok(self.listen(authority))
    }
}

struct PipeListener {
    accept: mpsc::UnboundedReceiver<DuplexStream>,
    authority: String,
}

#[async_trait]
impl Listener for PipeListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        match self.accept.recv().await {
            Some(stream) => Ok((Box::new(stream), format!("peer of {}", self.authority))),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> String {
        self.authority.clone()
    }
}
