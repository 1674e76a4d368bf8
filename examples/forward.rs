//! A port of this machine that leads to a port of a node, for programs that know nothing of Session Manager: each
//! connection to it is an SSM session of its own.
//!
//! ```text
//! forward NODE PORT LOCAL_PORT         then:  scp -P LOCAL_PORT file user@127.0.0.1:
//! ```
//!
//! It prints the local port once it listens, which is of use with 0, and goes on until it is killed.

use std::error::Error;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use ssmssh::Client;
use ssmssh::stream::TargetId;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "who wants to connect has to know the port")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, port, local_port] = arguments.as_slice() else {
        return Err("usage: forward NODE PORT LOCAL_PORT".into());
    };
    let (target, port) = (TargetId::new(node)?, port.parse()?);
    let client = Client::builder().build().await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local_port.parse()?)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(forward(connection, client.clone(), target.clone(), port));
    }
}

/// Ends when both sides have, or one is lost.
#[expect(clippy::print_stderr, reason = "whoever connected only sees the end")]
async fn forward(mut connection: TcpStream, client: Client, target: TargetId, port: NonZeroU16) {
    let carried = async {
        let mut stream = client.open(&target, port).await?;
        copy_bidirectional(&mut connection, &mut stream).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(())
    };
    if let Err(error) = carried.await {
        eprintln!("forward: {error}");
    }
}
