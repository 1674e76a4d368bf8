//! One WebSocket of the gateway: what comes in is handed on, what is queued goes out, and the lab may cut it.

use std::{
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{
            CloseFrame, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use crate::{
    conn::Conn,
    faults::{Faults, Interruption},
};

pub(crate) type WebSocket = WebSocketStream<Conn>;

/// Frames that may wait for a socket's writer before whoever sends them must wait too.
const QUEUE: usize = 64;
/// How long a socket that is closed in an orderly way may take to answer.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Longer than any lab lives.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
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
    interruptions: mpsc::Sender<Interruption>,
}

/// The socket's end of being attached.
pub(crate) struct Attachment {
    number: u64,
    outgoing: mpsc::Receiver<Bytes>,
    interruptions: mpsc::Receiver<Interruption>,
    /// Of a socket whose messages the lab may send in fragments.
    pub(crate) faults: Option<watch::Receiver<Faults>>,
}

impl Slot {
    pub(crate) fn attach(&self) -> Attachment {
        let (outgoing_sender, outgoing) = mpsc::channel(QUEUE);
        let (interruption_sender, interruptions) = mpsc::channel(1);
        let mut state = self.state();
        state.0 += 1;
        state.1 = Some(Attached { outgoing: outgoing_sender, interruptions: interruption_sender });
        Attachment { number: state.0, outgoing, interruptions, faults: None }
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

    /// Interrupts the socket, whatever is queued. A socket that is being interrupted already goes on with that.
    /// Says whether there is one that can be.
    pub(crate) fn interrupt(&self, interruption: Interruption) -> bool {
        self.state().1.as_ref().is_some_and(|attached| attached.interruptions.try_send(interruption).is_ok())
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
        let ended = {
            let reading = pin!(read(&mut source, to));
            let writing = pin!(write(&mut sink, &mut self.outgoing, self.faults.as_ref()));
            attend(reading, writing, &mut self.interruptions).await
        };
        self.interruptions.close();
        let Ok(socket) = source.reunite(sink) else { return };
        match ended {
            Ended::ByPeer => {}
            Ended::ByGateway => close(socket, "").await,
            Ended::Interrupted(Interruption::Bye) => close(socket, "Bye").await,
            Ended::Interrupted(Interruption::TooBig) => {
                close_with(socket, CloseCode::Size, "the message is too big").await;
            }
            Ended::Interrupted(Interruption::Reset | Interruption::Silence(_)) => socket.get_ref().reset_on_drop(),
        }
    }
}

enum Ended {
    ByPeer,
    ByGateway,
    Interrupted(Interruption),
}

/// Reads and writes until either ends. While the socket is silent neither goes on, and nothing is lost.
async fn attend(
    mut reading: Pin<&mut impl Future<Output = ()>>,
    mut writing: Pin<&mut impl Future<Output = Ended>>,
    interruptions: &mut mpsc::Receiver<Interruption>,
) -> Ended {
    loop {
        let interruption = tokio::select! {
            () = &mut reading => return Ended::ByPeer,
            ended = &mut writing => return ended,
            Some(interruption) = interruptions.recv() => interruption,
        };
        match interruption {
            Interruption::Silence(length) if pass_in_silence(length, interruptions).await => {}
            interruption => return Ended::Interrupted(interruption),
        }
    }
}

/// Says whether the socket goes on: not once a newer one has taken its place.
async fn pass_in_silence(length: Option<Duration>, interruptions: &mut mpsc::Receiver<Interruption>) -> bool {
    let displaced = async { while interruptions.recv().await.is_some() {} };
    timeout(length.unwrap_or(FOR_EVER), displaced).await.is_err()
}

async fn read(source: &mut SplitStream<WebSocket>, to: impl Receive) {
    while let Some(Ok(message)) = source.next().await {
        if let Message::Binary(frame) = message {
            to.receive(frame).await;
        }
    }
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    outgoing: &mut mpsc::Receiver<Bytes>,
    faults: Option<&watch::Receiver<Faults>>,
) -> Ended {
    while let Some(frame) = outgoing.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            let fragment = faults.and_then(|faults| faults.borrow().fragment);
            if feed(sink, frame, fragment).await.is_err() {
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

/// One message, whole or in fragments.
async fn feed(
    sink: &mut SplitSink<WebSocket, Message>,
    mut message: Bytes,
    fragment: Option<NonZeroUsize>,
) -> Result<(), tungstenite::Error> {
    let Some(size) = fragment.filter(|size| size.get() < message.len()) else {
        return sink.feed(Message::Binary(message)).await;
    };
    let mut code = Data::Binary;
    while !message.is_empty() {
        let part = message.split_to(size.get().min(message.len()));
        sink.feed(Message::Frame(Frame::message(part, OpCode::Data(code), message.is_empty()))).await?;
        code = Data::Continue;
    }
    Ok(())
}

/// Closes with code 1000 and reads on until the peer has answered, so that no reset destroys what it has not read yet.
pub(crate) async fn close(socket: WebSocket, reason: &'static str) {
    close_with(socket, CloseCode::Normal, reason).await;
}

async fn close_with(mut socket: WebSocket, code: CloseCode, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
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
