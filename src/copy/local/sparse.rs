//! Holes: parts of a file that were never written, take no room on the disk and read as zeros.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What file systems keep apart: a block of zeros need not be written.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// A shorter hole costs more as a gap between two requests than as zeros.
pub(super) const LEAST_HOLE: u64 = 64 * 1024;
/// More holes than this are read as zeros.
const MOST_HOLES: usize = 1 << 16;
/// The unit in which blocks are counted (stat(2)).
const COUNTED: u64 = 512;

/// Where a file of `size` bytes has no data: long parts only, in order, without its last byte.
pub(super) fn holes(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut holes = Vec::new();
    if file.metadata()?.blocks().saturating_mul(COUNTED) >= size {
        return Ok(holes);
    }
    let last = size.saturating_sub(1);
    let mut at = 0;
    while holes.len() < MOST_HOLES {
        let start = match seek(file, SeekFrom::Hole(at)) {
            Ok(start) if start < last => start,
            // This file system does not tell, or there is none but the one behind the end.
            _ => break,
        };
        let end = match seek(file, SeekFrom::Data(start)) {
            Ok(end) => end.min(last),
            Err(Errno::NXIO) => last,
            Err(error) => return Err(error.into()),
        };
        if end.saturating_sub(start) >= LEAST_HOLE {
            holes.push(start..end);
        }
        at = end.max(start + 1);
    }
    Ok(holes)
}

/// Writes `data` at `offset` but for its blocks of zeros. Returns whether it ends with such a block, so that the file may
/// be too short.
pub(super) fn write_sparsely(file: &File, data: &[u8], offset: u64) -> io::Result<bool> {
    let mut end = 0;
    for part in parts(data, offset) {
        file.write_all_at(&data[part.clone()], offset + part.start as u64)?;
        end = part.end;
    }
    Ok(end < data.len())
}

/// What of `data` has to be written when it lies at `offset`.
fn parts(data: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < data.len() && is_zero(data, at, offset) {
            at = block_end(data, at, offset);
        }
        let start = at;
        while at < data.len() && !is_zero(data, at, offset) {
            at = block_end(data, at, offset);
        }
        (start < at).then_some(start..at)
    })
}

fn is_zero(data: &[u8], at: usize, offset: u64) -> bool {
    let end = block_end(data, at, offset);
    data[at..end] == ZEROS[..end - at]
}

/// Where the block of the file ends in which `at` lies.
fn block_end(data: &[u8], at: usize, offset: u64) -> usize {
    let inside = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap_or(0);
    data.len().min(at + BLOCK - inside)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn blocks_of_zeros_are_left_out() {
        let mut data = vec![0; 5 * BLOCK];
        data[BLOCK + 7] = 1;
        data[2 * BLOCK] = 1;
        let parts = |data, offset| parts(data, offset).map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(parts(&data, 0), [(BLOCK, 3 * BLOCK)]);
        assert_eq!(parts(&data, 100), [(BLOCK - 100, 3 * BLOCK - 100)], "blocks are the file's, not the data's");
        assert_eq!(parts(&[1, 0], 0), [(0, 2)]);
    }

    #[test]
    fn long_holes_are_found_and_none_reaches_the_last_byte() {
        let mut file = tempfile::tempfile().unwrap();
        for at in [MIB, 2 * MIB, 2 * MIB + LEAST_HOLE / 2] {
            file.seek(io::SeekFrom::Start(at)).unwrap();
            file.write_all(b"data").unwrap();
        }
        file.set_len(8 * MIB).unwrap();
        let found = holes(&file, 8 * MIB).unwrap();
        if found.is_empty() {
            return; // This file system keeps no holes.
        }
        assert_eq!((found[0].start, found[0].end), (0, MIB));
        assert_eq!(found.last().map(|hole| hole.end), Some(8 * MIB - 1));
        assert!(found.iter().all(|hole| hole.end - hole.start >= LEAST_HOLE), "{found:?}");
        assert_eq!(holes(&tempfile::tempfile().unwrap(), 0).unwrap(), []);
    }

    proptest! {
        #[test]
        fn what_is_written_sparsely_reads_as_it_was(
            blocks in proptest::collection::vec((any::<bool>(), 1..6000usize), 0..12),
            offset in 0..10_000u64,
        ) {
            let data: Vec<u8> = blocks.iter().flat_map(|(is_data, long)| vec![u8::from(*is_data); *long]).collect();
            let file = tempfile::tempfile().unwrap();
            let is_short = write_sparsely(&file, &data, offset).unwrap();
            let end = offset + data.len() as u64;
            prop_assert!(is_short || file.metadata().unwrap().len() == end || data.is_empty());
            file.set_len(end).unwrap();
            let mut read = vec![7; data.len()];
            file.read_exact_at(&mut read, offset).unwrap();
            prop_assert_eq!(read, data);
        }
    }
}
