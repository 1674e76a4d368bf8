//! A program on a session channel, with pipes or a pseudo-terminal.

use std::{
    ffi::OsString,
    io,
    os::unix::{ffi::OsStringExt, process::ExitStatusExt},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use pty_process::{OwnedWritePty, Pty};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use super::{
    Account,
    terminal::{self, Terminal},
};

/// What is read of a program's output at once: a packet of the channel.
const READ_SIZE: usize = 32 * 1024;
/// How long the terminal of a program that has exited is read on, for what its children still print.
const AFTERGLOW: Duration = Duration::from_millis(100);
/// What sshd gives to commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the client wants to run.
#[derive(Debug)]
pub(super) enum Program {
    Shell,
    Command(Vec<u8>),
}

/// A running program, not yet connected to its channel.
pub(super) struct Process {
    child: Child,
    terminal: Option<Pty>,
}

/// Starts `program` in the account's home directory by the account's shell.
pub(super) fn spawn(
    account: &Account,
    program: &Program,
    environment: &[(String, String)],
    terminal: Option<Terminal>,
) -> io::Result<Process> {
    let mut command = command(account, program);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let Some(terminal) = terminal else {
        // As sshd does: a signal is for the whole group.
        command.process_group(0);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        return Ok(Process { child, terminal: None });
    };
    command.env("TERM", &terminal.name);
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(terminal.size).map_err(io::Error::other)?;
    terminal::apply_modes(&pts, &terminal.modes)?;
    let child = pty_process::Command::from(command).spawn(pts).map_err(io::Error::other)?;
    Ok(Process { child, terminal: Some(pty) })
}

fn command(account: &Account, program: &Program) -> Command {
    let mut command = Command::new(&account.shell);
    match program {
        Program::Shell => {
            let mut name = OsString::from("-");
            name.push(account.shell.file_name().unwrap_or_default());
            command.arg0(name);
        }
        Program::Command(text) => {
            command.arg("-c").arg(OsString::from_vec(text.clone()));
        }
    }
    command.env_clear().current_dir(&account.home).kill_on_drop(true);
    command.env("PATH", PATH).env("HOME", &account.home).env("SHELL", &account.shell);
    command.env("USER", &account.user).env("LOGNAME", &account.user);
    command.env("SSH_CONNECTION", "127.0.0.1 1024 127.0.0.1 22");
    command
}

impl Process {
    /// Runs until the program has ended and its output is sent. One whose client has gone runs on, as with sshd: its input
    /// ends, what it writes meets a broken pipe, and a terminal is hung up; it ends with the lab at the latest.
    pub(super) async fn serve(mut self, channel: Channel<Msg>, handle: Handle) {
        let id = channel.id();
        let (mut from_client, to_client) = channel.split();
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let (status, gone) = match self.terminal.take() {
            Some(pty) => serve_terminal(&mut self.child, pty, pid, &mut from_client, &to_client).await,
            None => serve_pipes(&mut self.child, pid, &mut from_client, &to_client).await,
        };
        if gone {
            drop((from_client, to_client));
            let _ = self.child.wait().await;
        } else {
            let _ = to_client.eof().await;
            report(&handle, id, status).await;
            let _ = to_client.close().await;
        }
    }
}

/// How the program ended, and whether the client was gone before.
type Ended = (Option<ExitStatus>, bool);

async fn serve_pipes(
    child: &mut Child,
    pid: Option<Pid>,
    from_client: &mut ChannelReadHalf,
    to_client: &ChannelWriteHalf<Msg>,
) -> Ended {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdin, unwritten) = mpsc::unbounded_channel();
    let feeding = feed(child.stdin.take(), unwritten);
    let output = async {
        tokio::join!(copy(stdout, to_client, None), copy(stderr, to_client, Some(1)));
        child.wait().await.ok()
    };
    let listening = listen(from_client, stdin, pid, |_| {});
    tokio::pin!(feeding, output, listening);
    let mut fed = false;
    loop {
        tokio::select! {
            status = &mut output => return (status, false),
            () = &mut listening => return (None, true),
            () = &mut feeding, if !fed => fed = true,
        }
    }
}

