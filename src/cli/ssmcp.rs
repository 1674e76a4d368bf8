//! The `ssmcp` command.

use std::error::Error;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::time::timeout;

use super::args::ConnectionArgs;
use super::connect::{Dialer, Redialer};
use super::environment::Environment;
use super::logging;
use super::options::LogLevel;
use super::progress::ProgressLine;
use super::report::{self, CliError};
use super::settings::ConnectionSettings;
use super::signals::EndSignals;
use super::target::{Operand, Target};
use super::terminal;
use crate::client::{ClientError, Connection};
use crate::copy::{BytePath, CopyError, CopyOptions, Location, RemoteEndpoint, Streams, Summary, copy_until};
use crate::ssh::sftp::Sftp;
use crate::stream::{StreamError, TargetId};

/// Exit status when some of it could not be copied.
const INCOMPLETE: u8 = 1;

/// One thread for SSH and the files, one for the data channel beside it: encryption of both can go on at once.
const WORKERS: usize = 2;

/// Longest wait for the SFTP server of a node that has let us in.
const SFTP_START: Duration = Duration::from_secs(30);

/// Copy files to, from and between nodes behind AWS Session Manager
#[derive(Debug, Clone, Parser)]
#[command(name = "ssmcp", version, args_override_self = true, max_term_width = 100, after_help = NOTES)]
#[command(override_usage = "ssmcp [OPTIONS] SOURCE... TARGET")]
struct SsmcpArgs {
    /// TCP port of the SSH server on the node
    #[arg(short = 'P', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Copy directories with all that lies in them; links are followed
    #[arg(short = 'r')]
    recursive: bool,

    /// Keep the times and permissions of the sources
    #[arg(short = 'p')]
    preserve: bool,

    /// SSM sessions that carry the files at the same time, each with its own SSH connection: 1 to 16, or `auto`, which
    /// opens up to 8 while each step makes the copy faster
    #[arg(short = 'j', long, value_name = "N", default_value = "auto", value_parser = parse_streams)]
    streams: Streams,

    /// Files and directories, the last of them the target: a PATH on this machine or [USER@]NODE:PATH
    #[arg(value_name = "PATH", required = true)]
    operands: Vec<OsString>,

    // Last, because its heading holds for all that follows.
    #[command(flatten)]
    connection: ConnectionArgs,
}

const NOTES: &str = "\
A path on a node is relative to the login directory, which `NODE:` and `NODE:~` name too.
A local path with a colon in it is written `./a:b`.
Each file is written under a temporary name and renamed when it is whole.

Exit status:
  0 if everything was copied; 1 if something was not; 255 if nothing could be copied at all;
  128+n if signal n ended it, with temporary files removed

Environment:
  SSMSSH_USER, SSMSSH_IDENTITY, SSMSSH_KNOWN_HOSTS and those of the AWS tools, as for ssmssh";

/// What one run of `ssmcp` does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SsmcpSettings {
    connection: ConnectionSettings,
    recursive: bool,
    preserve: bool,
    streams: Streams,
    sources: Vec<Operand>,
    target: Operand,
}

/// Runs the command and returns its exit status.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let started = Instant::now();
    report::init("ssmcp");
    terminal::restore_on_panic();
    let settings = match settings(args, &Environment::of_process()) {
        Ok(settings) => settings,
        Err(error) => return report::print(&error, LogLevel::Info),
    };
    let level = settings.connection.log_level;
    logging::init(level);
    super::run_to_end(WORKERS, run(&settings, started)).unwrap_or_else(|error| report::print(&error, level))
}

fn settings(args: impl IntoIterator<Item = OsString>, env: &Environment) -> Result<SsmcpSettings, CliError> {
    let args = SsmcpArgs::try_parse_from(args)?;
    let connection = ConnectionSettings::resolve(&args.connection, None, args.port, env)?;
    let mut sources: Vec<_> = args.operands.iter().map(|text| Operand::parse(text)).collect::<Result<_, _>>()?;
    let Some(target) = sources.pop().filter(|_| !sources.is_empty()) else {
        let missing = "a target is missing: the last PATH is where the others are copied to";
        return Err(SsmcpArgs::command().error(ErrorKind::TooFewValues, missing).into());
    };
    let is_local = |operand: &Operand| matches!(operand, Operand::Local(_));
    if is_local(&target)
        && let Some(Operand::Local(source)) = sources.iter().find(|source| is_local(source))
    {
        return Err(CliError::BothLocal(source.clone()));
    }
    let SsmcpArgs { recursive, preserve, streams, .. } = args;
    Ok(SsmcpSettings { connection, recursive, preserve, streams, sources, target })
}

