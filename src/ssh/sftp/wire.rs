//! Reading and writing the primitive types of the protocol: big-endian integers and counted byte strings.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ProtocolError;

/// The longest packet accepted, in bytes without its length field: OpenSSH's limit of 256 KiB and slack for servers
/// that count their header apart.
pub(super) const MAX_PACKET: usize = 257 * 1024;

/// A packet's fields, read from the front; strings share the packet's memory.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.0.try_get_u8().map_err(|_| ProtocolError::Truncated)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.0.try_get_u32().map_err(|_| ProtocolError::Truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.0.try_get_u64().map_err(|_| ProtocolError::Truncated)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, ProtocolError> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(ProtocolError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    /// Everything not read yet.
    pub(super) fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends a counted string. Lengths beyond `u32` cannot pass the check of the whole packet, see `Frame`.
pub(super) fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// Takes the next whole packet, without its length field, from the front of `buffer`.
///
/// `None` asks for more bytes; room for the rest of the packet is reserved.
pub(super) fn take_packet(buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
    let Some(field) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = check_length(*field)?;
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// The length that a packet's first four bytes announce.
pub(super) fn check_length(field: [u8; 4]) -> Result<usize, ProtocolError> {
    let length = u32::from_be_bytes(field);
    match usize::try_from(length) {
        Ok(0) => Err(ProtocolError::Truncated),
        Ok(length) if length <= MAX_PACKET => Ok(length),
        _ if is_text(field) => Err(ProtocolError::TextOnStream(String::from_utf8_lossy(&field).into_owned())),
        _ => Err(ProtocolError::TooLong(length)),
    }
}

/// Whether these are letters where a packet's length should be: as a length they are far beyond any.
pub(super) fn is_text(field: [u8; 4]) -> bool {
    let begins = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r' | b'\x1b' | b'\x07');
    field.iter().all(begins)
}
