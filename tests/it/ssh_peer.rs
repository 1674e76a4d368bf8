//! The SSH client against a server that does what OpenSSH does not, and against what is no server at all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use russh::{
    ChannelId, Disconnect, Preferred, Sig,
    keys::{Algorithm, HashAlg, PrivateKey as ServerKey},
    server::{
        Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session as ServerSession, VerifiedPublicKey,
    },
};
use ssmssh::ssh::{HostKeyCheck, Lost, PrivateKey, Session, SessionBuilder, SshError, StrictHostKeyChecking};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use crate::support::ssh::within;

/// A server that takes RSA keys with SHA-256 only.
#[derive(Clone)]
struct Peer {
    offered: Arc<Mutex<Vec<String>>>,
    refused: PrivateKey,
    channels: mpsc::UnboundedSender<bool>,
}

impl Handler for Peer {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        self.offered.lock().expect("no test panics with it").push(offer.algorithm.to_string());
        let refused = offer.public_key.fingerprint(HashAlg::Sha256).to_string() == self.refused.fingerprint();
        let hash = Algorithm::Rsa { hash: Some(HashAlg::Sha256) };
        Ok(if *offer.algorithm == hash && !refused { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut ServerSession,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut ServerSession,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        match command {
            b"vanish" => session.close(channel)?,
            b"dump core" => {
                session.exit_signal_request(channel, Sig::SEGV, true, "bad luck", "")?;
                session.close(channel)?;
            }
            b"say a lot" => {
                let words = "far too much ".repeat(300);
                session.exit_signal_request(channel, Sig::Custom(words.clone()), true, &words, "")?;
                session.disconnect(Disconnect::ByApplication, &words, "")?;
            }
            b"say goodbye" => session.disconnect(Disconnect::ByApplication, "closing time", "")?,
            b"call back" => {
                let (handle, channels) = (session.handle(), self.channels.clone());
                tokio::spawn(async move {
                    let forwarded = handle.channel_open_forwarded_tcpip("localhost", 80, "localhost", 1).await;
                    let agent = handle.channel_open_agent().await;
                    let _ = channels.send(forwarded.is_ok() || agent.is_ok());
                });
            }
            _ => {}
        }
        Ok(())
    }
}

fn vector(name: &str) -> PrivateKey {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys").join(name);
    PrivateKey::parse(&std::fs::read(path).expect("a vector"), name, Some("open-sesame")).expect("a key")
}

fn client() -> SessionBuilder {
    let check = HostKeyCheck::new(StrictHostKeyChecking::Off, "unused".into(), "node", 22);
    SessionBuilder::new("somebody").host_keys(check)
}

/// The server's end of the stream is served by a [`Peer`].
fn serve() -> (DuplexStream, Peer, mpsc::UnboundedReceiver<bool>) {
    let (near, far) = duplex(64 * 1024);
    let (channels, opened) = mpsc::unbounded_channel();
    let peer = Peer { offered: Arc::default(), refused: vector("rsa.openssh.encrypted"), channels };
    let hash = |hash| Algorithm::Rsa { hash: Some(hash) };
    let config = Config {
        auth_rejection_time: Duration::ZERO,
        keys: vec![ServerKey::random(&mut rand(), Algorithm::Ed25519).expect("a key")],
        preferred: Preferred { key: vec![Algorithm::Ed25519, hash(HashAlg::Sha256)].into(), ..Preferred::default() },
        ..Config::default()
    };
    let running = russh::server::run_stream(Arc::new(config), far, peer.clone());
    tokio::spawn(async move { running.await?.await });
    (near, peer, opened)
}

fn rand() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

async fn session() -> (Session, Peer, mpsc::UnboundedReceiver<bool>) {
    let (stream, peer, opened) = serve();
    let session = within(client().identity(vector("rsa.pkcs1.pem")).connect(stream)).await.expect("let in");
    (session, peer, opened)
}

#[tokio::test]
async fn an_rsa_key_is_offered_with_the_other_hash_where_the_server_takes_only_that() {
    let (_session, peer, _) = session().await;
    assert_eq!(*peer.offered.lock().expect("no test panics with it"), ["rsa-sha2-512", "rsa-sha2-256"]);
}

#[tokio::test]
async fn what_the_server_said_about_hashes_is_asked_only_once() {
    let (stream, peer, _) = serve();
    let keys = client().identity(peer.refused.clone()).identity(vector("rsa.pkcs1.pem"));
    within(keys.connect(stream)).await.expect("let in");
    let offered = peer.offered.lock().expect("no test panics with it").clone();
    assert_eq!(offered, ["rsa-sha2-512", "rsa-sha2-256", "rsa-sha2-256"]);
}

#[tokio::test]
async fn a_channel_that_closes_without_a_status_is_an_error() {
    let (session, ..) = session().await;
    let error = within(session.command("vanish").status()).await.expect_err("no status");
    assert!(matches!(error, SshError::NoExitStatus), "{error}");
}

#[tokio::test]
async fn a_core_dump_and_the_words_about_it_are_reported() {
    let (session, ..) = session().await;
    let status = within(session.command("dump core").status()).await.expect("a status");
    assert_eq!((status.signal(), status.core_dumped(), status.message()), (Some("SEGV"), true, Some("bad luck")));
}

#[tokio::test]
async fn a_goodbye_of_the_server_is_quoted() {
    let (session, ..) = session().await;
    let error = within(session.command("say goodbye").status()).await.expect_err("no status");
    assert!(matches!(&error, SshError::Lost(Lost::ByServer { code: 11, .. })), "{error}");
    assert!(error.to_string().contains("closing time"), "{error}");
}

#[tokio::test]
async fn whatever_a_server_says_is_cut() {
    let (session, ..) = session().await;
    let status = within(session.command("say a lot").status()).await.expect("a status");
    let (signal, message) = (status.signal().expect("a name"), status.message().expect("words"));
    let error = within(session.command("true").status()).await.expect_err("it has gone");
    for text in [signal, message, &error.to_string()] {
        assert!(text.contains("far too much") && text.chars().count() < 400, "{} characters", text.len());
    }
}

#[tokio::test]
async fn channels_that_nobody_asked_for_are_refused() {
    let (session, _, mut opened) = session().await;
    let child = within(session.command("call back").spawn()).await.expect("spawned");
    assert_eq!(within(opened.recv()).await, Some(false));
    drop(child);
}

#[tokio::test]
async fn cancelling_a_connection_drops_its_stream() {
    let (near, mut far) = duplex(1024);
    let mut connecting = Box::pin(client().connect(near));
    assert!(futures_util::poll!(&mut connecting).is_pending());
    far.write_all(b"SSH-2.0-mute\r\n").await.expect("written");
    // Longer than the version: russh's own task is at work by then.
    let mut hello = [0; 100];
    tokio::select! {
        _ = &mut connecting => panic!("a mute server lets nobody in"),
        read = far.read_exact(&mut hello) => { read.expect("a version and a KEXINIT"); }
    }
    drop(connecting);
    let mut rest = Vec::new();
    within(far.read_to_end(&mut rest)).await.expect("the stream is dropped");
}

#[tokio::test]
async fn what_is_no_ssh_server_is_called_that() {
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(&b"<html>".repeat(100)).await.expect("written");
    let error = within(client().connect(near)).await.expect_err("no server");
    assert!(matches!(error, SshError::Lost(Lost::NotSsh)), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_at_once_is_a_closed_connection() {
    let (near, far) = duplex(64 * 1024);
    drop(far);
    let error = within(client().connect(near)).await.expect_err("no server");
    assert!(matches!(error, SshError::Lost(Lost::Eof | Lost::Transport(_))), "{error}");
}
