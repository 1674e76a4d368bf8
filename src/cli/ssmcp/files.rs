//! How a node's files are reached: by its SFTP server, or by its `scp` where it has none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::settings::SsmcpSettings;
use crate::cli::logging;
use crate::cli::report::{self, CliError};
use crate::cli::waiting::Waiting;
use crate::client::{ClientError, Connection};
use crate::copy::scp::ScpEndpoint;
use crate::copy::{BytePath, Location, RemoteEndpoint};
use crate::ssh::sftp::{Sftp, SftpError};
use crate::ssh::{Lost, SshError};
use crate::stream::TargetId;

/// Longest wait for the SFTP server of a node that has let us in.
const SFTP_START: Duration = Duration::from_secs(30);

/// A node's files.
#[derive(Debug)]
pub(super) enum Files {
    Sftp(RemoteEndpoint),
    Scp(ScpEndpoint),
}

impl Files {
    /// SFTP, unless the SCP protocol was asked for or the node has nothing else.
    pub(super) async fn open(
        connection: &Arc<Connection>,
        node: &TargetId,
        settings: &SsmcpSettings,
    ) -> Result<Self, CliError> {
        if settings.force_scp {
            return Ok(Self::Scp(scp(connection, node)));
        }
        let started = Instant::now();
        let _waiting = Waiting::begin("the SFTP server on the node", settings.connection.tells_waits());
        let sftp = match start_sftp(connection, node).await {
            Err(CliError::Sftp { source, .. }) if source.is_missing() => {
                if !settings.connection.is_quiet() {
                    let reason = match source {
                        SftpError::NotStarted => "an SFTP server that ends before it says anything",
                        _ => "no SFTP subsystem",
                    };
                    report::note(&format!("{node} has {reason}: using the SCP protocol"));
                }
                return Ok(Self::Scp(scp(connection, node)));
            }
            started => started?,
        };
        logging::stage("SFTP", started.elapsed());
        Ok(Self::Sftp(RemoteEndpoint::new(sftp, node.as_str())))
    }

    pub(super) fn at(&self, path: BytePath) -> Location {
        match self {
            Self::Sftp(endpoint) => Location::remote(endpoint, path),
            Self::Scp(endpoint) => Location::scp(endpoint, path),
        }
    }
}

pub(super) async fn start_sftp(connection: &Connection, node: &TargetId) -> Result<Sftp, CliError> {
    let starting = async {
        let stream = connection.subsystem("sftp").await.map_err(ClientError::from)?;
        Sftp::new(stream).await.map_err(|source| CliError::Sftp { node: node.clone(), source })
    };
    timeout(SFTP_START, starting).await.unwrap_or_else(|_| Err(CliError::SftpTimeout(node.clone())))
}

/// It does not keep the connection from being closed.
fn scp(connection: &Arc<Connection>, node: &TargetId) -> ScpEndpoint {
    let connection = Arc::downgrade(connection);
    ScpEndpoint::new(node.as_str(), move |command| {
        let connection = connection.upgrade();
        async move {
            let connection = connection.ok_or(SshError::Lost(Lost::Closed))?;
            Ok(connection.command(command).spawn().await?.into())
        }
    })
}
