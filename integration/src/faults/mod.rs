//! The switchboard: what the lab does wrong.

mod link;
mod meter;

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

pub(crate) use link::Link;
pub(crate) use meter::Meter;

/// How the lab cuts a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Close code 1000 and the reason `Bye`, as the service does every hour.
    Bye,
    /// A TCP reset, without a word.
    Reset,
    /// The socket stays open and nothing passes either way, pings included, for as long as [`Faults::silence`] says. What
    /// was on its way comes after it, as from a network that was gone for a while. A new socket takes its place at any time.
    Silence,
}

/// What becomes of a message above [`Faults::payload_limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Oversize {
    /// It is dropped, again and again as it is resent.
    #[default]
    Drop,
    /// The client's socket is closed with code 1009.
    Close,
}

/// What the lab does wrong. The default is nothing.
///
/// Delay, jitter, rate, loss, duplication and reordering apply to every binary message that the gateway relays, data and
/// acknowledgements alike, in both directions. They are drawn from `seed`, so a run can be repeated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// One-way delay of every relayed message. Default zero.
    pub delay: Duration,
    /// Most that is added to `delay`, drawn anew for each message; the order is kept. Default zero.
    pub jitter: Duration,
    /// Bytes a second that pass each way, before the delay. Default without limit.
    pub rate: Option<NonZeroU64>,
    /// Bytes that queue in front of a link with a rate before the gateway stops reading its socket. Default 1 MiB: enough
    /// for a standing queue to be felt.
    pub queue: usize,
    /// Probability, 0 to 1, that a message is dropped. Default 0.
    pub loss: f64,
    /// Probability, 0 to 1, that a message is relayed twice. Default 0.
    pub duplicate: f64,
    /// Probability, 0 to 1, that a message is held back by `reorder_by`, so that later ones overtake it. Default 0.
    pub reorder: f64,
    /// How long a message that is to be overtaken is held back. Default 5 ms.
    pub reorder_by: Duration,
    /// Seed of all the draws. Default 1.
    pub seed: u64,
    /// How the client's socket is cut by the fields below, in turn within each session. Default [`Cut::Bye`] alone; empty is
    /// the same.
    pub cuts: Vec<Cut>,
    /// The one session that the fields below cut, by its number: 1 is the first that was started. Default all of them.
    pub cut_session: Option<NonZeroUsize>,
    /// How long [`Cut::Silence`] lasts. Default none: for ever.
    pub silence: Option<Duration>,
    /// Cuts the client's socket once in each session, after this many messages relayed in both directions together.
    /// Default never.
    pub cut_after_messages: Option<u64>,
    /// Cuts the client's socket after every so many messages relayed in both directions together. Default never.
    pub cut_every_messages: Option<NonZeroU64>,
    /// Cuts each client socket, the resumed ones too, this long after it was opened, and a socket that outlives the cut
    /// again. Default never.
    pub cut_every: Option<Duration>,
    /// Cuts the client's socket in place of passing the agent's handshake request on, this many times in each session.
    /// Default 0.
    pub cut_handshakes: u32,
    /// Frames that a client may send in a second. Who sends more for two seconds on end is cut, and publication is paused
    /// for the agent, as is told of the service. Default without limit.
    pub frame_limit: Option<NonZeroU32>,
    /// Largest payload of a client's message that is taken. Default without limit.
    pub payload_limit: Option<usize>,
    /// What becomes of a message with a larger one. Default [`Oversize::Drop`].
    pub oversize: Oversize,
    /// Gives the service's own messages the oddities that are told of the real ones: a wrong digest and a length in the
    /// wrong byte order, a type padded with NUL, the payload type 261. Default off.
    pub odd_messages: bool,
    /// Before every so many messages for the client comes a malformed frame, each time of another kind: too short, with an
    /// impossible header, with a wrong digest, and so on. Default never.
    pub malformed_every: Option<NonZeroU64>,
    /// Once in each session a frame of this many bytes, of a type that nobody knows, comes first. Default never.
    pub oversized_frame: Option<usize>,
    /// Messages for the client are sent in WebSocket fragments of at most this many bytes. Default whole.
    pub fragment: Option<NonZeroUsize>,
    /// Ends a session through which no data passed for this long, as the service does. Default never.
    pub idle_timeout: Option<Duration>,
    /// Ends a session this long after its start, as the service does. Default never.
    pub max_duration: Option<Duration>,
    /// ResumeSession answers as it does for a session that is over: without a token. Default off.
    pub refuse_resume: bool,
    /// The server behind the node hangs: it takes connections, and neither reads nor writes. Default off.
    pub stalled_port: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            queue: 1 << 20,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            seed: 1,
            cuts: vec![Cut::Bye],
            cut_session: None,
            silence: None,
            cut_after_messages: None,
            cut_every_messages: None,
            cut_every: None,
            cut_handshakes: 0,
            frame_limit: None,
            payload_limit: None,
            oversize: Oversize::default(),
            odd_messages: false,
            malformed_every: None,
            oversized_frame: None,
            fragment: None,
            idle_timeout: None,
            max_duration: None,
            refuse_resume: false,
            stalled_port: false,
        }
    }
}

impl Faults {
    /// What is done to a socket that is cut by `cut`.
    pub(crate) fn interruption(&self, cut: Cut) -> Interruption {
        match cut {
            Cut::Bye => Interruption::Bye,
            Cut::Reset => Interruption::Reset,
            Cut::Silence => Interruption::Silence(self.silence),
        }
    }

    /// Whether the session with this number is among those that are cut by themselves.
    pub(crate) fn cuts_session(&self, number: usize) -> bool {
        self.cut_session.is_none_or(|only| only.get() == number)
    }

    /// The cut that a session comes to after `past` others.
    pub(crate) fn cut_number(&self, past: usize) -> Interruption {
        let cut = past.checked_rem(self.cuts.len()).and_then(|index| self.cuts.get(index));
        self.interruption(cut.copied().unwrap_or(Cut::Bye))
    }
}

/// What a socket is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    Bye,
    Reset,
    Silence(Option<Duration>),
    /// Close code 1009.
    TooBig,
}
