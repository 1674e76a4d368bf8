//! The nodes that take part in a copy: reached, asked for SFTP, and left again.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::files::{Files, start_sftp};
use super::settings::SsmcpSettings;
use crate::cli::connect::{Dialer, Redialer, close};
use crate::cli::logging::labelled;
use crate::cli::report::CliError;
use crate::cli::stdio;
use crate::cli::target::{Operand, Target};
use crate::client::Connection;
use crate::copy::{BytePath, Location, RemoteEndpoint, StreamKind, Streams};
use crate::ssh::sftp::Sftp;
use crate::ssh::{Lost, SshError};

/// A node that takes part, reached once however often it is named.
pub(super) struct Node {
    target: Target,
    connection: Arc<Connection>,
    files: Files,
}

pub(super) async fn connect_all(settings: &SsmcpSettings, dialer: &Dialer<'_>) -> Result<Vec<Node>, CliError> {
    let mut nodes: Vec<Node> = Vec::new();
    for operand in settings.sources.iter().chain([&settings.target]) {
        let Operand::Remote { target, .. } = operand else { continue };
        if nodes.iter().all(|node| node.target != *target) {
            let names = Names::new(settings, target);
            nodes.push(labelled(names.next(), connect(target, dialer, settings, names)).await?);
        }
    }
    dialer.forget_keys().await;
    Ok(nodes)
}

/// How the streams to a node are called, one after the other, where there may be others beside them.
#[derive(Debug)]
struct Names {
    node: Option<String>,
    is_numbered: bool,
    count: AtomicUsize,
}

impl Names {
    fn new(settings: &SsmcpSettings, target: &Target) -> Self {
        let is_other = |operand: &Operand| matches!(operand, Operand::Remote { target: other, .. } if other != target);
        let has_others = settings.sources.iter().chain([&settings.target]).any(is_other);
        let is_numbered = settings.streams != Streams::exactly(1) && !settings.force_scp;
        Self { node: has_others.then(|| target.node.to_string()), is_numbered, count: AtomicUsize::new(0) }
    }

    fn next(&self) -> Option<String> {
        let number = 1 + self.count.fetch_add(1, Ordering::Relaxed);
        match (&self.node, self.is_numbered) {
            (Some(node), true) => Some(format!("{node} stream {number}")),
            (None, true) => Some(format!("stream {number}")),
            (node, false) => node.clone(),
        }
    }
}

async fn connect(
    target: &Target,
    dialer: &Dialer<'_>,
    settings: &SsmcpSettings,
    names: Names,
) -> Result<Node, CliError> {
    let connection = Arc::new(dialer.connect(target, false).await?);
    let mut files = Files::open(&connection, &target.node, settings).await?;
    if let Files::Sftp(endpoint) = files {
        let mut endpoint = endpoint.compression(settings.compression).account(&dialer.account(target));
        let redialer = dialer.again(target, &connection).map(Arc::new);
        endpoint = hashing(endpoint, &connection, redialer.clone());
        if let Some(redialer) = redialer {
            endpoint = endpoint.more_streams(settings.streams, move |kind| {
                labelled(names.next(), another_stream(Arc::clone(&redialer), kind))
            });
        }
        files = Files::Sftp(endpoint);
    }
    Ok(Node { target: target.clone(), connection, files })
}

/// Lets files be hashed over there, by the connection that is open already, or by one of its own when that is gone.
fn hashing(endpoint: RemoteEndpoint, connection: &Arc<Connection>, redialer: Option<Arc<Redialer>>) -> RemoteEndpoint {
    let connection = Arc::downgrade(connection);
    endpoint.commands(move |command| {
        let (connection, redialer) = (connection.upgrade(), redialer.clone());
        async move {
            match (connection.filter(|connection| !connection.is_closed()), redialer) {
                (Some(connection), _) => connection.command(command).output().await,
                (None, Some(redialer)) => {
                    let connection = redialer.connect(false).await.map_err(|_| SshError::Lost(Lost::Eof))?;
                    let output = connection.command(command).output().await;
                    close(connection).await;
                    output
                }
                (None, None) => Err(SshError::Lost(Lost::Eof)),
            }
        }
    })
}

/// The connection lives as long as its SFTP session.
async fn another_stream(redialer: Arc<Redialer>, kind: StreamKind) -> Result<Sftp, Box<dyn Error + Send + Sync>> {
    let connection = redialer.connect(kind == StreamKind::Compressed).await?;
    Ok(start_sftp(&connection, redialer.node()).await?)
}

/// Where the files come from.
pub(super) fn source(operand: &Operand, nodes: &[Node]) -> Location {
    match operand {
        Operand::Local(path) => Location::local(path.clone()),
        Operand::Pipe if stdio::is_input_closed() => Location::reader("standard input", stdio::Closed),
        Operand::Pipe => match stdio::size_of_stdin() {
            Some(size) => Location::reader_of_size("standard input", size, stdio::Reader::stdin()),
            None => Location::reader("standard input", stdio::Reader::stdin()),
        },
        Operand::Remote { target, path } => {
            let node = nodes.iter().find(|node| node.target == *target);
            let node = node.expect("every target was connected before");
            // No shell has been at a path of the node yet; as a target it is taken as it is.
            node.files.at(BytePath::new(path.clone())).matching()
        }
    }
}

/// Where the files go.
pub(super) fn target(operand: &Operand, nodes: &[Node]) -> Location {
    match operand {
        Operand::Pipe => Location::writer("standard output", stdio::Writer::stdout()),
        operand => source(operand, nodes),
    }
}

/// What was copied is copied, however the sessions end.
pub(super) async fn close_all(nodes: Vec<Node>) {
    for Node { connection, files, .. } in nodes {
        drop(files);
        if let Some(connection) = Arc::into_inner(connection) {
            let _ = connection.close().await;
        }
    }
}
