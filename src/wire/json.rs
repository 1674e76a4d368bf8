//! The JSON bodies: the open message, and the payloads that are not bytes of the stream.
//!
//! Reading is lenient, as the peers' own decoders are: unknown fields are skipped, a missing or `null` field is empty.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// `MessageSchemaVersion` of an open message.
pub const SCHEMA_VERSION: &str = "1.0";

/// The bytes are not the body expected.
#[derive(Debug, thiserror::Error)]
#[error("not a valid {body}")]
pub struct BodyError {
    /// The body that was expected.
    body: &'static str,
    #[source]
    source: serde_json::Error,
}

/// A body in JSON.
pub trait Body: Serialize + DeserializeOwned {
    /// The body's name in errors.
    const NAME: &'static str;

    /// Reads the body.
    fn from_json(bytes: &[u8]) -> Result<Self, BodyError> {
        serde_json::from_slice(bytes).map_err(|source| BodyError { body: Self::NAME, source })
    }

    /// Writes the body as text.
    fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys: there is nothing that could fail to serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Writes the body as a payload.
    fn to_payload(&self) -> Bytes {
        self.to_json().into()
    }
}

macro_rules! bodies {
    ($($name:ident),*) => { $(impl Body for $name { const NAME: &'static str = stringify!($name); })* };
}
bodies!(OpenDataChannel, Acknowledge, HandshakeRequest, HandshakeResponse, HandshakeComplete, ChannelClosed);
bodies!(AgentSessionState, SessionTypeParameters, EncryptionChallenge, Size);

/// The first frame on a WebSocket, in text. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// [`SCHEMA_VERSION`].
    #[serde(default, deserialize_with = "null_is_empty")]
    pub message_schema_version: String,
    /// New for each WebSocket.
    #[serde(default, deserialize_with = "lenient_uuid")]
    pub request_id: Uuid,
    /// The credential.
    pub token_value: String,
    /// The node's id: the agent's form of this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_instance_id: Option<String>,
    /// The same on every WebSocket of one party.
    #[serde(default, deserialize_with = "lenient_uuid")]
    pub client_id: Uuid,
    /// The client's version: the client's form of this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// Sent by some agents, which then wait for `data_channel_ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_acknowledgement: Option<bool>,
}

impl OpenDataChannel {
    /// A client's open message.
    pub fn client(request_id: Uuid, token: &str, client_id: Uuid, version: &str) -> Self {
        Self { client_version: Some(version.to_owned()), ..Self::bare(request_id, token, client_id) }
    }

    /// An agent's open message.
    pub fn agent(request_id: Uuid, token: &str, client_id: Uuid, instance_id: &str) -> Self {
        Self { client_instance_id: Some(instance_id.to_owned()), ..Self::bare(request_id, token, client_id) }
    }

    fn bare(request_id: Uuid, token: &str, client_id: Uuid) -> Self {
        Self {
            message_schema_version: SCHEMA_VERSION.to_owned(),
            request_id,
            token_value: token.to_owned(),
            client_instance_id: None,
            client_id,
            client_version: None,
            require_acknowledgement: None,
        }
    }
}

impl fmt::Debug for OpenDataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDataChannel")
            .field("request_id", &self.request_id)
            .field("client_id", &self.client_id)
            .field("client_instance_id", &self.client_instance_id)
            .field("client_version", &self.client_version)
            .finish_non_exhaustive()
    }
}

/// Acknowledges one stream message. Receivers use the sequence number only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// `MessageType` of the message acknowledged.
    #[serde(rename = "AcknowledgedMessageType", default, deserialize_with = "null_is_empty")]
    pub message_type: String,
    /// `MessageId` of the message acknowledged.
    #[serde(rename = "AcknowledgedMessageId", default, deserialize_with = "lenient_uuid")]
    pub message_id: Uuid,
    /// `SequenceNumber` of the message acknowledged.
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    pub sequence: i64,
    /// Always true.
    #[serde(rename = "IsSequentialMessage", default)]
    pub is_sequential: bool,
}

