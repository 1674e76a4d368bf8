//! The SSH leg alone, over a stream that has nothing to do with AWS: here a TCP connection.
//!
//! ```text
//! any_transport KEY USER HOST PORT COMMAND
//! ```

use std::error::Error;
use std::io::Write;

use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key, user, host, port, command] = arguments.as_slice() else {
        return Err("usage: any_transport KEY USER HOST PORT COMMAND".into());
    };
    let port: u16 = port.parse()?;

    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;

    let key = KeyFile::open(key)?.decode(None)?;
    let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, "known_hosts".into(), host, port);
    let session = SessionBuilder::new(user).identity(key).host_keys(hosts).connect(stream).await?;
    let output = session.command(command.as_str()).output().await?;
    session.close().await?;

    std::io::stdout().write_all(&output.stdout)?;
    if output.status.success() { Ok(()) } else { Err(format!("{:?}", output.status).into()) }
}
