//! A real amazon-ssm-agent as the node, where one is prepared.
//!
//! The agent needs root, a certificate that its system trusts and a registration, so a test cannot bring it about. Start
//! `ssm-lab --agent-listen PORT --tls-cert FILE --tls-key FILE > FILE`, register the agent as the lab says, and name the file
//! with what the lab printed in `SSM_LAB_REAL_AGENT`.

use std::{collections::HashMap, io::Write};

use tokio::time::Instant;

use crate::client::{Client, Signer, echo_server, start_at};

/// What `ssm-lab` printed for a shell.
fn prepared() -> Option<HashMap<String, String>> {
    #[expect(clippy::disallowed_methods, reason = "the prepared agent is named by the environment")]
    let Some(file) = std::env::var_os("SSM_LAB_REAL_AGENT") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: SSM_LAB_REAL_AGENT names no lab with a real agent");
        return None;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let exports = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    Some(exports.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect())
}

#[tokio::test]
async fn a_real_agent_carries_bytes_both_ways_and_ends_by_flag() {
    let Some(lab) = prepared() else { return };
    let signer = Signer {
        key_id: lab["AWS_ACCESS_KEY_ID"].clone(),
        secret: lab["AWS_SECRET_ACCESS_KEY"].clone(),
        token: Some(lab["AWS_SESSION_TOKEN"].clone()),
        region: lab["AWS_REGION"].clone(),
    };
    let began = Instant::now();
    // The agent runs on this machine, so any port of this machine will do.
    let grant = start_at(&lab["AWS_ENDPOINT_URL_SSM"], &signer, &lab["SSM_LAB_NODE"], echo_server().await).await;
    let mut client = Client::connect_as(&signer, &grant).await;
    let handshake = began.elapsed();
    // What comes in the moment of HandshakeComplete may be acknowledged and lost.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let data: Vec<u8> = (0..500_000u32).map(|n| (n % 251) as u8).collect();
    let began = Instant::now();
    client.write(&data).await;
    assert!(client.read(data.len()).await == data);
    let echoed = began.elapsed();
    let version = client.agent_version.clone();
    client.terminate().await;
    assert_eq!(client.wait_closed().await, "");
    let _ = writeln!(
        std::io::stderr(),
        "agent {version}: {handshake:?} from StartSession to HandshakeComplete, {} bytes echoed in {echoed:?}",
        data.len()
    );
}
