use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::packet::{Reply, Request, Verb, decode_reply, decode_version, init};
use super::scripted::{Received, packet, serve, version_packet};
use super::wire::{MAX_PACKET, Reader, take_packet};
use super::*;

const OPENSSH: &[&str] =
    &["posix-rename@openssh.com", "fsync@openssh.com", "limits@openssh.com", "expand-path@openssh.com"];

fn bytes_of(request: Request, id: u32) -> Vec<u8> {
    let frame = request.into_frame(id);
    [&frame.head[..], &frame.body[..]].concat()
}

#[test]
fn requests_have_the_bytes_of_the_draft() {
    assert_eq!(&init().head[..], [0, 0, 0, 5, 1, 0, 0, 0, 3]);
    assert_eq!(
        bytes_of(Request::read(b"h1", 0x0102, 0x8000), 7),
        b"\0\0\0\x17\x05\0\0\0\x07\0\0\0\x02h1\0\0\0\0\0\0\x01\x02\0\0\x80\0"
    );
    assert_eq!(
        bytes_of(Request::write(b"h", 1, Bytes::from_static(b"abc")), 8),
        b"\0\0\0\x19\x06\0\0\0\x08\0\0\0\x01h\0\0\0\0\0\0\0\x01\0\0\0\x03abc"
    );
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    assert_eq!(
        bytes_of(Request::open(b"/x\xff", flags, &Attributes::with_permissions(0o600)), 9),
        b"\0\0\0\x18\x03\0\0\0\x09\0\0\0\x03/x\xff\0\0\0\x2a\0\0\0\x04\0\0\x01\x80"
    );
    assert_eq!(
        bytes_of(Request::extended("posix-rename@openssh.com").string(b"a").string(b"b"), 1),
        b"\0\0\0\x2b\xc8\0\0\0\x01\0\0\0\x18posix-rename@openssh.com\0\0\0\x01a\0\0\0\x01b"
    );
}

#[test]
fn a_symlink_names_its_target_first_as_openssh_has_it() {
    assert_eq!(
        bytes_of(Request::symlink(b"target", b"link"), 2),
        b"\0\0\0\x17\x14\0\0\0\x02\0\0\0\x06target\0\0\0\x04link"
    );
}

#[test]
fn a_request_longer_than_a_packet_is_refused() {
    assert!(Request::new(Verb::Stat).string(&vec![b'a'; MAX_PACKET]).check_length().is_err());
    assert!(Request::write(b"h", 0, Bytes::from(vec![0; 255 * 1024])).check_length().is_ok());
}

#[test]
fn packets_are_bounded_and_text_is_recognised() {
    let take = |bytes: &[u8]| take_packet(&mut BytesMut::from(bytes));
    assert_eq!(take(b"\0\0\0"), Ok(None));
    assert_eq!(take(b"\0\0\0\x02a"), Ok(None));
    assert_eq!(take(b"\0\0\0\x02abc"), Ok(Some(Bytes::from_static(b"ab"))));
    assert_eq!(take(b"\0\0\0\0"), Err(ProtocolError::Truncated));
    assert_eq!(take(b"\x7f\0\0\0"), Err(ProtocolError::TooLong(0x7f00_0000)));
    assert_eq!(take(b"Welcome"), Err(ProtocolError::TextOnStream("Welc".into())));
}

#[test]
fn extended_attributes_are_skipped() {
    let mut body = BytesMut::new();
    body.put_slice(b"\x69\0\0\0\x01\x80\0\0\x05");
    body.put_u64(77);
    body.put_u32(0o100_644);
    body.put_slice(b"\0\0\0\x01\0\0\0\x01k\0\0\0\x02vv");
    let (_, reply) = decode_reply(body.freeze()).unwrap();
    let Reply::Attributes(attributes) = reply else { panic!("{reply:?}") };
    assert_eq!((attributes.size, attributes.kind()), (Some(77), Some(FileKind::File)));
}

