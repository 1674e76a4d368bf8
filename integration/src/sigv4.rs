//! Signature version 4, checked and made without any AWS library.
//!
//! The product signs with AWS's own crate. Whoever checks it must not share its mistakes, so this is a second reading of the
//! public specification on plain HMAC and SHA-256.

use std::{
    fmt::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a request's date may be from the clock, as AWS allows it.
const MAX_SKEW: Duration = Duration::from_mins(15);

/// AWS credentials made for one run of the lab. `Debug` shows the id only.
#[derive(Clone)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl AccessKey {
    /// Fresh session credentials, in the shape of AWS's.
    pub(crate) fn random() -> Self {
        let hex = || Uuid::new_v4().simple().to_string();
        Self {
            id: format!("ASIA{}", &hex().to_uppercase()[..16]),
            secret: format!("{}{}", hex(), &hex()[..8]),
            token: Some(format!("lab//{}{}", hex(), hex())),
        }
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a signature is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("the request carries no signature")]
    Missing,
    #[error("the authorization header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the access key id is not one of this lab's")]
    UnknownKey,
    #[error("the access key has expired")]
    Expired,
    #[error("the session token is not the access key's")]
    WrongToken,
    #[error("the credential's scope is `{0}`")]
    WrongScope(String),
    #[error("the request's date is too far from the clock")]
    Skewed,
    #[error("the header `{0}` must be signed")]
    Unsigned(&'static str),
    #[error("the signature does not match the canonical request:\n{0}")]
    Mismatch(String),
}

/// The parsed `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization<'a> {
    pub(crate) key_id: &'a str,
    date: &'a str,
    scope: &'a str,
    pub(crate) signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header; tells an unsigned request from a malformed one.
    pub(crate) fn parse(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let value = headers.get(header::AUTHORIZATION).ok_or(SignatureError::Missing)?;
        let value = value.to_str().map_err(|_| SignatureError::Malformed("not text"))?;
        let fields = value.strip_prefix(ALGORITHM).ok_or(SignatureError::Malformed("unknown algorithm"))?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        let credential = field("Credential").ok_or(SignatureError::Malformed("no Credential"))?;
        let (key_id, scope) = credential.split_once('/').ok_or(SignatureError::Malformed("no scope"))?;
        let signed = field("SignedHeaders").ok_or(SignatureError::Malformed("no SignedHeaders"))?;
        Ok(Self {
            key_id,
            date: scope.split('/').next().unwrap_or_default(),
            scope,
            signed_headers: signed.split(';').collect(),
            signature: field("Signature").ok_or(SignatureError::Malformed("no Signature"))?,
        })
    }
}

/// Checks the signature of `request` by `key`.
pub(crate) fn verify(
    request: Request<'_>,
    key: &AccessKey,
    scope: Scope<'_>,
    now: SystemTime,
) -> Result<(), SignatureError> {
    let authorization = Authorization::parse(request.headers)?;
    if authorization.key_id != key.id {
        return Err(SignatureError::UnknownKey);
    }
    if key.token.as_deref() != text(request.headers, "x-amz-security-token") {
        return Err(SignatureError::WrongToken);
    }
    let expected_scope = format!("{}/{}/{}/aws4_request", authorization.date, scope.region, scope.service);
    if authorization.scope != expected_scope {
        return Err(SignatureError::WrongScope(authorization.scope.to_owned()));
    }
    let stamp = text(request.headers, "x-amz-date").ok_or(SignatureError::Malformed("no x-amz-date"))?;
    check_date(stamp, authorization.date, now)?;
    check_coverage(&authorization, key)?;
    let canonical = canonical_request(request, &authorization.signed_headers);
    let expected = unhex(authorization.signature).ok_or(SignatureError::Malformed("signature is not hexadecimal"))?;
    signature_mac(key, &expected_scope, stamp, scope, &canonical)
        .verify_slice(&expected)
        .map_err(|_| SignatureError::Mismatch(canonical))
}

