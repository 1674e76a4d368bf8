//! What is known about a copy that was interrupted: the records that a run leaves, and what they say together. No I/O.
//!
//! A journal is a text of one record a line, each behind a checksum of its own. It is only ever appended to, so what a
//! crash can harm is its end: the first line that is torn, or not by us, ends what counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::endpoint::Metadata;
use super::super::{BytePath, Ranges};

/// What tells that a file is the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Stamp {
    size: u64,
    /// Seconds since 1970 and nanoseconds, of the last modification.
    modified: Option<(u64, u32)>,
}

impl Stamp {
    /// `None` when the side does not tell the size.
    pub(in super::super) fn of(metadata: &Metadata) -> Option<Self> {
        let since = metadata.times.and_then(|(_, modified)| modified.duration_since(UNIX_EPOCH).ok());
        Some(Self { size: metadata.size?, modified: since.map(|since| (since.as_secs(), since.subsec_nanos())) })
    }

    /// Whether no change made since `then` can have left it as it is.
    pub(in super::super) fn tells_changes_since(&self, then: SystemTime) -> bool {
        /// A clock of whole seconds, and a little for two clocks that differ.
        const DOUBT: Duration = Duration::from_secs(2);
        match self.modified {
            None => false,
            // Whole seconds: another change in the same second would not show.
            Some((seconds, 0)) => UNIX_EPOCH + Duration::from_secs(seconds) + DOUBT < then,
            Some(_) => true,
        }
    }
}

/// Identifies a file in one journal.
pub(in super::super) type FileId = u64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Record {
    /// The destination is the name of the copy, even if it names a directory by now.
    Named,
    /// A file is going to be written under a temporary name.
    Begun {
        file: FileId,
        #[serde(with = "spelled")]
        target: BytePath,
        #[serde(with = "spelled")]
        temporary: BytePath,
        source: Option<Stamp>,
    },
    /// The permissions that it gets when no others are given.
    Granted { file: FileId, mode: u32 },
    /// These parts of it are written: start, and past the end.
    Written { file: FileId, ranges: Vec<(u64, u64)> },
    /// It has got its name; so its source and its target were then.
    Finished { file: FileId, source: Stamp, target: Stamp },
    /// Nothing of it is left under the temporary name, and nothing is known about its target.
    Gone { file: FileId },
    /// A directory was made with more rights than it is to have.
    Lent {
        #[serde(with = "spelled")]
        target: BytePath,
    },
}

/// A file that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Draft {
    pub(in super::super) target: BytePath,
    pub(in super::super) temporary: BytePath,
    pub(in super::super) source: Option<Stamp>,
    pub(in super::super) granted: Option<u32>,
    pub(in super::super) written: Ranges,
}

/// What the records say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Known {
    pub(super) is_named: bool,
    pub(super) drafts: BTreeMap<FileId, Draft>,
    /// Source and target of what was finished, by a hash of the target's path: there may be very many.
    finished: HashMap<[u8; 16], (Stamp, Stamp)>,
    /// Directories, by a hash of their path, that were made with more rights than they are to have.
    lent: HashSet<[u8; 16]>,
    next: FileId,
}

impl Known {
    pub(super) fn next_id(&self) -> FileId {
        self.next
    }

    pub(super) fn draft_of(&self, target: &BytePath) -> Option<(FileId, &Draft)> {
        self.drafts.iter().rev().find(|(_, draft)| draft.target == *target).map(|(id, draft)| (*id, draft))
    }

    /// How source and target were when the target was finished.
    pub(super) fn finished(&self, target: &BytePath) -> Option<(Stamp, Stamp)> {
        self.finished.get(&key(target)).copied()
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub(super) fn is_lent(&self, target: &BytePath) -> bool {
        self.lent.contains(&key(target))
    }

    pub(super) fn has_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Named => self.is_named = true,
            Record::Begun { file, target, temporary, source } => {
                self.next = self.next.max(file.saturating_add(1));
                self.finished.remove(&key(&target));
                let draft = Draft { target, temporary, source, granted: None, written: Ranges::default() };
                self.drafts.insert(file, draft);
            }
            Record::Granted { file, mode } => {
                if let Some(draft) = self.drafts.get_mut(&file) {
                    draft.granted = Some(mode);
                }
            }
            Record::Written { file, ranges } => {
                if let Some(draft) = self.drafts.get_mut(&file) {
                    for (start, end) in ranges {
                        draft.written.insert(start, end);
                    }
                }
            }
            Record::Finished { file, source, target } => {
                if let Some(draft) = self.drafts.remove(&file) {
                    self.finished.insert(key(&draft.target), (source, target));
                }
            }
            Record::Gone { file } => drop(self.drafts.remove(&file)),
            Record::Lent { target } => drop(self.lent.insert(key(&target))),
        }
    }
}

fn key(path: &BytePath) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(path.as_bytes()).into();
    *digest.first_chunk().expect("16 are less than 32")
}

/// Paths are any bytes, and the text is UTF-8.
mod spelled {
    use data_encoding::HEXLOWER;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use super::BytePath;

