//! The sending side as a machine: what is to be sent in, bytes for the far side out, its replies matched. No I/O.
//!
//! A file's header and a directory's wait for their reply, since the far side may refuse them. Nothing else waits: the
//! reply to a file's end arrives while the next header is on its way.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::error::ScpError;
use super::line::{Control, MAX_LINE, Reply, Times, Words};

/// What the far side answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answered {
    /// It is there.
    Ready,
    /// It takes the file or directory.
    Accepted,
    /// It does not take the file or directory. Before [`Answered::Ready`]: it takes nothing at all.
    Refused(Words),
    /// The file that was ended longest ago of those not answered yet is stored.
    Stored,
    /// That file is not stored, or not as it should be.
    NotStored(Words),
}

/// The sending side.
#[derive(Debug)]
pub struct Source {
    input: BytesMut,
    output: VecDeque<Bytes>,
    awaited: VecDeque<Awaited>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Start,
    Times,
    Header,
    FileEnd,
    DirectoryEnd,
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

impl Source {
    /// A source that waits for the far side's first word.
    pub fn new() -> Self {
        Self { input: BytesMut::new(), output: VecDeque::new(), awaited: VecDeque::from([Awaited::Start]) }
    }

    /// Offers a file of `size` bytes. Its bytes have to wait for [`Answered::Accepted`].
    pub fn file(&mut self, name: &[u8], mode: u32, size: u64, times: Option<Times>) -> Result<(), ScpError> {
        self.header(&Control::File { mode: mode & 0o7777, size, name: checked(name)? }, times);
        Ok(())
    }

    /// Offers a directory. What lies in it has to wait for [`Answered::Accepted`].
    pub fn directory(&mut self, name: &[u8], mode: u32, times: Option<Times>) -> Result<(), ScpError> {
        self.header(&Control::Directory { mode: mode & 0o7777, name: checked(name)? }, times);
        Ok(())
    }

    /// Bytes of the file that was accepted, as many as were announced, all calls together.
    pub fn data(&mut self, bytes: Bytes) {
        self.output.push_back(bytes);
    }

    /// All bytes of the file were given. With words: they are not what the file holds.
    pub fn end_file(&mut self, complaint: Option<&Words>) {
        let reply = complaint.map_or(Reply::Yes, |words| Reply::Complaint(words.clone()));
        self.send(reply.encode(), Awaited::FileEnd);
    }

    /// The directory that was begun last has nothing more in it.
    pub fn end_directory(&mut self) {
        self.send(Control::End.encode(), Awaited::DirectoryEnd);
    }

    /// Bytes arrived.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Bytes for the far side.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// The next answer. After an error nothing follows.
    pub fn poll_event(&mut self) -> Result<Option<Answered>, ScpError> {
        while let Some(awaited) = self.awaited.front().copied() {
            let Some(reply) = Reply::take(&mut self.input)? else { return Ok(None) };
            self.awaited.pop_front();
            let answered = match (awaited, reply) {
                (_, Reply::Fatal(words)) => return Err(ScpError::GaveUp(words)),
                (Awaited::Times | Awaited::DirectoryEnd, Reply::Yes) => continue,
                (Awaited::Start, Reply::Yes) => Answered::Ready,
                (Awaited::Header, Reply::Yes) => Answered::Accepted,
                (Awaited::FileEnd, Reply::Yes) => Answered::Stored,
                (Awaited::Start | Awaited::Header, Reply::Complaint(words)) => Answered::Refused(words),
                (Awaited::FileEnd, Reply::Complaint(words)) => Answered::NotStored(words),
                (Awaited::Times | Awaited::DirectoryEnd, Reply::Complaint(words)) => {
                    return Err(ScpError::GaveUp(words));
                }
            };
            return Ok(Some(answered));
        }
        // What is not asked for yet may be answered ahead, by a sink like this one.
        if self.input.len() > MAX_LINE { Err(ScpError::OutOfTurn("replies to nothing")) } else { Ok(None) }
    }

    /// Whether the far side said its first word.
    pub fn has_begun(&self) -> bool {
        self.awaited.front() != Some(&Awaited::Start)
    }

    /// Whether everything that was sent is answered.
    pub fn is_settled(&self) -> bool {
        self.awaited.is_empty()
    }

    fn header(&mut self, control: &Control, times: Option<Times>) {
        if let Some(times) = times {
            self.send(Control::Times(times).encode(), Awaited::Times);
        }
        self.send(control.encode(), Awaited::Header);
    }

    fn send(&mut self, line: Vec<u8>, awaited: Awaited) {
        self.output.push_back(line.into());
        self.awaited.push_back(awaited);
    }
}

/// A name that one line can carry.
fn checked(name: &[u8]) -> Result<Vec<u8>, ScpError> {
    if name.contains(&b'\n') { Err(ScpError::LineFeed) } else { Ok(name.to_vec()) }
}
