//! What the engine gives to its driver.

use std::fmt;

use bytes::Bytes;

use super::CloseReason;

/// What the driver must send, one WebSocket frame each.
#[derive(Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A text frame: the open message. It holds the token, so it is never logged; `Debug` does not show it.
    Text(String),
    /// A binary frame: one message.
    Binary(Bytes),
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(..)"),
            Self::Binary(frame) => write!(f, "Binary({} bytes)", frame.len()),
        }
    }
}

/// What the engine tells its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete; `write` takes bytes from now on.
    Established {
        /// The agent's version as it reported it.
        agent_version: String,
    },
    /// `read` has something to give.
    Readable,
    /// `write` takes bytes again after it took fewer than it was given.
    Writable,
    /// After `finish`: everything written, and the TerminateSession flag, is acknowledged.
    Finished,
    /// The session has ended; nothing more will be sent or received.
    Closed(CloseReason),
}

/// Each kind at most once: what is not polled yet is not doubled.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) established: Option<String>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) finished: bool,
    pub(super) closed: Option<CloseReason>,
}

impl Events {
    pub(super) fn pop(&mut self) -> Option<Event> {
        if let Some(agent_version) = self.established.take() {
            return Some(Event::Established { agent_version });
        }
        if std::mem::take(&mut self.readable) {
            return Some(Event::Readable);
        }
        if std::mem::take(&mut self.writable) {
            return Some(Event::Writable);
        }
        if std::mem::take(&mut self.finished) {
            return Some(Event::Finished);
        }
        self.closed.take().map(Event::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_once_each_and_the_end_comes_last() {
        let mut events = Events { readable: true, closed: Some(CloseReason::Ended), ..Events::default() };
        events.readable = true;
        assert_eq!(events.pop(), Some(Event::Readable));
        assert_eq!(events.pop(), Some(Event::Closed(CloseReason::Ended)));
        assert_eq!(events.pop(), None);
    }

    #[test]
    fn debug_output_of_what_is_sent_keeps_the_token_to_itself() {
        assert_eq!(format!("{:?}", Transmit::Text("s3cret".into())), "Text(..)");
    }
}
