//! What is to go wrong, switch by switch.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use super::LabBuilder;
use crate::faults::{Cut, Faults, Oversize};

impl LabBuilder {
    /// Everything that is to go wrong. Replaces what was set before.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// One-way delay of every relayed message; see [`Faults::delay`].
    pub fn delay(mut self, delay: Duration) -> Self {
        self.faults.delay = delay;
        self
    }

    /// Most random delay on top; see [`Faults::jitter`].
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.faults.jitter = jitter;
        self
    }

    /// Share of messages lost; see [`Faults::loss`].
    pub fn loss(mut self, probability: f64) -> Self {
        self.faults.loss = probability;
        self
    }

    /// Share of messages doubled; see [`Faults::duplicate`].
    pub fn duplicate(mut self, probability: f64) -> Self {
        self.faults.duplicate = probability;
        self
    }

    /// Share of messages overtaken; see [`Faults::reorder`].
    pub fn reorder(mut self, probability: f64) -> Self {
        self.faults.reorder = probability;
        self
    }

    /// Seed of the faults; see [`Faults::seed`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.faults.seed = seed;
        self
    }

    /// Cuts the client's socket once in each session, after this many relayed messages; see [`Faults::cut_after_messages`].
    pub fn cut_after_messages(mut self, cut: Cut, messages: u64) -> Self {
        (self.faults.cuts, self.faults.cut_after_messages) = (vec![cut], Some(messages));
        self
    }

    /// Cuts each client socket this long after it was opened; see [`Faults::cut_every`].
    pub fn cut_every(mut self, cut: Cut, interval: Duration) -> Self {
        (self.faults.cuts, self.faults.cut_every) = (vec![cut], Some(interval));
        self
    }

    /// Lets ResumeSession answer without a token; see [`Faults::refuse_resume`].
    pub fn refuse_resume(mut self) -> Self {
        self.faults.refuse_resume = true;
        self
    }

    /// The cuts to come, in turn; see [`Faults::cuts`]. To be called after the methods that name one cut.
    pub fn cuts(mut self, cuts: impl IntoIterator<Item = Cut>) -> Self {
        self.faults.cuts = cuts.into_iter().collect();
        self
    }

    /// Lets the cuts that come by themselves hit one session only; see [`Faults::cut_session`].
    pub fn cut_session(mut self, number: NonZeroUsize) -> Self {
        self.faults.cut_session = Some(number);
        self
    }

    /// How long [`Cut::Silence`] lasts; see [`Faults::silence`].
    pub fn silence(mut self, duration: Duration) -> Self {
        self.faults.silence = Some(duration);
        self
    }

    /// Cuts the client's socket after every so many relayed messages; see [`Faults::cut_every_messages`].
    pub fn cut_every_messages(mut self, cut: Cut, messages: NonZeroU64) -> Self {
        (self.faults.cuts, self.faults.cut_every_messages) = (vec![cut], Some(messages));
        self
    }

    /// Cuts the client's socket during the handshake, so many times; see [`Faults::cut_handshakes`].
    pub fn cut_handshakes(mut self, cut: Cut, times: u32) -> Self {
        (self.faults.cuts, self.faults.cut_handshakes) = (vec![cut], times);
        self
    }

    /// Bytes a second each way; see [`Faults::rate`].
    pub fn rate(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.faults.rate = Some(bytes_per_second);
        self
    }

    /// Bytes that queue in front of a link with a rate; see [`Faults::queue`].
    pub fn queue(mut self, bytes: usize) -> Self {
        self.faults.queue = bytes;
        self
    }

    /// Frames a second that a client may send; see [`Faults::frame_limit`].
    pub fn frame_limit(mut self, frames_per_second: NonZeroU32) -> Self {
        self.faults.frame_limit = Some(frames_per_second);
        self
    }

    /// Largest payload that is taken from a client, and what becomes of a larger one; see [`Faults::payload_limit`].
    pub fn payload_limit(mut self, bytes: usize, oversize: Oversize) -> Self {
        (self.faults.payload_limit, self.faults.oversize) = (Some(bytes), oversize);
        self
    }

    /// Gives the service's own messages their oddities; see [`Faults::odd_messages`].
    pub fn odd_messages(mut self) -> Self {
        self.faults.odd_messages = true;
        self
    }

    /// Sends the client malformed frames in between; see [`Faults::malformed_every`].
    pub fn malformed_every(mut self, messages: NonZeroU64) -> Self {
        self.faults.malformed_every = Some(messages);
        self
    }

    /// Sends the client one frame of this size first; see [`Faults::oversized_frame`].
    pub fn oversized_frame(mut self, bytes: usize) -> Self {
        self.faults.oversized_frame = Some(bytes);
        self
    }

    /// Sends messages to the client in fragments; see [`Faults::fragment`].
    pub fn fragment(mut self, bytes: NonZeroUsize) -> Self {
        self.faults.fragment = Some(bytes);
        self
    }

    /// Ends sessions without data; see [`Faults::idle_timeout`].
    pub fn idle_timeout(mut self, duration: Duration) -> Self {
        self.faults.idle_timeout = Some(duration);
        self
    }

    /// Ends sessions that are too old; see [`Faults::max_duration`].
    pub fn max_duration(mut self, duration: Duration) -> Self {
        self.faults.max_duration = Some(duration);
        self
    }

    /// Lets the server behind the node hang; see [`Faults::stalled_port`].
    pub fn stalled_port(mut self) -> Self {
        self.faults.stalled_port = true;
        self
    }
}