#[test]
fn a_false_count_of_names_ends_in_an_error() {
    let body = Bytes::from_static(b"\x68\0\0\0\x01\xff\xff\xff\xff\0\0\0\x01a");
    assert_eq!(decode_reply(body), Err(ProtocolError::Truncated));
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let fields = (any::<Option<u64>>(), any::<Option<(u32, u32)>>(), any::<Option<u32>>(), any::<Option<(u32, u32)>>());
    fields.prop_map(|(size, owner, permissions, times)| Attributes { size, owner, permissions, times })
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 95u8..210) {
        let mut known = bytes.clone();
        if let Some(first) = known.first_mut() {
            *first = kind;
        }
        for body in [bytes, known] {
            let _ = decode_reply(Bytes::from(body.clone()));
            let _ = decode_version(Bytes::from(body.clone()));
            let _ = take_packet(&mut BytesMut::from(&body[..]));
        }
    }

    #[test]
    fn attributes_survive_the_wire(attributes in any_attributes()) {
        let mut bytes = BytesMut::new();
        attributes.encode(&mut bytes);
        let mut reader = Reader::new(bytes.freeze());
        prop_assert_eq!(Attributes::decode(&mut reader), Ok(attributes));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn packets_come_out_whole_however_the_stream_is_cut(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..10),
        cut in 1usize..20,
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| packet(body)).collect();
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for piece in stream.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(packet) = take_packet(&mut buffer).unwrap() {
                taken.push(packet.to_vec());
            }
        }
        prop_assert_eq!(taken, bodies);
    }
}

