//! The real control plane: `StartSession`, `ResumeSession` and `TerminateSession` through the AWS SDK, and the signed
//! WebSocket upgrade.
//!
//! Region, profile, endpoint and credentials come from where every AWS tool takes them (environment, `~/.aws/config`,
//! `~/.aws/credentials`, SSO logins, credential processes, the container's or instance's role); what the builder is
//! given takes precedence.

mod arn;
mod clock;
mod credentials;
mod errors;
mod http;
mod process;
mod profiles;
mod setup;
mod upgrade;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::IdentityCache;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_smithy_types::retry::RetryConfig;
use aws_types::service_config::ServiceConfigKey;
use futures_util::future::BoxFuture;
use url::Url;

use self::clock::Clock;
use self::credentials::{FreshCredentials, Source};
use self::errors::{Call, missing_field};
pub use self::http::http_client;
use self::setup::Setup;
use crate::stream::{
    Denied, Grant, Network, SENTENCE, ServiceError, SessionId, SsmService, StartRequest, UpgradeHeaders, is_loopback,
    is_presigned, quote, report_stage, report_wait,
};

/// The document that opens a Port session to sshd. An IAM policy names it.
const DOCUMENT: &str = "AWS-StartSSHSession";

/// The longest wait for one attempt at an API call; the SDK makes up to three.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest wait for a connection to the API: name resolution, TCP, proxy and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Session Manager, as the AWS SDK reaches it.
///
/// Cloning is cheap; clones share connections and credentials. Dropping it affects no session.
#[derive(Clone)]
pub struct AwsService {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    region: String,
    /// What renews the credentials, as a clause for a message.
    renewal: String,
    configured_host: Option<String>,
    credentials: Arc<FreshCredentials>,
    clock: Clock,
    /// How long an answer is waited for, and how often, as the end of a message.
    patience: String,
}

/// What an [`AwsService`] takes from its caller rather than from the environment and the AWS configuration files.
#[derive(Debug, Clone, Default)]
pub struct AwsServiceBuilder {
    settings: Settings,
}

#[derive(Debug, Clone, Default)]
struct Settings {
    profile: Option<String>,
    region: Option<String>,
    endpoint_url: Option<String>,
    network: Network,
}

impl AwsServiceBuilder {
    /// The profile of `~/.aws/config`. Its credentials are then used even where the environment holds others. Default:
    /// those of the environment, then the profile that `AWS_PROFILE` names, then `default`.
    #[must_use]
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.settings.profile = Some(name.into());
        self
    }

    /// The region of the node. Default: `AWS_REGION`, then the profile's, then the region of the EC2 instance this runs
    /// on. The last costs a request to the instance metadata service, which takes seconds to fail where there is none.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.settings.region = Some(region.into());
        self
    }

    /// The URL of the SSM API, in place of the region's public one. Default: `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL`,
    /// or `endpoint_url` of the profile. A stream URL may then lead to this host, too. Without encryption (`http://`) it
    /// must be on this machine, wherever it comes from: [`ServiceError::PlainEndpoint`].
    #[must_use]
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.settings.endpoint_url = Some(url.into());
        self
    }

    /// How requests leave this machine, those of credentials providers too. Default: directly, believing the system's
    /// root certificates. The WebSocket has its own: [`StreamOptions::network`](crate::stream::StreamOptions).
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.settings.network = network;
        self
    }

    /// Reads the configuration. No credentials are asked for yet; a profile that cannot have any, a line that is not
    /// understood and a region or endpoint that cannot be are errors ([`ServiceError::Configuration`]) with file and line.
    ///
    /// Cancelling it has no effect outside the process.
    pub async fn build(self) -> Result<AwsService, ServiceError> {
        let Self { mut settings } = self;
        let setup = Setup::read(settings.clone()).await?;
        let config = setup.load().await;
        let region = setup.region(&config)?;
        settings.region = Some(region.clone());
        setup.tell();
        AwsService::new(&config, region, setup.renewal(), Source::Chain(settings))
    }
}

impl AwsService {
    /// A builder with nothing set: everything comes from the environment and the AWS configuration files.
    pub fn builder() -> AwsServiceBuilder {
        AwsServiceBuilder::default()
    }

