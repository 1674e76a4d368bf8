//! The embedded server's terminals and signals, by requests that OpenSSH's client does not let a test make.

use std::sync::Arc;

use russh::{
    ChannelMsg, Pty, Sig,
    client::{self, Handle, Handler, Msg},
    keys::{PrivateKey, PrivateKeyWithHashAlg},
};
use ssm_lab::Lab;
use tokio::time::timeout;

use crate::client::PATIENCE;

struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A session channel, and the connection that it needs.
struct Channel {
    channel: russh::Channel<Msg>,
    _session: Handle<AnyHost>,
}

impl Channel {
    async fn open(lab: &Lab) -> Self {
        let config = Arc::new(client::Config::default());
        let mut session = client::connect(config, lab.sshd_address(), AnyHost).await.unwrap();
        let key = PrivateKey::from_openssh(std::fs::read(lab.identity()).unwrap()).unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(session.authenticate_publickey(lab.user(), key).await.unwrap().success());
        Self { channel: session.channel_open_session().await.unwrap(), _session: session }
    }

    /// Reads until `text` has been printed.
    async fn read_until(&mut self, text: &str) -> String {
        let mut printed = String::new();
        while !printed.contains(text) {
            if let ChannelMsg::Data { data } = self.next().await {
                printed.push_str(&String::from_utf8_lossy(&data));
            }
        }
        printed
    }

    async fn next(&mut self) -> ChannelMsg {
        timeout(PATIENCE, self.channel.wait()).await.expect("the server goes on").expect("the channel is open")
    }
}

#[tokio::test]
async fn a_terminal_follows_the_clients_size_and_modes() {
    let lab = Lab::builder().start().await.unwrap();
    let mut it = Channel::open(&lab).await;
    it.channel.request_pty(true, "xterm", 80, 24, 0, 0, &[(Pty::ECHO, 0), (Pty::VINTR, 7)]).await.unwrap();
    it.channel.exec(true, "stty -a; read line; stty size; read line").await.unwrap();
    let before = it.read_until("extproc").await;
    assert!(before.contains("rows 24; columns 80;") && before.contains("intr = ^G;"), "{before}");
    assert!(before.contains(" -echo "), "{before}");
    it.channel.window_change(132, 50, 0, 0).await.unwrap();
    it.channel.data_bytes("\n".as_bytes()).await.unwrap();
    it.read_until("50 132").await;
}

#[tokio::test]
async fn typing_the_interrupt_character_ends_the_program_in_the_foreground() {
    let lab = Lab::builder().start().await.unwrap();
    let mut it = Channel::open(&lab).await;
    it.channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    it.channel.request_shell(true).await.unwrap();
    // The program says itself that it has the foreground: the shell's own word would come before.
    it.channel.data_bytes("sh -c 'echo re\"\"ady; exec sleep 1000'\n".as_bytes()).await.unwrap();
    it.read_until("ready").await;
    it.channel.data_bytes("\x03".as_bytes()).await.unwrap();
    it.channel.data_bytes("echo al''ive\n".as_bytes()).await.unwrap();
    it.read_until("alive").await;
}

#[tokio::test]
async fn a_signal_request_reaches_the_program_and_its_name_comes_back() {
    let lab = Lab::builder().start().await.unwrap();
    let mut it = Channel::open(&lab).await;
    it.channel.exec(true, "echo ready; exec sleep 1000").await.unwrap();
    it.read_until("ready").await;
    it.channel.signal(Sig::TERM).await.unwrap();
    loop {
        if let ChannelMsg::ExitSignal { signal_name, .. } = it.next().await {
            assert!(matches!(signal_name, Sig::TERM), "{signal_name:?}");
            return;
        }
    }
}

#[tokio::test]
async fn a_program_on_a_terminal_ends_when_its_client_goes() {
    let lab = Lab::builder().start().await.unwrap();
    let mut it = Channel::open(&lab).await;
    it.channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    it.channel.exec(true, "echo $$; exec sleep 1000").await.unwrap();
    let pid = it.read_until("\n").await.trim().to_owned();
    drop(it);
    crate::client::eventually("the program ends", || !std::fs::exists(format!("/proc/{pid}")).unwrap()).await;
}
