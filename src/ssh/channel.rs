//! The task behind an open channel: it moves bytes between russh and the pipes that the caller holds.
//!
//! russh answers for the flow control of a channel: it opens the window again as soon as data arrives, whoever reads it or
//! not, and its loop waits while a channel's queue is full. So whatever arrives is taken at once into pipes with a
//! limit; when a reader is so slow that they fill, the whole connection waits for it.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client::Msg};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument as _;

use super::{
    Lost, Shared,
    backlog::Backlog,
    command::ExitStatus,
    pipe::{PipeReader, PipeWriter, pipe},
    quote,
    request::{Asked, Request},
    turns::Slot,
};

/// Bytes that wait in each direction of a channel for whoever is slower.
const PIPE_LIMIT: usize = 256 * 1024;
/// The largest packet that OpenSSH takes on a session channel.
const PACKET: usize = 32 * 1024;
/// Stderr of a remote process, in `SSH_MSG_CHANNEL_EXTENDED_DATA`.
const STDERR: u32 = 1;

/// How a channel ended for its user.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Exit(ExitStatus),
    NoExitStatus,
    Refused { request: String },
    Lost(Lost),
}

/// What a [`super::Child`] can ask of its channel beside bytes.
#[derive(Debug)]
pub(super) enum Control {
    Resize {
        cols: u32,
        rows: u32,
        width_px: u32,
        height_px: u32,
    },
    /// `sent` is told once the signal is before anything that is sent afterwards.
    Signal {
        name: String,
        sent: oneshot::Sender<()>,
    },
}

/// The caller's side of a channel. The channel is closed when the last clone of `control` is dropped.
pub(super) struct Ends {
    pub(super) stdin: PipeWriter,
    pub(super) stdout: PipeReader,
    pub(super) stderr: PipeReader,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    pub(super) refused_env: Arc<Mutex<Vec<String>>>,
}

/// What a channel is opened for.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) requests: Vec<Request>,
    /// Whether what runs on it is killed when nobody holds it any more.
    pub(super) kill_on_drop: bool,
}

/// Starts the task of a channel, which sends the requests in their order and holds `slot` until the channel is closed.
pub(super) fn start(
    channel: Channel<Msg>,
    Order { requests, kill_on_drop }: Order,
    opened: Instant,
    slot: Slot,
    shared: Arc<Shared>,
) -> Ends {
    let (stdin, stdin_out) = pipe(PIPE_LIMIT);
    let (stdout_in, stdout) = pipe(PIPE_LIMIT);
    let (stderr_in, stderr) = pipe(PIPE_LIMIT);
    let (control, control_out) = mpsc::channel(4);
    let (outcome_in, outcome) = watch::channel(None);
    let (read, write) = channel.split();
    let refused_env = Arc::default();
    let incoming = Incoming {
        asked: requests.iter().map(Request::asked).collect(),
        refused_env: Arc::clone(&refused_env),
        opened,
        stdout: stdout_in,
        stderr: stderr_in,
        outcome: outcome_in,
    };
    let outgoing = Outgoing { requests, kill_on_drop, stdin: stdin_out, control: control_out };
    let running = async move {
        run(read, &write, outgoing, incoming, shared).await;
        drop(slot);
    };
    tokio::spawn(running.in_current_span());
    Ends { stdin, stdout, stderr, control, outcome, refused_env }
}

async fn run(
    mut read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
    outgoing: Outgoing,
    mut incoming: Incoming,
    shared: Arc<Shared>,
) {
    let kill_on_drop = outgoing.kill_on_drop;
    let end = tokio::select! {
        end = incoming.receive(&mut read) => end,
        () = outgoing.send(write, &shared.transport.backlog) => End::Abandoned,
        () = shared.closing() => End::Abandoned,
    };
    // The loop of russh must not wait for a channel that nobody takes messages from.
    drop(read);
    match end {
        End::Closed => incoming.finish(Outcome::NoExitStatus),
        End::Refused { request } => {
            let _ = write.close().await;
            incoming.fail(&Outcome::Refused { request });
        }
        End::Abandoned => {
            if kill_on_drop {
                let _ = write.signal(Sig::KILL).await;
            }
            let _ = write.close().await;
            incoming.fail(&Outcome::Lost(Lost::Closed));
        }
        End::Lost if shared.is_closing() => incoming.fail(&Outcome::Lost(Lost::Closed)),
        End::Lost => incoming.fail(&Outcome::Lost(shared.lost().await)),
    }
}

