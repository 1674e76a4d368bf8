//! Which bytes of a file to ask for, which to write, and how far the copy is whole. No I/O, no data.
//!
//! A [`Transfer`] has the shape of the data channel's engine: the driver asks `poll_read` until it has nothing more
//! to say, feeds what came back into `handle_read` and `handle_written`, and asks again.
//!
//! ```text
//!   0                    high water        asked so far          size
//!   ├──── written, whole ────┼── holes, in flight ──┼── not asked ──┤ probe
//! ```
//!
//! Reads may return less than they were asked for and in any order; the rest is asked for again. One more byte than
//! the file had is asked for at its end (the probe), in the same flight as the last pieces: only that tells a file
//! which has grown from one that has not, and it costs no round trip. A file that has grown is whole at the size that it
//! had; what is behind that is left where it is.

use std::collections::VecDeque;

use super::{CopyError, Ranges};

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u32,
}

impl Piece {
    fn end(self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// How much to ask for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Longest piece, in bytes. At least 1.
    pub piece: u32,
    /// Most bytes asked for and not yet written. At least one piece is always allowed.
    pub in_flight: u64,
}

/// The progress of one file.
#[derive(Debug)]
pub struct Transfer {
    window: Window,
    end: End,
    next: u64,
    again: VecDeque<Piece>,
    reads: usize,
    in_flight: u64,
    /// Past the last byte that was ever received.
    furthest: u64,
    written: Ranges,
    /// The probe found something.
    has_grown: bool,
}

/// What is known about the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The size is known; whether the file still ends there is to be seen.
    Expected(u64),
    /// As `Expected`, the probe is under way.
    Probing(u64),
    /// The probe came back: the file has all that was expected.
    Confirmed(u64),
    /// To be met by reading.
    Unknown,
    /// Reading met it here.
    Met(u64),
}

impl Transfer {
    /// A transfer of a file of `size` bytes, or up to the end that reading meets.
    pub fn new(size: Option<u64>, window: Window) -> Self {
        Self {
            window,
            end: size.map_or(End::Unknown, End::Expected),
            next: 0,
            again: VecDeque::new(),
            reads: 0,
            in_flight: 0,
            furthest: 0,
            written: Ranges::default(),
            has_grown: false,
        }
    }

    /// A transfer of a file of `size` bytes of which these are written.
    pub fn resume(size: u64, window: Window, written: Ranges) -> Self {
        Self { written, ..Self::new(Some(size), window) }
    }

    /// Changes how much may be in flight.
    pub fn set_in_flight(&mut self, bytes: u64) {
        self.window.in_flight = bytes;
    }

    /// The next piece to read, while the window has room.
    pub fn poll_read(&mut self) -> Option<Piece> {
        let piece = match self.again.front() {
            Some(piece) => *piece,
            None => self.next_new()?,
        };
        if self.in_flight > 0 && self.in_flight + u64::from(piece.length) > self.window.in_flight {
            return None;
        }
        if self.again.pop_front().is_none() {
            self.take_new(piece);
        }
        self.reads += 1;
        self.in_flight += u64::from(piece.length);
        Some(piece)
    }

    /// A read of `piece` returned `got` bytes, none at the end of the file. Returns what to write, if anything.
    pub fn handle_read(&mut self, piece: Piece, got: u32) -> Result<Option<Piece>, CopyError> {
        if got > piece.length {
            return Err(CopyError::TooMuchData);
        }
        self.reads -= 1;
        // What was not received is no longer in flight; what was received is until it is written.
        self.in_flight -= u64::from(piece.length - got);
        if got == 0 {
            return self.met_end(piece.offset).map(|()| None);
        }
        let received = Piece { length: got, ..piece };
        if let End::Probing(size) = self.end
            && piece.offset == size
        {
            self.in_flight -= u64::from(got);
            (self.end, self.has_grown) = (End::Confirmed(size), true);
            return Ok(None);
        }
        self.check_inside(received)?;
        self.furthest = self.furthest.max(received.end());
        if got < piece.length {
            self.again.push_back(Piece { offset: received.end(), length: piece.length - got });
        }
        Ok(Some(received))
    }

    /// `piece`, which `handle_read` had returned, is written.
    pub fn handle_written(&mut self, piece: Piece) {
        self.in_flight -= u64::from(piece.length);
        self.written.insert(piece.offset, piece.end());
    }

    /// Everything before this offset is written.
    pub fn high_water(&self) -> u64 {
        self.written.end_of(0).unwrap_or(0)
    }

    /// Whether everything is read and the end is proven; some of it may still have to be written.
    pub fn is_read(&self) -> bool {
        matches!(self.end, End::Confirmed(_) | End::Met(_)) && self.reads == 0 && self.again.is_empty()
    }

    /// Whether the whole file is written and its end is proven.
    pub fn is_complete(&self) -> bool {
        let is_end_known = matches!(self.end, End::Confirmed(end) | End::Met(end) if end == self.high_water());
        is_end_known && self.reads == 0 && self.in_flight == 0 && self.again.is_empty()
    }

    /// Whether the file has more bytes by now than it had.
    pub fn has_grown(&self) -> bool {
        self.has_grown
    }

