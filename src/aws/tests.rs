//! The calls and their failures, against a scripted service.

mod time;

use std::sync::Mutex;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::stream::{DialError, TargetId};

const TOKEN: &str = "AAEAAW-the-token-of-the-session";
const STREAM_URL: &str =
    "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jo-0a1?role=publish_subscribe&cell-number=AA+/x==";

/// Answers every request with one answer and keeps what was asked.
#[derive(Debug, Clone)]
struct Scripted {
    status: u16,
    body: String,
    asked: Arc<Mutex<Vec<(String, serde_json::Value)>>>,
    /// The URI of the last request.
    uri: Arc<Mutex<String>>,
}

impl Scripted {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), asked: Arc::default(), uri: Arc::default() }
    }

    fn error(code: &str, message: &str) -> Self {
        Self::new(400, serde_json::json!({ "__type": code, "message": message }).to_string())
    }

    fn service(&self) -> AwsService {
        self.service_in("eu-west-1")
    }

    fn service_in(&self, region: &str) -> AwsService {
        AwsService::from_sdk_config(&config(region, self.client())).unwrap()
    }

    fn client(&self) -> SharedHttpClient {
        let this = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(this.clone()))
    }
}

impl HttpConnector for Scripted {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        request.uri().clone_into(&mut self.uri.lock().unwrap());
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        self.asked.lock().unwrap().push((target, body));
        let status = self.status.try_into().unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(self.body.as_str()))))
    }
}

fn config(region: &str, client: SharedHttpClient) -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(client)
        .build()
}

fn request(target: &str) -> StartRequest {
    StartRequest {
        reason: Some("maintenance".into()),
        ..StartRequest::new(TargetId::new(target).unwrap(), 2222.try_into().unwrap())
    }
}

fn granted() -> Scripted {
    let answer = serde_json::json!({ "SessionId": "jo-0a1", "StreamUrl": STREAM_URL, "TokenValue": TOKEN });
    Scripted::new(200, answer.to_string())
}

async fn start_failure(service: &AwsService) -> ServiceError {
    service.start(&request("i-0123456789abcdef0")).await.unwrap_err()
}