/// What the agent wants of the client before the stream starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// The agent's version.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub agent_version: String,
    /// To be answered one by one, in order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub requested_client_actions: Vec<RequestedClientAction>,
}

/// One action the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RequestedClientAction {
    /// `SessionType` or `KMSEncryption`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub action_type: String,
    /// By type; [`SessionTypeParameters`] for `SessionType`.
    #[serde(default)]
    pub action_parameters: Value,
}

/// The parameters of a `SessionType` action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionTypeParameters {
    /// `Port` for everything this program starts.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub session_type: String,
    /// The document's properties, `portNumber` among them.
    #[serde(default)]
    pub properties: Value,
}

/// The client's answer to a [`HandshakeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    /// Four numbers with dots between.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub client_version: String,
    /// One for each requested action, in order.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub processed_client_actions: Vec<ProcessedClientAction>,
    /// Texts of what went wrong; `null` when nothing did.
    #[serde(default)]
    pub errors: Option<Vec<String>>,
}

/// The outcome of one requested action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedClientAction {
    /// As requested.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub action_type: String,
    /// Anything but success makes the agent end the session.
    #[serde(default)]
    pub action_status: ActionStatus,
    /// By type; `null` for `SessionType`.
    #[serde(default)]
    pub action_result: Value,
    /// Why it failed.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub error: String,
}

/// How an action went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
#[non_exhaustive]
pub enum ActionStatus {
    /// 1.
    Success,
    /// 2.
    Failed,
    /// 3.
    Unsupported,
    /// Anything else; the official plugin sends 0 for an action it does not know.
    Other(u32),
}

impl Default for ActionStatus {
    fn default() -> Self {
        Self::Other(0)
    }
}

impl From<u32> for ActionStatus {
    fn from(code: u32) -> Self {
        match code {
            1 => Self::Success,
            2 => Self::Failed,
            3 => Self::Unsupported,
            other => Self::Other(other),
        }
    }
}

impl From<ActionStatus> for u32 {
    fn from(status: ActionStatus) -> Self {
        match status {
            ActionStatus::Success => 1,
            ActionStatus::Failed => 2,
            ActionStatus::Unsupported => 3,
            ActionStatus::Other(code) => code,
        }
    }
}

/// The agent's word that the stream may start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    /// Nanoseconds since the request was sent.
    #[serde(default)]
    pub handshake_time_to_complete: i64,
    /// For the user; empty in a Port session.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub customer_message: String,
}

/// Both challenges of an encrypted session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptionChallenge {
    /// Standard base64 with padding.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub challenge: String,
}

/// The size of a shell session's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
}

/// The service has ended the session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    /// An id, as the service writes it.
    #[serde(deserialize_with = "null_is_empty")]
    pub message_id: String,
    /// A date, as the service writes it.
    #[serde(deserialize_with = "null_is_empty")]
    pub created_date: String,
    /// Whom it is for.
    #[serde(deserialize_with = "null_is_empty")]
    pub destination_id: String,
    /// The SSM session.
    #[serde(deserialize_with = "null_is_empty")]
    pub session_id: String,
    /// `channel_closed`.
    #[serde(deserialize_with = "null_is_empty")]
    pub message_type: String,
    /// 1.
    pub schema_version: i64,
    /// Why, for the user; empty when the session came to its normal end.
    #[serde(deserialize_with = "null_is_empty")]
    pub output: String,
}

/// The agent's state, which the service keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentSessionState {
    /// 1.
    #[serde(default)]
    pub schema_version: i64,
    /// `Connected` or `Terminating`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub session_state: String,
    /// The SSM session.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub session_id: String,
}

