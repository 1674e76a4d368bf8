//! The interface for a real agent, as far as it can be tried without one.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use ssm_lab::{Lab, LabError};
use ssmssh::wire::Message;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{self, client::IntoClientRequest},
};

use crate::client::{PATIENCE, Signer, start};

/// A machine on which an agent runs.
struct Machine {
    port: u16,
    certificate: CertificateDer<'static>,
}

impl Machine {
    async fn new(directory: &Path) -> (Self, Lab) {
        let generated = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        std::fs::write(&certificate, generated.cert.pem()).unwrap();
        std::fs::write(&key, generated.signing_key.serialize_pem()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let lab = Lab::builder().agent_listener(port, certificate, key).start().await.unwrap();
        (Self { port, certificate: generated.cert.der().clone() }, lab)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn post(&self, path: &str, headers: Vec<(String, String)>, body: String) -> (u16, Bytes) {
        let mut request = hyper::Request::post(path).header("host", format!("127.0.0.1:{}", self.port));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let stream = TokioIo::new(self.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (status, body)
    }

    async fn call(&self, operation: &str, input: Value) -> (u16, Value) {
        let target = ("x-amz-target".to_owned(), format!("AmazonSSM.{operation}"));
        let (status, body) = self.post("/", vec![target], input.to_string()).await;
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn an_agent_that_registers_becomes_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let (machine, lab) = Machine::new(directory.path()).await;
    let activation = lab.activation().unwrap();
    let input = json!({ "ActivationCode": activation.code, "ActivationId": activation.id, "Fingerprint": "machine" });
    let (_, registered) = machine.call("RegisterManagedInstance", input).await;
    assert_eq!(registered["InstanceId"], lab.node());
    let (_, role) = machine.call("RequestManagedInstanceRoleToken", json!({ "Fingerprint": "machine" })).await;
    let text = |name: &str| role[name].as_str().unwrap().to_owned();
    let signer = Signer {
        key_id: text("AccessKeyId"),
        secret: text("SecretAccessKey"),
        token: Some(text("SessionToken")),
        region: lab.region().to_owned(),
    };

    let path = format!("/v1/control-channel/{}", lab.node());
    assert_eq!(machine.post(&path, Vec::new(), "{}".to_owned()).await.0, 403);
    let headers = signer.headers("ssmmessages", "POST", &machine.url(&path), b"{}");
    let (status, xml) = machine.post(&path, headers, "{}".to_owned()).await;
    assert_eq!(status, 201);
    let xml = String::from_utf8(xml.to_vec()).unwrap();
    let token = xml.split_once("<TokenValue>").unwrap().1.split_once('<').unwrap().0.to_owned();

    let url = machine.url(&format!("{path}?role=subscribe&stream=input"));
    let mut request = url.replace("https", "wss").into_client_request().unwrap();
    for (name, value) in signer.headers("ssmmessages", "GET", &url, b"") {
        request.headers_mut().insert(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let (mut control, _) = client_async(request, machine.connect().await).await.unwrap();
    let open = json!({ "MessageSchemaVersion": "1.0", "TokenValue": token, "Cookie": null });
    control.send(tungstenite::Message::text(open.to_string())).await.unwrap();
    assert!(lab.wait_for_node(PATIENCE).await);

    let grant = start(&lab, 22).await;
    let pushed = control.next().await.unwrap().unwrap().into_data();
    let pushed = Message::decode(pushed).unwrap();
    assert_eq!(pushed.kind.as_str(), "interactive_shell");
    let task: Value = serde_json::from_slice(&pushed.payload).unwrap();
    let content: Value = serde_json::from_str(task["Content"].as_str().unwrap()).unwrap();
    assert_eq!(content["SessionId"], grant["SessionId"]);
    assert_eq!(content["DocumentContent"]["properties"]["portNumber"], "22");
}

#[tokio::test]
async fn a_lab_without_a_listener_for_it_knows_no_registration() {
    let lab = Lab::builder().start().await.unwrap();
    assert_eq!(lab.activation(), None);
    let (_, answer) = crate::client::call(&lab, None, "RequestManagedInstanceRoleToken", json!({})).await;
    assert_eq!(answer["__type"], "UnknownOperationException");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let error = Lab::builder().agent_listener(0, "/nonexistent/cert.pem", "/nonexistent/key.pem").start().await;
    let LabError::Tls(error) = error.unwrap_err() else { panic!("not a TLS error") };
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}
