//! The signature of the WebSocket upgrade.
//!
//! aws-sigv4 makes exactly what the service checks (it reads the query as a form before it encodes it, and signs no
//! header that is not given to it), so nothing is computed here; the known answers below were computed independently.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign};
use aws_sigv4::sign::v4;
use http::{HeaderName, HeaderValue};

use crate::stream::UpgradeHeaders;

/// The name that the service's signatures are made for.
const SERVICE: &str = "ssmmessages";

/// The headers that sign `GET stream_url` with an empty body; `x-amz-date` and, for session credentials,
/// `x-amz-security-token` are signed beside `host`, nothing else.
pub(super) fn headers(
    stream_url: &str,
    region: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<UpgradeHeaders, Box<dyn std::error::Error + Send + Sync>> {
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let request = SignableRequest::new("GET", stream_url, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _signature) = sign(request, &params)?.into_parts();
    let (headers, _query) = instructions.into_parts();
    headers.into_iter().map(|header| pair(header.name(), header.value(), header.sensitive())).collect()
}

fn pair(
    name: &str,
    value: &str,
    sensitive: bool,
) -> Result<(HeaderName, HeaderValue), Box<dyn std::error::Error + Send + Sync>> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(sensitive);
    Ok((HeaderName::from_bytes(name.as_bytes())?, value))
}

#[cfg(test)]
mod tests {
    //! Each answer was computed with a separate implementation of the signature (plain HMAC and SHA-256 over the canonical
    //! request of the service's rules), from the inputs shown.

    use std::time::Duration;

    use super::*;

    const PUBLIC: &str =
        "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jo-0123456789abcdef0?role=publish_subscribe";
    const TOKEN: &str = "IQoJb3JpZ2lu//token+with/slashes==";

    /// At 2025-11-21T20:45:00Z.
    fn signed(url: &str, region: &str, token: Option<&str>) -> UpgradeHeaders {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_mins(29_395_965);
        headers(url, region, &credentials, now).unwrap()
    }

    fn value<'a>(headers: &'a UpgradeHeaders, name: &str) -> Option<&'a str> {
        headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.to_str().unwrap())
    }

    fn authorization(region: &str, signed_headers: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251121/{region}/ssmmessages/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        )
    }

    #[test]
    fn the_plain_url_is_signed_over_host_and_date_alone() {
        let headers = signed(PUBLIC, "eu-west-1", None);
        let expected = authorization(
            "eu-west-1",
            "host;x-amz-date",
            "f711de699d99e52aec3ef86c18f5a658518078063222fd864615857e58840330",
        );
        assert_eq!(value(&headers, "authorization"), Some(expected.as_str()));
        assert_eq!(value(&headers, "x-amz-date"), Some("20251121T204500Z"));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn a_cell_number_is_read_as_a_form_before_it_is_signed() {
        // The canonical query holds `cell-number=AAEAAe%20%2Fx8%2F%20Zw%3D%3D`, ahead of `role`.
        let url = format!("{PUBLIC}&cell-number=AAEAAe+/x8/+Zw==");
        let expected = authorization(
            "eu-west-1",
            "host;x-amz-date",
            "e19bf37e4bc93dd25d302e85cc0cd5496f2fcd5ecf5dc9f2cdf0f28e46b2d6cd",
        );
        assert_eq!(value(&signed(&url, "eu-west-1", None), "authorization"), Some(expected.as_str()));
    }

    #[test]
    fn session_credentials_add_their_token_to_what_is_signed() {
        let url = format!("{PUBLIC}&cell-number=AAEAAe+/x8/+Zw==");
        let headers = signed(&url, "eu-west-1", Some(TOKEN));
        let expected = authorization(
            "eu-west-1",
            "host;x-amz-date;x-amz-security-token",
            "72652681ead09cacd65df68a8aedc70799257197615cc95ac369559f47a652e8",
        );
        assert_eq!(value(&headers, "authorization"), Some(expected.as_str()));
        assert_eq!(value(&headers, "x-amz-security-token"), Some(TOKEN));
        assert!(!format!("{headers:?}").contains(TOKEN), "a sensitive value is not shown");
    }

    #[test]
    fn a_port_belongs_to_the_signed_host() {
        let url = "ws://127.0.0.1:4566/v1/data-channel/jo-0123456789abcdef0?role=publish_subscribe";
        let expected = authorization(
            "us-gov-west-1",
            "host;x-amz-date",
            "dc459f3bc57644c924020cd295d7ce01c0fd08edc504175757e4439051fdfa4d",
        );
        assert_eq!(value(&signed(url, "us-gov-west-1", None), "authorization"), Some(expected.as_str()));
    }

    #[test]
    fn a_session_named_after_a_mail_address_is_encoded_in_the_signed_path() {
        let url =
            "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jo@example.com-0123?role=publish_subscribe";
        let expected = authorization(
            "eu-west-1",
            "host;x-amz-date",
            "ee42a947de5ef21b7c4dc446740d3d73359532e49130d47f81dc3fcbd0693150",
        );
        assert_eq!(value(&signed(url, "eu-west-1", None), "authorization"), Some(expected.as_str()));
    }
}
