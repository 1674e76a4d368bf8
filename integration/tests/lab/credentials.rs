//! Credentials that expire and rotate, and an API that is asked too often.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use ssm_lab::{CredentialSource, Lab};
use tokio::process::Command;

use crate::client::{Client, Signer, call, eventually, start, upgrade};

fn present(lab: &Lab) -> Signer {
    let credentials = lab.credentials();
    Signer {
        key_id: credentials.access_key_id,
        secret: credentials.secret_access_key,
        token: Some(credentials.session_token),
        region: lab.region().to_owned(),
    }
}

fn variable(lab: &Lab, name: &str) -> Option<String> {
    lab.env().into_iter().find(|(variable, _)| variable == name).map(|(_, value)| value)
}

#[tokio::test]
async fn expired_credentials_get_awss_error_and_no_upgrade_until_they_are_rotated() {
    let lab = Lab::builder().start().await.unwrap();
    let grant = start(&lab, 22).await;
    let input = json!({ "SessionId": grant["SessionId"] });
    lab.expire_credentials();
    let (status, answer) = call(&lab, Some(&Signer::of(&lab)), "ResumeSession", input.clone()).await;
    assert_eq!((status, answer["__type"].as_str()), (400, Some("ExpiredTokenException")));
    assert_eq!(upgrade(Some(&Signer::of(&lab)), &grant).await.err(), Some(403));
    lab.rotate_credentials().unwrap();
    assert_eq!(call(&lab, Some(&Signer::of(&lab)), "ResumeSession", input.clone()).await.0, 400);
    let (status, answer) = call(&lab, Some(&present(&lab)), "ResumeSession", input).await;
    assert_eq!(status, 200, "{answer}");
    assert!(upgrade(Some(&present(&lab)), &grant).await.is_ok());
}

#[tokio::test]
async fn an_open_socket_outlives_the_credentials_that_opened_it() {
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    lab.expire_credentials();
    assert_eq!(client.read(8).await, b"SSH-2.0-");
}

#[tokio::test]
async fn the_credentials_file_gives_the_credentials_of_the_moment_and_the_environment_none() {
    let lab = Lab::builder().credential_source(CredentialSource::File).start().await.unwrap();
    assert_eq!(variable(&lab, "AWS_ACCESS_KEY_ID"), None);
    let file = variable(&lab, "AWS_SHARED_CREDENTIALS_FILE").unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(lab.access_key_id()));
    let fresh = lab.rotate_credentials().unwrap();
    assert!(fs::read_to_string(&file).unwrap().contains(&fresh.secret_access_key));
}

#[tokio::test]
async fn the_credential_process_gives_the_credentials_of_the_moment_and_their_end() {
    let lab = Lab::builder()
        .credential_source(CredentialSource::Process)
        .credentials_lifetime(Duration::from_hours(1))
        .start()
        .await
        .unwrap();
    let config = fs::read_to_string(variable(&lab, "AWS_CONFIG_FILE").unwrap()).unwrap();
    let process = config.lines().find_map(|line| line.strip_prefix("credential_process = ")).unwrap();
    let fresh = lab.rotate_credentials().unwrap();
    let output = Command::new("sh").args(["-c", process]).output().await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["Version"], &answer["AccessKeyId"]), (&json!(1), &json!(fresh.access_key_id)));
    assert!(answer["Expiration"].as_str().is_some_and(|text| text.ends_with('Z')), "{answer}");
}

#[tokio::test]
async fn credentials_with_a_lifetime_rotate_by_themselves() {
    let lab = Lab::builder().credentials_lifetime(Duration::from_millis(50)).start().await.unwrap();
    let first = lab.access_key_id().to_owned();
    eventually("new credentials", || lab.credentials().access_key_id != first).await;
    let input = json!({ "SessionId": "lab-unknown" });
    let (_, answer) = call(&lab, Some(&Signer::of(&lab)), "ResumeSession", input).await;
    assert_eq!(answer["__type"], "ExpiredTokenException");
}

#[tokio::test]
async fn so_many_calls_are_throttled_and_no_more() {
    let lab = Lab::builder().throttle(2).start().await.unwrap();
    let input = json!({ "Target": lab.node(), "DocumentName": "AWS-StartSSHSession" });
    for _ in 0..2 {
        let (status, answer) = call(&lab, Some(&Signer::of(&lab)), "StartSession", input.clone()).await;
        assert_eq!((status, answer["__type"].as_str()), (400, Some("ThrottlingException")));
    }
    assert_eq!(call(&lab, Some(&Signer::of(&lab)), "StartSession", input.clone()).await.0, 200);
    lab.throttle(1);
    assert_eq!(call(&lab, Some(&Signer::of(&lab)), "StartSession", input).await.0, 400);
}
