//! A profile's `credential_process`: a command that prints credentials as JSON.
//!
//! It is run here and not by aws-config so that it never sees our standard input, prints no more than is read, and is
//! understood where the AWS CLI understands it.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::profiles;
use crate::stream::{SENTENCE, quote};

/// No credentials are longer; more of its output is not read.
const MOST_OUTPUT: u64 = 64 << 10;

/// The longest wait for it: it may have to ask its user for a code.
const LIMIT: Duration = Duration::from_mins(2);

/// Runs the command each time it is asked.
#[derive(Debug)]
pub(super) struct CredentialProcess {
    command: profiles::Command,
}

impl CredentialProcess {
    pub(super) fn new(command: profiles::Command) -> Self {
        Self { command }
    }

    async fn run(&self) -> provider::Result {
        match timeout(LIMIT, self.output()).await {
            Ok(output) => output.and_then(|output| parse(&output)).map_err(|fault| self.failed(&fault)),
            Err(_) => Err(self.failed(&format!("printed nothing usable within {} s", LIMIT.as_secs()))),
        }
    }

    async fn output(&self) -> Result<Vec<u8>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", &self.command.line]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (output, said) = tokio::join!(begin(stdout), begin(stderr));
        let status = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
        if status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&said);
        let said = said.trim().lines().last().map(|line| format!(": {}", quote(line, SENTENCE, &[])));
        Err(format!("failed ({status}){}", said.unwrap_or_default()))
    }

    fn failed(&self, fault: &str) -> CredentialsError {
        let profiles::Command { profile, place, .. } = &self.command;
        CredentialsError::provider_error(format!("the credential_process of the profile `{profile}` ({place}) {fault}"))
    }
}

/// What it writes, up to the limit. Whoever writes more waits until it is killed.
async fn begin(output: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut begin = Vec::new();
    if let Some(output) = output {
        // A pipe that breaks has said what it had to say.
        let _ = output.take(MOST_OUTPUT).read_to_end(&mut begin).await;
    }
    begin
}

impl ProvideCredentials for CredentialProcess {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.run())
    }
}

/// The credentials in what a process printed. Nothing of it is repeated in an error.
fn parse(output: &[u8]) -> Result<Credentials, String> {
    let printed: Value = serde_json::from_slice(output.trim_ascii()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if output.trim_ascii().is_empty() {
            "printed nothing".to_owned()
        } else {
            format!("printed what is not JSON (line {line}, column {column})")
        }
    })?;
    let object = printed.as_object().ok_or("printed JSON that is no object")?;
    let find = |name: &str| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let text = |name: &str| find(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let needed = |name: &str| text(name).ok_or_else(|| format!("printed no `{name}`"));
    if find("Version").and_then(Value::as_u64) != Some(1) {
        return Err("printed no `\"Version\": 1`".to_owned());
    }
    let mut credentials = Credentials::builder()
        .access_key_id(needed("AccessKeyId")?)
        .secret_access_key(needed("SecretAccessKey")?)
        .provider_name("CredentialProcess");
    credentials.set_session_token(text("SessionToken").map(str::to_owned));
    if let Some(end) = find("Expiration").filter(|end| !end.is_null()) {
        credentials = credentials.expiry(moment(end)?);
    }
    Ok(credentials.build())
}

/// A time in ISO 8601, in the spellings that the AWS CLI takes: a blank for the `T`, `+0000` and `+00` for `+00:00`.
fn moment(value: &Value) -> Result<SystemTime, String> {
    let form = "expected one such as 2030-01-31T12:00:00Z";
    let Some(text) = value.as_str().map(str::trim) else {
        return Err(format!("printed an `Expiration` that is no text: {form}"));
    };
    let shown = quote(text, SENTENCE, &[]);
    let (time, zone) =
        zone_of(text).ok_or_else(|| format!("printed an `Expiration` without a time zone ({shown}): {form}"))?;
    let time = time.trim_end().replacen([' ', 't'], "T", 1);
    let read = DateTime::from_str(&format!("{time}{zone}"), Format::DateTimeWithOffset);
    let moment = read.ok().and_then(|read| SystemTime::try_from(read).ok());
    moment.ok_or_else(|| format!("printed an `Expiration` that is no time ({shown}): {form}"))
}

