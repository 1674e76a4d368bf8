//! A real OpenSSH `sshd` behind the node.
//!
//! The lab listens itself and hands each connection to a process of its own (`sshd -i`): no port is picked and lost again,
//! nothing has to be waited for, and nothing that listens can be left behind, not even after `kill -9`.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use russh::keys::{PrivateKey, PublicKey};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{
    home::{write_key, write_private},
    tasks::Tasks,
};

/// Where systems put it; it is seldom in a user's `PATH`.
const PROGRAMS: [&str; 4] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/opt/homebrew/sbin/sshd"];
/// Compiled into Debian's sshd, which refuses to run as root without it; made at boot where sshd is a service.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// Why there is no OpenSSH server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenSshError {
    /// It is not installed.
    #[error("no sshd found (looked for {}); install it: the package is called openssh-server", PROGRAMS.join(", "))]
    NotInstalled,
    /// Its files could not be written, or no port was free.
    #[error("the files of sshd could not be written")]
    Files(#[source] io::Error),
    /// The name of the user that runs the lab, who is the only one it can log in.
    #[error("the current user's name could not be found out")]
    User(#[source] io::Error),
    /// It says what is wrong with its configuration.
    #[error("sshd refuses its configuration: {0}")]
    Configuration(String),
}

/// Listens on a free loopback port until the lab ends. Only `key` is let in, for the user that runs the lab.
pub(crate) async fn start(
    directory: &Path,
    host_key: &PrivateKey,
    key: &PublicKey,
    extra: &[String],
    tasks: &Tasks,
) -> Result<SocketAddr, OpenSshError> {
    let program = PROGRAMS.iter().map(Path::new).find(|path| path.exists()).ok_or(OpenSshError::NotInstalled)?;
    let configuration = write_files(directory, host_key, key, extra).map_err(OpenSshError::Files)?;
    check(program, &configuration).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(OpenSshError::Files)?;
    let address = listener.local_addr().map_err(OpenSshError::Files)?;
    let (program, connections) = (program.to_owned(), tasks.clone());
    let log = directory.join("sshd.log");
    tasks.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            match spawn(&program, &configuration, &log, stream) {
                Ok(mut child) => connections.spawn(async move {
                    let _ = child.wait().await;
                }),
                Err(error) => tracing::warn!(%error, "sshd could not be started"),
            }
        }
    });
    Ok(address)
}

/// Who runs the lab: the only user that an sshd without privileges can log in.
pub(crate) async fn current_user() -> Result<String, OpenSshError> {
    let output = Command::new("id").arg("-un").output().await.map_err(OpenSshError::User)?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "" => Err(OpenSshError::User(io::Error::other("`id -un` names no user"))),
        name => Ok(name.to_owned()),
    }
}

fn write_files(directory: &Path, private: &PrivateKey, key: &PublicKey, extra: &[String]) -> io::Result<PathBuf> {
    let (host_key, authorized) = (directory.join("ssh_host_ed25519_key"), directory.join("authorized_keys"));
    write_key(private, &host_key)?;
    write_private(&authorized, &format!("{}\n", key.to_openssh().map_err(io::Error::other)?))?;
    // A name that is given twice is refused.
    let names_subsystem =
        |line: &String| line.trim_start().get(..9).is_some_and(|word| word.eq_ignore_ascii_case("subsystem"));
    let sftp = if extra.iter().any(names_subsystem) { "" } else { "Subsystem sftp internal-sftp\n" };
    let mut text = String::new();
    for line in extra {
        // sshd takes the first value that it sees.
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(
        text,
        "HostKey \"{}\"\nAuthorizedKeysFile \"{}\"\nPidFile none\nUsePAM no\nStrictModes no\n\
         AuthenticationMethods publickey\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nAcceptEnv LANG LC_*\nPrintMotd no\nPrintLastLog no\nUseDNS no\n{sftp}",
        host_key.display(),
        authorized.display()
    );
    let configuration = directory.join("sshd_config");
    write_private(&configuration, &text)?;
    if rustix::process::geteuid().is_root() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(PRIVILEGE_SEPARATION)?;
    }
    Ok(configuration)
}

async fn check(program: &Path, configuration: &Path) -> Result<(), OpenSshError> {
    let output = Command::new(program).arg("-t").arg("-f").arg(configuration).stdin(Stdio::null()).output().await;
    let output = output.map_err(OpenSshError::Files)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(OpenSshError::Configuration(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn spawn(program: &Path, configuration: &Path, log: &Path, stream: TcpStream) -> io::Result<tokio::process::Child> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let socket = OwnedFd::from(stream);
    let mut log_option = OsString::from("-E");
    log_option.push(log);
    let mut command = Command::new(program);
    command.arg("-i").arg("-f").arg(configuration).arg(log_option);
    command.stdin(socket.try_clone()?).stdout(socket).stderr(Stdio::null());
    command.kill_on_drop(true).spawn()
}
