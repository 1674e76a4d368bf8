//! Compression against a real OpenSSH server.

use ssmssh::ssh::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::TcpStream;

use crate::copy_sftp::noise;
use crate::support::{
    logs::log_lines,
    ssh::{connect, within},
    sshd::Sshd,
};

/// Bytes that went to the server and came from it.
type Carried = tokio::task::JoinHandle<std::io::Result<(u64, u64)>>;

async fn counted(sshd: &Sshd, compression: bool) -> (Session, Carried) {
    let (near, mut far) = duplex(256 * 1024);
    let mut server = TcpStream::connect(sshd.address()).await.expect("it listens");
    let carried = tokio::spawn(async move { copy_bidirectional(&mut far, &mut server).await });
    (within(sshd.client().compression(compression).connect(near)).await.expect("let in"), carried)
}

/// What `cat` makes of `data`, and the bytes that it took each way.
async fn through_cat(sshd: &Sshd, data: &[u8], compression: bool) -> (Vec<u8>, (u64, u64)) {
    let (session, carried) = counted(sshd, compression).await;
    assert_eq!(session.is_compressed(), compression);
    let mut child = session.command("cat").spawn().await.expect("spawned");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let write = async {
        stdin.write_all(data).await.expect("cat reads");
        stdin.shutdown().await.expect("end of file");
    };
    let mut echoed = Vec::new();
    let (read, ()) = tokio::join!(stdout.read_to_end(&mut echoed), write);
    read.expect("a clean end");
    assert!(child.wait().await.expect("a status").success());
    session.close().await.expect("an orderly end");
    (echoed, carried.await.expect("no panic").expect("both ends closed"))
}

#[tokio::test]
async fn compressed_text_takes_a_fraction_of_its_size_each_way() {
    let sshd = Sshd::start();
    let text = log_lines(2 << 20);
    let (echoed, (up, down)) = within(Box::pin(through_cat(&sshd, &text, true))).await;
    assert!(echoed == text);
    let fraction = text.len() as u64 / 4;
    assert!(up < fraction && down < fraction, "{up} up, {down} down");
    let (echoed, (up, down)) = within(Box::pin(through_cat(&sshd, &text, false))).await;
    assert!(echoed == text);
    assert!(up > text.len() as u64 && down > text.len() as u64, "{up} up, {down} down");
}

#[tokio::test]
async fn compressed_bytes_stay_the_same_while_keys_are_exchanged_anew() {
    let sshd = Sshd::with(&["ed25519"], "RekeyLimit 256K");
    // The compressor's state is thrown away at each exchange: what is easy and what is hard to compress both meet some.
    let mixed: Vec<u8> = (0..12).flat_map(|part| [noise(200_000, part), log_lines(400_000)]).flatten().collect();
    let (echoed, _) = within(Box::pin(through_cat(&sshd, &mixed, true))).await;
    assert!(echoed == mixed);
}

#[tokio::test]
async fn a_server_without_compression_is_used_without() {
    let sshd = Sshd::with(&["ed25519"], "Compression no");
    let session = connect(&sshd, sshd.client().compression(true)).await.expect("let in");
    assert!(!session.is_compressed());
    assert!(within(session.command("true").status()).await.expect("a status").success());
}
