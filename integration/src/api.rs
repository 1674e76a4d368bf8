//! The SSM API: JSON 1.1 over HTTP, as far as Session Manager and its agent use it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{
    access::Access,
    events::{Event, Events},
    gateway::{Gateway, ResumeError},
    registration::Registration,
    sigv4::{self, AccessKey, Authorization, Request, Scope, SignatureError},
};

/// The account that the lab's ARNs name.
pub(crate) const ACCOUNT: &str = "000000000000";
/// How long `GetMessages` is held when there is nothing to say.
const LONG_POLL: Duration = Duration::from_secs(15);

/// What the service knows about itself and its callers.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) region: String,
    pub(crate) access: Arc<Access>,
    pub(crate) node_key: AccessKey,
    pub(crate) denied: HashSet<String>,
    pub(crate) unsigned_upgrades: bool,
    /// `ws://127.0.0.1:PORT`, where the stream URLs lead.
    pub(crate) stream_base: String,
    pub(crate) gateway: Arc<Gateway>,
    /// Where a real agent is expected.
    pub(crate) registration: Option<Arc<Registration>>,
    pub(crate) events: Events,
}

/// An error as the API words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Service {
    /// Answers one `POST /`.
    pub(crate) async fn call(&self, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response<Full<Bytes>> {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.split_once('.').map_or(target, |(_, operation)| operation);
        let request = Request { method: &Method::POST, uri, headers, body };
        match self.dispatch(operation, request).await {
            Ok(answer) => respond(StatusCode::OK, &answer),
            Err(error) => {
                self.refuse(operation, error.code, &error.message);
                respond(StatusCode::BAD_REQUEST, &json!({ "__type": error.code, "message": error.message }))
            }
        }
    }

    async fn dispatch(&self, operation: &str, request: Request<'_>) -> Result<Value, ApiError> {
        let input: Value = serde_json::from_slice(request.body).unwrap_or_default();
        if operation.ends_with("Session") && self.access.is_throttled() {
            return Err(ApiError::new("ThrottlingException", "Rate exceeded"));
        }
        match operation {
            "StartSession" => {
                let target = text(&input, "Target")?;
                self.authorize(request, "ssm:StartSession", &node_arn(&self.region, target))?;
                self.start_session(target, &input)
            }
            "ResumeSession" => {
                let session = text(&input, "SessionId")?;
                self.authorize(request, "ssm:ResumeSession", &session_arn(&self.region, session))?;
                self.resume_session(session)
            }
            "TerminateSession" => {
                let session = text(&input, "SessionId")?;
                self.authorize(request, "ssm:TerminateSession", &session_arn(&self.region, session))?;
                self.terminate_session(session)
            }
            _ => match &self.registration {
                Some(registration) => self.dispatch_agent(operation, &input, registration).await,
                None => Err(unknown_operation(operation)),
            },
        }
    }

    /// What only an agent asks for. None of it reveals or changes anything without an activation.
    async fn dispatch_agent(
        &self,
        operation: &str,
        input: &Value,
        registration: &Registration,
    ) -> Result<Value, ApiError> {
        match operation {
            "RegisterManagedInstance" => registration.register(input),
            "RequestManagedInstanceRoleToken" => registration.role_token(input, &self.node_key),
            "GetMessages" => {
                tokio::time::sleep(LONG_POLL).await;
                Ok(json!({}))
            }
            "ListInstanceAssociations" | "ListAssociations" => Ok(json!({ "Associations": [] })),
            _ => Ok(json!({})),
        }
    }

    fn start_session(&self, target: &str, input: &Value) -> Result<Value, ApiError> {
        let document = input["DocumentName"].as_str().unwrap_or("SSM-SessionManagerRunShell");
        if document != "AWS-StartSSHSession" {
            let message = format!("Document with name {document} does not exist.");
            return Err(ApiError::new("InvalidDocument", message));
        }
        let port = input["Parameters"]["portNumber"][0].as_str().unwrap_or("22");
        let port = port
            .parse()
            .map_err(|_| ApiError::new("InvalidParameters", format!("portNumber is not a port: {port}")))?;
        let not_connected = |_| ApiError::new("TargetNotConnected", format!("{target} is not connected."));
        let opening = self.gateway.start_session(target, document, port).map_err(not_connected)?;
        Ok(self.grant(&opening.session, &opening.token))
    }

    fn resume_session(&self, session: &str) -> Result<Value, ApiError> {
        match self.gateway.resume_session(session) {
            Ok(opening) => Ok(self.grant(&opening.session, &opening.token)),
            Err(ResumeError::Ended) => Ok(json!({ "SessionId": session, "TokenValue": "", "StreamUrl": "" })),
            Err(ResumeError::Unknown) => Err(no_such_session(session)),
        }
    }

    fn terminate_session(&self, session: &str) -> Result<Value, ApiError> {
        if self.gateway.terminate_session(session) {
            Ok(json!({ "SessionId": session }))
        } else {
            Err(no_such_session(session))
        }
    }

    fn grant(&self, session: &str, token: &str) -> Value {
        let url = format!(
            "{}/v1/data-channel/{session}?role=publish_subscribe&cell-number=AAEAAfq+Lab/{}=",
            self.stream_base,
            &token[..8]
        );
        json!({ "SessionId": session, "TokenValue": token, "StreamUrl": url })
    }

    fn authorize(&self, request: Request<'_>, action: &str, resource: &str) -> Result<(), ApiError> {
        let scope = Scope { region: &self.region, service: "ssm" };
        self.access.verify(request, scope).map_err(signature_error)?;
        if self.denied.contains(action) {
            return Err(ApiError::new("AccessDeniedException", denied_message(action, resource)));
        }
        Ok(())
    }

    /// The time in the lab.
    pub(crate) fn now(&self) -> std::time::SystemTime {
        self.access.now()
    }

    /// Checks a WebSocket upgrade of a data channel, and says whose it is: true for the node's.
    pub(crate) fn authorize_upgrade(&self, request: Request<'_>) -> Result<bool, ApiError> {
        let by_node = Authorization::parse(request.headers).is_ok_and(|it| it.key_id == self.node_key.id);
        if by_node {
            return self.authorize_node(request).map(|()| true);
        }
        match self.verify_client_upgrade(request) {
            Err(SignatureError::Missing) if self.unsigned_upgrades => {}
            verified => verified.map_err(signature_error)?,
        }
        if self.denied.contains("ssmmessages:OpenDataChannel") {
            let message = denied_message("ssmmessages:OpenDataChannel", "*");
            return Err(ApiError::new("AccessDeniedException", message));
        }
        Ok(false)
    }

    fn verify_client_upgrade(&self, request: Request<'_>) -> Result<(), SignatureError> {
        let signed = Authorization::parse(request.headers)?.signed_headers;
        if signed != ["host", "x-amz-date", "x-amz-security-token"] {
            return Err(SignatureError::Malformed("the signed headers are not host;x-amz-date;x-amz-security-token"));
        }
        self.access.verify(request, self.messages_scope())
    }

    /// Checks a call that only the node makes to the gateway.
    pub(crate) fn authorize_node(&self, request: Request<'_>) -> Result<(), ApiError> {
        let now = std::time::SystemTime::now();
        sigv4::verify(request, &self.node_key, self.messages_scope(), now).map_err(signature_error)
    }

    fn messages_scope(&self) -> Scope<'_> {
        Scope { region: &self.region, service: "ssmmessages" }
    }

    pub(crate) fn refuse(&self, operation: &str, code: &str, reason: &str) {
        self.events.record(Event::Refused {
            operation: operation.to_owned(),
            code: code.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

fn signature_error(error: SignatureError) -> ApiError {
    match error {
        SignatureError::Missing => ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token"),
        SignatureError::UnknownKey | SignatureError::WrongToken => {
            ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
        }
        SignatureError::Expired => {
            ApiError::new("ExpiredTokenException", "The security token included in the request is expired")
        }
        other => ApiError::new("InvalidSignatureException", other.to_string()),
    }
}

fn denied_message(action: &str, resource: &str) -> String {
    format!(
        "User: arn:aws:sts::{ACCOUNT}:assumed-role/lab/lab is not authorized to perform: {action} on resource: \
         {resource} because no identity-based policy allows the {action} action"
    )
}

fn node_arn(region: &str, node: &str) -> String {
    if node.starts_with("mi-") {
        format!("arn:aws:ssm:{region}:{ACCOUNT}:managed-instance/{node}")
    } else {
        format!("arn:aws:ec2:{region}:{ACCOUNT}:instance/{node}")
    }
}

fn session_arn(region: &str, session: &str) -> String {
    format!("arn:aws:ssm:{region}:{ACCOUNT}:session/{session}")
}

fn unknown_operation(operation: &str) -> ApiError {
    ApiError::new("UnknownOperationException", format!("`{operation}` is not offered here"))
}

fn no_such_session(session: &str) -> ApiError {
    ApiError::new("DoesNotExistException", format!("Session {session} does not exist."))
}

fn text<'a>(input: &'a Value, name: &'static str) -> Result<&'a str, ApiError> {
    input[name].as_str().ok_or_else(|| ApiError::new("ValidationException", format!("{name} is missing")))
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-amz-json-1.1"));
    response
}