    /// The next piece that was never asked for.
    fn next_new(&self) -> Option<Piece> {
        let longest = self.window.piece.max(1);
        match self.end {
            End::Expected(size) => {
                // What is written behind `next` was written before this transfer.
                let start = self.written.end_of(self.next).unwrap_or(self.next);
                let stop = self.written.start_after(start).map_or(size, |written| written.min(size));
                let rest = u32::try_from(stop.saturating_sub(start)).unwrap_or(u32::MAX);
                let probe = Piece { offset: size, length: 1 };
                Some(if rest == 0 { probe } else { Piece { offset: start, length: longest.min(rest) } })
            }
            // Most files of unknown size are empty: the first read shows whether this one is worth a window.
            End::Unknown if self.furthest > 0 || self.reads == 0 => Some(Piece { offset: self.next, length: longest }),
            End::Probing(_) | End::Confirmed(_) | End::Unknown | End::Met(_) => None,
        }
    }

    fn take_new(&mut self, piece: Piece) {
        match self.end {
            End::Expected(size) if piece.offset == size => self.end = End::Probing(size),
            _ => self.next = piece.end(),
        }
    }

    /// The file has no byte at `offset`.
    fn met_end(&mut self, offset: u64) -> Result<(), CopyError> {
        match self.end {
            End::Probing(size) if offset == size => self.end = End::Confirmed(size),
            End::Expected(expected) | End::Probing(expected) | End::Confirmed(expected) => {
                return Err(CopyError::Shrunk { expected, end: offset });
            }
            End::Unknown | End::Met(_) if offset < self.furthest => {
                return Err(CopyError::Shrunk { expected: self.furthest, end: offset });
            }
            End::Met(end) => self.end = End::Met(end.min(offset)),
            End::Unknown => self.end = End::Met(offset),
        }
        Ok(())
    }

