//! The fixed prefix of a message: where each field lies, reading and writing it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{DecodeError, Message, MessageKind, PayloadType};

/// What `HeaderLength` is set to: the length of the header, and the offset of `PayloadLength`.
pub const HEADER_LENGTH: u32 = 116;
/// Bytes before the payload of a message this program writes.
pub const PREFIX_LENGTH: usize = 120;

/// Where each field lies.
mod field {
    use super::Range;

    pub(super) const HEADER_LENGTH: Range<usize> = 0..4;
    pub(super) const MESSAGE_TYPE: Range<usize> = 4..36;
    pub(super) const SCHEMA_VERSION: Range<usize> = 36..40;
    pub(super) const CREATED_DATE: Range<usize> = 40..48;
    pub(super) const SEQUENCE_NUMBER: Range<usize> = 48..56;
    pub(super) const FLAGS: Range<usize> = 56..64;
    pub(super) const MESSAGE_ID: Range<usize> = 64..80;
    pub(super) const PAYLOAD_DIGEST: Range<usize> = 80..112;
    pub(super) const PAYLOAD_TYPE: Range<usize> = 112..116;
    pub(super) const PAYLOAD_LENGTH: Range<usize> = 116..120;
}

/// Written into `SchemaVersion`; nobody reads it.
const SCHEMA_VERSION: u32 = 1;

type Prefix = [u8; PREFIX_LENGTH];

/// A message as it stands in a frame: with the header fields that say nothing new about a sound message, and that
/// only a receiver judges. Encoding writes them as they are, so a test can forge them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message.
    pub message: Message,
    /// `SchemaVersion`, 1 in every message known.
    pub schema_version: u32,
    /// `PayloadDigest`, to be the SHA-256 of the payload.
    pub digest: [u8; 32],
    /// `PayloadLength`, to be the length of the payload.
    pub payload_length: u32,
}

impl Frame {
    /// The frame of `message` with a right digest and length.
    pub fn new(message: Message) -> Self {
        let digest = Sha256::digest(&message.payload).into();
        let payload_length = length_field(message.payload.len());
        Self { message, schema_version: SCHEMA_VERSION, digest, payload_length }
    }

    /// Reads one frame. The payload is what follows the header, whatever `PayloadLength` says, and a slice of `frame`,
    /// not a copy. A `HeaderLength` other than [`HEADER_LENGTH`] is refused: no known sender writes one, and who pads a
    /// header makes memory of it.
    pub fn decode(mut frame: Bytes) -> Result<Self, DecodeError> {
        let length = frame.len();
        let prefix: Prefix = *frame.first_chunk().ok_or(DecodeError::TooShort { length })?;
        let header_length = u32::from_be_bytes(read(&prefix, field::HEADER_LENGTH));
        if header_length != HEADER_LENGTH {
            return Err(DecodeError::HeaderLength { header_length, length });
        }
        let payload = frame.split_off(PREFIX_LENGTH);
        Ok(Self {
            message: Message {
                kind: read_kind(&prefix)?,
                created_millis: u64::from_be_bytes(read(&prefix, field::CREATED_DATE)),
                sequence: i64::from_be_bytes(read(&prefix, field::SEQUENCE_NUMBER)),
                flags: u64::from_be_bytes(read(&prefix, field::FLAGS)),
                id: Uuid::from_bytes(swap_halves(read(&prefix, field::MESSAGE_ID))),
                payload_type: PayloadType::from(u32::from_be_bytes(read(&prefix, field::PAYLOAD_TYPE))),
                payload,
            },
            schema_version: u32::from_be_bytes(read(&prefix, field::SCHEMA_VERSION)),
            digest: read(&prefix, field::PAYLOAD_DIGEST),
            payload_length: u32::from_be_bytes(read(&prefix, field::PAYLOAD_LENGTH)),
        })
    }

    /// The bytes of this frame, the fields written as they are.
    pub fn encode(&self) -> Bytes {
        let mut prefix = self.message.header().prefix(self.digest, self.payload_length);
        write(&mut prefix, field::SCHEMA_VERSION, &self.schema_version.to_be_bytes());
        let mut bytes = BytesMut::with_capacity(PREFIX_LENGTH + self.message.payload.len());
        bytes.extend_from_slice(&prefix);
        bytes.extend_from_slice(&self.message.payload);
        bytes.freeze()
    }

