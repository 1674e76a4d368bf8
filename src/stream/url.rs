//! Which stream URLs are connected to at all.
//!
//! The URL comes from the service, but whoever can forge an answer, or mistypes an endpoint, must not receive the token
//! and the signature. The rules mirror those that the official client has had since 1.2.889.0.

use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, PathAndQuery};

use super::service::is_presigned;

/// Why a stream URL is refused. Shows the scheme and the host, never the query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no absolute URL.
    #[error("it is not a URL")]
    Malformed,
    /// It is neither `wss://`, nor `ws://` to this machine by an endpoint on this machine.
    #[error("{scheme}://{host} is not encrypted")]
    Scheme {
        /// Its scheme.
        scheme: String,
        /// Its host.
        host: String,
    },
    /// Its host is neither Session Manager's nor the endpoint that was configured.
    #[error("{host} is neither Session Manager's host nor the configured endpoint")]
    Host {
        /// Its host, and its port where it has one.
        host: String,
    },
    /// It carries a signature, which holds for its own host only.
    #[error("it is presigned and cannot lead to {host} instead")]
    Presigned {
        /// The host that it was to lead to.
        host: String,
    },
}

/// The URL with another authority, which the user has named. The rest of it stays exactly as it was given.
pub(super) fn redirected(url: &str, authority: &str) -> Result<Uri, UrlError> {
    let given: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
    if is_presigned(url) {
        return Err(UrlError::Presigned { host: authority.to_owned() });
    }
    let path = given.path_and_query().map_or("/", PathAndQuery::as_str);
    let authority: Authority = authority.parse().map_err(|_| UrlError::Malformed)?;
    check(&format!("wss://{authority}{path}"), Some(authority.host()))
}

/// The domains under which AWS runs its services.
const SUFFIXES: [&str; 5] =
    [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws", ".api.amazonwebservices.com.cn"];

/// The URL as a request target, exactly as it was given, if it may be connected to.
pub(super) fn check(url: &str, configured_host: Option<&str>) -> Result<Uri, UrlError> {
    let uri: Uri = url.parse().map_err(|_| UrlError::Malformed)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(UrlError::Malformed) };
    if authority.as_str().contains('@') {
        return Err(UrlError::Malformed);
    }
    let host = authority.host().to_ascii_lowercase();
    let is_configured = configured_host.is_some_and(|configured| configured.eq_ignore_ascii_case(&host));
    let is_service = is_service_host(&host) && matches!(authority.port_u16(), None | Some(443));
    match scheme {
        // Nobody but a service that is on this machine itself has a reason to lead to one of its ports.
        "ws" if is_loopback(&host) && configured_host.is_some_and(is_loopback) => Ok(uri),
        "wss" if is_configured || is_service => Ok(uri),
        "wss" => Err(UrlError::Host { host: authority.to_string() }),
        _ => Err(UrlError::Scheme { scheme: scheme.to_owned(), host }),
    }
}

/// Whether the host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// `ssmmessages[-fips].REGION.SUFFIX`, or a VPC endpoint's `vpce-ID.ssmmessages[-fips].REGION.vpce.SUFFIX`.
fn is_service_host(host: &str) -> bool {
    let Some(name) = SUFFIXES.iter().find_map(|suffix| host.strip_suffix(suffix)) else { return false };
    let labels: Vec<&str> = name.split('.').collect();
    match labels[..] {
        [service, region] => is_service(service) && is_region(region),
        [endpoint, service, region, "vpce"] => {
            endpoint.starts_with("vpce-") && is_service(service) && is_region(region)
        }
        _ => false,
    }
}

fn is_service(label: &str) -> bool {
    matches!(label, "ssmmessages" | "ssmmessages-fips")
}