    fn check_inside(&self, received: Piece) -> Result<(), CopyError> {
        match self.end {
            End::Met(end) if received.end() > end => Err(CopyError::Changed),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window { piece: 10, in_flight: 30 };

    fn piece(offset: u64, length: u32) -> Piece {
        Piece { offset, length }
    }

    #[test]
    fn the_window_bounds_what_is_asked_for() {
        let mut transfer = Transfer::new(Some(100), WINDOW);
        let asked: Vec<_> = std::iter::from_fn(|| transfer.poll_read()).collect();
        assert_eq!(asked, [piece(0, 10), piece(10, 10), piece(20, 10)]);
        let write = transfer.handle_read(asked[1], 10).unwrap().unwrap();
        assert_eq!(transfer.poll_read(), None, "read but not written is still in flight");
        transfer.handle_written(write);
        assert_eq!((transfer.poll_read(), transfer.high_water()), (Some(piece(30, 10)), 0));
    }

    #[test]
    fn a_short_read_is_asked_again_before_anything_new() {
        let mut transfer = Transfer::new(Some(100), WINDOW);
        let first = transfer.poll_read().unwrap();
        let write = transfer.handle_read(first, 4).unwrap().unwrap();
        assert_eq!((write, transfer.poll_read()), (piece(0, 4), Some(piece(4, 6))));
    }

    #[test]
    fn an_empty_file_takes_one_probe() {
        let mut transfer = Transfer::new(Some(0), WINDOW);
        assert!(!transfer.is_complete());
        let probe = transfer.poll_read().unwrap();
        assert_eq!((probe, transfer.poll_read()), (piece(0, 1), None));
        assert_eq!(transfer.handle_read(probe, 0).unwrap(), None);
        assert!(transfer.is_complete());
    }

    #[test]
    fn a_file_that_lost_its_end_is_told() {
        let mut transfer = Transfer::new(Some(20), WINDOW);
        let (first, second) = (transfer.poll_read().unwrap(), transfer.poll_read().unwrap());
        assert!(transfer.handle_read(first, 10).is_ok());
        assert!(matches!(transfer.handle_read(second, 0), Err(CopyError::Shrunk { expected: 20, end: 10 })));
    }

    #[test]
    fn a_file_that_goes_on_after_its_end_is_whole_at_its_size_and_told() {
        let mut transfer = Transfer::new(Some(10), WINDOW);
        let (all, probe) = (transfer.poll_read().unwrap(), transfer.poll_read().unwrap());
        assert_eq!(transfer.handle_read(probe, 1).unwrap(), None, "what is behind it is not written");
        assert!(transfer.has_grown() && !transfer.is_complete());
        let write = transfer.handle_read(all, 10).unwrap().unwrap();
        transfer.handle_written(write);
        assert!(transfer.is_complete());
    }

    #[test]
    fn a_side_that_gives_too_much_is_told() {
        let mut transfer = Transfer::new(Some(10), WINDOW);
        let first = transfer.poll_read().unwrap();
        assert!(matches!(transfer.handle_read(first, 11), Err(CopyError::TooMuchData)));
    }

    #[test]
    fn a_file_of_unknown_size_is_tried_with_one_read() {
        let mut transfer = Transfer::new(None, WINDOW);
        let first = transfer.poll_read().unwrap();
        assert_eq!(transfer.poll_read(), None);
        transfer.handle_read(first, 10).unwrap();
        assert!(transfer.poll_read().is_some());
    }

    /// What the driver has in its hands.
    enum Task {
        Read(Piece),
        Write(Piece),
    }

    fn run(content: &[u8], told: Option<u64>, window: Window, choices: &[(usize, u32)]) -> Result<Vec<u8>, CopyError> {
        drive(Transfer::new(told, window), content, Vec::new(), choices)
    }

    /// Runs a copy of `content`: `choices` decides which task ends next and how short each read is.
    fn drive(
        mut transfer: Transfer,
        content: &[u8],
        mut target: Vec<u8>,
        choices: &[(usize, u32)],
    ) -> Result<Vec<u8>, CopyError> {
        let window = transfer.window;
        let mut tasks = Vec::new();
        let mut choices = choices.iter().copied().cycle();
        loop {
            tasks.extend(std::iter::from_fn(|| transfer.poll_read()).map(Task::Read));
            let bound = window.in_flight.max(window.piece.into());
            assert!(transfer.in_flight <= bound, "{} in flight", transfer.in_flight);
            assert!(transfer.high_water() <= content.len() as u64);
            if tasks.is_empty() {
                assert!(transfer.is_complete(), "stuck: {transfer:?}");
                return Ok(target);
            }
            let (which, short) = choices.next().expect("a cycle");
            match tasks.swap_remove(which % tasks.len()) {
                Task::Read(piece) => {
                    let start = content.len().min(usize::try_from(piece.offset).unwrap());
                    let there = u32::try_from(content.len() - start).unwrap().min(piece.length);
                    let got = there - short.min(there.saturating_sub(1));
                    tasks.extend(transfer.handle_read(piece, got)?.map(Task::Write));
                }
                Task::Write(piece) => {
                    let range = usize::try_from(piece.offset).unwrap()..usize::try_from(piece.end()).unwrap();
                    target.resize(target.len().max(range.end), 0);
                    target[range.clone()].copy_from_slice(&content[range]);
                    transfer.handle_written(piece);
                    let whole = usize::try_from(transfer.high_water()).unwrap();
                    assert_eq!(target[..whole], content[..whole]);
                }
            }
        }
    }

    /// `content` where it is written, noughts elsewhere.
    fn half_done(content: &[u8], written: &Ranges) -> Vec<u8> {
        let mut target = vec![0; usize::try_from(written.end()).unwrap()];
        for (start, end) in written.iter() {
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            target[range.clone()].copy_from_slice(&content[range]);
        }
        target
    }

    #[test]
    fn what_is_written_is_not_asked_for_again() {
        let written = [(0, 5), (12, 20), (25, 40)].into_iter().collect();
        let mut transfer = Transfer::resume(40, WINDOW, written);
        let asked: Vec<_> = std::iter::from_fn(|| transfer.poll_read()).collect();
        assert_eq!((asked, transfer.high_water()), (vec![piece(5, 7), piece(20, 5), piece(40, 1)], 5));
    }

    fn windows() -> impl Strategy<Value = Window> {
        (1u32..40, 0u64..200).prop_map(|(piece, in_flight)| Window { piece, in_flight })
    }

    proptest! {
        #[test]
        fn the_bytes_are_right_in_any_order_and_however_short_the_reads(
            content in proptest::collection::vec(1u8.., 0..400),
            window in windows(),
            known in any::<bool>(),
            choices in proptest::collection::vec((any::<usize>(), 0u32..20), 1..50),
        ) {
            let told = known.then_some(content.len() as u64);
            prop_assert_eq!(run(&content, told, window, &choices).unwrap(), content);
        }

        #[test]
        fn what_was_written_before_is_kept_and_the_rest_is_right(
            content in proptest::collection::vec(1u8.., 1..400),
            before in proptest::collection::vec((0u64..400, 1u64..100), 0..6),
            window in windows(),
            choices in proptest::collection::vec((any::<usize>(), 0u32..20), 1..50),
        ) {
            let size = content.len() as u64;
            let written: Ranges = before.iter().map(|(from, long)| (*from, (from + long).min(size))).collect();
            let target = half_done(&content, &written);
            let transfer = Transfer::resume(size, window, written);
            prop_assert_eq!(drive(transfer, &content, target, &choices).unwrap(), content);
        }

        #[test]
        fn a_file_that_is_shorter_than_it_was_is_never_whole_and_a_longer_one_is_what_it_was(
            content in proptest::collection::vec(1u8.., 0..400),
            told in 0u64..400,
            window in windows(),
            choices in proptest::collection::vec((any::<usize>(), 0u32..20), 1..50),
        ) {
            let outcome = run(&content, Some(told), window, &choices);
            if told > content.len() as u64 {
                let is_shrunk = matches!(outcome, Err(CopyError::Shrunk { .. }));
                prop_assert!(is_shrunk, "{:?}", outcome);
            } else {
                prop_assert_eq!(&outcome.unwrap()[..], &content[..usize::try_from(told).unwrap()]);
            }
        }
    }
}
