//! Source and sink against each other.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::copy::scp::*;

/// A tree, as a source sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { name: Vec<u8>, mode: u32, content: Vec<u8>, times: Option<Times> },
    Directory { name: Vec<u8>, mode: u32, inside: Vec<Node>, times: Option<Times> },
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>().prop_filter("not in a name", |byte| !b"/\0\n".contains(byte)), 1..12)
        .prop_filter("leads elsewhere", |name| name != b"." && name != b"..")
}

fn times() -> impl Strategy<Value = Option<Times>> {
    proptest::option::of((0..1u64 << 40, 0..1u64 << 40).prop_map(|(modified, accessed)| Times { modified, accessed }))
}

fn trees() -> impl Strategy<Value = Node> {
    let content = proptest::collection::vec(any::<u8>(), 0..300);
    let file = (name(), 0..=0o7777u32, content, times()).prop_map(|(name, mode, content, times)| Node::File {
        name,
        mode,
        content,
        times,
    });
    file.prop_recursive(4, 30, 6, |node| {
        (name(), 0..=0o7777u32, proptest::collection::vec(node, 0..6), times()).prop_map(
            |(name, mode, inside, times)| {
                let mut names = std::collections::HashSet::new();
                let inside = inside.into_iter().filter(|node| names.insert(name_of(node).to_vec())).collect();
                Node::Directory { name, mode, inside, times }
            },
        )
    })
}

fn name_of(node: &Node) -> &[u8] {
    match node {
        Node::File { name, .. } | Node::Directory { name, .. } => name,
    }
}

/// Two machines, and bytes between them that arrive in pieces of these sizes.
struct Link {
    source: Source,
    sink: Sink,
    pieces: std::iter::Cycle<std::vec::IntoIter<usize>>,
    received: Vec<Vec<Node>>,
    open: Vec<Header>,
    file: Option<(Header, Vec<u8>)>,
}

impl Link {
    fn new(pieces: Vec<usize>) -> Self {
        let sink = Sink::new(Request::matching(&"*".into()).unwrap(), true);
        let pieces = pieces.into_iter().cycle();
        Self { source: Source::new(), sink, pieces, received: vec![Vec::new()], open: Vec::new(), file: None }
    }

    /// Carries everything that either side has to say.
    fn carry(&mut self) -> Vec<Answered> {
        let mut answers = Vec::new();
        loop {
            let forth: Vec<_> = std::iter::from_fn(|| self.source.poll_transmit()).flatten().collect();
            let mut rest = &forth[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(self.pieces.next().unwrap().min(rest.len()));
                self.sink.handle_input(BytesMut::from(piece));
                rest = after;
                while let Some(received) = self.sink.poll_event().unwrap() {
                    self.take(received);
                }
            }
            let back: Vec<_> = std::iter::from_fn(|| self.sink.poll_transmit()).flatten().collect();
            self.source.handle_input(&back);
            answers.extend(std::iter::from_fn(|| self.source.poll_event().unwrap()));
            if back.is_empty() {
                return answers;
            }
        }
    }

    fn take(&mut self, received: Received) {
        match received {
            Received::Directory(header) => {
                self.open.push(header);
                self.received.push(Vec::new());
                self.sink.accept();
            }
            Received::DirectoryEnd => {
                let (inside, Header { name, mode, times, .. }) =
                    (self.received.pop().unwrap(), self.open.pop().unwrap());
                self.received.last_mut().unwrap().push(Node::Directory { name, mode, inside, times });
            }
            Received::File(header) => {
                self.file = Some((header, Vec::new()));
                self.sink.accept();
            }
            Received::Data(bytes) => self.file.as_mut().unwrap().1.extend_from_slice(&bytes),
            Received::FileEnd(complaint) => {
                assert_eq!(complaint, None);
                let (Header { name, mode, size, times }, content) = self.file.take().unwrap();
                assert_eq!(size, content.len() as u64);
                self.received.last_mut().unwrap().push(Node::File { name, mode, content, times });
            }
            Received::Complaint(words) => panic!("{words}"),
        }
    }

    fn send(&mut self, node: &Node) {
        match node {
            Node::File { name, mode, content, times } => {
                self.source.file(name, *mode, content.len() as u64, *times).unwrap();
                assert_eq!(self.carry().last(), Some(&Answered::Accepted));
                self.source.data(Bytes::copy_from_slice(content));
                self.source.end_file(None);
            }
            Node::Directory { name, mode, inside, times } => {
                self.source.directory(name, *mode, *times).unwrap();
                assert_eq!(self.carry().last(), Some(&Answered::Accepted));
                for node in inside {
                    self.send(node);
                }
                self.source.end_directory();
            }
        }
    }
}