#[tokio::test]
async fn a_session_is_started_with_the_ssh_document_and_the_port() {
    let script = granted();
    let grant = script.service().start(&request("i-0123456789abcdef0")).await.unwrap();
    assert_eq!(
        (grant.session.0.as_str(), grant.stream_url.as_str(), grant.token.as_str()),
        ("jo-0a1", STREAM_URL, TOKEN)
    );
    let (target, body) = script.asked.lock().unwrap().pop().unwrap();
    assert_eq!(target, "AmazonSSM.StartSession");
    let expected = serde_json::json!({
        "Target": "i-0123456789abcdef0",
        "DocumentName": "AWS-StartSSHSession",
        "Parameters": { "portNumber": ["2222"] },
        "Reason": "maintenance",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_session_is_resumed_with_a_new_token() {
    let grant = granted().service().resume(&SessionId("jo-0a1".into())).await.unwrap();
    assert_eq!(grant.token, TOKEN);
}

#[tokio::test]
async fn a_resume_without_a_token_means_that_the_session_is_over() {
    for body in [r#"{"SessionId":"jo-0a1"}"#, r#"{"SessionId":"jo-0a1","TokenValue":""}"#] {
        let failure = Scripted::new(200, body).service().resume(&SessionId("jo-0a1".into())).await.unwrap_err();
        assert!(matches!(failure, ServiceError::SessionEnded { .. }), "{failure:?}");
    }
}

#[tokio::test]
async fn terminating_a_session_that_is_gone_succeeds() {
    let script = Scripted::error("DoesNotExistException", "no such session");
    script.service().terminate(&SessionId("jo-0a1".into())).await.unwrap();
    let failure = script.service().resume(&SessionId("jo-0a1".into())).await.unwrap_err();
    assert!(matches!(failure, ServiceError::SessionEnded { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_refused_start_names_the_statement_that_is_missing() {
    let message = "User: arn:aws:iam::123456789012:user/jo is not authorized to perform: ssm:StartSession on resource: \
                   arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0";
    let failure = start_failure(&Scripted::error("AccessDeniedException", message).service()).await;
    let ServiceError::Denied(denied) = failure else { panic!("{failure:?}") };
    assert_eq!(denied.message, message);
    let statement: serde_json::Value = serde_json::from_str(&denied.statement()).unwrap();
    let expected = serde_json::json!({
        "Effect": "Allow",
        "Action": "ssm:StartSession",
        "Resource": [
            "arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0",
            "arn:aws:ssm:*:*:document/AWS-StartSSHSession",
        ],
    });
    assert_eq!(statement, expected);
}

#[tokio::test]
async fn a_refused_resume_names_the_callers_own_sessions_in_the_regions_partition() {
    let script = Scripted::error("AccessDeniedException", "no");
    let failure = script.service_in("us-gov-west-1").resume(&SessionId("jo-0a1".into())).await.unwrap_err();
    let ServiceError::Denied(denied) = failure else { panic!("{failure:?}") };
    assert_eq!(denied.action, "ssm:ResumeSession");
    assert_eq!(denied.resources, ["arn:aws-us-gov:ssm:*:*:session/${aws:userid}-*"]);
}

#[tokio::test]
async fn a_node_that_is_not_connected_is_told_with_the_region_that_was_asked() {
    let failure = start_failure(&Scripted::error("TargetNotConnected", "i-… is not connected.").service()).await;
    assert_eq!(failure.to_string(), "node i-0123456789abcdef0 is not connected to Session Manager in region eu-west-1");
}

#[tokio::test]
async fn each_other_refusal_has_its_kind() {
    type Check = fn(&ServiceError) -> bool;
    let table: [(&str, Check); 5] = [
        ("ThrottlingException", |e| matches!(e, ServiceError::Throttled { .. })),
        ("ExpiredTokenException", |e| matches!(e, ServiceError::Expired(text) if text.contains("aws sso login"))),
        ("UnrecognizedClientException", |e| matches!(e, ServiceError::CredentialsRefused(_))),
        ("InvalidTarget", |e| matches!(e, ServiceError::Refused { code, .. } if code == "InvalidTarget")),
        ("InternalServerError", |e| matches!(e, ServiceError::Refused { .. }) && e.is_transient()),
    ];
    for (code, check) in table {
        let failure = start_failure(&Scripted::error(code, "the message").service()).await;
        assert!(check(&failure), "{code}: {failure:?}");
        assert!(failure.to_string().contains("the message"), "{failure}");
    }
}

/// As the service words it: the request that was signed is repeated, with the session token.
const SIGNATURE_REFUSED: &str = "The request signature we calculated does not match the signature you provided. Check \
    your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical \
    String for this request should have been\n'POST\n/\n\ncontent-type:application/x-amz-json-1.1\n\
    host:ssm.eu-west-1.amazonaws.com\nx-amz-date:20260101T000000Z\nx-amz-security-token:FwoGZXIvYXdzEXAMPLE\n\
    x-amz-target:AmazonSSM.StartSession\n\ncontent-type;host;x-amz-date\n0123456789abcdef'\n\nThe String-to-Sign \
    should have been\n'AWS4-HMAC-SHA256\n20260101T000000Z'\n";

#[tokio::test]
async fn credentials_that_are_refused_are_told_by_their_fault() {
    let secret_wrong = "the secret access key does not match the access key id AKIDEXAMPLE";
    let table = [
        ("InvalidSignatureException", SIGNATURE_REFUSED, secret_wrong),
        ("SignatureDoesNotMatch", SIGNATURE_REFUSED, secret_wrong),
        (
            "InvalidSignatureException",
            "Credential should be scoped to a valid region. ",
            "the endpoint takes none for SSM in region eu-west-1: Credential should be scoped to a valid region.",
        ),
        (
            "InvalidSignatureException",
            "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z (20260101T010500Z - 5 min.)",
            "this machine's clock is wrong: Signature expired: 20260101T000000Z is now earlier \
             than 20260101T010000Z (20260101T010500Z - 5 min.)",
        ),
        (
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            "the access key id AKIDEXAMPLE is not known in region eu-west-1, or its session token is wrong: \
             The security token included in the request is invalid.",
        ),
    ];
    for (code, message, expected) in table {
        let failure = start_failure(&Scripted::error(code, message).service()).await;
        assert_eq!(failure.to_string(), format!("the AWS credentials were not accepted: {expected}"));
    }
    let message = "The security token included in the request is expired";
    let failure = start_failure(&Scripted::error("ExpiredTokenException", message).service()).await;
    assert!(matches!(&failure, ServiceError::Expired(text) if text.starts_with(message)), "{failure:?}");
}

#[tokio::test]
async fn whatever_the_code_no_message_of_the_service_shows_the_token() {
    for code in
        ["AccessDeniedException", "ThrottlingException", "ExpiredToken", "MissingAuthenticationTokenException", "Odd"]
    {
        for message in [SIGNATURE_REFUSED.to_owned(), SIGNATURE_REFUSED.replace('\n', " ")] {
            let failure = start_failure(&Scripted::error(code, &message).service()).await;
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("FwoGZXIvYXdz"), "{shown}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_answer_is_told_without_its_content() {
    let html = start_failure(&Scripted::new(502, "<html>Bad gateway</html>").service()).await;
    assert_eq!(html.to_string(), "StartSession got HTTP status 502, and no answer as SSM gives them");
    let partial = serde_json::json!({ "SessionId": "jo-0a1", "TokenValue": TOKEN }).to_string();
    let partial = start_failure(&Scripted::new(200, partial).service()).await;
    assert_eq!(partial.to_string(), "StartSession got an answer that lacks StreamUrl");
    let broken = start_failure(&Scripted::new(200, format!("{{\"TokenValue\":\"{TOKEN}\" oops")).service()).await;
    assert!(!format!("{broken} {broken:?}").contains(TOKEN), "{broken:?}");
}

#[tokio::test]
async fn neither_the_service_nor_a_grant_shows_a_secret() {
    let service = granted().service();
    let grant = service.start(&request("i-0123456789abcdef0")).await.unwrap();
    let shown = format!("{grant:?} {service:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains("wss://") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn a_presigned_url_is_not_signed_again() {
    let service = granted().service();
    let presigned = format!("{STREAM_URL}&X-Amz-Signature=00ff");
    assert_eq!(service.sign_upgrade(&presigned).await.unwrap(), []);
    assert_eq!(service.sign_upgrade(STREAM_URL).await.unwrap().len(), 2);
}

#[tokio::test]
async fn fips_and_dual_stack_endpoints_are_those_of_the_sdk() {
    for (region, fips, dual_stack, expected) in [
        ("eu-west-1", false, false, "https://ssm.eu-west-1.amazonaws.com/"),
        ("us-gov-west-1", true, false, "https://ssm.us-gov-west-1.amazonaws.com/"),
        ("us-east-1", true, false, "https://ssm-fips.us-east-1.amazonaws.com/"),
        ("eu-west-1", false, true, "https://ssm.eu-west-1.api.aws/"),
        ("us-east-1", true, true, "https://ssm-fips.us-east-1.api.aws/"),
    ] {
        let script = granted();
        let config = config(region, script.client()).into_builder();
        let config = config.use_fips(fips).use_dual_stack(dual_stack).build();
        let service = AwsService::from_sdk_config(&config).unwrap();
        service.start(&request("i-0123456789abcdef0")).await.unwrap();
        assert_eq!(*script.uri.lock().unwrap(), expected);
        assert_eq!(service.configured_host(), None, "nobody has configured a host");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_set_to_nothing_is_not_set() {
    let script = granted();
    let config = config("eu-west-1", script.client()).into_builder().endpoint_url("").build();
    let service = AwsService::from_sdk_config(&config).unwrap();
    service.start(&request("i-0123456789abcdef0")).await.unwrap();
    assert_eq!(*script.uri.lock().unwrap(), "https://ssm.eu-west-1.amazonaws.com/");
    assert_eq!(service.configured_host(), None);
}

/// Credentials that are about to end, so that no two requests share them.
#[derive(Debug, Default)]
struct Rotating(std::sync::atomic::AtomicU64);

impl ProvideCredentials for Rotating {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = format!("KEY{}", self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let credentials = Credentials::new(key, "secret", None, Some(SystemTime::now()), "test");
        aws_credential_types::provider::future::ProvideCredentials::ready(Ok(credentials))
    }
}

#[tokio::test]
async fn every_upgrade_is_signed_with_the_credentials_of_its_moment() {
    let provider = SharedCredentialsProvider::new(Rotating::default());
    let config = config("eu-west-1", granted().client()).into_builder().credentials_provider(provider).build();
    let service = AwsService::from_sdk_config(&config).unwrap();
    for key in ["KEY0", "KEY1", "KEY2"] {
        let headers = service.sign_upgrade(STREAM_URL).await.unwrap();
        let signature = headers.iter().find(|(name, _)| name == "authorization").unwrap().1.to_str().unwrap();
        assert!(signature.contains(&format!("Credential={key}/")), "{signature}");
    }
}

#[tokio::test]
async fn a_missing_region_and_missing_credentials_are_told_apart() {
    let no_region = SdkConfig::builder().build();
    assert!(matches!(AwsService::from_sdk_config(&no_region), Err(ServiceError::NoRegion)));
    let empty_region = SdkConfig::builder().region(Region::new("")).build();
    assert!(matches!(AwsService::from_sdk_config(&empty_region), Err(ServiceError::NoRegion)));
    let no_credentials = SdkConfig::builder().region(Region::new("eu-west-1")).build();
    assert!(matches!(AwsService::from_sdk_config(&no_credentials), Err(ServiceError::Credentials(_))));
}

#[test]
fn an_expired_login_says_what_to_run() {
    let expired = CredentialsError::provider_error("the SSO token has expired and cannot be refreshed");
    let failure = errors::credentials(&expired, "run `aws sso login --profile prod`");
    assert!(
        matches!(&failure, ServiceError::Expired(text) if text.contains("aws sso login --profile prod")),
        "{failure}"
    );
    let missing = errors::credentials(&CredentialsError::not_loaded("nothing"), "");
    assert!(matches!(&missing, ServiceError::Credentials(_)), "{missing}");
}

#[tokio::test]
async fn a_region_and_an_endpoint_that_cannot_be_show_before_the_first_call() {
    for (region, url, said) in [
        ("\"eu-west-1\"", "", "`\"eu-west-1\"` is not a valid region: take its quotes away"),
        ("eu west", "", "expected one such as eu-west-1"),
        ("eu-west-1.evil.example/", "", "not a valid region"),
        ("eu-west-1", "endpoint", "`endpoint` is not a valid endpoint URL"),
        ("eu-west-1", "\"https://endpoint.example\"", "take its quotes away"),
        ("eu-west-1", "ftp://jo:secret@endpoint.example", "the endpoint is not a valid endpoint URL"),
    ] {
        let config = config(region, granted().client()).into_builder().endpoint_url(url).build();
        let error = AwsService::from_sdk_config(&config).expect_err(said);
        assert!(matches!(&error, ServiceError::Configuration(_)) && !error.is_transient(), "{error:?}");
        assert!(error.to_string().contains(said) && !error.to_string().contains("secret"), "{error}");
    }
}

/// The HTTP client of the product itself, over a socket, to an endpoint that the user configured.
#[tokio::test]
async fn an_http_endpoint_is_reached_and_its_host_trusted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = connection.read(&mut head).await.unwrap();
        let body = r#"{"SessionId":"jo-0a1"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        connection.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let config = config("eu-west-1", http_client(Network::default())).into_builder().endpoint_url(endpoint).build();
    let service = AwsService::from_sdk_config(&config).unwrap();
    assert_eq!(service.configured_host(), Some("127.0.0.1"));
    service.terminate(&SessionId("jo-0a1".into())).await.unwrap();
    let asked = server.await.unwrap();
    assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("/eu-west-1/ssm/aws4_request"), "{asked}");
}

#[tokio::test]
async fn an_endpoint_without_encryption_is_refused_unless_it_is_on_this_machine() {
    for (url, is_taken) in [
        ("http://endpoint.example:8080", false),
        ("HTTP://endpoint.example", false),
        (" http://10.0.0.1/", false),
        ("http://127.0.0.1.example.com", false),
        ("http://[2001:db8::1]:4566", false),
        ("http://169.254.169.254", false),
        ("https://endpoint.example:8080", true),
        ("http://127.0.0.1:4566", true),
        ("http://localhost:4566", true),
        ("http://[::1]:4566", true),
    ] {
        let script = granted();
        let config = config("eu-west-1", script.client()).into_builder().endpoint_url(url).build();
        match AwsService::from_sdk_config(&config) {
            Ok(_) => assert!(is_taken, "{url}"),
            Err(error) => assert!(matches!(error, ServiceError::PlainEndpoint { .. }) && !is_taken, "{url}: {error:?}"),
        }
    }
}

/// Endpoints of the other services that a login asks (STS, SSO) come from the same places.
#[tokio::test]
async fn no_request_of_a_credentials_provider_leaves_without_encryption_but_to_metadata_services() {
    for url in ["http://sts.example/", "http://10.0.0.1:8080/", "http://[2001:db8::1]/", "http://169.254.1.1.example/"]
    {
        let refused = http::dial(&Network::default(), &url.parse().unwrap(), None).await.unwrap_err();
        assert!(matches!(refused, DialError::NotEncrypted), "{url}: {refused:?}");
    }
    for near in ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "127.0.0.1", "[::1]", "localhost"] {
        assert!(http::is_near(near), "{near}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_named_with_its_port() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let config = config("eu-west-1", http_client(Network::default())).into_builder().endpoint_url(endpoint).build();
    let failure = start_failure(&AwsService::from_sdk_config(&config).unwrap()).await;
    assert_eq!(failure.to_string(), format!("StartSession cannot connect to 127.0.0.1:{port}"));
}

/// An answer of the API that says that it is a tebibyte, and goes on as long as it is read.
#[tokio::test]
async fn an_answer_without_end_is_given_up_after_a_mebibyte() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: 1099511627776\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut written = 0;
        while written < 64 << 20 && stream.write_all(&vec![b' '; 1 << 16]).await.is_ok() {
            written += 1 << 16;
        }
        written
    });
    let config = config("eu-west-1", http_client(Network::default())).into_builder().endpoint_url(url).build();
    let service = AwsService::from_sdk_config(&config).unwrap();
    service.start(&request("i-0123456789abcdef0")).await.unwrap_err();
    let written = flood.await.unwrap();
    assert!(written < 32 << 20, "{written} bytes were taken; what the sockets hold is less");
}