fn is_region(label: &str) -> bool {
    label.contains('-') && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_s_own_hosts_are_connected_to() {
        for host in [
            "ssmmessages.eu-west-1.amazonaws.com",
            "ssmmessages.eu-west-1.amazonaws.com:443",
            "SSMMessages.eu-west-1.amazonaws.com",
            "ssmmessages-fips.us-gov-west-1.amazonaws.com",
            "ssmmessages-fips.us-east-1.api.aws",
            "ssmmessages.cn-north-1.amazonaws.com.cn",
            "ssmmessages.eusc-de-east-1.amazonaws.eu",
            "ssmmessages.eu-west-1.api.aws",
            "vpce-0a1b2c3d-xyz.ssmmessages.eu-west-1.vpce.amazonaws.com",
            "vpce-0a1b2c3d-xyz-eu-west-1a.ssmmessages.eu-west-1.vpce.amazonaws.com",
            "vpce-0a1b2c3d-xyz.ssmmessages-fips.us-east-1.vpce.amazonaws.com",
        ] {
            let url = format!("wss://{host}/v1/data-channel/jo-0a1?role=publish_subscribe");
            assert!(check(&url, None).is_ok(), "{url}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for url in [
            "wss://example.com/v1/data-channel/x",
            "wss://ssmmessages.eu-west-1.amazonaws.com.example.com/",
            "wss://ssmmessages.eu-west-1.amazonaws.com:8443/",
            "wss://ssmmessages.eu-west-1.s3.amazonaws.com/",
            "wss://evil.ssmmessages.eu-west-1.amazonaws.com/",
            "wss://evil.ssmmessages.eu-west-1.vpce.amazonaws.com/",
            "wss://ec2.eu-west-1.amazonaws.com/",
            "wss://ssmmessages.amazonaws.com/",
            "wss://ssmmessages.eu-west-1.amazonaws.com@example.com/",
            "wss://user@ssmmessages.eu-west-1.amazonaws.com/",
            "ws://ssmmessages.eu-west-1.amazonaws.com/",
            "ws://endpoint.example.com/",
            "ws://127.0.0.1.example.com/",
            "wss://127.0.0.1/",
            "https://ssmmessages.eu-west-1.amazonaws.com/",
            "/v1/data-channel/x",
            "",
        ] {
            assert!(check(url, Some("endpoint.example.com")).is_err(), "{url}");
        }
    }

    #[test]
    fn plain_ws_leads_to_this_machine_only_and_only_where_the_api_is_on_it() {
        for url in ["ws://127.0.0.1:4566/x", "ws://[::1]:4566/x", "ws://localhost:4566/x", "ws://LOCALHOST:4566/x"] {
            for endpoint in ["127.0.0.1", "localhost", "[::1]", "LocalHost"] {
                assert!(check(url, Some(endpoint)).is_ok(), "{url} from {endpoint}");
            }
            for endpoint in [None, Some("endpoint.example.com"), Some("127.0.0.1.example.com"), Some("")] {
                assert!(check(url, endpoint).is_err(), "{url} from {endpoint:?}");
            }
        }
    }

    #[test]
    fn the_configured_endpoint_is_trusted_over_tls_on_any_port() {
        assert!(check("wss://Endpoint.example.com:8443/x", Some("endpoint.example.com")).is_ok());
        assert!(check("wss://other.example.com:8443/x", Some("endpoint.example.com")).is_err());
    }

    #[test]
    fn another_host_may_take_the_place_of_the_named_one() {
        let given = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jo@x-0a1?cell-number=AA+/x%2B==";
        let host = "vpce-0a.ssmmessages.eu-west-1.vpce.amazonaws.com";
        let uri = redirected(given, host).unwrap();
        assert_eq!(uri.to_string(), format!("wss://{host}/v1/data-channel/jo@x-0a1?cell-number=AA+/x%2B=="));
        let plain = redirected("ws://127.0.0.1:4566/x", "relay.example:8443").unwrap();
        assert_eq!(plain.to_string(), "wss://relay.example:8443/x", "it is always encrypted");
        let presigned = redirected(&format!("{given}&X-Amz-Signature=00ff"), host).unwrap_err();
        assert_eq!(presigned, UrlError::Presigned { host: host.to_owned() });
        for authority in ["", "user@relay.example", "relay.example/path?", "a b"] {
            assert!(redirected(given, authority).is_err(), "{authority}");
        }
    }

    #[test]
    fn the_query_stays_as_it_was_given_and_out_of_errors() {
        let query = "role=publish_subscribe&cell-number=AA+/x8/Zw==";
        let good = format!("wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/jo-0a1?{query}");
        assert_eq!(check(&good, None).unwrap().query(), Some(query));
        let error = check(&format!("wss://example.com/v1/data-channel/jo-0a1?{query}"), None).unwrap_err();
        assert_eq!(error.to_string(), "example.com is neither Session Manager's host nor the configured endpoint");
    }
}
