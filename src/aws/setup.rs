//! What the environment and the AWS configuration files say, looked at before the SDK is: what cannot work is told by file
//! and line.

use std::path::PathBuf;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials};
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_smithy_types::retry::RetryConfig;

use super::process::CredentialProcess;
use super::profiles::{Base, Places, Profiles, Way, sdk_name};
use super::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, Settings, errors, http_client};
use crate::stream::ServiceError;

/// Settings, and what was found for them.
#[derive(Debug)]
pub(super) struct Setup {
    settings: Settings,
    profiles: Profiles,
    profile: String,
    /// How the profile's credentials come about; `None` where those of the environment are used.
    way: Option<Way>,
    retries: RetryConfig,
}

/// A variable that is set to nothing, as `AWS_PROFILE=` is, says nothing.
#[expect(clippy::disallowed_methods, reason = "the library follows the variables that every AWS tool follows")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Option<String> {
    variable(name).map(|value| value.to_string_lossy().into_owned())
}

fn places() -> Places {
    let path = |name| variable(name).map(PathBuf::from);
    Places { home: path("HOME"), config: path("AWS_CONFIG_FILE"), credentials: path("AWS_SHARED_CREDENTIALS_FILE") }
}

impl Setup {
    /// Reads the files. The error says what cannot work.
    pub(super) async fn read(settings: Settings) -> Result<Self, ServiceError> {
        let places = places();
        let read = tokio::task::spawn_blocking(move || Profiles::read(&places)).await;
        let read = read.unwrap_or_else(|_| Err("reading it was interrupted".to_owned()));
        let profiles = read.map_err(ServiceError::Configuration)?;
        let variable = text("AWS_PROFILE").or_else(|| text("AWS_DEFAULT_PROFILE"));
        let is_named = settings.profile.is_some();
        let profile = settings.profile.clone().or_else(|| variable.clone());
        let is_usual = profile.is_none();
        let profile = profile.unwrap_or_else(|| "default".to_owned());
        let in_environment =
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].into_iter().all(|name| text(name).is_some());
        let way = if in_environment && !is_named {
            None
        } else if is_usual && !profiles.has(&profile) {
            Some(Way { base: Base::Nothing, code: None })
        } else {
            Some(profiles.way(&profile).map_err(ServiceError::Configuration)?)
        };
        let retries = retries(&profiles, &profile).map_err(ServiceError::Configuration)?;
        Ok(Self { settings, profiles, profile, way, retries })
    }

    /// Says what is used, where that is not what was asked for.
    pub(super) fn tell(&self) {
        for remark in self.profiles.remarks() {
            tracing::info!(target: "ssmssh::detail", "{remark}");
        }
        let (profile, is_default) = (&self.profile, self.profile == "default");
        if self.way.is_some() || is_default {
            tracing::info!(target: "ssmssh::detail", "credentials: {}", self.origin());
        } else if self.profiles.has(profile) {
            tracing::info!(target: "ssmssh::detail", "credentials: {}, not those of AWS_PROFILE (`{profile}`)", self.origin());
        } else {
            tracing::info!(target: "ssmssh::detail", "credentials: {}; AWS_PROFILE is ignored: no file has a profile `{profile}`", self.origin());
        }
    }

    /// Where the credentials come from, in words.
    pub(super) fn origin(&self) -> String {
        match self.way.as_ref().map(|way| &way.base) {
            None => "those of the environment (AWS_ACCESS_KEY_ID and the variables beside it)".to_owned(),
            Some(Base::Nothing) => "those of the web identity, the container or the instance".to_owned(),
            Some(_) => format!("those of {}", self.profiles.named(&self.profile)),
        }
    }

    /// What renews them.
    pub(super) fn renewal(&self) -> String {
        match self.way.as_ref().map(|way| &way.base) {
            Some(Base::Sso) if self.profile == "default" => "run `aws sso login`".to_owned(),
            Some(Base::Sso) => format!("run `aws sso login --profile {}`", self.profile),
            _ => format!("renew the credentials, {}", self.origin()),
        }
    }

    /// Files of which nothing is known, as a clause for the end of a message.
    fn remarks(&self) -> String {
        self.profiles.remarks().flat_map(|remark| ["; ", remark]).collect()
    }

    pub(super) async fn load(&self) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let settings = &self.settings;
        let loader = aws_config::defaults(BehaviorVersion::latest());
        let loader = loader.http_client(http_client(settings.network.clone())).timeout_config(timeouts);
        let loader = loader.retry_config(self.retries.clone());
        let loader = loader.profile_files(self.profiles.for_sdk()).profile_name(sdk_name(&self.profile));
        let loader = set(loader, settings.endpoint_url.as_ref(), ConfigLoader::endpoint_url);
        set(loader, settings.region.clone().map(Region::new), ConfigLoader::region).load().await
    }

    /// The region of a configuration that was loaded.
    pub(super) fn region(&self, config: &SdkConfig) -> Result<String, ServiceError> {
        let remarks = self.remarks();
        match super::region_of(config) {
            Err(ServiceError::NoRegion) if !remarks.is_empty() => {
                Err(ServiceError::Configuration(format!("no region is known{remarks}")))
            }
            Err(ServiceError::Configuration(fault)) => {
                let region = config.region().map(Region::to_string).unwrap_or_default();
                let place = self.profiles.place_of(&self.profile, "region", &region);
                let place = place.or_else(|| text("AWS_REGION").map(|_| "AWS_REGION".to_owned()));
                let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
                Err(ServiceError::Configuration(format!("{fault}{place}")))
            }
            other => other,
        }
    }

    /// Asks for credentials, anew.
    pub(super) async fn credentials(&self) -> provider::Result {
        let config = self.load().await;
        let provided = match self.of_profile(&config) {
            Some(provider) => provider.provide_credentials().await,
            None => match config.credentials_provider() {
                Some(provider) => provider.provide_credentials().await,
                None => Err(CredentialsError::not_loaded("none configured")),
            },
        };
        provided.map_err(|error| CredentialsError::provider_error(self.explain(&error)))
    }

    /// A profile that was named outweighs credentials in the environment, as with every AWS tool; in the SDK's chain the
    /// environment would come first, and the calls would go to another account than the one that was asked for.
    fn of_profile(&self, config: &SdkConfig) -> Option<ProfileFileCredentialsProvider> {
        let way = self.way.as_ref()?;
        if way.base == Base::Nothing && self.settings.profile.is_none() {
            return None;
        }
        let mut provider = ProviderConfig::without_region().with_region(config.region().cloned());
        if let Some(client) = config.http_client() {
            provider = provider.with_http_client(client);
        }
        let mut builder = ProfileFileCredentialsProvider::builder()
            .configure(&provider)
            .profile_files(self.profiles.for_sdk())
            .profile_name(sdk_name(&self.profile));
        if let Base::Process(profile) = &way.base
            && let Some(command) = self.profiles.command(profile)
        {
            builder = builder.with_custom_provider(command.source.clone(), CredentialProcess::new(command));
        }
        Some(builder.build())
    }

    fn explain(&self, error: &CredentialsError) -> ServiceError {
        let code = self.way.as_ref().and_then(|way| way.code.as_deref());
        let is_sso = self.way.as_ref().is_some_and(|way| way.base == Base::Sso);
        let is_nothing = self.way.as_ref().is_none_or(|way| way.base == Base::Nothing);
        let told = match errors::credentials(error, &self.renewal()) {
            ServiceError::Credentials(told) => told,
            other => return other,
        };
        let profile = &self.profile;
        if let Some(place) = code {
            return ServiceError::Credentials(format!(
                "{told}: the role wants a code (`mfa_serial`: {place}), which nobody is asked for here; name a profile with \
                 `credential_process = aws configure export-credentials --profile {profile} --format process`, which asks"
            ));
        }
        let is_forbidden = told.contains("Forbidden") || told.contains("No access");
        if is_sso && !is_forbidden {
            return ServiceError::Expired(format!("{told}: {}", self.renewal()));
        }
        if !is_nothing {
            return ServiceError::Credentials(told);
        }
        let remarks = self.remarks();
        if self.settings.profile.is_some() {
            let named = self.profiles.named(profile);
            return ServiceError::Credentials(format!("{named} holds none, and names no way to get any{remarks}"));
        }
        // The instance's role is the last that the chain asks: what fails there, outside of EC2, is that nothing else had any.
        if matches!(error, CredentialsError::CredentialsNotLoaded(_)) || told.contains("IMDS") {
            let text =
                format!("none found in the environment, the profile `{profile}` or the instance's role{remarks}");
            return ServiceError::Credentials(text);
        }
        ServiceError::Credentials(told)
    }
}

/// How often a call is tried. aws-config would panic over a value that it does not know, as `legacy` is.
fn retries(profiles: &Profiles, profile: &str) -> Result<RetryConfig, String> {
    let find = |name: &str, key| {
        let in_environment = text(name).map(|value| (value, name.to_owned()));
        in_environment.or_else(|| profiles.value(profile, key))
    };
    let is_adaptive =
        find("AWS_RETRY_MODE", "retry_mode").is_some_and(|(mode, _)| mode.eq_ignore_ascii_case("adaptive"));
    let retries = if is_adaptive { RetryConfig::adaptive() } else { RetryConfig::standard() };
    let Some((number, place)) = find("AWS_MAX_ATTEMPTS", "max_attempts") else { return Ok(retries) };
    match number.parse() {
        Ok(number @ 1..) => Ok(retries.with_max_attempts(number)),
        _ => Err(format!("the number of attempts ({place}) has to be 1 or more")),
    }
}

fn set<T>(loader: ConfigLoader, value: Option<T>, setter: fn(ConfigLoader, T) -> ConfigLoader) -> ConfigLoader {
    match value {
        Some(value) => setter(loader, value),
        None => loader,
    }
}