/// Answers what a session asks by itself, and leaves the rest to `answer`.
async fn session(mut answer: impl FnMut(Received) -> Vec<u8> + Send + 'static) -> Sftp {
    let stream = serve(OPENSSH, move |mut request| {
        if request.verb == 200 && request.string() == "limits@openssh.com" {
            return request.reply(201, |out| [1 << 18, 261_120, 261_120, 0].into_iter().for_each(|n| out.put_u64(n)));
        }
        answer(request)
    });
    Sftp::new(stream).await.unwrap()
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let mut held = Vec::new();
    let sftp = session(move |mut request| {
        let path = request.string();
        let attributes = Attributes { size: Some(path[0].into()), ..Attributes::default() };
        held.push(request.attributes(&attributes));
        if held.len() == 10 { held.drain(..).rev().flatten().collect() } else { Vec::new() }
    })
    .await;
    let asked: Vec<_> = (0..10u8).map(|n| [n]).collect();
    let answers = join_all(asked.iter().map(|path| sftp.stat(path))).await;
    let sizes: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().size.unwrap()).collect();
    assert_eq!(sizes, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn statuses_are_told_apart() {
    let sftp = session(|mut request| {
        let code = request.string()[0];
        request.status(code.into())
    })
    .await;
    assert!(sftp.remove(&[0]).await.is_ok());
    assert!(matches!(sftp.remove(&[2]).await, Err(SftpError::NoSuchFile)));
    assert!(matches!(sftp.remove(&[3]).await, Err(SftpError::PermissionDenied)));
    assert!(matches!(sftp.remove(&[4]).await, Err(SftpError::Failure(text)) if text == "told so"));
    assert!(matches!(sftp.remove(&[8]).await, Err(SftpError::Unsupported("REMOVE"))));
    assert!(matches!(sftp.remove(&[77]).await, Err(SftpError::Status { code: 77, .. })));
    assert!(matches!(sftp.stat(&[2]).await, Err(SftpError::NoSuchFile)));
}

#[tokio::test]
async fn limits_are_asked_once_and_bounded() {
    let sftp = session(|request| request.status(8)).await;
    assert_eq!(sftp.limits().await, Limits { read: 261_120, write: 261_120, handles: None });
    let plain = Sftp::new(serve(&[], |_| panic!("nothing may be asked"))).await.unwrap();
    assert_eq!(plain.limits().await, Limits::default());
    assert!(matches!(plain.posix_rename(b"a", b"b").await, Err(SftpError::Unsupported("posix-rename@openssh.com"))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_a_day_is_waited_for() {
    let mut server = serve(&[], |request| if request.verb == 3 { request.handle(b"h") } else { request.data(b"late") });
    let (client, mut slow) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        let (mut asked, mut answered) = ([0; 1024], [0; 1024]);
        loop {
            tokio::select! {
                Ok(read @ 1..) = slow.read(&mut asked) => server.write_all(&asked[..read]).await.unwrap(),
                Ok(read @ 1..) = server.read(&mut answered) => {
                    tokio::time::sleep(Duration::from_hours(24)).await;
                    slow.write_all(&answered[..read]).await.unwrap();
                }
                else => return,
            }
        }
    });
    let sftp = Sftp::new(client).await.unwrap();
    let handle = sftp.open(b"x", OpenFlags::READ, &Attributes::default()).await.unwrap();
    assert_eq!(&sftp.read(&handle, 0, 4).await.unwrap()[..], b"late");
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_ends_the_session() {
    let sftp = session(|mut request| {
        request.id += 1;
        request.status(0)
    })
    .await;
    assert!(matches!(sftp.remove(b"x").await, Err(SftpError::Protocol(ProtocolError::UnknownId(_)))));
    assert!(matches!(sftp.remove(b"x").await, Err(SftpError::Protocol(_))));
}

#[tokio::test]
async fn a_second_reply_to_one_request_ends_the_session() {
    let sftp = session(|request| [request.status(0), request.status(0)].concat()).await;
    let _ = sftp.remove(b"x").await;
    assert!(matches!(sftp.remove(b"x").await, Err(SftpError::Protocol(ProtocolError::UnknownId(_)))));
}

#[tokio::test]
async fn replies_that_do_not_fit_end_the_session() {
    let sftp = session(|request| if request.verb == 3 { request.handle(b"h") } else { request.data(&[0; 11]) }).await;
    let handle = sftp.open(b"x", OpenFlags::READ, &Attributes::default()).await.unwrap();
    let too_much = sftp.read(&handle, 0, 10).await;
    assert!(matches!(too_much, Err(SftpError::Protocol(ProtocolError::TooMuchData { asked: 10, got: 11 }))));
    assert!(sftp.read(&handle, 0, 20).await.unwrap_err().is_fatal());

    let sftp = session(|request| request.data(b"")).await;
    assert!(matches!(sftp.stat(b"x").await, Err(SftpError::Protocol(ProtocolError::WrongReply("STAT")))));
}

#[tokio::test]
async fn a_listing_that_never_ends_by_being_empty_is_refused() {
    let sftp = session(|request| if request.verb == 11 { request.handle(b"h") } else { request.names(&[]) }).await;
    let handle = sftp.open_dir(b"x").await.unwrap();
    assert!(matches!(sftp.read_dir(&handle).await, Err(SftpError::Protocol(ProtocolError::EmptyListing))));
}

#[tokio::test]
async fn everybody_learns_when_the_stream_ends() {
    let (client, mut server) = tokio::io::duplex(1024);
    let peer = tokio::spawn(async move {
        let mut first = [0; 9];
        server.read_exact(&mut first).await.unwrap();
        server.write_all(&version_packet(3, &[])).await.unwrap();
        server.read_exact(&mut [0; 20]).await.unwrap();
    });
    let sftp = Sftp::new(client).await.unwrap();
    let (one, two) = tokio::join!(sftp.stat(b"abcdefgh"), sftp.remove(b"abcdefgh"));
    assert!(matches!((one, two), (Err(SftpError::Ended | SftpError::Connection(_)), Err(_))));
    peer.await.unwrap();
}

/// A stream whose reader learns why it ended later than its writer learns that it did.
struct Lost(Pin<Box<Sleep>>);

impl AsyncRead for Lost {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx).map(|()| Err(io::Error::other("the session has timed out")))
    }
}

impl AsyncWrite for Lost {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_reason_that_the_reader_learns_is_told_to_the_writers() {
    let mux = super::mux::Mux::spawn(Lost(Box::pin(tokio::time::sleep(Duration::from_millis(20)))));
    let error = mux.call(Request::new(Verb::Stat).string(b"x")).await.unwrap_err();
    assert!(matches!(&error, SftpError::Connection(reason) if reason.to_string().contains("timed out")), "{error:?}");
}

#[test]
fn the_streams_own_error_can_be_found_behind_the_sessions() {
    let error = SftpError::from(std::io::Error::other(ProtocolError::Truncated));
    let shared = std::error::Error::source(&error).unwrap();
    let inner = shared.source().unwrap().downcast_ref::<std::io::Error>().unwrap().get_ref().unwrap();
    assert_eq!(inner.downcast_ref(), Some(&ProtocolError::Truncated));
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let (client, server) = tokio::io::duplex(1024);
    drop(server);
    assert!(Sftp::new(client).await.is_err());
    let greet = |greeting: Vec<u8>| async move {
        let (client, mut server) = tokio::io::duplex(1024);
        server.write_all(&greeting).await.unwrap();
        let hang_up = async move { server.read_exact(&mut [0; 9]).await };
        tokio::join!(Sftp::new(client), hang_up).0
    };
    assert!(matches!(greet(Vec::new()).await, Err(SftpError::NotStarted)));
    for greeting in [&b"Last login: today\nYou have mail.\n"[..], b"\r\n\nLast login: today\r\n", b"Last login: today"]
    {
        let text = greet(greeting.to_vec()).await.unwrap_err();
        let SftpError::Protocol(ProtocolError::TextOnStream(line)) = &text else { panic!("{text}") };
        assert_eq!(line, "Last login: today");
    }
    let text = greet(b"\xfcber und \xfcber ".repeat(20)).await.unwrap_err();
    let SftpError::Protocol(ProtocolError::TextOnStream(line)) = &text else { panic!("{text}") };
    assert!(line.contains("ber und") && line.chars().count() <= 301, "{line}");
    let old = greet(version_packet(2, &[])).await.unwrap_err();
    assert!(matches!(old, SftpError::Protocol(ProtocolError::Version(2))), "{old}");
}

#[tokio::test]
async fn a_handle_that_nobody_holds_is_closed() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&closed);
    let sftp = session(move |mut request| match request.verb {
        3 => {
            let path = request.string();
            request.handle(&path)
        }
        4 => {
            seen.lock().unwrap().push(request.string());
            request.status(0)
        }
        _ => request.status(0),
    })
    .await;
    let none = Attributes::default();
    let open = |path: &'static [u8]| sftp.open(path, OpenFlags::READ, &none);
    {
        // Given up after the request was queued and before the reply came.
        let mut given_up = Box::pin(open(b"given up"));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
    }
    drop(open(b"dropped").await.unwrap());
    sftp.close(open(b"closed").await.unwrap()).await.unwrap();
    while closed.lock().unwrap().len() < 3 {
        sftp.remove(b"round trip").await.unwrap();
    }
    let mut closed = closed.lock().unwrap().clone();
    closed.sort();
    assert_eq!(closed, ["closed", "dropped", "given up"]);
}