async fn serve_terminal(
    child: &mut Child,
    pty: Pty,
    pid: Option<Pid>,
    from_client: &mut ChannelReadHalf,
    to_client: &ChannelWriteHalf<Msg>,
) -> Ended {
    let (mut screen, keyboard) = pty.into_split();
    let (keys, unwritten) = mpsc::unbounded_channel();
    let (resize, sizes) = mpsc::unbounded_channel();
    let typing = type_and_resize(keyboard, unwritten, sizes);
    let output = async {
        let showing = show(&mut screen, to_client);
        tokio::pin!(showing);
        let status = tokio::select! {
            status = child.wait() => status.ok(),
            () = &mut showing => return child.wait().await.ok(),
        };
        let _ = timeout(AFTERGLOW, showing).await;
        status
    };
    let listening = listen(from_client, keys, pid, |size| {
        let _ = resize.send(size);
    });
    tokio::pin!(typing, output, listening);
    loop {
        tokio::select! {
            status = &mut output => return (status, false),
            () = &mut listening => return (None, true),
            () = &mut typing => {}
        }
    }
}

/// Takes the client's messages until the channel is closed. Input is queued without bound, so that a program that reads
/// nothing never holds up the connection, over which its own output must leave.
async fn listen(
    from_client: &mut ChannelReadHalf,
    input: mpsc::UnboundedSender<Bytes>,
    pid: Option<Pid>,
    resized: impl Fn(pty_process::Size),
) {
    let mut input = Some(input);
    while let Some(message) = from_client.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(input) = &input {
                    let _ = input.send(data);
                }
            }
            ChannelMsg::Eof => input = None,
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                resized(terminal::size(col_width, row_height, pix_width, pix_height));
            }
            ChannelMsg::Signal { signal: name } => {
                if let (Some(pid), Some(signal)) = (pid, signal(&name)) {
                    let _ = kill_process_group(pid, signal);
                }
            }
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

async fn feed(to: Option<impl AsyncWrite + Unpin>, mut data: mpsc::UnboundedReceiver<Bytes>) {
    let Some(mut to) = to else { return };
    while let Some(data) = data.recv().await {
        if to.write_all(&data).await.is_err() {
            return;
        }
    }
}

/// Ends never: the keyboard of a terminal has no end of file of its own.
async fn type_and_resize(
    mut keyboard: OwnedWritePty,
    mut keys: mpsc::UnboundedReceiver<Bytes>,
    mut sizes: mpsc::UnboundedReceiver<pty_process::Size>,
) {
    loop {
        tokio::select! {
            // A size counts for everything that is typed after it.
            biased;
            Some(size) = sizes.recv() => {
                let _ = keyboard.resize(size);
            }
            Some(keys) = keys.recv() => {
                let _ = keyboard.write_all(&keys).await;
            }
            else => std::future::pending().await,
        }
    }
}

async fn copy(from: Option<impl AsyncRead + Unpin>, to_client: &ChannelWriteHalf<Msg>, extended: Option<u32>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let data = Bytes::copy_from_slice(&buffer[..count]);
        let sent = match extended {
            None => to_client.data_bytes(data).await,
            Some(code) => to_client.extended_data_bytes(code, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Linux reports the end of a terminal as an error; either way there is no more.
async fn show(screen: &mut (impl AsyncRead + Unpin), to_client: &ChannelWriteHalf<Msg>) {
    copy(Some(screen), to_client, None).await;
}

async fn report(handle: &Handle, id: ChannelId, status: Option<ExitStatus>) {
    let Some(status) = status else { return };
    let _ = match (status.code(), status.signal()) {
        (Some(code), _) => handle.exit_status_request(id, u32::try_from(code).unwrap_or(255)).await,
        (None, Some(number)) => {
            let core = status.core_dumped();
            handle.exit_signal_request(id, signal_name(number), core, String::new(), String::new()).await
        }
        (None, None) => Ok(()),
    };
}

fn signal_name(number: i32) -> Sig {
    match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => Sig::ABRT,
        Some(Signal::ALARM) => Sig::ALRM,
        Some(Signal::FPE) => Sig::FPE,
        Some(Signal::HUP) => Sig::HUP,
        Some(Signal::ILL) => Sig::ILL,
        Some(Signal::INT) => Sig::INT,
        Some(Signal::KILL) => Sig::KILL,
        Some(Signal::PIPE) => Sig::PIPE,
        Some(Signal::QUIT) => Sig::QUIT,
        Some(Signal::SEGV) => Sig::SEGV,
        Some(Signal::TERM) => Sig::TERM,
        Some(Signal::USR1) => Sig::USR1,
        _ => Sig::Custom(format!("{number}@ssm-lab")),
    }
}

fn signal(name: &Sig) -> Option<Signal> {
    Some(match name {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(_) => return None,
    })
}
