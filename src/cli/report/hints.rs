//! What would help against a failure.

use super::{CliError, program};
use crate::cli::askpass::AskError;
use crate::cli::identity::IdentityError;
use crate::client::ClientError;
use crate::copy::CopyError;
use crate::copy::scp::{LineError, ScpError};
use crate::datachannel::ChannelError;
use crate::ssh::sftp::{ProtocolError, SftpError};
use crate::ssh::{AuthenticationError, HostKeyError, Lost, SshError};
use crate::stream::{Denied, DialError, ServiceError, StreamError};

/// What the agent reports, a minute later, when its worker has crashed. A port on which nothing listens makes it crash
/// (agent: `outofproc/master.go: WaitForProcess`).
const WORKER_CRASHED: &str = "document process failed unexpectedly";

/// One piece of advice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// A sentence.
    Line(String),
    /// Lines to copy and paste, printed as they are.
    Block(String),
}

/// What would help against `error`, the likeliest first.
pub(super) fn of(error: &CliError) -> Vec<Hint> {
    match error {
        CliError::Absent(absent) => vec![hint(absent.instead)],
        CliError::Identity(error) => identity_hints(error),
        CliError::Client(ClientError::Service(error)) => service_hints(error),
        CliError::Client(ClientError::Stream(error)) => stream_hints(error),
        CliError::Client(ClientError::Ssh(error)) => ssh_hints(error),
        CliError::Sftp { source: SftpError::Protocol(ProtocolError::TextOnStream(_)), .. } => vec![talkative_hint()],
        CliError::Sftp { .. } | CliError::SftpTimeout(_) => {
            vec![hint("the node's sshd_config needs a line such as `Subsystem sftp internal-sftp`")]
        }
        CliError::Copy(CopyError::ScpEnded { source: ScpError::NotStarted(_), .. }) => vec![
            hint("the node needs `Subsystem sftp internal-sftp` in its sshd_config, or OpenSSH's `scp` installed"),
            hint(
                "a login shell that runs no commands, such as nologin, or a forced command ends it too: try `ssmssh NODE true`",
            ),
        ],
        CliError::Copy(CopyError::ScpEnded { source: ScpError::Line(LineError::Text(_)), .. }) => {
            vec![talkative_hint()]
        }
        CliError::Copy(CopyError::Lost { can_resume: false, .. }) => {
            vec![hint("the same command copies again; nothing half-copied has taken a file's name")]
        }
        _ => Vec::new(),
    }
}

/// Something speaks where only a protocol may.
fn talkative_hint() -> Hint {
    hint(
        "`ssmssh NODE true` must print nothing: let .bashrc and the like print in terminals only, and see the user's login shell, \
         the key's command= and ForceCommand",
    )
}

fn hint(line: impl Into<String>) -> Hint {
    Hint::Line(line.into())
}

/// What is wrong with a key file says itself what to do about it.
fn identity_hints(error: &IdentityError) -> Vec<Hint> {
    match error {
        IdentityError::PublicAlone { .. } => vec![hint(
            "name the private key with `-i FILE`, usually the same name without .pub, or add it to an agent (`ssh-add`)",
        )],
        IdentityError::NoneUsable { .. } | IdentityError::NoHome => {
            vec![hint(
                "name one with `-i FILE` or SSMSSH_IDENTITY; only you may read it, and nobody may write it: `chmod 0400 FILE`",
            )]
        }
        IdentityError::Ask { source: AskError::NoTerminal, .. } => {
            vec![hint("SSH_ASKPASS may name a program that asks for it")]
        }
        _ => Vec::new(),
    }
}

