//! The bytes of one data-channel message; pure values.

use bytes::Bytes;
use uuid::Uuid;

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
    /// The `PayloadType` field as sent; 0 where the kind carries none.
    pub payload_type: u32,
    /// The payload.
    pub payload: Bytes,
}