/// Go writes an empty slice as `null`.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Nobody acts upon these ids, so a malformed one must not cost the message. It reads as the nil UUID.
fn lenient_uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| Uuid::try_parse(text).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uuid = Uuid::from_u128(0x0011_2233_4455_4677_8899_aabb_ccdd_eeff);
    const ONE_TEXT: &str = "00112233-4455-4677-8899-aabbccddeeff";

    #[test]
    fn the_clients_open_message_has_the_plugins_fields_in_the_plugins_order() {
        let open = OpenDataChannel::client(ONE, "tok", ONE, "1.2.764.0");
        let text = format!(
            r#"{{"MessageSchemaVersion":"1.0","RequestId":"{ONE_TEXT}","TokenValue":"tok","ClientId":"{ONE_TEXT}","ClientVersion":"1.2.764.0"}}"#
        );
        assert_eq!(open.to_json(), text);
        assert_eq!(OpenDataChannel::from_json(text.as_bytes()).unwrap(), open);
    }

    #[test]
    fn the_agents_open_message_names_its_instance() {
        let open = OpenDataChannel::agent(ONE, "tok", ONE, "mi-0123456789abcdef0");
        let text = open.to_json();
        assert!(text.contains(r#""ClientInstanceId":"mi-0123456789abcdef0""#) && !text.contains("ClientVersion"));
        assert_eq!(OpenDataChannel::from_json(text.as_bytes()).unwrap(), open);
    }

    #[test]
    fn debug_output_of_an_open_message_keeps_the_token_to_itself() {
        let open = OpenDataChannel::client(ONE, "s3cret", ONE, "1.2.764.0");
        assert!(!format!("{open:?}").contains("s3cret"));
    }

    #[test]
    fn an_acknowledgement_is_written_as_the_plugin_writes_it() {
        let ack = Acknowledge {
            message_type: "output_stream_data".into(),
            message_id: ONE,
            sequence: 17,
            is_sequential: true,
        };
        let text = format!(
            r#"{{"AcknowledgedMessageType":"output_stream_data","AcknowledgedMessageId":"{ONE_TEXT}","AcknowledgedMessageSequenceNumber":17,"IsSequentialMessage":true}}"#
        );
        assert_eq!(ack.to_json(), text);
    }

    #[test]
    fn an_acknowledgement_counts_even_when_its_id_is_garbage() {
        let ack = br#"{"AcknowledgedMessageId":"x","AcknowledgedMessageSequenceNumber":3,"New":[1]}"#;
        assert_eq!(Acknowledge::from_json(ack).unwrap().sequence, 3);
    }

    #[test]
    fn the_agents_handshake_request_is_read_with_its_properties() {
        let text = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;
        let request = HandshakeRequest::from_json(text).unwrap();
        assert_eq!(request.agent_version, "3.3.0.0");
        assert_eq!(HandshakeRequest::from_json(request.to_json().as_bytes()).unwrap(), request);
        let parameters = request.requested_client_actions[0].action_parameters.to_string();
        let parameters = SessionTypeParameters::from_json(parameters.as_bytes()).unwrap();
        assert_eq!((parameters.session_type.as_str(), &parameters.properties["portNumber"]), ("Port", &"22".into()));
    }

    #[test]
    fn null_stands_for_an_empty_list() {
        let request = HandshakeRequest::from_json(br#"{"AgentVersion":null,"RequestedClientActions":null}"#).unwrap();
        assert_eq!(request, HandshakeRequest { agent_version: String::new(), requested_client_actions: vec![] });
    }

    #[test]
    fn a_handshake_response_is_written_as_the_plugin_writes_it() {
        let response = HandshakeResponse {
            client_version: "1.2.0.0".into(),
            processed_client_actions: vec![ProcessedClientAction {
                action_type: "SessionType".into(),
                action_status: ActionStatus::Success,
                action_result: Value::Null,
                error: String::new(),
            }],
            errors: None,
        };
        let text = r#"{"ClientVersion":"1.2.0.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#;
        assert_eq!(response.to_json(), text);
        assert_eq!(HandshakeResponse::from_json(text.as_bytes()).unwrap(), response);
    }

    #[test]
    fn channel_closed_needs_no_field_to_be_present() {
        assert_eq!(ChannelClosed::from_json(b"{}").unwrap(), ChannelClosed::default());
        let text = br#"{"Output":"Session timed out","SchemaVersion":1,"DestinationId":null}"#;
        assert_eq!(ChannelClosed::from_json(text).unwrap().output, "Session timed out");
    }
}
