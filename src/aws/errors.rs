//! From the SDK's errors to ours: who is at fault, and what to do.

use std::error::Error;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{DOCUMENT, Inner, arn, http};
use crate::stream::{Denied, REFUSAL, SENTENCE, ServiceError, SessionId, TargetId, quote};

/// One API call, as its failure is told.
pub(super) struct Call<'a> {
    service: &'a Inner,
    operation: &'static str,
    action: &'static str,
    subject: Subject<'a>,
}

enum Subject<'a> {
    Node(&'a TargetId),
    Session(&'a SessionId),
}

impl<'a> Call<'a> {
    pub(super) fn start(service: &'a Inner, target: &'a TargetId) -> Self {
        let subject = Subject::Node(target);
        Self { service, operation: "StartSession", action: "ssm:StartSession", subject }
    }

    pub(super) fn resume(service: &'a Inner, session: &'a SessionId) -> Self {
        let subject = Subject::Session(session);
        Self { service, operation: "ResumeSession", action: "ssm:ResumeSession", subject }
    }

    pub(super) fn terminate(service: &'a Inner, session: &'a SessionId) -> Self {
        let subject = Subject::Session(session);
        Self { service, operation: "TerminateSession", action: "ssm:TerminateSession", subject }
    }

    /// What went wrong; credentials that the service did not accept are forgotten, so that the next call reads them anew.
    pub(super) async fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> ServiceError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let used = self.service.credentials.last().await;
        let failure = self.explain(error, used.as_ref());
        if matches!(failure, ServiceError::Expired(_) | ServiceError::CredentialsRefused(_)) {
            self.service.credentials.forget().await;
        }
        failure
    }

    fn explain<E>(&self, error: &SdkError<E, HttpResponse>, used: Option<&Credentials>) -> ServiceError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(code) = error.code() else { return self.unreachable(error) };
        let said = error.message().unwrap_or("no reason given");
        let message = quote(said, SENTENCE, &secrets(used));
        match (code, &self.subject) {
            ("AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation", _) => {
                self.denied(quote(said, REFUSAL, &secrets(used)))
            }
            ("TargetNotConnected", Subject::Node(target)) => {
                ServiceError::TargetNotConnected { target: (*target).clone(), region: self.service.region.clone() }
            }
            ("DoesNotExistException", Subject::Session(session)) => {
                ServiceError::SessionEnded { session: (*session).clone(), message }
            }
            ("ExpiredTokenException" | "ExpiredToken" | "RequestExpired", _) => {
                ServiceError::Expired(format!("{message}: {}", self.service.renewal))
            }
            (code, _) if is_unknown_caller(code) => {
                let key = used.map_or("in use", Credentials::access_key_id);
                ServiceError::CredentialsRefused(self.why_refused(code, key, message))
            }
            (code, _) if is_throttling(code) => ServiceError::Throttled { operation: self.operation, message },
            _ => ServiceError::Refused {
                operation: self.operation,
                code: code.to_owned(),
                message: with_request_id(message, error),
            },
        }
    }

    /// Why the service refuses the credentials with this access key id.
    fn why_refused(&self, code: &str, key: &str, message: String) -> String {
        let says = |words: &str| message.contains(words);
        let region = &self.service.region;
        match code {
            _ if says("Signature expired") || says("Signature not yet current") => match self.service.clock.skew() {
                Some(skew) => format!("this machine's clock is {skew}: {message}"),
                None => format!("this machine's clock is wrong: {message}"),
            },
            _ if says("Credential should be scoped") => {
                format!("the endpoint takes none for SSM in region {region}: {message}")
            }
            "SignatureDoesNotMatch" | "InvalidSignatureException" => {
                format!("the secret access key does not match the access key id {key}")
            }
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => {
                format!(
                    "the access key id {key} is not known in region {region}, or its session token is wrong: {message}"
                )
            }
            _ => message,
        }
    }

    fn denied(&self, message: String) -> ServiceError {
        let region = &self.service.region;
        let resources = match self.subject {
            Subject::Session(_) => vec![arn::own_sessions(region)],
            Subject::Node(target) => {
                let account = arn::account_in(&message).unwrap_or("*");
                vec![arn::node(region, account, target), arn::document(region, DOCUMENT)]
            }
        };
        ServiceError::Denied(Denied { action: self.action, resources, message })
    }

    fn unreachable<E: Error + 'static>(&self, error: &SdkError<E, HttpResponse>) -> ServiceError {
        let operation = self.operation;
        if let Some((host, source)) = http::unreached(error) {
            return ServiceError::NotReached { operation, host: host.to_owned(), source: Arc::clone(source) };
        }
        let message = match error.raw_response().map(HttpResponse::status) {
            _ if matches!(error, SdkError::TimeoutError(_)) => {
                let (place, patience) = (self.service.place(), &self.service.patience);
                format!("no answer: {place} accepts connections and stays silent{patience}")
            }
            Some(status) => format!("HTTP status {}, and no answer as SSM gives them", status.as_u16()),
            None => format!("no answer: {}", causes(error)),
        };
        ServiceError::Unreachable { operation, message }
    }
}

/// What must not be repeated, whoever says it.
fn secrets(used: Option<&Credentials>) -> Vec<&str> {
    used.into_iter().flat_map(|used| used.session_token().into_iter().chain([used.secret_access_key()])).collect()
}

/// An answer that says that all went well and leaves out what was asked for.
pub(super) fn missing_field(call: &Call<'_>, name: &str) -> ServiceError {
    ServiceError::Unreachable { operation: call.operation, message: format!("an answer that lacks {name}") }
}

/// Credentials that could not be resolved, and what would renew them.
pub(super) fn credentials(error: &CredentialsError, renewal: &str) -> ServiceError {
    if let Some(told) = error.source().and_then(|source| source.downcast_ref::<ServiceError>()) {
        return told.clone();
    }
    if let Some((host, source)) = http::unreached(error).filter(|(host, _)| !http::is_near(without_port(host))) {
        return ServiceError::NotReached { operation: "the login", host: host.to_owned(), source: Arc::clone(source) };
    }
    let causes = causes(error);
    let told = quote(&causes, REFUSAL, &[]);
    // The SSO errors are private to aws-config: their texts are all there is to tell them by.
    let is_login = ["SSO token", "Session token not found or invalid", "Login token is expired"];
    if is_login.iter().any(|text| causes.contains(text)) {
        return ServiceError::Expired(format!("{told}: {renewal}"));
    }
    ServiceError::Credentials(told)
}

fn without_port(host: &str) -> &str {
    let parts = host.rsplit_once(':').filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
    parts.map_or(host, |(name, _)| name)
}

fn is_unknown_caller(code: &str) -> bool {
    matches!(
        code,
        "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException"
    )
}

fn is_throttling(code: &str) -> bool {
    matches!(code, "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded")
}

/// AWS's support asks for the id, and a fault inside the service says nothing else.
fn with_request_id(message: String, error: &impl RequestId) -> String {
    match error.request_id() {
        Some(id) => format!("{message} (request {id})"),
        None => message,
    }
}

/// The error and its causes in words. Not `Debug`: that would show the answer, and with it the token.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
