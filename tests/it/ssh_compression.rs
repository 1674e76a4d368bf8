//! Compression against a real OpenSSH server.

use sha2::{Digest as _, Sha256};
use ssmssh::ssh::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::TcpStream;

use crate::copy_sftp::noise;
use crate::support::{
    cli::{Cli, fast_lab},
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

/// Text that shrinks to nearly nothing, a MiB that is like no other.
fn block(number: usize) -> Vec<u8> {
    [format!("{number:>8}").into_bytes(), log_lines(1 << 10), vec![b' '; (1 << 20) - (1 << 10) - 8]].concat()
}

#[tokio::test]
async fn one_compressed_connection_carries_a_lot_both_ways_and_new_keys_in_between() {
    const MIB: usize = 80;
    let sshd = Sshd::with(&["ed25519"], "LogLevel DEBUG1\nRekeyLimit 128K");
    let (session, carried) = counted(&sshd, true).await;
    assert!(session.is_compressed());
    let sent = (0..MIB).fold(Sha256::new(), |hash, number| hash.chain_update(block(number))).finalize();
    let mut child = session.command("cat").spawn().await.expect("spawned");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let write = async {
        for number in 0..MIB {
            stdin.write_all(&block(number)).await.expect("cat reads");
        }
        stdin.shutdown().await.expect("end of file");
    };
    let read = async {
        let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match stdout.read(&mut piece).await.expect("readable") {
                0 => break hash.finalize(),
                read => hash.update(&piece[..read]),
            }
        }
    };
    let (received, ()) = tokio::join!(read, write);
    assert!(received == sent, "what came back is not what was sent");
    assert!(child.wait().await.expect("a status").success());
    session.close().await.expect("an orderly end");
    let (up, down) = carried.await.expect("no panic").expect("both ends closed");
    assert!(up < 4 << 20 && down < 4 << 20, "{up} up, {down} down");
    let log = sshd.log();
    let rekeys = log.matches("SSH2_MSG_NEWKEYS received").count() - 1;
    assert!(rekeys >= 2, "{rekeys} changes of keys");
}

#[tokio::test]
async fn a_server_without_compression_is_used_without() {
    let sshd = Sshd::with(&["ed25519"], "Compression no");
    let session = connect(&sshd, sshd.client().compression(true)).await.expect("let in");
    assert!(!session.is_compressed());
    assert!(within(session.command("true").status()).await.expect("a status").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn ssmssh_compresses_unless_it_is_told_not_to_and_says_so() {
    let lab = fast_lab().await;
    let text = "the same line again and again\n".repeat(10_000);
    for (option, agreed) in [
        (None, "compression: zlib@openssh.com"),
        (Some("Compression=yes"), "compression: zlib@openssh.com"),
        (Some("Compression=no"), "compression: none"),
    ] {
        let options = option.into_iter().flat_map(|option| ["-o", option]);
        let args: Vec<_> = ["-v"].into_iter().chain(options).chain([lab.node(), "cat"]).collect();
        let ran = Cli::in_lab(&lab).args(args).run_with(text.as_bytes()).await;
        assert_eq!((ran.code, ran.out() == text), (Some(0), true), "{}", ran.stderr);
        assert!(ran.stderr.contains(agreed), "{option:?}: {}", ran.stderr);
    }
}
