//! The receiving side as a machine: bytes of the far side in, what they mean out, nothing believed unchecked. No I/O.
//!
//! ```text
//!             ┌──────────────── refuse ◄───────────────┐
//!             ▼                                        │
//!           Line ──► Directory, File ──► decision ─────┤
//!             ▲                                        │ accept (file)
//!             └───── FileEnd ◄── Verdict ◄── Data ◄────┘
//! ```
//!
//! What is accepted is answered twice at once, for the file's beginning and for its end: what fails on this side is
//! told on this side, and a round trip is saved for every file. Where times come before every name, they are answered
//! ahead too.

use std::collections::{HashSet, VecDeque};

use bytes::{Bytes, BytesMut};

use super::error::ScpError;
use super::line::{Control, Reply, Times, Words, take_line};
use super::request::{Admission, Request};
use crate::copy::BytePath;
use crate::copy::endpoint::MAX_ENTRIES;
use crate::copy::path::is_unsafe_name;
use crate::copy::plan::MAX_DEPTH;

/// A file or directory that the far side wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name, which leads nowhere else; empty for what was asked for by a path without a name (`.`, `~`).
    pub name: Vec<u8>,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// How many bytes it has; 0 for a directory.
    pub size: u64,
    /// Its times, if the far side tells them.
    pub times: Option<Times>,
}

/// What the far side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A directory. The next call has to be [`Sink::accept`] or [`Sink::refuse`].
    Directory(Header),
    /// A file. The next call has to be [`Sink::accept`] or [`Sink::refuse`].
    File(Header),
    /// Bytes of the file that was accepted last.
    Data(Bytes),
    /// The file has no more bytes. With words: it could not be read, and what came for it is not what it holds.
    FileEnd(Option<Words>),
    /// The directory that was begun last has nothing more in it.
    DirectoryEnd,
    /// Something could not be sent.
    Complaint(Words),
}

/// The receiving side.
#[derive(Debug)]
pub struct Sink {
    request: Request,
    recursive: bool,
    ahead: Ahead,
    input: BytesMut,
    output: VecDeque<Bytes>,
    state: State,
    times: Option<Times>,
    /// The names that came in each open directory, the top level first.
    names: Vec<HashSet<Vec<u8>>>,
    name_count: usize,
    has_begun: bool,
}

/// Whether the next line, if it names nothing, has its answer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Never,
    Answered,
    Unanswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Line,
    DecideDirectory,
    DecideFile { size: u64 },
    Data { left: u64 },
    Verdict,
}

impl Sink {
    /// A sink of what `request` asks for; directories only if `recursive`.
    pub fn new(request: Request, recursive: bool) -> Self {
        Self {
            request,
            recursive,
            ahead: Ahead::Never,
            input: BytesMut::new(),
            // The far side waits for this before its first word.
            output: VecDeque::from([Bytes::from_static(&[0])]),
            state: State::Line,
            times: None,
            names: vec![HashSet::new()],
            name_count: 0,
            has_begun: false,
        }
    }

    /// As `new`, for a far side that was told to send times before every name: whatever comes after an answer is no name,
    /// and gets its own answer beforehand.
    pub(super) fn with_times(request: Request, recursive: bool) -> Self {
        let mut sink = Self { ahead: Ahead::Unanswered, ..Self::new(request, recursive) };
        sink.answer_ahead();
        sink
    }

