//! Runs a command on a node and ends with its exit status.
//!
//! ```text
//! exec KEY USER NODE COMMAND
//! ```

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use ssmssh::stream::TargetId;
use ssmssh::{Client, SSH_PORT};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, user, node, command] = arguments.as_slice() else {
        return Err("usage: exec KEY USER NODE COMMAND".into());
    };

    // The key is judged before anything goes over the network; a plain key needs no passphrase.
    let key = KeyFile::open(key)?.decode(None)?;
    let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), node, 22);
    let login = SessionBuilder::new(user).identity(key).host_keys(hosts);

    // Credentials, region and endpoint come from where every AWS SDK looks for them.
    let client = Client::builder().build().await?;
    let connection = client.connect(&TargetId::new(node)?, SSH_PORT, login).await?;
    let output = connection.command(command.as_str()).output().await?;
    // Closing waits for the end of the SSM session, so nothing is left open in the account.
    connection.close().await?;

    std::io::stdout().write_all(&output.stdout)?;
    std::io::stderr().write_all(&output.stderr)?;
    let code = output.status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