fn service_hints(error: &ServiceError) -> Vec<Hint> {
    match error {
        ServiceError::Denied(denied) => denied_hints(denied),
        ServiceError::TargetNotConnected { target, region } => vec![
            hint(format!("is {target} in {region}? Another region is asked with `--region` or AWS_REGION")),
            hint("on the node the SSM agent has to run, and its role to allow it (AmazonSSMManagedInstanceCore)"),
            hint("the node has to reach the endpoints ssm, ssmmessages and ec2messages of its region"),
        ],
        ServiceError::Credentials(_) => {
            vec![hint("a profile with credentials is named with `--profile` or AWS_PROFILE; `-v` shows what is used")]
        }
        ServiceError::CredentialsRefused(_) => {
            vec![hint("`-v` shows where they come from; another profile is named with `--profile` or AWS_PROFILE")]
        }
        // These texts say themselves what renews them, and with which profile.
        ServiceError::NoRegion => vec![hint("`--region` names it for one command")],
        ServiceError::SessionEnded { .. } => vec![hint("connect again: an SSM session that is over stays over")],
        ServiceError::Throttled { .. } => {
            vec![hint("the account's rate of API calls is used up: try again in a while")]
        }
        ServiceError::NotReached { source, .. } => vec![hint(dial_hint(source))],
        ServiceError::PlainEndpoint { .. } => vec![hint(
            "use https:// in `--endpoint-url`, AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SSM or the profile's endpoint_url, whichever is set; \
             http:// is for this machine only",
        )],
        ServiceError::Unreachable { .. } => vec![hint("check the network and `--endpoint-url`, if one is set")],
        _ => Vec::new(),
    }
}

fn denied_hints(denied: &Denied) -> Vec<Hint> {
    let said = (!denied.message.is_empty()).then(|| hint(format!("the service says: {}", denied.message)));
    let remedy = [hint("this statement in your IAM policy would allow it:"), Hint::Block(denied.statement())];
    said.into_iter().chain(remedy).collect()
}

fn dial_hint(error: &DialError) -> &'static str {
    match error {
        DialError::Certificate { .. } => {
            "where your network opens TLS, or the endpoint is your own, name its root certificates with AWS_CA_BUNDLE"
        }
        DialError::ProxyLogin { schemes, .. } if !takes_basic(schemes) => {
            "a local proxy that logs in by itself, such as cntlm or px, can stand before it: name that one with HTTPS_PROXY"
        }
        DialError::ProxyLogin { .. } => {
            "give user and password in HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT, percent-encoded"
        }
        DialError::Proxy { .. }
        | DialError::ProxyRefused { .. }
        | DialError::ProxySilent { .. }
        | DialError::ProxyAnswer { .. } => {
            "the proxy is that of HTTPS_PROXY; NO_PROXY names hosts that are reached without it"
        }
        DialError::NotTls { .. } => {
            "is the port right? An endpoint of your own without TLS is given with http://, a proxy without it too"
        }
        DialError::CaBundle { .. } => "AWS_CA_BUNDLE names this file: it has to be PEM, with one certificate at least",
        DialError::Io(source) if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there: check `--endpoint-url` or AWS_ENDPOINT_URL, if one is set, and the firewall"
        }
        _ => "check that the network lets you out to this host on port 443",
    }
}

fn takes_basic(schemes: &[String]) -> bool {
    schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("Basic"))
}

fn stream_hints(error: &StreamError) -> Vec<Hint> {
    match error {
        StreamError::Service(error) => service_hints(error),
        StreamError::UpgradeDenied(denied) => {
            let mut hints = denied_hints(denied);
            hints.push(hint(
                "if it is allowed, log in again, or renew the credentials; `-v` shows where they come from",
            ));
            hints
        }
        StreamError::Url(_) => {
            vec![hint("an endpoint of your own is named with `--endpoint-url` or AWS_ENDPOINT_URL_SSM")]
        }
        StreamError::Connect { source, .. } => vec![hint(dial_hint(source))],
        StreamError::NothingListens { .. } => {
            vec![hint(format!("is sshd running on the node? Another port is named with `{}`", port_option()))]
        }
        StreamError::Ended(text) if text.contains(WORKER_CRASHED) => vec![listening_hint()],
        StreamError::Ended(text) if is_idle(text) => {
            vec![hint("`--keepalive 60` keeps a connection that nobody types into within the account's idle limit")]
        }
        StreamError::Channel(ChannelError::HandshakeTimeout(_)) | StreamError::EndedEarly => vec![listening_hint()],
        StreamError::Channel(ChannelError::MalformedHandshake { .. }) => {
            vec![hint("the document AWS-StartSSHSession needs SSM agent 2.3.672.0 or later")]
        }
        StreamError::NodeSilent { unproven, .. } => {
            let running = "is the node running, and its SSM agent? `--resume-timeout` says how long to wait for it";
            let smaller =
                "it fell silent at a message larger than any before: if it does so again, try `--max-payload 1024`";
            let hints = [Some(running), unproven.map(|_| smaller)];
            hints.into_iter().flatten().map(hint).collect()
        }
        StreamError::Lost { .. } => {
            vec![hint("run the same command again; what ran on a terminal of the node has been hung up")]
        }
        StreamError::NotTerminated { .. } => {
            vec![hint("the service ends it after the account's idle time-out, usually 20 minutes")]
        }
        _ => Vec::new(),
    }
}

