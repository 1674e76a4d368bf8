//! The program on top of the client's engine: it writes a known stream and checks what it reads, and acts only when an
//! event told it to.

use std::time::{Duration, Instant};

use ssmssh::datachannel::{CloseReason, DataChannel, Event};

use crate::{agent::ensure, rng::Rng};

/// The streams of the two directions.
pub(crate) const UP: usize = 1;
pub(crate) const DOWN: usize = 2;

/// The byte at `offset` of a stream: no two stretches of it are alike for long.
pub(crate) fn pattern(stream: usize, offset: usize) -> u8 {
    let mixed = (offset + stream * 7919).wrapping_mul(0x9e37_79b9) ^ (offset >> 9);
    mixed.to_le_bytes()[2]
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Bytes to write.
    pub(crate) to_write: usize,
    /// Largest single write.
    pub(crate) largest_write: usize,
    /// Between reads of one chunk; none to read all there is at once.
    pub(crate) read_pause: Option<Duration>,
    /// Bytes to read before it finishes.
    pub(crate) to_read: usize,
}

pub(crate) struct App {
    options: Options,
    pub(crate) written: usize,
    pub(crate) read: usize,
    may_write: bool,
    may_read: bool,
    next_read: Option<Instant>,
    pub(crate) is_finished: bool,
    pub(crate) closed: Option<CloseReason>,
}

impl App {
    pub(crate) fn new(options: Options) -> Self {
        let (may_write, may_read) = (false, false);
        let (next_read, is_finished, closed) = (None, false, None);
        Self { options, written: 0, read: 0, may_write, may_read, next_read, is_finished, closed }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.written == self.options.to_write && self.read == self.options.to_read
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.next_read.filter(|_| self.may_read)
    }

    pub(crate) fn handle_event(&mut self, event: Event) {
        match event {
            Event::Established { .. } | Event::Writable => self.may_write = true,
            Event::Readable => self.may_read = true,
            Event::Finished => self.is_finished = true,
            Event::Closed(reason) => self.closed = Some(reason),
            _ => {}
        }
    }

    pub(crate) fn act(&mut self, channel: &mut DataChannel, now: Instant, rng: &mut Rng) -> Result<(), String> {
        self.write_some(channel, now, rng);
        self.read_some(channel, now)?;
        if self.is_done() {
            channel.finish(now);
        }
        Ok(())
    }

    fn write_some(&mut self, channel: &mut DataChannel, now: Instant, rng: &mut Rng) {
        let rest = self.options.to_write - self.written;
        if !self.may_write || rest == 0 {
            return;
        }
        let length = rng.size(1..=self.options.largest_write).min(rest);
        let data: Vec<u8> = (self.written..self.written + length).map(|offset| pattern(UP, offset)).collect();
        let taken = channel.write(&data, now);
        self.written += taken;
        self.may_write = taken == length;
    }

    fn read_some(&mut self, channel: &mut DataChannel, now: Instant) -> Result<(), String> {
        while self.may_read && self.next_read.is_none_or(|next| next <= now) {
            let Some(bytes) = channel.read() else {
                self.may_read = false;
                break;
            };
            ensure(!bytes.is_empty(), || "read gave an empty chunk".into())?;
            for byte in bytes {
                let right = byte == pattern(DOWN, self.read);
                ensure(right, || format!("byte {} of the download is not what was sent", self.read))?;
                self.read += 1;
            }
            self.next_read = self.options.read_pause.map(|pause| now + pause);
        }
        Ok(())
    }

    /// Whether it would write on without waiting for anything.
    pub(crate) fn has_more_to_write(&self) -> bool {
        self.may_write && self.written < self.options.to_write
    }
}