fn parse_streams(text: &str) -> Result<Streams, String> {
    if text == "auto" {
        return Ok(Streams::auto());
    }
    let number = text.parse().ok().filter(|streams| (1..=Streams::MOST).contains(streams));
    number.map(Streams::exactly).ok_or_else(|| format!("expected `auto` or a number from 1 to {}", Streams::MOST))
}

/// Whatever ends it, a signal included, the SSM sessions are ended too before it returns, as far as 2 s suffice.
async fn run(settings: &SsmcpSettings, started: Instant) -> Result<u8, CliError> {
    let mut signals = EndSignals::catch().map_err(CliError::Signals)?;
    let dialer = Dialer::new(&settings.connection);
    let result = work(settings, &dialer, &mut signals, started).await;
    // A second signal is from somebody who does not want to wait.
    tokio::select! {
        () = dialer.wait_idle() => {}
        _ = signals.recv() => {}
    }
    result
}

async fn work(
    settings: &SsmcpSettings,
    dialer: &Dialer<'_>,
    signals: &mut EndSignals,
    started: Instant,
) -> Result<u8, CliError> {
    let nodes = tokio::select! {
        nodes = connect_all(settings, dialer) => nodes?,
        signal = signals.recv() => return Ok(signal.exit_code()),
    };
    logging::stage("total", started.elapsed());

    let sources = settings.sources.iter().map(|operand| location(operand, &nodes)).collect();
    let options = CopyOptions::default().recursive(settings.recursive).preserve(settings.preserve);
    let line = ProgressLine::new(settings.connection.is_quiet());
    let mut ended_by = None;
    let stop = async { ended_by = Some(signals.recv().await) };
    let copied =
        copy_until(sources, location(&settings.target, &nodes), options, |progress| line.show(progress), stop).await;
    match (copied, ended_by) {
        (Ok(summary), _) => {
            line.finish(&summary);
            tokio::select! {
                () = close_all(nodes) => {}
                _ = signals.recv() => {}
            }
            Ok(exit_code(&summary))
        }
        (Err(_), Some(signal)) => {
            line.clear();
            Ok(signal.exit_code())
        }
        (Err(error), None) => {
            line.clear();
            Err(with_the_cause_below(error))
        }
    }
}

/// A node that takes part, reached once however often it is named.
struct Node {
    target: Target,
    connection: Connection,
    endpoint: RemoteEndpoint,
}

async fn connect_all(settings: &SsmcpSettings, dialer: &Dialer<'_>) -> Result<Vec<Node>, CliError> {
    let mut nodes: Vec<Node> = Vec::new();
    for operand in settings.sources.iter().chain([&settings.target]) {
        let Operand::Remote { target, .. } = operand else { continue };
        if nodes.iter().all(|node| node.target != *target) {
            nodes.push(connect(target, dialer, settings.streams).await?);
        }
    }
    Ok(nodes)
}

async fn connect(target: &Target, dialer: &Dialer<'_>, streams: Streams) -> Result<Node, CliError> {
    let connection = dialer.connect(target, false).await?;
    let started = Instant::now();
    let sftp = start_sftp(&connection, &target.node).await?;
    logging::stage("SFTP", started.elapsed());
    let mut endpoint = RemoteEndpoint::new(sftp, target.node.as_str());
    if let Some(redialer) = dialer.again(target, &connection).map(Arc::new) {
        endpoint = endpoint.more_streams(streams, move || another_stream(Arc::clone(&redialer)));
    }
    Ok(Node { target: target.clone(), connection, endpoint })
}

async fn start_sftp(connection: &Connection, node: &TargetId) -> Result<Sftp, CliError> {
    let starting = async {
        let stream = connection.subsystem("sftp").await.map_err(ClientError::from)?;
        Sftp::new(stream).await.map_err(|source| CliError::Sftp { node: node.clone(), source })
    };
    timeout(SFTP_START, starting).await.unwrap_or_else(|_| Err(CliError::SftpTimeout(node.clone())))
}