/// Adds the headers that sign `request` for `scope`; every header that is already there is signed too.
pub(crate) fn sign(request: &mut http::Request<Vec<u8>>, key: &AccessKey, scope: Scope<'_>, now: SystemTime) {
    let stamp = amz_date(now);
    let headers = request.headers_mut();
    headers.insert("x-amz-date", header_value(&stamp));
    if let Some(token) = &key.token {
        headers.insert("x-amz-security-token", header_value(token));
    }
    let mut names: Vec<String> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    let signed: Vec<&str> = names.iter().map(String::as_str).collect();
    let parts =
        Request { method: request.method(), uri: request.uri(), headers: request.headers(), body: request.body() };
    let credential = format!("{}/{}/{}/aws4_request", &stamp[..8], scope.region, scope.service);
    let canonical = canonical_request(parts, &signed);
    let signature = hex(&signature_mac(key, &credential, &stamp, scope, &canonical).finalize().into_bytes());
    let value = format!(
        "{ALGORITHM} Credential={}/{credential}, SignedHeaders={}, Signature={signature}",
        key.id,
        signed.join(";")
    );
    request.headers_mut().insert(header::AUTHORIZATION, header_value(&value));
}

fn check_date(stamp: &str, scope_date: &str, now: SystemTime) -> Result<(), SignatureError> {
    let time = parse_amz_date(stamp).ok_or(SignatureError::Malformed("x-amz-date"))?;
    let distance = now.duration_since(time).or_else(|_| time.duration_since(now)).unwrap_or(Duration::MAX);
    if distance > MAX_SKEW || !stamp.starts_with(scope_date) {
        return Err(SignatureError::Skewed);
    }
    Ok(())
}

/// `host` and every `x-amz-*` header that matters must be under the signature.
fn check_coverage(authorization: &Authorization<'_>, key: &AccessKey) -> Result<(), SignatureError> {
    let required = ["host", "x-amz-date", "x-amz-security-token"];
    let count = if key.token.is_some() { 3 } else { 2 };
    match required[..count].iter().find(|name| !authorization.signed_headers.contains(name)) {
        Some(name) => Err(SignatureError::Unsigned(name)),
        None => Ok(()),
    }
}

fn canonical_request(request: Request<'_>, signed_headers: &[&str]) -> String {
    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        encode(request.uri.path(), "/"),
        canonical_query(request.uri.query().unwrap_or_default())
    );
    for name in signed_headers {
        let values: Vec<String> = request
            .headers
            .get_all(*name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let _ = writeln!(canonical, "{name}:{}", values.join(","));
    }
    let _ = write!(canonical, "\n{}\n{}", signed_headers.join(";"), hex(&Sha256::digest(request.body)));
    canonical
}

