//! The bytes of one data-channel message; pure values.
//!
//! One binary WebSocket message is one [`Message`]: a prefix of 120 bytes, then the payload. All integers are
//! big-endian.
//!
//! ```text
//!   0 ┌──────────────────────┐
//!     │ HeaderLength      4  │ 116: the offset of PayloadLength
//!   4 │ MessageType      32  │ padded with spaces; NULs have been seen
//!  36 │ SchemaVersion     4  │
//!  40 │ CreatedDate       8  │ milliseconds
//!  48 │ SequenceNumber    8  │
//!  56 │ Flags             8  │
//!  64 │ MessageId        16  │ the two halves of the UUID swapped
//!  80 │ PayloadDigest    32  │ SHA-256 of the payload
//! 112 │ PayloadType       4  │
//! 116 ├──────────────────────┤
//!     │ PayloadLength     4  │ written, never trusted
//! 120 ├──────────────────────┤ HeaderLength + 4
//!     │ Payload           n  │ up to the end of the frame
//!     └──────────────────────┘
//! ```
//!
//! The digest is not part of decoding: the service's own messages are known to carry wrong ones, and who wants to see
//! a wrong digest must be able to. [`Frame`] holds a message together with the fields that only a receiver judges.

mod header;
mod id;
mod json;
mod payload;

use bytes::Bytes;
use uuid::Uuid;

pub use header::{Frame, FrameBuf, HEADER_LENGTH, Header, PREFIX_LENGTH};
pub use id::Ids;
pub use json::{
    Acknowledge, ActionStatus, AgentSessionState, Body, BodyError, ChannelClosed, EncryptionChallenge,
    HandshakeComplete, HandshakeRequest, HandshakeResponse, OpenDataChannel, ProcessedClientAction,
    RequestedClientAction, SCHEMA_VERSION, SessionTypeParameters, Size,
};
pub use payload::{Flag, PayloadType};

/// The flags of a message that begins and ends an exchange of its own: acknowledgements and session states.
pub const FLAGS_SINGLE: u64 = 3;
/// The flags of the first stream message of the agent. The client's stream messages carry none.
pub const FLAGS_FIRST: u64 = 1;

/// What a message is for, from its `MessageType` field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageKind {
    /// Client to agent stream data.
    InputStreamData,
    /// Agent to client stream data.
    OutputStreamData,
    /// Acknowledgement of one stream message.
    Acknowledge,
    /// The service ended the session.
    ChannelClosed,
    /// The service allows publication.
    StartPublication,
    /// The service asks to pause publication.
    PausePublication,
    /// The agent's state, meant for the service.
    AgentSessionState,
    /// Anything else, as it was spelled.
    Other(String),
}

impl MessageKind {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InputStreamData => "input_stream_data",
            Self::OutputStreamData => "output_stream_data",
            Self::Acknowledge => "acknowledge",
            Self::ChannelClosed => "channel_closed",
            Self::StartPublication => "start_publication",
            Self::PausePublication => "pause_publication",
            Self::AgentSessionState => "agent_session_state",
            Self::Other(name) => name,
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "input_stream_data" => Self::InputStreamData,
            "output_stream_data" => Self::OutputStreamData,
            "acknowledge" => Self::Acknowledge,
            "channel_closed" => Self::ChannelClosed,
            "start_publication" => Self::StartPublication,
            "pause_publication" => Self::PausePublication,
            "agent_session_state" => Self::AgentSessionState,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Whether messages of this kind are numbered and acknowledged.
    pub fn is_stream_data(&self) -> bool {
        matches!(self, Self::InputStreamData | Self::OutputStreamData)
    }
}

/// One data-channel message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The `MessageType` field.
    pub kind: MessageKind,
    /// Milliseconds since the Unix epoch.
    pub created_millis: u64,
    /// The `SequenceNumber` field; 0 where the kind is not numbered.
    pub sequence: i64,
    /// The `Flags` field.
    pub flags: u64,
    /// The `MessageId` field.
    pub id: Uuid,
    /// The `PayloadType` field; [`PayloadType::NONE`] where the kind carries none.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: Bytes,
}

impl Message {
    /// Reads one frame. The payload is a slice of it, not a copy. Length and digest fields are not judged;
    /// [`Frame::decode`] gives them too.
    pub fn decode(frame: Bytes) -> Result<Self, DecodeError> {
        Frame::decode(frame).map(|frame| frame.message)
    }

    /// The frame of this message, with the right length and digest, in one allocation. A kind whose name is longer
    /// than its field loses the excess.
    pub fn encode(&self) -> Bytes {
        let mut frame = FrameBuf::with_capacity(self.payload.len());
        frame.extend_from_slice(&self.payload);
        frame.seal(&self.header())
    }

    fn header(&self) -> Header<'_> {
        Header {
            kind: &self.kind,
            created_millis: self.created_millis,
            sequence: self.sequence,
            flags: self.flags,
            id: self.id,
            payload_type: self.payload_type,
        }
    }
}

/// The frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame ends before the fixed fields do.
    #[error("a frame of {length} bytes cannot hold a message, which has at least {PREFIX_LENGTH}")]
    TooShort {
        /// Bytes in the frame.
        length: usize,
    },
    /// `HeaderLength` is not [`HEADER_LENGTH`].
    #[error("HeaderLength is {header_length} in a frame of {length} bytes; it is to be {HEADER_LENGTH}")]
    HeaderLength {
        /// The field as sent.
        header_length: u32,
        /// Bytes in the frame.
        length: usize,
    },
    /// `MessageType` is blank.
    #[error("MessageType is empty")]
    EmptyMessageType,
}

#[cfg(test)]
mod tests;