/// The connection lives as long as its SFTP session.
async fn another_stream(redialer: Arc<Redialer>) -> Result<Sftp, Box<dyn Error + Send + Sync>> {
    let connection = redialer.connect().await?;
    Ok(start_sftp(&connection, redialer.node()).await?)
}

fn location(operand: &Operand, nodes: &[Node]) -> Location {
    match operand {
        Operand::Local(path) => Location::local(path.clone()),
        Operand::Remote { target, path } => {
            let node = nodes.iter().find(|node| node.target == *target);
            let node = node.expect("every target was connected before");
            Location::remote(&node.endpoint, BytePath::new(path.clone()))
        }
    }
}

/// What was copied is copied, however the sessions end.
async fn close_all(nodes: Vec<Node>) {
    for Node { connection, endpoint, .. } in nodes {
        drop(endpoint);
        let _ = connection.close().await;
    }
}

fn exit_code(summary: &Summary) -> u8 {
    match summary.failures.len() {
        0 => return 0,
        1 => {}
        failures => report::note(&format!("{failures} files or directories could not be copied")),
    }
    INCOMPLETE
}

/// Where the stream below is what failed, its error is the one that tells something.
fn with_the_cause_below(error: CopyError) -> CliError {
    match StreamError::find(&error) {
        Some(below) => CliError::Client(below.clone().into()),
        None => CliError::Copy(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "i-0123456789abcdef0";

    fn parse(words: &[&str]) -> Result<SsmcpSettings, CliError> {
        let known_hosts = ["ssmcp", "--known-hosts", "k"];
        settings(known_hosts.iter().chain(words).map(OsString::from), &Environment::default())
    }

    fn remote(path: &str) -> Operand {
        let target = Target { user: None, node: TargetId::new(NODE).unwrap() };
        Operand::Remote { target, path: path.into() }
    }

    #[test]
    fn the_declaration_is_consistent() {
        SsmcpArgs::command().debug_assert();
    }

    #[test]
    fn the_last_operand_is_the_target() {
        let there = format!("{NODE}:dir");
        let settings = parse(&["-r", "a", "-p", "b", &there, "-P", "2222"]).unwrap();
        assert_eq!(settings.sources, [Operand::Local("a".into()), Operand::Local("b".into())]);
        assert_eq!((settings.target, settings.connection.port), (remote("dir"), 2222));
        assert!(settings.recursive && settings.preserve);
    }

    #[test]
    fn the_number_of_streams_is_checked() {
        let there = format!("{NODE}:");
        let streams = |number: &str| parse(&["-j", number, "a", &there]).map(|settings| settings.streams);
        assert_eq!(streams("4").unwrap(), Streams::exactly(4));
        assert_eq!(streams("auto").unwrap(), Streams::default());
        for wrong in ["0", "17", "many"] {
            assert!(streams(wrong).unwrap_err().to_string().contains("from 1 to 16"), "{wrong}");
        }
    }

    #[test]
    fn a_copy_from_node_to_node_is_one() {
        let there = format!("{NODE}:");
        assert_eq!(parse(&[&there, &there]).unwrap().sources, [remote("")]);
    }

    #[test]
    fn a_copy_on_this_machine_is_left_to_cp() {
        for words in [&["a", "b"][..], &["a", "i-0123456789abcdef0:x", "b"]] {
            let error = parse(words).unwrap_err();
            assert!(error.to_string().contains("`cp`"), "{error}");
        }
    }

    #[test]
    fn two_operands_are_needed() {
        assert!(matches!(parse(&["a"]), Err(CliError::Usage(_))));
        assert!(matches!(parse(&[]), Err(CliError::Usage(_))));
    }

    #[test]
    fn operands_behind_two_dashes_may_begin_with_one() {
        let there = format!("{NODE}:");
        assert_eq!(parse(&["--", "-r", &there]).unwrap().sources, [Operand::Local("-r".into())]);
    }

    #[test]
    fn what_failed_decides_the_exit_status() {
        assert_eq!(exit_code(&Summary::default()), 0);
    }
}
