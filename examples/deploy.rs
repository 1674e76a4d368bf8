//! Deploys a build artefact to several nodes at once: up, an atomic switch of a symbolic link, a restart. A node on which
//! the restart fails goes back to what it ran before at once, and all the others then follow.
//!
//! ```text
//! deploy KEY USER ARTEFACT FOLDER RESTART NODE...
//! deploy key.pem admin build/api-1.4.2 /srv/api 'systemctl restart api' i-0123456789abcdef0 i-0fedcba9876543210
//! ```
//!
//! On each node, `FOLDER/releases` keeps what was deployed and `FOLDER/current` is the link to what runs. The artefact, a
//! file or a directory, is a release by its name. RESTART is for the node's shell; it ends with 0 when the service is up.
//!
//! Exit status: 0 when every node runs the release, 1 when none does, 2 when a node has to be looked after by hand.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use futures_util::future::{join_all, try_join_all};
use ssmssh::copy::{BytePath, CopyOptions, Location, RemoteEndpoint, copy};
use ssmssh::ssh::sftp::{Attributes, Extension, Sftp, SftpError};
use ssmssh::ssh::{HostKeyCheck, KeyFile, PrivateKey, SessionBuilder, StrictHostKeyChecking};
use ssmssh::stream::TargetId;
use ssmssh::{Client, Connection, SSH_PORT};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, user, artefact, folder, restart, nodes @ ..] = arguments.as_slice() else {
        return Err("usage: deploy KEY USER ARTEFACT FOLDER RESTART NODE...".into());
    };
    let name = Path::new(artefact).file_name().and_then(|name| name.to_str()).ok_or("the artefact needs a name")?;
    let release = format!("releases/{name}");
    let key = KeyFile::open(key)?.decode(None)?;
    let client = Client::builder().reason(format!("deploy {name}")).build().await?;

    // Nothing changes anywhere before the artefact is everywhere.
    let prepared = try_join_all(nodes.iter().map(|id| async {
        let node = Node::connect(&client, id, user, &key, folder).await.map_err(|error| at(id, &*error))?;
        node.upload(artefact, &release).await.map_err(|error| at(id, &*error))?;
        Ok::<_, Box<dyn Error>>(node)
    }));
    let outcome = match prepared.await {
        Ok(nodes) => activate(nodes, &release, restart).await,
        Err(error) => {
            tell(&format!("{error}; no node was touched"));
            Outcome::RolledBack
        }
    };
    // The sessions of nodes that were given up end in the background.
    client.wait_ended().await;
    Ok(outcome.into())
}

/// How the whole deployment ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Deployed,
    RolledBack,
    NeedsHelp,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// Switches all nodes at once; when one of them does not come up, brings the others back too.
async fn activate(nodes: Vec<Node>, release: &str, restart: &str) -> Outcome {
    let mut outcomes = join_all(nodes.iter().map(|node| node.deploy(release, restart))).await;
    if outcomes.iter().any(|outcome| *outcome != Outcome::Deployed) {
        let back = nodes.iter().zip(&outcomes).map(|(node, outcome)| async move {
            // The one that failed has been brought back already, or cannot be.
            if *outcome == Outcome::Deployed { node.roll_back(restart).await } else { *outcome }
        });
        outcomes = join_all(back).await;
    }
    join_all(nodes.into_iter().map(Node::close)).await;
    outcomes.into_iter().max().unwrap_or(Outcome::Deployed)
}

/// A node that we are logged in to.
struct Node {
    id: String,
    connection: Connection,
    sftp: Sftp,
    folder: BytePath,
    /// Where `current` led before; nowhere on a first deployment.
    before: Option<Vec<u8>>,
}

impl Node {
    async fn connect(client: &Client, id: &str, user: &str, key: &PrivateKey, folder: &str) -> Result<Self> {
        let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), id, 22);
        let login = SessionBuilder::new(user).identity(key.clone()).host_keys(hosts);
        let connection = client.connect(&TargetId::new(id)?, SSH_PORT, login).await?;
        let sftp = Sftp::new(connection.subsystem("sftp").await?).await?;
        if !sftp.offers(Extension::PosixRename) {
            return Err("the SFTP server has no rename that replaces: a switch would not be atomic".into());
        }
        let folder = BytePath::from(folder);
        let before = match sftp.readlink(folder.join(b"current").as_bytes()).await {
            Ok(target) => Some(target.to_vec()),
            Err(SftpError::NoSuchFile) => None,
            Err(error) => return Err(format!("{folder}/current: {error}").into()),
        };
        Ok(Self { id: id.to_owned(), connection, sftp, folder, before })
    }

    async fn upload(&self, artefact: &str, release: &str) -> Result<()> {
        if self.before.as_deref() == Some(release.as_bytes()) {
            return Err(format!("{release} is what it runs already").into());
        }
        for folder in [&self.folder, &self.folder.join(b"releases")] {
            // That it is there already has no code of its own; what else is wrong shows when something is put in.
            let _ = self.sftp.mkdir(folder.as_bytes(), &Attributes::with_permissions(0o755)).await;
        }
        let remote = RemoteEndpoint::new(self.sftp.clone(), &self.id);
        let to = Location::remote(&remote, self.folder.join(b"releases/"));
        let options = CopyOptions::default().recursive(true);
        let summary = copy(vec![Location::local(artefact)], to, options, |_| {}).await?;
        match summary.failures.into_iter().next() {
            Some(failure) => Err(failure.error.into()),
            None => Ok(()),
        }
    }

    /// Switches and restarts. Where that fails it goes back at once, without waiting for the other nodes.
    async fn deploy(&self, release: &str, restart: &str) -> Outcome {
        match self.run(release.as_bytes(), restart).await {
            Ok(()) => {
                self.tell(&format!("runs {release}"));
                Outcome::Deployed
            }
            Err(error) => {
                self.tell(&error.to_string());
                self.roll_back(restart).await
            }
        }
    }

    async fn roll_back(&self, restart: &str) -> Outcome {
        let back = match &self.before {
            Some(before) => self.run(before, restart).await,
            None => self.sftp.remove(self.folder.join(b"current").as_bytes()).await.map_err(Into::into),
        };
        let before = self.before.as_deref().map_or("nothing".into(), String::from_utf8_lossy);
        match back {
            Ok(()) => {
                self.tell(&format!("back to {before}"));
                Outcome::RolledBack
            }
            Err(error) => {
                self.tell(&format!("could not go back to {before}: {error}"));
                Outcome::NeedsHelp
            }
        }
    }

    /// Lets `current` lead to `release`, at one moment, and restarts the service.
    async fn run(&self, release: &[u8], restart: &str) -> Result<()> {
        let (current, new) = (self.folder.join(b"current"), self.folder.join(b".current.new"));
        // One may be left of a deployment that was interrupted.
        let _ = self.sftp.remove(new.as_bytes()).await;
        self.sftp.symlink(release, new.as_bytes()).await?;
        self.sftp.posix_rename(new.as_bytes(), current.as_bytes()).await?;
        let output = self.connection.command(restart).output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("the restart failed with {}: {}", output.status, said.trim().escape_debug()).into())
    }

    async fn close(self) {
        drop(self.sftp);
        if let Err(error) = self.connection.close().await {
            tell(&at(&self.id, &error).to_string());
        }
    }

    fn tell(&self, what: &str) {
        tell(&format!("{}: {what}", self.id));
    }
}

fn at(node: &str, error: &dyn Error) -> Box<dyn Error> {
    format!("{node}: {error}").into()
}

#[expect(clippy::print_stdout, reason = "a program, not the library")]
fn tell(line: &str) {
    println!("{line}");
}
