//! What the user types to ssmssh itself: `~.` and the other escapes. No I/O.
//!
//! An escape is recognised only at the beginning of a line, as in ssh. Input by [`Escapes::handle_input`], output by
//! [`Escapes::poll_event`].

use std::collections::VecDeque;

use bytes::Bytes;

/// The answer to `~?`.
pub(crate) const HELP: &str = "~?\n\
    Supported escape sequences:\n \
    ~.   - end the session\n \
    ~^Z  - suspend ssmssh\n \
    ~?   - this message\n \
    ~~   - send the escape character\n\
    (Escapes are recognised only right after a newline.)\n";

const ESCAPE: u8 = b'~';
const CONTROL_Z: u8 = 0x1a;

/// What typed bytes mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// These bytes are for the remote side.
    Send(Bytes),
    /// `~.`
    Disconnect,
    /// `~^Z`
    Suspend,
    /// `~?`
    Help,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    /// An escape character at the beginning of a line, held back until what follows is known.
    Pending,
    InLine,
}

/// Tells escapes from input.
#[derive(Debug)]
pub(crate) struct Escapes {
    state: State,
    events: VecDeque<Event>,
}

impl Escapes {
    /// The beginning of a session is the beginning of a line.
    pub(crate) fn new() -> Self {
        Self { state: State::LineStart, events: VecDeque::new() }
    }

    pub(crate) fn handle_input(&mut self, input: &Bytes) {
        // Start of the run of bytes that goes out as it came.
        let mut run = 0;
        for (at, byte) in input.iter().copied().enumerate() {
            match self.state {
                State::LineStart if byte == ESCAPE => {
                    self.send(input.slice(run..at));
                    run = at + 1;
                    self.state = State::Pending;
                }
                State::Pending => run = self.resolve(byte, at),
                State::LineStart | State::InLine => self.state = after(byte),
            }
        }
        self.send(input.slice(run..));
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// `byte` at `at` follows an escape character. Returns where the next run begins: at the byte if it is input, behind
    /// it if it belonged to an escape. After an escape the line has not begun yet.
    fn resolve(&mut self, byte: u8, at: usize) -> usize {
        let event = match byte {
            b'.' => Event::Disconnect,
            b'?' => Event::Help,
            CONTROL_Z => Event::Suspend,
            ESCAPE => {
                self.state = State::InLine;
                return at;
            }
            other => {
                self.send(Bytes::from_static(&[ESCAPE]));
                self.state = after(other);
                return at;
            }
        };
        self.events.push_back(event);
        self.state = State::LineStart;
        at + 1
    }

    fn send(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.events.push_back(Event::Send(bytes));
        }
    }
}

fn after(byte: u8) -> State {
    if matches!(byte, b'\r' | b'\n') { State::LineStart } else { State::InLine }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds each chunk, and joins neighbouring `Send`s, which are split at arbitrary places.
    fn typed(chunks: &[&str]) -> Vec<Event> {
        let mut escapes = Escapes::new();
        let mut events: Vec<Event> = Vec::new();
        for chunk in chunks {
            escapes.handle_input(&Bytes::copy_from_slice(chunk.as_bytes()));
            while let Some(event) = escapes.poll_event() {
                match (events.last_mut(), event) {
                    (Some(Event::Send(before)), Event::Send(more)) => *before = [&before[..], &more].concat().into(),
                    (_, event) => events.push(event),
                }
            }
        }
        events
    }

    fn send(text: &'static str) -> Event {
        Event::Send(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn input_without_a_tilde_passes_as_it_is() {
        assert_eq!(typed(&["echo\rä\u{1}\n", "x"]), [send("echo\rä\u{1}\nx")]);
    }

    #[test]
    fn tilde_dot_disconnects_at_the_start_and_after_a_newline_only() {
        assert_eq!(typed(&["~."]), [Event::Disconnect]);
        assert_eq!(typed(&["ls\r~."]), [send("ls\r"), Event::Disconnect]);
        assert_eq!(typed(&["ls\n~."]), [send("ls\n"), Event::Disconnect]);
        assert_eq!(typed(&["cd ~.\r"]), [send("cd ~.\r")]);
    }

    #[test]
    fn an_escape_may_arrive_byte_by_byte() {
        assert_eq!(typed(&["\r", "~", "."]), [send("\r"), Event::Disconnect]);
        assert_eq!(typed(&["~", "x"]), [send("~x")]);
    }

    #[test]
    fn a_doubled_tilde_sends_one_and_the_line_has_begun() {
        assert_eq!(typed(&["~~."]), [send("~.")]);
        assert_eq!(typed(&["~", "~", "~."]), [send("~~.")]);
    }

    #[test]
    fn a_tilde_before_anything_else_is_input() {
        assert_eq!(typed(&["~/bin/x\r"]), [send("~/bin/x\r")]);
        assert_eq!(typed(&["~\r~."]), [send("~\r"), Event::Disconnect]);
    }

    #[test]
    fn after_help_or_suspend_another_escape_needs_no_newline() {
        assert_eq!(typed(&["~?~\u{1a}~."]), [Event::Help, Event::Suspend, Event::Disconnect]);
        assert_eq!(typed(&["~?ls\r"]), [Event::Help, send("ls\r")]);
    }

    #[test]
    fn a_held_tilde_is_not_sent_until_the_next_key() {
        assert_eq!(typed(&["a\r~"]), [send("a\r")]);
    }
}
