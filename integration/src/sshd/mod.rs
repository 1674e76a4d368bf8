//! The embedded SSH server: one user, one key, commands and shells of this machine.
//!
//! It is there so that a machine with nothing but Rust can try everything. What a command does not read of its standard
//! input is kept in memory, however much it is; `--openssh` has no such limit.

mod process;
mod sftp;
mod terminal;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use russh::{
    Channel, ChannelId, MethodKind, MethodSet,
    keys::{PrivateKey, PublicKey},
    server::{self, Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use tokio::net::{TcpListener, TcpStream};

use self::{process::Program, terminal::Terminal};
use crate::tasks::Tasks;

/// Whom the server lets in, and what they get.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) key: PublicKey,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// Listens on a free loopback port until the lab ends.
pub(crate) async fn start(account: Account, host_key: PrivateKey, tasks: &Tasks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let config = Arc::new(Config {
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Nothing can be guessed that a delay would protect.
        auth_rejection_time: Duration::ZERO,
        keys: vec![host_key],
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    });
    let (account, connections) = (Arc::new(account), tasks.clone());
    tasks.spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&config), Arc::clone(&account), connections.clone()));
            }
        }
    });
    Ok(address)
}

async fn serve(stream: TcpStream, config: Arc<Config>, account: Arc<Account>, tasks: Tasks) {
    let connection = Connection { account, tasks, channels: HashMap::new() };
    let _ = stream.set_nodelay(true);
    let ended = match server::run_stream(config, stream, connection).await {
        Ok(session) => session.await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "SSH connection ended");
    }
}

struct Connection {
    account: Arc<Account>,
    tasks: Tasks,
    channels: HashMap<ChannelId, Pending>,
}

/// A session channel on which nothing runs yet.
struct Pending {
    channel: Channel<Msg>,
    environment: Vec<(String, String)>,
    terminal: Option<Terminal>,
}

impl Connection {
    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        let known = user == self.account.user && key.key_data() == self.account.key.key_data();
        if known { Auth::Accept } else { Auth::reject() }
    }

    /// Starts `program` on the channel, or says that it cannot be started.
    fn start(&mut self, id: ChannelId, program: &Program, session: &mut Session) -> Result<(), russh::Error> {
        let Some(pending) = self.channels.remove(&id) else { return session.channel_failure(id) };
        let Pending { channel, environment, terminal } = pending;
        match process::spawn(&self.account, program, &environment, terminal) {
            Ok(process) => {
                session.channel_success(id)?;
                self.tasks.spawn(process.serve(channel, session.handle()));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, shell = %self.account.shell.display(), "the program could not be started");
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        self.channels.insert(channel.id(), Pending { channel, environment: Vec::new(), terminal: None });
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&id) {
            Some(pending) if name == "LANG" || name.starts_with("LC_") => {
                pending.environment.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        name: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(pending) = self.channels.get_mut(&id) else { return session.channel_failure(id) };
        let size = terminal::size(columns, rows, width, height);
        pending.terminal = Some(Terminal { name: name.to_owned(), size, modes: modes.to_vec() });
        session.channel_success(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, &Program::Shell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, &Program::Command(data.to_vec()), session)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.remove(&id) {
            Some(pending) if name == "sftp" => {
                session.channel_success(id)?;
                self.tasks.spawn(sftp::serve(pending.channel, session.handle(), self.account.home.clone()));
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }
}