/// The time, and its zone as RFC 3339 spells it.
fn zone_of(text: &str) -> Option<(&str, String)> {
    for utc in ["Z", "z", "UTC", "GMT"] {
        if let Some(time) = text.strip_suffix(utc) {
            return Some((time, "Z".to_owned()));
        }
    }
    // The sign stands behind the time of day; those before it are of the date.
    let day = text.find(':')?;
    let sign = day + text[day..].find(['+', '-'])?;
    let (time, offset) = text.split_at(sign);
    let digits: String = offset[1..].chars().filter(|letter| *letter != ':').collect();
    let digits = if digits.len() == 2 { format!("{digits}00") } else { digits };
    let is_offset = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_offset.then(|| (time, format!("{}{}:{}", &offset[..1], &digits[..2], &digits[2..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(expiration: &str) -> String {
        format!(r#"{{"Version":1,"AccessKeyId":"AKID","SecretAccessKey":"secret","Expiration":{expiration}}}"#)
    }

    fn process(line: &str) -> CredentialProcess {
        let (profile, place) = ("dev".to_owned(), "/c, line 2".to_owned());
        CredentialProcess::new(profiles::Command { profile, place, line: line.to_owned(), source: String::new() })
    }

    async fn failure(line: &str) -> String {
        let error = process(line).provide_credentials().await.expect_err("no credentials");
        std::error::Error::source(&error).expect("a cause").to_string()
    }

    #[test]
    fn an_expiration_is_understood_in_the_spellings_that_the_aws_cli_takes() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_hours(525_972);
        for time in [
            "2030-01-01T12:00:00Z",
            "2030-01-01T12:00:00+0000",
            "2030-01-01T12:00:00+00:00",
            "2030-01-01T14:00:00+02",
            "2030-01-01 07:00:00 -0500",
            "2030-01-01t12:00:00.000z",
            "2030-01-01 12:00:00 UTC",
        ] {
            let read = parse(printed(&format!("\"{time}\"")).as_bytes());
            assert_eq!(read.unwrap_or_else(|fault| panic!("{time}: {fault}")).expiry(), Some(expected), "{time}");
        }
        assert_eq!(parse(printed("null").as_bytes()).expect("no end").expiry(), None);
    }

    #[test]
    fn an_expiration_that_says_no_moment_is_told_as_it_was_printed() {
        for (expiration, said) in [
            ("\"2030-01-01T12:00:00\"", "without a time zone (2030-01-01T12:00:00)"),
            ("\"2030-01-01T12:00:00+1\"", "without a time zone"),
            ("\"tomorrow\"", "without a time zone (tomorrow)"),
            ("\"2030-13-01T12:00:00Z\"", "no time (2030-13-01T12:00:00Z)"),
            ("\"\u{e9}:\u{e9}+\u{e9}\u{e9}\"", "without a time zone"),
            ("1893499200", "no text"),
        ] {
            let fault = parse(printed(expiration).as_bytes()).expect_err(expiration);
            assert!(fault.contains(said) && fault.contains("2030-01-31T12:00:00Z"), "{fault}");
        }
    }

    #[test]
    fn what_a_process_prints_instead_of_credentials_is_not_repeated() {
        for (output, said) in [
            ("", "printed nothing"),
            ("Enter code: secret", "not JSON (line 1, column 1)"),
            ("[\"secret\"]", "no object"),
            (r#"{"AccessKeyId":"AKID","SecretAccessKey":"secret"}"#, "Version"),
            (r#"{"Version":1,"SecretAccessKey":"secret"}"#, "no `AccessKeyId`"),
            (r#"{"Version":1,"AccessKeyId":"secret"}"#, "no `SecretAccessKey`"),
        ] {
            let fault = parse(output.as_bytes()).expect_err(output);
            assert!(fault.contains(said) && !fault.contains("secret"), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_process_that_fails_is_named_with_its_last_words() {
        let said = failure("echo first >&2; echo 'no code was given' >&2; exit 3").await;
        assert_eq!(
            said,
            "the credential_process of the profile `dev` (/c, line 2) failed (exit status: 3): no code was given"
        );
    }

    #[tokio::test]
    async fn a_process_that_prints_without_end_is_stopped() {
        let said = failure("yes").await;
        assert!(said.contains("failed (") || said.contains("not JSON"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_hangs_is_given_up_by_its_name() {
        let said = failure("exec sleep 1000000").await;
        assert_eq!(
            said,
            "the credential_process of the profile `dev` (/c, line 2) printed nothing usable within 120 s"
        );
    }
}