    /// A service over a configuration that the program has already, with its own credentials provider, HTTP client,
    /// time-outs and retries. It must name a region and credentials; an endpoint that it names over `http://` must be on this
    /// machine.
    pub fn from_sdk_config(config: &SdkConfig) -> Result<Self, ServiceError> {
        let region = region_of(config)?;
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| ServiceError::Credentials("the configuration names none".to_owned()))?;
        let renewal = "run `aws sso login`, or renew the credentials".to_owned();
        Self::new(config, region, renewal, Source::Given(provider))
    }

    fn new(config: &SdkConfig, region: String, renewal: String, source: Source) -> Result<Self, ServiceError> {
        let endpoint = configured_endpoint(config);
        endpoint.as_deref().map_or(Ok(()), check_endpoint)?;
        if let Some(host) = endpoint.as_deref().and_then(host_in_clear) {
            return Err(ServiceError::PlainEndpoint { host });
        }
        let clock = Clock::default();
        let credentials = Arc::new(FreshCredentials::new(source));
        let mut builder = aws_sdk_ssm::config::Builder::from(config)
            .credentials_provider(SharedCredentialsProvider::new(
                Arc::clone(&credentials) as Arc<dyn ProvideCredentials>
            ))
            .interceptor(clock.clone())
            .identity_cache(IdentityCache::no_cache());
        builder.set_endpoint_url(endpoint.clone());
        if config.behavior_version().is_none() {
            builder = builder.behavior_version(BehaviorVersion::latest());
        }
        if config.http_client().is_none() {
            builder = builder.http_client(http_client(Network::default()));
        }
        let client = Client::from_conf(builder.build());
        let patience = patience(config);
        let configured_host = endpoint.as_deref().and_then(host_of);
        let inner = Arc::new(Inner { client, region, renewal, configured_host, credentials, clock, patience });
        tracing::info!(target: "ssmssh::detail", "region {}, API at {}", inner.region, inner.place());
        Ok(Self { inner })
    }

    /// The region that is asked.
    pub fn region(&self) -> &str {
        &self.inner.region
    }
}

/// ` (3 tries of 20 s)`
fn patience(config: &SdkConfig) -> String {
    let limit = config.timeout_config().and_then(TimeoutConfig::operation_attempt_timeout);
    let tries = config.retry_config().map_or(1, RetryConfig::max_attempts);
    let tries = if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") };
    limit.map(|limit| format!(" ({tries} of {} s)", limit.as_secs())).unwrap_or_default()
}

/// A variable that is set to nothing, as `AWS_REGION=` is, names no region.
fn region_of(config: &SdkConfig) -> Result<String, ServiceError> {
    let region = config.region().map(Region::to_string).filter(|region| !region.is_empty());
    let region = region.ok_or(ServiceError::NoRegion)?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if region.len() < 64 && region.bytes().all(is_letter) && !region.starts_with('-') && !region.ends_with('-') {
        return Ok(region);
    }
    let remedy = if region.contains(['"', '\'']) { "take its quotes away" } else { "expected one such as eu-west-1" };
    let shown = quote(&region, SENTENCE, &[]);
    Err(ServiceError::Configuration(format!("`{shown}` is not a valid region: {remedy}")))
}

/// A URL with a login in it is not repeated.
fn check_endpoint(url: &str) -> Result<(), ServiceError> {
    let is_endpoint =
        |url: &Url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    if Url::parse(url.trim()).is_ok_and(|url| is_endpoint(&url)) {
        return Ok(());
    }
    let shown = if url.contains('@') { "the endpoint".to_owned() } else { format!("`{}`", quote(url, SENTENCE, &[])) };
    let remedy = if url.contains(['"', '\'']) { "take its quotes away" } else { "expected one such as https://HOST" };
    Err(ServiceError::Configuration(format!("{shown} is not a valid endpoint URL: {remedy}")))
}

/// The URL that replaces the public endpoint, found the way the SSM client finds it. One that is set to nothing, as
/// `AWS_ENDPOINT_URL=` is, replaces nothing; the client would panic over it.
fn configured_endpoint(config: &SdkConfig) -> Option<String> {
    let find = |variable: &'static str| {
        let key = ServiceConfigKey::builder().service_id("SSM").env(variable).profile("endpoint_url").build().ok()?;
        config.service_config()?.load_config(key)
    };
    let for_all = config.endpoint_url().map(str::to_owned);
    let given = for_all.clone().filter(|_| config.get_origin("endpoint_url").is_client_config());
    // An empty variable hides what the profile says; under a name that no variable has, only the profile is asked.
    let found = [given, find("AWS_ENDPOINT_URL"), for_all, find("no variable")];
    found.into_iter().flatten().find(|url| !url.trim().is_empty())
}

fn host_of(url: &str) -> Option<String> {
    Some(Url::parse(url).ok()?.host_str()?.to_owned())
}