proptest! {
    #[test]
    fn what_a_source_sends_a_sink_receives(
        tree in trees().prop_filter("a hidden name has to be asked for", |tree| name_of(tree)[0] != b'.'),
        pieces in proptest::collection::vec(1usize..200, 1..8),
    ) {
        let mut link = Link::new(pieces);
        prop_assert_eq!(link.carry(), [Answered::Ready]);
        link.send(&tree);
        link.carry();
        prop_assert!(link.source.is_settled());
        prop_assert!(link.sink.handle_end().is_ok());
        prop_assert_eq!(&link.received, &[vec![tree]]);
    }

    #[test]
    fn any_bytes_are_received_or_refused_in_peace(
        input in proptest::collection::vec(any::<u8>(), 0..300),
        lines in proptest::collection::vec("(C0644 [0-9]{1,2} [a-c./]{0,3}|D0755 0 [a-c.]{0,3}|E|T1 0 1 0|\u{1}x|\u{2}y)\n\u{0}?", 0..20),
    ) {
        for input in [input, lines.concat().into_bytes()] {
            let mut sink = Sink::new(Request::matching(&"*".into()).unwrap(), true);
            sink.handle_input(BytesMut::from(&input[..]));
            let mut data = 0;
            while let Ok(Some(received)) = sink.poll_event() {
                match received {
                    Received::File(header) | Received::Directory(header) => {
                        prop_assert!(!header.name.is_empty() && !header.name.contains(&b'/'));
                        prop_assert!(header.name != b"." && header.name != b"..");
                        sink.accept();
                    }
                    Received::Data(bytes) => data += bytes.len(),
                    _ => {}
                }
            }
            prop_assert!(data <= input.len());
        }
    }

    #[test]
    fn any_bytes_are_answers_or_errors(input in proptest::collection::vec(0u8..4, 0..100)) {
        let mut source = Source::new();
        source.file(b"x", 0o644, 3, None).unwrap();
        source.handle_input(&input);
        while let Ok(Some(_)) = source.poll_event() {}
    }
}

#[test]
fn a_file_takes_one_wait_and_its_end_none() {
    let mut source = Source::new();
    source.handle_input(&[0]);
    assert_eq!(source.poll_event().unwrap(), Some(Answered::Ready));
    source.file(b"one", 0o644, 1, None).unwrap();
    source.handle_input(&[0]);
    assert_eq!(source.poll_event().unwrap(), Some(Answered::Accepted));
    source.data(Bytes::from_static(b"1"));
    source.end_file(None);
    source.file(b"two", 0o644, 0, None).unwrap();
    let sent: Vec<u8> = std::iter::from_fn(|| source.poll_transmit()).flatten().collect();
    assert_eq!(sent, b"C0644 1 one\n1\0C0644 0 two\n");
    source.handle_input(b"\x01scp: one: No space left on device\n\0");
    let full = Words::new(b"one: No space left on device");
    assert_eq!(source.poll_event().unwrap(), Some(Answered::NotStored(full)));
    assert_eq!(source.poll_event().unwrap(), Some(Answered::Accepted));
}

#[test]
fn a_name_with_a_line_feed_is_not_sent() {
    let mut source = Source::new();
    assert!(matches!(source.file(b"a\nC0644 1 b", 0o644, 0, None), Err(ScpError::LineFeed)));
    assert!(source.poll_transmit().is_none() || source.is_settled());
}

#[test]
fn answers_to_nothing_and_the_end_of_everything_are_told() {
    let mut source = Source::new();
    source.handle_input(&[0; 10_000]);
    source.poll_event().unwrap();
    assert!(matches!(source.poll_event(), Err(ScpError::OutOfTurn(_))));
    let mut source = Source::new();
    source.handle_input(b"\x02scp: lost\n");
    assert!(matches!(source.poll_event(), Err(ScpError::GaveUp(words)) if words.to_string() == "lost"));
    let mut source = Source::new();
    source.handle_input(b"Welcome!\n");
    assert!(source.poll_event().unwrap_err().to_string().contains("broke the SCP protocol"));
}

#[test]
fn a_sink_that_refuses_hears_nothing_of_what_it_refused() {
    let mut sink = Sink::new(Request::matching(&"*".into()).unwrap(), true);
    sink.handle_input(BytesMut::from(&b"C0644 5 big\n"[..]));
    assert!(matches!(sink.poll_event().unwrap(), Some(Received::File(_))));
    assert_eq!(sink.poll_event().unwrap(), None, "it waits for a decision");
    sink.refuse(&Words::new(b"no space"));
    let said: Vec<u8> = std::iter::from_fn(|| sink.poll_transmit()).flatten().collect();
    assert_eq!(said, b"\0\x01scp: no space\n");
    sink.handle_input(BytesMut::from(&b"C0644 0 next\n"[..]));
    assert!(matches!(sink.poll_event().unwrap(), Some(Received::File(header)) if header.name == b"next"));
}

#[test]
fn where_times_come_before_every_name_they_are_answered_ahead() {
    let mut sink = Sink::with_times(Request::new(&"tree".into()), true);
    let sent = |sink: &mut Sink| std::iter::from_fn(|| sink.poll_transmit()).flatten().collect::<Vec<u8>>();
    let take = |sink: &mut Sink, lines: &str| {
        sink.handle_input(BytesMut::from(lines));
        sink.poll_event()
    };
    assert_eq!(sent(&mut sink), [0, 0], "its first word, and the answer to the first times");
    assert!(matches!(take(&mut sink, "T1 0 1 0\nD0755 0 tree\n"), Ok(Some(Received::Directory(_)))));
    sink.accept();
    assert_eq!(sent(&mut sink), [0, 0]);
    assert!(matches!(take(&mut sink, "T1 0 1 0\nC0644 9 file\n"), Ok(Some(Received::File(_)))));
    sink.refuse(&Words::new(b"no"));
    assert_eq!(sent(&mut sink), b"\x01scp: no\n\0");
    assert!(matches!(take(&mut sink, "E\n"), Ok(Some(Received::DirectoryEnd))));
    assert_eq!(sent(&mut sink), [0]);
    assert!(sink.handle_end().is_ok());
    let early = take(&mut sink, "D0755 0 tree\n").unwrap_err().to_string();
    assert_eq!(early, "the far side broke the SCP protocol: a name without its times");
}