    pub(super) fn serialize<S: Serializer>(path: &BytePath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(path.as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BytePath, D::Error> {
        let text = String::deserialize(deserializer)?;
        HEXLOWER.decode(text.as_bytes()).map(BytePath::new).map_err(D::Error::custom)
    }
}

/// A record as a line.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let text = serde_json::to_string(record).expect("strings and numbers have a text");
    format!("{} {text}\n", checksum(text.as_bytes())).into_bytes()
}

/// Any text as a line that counts, for the fuzz target.
#[cfg(any(test, fuzzing))]
pub(super) fn checked(text: &[u8]) -> Vec<u8> {
    [checksum(text).as_bytes(), b" ", text, b"\n"].concat()
}

/// What `text` says, and how much of it counts.
pub(super) fn decode(text: &[u8]) -> (Known, usize) {
    let mut known = Known::default();
    let mut valid = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(record) = decode_line(line) else { break };
        known.apply(record);
        valid += line.len();
    }
    (known, valid)
}

fn decode_line(line: &[u8]) -> Option<Record> {
    let (sum, text) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let text = text.strip_prefix(b" ")?;
    if sum != checksum(text).as_bytes() {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// Length of a checksum in hexadecimal digits.
const CHECKSUM: usize = 16;

fn checksum(text: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text)[..CHECKSUM / 2])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(size: u64) -> Stamp {
        Stamp { size, modified: Some((size, 5)) }
    }

    fn begun(file: FileId, name: &str) -> Record {
        let temporary = BytePath::from(format!(".{name}.{file}").as_str());
        Record::Begun { file, target: name.into(), temporary, source: Some(stamp(100)) }
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let file = 0u64..6;
        let path = proptest::collection::vec(1u8.., 1..6).prop_map(BytePath::new);
        let record = prop_oneof![
            Just(Record::Named),
            path.clone().prop_map(|target| Record::Lent { target }),
            (file.clone(), path.clone(), path).prop_map(|(file, target, temporary)| Record::Begun {
                file,
                target,
                temporary,
                source: Some(stamp(file)),
            }),
            (file.clone(), any::<u32>()).prop_map(|(file, mode)| Record::Granted { file, mode }),
            (file.clone(), proptest::collection::vec((0u64..50, 0u64..50), 0..4))
                .prop_map(|(file, ranges)| Record::Written { file, ranges }),
            (file.clone(), any::<u64>(), any::<u64>()).prop_map(|(file, one, two)| Record::Finished {
                file,
                source: stamp(one),
                target: stamp(two),
            }),
            file.prop_map(|file| Record::Gone { file }),
        ];
        proptest::collection::vec(record, 0..30)
    }

    fn known(records: &[Record]) -> Known {
        let mut known = Known::default();
        records.iter().cloned().for_each(|record| known.apply(record));
        known
    }

    proptest! {
        #[test]
        fn a_journal_cut_anywhere_says_what_its_whole_lines_say(records in records(), cut in any::<prop::sample::Index>()) {
            let lines: Vec<_> = records.iter().map(encode).collect();
            let text = lines.concat();
            let cut = cut.index(text.len() + 1);
            let (read, valid) = decode(&text[..cut]);
            let whole = (0..=lines.len()).rev().find(|count| lines[..*count].concat().len() <= cut).unwrap();
            prop_assert_eq!(valid, lines[..whole].concat().len());
            prop_assert_eq!(read, known(&records[..whole]));
        }

        #[test]
        fn a_changed_byte_ends_what_counts(records in records(), at in any::<prop::sample::Index>(), bits in 1u8..) {
            let lines: Vec<_> = records.iter().map(encode).collect();
            let mut text = lines.concat();
            prop_assume!(!text.is_empty());
            let at = at.index(text.len());
            text[at] ^= bits;
            prop_assert!(decode(&text).1 <= at);
        }

        #[test]
        fn any_bytes_are_a_journal(text in any::<Vec<u8>>()) {
            prop_assert!(decode(&text).1 <= text.len());
        }
    }

    #[test]
    fn a_file_is_begun_then_written_then_finished() {
        let mut known = known(&[
            begun(3, "a"),
            Record::Granted { file: 3, mode: 0o640 },
            Record::Written { file: 3, ranges: vec![(0, 10), (20, 30)] },
            Record::Written { file: 3, ranges: vec![(10, 15)] },
        ]);
        let (file, draft) = known.draft_of(&"a".into()).unwrap();
        assert_eq!((file, draft.granted, known.next_id()), (3, Some(0o640), 4));
        assert_eq!(draft.written.iter().collect::<Vec<_>>(), [(0, 15), (20, 30)]);
        known.apply(Record::Finished { file: 3, source: stamp(1), target: stamp(2) });
        assert_eq!(known.finished(&"a".into()), Some((stamp(1), stamp(2))));
        assert!(known.drafts.is_empty());
    }

    #[test]
    fn what_is_begun_again_is_not_finished() {
        let finished = Record::Finished { file: 0, source: stamp(1), target: stamp(2) };
        let known = known(&[begun(0, "a"), finished, begun(1, "a"), begun(2, "a")]);
        assert_eq!(known.finished(&"a".into()), None);
        assert_eq!(known.draft_of(&"a".into()).map(|(id, _)| id), Some(2));
        assert_eq!(known.drafts.len(), 2, "what the first of them left is still to be removed");
    }

    #[test]
    fn a_stamp_in_whole_seconds_tells_of_changes_only_after_a_while() {
        let at = |seconds, nanos| Stamp { size: 1, modified: Some((seconds, nanos)) };
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert!(at(97, 0).tells_changes_since(now) && at(99, 1).tells_changes_since(now));
        assert!(!at(98, 0).tells_changes_since(now) && !at(200, 0).tells_changes_since(now));
        assert!(!Stamp { size: 1, modified: None }.tells_changes_since(now));
    }
}
