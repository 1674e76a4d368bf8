//! What russh asks and tells in the course of a connection.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use russh::{
    Channel, Names,
    client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session},
    compression::Compression,
    keys::PublicKeyOrCertificate,
};
use tokio::sync::watch;

use super::{
    Banner, Lost, Shared,
    host_key::{Examined, HostKeyCheck, HostKeyError},
    quote,
    transport::TransportState,
};

pub(super) struct Events {
    check: Arc<HostKeyCheck>,
    shown: Arc<Mutex<Shown>>,
    compressed: Arc<AtomicBool>,
    on_banner: Option<Banner>,
    transport: Arc<TransportState>,
    ended: watch::Sender<Option<Lost>>,
    /// How long nothing has come when the server is given up.
    patience: Duration,
}

impl Events {
    pub(super) fn new(
        check: Arc<HostKeyCheck>,
        on_banner: Option<Banner>,
        transport: Arc<TransportState>,
        patience: Duration,
    ) -> (Self, Arc<Shared>) {
        let (ended, ended_out) = watch::channel(None);
        let closing = watch::Sender::new(false);
        let shared = Shared { transport: Arc::clone(&transport), ended: ended_out, closing, patience };
        let (shown, compressed) = Default::default();
        (Self { check, shown, compressed, on_banner, transport, ended, patience }, Arc::new(shared))
    }

    /// Filled when the host key has been judged.
    pub(super) fn shown(&self) -> Arc<Mutex<Shown>> {
        Arc::clone(&self.shown)
    }

    /// Set when both sides have agreed to compress.
    pub(super) fn compressed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.compressed)
    }
}

/// What the server has shown in the first key exchange.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) key: Option<Examined>,
    /// The host key algorithm that both sides have agreed on.
    pub(super) agreed: Option<String>,
}

/// Why the connection's task ends.
#[derive(Debug)]
pub(super) enum HandlerError {
    Russh(russh::Error),
    HostKey(HostKeyError),
}

impl From<russh::Error> for HandlerError {
    fn from(error: russh::Error) -> Self {
        Self::Russh(error)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Russh(error) => error.fmt(f),
            Self::HostKey(error) => error.fmt(f),
        }
    }
}

impl Handler for Events {
    type Error = HandlerError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, HandlerError> {
        // Certificates are never offered, so a server has no business showing one.
        if shown.certificate().is_some() {
            return Ok(false);
        }
        let examined = self.check.examine(&shown.public_key()).await.map_err(HandlerError::HostKey)?;
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).key = Some(examined);
        Ok(true)
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, names: &Names, _: &mut Session) -> Result<(), HandlerError> {
        let is_none = |compression: &Compression| matches!(compression, Compression::None);
        let compressed = !is_none(&names.client_compression) && !is_none(&names.server_compression);
        self.compressed.store(compressed, Ordering::Relaxed);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(key), None) = (&shown.key, &shown.agreed) {
            self.check.has_agreed_type(key, &names.key).map_err(HandlerError::HostKey)?;
            shown.agreed = Some(names.key.to_string());
            let agreed = if compressed { "zlib@openssh.com, in both directions" } else { "none" };
            tracing::info!(target: "ssmssh::detail", "compression: {agreed}");
        }
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), HandlerError> {
        if let Some(show) = &self.on_banner {
            let mut show = show.lock().unwrap_or_else(PoisonError::into_inner);
            show(&quote::text_of_server(banner, quote::BANNER));
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<HandlerError>) -> Result<(), HandlerError> {
        let (lost, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                (Lost::ByServer { code: info.reason_code as u32, message: quote::said(&info.message) }, Ok(()))
            }
            DisconnectReason::Error(HandlerError::Russh(error)) => {
                (Lost::new(error, self.transport.error(), self.patience), Err(russh::Error::Disconnect.into()))
            }
            DisconnectReason::Error(error) => (Lost::Closed, Err(error)),
        };
        tracing::debug!(%lost, "the connection ended");
        self.ended.send_replace(Some(lost));
        result
    }

    // A server opens channels for forwardings that the client asked for. Nothing here asks for any, and russh would accept
    // them all; dropping the reply refuses.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), HandlerError> {
        Ok(())
    }
}
