//! Bytes written and not yet sent, in the frames they will be sent in.

use std::collections::VecDeque;

use crate::wire::FrameBuf;

/// A small write waits in a frame of its own only until the driver asks for it. What is written meanwhile joins it: no
/// sequence number is given before the frame leaves, so it may still grow.
#[derive(Debug, Default)]
pub(super) struct Pending {
    frames: VecDeque<FrameBuf>,
    bytes: usize,
}

impl Pending {
    /// Puts at most `max_payload` bytes into a frame.
    pub(super) fn push(&mut self, data: &[u8], max_payload: usize) {
        self.bytes += data.len();
        let rest = self.fill_last(data, max_payload);
        for payload in rest.chunks(max_payload.max(1)) {
            let mut frame = FrameBuf::with_capacity(payload.len());
            frame.extend_from_slice(payload);
            self.frames.push_back(frame);
        }
    }

    /// Returns what did not fit.
    fn fill_last<'a>(&mut self, data: &'a [u8], max_payload: usize) -> &'a [u8] {
        let Some(last) = self.frames.back_mut() else { return data };
        let (fits, rest) = data.split_at(data.len().min(max_payload.saturating_sub(last.len())));
        last.extend_from_slice(fits);
        rest
    }

    pub(super) fn pop(&mut self) -> Option<FrameBuf> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> usize {
        self.frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(pending: &mut Pending) -> Vec<usize> {
        std::iter::from_fn(|| pending.pop()).map(|frame| frame.len()).collect()
    }

    #[test]
    fn small_writes_merge_until_they_are_asked_for() {
        let mut pending = Pending::default();
        pending.push(b"one", 1000);
        assert_eq!(lengths(&mut pending), [3]);
        pending.push(b"two", 1000);
        pending.push(b"three", 1000);
        assert_eq!((pending.bytes(), pending.messages()), (8, 1));
        assert_eq!(lengths(&mut pending), [8]);
        assert_eq!((pending.bytes(), pending.messages()), (0, 0));
    }

    #[test]
    fn a_large_write_is_cut_at_the_payload_size_and_completes_the_frame_before() {
        let mut pending = Pending::default();
        pending.push(&[0; 400], 1000);
        pending.push(&[0; 2700], 1000);
        assert_eq!(pending.bytes(), 3100);
        assert_eq!(lengths(&mut pending), [1000, 1000, 1000, 100]);
    }
}
