//! The SSM leg alone: pushes bytes to a TCP port of the node, or pulls them from it, and prints the rate. It measures a
//! node and the service without SSH in the way.
//!
//! ```text
//! raw_stream NODE PORT push BYTES [FRAMES]     something on the node must read:  nc -l 9000 > /dev/null
//! raw_stream NODE PORT pull BYTES [FRAMES]     something on the node must write: nc -l 9000 < /dev/zero
//! ```
//!
//! `FRAMES` is the most that are sent in a second, 0 for any number; without it the library's default counts. The lab's node
//! reads everything on port 9 and writes without end on port 19:
//! `ssm-lab -- sh -c 'raw_stream $SSM_LAB_NODE 9 push 100000000'`.

use std::error::Error;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use ssmssh::Client;
use ssmssh::datachannel::Stats;
use ssmssh::stream::{SsmStream, StreamOptions, TargetId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes handed to the stream at a time.
const BLOCK: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (node, port, direction, bytes, frames) = match arguments.as_slice() {
        [node, port, direction, bytes] => (node, port, direction, bytes, None),
        [node, port, direction, bytes, frames] => (node, port, direction, bytes, Some(frames)),
        _ => return Err("usage: raw_stream NODE PORT push|pull BYTES [FRAMES]".into()),
    };
    let (target, port, bytes) = (TargetId::new(node)?, port.parse()?, bytes.parse()?);
    let mut options = StreamOptions::default();
    if let Some(frames) = frames {
        options.channel.max_frames_per_second = NonZeroU32::new(frames.parse()?);
    }

    let client = Client::builder().stream_options(options).build().await?;
    let mut stream = client.open(&target, port).await?;
    let handle = stream.handle();
    let start = Instant::now();
    match direction.as_str() {
        "push" => push(&mut stream, bytes).await?,
        "pull" => pull(&mut stream, bytes).await?,
        other => return Err(format!("`{other}` is neither push nor pull").into()),
    }
    report(direction, bytes, start.elapsed(), handle.stats());
    stream.shutdown().await?;
    client.wait_ended().await;
    Ok(())
}

/// Returns when the node has acknowledged every byte.
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
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the rate is what this program is for")]
#[expect(clippy::cast_precision_loss, reason = "a rate of three digits")]
fn report(direction: &str, bytes: u64, elapsed: Duration, seen: Stats) {
    let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    println!("{direction}: {bytes} bytes in {:.3} s, {rate:.2} MB/s", elapsed.as_secs_f64());
    let round_trip = seen.round_trip.unwrap_or_default().as_secs_f64() * 1e3;
    println!(
        "sent {} messages, {} again, {} acknowledgements; received {}; round trip {round_trip:.1} ms, window {} KiB",
        seen.messages_sent,
        seen.messages_resent,
        seen.acks_sent,
        seen.messages_received,
        seen.window >> 10
    );
}
