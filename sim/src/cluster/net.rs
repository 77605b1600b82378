//! Byte streams over the simulated network.

use std::io;

use async_trait::async_trait;
use rmom_core::ports::{BoxIo, Listener, Transport};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network, as brokers, managers and clients see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNet;

#[async_trait]
impl Transport for SimNet {
    async fn connect(&self, authority: &str) -> io::Result<BoxIo> {
        Ok(Box::new(TcpStream::connect(authority).await?))
    }

    async fn bind(&self, authority: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimListener(TcpListener::bind(authority).await?)))
    }
}

#[async_trait]
impl rmom_client::Connector for SimNet {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn rmom_client::Io>> {
        Ok(Box::new(TcpStream::connect(authority).await?))
    }
}

struct SimListener(TcpListener);

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_addr(&self) -> String {
        self.0.local_addr().map_or_else(|error| error.to_string(), |addr| addr.to_string())
    }
}
