//! Credentials that follow the user's: resolved anew when they near their end, and read again from their source.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Settings;
use super::setup::Setup;

/// Credentials this close to their end are not used for a new request.
const MARGIN: Duration = Duration::from_mins(1);

/// How long credentials without an end are used before they are read again. Tools that rotate them rewrite the
/// credentials file without an expiry, so an hour later the file holds other ones than a provider remembers.
const WITHOUT_END: Duration = Duration::from_mins(1);

/// The longest wait for credentials: a credential process, which has two minutes, may have to ask its user for a code.
const TIMEOUT: Duration = Duration::from_secs(150);

/// The credentials of one [`super::AwsService`].
///
/// A provider of aws-config reads its files once and keeps what it found; after a `aws sso login` or a rotation it would
/// go on failing. Here each resolution asks a new one.
pub(super) struct FreshCredentials {
    source: Source,
    known: Mutex<Option<Known>>,
}

pub(super) enum Source {
    /// The named profile; without one the default chain: environment, profile, web identity, container, instance.
    Chain(Settings),
    /// The provider of a configuration that the caller made.
    Given(SharedCredentialsProvider),
}

struct Known {
    credentials: Credentials,
    since: SystemTime,
}

impl Known {
    fn is_usable(&self, now: SystemTime) -> bool {
        self.credentials.expiry().map_or(now < self.since + WITHOUT_END, |end| now + MARGIN < end)
    }
}

impl FreshCredentials {
    pub(super) fn new(source: Source) -> Self {
        Self { source, known: Mutex::new(None) }
    }

    /// The credentials for a request made now. Callers at the same time share one resolution.
    pub(super) async fn resolve(&self, now: SystemTime) -> provider::Result {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.is_usable(now)) {
            return Ok(known.credentials.clone());
        }
        let loaded = timeout(TIMEOUT, self.source.load()).await;
        let credentials = loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(TIMEOUT)))?;
        *known = Some(Known { credentials: credentials.clone(), since: now });
        Ok(credentials)
    }

    /// Those of the last resolution, unless they are forgotten.
    pub(super) async fn last(&self) -> Option<Credentials> {
        self.known.lock().await.as_ref().map(|known| known.credentials.clone())
    }

    /// The service did not accept them: the next resolution asks the source again.
    pub(super) async fn forget(&self) {
        *self.known.lock().await = None;
    }
}

impl Source {
    async fn load(&self) -> provider::Result {
        match self {
            Self::Given(provider) => provider.provide_credentials().await,
            Self::Chain(settings) => {
                let setup = Setup::read(settings.clone()).await.map_err(CredentialsError::invalid_configuration)?;
                setup.credentials().await
            }
        }
    }
}

impl ProvideCredentials for FreshCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.resolve(SystemTime::now()))
    }
}

impl fmt::Debug for FreshCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshCredentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Each call gives the next key; all end `lifetime` after the epoch.
    #[derive(Debug)]
    struct Counting(AtomicU64, Option<Duration>);

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let key = format!("KEY{}", self.0.fetch_add(1, Ordering::Relaxed));
            let end = self.1.map(|lifetime| SystemTime::UNIX_EPOCH + lifetime);
            future::ProvideCredentials::ready(Ok(Credentials::new(key, "secret", None, end, "test")))
        }
    }

    fn counting(lifetime: Option<Duration>) -> FreshCredentials {
        let provider = Counting(AtomicU64::new(0), lifetime);
        FreshCredentials::new(Source::Given(SharedCredentialsProvider::new(provider)))
    }

    async fn key_at(credentials: &FreshCredentials, secs: u64) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        credentials.resolve(now).await.unwrap().access_key_id().to_owned()
    }

    #[tokio::test]
    async fn credentials_with_an_end_are_kept_until_a_minute_before_it() {
        let credentials = counting(Some(Duration::from_hours(1)));
        assert_eq!(key_at(&credentials, 0).await, "KEY0");
        assert_eq!(key_at(&credentials, 3539).await, "KEY0");
        assert_eq!(key_at(&credentials, 3540).await, "KEY1");
    }

    #[tokio::test]
    async fn credentials_without_an_end_are_read_again_after_a_minute() {
        let credentials = counting(None);
        assert_eq!(key_at(&credentials, 0).await, "KEY0");
        assert_eq!(key_at(&credentials, 59).await, "KEY0");
        assert_eq!(key_at(&credentials, 60).await, "KEY1");
    }

    #[tokio::test]
    async fn credentials_that_the_service_refused_are_read_again() {
        let credentials = counting(Some(Duration::from_hours(1)));
        assert_eq!(key_at(&credentials, 0).await, "KEY0");
        credentials.forget().await;
        assert_eq!(key_at(&credentials, 0).await, "KEY1");
    }
}
