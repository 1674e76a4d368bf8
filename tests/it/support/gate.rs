//! A way to the lab's API that can be barred.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards connections while it is not shut; shutting it cuts them. Dropping it ends it.
pub(crate) struct Gate {
    address: SocketAddr,
    is_shut: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// In front of the server at `http://ADDRESS`.
    pub(crate) async fn to(url: &str) -> Self {
        let server: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let is_shut = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(forward(listener, server, Arc::clone(&is_shut)));
        Self { address, is_shut, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn shut(&self, shut: bool) {
        self.is_shut.send_replace(shut);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, server: SocketAddr, is_shut: Arc<watch::Sender<bool>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut shut = is_shut.subscribe();
        tokio::spawn(async move {
            let relay = async {
                let mut far = TcpStream::connect(server).await?;
                copy_bidirectional(&mut near, &mut far).await
            };
            tokio::select! {
                biased;
                _ = shut.wait_for(|shut| *shut) => {}
                _ = relay => {}
            }
        });
    }
}