    /// Whether `PayloadDigest` is the payload's. To be asked of stream data only: the service's own messages are known
    /// to carry wrong digests.
    pub fn is_digest_right(&self) -> bool {
        Sha256::digest(&self.message.payload).as_slice() == self.digest
    }
}

/// The fields of a message but for its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The `MessageType` field.
    pub kind: &'a MessageKind,
    /// Milliseconds since the Unix epoch.
    pub created_millis: u64,
    /// The `SequenceNumber` field.
    pub sequence: i64,
    /// The `Flags` field.
    pub flags: u64,
    /// The `MessageId` field.
    pub id: Uuid,
    /// The `PayloadType` field.
    pub payload_type: PayloadType,
}

impl Header<'_> {
    fn prefix(&self, digest: [u8; 32], payload_length: u32) -> Prefix {
        let mut prefix = [0; PREFIX_LENGTH];
        write(&mut prefix, field::HEADER_LENGTH, &HEADER_LENGTH.to_be_bytes());
        write(&mut prefix, field::MESSAGE_TYPE, &[b' '; 32]);
        write(&mut prefix, field::MESSAGE_TYPE, self.kind.as_str().as_bytes());
        write(&mut prefix, field::SCHEMA_VERSION, &SCHEMA_VERSION.to_be_bytes());
        write(&mut prefix, field::CREATED_DATE, &self.created_millis.to_be_bytes());
        write(&mut prefix, field::SEQUENCE_NUMBER, &self.sequence.to_be_bytes());
        write(&mut prefix, field::FLAGS, &self.flags.to_be_bytes());
        write(&mut prefix, field::MESSAGE_ID, &swap_halves(self.id.into_bytes()));
        write(&mut prefix, field::PAYLOAD_DIGEST, &digest);
        write(&mut prefix, field::PAYLOAD_TYPE, &u32::from(self.payload_type).to_be_bytes());
        write(&mut prefix, field::PAYLOAD_LENGTH, &payload_length.to_be_bytes());
        prefix
    }
}

/// A frame whose payload is still growing. The prefix has its place from the start, so a payload byte is copied once,
/// from the writer's buffer into the frame that goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBuf {
    bytes: BytesMut,
}

impl FrameBuf {
    /// An empty payload with room for `payload` bytes.
    pub fn with_capacity(payload: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(PREFIX_LENGTH + payload);
        bytes.resize(PREFIX_LENGTH, 0);
        Self { bytes }
    }

    /// Appends to the payload.
    pub fn extend_from_slice(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// Bytes in the payload.
    pub fn len(&self) -> usize {
        self.bytes.len() - PREFIX_LENGTH
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the prefix; the frame is ready for the wire.
    pub fn seal(mut self, header: &Header<'_>) -> Bytes {
        if let Some((prefix, payload)) = self.bytes.split_first_chunk_mut::<PREFIX_LENGTH>() {
            *prefix = header.prefix(Sha256::digest(&*payload).into(), length_field(payload.len()));
        }
        self.bytes.freeze()
    }
}

/// The name is padded with spaces or NULs, in front too if a sender pleases.
fn read_kind(prefix: &Prefix) -> Result<MessageKind, DecodeError> {
    let field: [u8; 32] = read(prefix, field::MESSAGE_TYPE);
    let name = String::from_utf8_lossy(&field);
    match name.trim_matches(['\0', ' ']) {
        "" => Err(DecodeError::EmptyMessageType),
        name => Ok(MessageKind::from_name(name)),
    }
}

/// The wire has the least significant half of a UUID first; each half is big-endian.
fn swap_halves(id: [u8; 16]) -> [u8; 16] {
    u128::from_be_bytes(id).rotate_left(64).to_be_bytes()
}

fn length_field(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The bytes of a field. Total: a range and a type that disagree would read as zeros, which the vectors would show.
fn read<const N: usize>(prefix: &Prefix, field: Range<usize>) -> [u8; N] {
    prefix.get(field).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// Copies `value` to the front of a field, as far as it fits.
fn write(prefix: &mut Prefix, field: Range<usize>, value: &[u8]) {
    for (to, from) in prefix.get_mut(field).into_iter().flatten().zip(value) {
        *to = *from;
    }
}
