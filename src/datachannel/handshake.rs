//! The agent's requested actions, and our answer to them.

use std::time::Duration;

use crate::wire::{
    ActionStatus, Body, HandshakeRequest, HandshakeResponse, ProcessedClientAction, RequestedClientAction,
    SessionTypeParameters,
};

/// An agent that is not connected to its port yet leaves messages unacknowledged, so starting early costs a resend.
const HOLD_OFF: Duration = Duration::from_millis(30);
/// Before this version it acknowledges and loses them.
const HOLD_OFF_OF_OLD_AGENTS: Duration = Duration::from_secs(1);
const KEEPS_EARLY_DATA: [u32; 4] = [3, 0, 655, 0];
/// Before this version it does not acknowledge a repeated message again.
const ACKNOWLEDGES_REPEATED: [u32; 4] = [3, 2, 1041, 0];

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: HandshakeResponse,
    /// The first action that was refused. The agent ends the session for it.
    pub(super) refused: Option<String>,
}

/// Answers every action, in order.
pub(super) fn answer(request: &HandshakeRequest, client_version: &str) -> Answer {
    let actions = &request.requested_client_actions;
    let response = HandshakeResponse {
        client_version: client_version.to_owned(),
        processed_client_actions: actions.iter().map(process).collect(),
        errors: None,
    };
    Answer { response, refused: actions.iter().find_map(refusal) }
}

/// How long after `HandshakeComplete` the agent may still not be ready for application bytes.
pub(super) fn hold_off(agent_version: &str) -> Duration {
    if is_older(agent_version, KEEPS_EARLY_DATA) { HOLD_OFF_OF_OLD_AGENTS } else { HOLD_OFF }
}

/// Whether the agent acknowledges each message once only, so that a lost acknowledgement stays lost.
pub(super) fn acknowledges_once(agent_version: &str) -> bool {
    is_older(agent_version, ACKNOWLEDGES_REPEATED)
}

fn process(action: &RequestedClientAction) -> ProcessedClientAction {
    let refused = refusal(action);
    ProcessedClientAction {
        action_type: action.action_type.clone(),
        action_status: if refused.is_some() { ActionStatus::Unsupported } else { ActionStatus::Success },
        action_result: ().into(),
        error: refused.map(|action| format!("{action} is not supported by this client")).unwrap_or_default(),
    }
}

/// The name of what cannot be done, if it cannot: everything but a Port session in its plain form. The multiplexed
/// form, which port forwarding documents ask for, would put another protocol into the stream.
fn refusal(action: &RequestedClientAction) -> Option<String> {
    if action.action_type != "SessionType" {
        return Some(action.action_type.clone());
    }
    let parameters = SessionTypeParameters::from_json(action.action_parameters.to_string().as_bytes()).ok()?;
    match (parameters.session_type.as_str(), parameters.properties.get("type").and_then(|kind| kind.as_str())) {
        ("Port", None | Some("")) => None,
        (session_type, None) => Some(format!("SessionType {session_type}")),
        (session_type, Some(kind)) => Some(format!("SessionType {session_type} {kind}")),
    }
}

/// A version that is not four numbers counts as old.
fn is_older(version: &str, than: [u32; 4]) -> bool {
    let parts: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
    parts.map_or(true, |parts| parts.len() != 4 || parts.as_slice() < than.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(actions: &str) -> HandshakeRequest {
        let text = format!(r#"{{"AgentVersion":"3.3.0.0","RequestedClientActions":{actions}}}"#);
        HandshakeRequest::from_json(text.as_bytes()).unwrap()
    }

    const PORT: &str =
        r#"{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}"#;
    const KMS: &str = r#"{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"arn"}}"#;

    fn statuses(answer: &Answer) -> Vec<(&str, ActionStatus)> {
        let actions = answer.response.processed_client_actions.iter();
        actions.map(|action| (action.action_type.as_str(), action.action_status)).collect()
    }

    #[test]
    fn a_port_session_is_answered_with_success() {
        let answer = answer(&request(&format!("[{PORT}]")), "1.2.764.0");
        assert_eq!(statuses(&answer), [("SessionType", ActionStatus::Success)]);
        assert_eq!(answer.refused, None);
        assert_eq!(
            answer.response.to_json(),
            r#"{"ClientVersion":"1.2.764.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#
        );
    }

    #[test]
    fn every_action_is_answered_in_order_and_the_unknown_as_unsupported() {
        let answer = answer(&request(&format!(r#"[{KMS},{PORT},{{"ActionType":"Dance"}}]"#)), "1.2.764.0");
        let expected = [
            ("KMSEncryption", ActionStatus::Unsupported),
            ("SessionType", ActionStatus::Success),
            ("Dance", ActionStatus::Unsupported),
        ];
        assert_eq!(statuses(&answer), expected);
        assert_eq!(answer.refused.as_deref(), Some("KMSEncryption"));
    }

    #[test]
    fn a_session_of_another_type_is_refused_by_name() {
        for (parameters, name) in [
            (r#"{"SessionType":"Standard_Stream","Properties":null}"#, "SessionType Standard_Stream"),
            (
                r#"{"SessionType":"Port","Properties":{"type":"LocalPortForwarding"}}"#,
                "SessionType Port LocalPortForwarding",
            ),
        ] {
            let action = format!(r#"[{{"ActionType":"SessionType","ActionParameters":{parameters}}}]"#);
            assert_eq!(answer(&request(&action), "1.2.764.0").refused.as_deref(), Some(name));
        }
    }

    #[test]
    fn no_action_is_answered_with_none() {
        let answer = answer(&request("null"), "1.2.764.0");
        assert!(statuses(&answer).is_empty() && answer.refused.is_none());
    }

    #[test]
    fn an_agent_that_loses_early_data_is_given_a_second() {
        assert_eq!(hold_off("3.0.655.0"), HOLD_OFF);
        assert_eq!(hold_off("3.3.987.0"), HOLD_OFF);
        assert_eq!(hold_off("10.0.0.0"), HOLD_OFF);
        for old in ["3.0.654.9", "2.3.722.0"] {
            assert_eq!(hold_off(old), HOLD_OFF_OF_OLD_AGENTS, "{old}");
        }
        for odd in ["", "latest", "3.3", "3.3.0.x"] {
            assert_eq!(hold_off(odd), HOLD_OFF_OF_OLD_AGENTS, "{odd}");
        }
    }
}