#[tokio::test]
async fn a_server_that_stops_reading_holds_back_the_writers() {
    let (client, mut server) = tokio::io::duplex(1024);
    server.write_all(&version_packet(3, &[])).await.unwrap();
    let sftp = Sftp::new(client).await.unwrap();
    let mut writes: Vec<_> = (0..100).map(|_| Box::pin(sftp.remove(&[b'a'; 100]))).collect();
    for write in &mut writes {
        assert!(futures_util::poll!(write.as_mut()).is_pending());
    }
    // Only the queue's worth took an id; the others wait for room, and giving them up leaves no trace.
    drop(writes);
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    drop(sftp);
    let sent = reader.await.unwrap();
    assert!(sent <= 9 + 16 * 113, "{sent} bytes");
}

#[tokio::test]
async fn a_handle_of_one_session_is_refused_by_every_request_of_another_and_closed_in_its_own() {
    let seen = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
    let mut sessions = Vec::new();
    for log in &seen {
        let log = Arc::clone(log);
        let stream = serve(&["fsync@openssh.com"], move |request| {
            log.lock().unwrap().push(request.verb);
            if request.verb == 3 { request.handle(b"0") } else { request.status(0) }
        });
        sessions.push(Sftp::new(stream).await.unwrap());
    }
    let [own, other] = &sessions[..] else { unreachable!("two") };
    let handle = own.open(b"file", OpenFlags::READ, &Attributes::default()).await.unwrap();
    let nothing = Attributes::default();
    let refused = [
        other.read(&handle, 0, 1).await.err(),
        other.write(&handle, 0, Bytes::from_static(b"x")).await.err(),
        other.fstat(&handle).await.err(),
        other.fsetstat(&handle, &nothing).await.err(),
        other.read_dir(&handle).await.err(),
        other.fsync(&handle).await.err(),
        other.close(handle).await.err(),
    ];
    assert!(refused.iter().all(|error| matches!(error, Some(SftpError::ForeignHandle))), "{refused:?}");
    let asked = |log: &Arc<Mutex<Vec<u8>>>, verbs: &[u8]| {
        log.lock().unwrap().iter().filter(|verb| verbs.contains(verb)).count()
    };
    assert_eq!(asked(&seen[1], &[4, 5, 6, 8, 10, 12, 200]), 0, "nothing was sent");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked(&seen[0], &[4]), 1, "it is closed where it was opened");
}
