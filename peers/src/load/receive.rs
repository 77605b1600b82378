//! Receiving over one connection.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Clock, Error, Figures, Receiver, header};

/// How long nothing may come that is due.
const PATIENCE: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 << 10;

/// Receives and checks everything up to the `total`, once that is known; says now and then how many that were so far.
pub(crate) fn receive_all(
    clock: Clock,
    receiver: Receiver,
    total: &AtomicU64,
    so_far: &dyn Fn(u64),
) -> Result<Figures, Error> {
    let (stream, mut protocol) = receiver;
    let mut figures = Figures::new(&clock.load);
    let mut wanted = 0;
    read(stream, |input, out| {
        let now = clock.now();
        let mut seen = |content: &[u8]| {
            let (found, due) = header(content)?;
            if found != wanted {
                return Err(Error::Broken { wanted, found });
            }
            wanted += 1;
            if clock.is_measured(now) {
                figures.delivered += 1;
            }
            if clock.is_measured(due) {
                figures.received_after.saturating_record(now.saturating_sub(due));
            }
            Ok(())
        };
        let used = protocol.received(input, out, &mut seen)?;
        so_far(wanted);
        Ok((used, wanted >= total.load(Relaxed)))
    })?;
    Ok(figures)
}

/// Reads until `take` says that this is the end; what it did not use it is given again with more.
pub(super) fn read(
    mut stream: TcpStream,
    mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, bool), Error>,
) -> Result<(), Error> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut input = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut out = Vec::new();
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(Error::Protocol("the connection ended".to_owned()));
        }
        input.extend_from_slice(&chunk[..count]);
        let (used, is_end) = take(&input, &mut out)?;
        input.drain(..used);
        if is_end {
            return Ok(());
        }
        if !out.is_empty() {
            stream.write_all(&out)?;
            out.clear();
        }
    }
}