/// The query, form-decoded (`+` is a space), encoded anew and sorted.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (encode(&name, ""), encode(&value, "")))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but the unreserved characters and those in `keep`.
fn encode(text: &str, keep: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(character) || keep.contains(character) {
            encoded.push(character);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn signature_mac(key: &AccessKey, credential: &str, stamp: &str, scope: Scope<'_>, canonical: &str) -> Hmac<Sha256> {
    let to_sign = format!("{ALGORITHM}\n{stamp}\n{credential}\n{}", hex(&Sha256::digest(canonical)));
    let secret = format!("AWS4{}", key.secret);
    let derived = [&stamp[..8], scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| mac(&key, part.as_bytes()).finalize().into_bytes().to_vec());
    mac(&derived, to_sign.as_bytes())
}

fn mac(key: &[u8], data: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("made of printable ASCII")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// `YYYYMMDDTHHMMSSZ`.
fn amz_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let rest = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The same moment as `2026-01-31T23:59:59Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let stamp = amz_date(time);
    let part = |range: std::ops::Range<usize>| stamp.get(range).unwrap_or_default();
    let (date, clock) = ([part(0..4), part(4..6), part(6..8)], [part(9..11), part(11..13), part(13..15)]);
    format!("{}T{}Z", date.join("-"), clock.join(":"))
}

fn parse_amz_date(stamp: &str) -> Option<SystemTime> {
    let digits = |range: std::ops::Range<usize>| stamp.get(range)?.parse::<u64>().ok();
    if stamp.len() != 16 || stamp.get(8..9)? != "T" || !stamp.ends_with('Z') {
        return None;
    }
    let days = days_from_civil(digits(0..4)?, digits(4..6)?, digits(6..8)?)?;
    let seconds = days * 86_400 + digits(9..11)? * 3600 + digits(11..13)? * 60 + digits(13..15)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that start in March.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day_of_year - (153 * month_from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope<'static> = Scope { region: "us-east-1", service: "service" };

    /// The key of the specification's published test suite.
    fn suite_key() -> AccessKey {
        AccessKey { id: "AKIDEXAMPLE".into(), secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(), token: None }
    }

    fn suite_time() -> SystemTime {
        parse_amz_date("20150830T123600Z").unwrap()
    }

    fn suite_request(uri: &str) -> http::Request<Vec<u8>> {
        http::Request::get(uri).header("host", "example.amazonaws.com").body(Vec::new()).unwrap()
    }

    fn parts(request: &http::Request<Vec<u8>>) -> Request<'_> {
        Request { method: request.method(), uri: request.uri(), headers: request.headers(), body: request.body() }
    }

    #[test]
    fn the_published_vanilla_vector_gets_its_published_signature() {
        let mut request = suite_request("/");
        sign(&mut request, &suite_key(), SCOPE, suite_time());
        assert_eq!(
            request.headers()["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn a_query_is_form_decoded_encoded_anew_and_sorted() {
        assert_eq!(canonical_query("role=x&cell-number=a+b/c=&A=1"), "A=1&cell-number=a%20b%2Fc%3D&role=x");
    }

    #[test]
    fn what_is_signed_is_verified_and_any_change_is_noticed() {
        let mut key = suite_key();
        key.token = Some("the//token".into());
        let mut request = suite_request("/v1/data-channel/s?role=publish_subscribe&cell-number=a+b/c");
        sign(&mut request, &key, SCOPE, suite_time());
        assert_eq!(verify(parts(&request), &key, SCOPE, suite_time()), Ok(()));

        let mut changed = request.clone();
        *changed.uri_mut() = "/v1/data-channel/t?role=publish_subscribe&cell-number=a+b/c".parse().unwrap();
        assert!(matches!(verify(parts(&changed), &key, SCOPE, suite_time()), Err(SignatureError::Mismatch(_))));

        let mut other = key.clone();
        other.secret.push('x');
        assert!(matches!(verify(parts(&request), &other, SCOPE, suite_time()), Err(SignatureError::Mismatch(_))));
        other.id.push('X');
        assert_eq!(verify(parts(&request), &other, SCOPE, suite_time()), Err(SignatureError::UnknownKey));
        let late = suite_time() + MAX_SKEW + Duration::from_secs(1);
        assert_eq!(verify(parts(&request), &key, SCOPE, late), Err(SignatureError::Skewed));
        let elsewhere = Scope { region: "eu-west-1", ..SCOPE };
        assert!(matches!(verify(parts(&request), &key, elsewhere, suite_time()), Err(SignatureError::WrongScope(_))));
    }

    #[test]
    fn an_unsigned_request_is_told_from_a_malformed_one() {
        let request = suite_request("/");
        assert_eq!(verify(parts(&request), &suite_key(), SCOPE, suite_time()), Err(SignatureError::Missing));
    }

    #[test]
    fn dates_survive_a_round_trip_over_leap_years() {
        for stamp in ["19700101T000000Z", "20000229T235959Z", "20240301T000000Z", "20261231T010203Z"] {
            assert_eq!(amz_date(parse_amz_date(stamp).unwrap()), stamp);
        }
        assert_eq!(parse_amz_date("20261301T000000Z"), None);
    }

    #[test]
    fn a_moment_can_be_told_the_long_way() {
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1_000_000_000)), "2001-09-09T01:46:40Z");
    }
}
