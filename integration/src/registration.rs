//! What a real agent needs before it speaks the node's part: activation, and a role's credentials.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{api::ApiError, sigv4::AccessKey};

/// How long the node's credentials are said to be good.
const ROLE_LIFETIME: Duration = Duration::from_hours(1);

/// The activation of one run: `amazon-ssm-agent -register -code … -id …`.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) node: String,
    pub(crate) code: String,
    pub(crate) id: String,
    /// Of the agent that registered. It stands for the agent's key pair, whose signatures are not checked here.
    fingerprint: Mutex<Option<String>>,
}

impl Registration {
    pub(crate) fn new(node: String) -> Self {
        let code = Uuid::new_v4().simple().to_string()[..20].to_owned();
        Self { node, code, id: Uuid::new_v4().to_string(), fingerprint: Mutex::default() }
    }

    pub(crate) fn register(&self, input: &Value) -> Result<Value, ApiError> {
        if input["ActivationCode"] != self.code || input["ActivationId"] != self.id {
            return Err(ApiError::new("InvalidActivation", "the activation code or id is not this lab's"));
        }
        *self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner) = text(&input["Fingerprint"]);
        Ok(json!({ "InstanceId": self.node }))
    }

    pub(crate) fn role_token(&self, input: &Value, key: &AccessKey) -> Result<Value, ApiError> {
        let registered = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if registered.is_none() || registered != text(&input["Fingerprint"]) {
            let message = "the agent is not registered with this run of the lab: register it again";
            return Err(ApiError::new("MachineFingerprintDoesNotMatch", message));
        }
        let expires = SystemTime::now() + ROLE_LIFETIME;
        Ok(json!({
            "AccessKeyId": key.id,
            "SecretAccessKey": key.secret,
            "SessionToken": key.token,
            "UpdateKeyPair": false,
            "TokenExpirationDate": expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        }))
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activation(registration: &Registration) -> Value {
        json!({ "ActivationCode": registration.code, "ActivationId": registration.id, "Fingerprint": "f" })
    }

    #[test]
    fn only_the_agent_that_activated_gets_the_nodes_credentials() {
        let registration = Registration::new("mi-0123456789abcdef0".to_owned());
        let key = AccessKey::random();
        assert!(registration.role_token(&json!({ "Fingerprint": "f" }), &key).is_err());
        assert_eq!(registration.register(&activation(&registration)).unwrap()["InstanceId"], "mi-0123456789abcdef0");
        assert_eq!(registration.role_token(&json!({ "Fingerprint": "f" }), &key).unwrap()["AccessKeyId"], *key.id);
        assert!(registration.role_token(&json!({ "Fingerprint": "g" }), &key).is_err());
    }

    #[test]
    fn a_wrong_activation_registers_nothing() {
        let registration = Registration::new("mi-0123456789abcdef0".to_owned());
        let mut wrong = activation(&registration);
        wrong["ActivationCode"] = "guessed".into();
        assert_eq!(registration.register(&wrong).unwrap_err().code, "InvalidActivation");
        assert!(registration.role_token(&json!({ "Fingerprint": "f" }), &AccessKey::random()).is_err());
    }
}
