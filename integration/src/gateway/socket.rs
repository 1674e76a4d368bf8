//! One WebSocket of the gateway: what comes in is handed on, what is queued goes out, and the lab may cut it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{conn::Conn, faults::Cut};

pub(crate) type WebSocket = WebSocketStream<Conn>;

/// Frames that may wait for a socket's writer before whoever sends them must wait too.
const QUEUE: usize = 64;
/// How long a socket that is closed in an orderly way may take to answer.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How long a peer may take to send its open message.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// No limit on message sizes: neither the service nor the agent is known to have one.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(None).max_frame_size(None)
}

/// Whoever takes the binary messages of a socket.
pub(crate) trait Receive {
    /// Takes one message; the next one is not read before.
    fn receive(&self, frame: Bytes) -> impl Future<Output = ()> + Send;
}

/// The place where one side's current socket is attached. A newer socket displaces an older one.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<(u64, Option<Attached>)>);

#[derive(Debug, Clone)]
struct Attached {
    outgoing: mpsc::Sender<Bytes>,
    cut: mpsc::Sender<Cut>,
}

/// The socket's end of being attached.
pub(crate) struct Attachment {
    number: u64,
    outgoing: mpsc::Receiver<Bytes>,
    cut: mpsc::Receiver<Cut>,
    /// Cuts the socket at this moment.
    pub(crate) cut_at: Option<(Instant, Cut)>,
}

impl Slot {
    pub(crate) fn attach(&self) -> Attachment {
        let (outgoing_sender, outgoing) = mpsc::channel(QUEUE);
        let (cut_sender, cut) = mpsc::channel(1);
        let mut state = self.state();
        state.0 += 1;
        state.1 = Some(Attached { outgoing: outgoing_sender, cut: cut_sender });
        Attachment { number: state.0, outgoing, cut, cut_at: None }
    }

    /// Forgets the socket unless a newer one has taken its place; says whether the slot is empty now.
    pub(crate) fn detach(&self, number: u64) -> bool {
        let mut state = self.state();
        if state.0 == number {
            state.1 = None;
        }
        state.1.is_none()
    }

    /// Lets the socket send what is queued, then closes it.
    pub(crate) fn close(&self) {
        self.state().1 = None;
    }

    /// Cuts the socket, whatever is queued.
    pub(crate) fn cut(&self, cut: Cut) {
        if let Some(attached) = &self.state().1 {
            let _ = attached.cut.try_send(cut);
        }
    }

    /// Queues a frame; waits for room, and drops the frame when there is no socket.
    pub(crate) async fn deliver(&self, frame: Bytes) {
        let outgoing = self.state().1.as_ref().map(|attached| attached.outgoing.clone());
        if let Some(outgoing) = outgoing {
            let _ = outgoing.send(frame).await;
        }
    }

    /// Queues a frame of the service's own if there is a socket with room.
    pub(crate) fn offer(&self, frame: Bytes) -> bool {
        self.state().1.as_ref().is_some_and(|attached| attached.outgoing.try_send(frame).is_ok())
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.state().1.is_some()
    }

    fn state(&self) -> MutexGuard<'_, (u64, Option<Attached>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachment {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Serves `socket` until it ends; every binary message goes to `to`, which may hold back the reading.
    pub(crate) async fn serve(mut self, socket: WebSocket, to: impl Receive) {
        let (mut sink, mut source) = socket.split();
        let cut_at = self.cut_at;
        let ended = tokio::select! {
            () = read(&mut source, to) => Ended::ByPeer,
            ended = write(&mut sink, &mut self.outgoing) => ended,
            Some(cut) = self.cut.recv() => Ended::Cut(cut),
            cut = wait_for_cut(cut_at) => Ended::Cut(cut),
        };
        let Ok(socket) = source.reunite(sink) else { return };
        match ended {
            Ended::ByPeer => {}
            Ended::ByGateway => close(socket, "").await,
            Ended::Cut(Cut::Bye) => close(socket, "Bye").await,
            Ended::Cut(Cut::Reset) => socket.get_ref().reset_on_drop(),
        }
    }
}

enum Ended {
    ByPeer,
    ByGateway,
    Cut(Cut),
}

async fn read(source: &mut SplitStream<WebSocket>, to: impl Receive) {
    while let Some(Ok(message)) = source.next().await {
        if let Message::Binary(frame) = message {
            to.receive(frame).await;
        }
    }
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, outgoing: &mut mpsc::Receiver<Bytes>) -> Ended {
    while let Some(frame) = outgoing.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if sink.feed(Message::Binary(frame)).await.is_err() {
                return Ended::ByPeer;
            }
            next = outgoing.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return Ended::ByPeer;
        }
    }
    Ended::ByGateway
}

async fn wait_for_cut(cut_at: Option<(Instant, Cut)>) -> Cut {
    match cut_at {
        Some((moment, cut)) => {
            tokio::time::sleep_until(moment).await;
            cut
        }
        None => std::future::pending().await,
    }
}

/// Closes with code 1000 and reads on until the peer has answered, so that no reset destroys what it has not read yet.
pub(crate) async fn close(mut socket: WebSocket, reason: &'static str) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: reason.into() };
    let _ = timeout(CLOSE_WAIT, async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}

/// The first message, which is text. Pings may come before it.
pub(crate) async fn read_open_message(socket: &mut WebSocket) -> Option<String> {
    let first = async {
        loop {
            match socket.next().await?.ok()? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                Message::Ping(_) | Message::Pong(_) => {}
                _ => return None,
            }
        }
    };
    timeout(OPEN_WAIT, first).await.ok().flatten()
}
