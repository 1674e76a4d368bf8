//! The messages of the control channel between the gateway and a node, and how the lab stamps any message.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ssmssh::wire::{Message, MessageKind, PayloadType};
use uuid::Uuid;

/// Kinds that only the control channel knows.
pub(crate) const INTERACTIVE_SHELL: &str = "interactive_shell";
pub(crate) const AGENT_TASK_COMPLETE: &str = "agent_task_complete";
pub(crate) const AGENT_TASK_ACKNOWLEDGE: &str = "agent_task_acknowledge";

/// The payload of `interactive_shell`: a task of which the session is described in `content`, JSON within JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentTask {
    pub(crate) content: String,
    pub(crate) task_id: String,
    pub(crate) topic: String,
    pub(crate) schema_version: u32,
}

/// What the node is to start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskContent {
    pub(crate) document_name: String,
    pub(crate) document_content: Value,
    pub(crate) session_id: String,
    pub(crate) parameters: Value,
    pub(crate) run_as_user: String,
    pub(crate) session_owner: String,
}

impl AgentTask {
    /// A Port session to `port`, as the document `AWS-StartSSHSession` describes it.
    pub(crate) fn port_session(document: &str, session: &str, port: u16, owner: &str) -> Self {
        let content = TaskContent {
            document_name: document.to_owned(),
            document_content: json!({
                "schemaVersion": "1.0",
                "description": "Document to start an SSH session over Session Manager",
                "sessionType": "Port",
                "parameters": { "portNumber": { "type": "String", "default": "22" } },
                "properties": { "portNumber": port.to_string() },
            }),
            session_id: session.to_owned(),
            parameters: json!({ "portNumber": [port.to_string()] }),
            run_as_user: String::new(),
            session_owner: owner.to_owned(),
        };
        Self {
            content: serde_json::to_string(&content).unwrap_or_default(),
            task_id: session.to_owned(),
            topic: "aws.ssm.shellSession".to_owned(),
            schema_version: 1,
        }
    }
}

/// The node's report that a session ended.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AgentTaskComplete {
    pub(crate) schema_version: u32,
    pub(crate) task_id: String,
    pub(crate) topic: String,
    pub(crate) final_task_status: String,
    pub(crate) instance_id: String,
    pub(crate) output: String,
}

/// The service's answer to it; without one the node repeats the report.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AgentTaskAcknowledge {
    pub(crate) schema_version: u32,
    pub(crate) message_id: String,
    pub(crate) task_id: String,
    pub(crate) topic: String,
}

/// A message of `kind` outside the numbered streams.
pub(crate) fn message(kind: MessageKind, flags: u64, payload: impl Into<Bytes>) -> Message {
    Message {
        kind,
        created_millis: now_millis(),
        sequence: 0,
        flags,
        id: Uuid::new_v4(),
        payload_type: PayloadType::NONE,
        payload: payload.into(),
    }
}

/// The frame of a control message with a JSON body.
pub(crate) fn frame(kind: &str, body: &impl Serialize) -> Bytes {
    message(MessageKind::from_name(kind), 0, serde_json::to_vec(body).unwrap_or_default()).encode()
}

/// The clock as messages carry it.
pub(crate) fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