    /// Bytes arrived.
    pub fn handle_input(&mut self, bytes: BytesMut) {
        self.has_begun |= !bytes.is_empty();
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            self.input.extend_from_slice(&bytes);
        }
    }

    /// The far side has no more to send. Fails if there should be more.
    pub fn handle_end(&self) -> Result<(), ScpError> {
        let is_whole = self.state == State::Line && self.names.len() == 1 && self.input.is_empty();
        if is_whole && self.times.is_none() { Ok(()) } else { Err(ScpError::OutOfTurn("it ends in the middle")) }
    }

    /// Bytes for the far side.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// The next thing that was sent. `None`: more input is needed, or a decision. After an error nothing follows.
    pub fn poll_event(&mut self) -> Result<Option<Received>, ScpError> {
        match self.state {
            State::Line => self.poll_line(),
            State::DecideDirectory | State::DecideFile { .. } => Ok(None),
            State::Data { left: 0 } => {
                self.state = State::Verdict;
                self.poll_verdict()
            }
            State::Data { left } => {
                let take = self.input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.state = State::Data { left: left - take as u64 };
                Ok((take > 0).then(|| Received::Data(self.input.split_to(take).freeze())))
            }
            State::Verdict => self.poll_verdict(),
        }
    }

    /// Whether anything came.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Takes what was offered.
    pub fn accept(&mut self) {
        match self.state {
            State::DecideDirectory => {
                self.names.push(HashSet::new());
                self.state = State::Line;
                self.say(&Reply::Yes);
                self.answer_ahead();
            }
            State::DecideFile { size } => {
                self.state = State::Data { left: size };
                self.output.push_back(Bytes::from_static(&[0, 0]));
                self.answer_ahead();
            }
            _ => debug_assert!(false, "nothing was offered"),
        }
    }

    /// Does not take what was offered, nor what lies in it, for this reason.
    pub fn refuse(&mut self, reason: &Words) {
        debug_assert!(matches!(self.state, State::DecideDirectory | State::DecideFile { .. }));
        self.state = State::Line;
        self.say(&Reply::Complaint(reason.clone()));
        self.answer_ahead();
    }

    fn answer_ahead(&mut self) {
        if self.ahead == Ahead::Unanswered {
            self.say(&Reply::Yes);
            self.ahead = Ahead::Answered;
        }
    }

    /// Answers a line that names nothing.
    fn answer(&mut self) {
        match self.ahead {
            Ahead::Answered => self.ahead = Ahead::Unanswered,
            Ahead::Never | Ahead::Unanswered => self.say(&Reply::Yes),
        }
    }

    fn say(&mut self, reply: &Reply) {
        self.output.push_back(reply.encode().into());
    }

    fn poll_verdict(&mut self) -> Result<Option<Received>, ScpError> {
        let Some(reply) = Reply::take(&mut self.input)? else { return Ok(None) };
        self.state = State::Line;
        match reply {
            Reply::Yes => Ok(Some(Received::FileEnd(None))),
            Reply::Complaint(words) => Ok(Some(Received::FileEnd(Some(words)))),
            Reply::Fatal(words) => Err(ScpError::GaveUp(words)),
        }
    }

    fn poll_line(&mut self) -> Result<Option<Received>, ScpError> {
        loop {
            match self.input.first() {
                None => return Ok(None),
                Some(0) => return Err(ScpError::OutOfTurn("a reply came where a name should be")),
                Some(1 | 2) => return self.poll_complaint(),
                Some(_) => {}
            }
            let Some(line) = take_line(&mut self.input)? else { return Ok(None) };
            match Control::decode(&line)? {
                Control::Times(_) if self.times.is_some() => {
                    return Err(ScpError::OutOfTurn("times came twice before a name"));
                }
                Control::Times(times) => {
                    self.times = Some(times);
                    self.answer();
                }
                control => return self.handle_control(control),
            }
        }
    }

    fn handle_control(&mut self, control: Control) -> Result<Option<Received>, ScpError> {
        match control {
            Control::Times(_) => Ok(None),
            Control::File { mode, size, name } => {
                let header = self.header(name, mode, size)?;
                self.state = State::DecideFile { size };
                Ok(Some(Received::File(header)))
            }
            Control::Directory { mode, name } => {
                if !self.recursive {
                    return Err(ScpError::UnaskedDirectory(BytePath::new(name)));
                }
                if self.names.len() > MAX_DEPTH {
                    return Err(ScpError::TooDeep(MAX_DEPTH));
                }
                let header = self.header(name, mode, 0)?;
                self.state = State::DecideDirectory;
                Ok(Some(Received::Directory(header)))
            }
            Control::End => self.end_directory().map(Some),
        }
    }

    fn poll_complaint(&mut self) -> Result<Option<Received>, ScpError> {
        match Reply::take(&mut self.input)? {
            Some(Reply::Fatal(words)) => Err(ScpError::GaveUp(words)),
            Some(Reply::Complaint(words)) => Ok(Some(Received::Complaint(words))),
            Some(Reply::Yes) | None => Ok(None),
        }
    }

    fn end_directory(&mut self) -> Result<Received, ScpError> {
        if self.names.len() < 2 || self.times.is_some() {
            return Err(ScpError::OutOfTurn("the end of a directory that was not begun"));
        }
        self.name_count -= self.names.pop().map_or(0, |names| names.len());
        self.answer();
        self.answer_ahead();
        Ok(Received::DirectoryEnd)
    }

    /// Checks the name: whoever sends it must not choose where it is written.
    fn header(&mut self, sent: Vec<u8>, mode: u32, size: u64) -> Result<Header, ScpError> {
        if self.ahead == Ahead::Answered {
            return Err(ScpError::OutOfTurn("a name without its times"));
        }
        let name = if self.names.len() == 1 { self.asked_name(&sent)? } else { sent };
        if is_unsafe_name(&name) && !name.is_empty() {
            return Err(ScpError::UnsafeName(BytePath::new(name)));
        }
        if name.is_empty() && self.names.len() > 1 {
            return Err(ScpError::UnsafeName(BytePath::default()));
        }
        self.name_count += 1;
        if self.name_count > MAX_ENTRIES {
            return Err(ScpError::TooManyNames(MAX_ENTRIES));
        }
        let may_repeat = self.names.len() == 1 && self.request.may_repeat();
        let is_new = self.names.last_mut().is_none_or(|names| names.insert(name.clone()));
        if !is_new && !may_repeat {
            return Err(ScpError::DuplicateName(BytePath::new(name)));
        }
        Ok(Header { name, mode, size, times: self.times.take() })
    }

    /// The name that something at the top level gets here.
    fn asked_name(&self, sent: &[u8]) -> Result<Vec<u8>, ScpError> {
        match self.request.admit(sent) {
            Admission::Only(own) if self.names[0].is_empty() => Ok(own.unwrap_or_default()),
            Admission::OneOf => Ok(sent.to_vec()),
            Admission::No if is_unsafe_name(sent) => Err(ScpError::UnsafeName(BytePath::new(sent))),
            _ => Err(ScpError::NotRequested(BytePath::new(sent))),
        }
    }
}