/// Whether the session ended because nothing was sent: `Your session timed out due to inactivity.`, or of that kind.
fn is_idle(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["inactiv", "idle"].iter().any(|word| text.contains(word))
}

/// How the command that runs names the port.
fn port_option() -> &'static str {
    if program() == "ssmcp" { "-P" } else { "-p" }
}

fn listening_hint() -> Hint {
    hint(format!("does an SSH server listen on this port of the node? Another is named with `{}`", port_option()))
}

/// As many keys as make a server hang up: OpenSSH's takes six (`MaxAuthTries`), each of which may fail once.
const MANY_KEYS: usize = 5;

fn host_key_hints(error: &HostKeyError) -> Vec<Hint> {
    match error {
        HostKeyError::Changed { host, .. } => {
            vec![hint(format!(
                "if the host was reinstalled, remove its old key: `ssmssh --forget-host {}`; name the file with `--known-hosts` if you did",
                target(host)
            ))]
        }
        HostKeyError::Odd { .. } => vec![hint("correct or remove the line")],
        HostKeyError::Unreadable { .. } => vec![hint("name another file with `--known-hosts FILE`")],
        HostKeyError::WeakRsa { .. } => {
            vec![hint("give the node a stronger key: `ssh-keygen -A` there makes what is missing, Ed25519 among them")]
        }
        _ => Vec::new(),
    }
}

/// A recorded name, `host` or `[host]:port`, as the command takes it.
fn target(host: &str) -> String {
    let bracketed = host.strip_prefix('[').and_then(|host| host.split_once("]:"));
    bracketed.map_or_else(|| host.to_owned(), |(host, port)| format!("-p {port} {host}"))
}

/// Logins say themselves what to do about them.
fn ssh_hints(error: &SshError) -> Vec<Hint> {
    match error {
        SshError::HostKey(error) => host_key_hints(error),
        SshError::Authentication(AuthenticationError::Disconnected { tried, .. }) if tried.len() >= MANY_KEYS => {
            vec![hint("the server allows only so many keys: name the right one with `-i FILE -o IdentitiesOnly=yes`")]
        }
        SshError::Authentication(AuthenticationError::NoIdentity { .. }) => vec![hint("name a key with `-i FILE`")],
        SshError::Authentication(AuthenticationError::Refused { .. }) => {
            vec![hint("another user is named with `USER@NODE`, another key with `-i FILE`")]
        }
        SshError::Lost(Lost::Eof) => vec![hint("the node's log of sshd may say why (`journalctl -u ssh -u sshd`)")],
        SshError::Lost(Lost::NotUtf8) => vec![hint(
            "convert the file that Banner in the node's sshd_config names (`iconv -f latin1 -t utf-8`), or what PAM prints there",
        )],
        SshError::Lost(Lost::ServerSilent(_)) => vec![hint(
            "connect again; longer outages are survived with a larger ServerAliveCountMax, or with `--keepalive` in its place",
        )],
        SshError::LoginTimeout(_) => vec![hint("is the node overloaded, or its connection? `-v` shows how far it got")],
        SshError::Lost(Lost::NotSsh) => vec![hint(format!("another port is named with `{}`", port_option()))],
        SshError::ChannelRefused { .. } => {
            vec![hint("MaxSessions in the node's sshd_config has to be 1 or more; 0 allows forwarding only")]
        }
        SshError::RequestRefused { .. } => vec![hint("the node's sshd_config or the key's options forbid it")],
        _ => Vec::new(),
    }
}
