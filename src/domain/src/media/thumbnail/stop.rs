//! Work that can be told to stop: a decoder cannot be ended, but it fails when it reads on.

use std::{
    io::{self, BufRead, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::media::SeekRead;

/// Whether to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// What reads fails from now on.
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

/// A source that fails once it is told to stop.
pub(super) struct Stoppable {
    source: Box<dyn SeekRead>,
    stop: Stop,
}

impl Stoppable {
    pub(super) fn new(source: Box<dyn SeekRead>, stop: Stop) -> Self {
        Self { source, stop }
    }
}

impl Read for Stoppable {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.source.read(into)
    }
}

impl BufRead for Stoppable {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stop.check()?;
        self.source.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.source.consume(amount);
    }
}

impl Seek for Stoppable {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.stop.check()?;
        self.source.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_after_a_stop() -> io::Result<()> {
        let stop = Stop::default();
        let source = Box::new(io::Cursor::new(vec![1, 2, 3]));
        let mut source = Stoppable::new(source, stop.clone());
        let mut byte = [0];
        source.read_exact(&mut byte)?;
        assert_eq!(byte, [1]);
        stop.now();
        let ended = io::ErrorKind::TimedOut;
        assert_eq!(
            source.read(&mut byte).map_err(|error| error.kind()),
            Err(ended)
        );
        assert_eq!(source.rewind().map_err(|error| error.kind()), Err(ended));
        let filled = source.fill_buf().map(<[u8]>::len);
        assert_eq!(filled.map_err(|error| error.kind()), Err(ended));
        Ok(())
    }
}