enum End {
    /// The server closed the channel.
    Closed,
    Refused {
        request: String,
    },
    /// This side closed the channel or the whole session.
    Abandoned,
    /// The connection ended.
    Lost,
}

/// What leaves on the channel.
struct Outgoing {
    requests: Vec<Request>,
    kill_on_drop: bool,
    stdin: PipeReader,
    control: mpsc::Receiver<Control>,
}

impl Outgoing {
    /// Sends the requests, then what the caller writes; returns when the caller holds nothing of the channel any more.
    ///
    /// The answers are taken meanwhile: russh's loop would wait for that, and this for the loop.
    async fn send(self, write: &ChannelWriteHalf<Msg>, backlog: &Backlog) {
        let Self { requests, mut stdin, mut control, .. } = self;
        for request in requests {
            // Where it cannot be sent the connection has ended, which the receiving side tells.
            if request.send(write).await.is_err() {
                return pending().await;
            }
        }
        let data = async {
            while let Some(chunk) = stdin.recv().await {
                if send_chunk(write, chunk, backlog).await.is_err() {
                    break;
                }
            }
            let _ = write.eof().await;
            pending::<()>().await;
        };
        let controls = async {
            while let Some(asked) = control.recv().await {
                let _ = asked.send(write).await;
            }
        };
        tokio::select! {
            () = data => {}
            () = controls => {}
        }
    }
}

impl Control {
    async fn send(self, write: &ChannelWriteHalf<Msg>) -> Result<(), russh::Error> {
        match self {
            Self::Resize { cols, rows, width_px, height_px } => {
                write.window_change(cols, rows, width_px, height_px).await
            }
            Self::Signal { name, sent } => {
                let result = write.signal(Sig::Custom(name)).await;
                let _ = sent.send(());
                result
            }
        }
    }
}

/// Hands a chunk to russh by the packet, each when it is its turn.
async fn send_chunk(write: &ChannelWriteHalf<Msg>, mut chunk: Bytes, backlog: &Backlog) -> Result<(), russh::Error> {
    while !chunk.is_empty() {
        let packet = chunk.split_to(chunk.len().min(PACKET));
        let (turn, length) = (backlog.turn().await, packet.len());
        write.data_bytes(packet).await?;
        backlog.handed(&turn, length);
    }
    Ok(())
}

struct Incoming {
    /// What is still to be answered, in this order.
    asked: VecDeque<Asked>,
    refused_env: Arc<Mutex<Vec<String>>>,
    opened: Instant,
    stdout: PipeWriter,
    stderr: PipeWriter,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Incoming {
    async fn receive(&mut self, read: &mut ChannelReadHalf) -> End {
        while let Some(message) = read.wait().await {
            match message {
                // A stream that nobody reads is discarded.
                ChannelMsg::Data { data } => drop(self.stdout.send(data).await),
                ChannelMsg::ExtendedData { data, ext: STDERR } => drop(self.stderr.send(data).await),
                ChannelMsg::Eof => self.end_streams(),
                ChannelMsg::Success => self.granted(),
                ChannelMsg::Failure => match self.asked.pop_front() {
                    Some(Asked::Env(name)) => self.env_refused(name),
                    Some(Asked::Needed(request)) => return End::Refused { request },
                    None => {}
                },
                ChannelMsg::ExitStatus { exit_status } => self.settle(Outcome::Exit(ExitStatus::exited(exit_status))),
                ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. } => {
                    let status = ExitStatus::killed(
                        quote::said(&signal_text(signal_name)),
                        core_dumped,
                        quote::said(&error_message),
                    );
                    self.settle(Outcome::Exit(status));
                }
                ChannelMsg::Close => return End::Closed,
                _ => {}
            }
        }
        End::Lost
    }

    fn granted(&mut self) {
        if self.asked.pop_front().is_some() && self.asked.is_empty() {
            super::stage("channel", self.opened);
        }
    }

    fn env_refused(&self, name: String) {
        tracing::info!(target: "ssmssh::detail", "the server does not take the variable {name:?} (AcceptEnv)");
        self.refused_env.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn end_streams(&mut self) {
        self.stdout.finish();
        self.stderr.finish();
    }

    fn finish(mut self, outcome: Outcome) {
        self.end_streams();
        self.settle(outcome);
    }

    fn fail(mut self, outcome: &Outcome) {
        self.stdout.fail(outcome.clone());
        self.stderr.fail(outcome.clone());
        self.settle(outcome.clone());
    }

    /// The first outcome counts.
    fn settle(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|current| current.is_none() && current.replace(outcome).is_none());
    }
}

fn signal_text(signal: Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => return name,
    };
    name.to_owned()
}
