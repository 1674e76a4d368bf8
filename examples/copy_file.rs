//! Copies a file or a tree to a node, and says what could not be copied.
//!
//! ```text
//! copy_file KEY USER NODE SOURCE DESTINATION
//! ```

use std::error::Error;
use std::process::ExitCode;

use ssmssh::copy::{CopyOptions, Location, RemoteEndpoint, copy};
use ssmssh::ssh::sftp::Sftp;
use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use ssmssh::stream::TargetId;
use ssmssh::{Client, SSH_PORT};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, user, node, source, destination] = arguments.as_slice() else {
        return Err("usage: copy_file KEY USER NODE SOURCE DESTINATION".into());
    };

    let key = KeyFile::open(key)?.decode(None)?;
    let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), node, 22);
    let login = SessionBuilder::new(user).identity(key).host_keys(hosts);
    let client = Client::builder().build().await?;
    let connection = client.connect(&TargetId::new(node)?, SSH_PORT, login).await?;

    // One SFTP session serves any number of copies.
    let remote = RemoteEndpoint::new(Sftp::new(connection.subsystem("sftp").await?).await?, node);
    let from = vec![Location::local(source.as_str())];
    let to = Location::remote(&remote, destination.as_str());
    let summary = copy(from, to, CopyOptions::default().recursive(true), |_| {}).await?;

    drop(remote);
    connection.close().await?;
    Ok(report(&summary))
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program, not the library")]
fn report(summary: &ssmssh::copy::Summary) -> ExitCode {
    println!("{} files, {} bytes", summary.files, summary.bytes);
    for failure in &summary.failures {
        eprintln!("{failure}");
    }
    if summary.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