/// The host of an endpoint that is spoken to without encryption, unless it is this machine.
fn host_in_clear(url: &str) -> Option<String> {
    let url = Url::parse(url.trim()).ok().filter(|url| url.scheme() == "http")?;
    url.host_str().filter(|host| !is_loopback(host)).map(str::to_owned)
}

impl Inner {
    /// Which API is asked, for a message.
    fn place(&self) -> &str {
        self.configured_host.as_deref().unwrap_or("the region's public endpoint")
    }

    async fn credentials(&self) -> Result<Credentials, ServiceError> {
        let resolved = self.credentials.resolve(self.clock.correct(SystemTime::now())).await;
        resolved.map_err(|error| errors::credentials(&error, &self.renewal))
    }

    async fn start(&self, request: &StartRequest) -> Result<Grant, ServiceError> {
        let started = Instant::now();
        report_wait("the AWS credentials");
        self.credentials().await?;
        report_stage("credentials", started);

        let call = Call::start(self, &request.target);
        let started = Instant::now();
        report_wait("the SSM API (StartSession)");
        let start = self.client.start_session().target(request.target.as_str()).document_name(DOCUMENT);
        let start = start.parameters("portNumber", vec![request.port.to_string()]).set_reason(request.reason.clone());
        let answer = match start.send().await {
            Ok(answer) => answer,
            Err(error) => return Err(call.failed(&error).await),
        };
        report_stage("StartSession", started);
        Ok(Grant {
            session: SessionId(required(answer.session_id, &call, "SessionId")?),
            stream_url: required(answer.stream_url, &call, "StreamUrl")?,
            token: required(answer.token_value, &call, "TokenValue")?,
        })
    }

    async fn resume(&self, session: &SessionId) -> Result<Grant, ServiceError> {
        self.credentials().await?;
        let call = Call::resume(self, session);
        let answer = match self.client.resume_session().session_id(&session.0).send().await {
            Ok(answer) => answer,
            Err(error) => return Err(call.failed(&error).await),
        };
        // An answer without a token is how the service says that there is nothing to resume.
        let Some(token) = answer.token_value.filter(|token| !token.is_empty()) else {
            let message = "it has timed out or was terminated".to_owned();
            return Err(ServiceError::SessionEnded { session: session.clone(), message });
        };
        let stream_url = required(answer.stream_url, &call, "StreamUrl")?;
        Ok(Grant { session: session.clone(), stream_url, token })
    }

    async fn terminate(&self, session: &SessionId) -> Result<(), ServiceError> {
        self.credentials().await?;
        let call = Call::terminate(self, session);
        match self.client.terminate_session().session_id(&session.0).send().await {
            Ok(_) => Ok(()),
            Err(error) => match call.failed(&error).await {
                ServiceError::SessionEnded { .. } => Ok(()),
                other => Err(other),
            },
        }
    }

    async fn sign_upgrade(&self, stream_url: &str) -> Result<UpgradeHeaders, ServiceError> {
        if is_presigned(stream_url) {
            return Ok(UpgradeHeaders::new());
        }
        let credentials = self.credentials().await?;
        let now = self.clock.correct(SystemTime::now());
        let signed = upgrade::headers(stream_url, &self.region, &credentials, now);
        signed.map_err(|error| ServiceError::Credentials(format!("they cannot sign the WebSocket upgrade: {error}")))
    }
}

fn required(field: Option<String>, call: &Call<'_>, name: &str) -> Result<String, ServiceError> {
    field.filter(|value| !value.is_empty()).ok_or_else(|| missing_field(call, name))
}

impl SsmService for AwsService {
    fn start<'a>(&'a self, request: &'a StartRequest) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        Box::pin(self.inner.start(request))
    }

    fn resume<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        Box::pin(self.inner.resume(session))
    }

    fn terminate<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<(), ServiceError>> {
        Box::pin(self.inner.terminate(session))
    }

    fn sign_upgrade<'a>(&'a self, stream_url: &'a str) -> BoxFuture<'a, Result<UpgradeHeaders, ServiceError>> {
        Box::pin(self.inner.sign_upgrade(stream_url))
    }

    fn configured_host(&self) -> Option<&str> {
        self.inner.configured_host.as_deref()
    }

    fn learn_time(&self, time: SystemTime) -> bool {
        self.inner.clock.learn(time, SystemTime::now())
    }

    fn upgrade_denied(&self, message: String) -> Denied {
        let resources = vec![arn::own_sessions(&self.inner.region)];
        Denied { action: "ssmmessages:OpenDataChannel", resources, message }
    }
}

impl fmt::Debug for AwsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { region, configured_host, .. } = &*self.inner;
        f.debug_struct("AwsService")
            .field("region", region)
            .field("configured_host", configured_host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
