//! A node's control channel.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use ssmssh::wire::{Message, MessageKind};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Gateway,
    socket::{self, Receive, Slot, WebSocket},
};
use crate::task::{self, AGENT_TASK_ACKNOWLEDGE, AGENT_TASK_COMPLETE, AgentTaskAcknowledge, AgentTaskComplete};

/// A node that has asked for a control channel.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(super) slot: Slot,
    token: Mutex<Option<String>>,
}

/// The open message; the agent adds its platform and version, which nobody here needs.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpenControlChannel {
    token_value: String,
}

/// What a node reports on its control channel.
struct Reports<'a> {
    gateway: &'a Gateway,
    node: &'a Node,
}

impl Receive for Reports<'_> {
    async fn receive(&self, frame: Bytes) {
        self.gateway.handle_control(self.node, frame).await;
    }
}

impl Gateway {
    /// A token for the control channel of `node`, which is known from now on.
    pub(crate) fn create_control_channel(&self, node: &str) -> String {
        let node = Arc::clone(self.state().nodes.entry(node.to_owned()).or_default());
        let value = Uuid::new_v4().simple().to_string();
        *node.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
        value
    }

    /// Whether StartSession would find `node` connected.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.state().nodes.get(node).is_some_and(|node| node.slot.is_attached())
    }

    /// A node's control channel, from its open message to its end.
    pub(crate) async fn serve_control(&self, id: &str, mut socket: WebSocket) {
        let open = socket::read_open_message(&mut socket).await;
        let open: Option<OpenControlChannel> = open.and_then(|text| serde_json::from_str(&text).ok());
        let node = self.state().nodes.get(id).cloned();
        let (Some(open), Some(node)) = (open, node) else { return socket::close(socket, "").await };
        let token = node.token.lock().unwrap_or_else(PoisonError::into_inner).take();
        if token.as_deref() != Some(&open.token_value) {
            return socket::close(socket, "the token is not valid").await;
        }
        let attachment = node.slot.attach();
        let number = attachment.number();
        attachment.serve(socket, Reports { gateway: self, node: &node }).await;
        node.slot.detach(number);
    }

    async fn handle_control(&self, node: &Node, frame: Bytes) {
        let Ok(message) = Message::decode(frame) else { return };
        if message.kind != MessageKind::from_name(AGENT_TASK_COMPLETE) {
            return;
        }
        let Ok(complete) = serde_json::from_slice::<AgentTaskComplete>(&message.payload) else { return };
        let acknowledge = AgentTaskAcknowledge {
            schema_version: 1,
            message_id: message.id.to_string(),
            task_id: complete.task_id.clone(),
            topic: complete.topic,
        };
        node.slot.deliver(task::frame(AGENT_TASK_ACKNOWLEDGE, &acknowledge)).await;
        if let Some(session) = self.session(&complete.task_id) {
            session.end(&complete.output);
        }
    }
}

/// Waits until `node` is connected, or `limit` has passed.
pub(crate) async fn wait_until_connected(gateway: &Gateway, node: &str, limit: Duration) -> bool {
    let connected = async {
        while !gateway.is_connected(node) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(limit, connected).await.is_ok()
}
