//! `ssmssh` in a network that lets nobody out but through its proxy, to endpoints that its own authority vouches for.

use crate::stream_network::{Secure, Tinyproxy};
use crate::support::cli::{Cli, Ran, all_sessions_over, fast_lab};

/// `true` on the node, by way of the lab's TLS front, with these variables besides.
async fn through(lab: &ssm_lab::Lab, secure: &Secure, variables: &[(&str, &str)]) -> Ran {
    let cli = Cli::in_lab(lab)
        .env("AWS_ENDPOINT_URL_SSM", format!("https://{}", secure.host()))
        .env("AWS_CA_BUNDLE", &secure.bundle);
    let cli = variables.iter().fold(cli, |cli, (name, value)| cli.env(name, value));
    cli.args(["-o", "StrictHostKeyChecking=off", "--stream-host", &secure.host(), lab.node(), "echo in"]).run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_with_its_credentials_leads_to_api_and_stream() {
    let lab = fast_lab().await;
    let (secure, proxy) = (Secure::before(&lab).await, Tinyproxy::start().await);
    let url = format!("http://jo:secret@127.0.0.1:{}", proxy.port);
    let ran = through(&lab, &secure, &[("HTTPS_PROXY", &url)]).await;
    assert_eq!((ran.code, ran.out()), (Some(0), "in\n"), "{}", ran.stderr);
    assert!(proxy.connects(&secure.host()) >= 2, "one for the API and one for the WebSocket");
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_names_hosts_that_are_reached_without_it() {
    let lab = fast_lab().await;
    let (secure, proxy) = (Secure::before(&lab).await, Tinyproxy::start().await);
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let ran = through(&lab, &secure, &[("HTTPS_PROXY", &url), ("NO_PROXY", "example.com,localhost")]).await;
    assert_eq!((ran.code, ran.out()), (Some(0), "in\n"), "{}", ran.stderr);
    assert_eq!(proxy.connects(&secure.host()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let lab = fast_lab().await;
    let (secure, proxy) = (Secure::before(&lab).await, Tinyproxy::start().await);
    let url = format!("http://jo:wrong-one@127.0.0.1:{}", proxy.port);
    let ran = through(&lab, &secure, &[("HTTPS_PROXY", &url)]).await;
    assert_eq!(ran.code, Some(255));
    assert!(
        ran.stderr.contains(&format!("the proxy 127.0.0.1:{} refused the connection", proxy.port)),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("wrong-one"), "{}", ran.stderr);
    assert_eq!(lab.open_sessions(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_authority_is_unknown_is_refused_with_the_variable_that_names_one() {
    let lab = fast_lab().await;
    let (secure, other) = (Secure::before(&lab).await, Secure::before(&lab).await);
    let bundle = other.bundle.to_str().unwrap();
    let ran = through(&lab, &secure, &[("AWS_CA_BUNDLE", bundle)]).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("the certificate of localhost was not accepted"), "{}", ran.stderr);
}

/// The API is asked before the stream is opened: the session that it started must not stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_host_that_cannot_be_reached_is_named_and_the_session_ended() {
    let lab = fast_lab().await;
    let secure = Secure::before(&lab).await;
    let other = Secure::before(&lab).await;
    let cli = Cli::in_lab(&lab)
        .env("AWS_ENDPOINT_URL_SSM", format!("https://{}", secure.host()))
        .env("AWS_CA_BUNDLE", &secure.bundle);
    let ran = cli.args(["--stream-host", &other.host(), lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("cannot connect to localhost: the certificate of localhost"), "{}", ran.stderr);
    assert!(ran.stderr.contains("AWS_CA_BUNDLE"), "{}", ran.stderr);
    all_sessions_over(&lab).await;
}
