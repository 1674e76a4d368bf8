//! The SSM leg alone: pushes bytes to a TCP port of the node, or pulls them from it, and prints the rate. It measures a
//! node and the service without SSH in the way.
//!
//! ```text
//! raw_stream NODE PORT push BYTES     something on the node must read:  nc -l 9000 > /dev/null
//! raw_stream NODE PORT pull BYTES     something on the node must write: nc -l 9000 < /dev/zero
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use ssmssh::Client;
use ssmssh::stream::{SsmStream, TargetId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes handed to the stream at a time.
const BLOCK: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, port, direction, bytes] = arguments.as_slice() else {
        return Err("usage: raw_stream NODE PORT push|pull BYTES".into());
    };
    let (target, port, bytes) = (TargetId::new(node)?, port.parse()?, bytes.parse()?);

    let client = Client::builder().build().await?;
    let mut stream = client.open(&target, port).await?;
    let start = Instant::now();
    match direction.as_str() {
        "push" => push(&mut stream, bytes).await?,
        "pull" => pull(&mut stream, bytes).await?,
        other => return Err(format!("`{other}` is neither push nor pull").into()),
    }
    report(direction, bytes, start.elapsed());
    client.wait_idle().await;
    Ok(())
}

/// Counts what the node has acknowledged: shutting down waits for that.
async fn push(stream: &mut SsmStream, bytes: u64) -> std::io::Result<()> {
    let block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        stream.write_all(&block[..length]).await?;
        left -= length as u64;
    }
    stream.shutdown().await
}

async fn pull(stream: &mut SsmStream, bytes: u64) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        match stream.read(&mut block[..length]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    stream.shutdown().await
}

#[expect(clippy::print_stdout, reason = "the rate is what this program is for")]
#[expect(clippy::cast_precision_loss, reason = "a rate of three digits")]
fn report(direction: &str, bytes: u64, elapsed: Duration) {
    let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    println!("{direction}: {bytes} bytes in {:.3} s, {rate:.2} MB/s", elapsed.as_secs_f64());
}
