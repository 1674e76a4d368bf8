//! The small services of old (RFC 862, 863, 864) behind the node, for measuring a data channel without SSH in the way.

use std::{io, net::Ipv4Addr, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::tasks::Tasks;

/// Bytes read or written at a time.
const BLOCK: usize = 64 << 10;

/// Where the node's ports of these services are in truth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Services {
    echo: SocketAddr,
    discard: SocketAddr,
    chargen: SocketAddr,
}

impl Services {
    /// Starts all three on loopback ports of their own.
    pub(crate) async fn start(tasks: &Tasks) -> io::Result<Self> {
        Ok(Self {
            echo: listen(tasks, Service::Echo).await?,
            discard: listen(tasks, Service::Discard).await?,
            chargen: listen(tasks, Service::Chargen).await?,
        })
    }

    /// The service behind a port of the node, if it is one of these.
    pub(crate) fn address(&self, port: u16) -> Option<SocketAddr> {
        match port {
            7 => Some(self.echo),
            9 => Some(self.discard),
            19 => Some(self.chargen),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Service {
    /// Sends back what comes.
    Echo,
    /// Reads and says nothing.
    Discard,
    /// Sends for as long as anybody reads.
    Chargen,
}

impl Service {
    async fn serve(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut block = vec![b'.'; BLOCK];
        match self {
            Self::Echo => {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
            }
            Self::Discard => while stream.read(&mut block).await? > 0 {},
            Self::Chargen => loop {
                stream.write_all(&block).await?;
            },
        }
        Ok(())
    }
}

async fn listen(tasks: &Tasks, service: Service) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => connections.spawn(async move {
                    // Whoever has had enough closes the connection.
                    let _ = service.serve(stream).await;
                }),
                // Out of descriptors, most likely: those that close make room.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    });
    Ok(address)
}
