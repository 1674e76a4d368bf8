//! A far side that lies, cheats and breaks off.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::copy::scp::*;
use crate::copy::{CopyError, CopyOptions, Event, Exclude, Location, Progress, Skip, Summary, copy};

/// A machine whose `scp -f` says `script` whatever it is answered, prints `errors`, and exits with `code`.
fn node(script: impl Into<Vec<u8>>, errors: &'static [u8], code: u32) -> ScpEndpoint {
    let script = script.into();
    ScpEndpoint::new("node", move |_| {
        let script = script.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut answers, mut words) = tokio::io::split(theirs);
            tokio::spawn(async move { while answers.read_u8().await.is_ok() {} });
            tokio::spawn(async move {
                let _ = words.write_all(&script).await;
                let _ = words.shutdown().await;
            });
            let (output, input) = tokio::io::split(ours);
            Ok(ScpChannel::new(input, output, errors, async move { Some(code) }))
        }
    })
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

async fn get(node: &ScpEndpoint, asked: &str, into: &Path, options: CopyOptions) -> Result<Summary, CopyError> {
    copy(vec![Location::scp(node, asked).matching()], Location::local(into.to_owned()), options, |_| {}).await
}

fn recursive() -> CopyOptions {
    CopyOptions::default().recursive(true)
}

/// Asks for `asked`; returns what was complained about, once it is sure that nothing lies where it should not.
async fn complaints(script: &[u8], asked: &str, options: CopyOptions) -> Vec<String> {
    let folder = folder();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    fs::set_permissions(&into, fs::Permissions::from_mode(0o750)).unwrap();
    let summary = get(&node(script, b"", 0), asked, &into, options).await.unwrap();
    assert_eq!(names_in(folder.path()), ["into"], "nothing beside the target");
    assert_eq!(fs::metadata(&into).unwrap().permissions().mode() & 0o777, 0o750, "the target's own permissions stay");
    let wrong: Vec<_> =
        names_in(&into).into_iter().filter(|name| !["file", "tree", "a.txt"].contains(&&**name)).collect();
    assert_eq!(wrong, Vec::<String>::new());
    summary.failures.iter().map(ToString::to_string).collect()
}

/// CVE-2018-20685: an empty name or a dot would give the target's own directory other permissions.
#[tokio::test]
async fn a_directory_without_a_name_does_not_change_the_target() {
    for script in ["D0777 0 .\nE\n", "D0777 0 \nE\n", "D0777 0 ..\nE\n"] {
        for asked in ["tree", "tr*"] {
            let told = complaints(script.as_bytes(), asked, recursive()).await;
            assert_eq!(told.len(), 1, "{script}");
            assert!(told[0].starts_with(&format!("node:{asked}: the far side sends")), "{told:?}");
        }
    }
    for script in
        ["D0755 0 tree\nD0777 0 .\nE\nE\n", "D0755 0 tree\nD0777 0 \nE\nE\n", "D0755 0 tree\nC0644 1 ..\nx\0E\n"]
    {
        let told = complaints(script.as_bytes(), "tree", recursive()).await;
        assert!(told.len() == 1 && told[0].contains("which no file can have"), "{told:?}");
    }
}

/// CVE-2019-6111: the far side chooses the name of what it sends, and so which file is overwritten.
#[tokio::test]
async fn only_what_was_asked_for_is_written() {
    for (asked, script) in [
        ("file", "C0644 1 .bashrc\nx\0"),
        ("dir/file", "C0644 1 dir\nx\0"),
        ("*.txt", "C0644 1 evil.sh\nx\0"),
        ("*", "C0644 1 .bashrc\nx\0"),
        ("{file,tree}", "C0644 1 other\nx\0"),
        ("file", "C0644 1 ../file\nx\0"),
        ("*", "C0644 1 ../file\nx\0"),
        ("*", "C0644 1 /etc/passwd\nx\0"),
    ] {
        let told = complaints(script.as_bytes(), asked, CopyOptions::default()).await;
        assert!(told.len() == 1 && told[0].starts_with(&format!("node:{asked}: the far side sends ")), "{told:?}");
    }
}

#[tokio::test]
async fn a_second_file_that_nobody_asked_for_is_not_written() {
    let folder = folder();
    let script = "C0644 1 file\nx\0C0644 1 .bashrc\ny\0";
    let summary = get(&node(script, b"", 0), "file", folder.path(), CopyOptions::default()).await.unwrap();
    assert_eq!((summary.files, names_in(folder.path())), (1, vec!["file".to_owned()]));
    assert_eq!(summary.failures[0].to_string(), "node:file: the far side sends `.bashrc`, which was not asked for");
    let again = "C0644 1 file\nx\0C0644 1 file\ny\0";
    let summary = get(&node(again, b"", 0), "file", folder.path(), CopyOptions::default()).await.unwrap();
    assert_eq!((summary.failures.len(), fs::read(folder.path().join("file")).unwrap()), (1, b"x".to_vec()));
}

#[tokio::test]
async fn a_directory_that_nobody_asked_for_is_not_made() {
    let told = complaints(b"D0755 0 tree\nC0644 1 x\nx\0E\n", "tree", CopyOptions::default()).await;
    assert_eq!(told, ["node:tree: the far side sends the directory `tree`, and `-r` (recursive) did not ask for one"]);
}

#[tokio::test]
async fn names_lead_nowhere_deeper_in_a_tree_either() {
    for name in ["../escaped", "/etc/escaped", "a/../../escaped", "..", "x\0y"] {
        let script = format!("D0755 0 tree\nC0644 1 {name}\nx\0E\n");
        let told = complaints(script.as_bytes(), "tree", recursive()).await;
        assert!(told.len() == 1 && told[0].contains("which no file can have"), "{told:?}");
    }
    let told = complaints(b"D0755 0 tree\nC0644 1 x\nx\0C0644 1 x\ny\0E\n", "tree", recursive()).await;
    assert_eq!(told, ["node:tree: the far side sends `x` twice"]);
}

/// CVE-2019-6109: control characters in a name redraw what the user sees.
#[tokio::test]
async fn control_characters_in_names_and_words_are_escaped() {
    let folder = folder();
    let script = b"\x01scp: a\x1b[2Jb: Permission denied\x1b[0m\nC0644 1 x\x1b[1A\ny\0";
    let started = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        if let Event::Started { path, .. } = progress.event {
            started.lock().unwrap().push(path.to_string());
        }
    };
    let source = Location::scp(&node(*script, b"", 1), "x*").matching();
    let target = Location::local(folder.path().to_owned());
    let summary = copy(vec![source], target, CopyOptions::default(), note).await.unwrap();
    assert_eq!(summary.failures[0].to_string(), "node:a\\u{1b}[2Jb: Permission denied\\u{1b}[0m");
    assert_eq!(*started.lock().unwrap(), ["x\\u{1b}[1A"]);
}

/// CVE-2019-6110: stderr of the far side could hide what was sent beside what was asked for.
#[tokio::test]
async fn what_the_far_side_prints_is_passed_on_escaped_and_bounded() {
    static ERRORS: [u8; 4096] = [b'e'; 4096];
    let folder = folder();
    let said = Mutex::new(Vec::new());
    let note = |progress: Progress<'_>| {
        if let Event::Said { side, text } = progress.event {
            said.lock().unwrap().push(format!("{side}: {text}"));
        }
    };
    for errors in [&b"one\n\x1b[2Ktwo\r\n"[..], &ERRORS[..]] {
        let source = Location::scp(&node("C0644 1 file\nx\0", errors, 0), "file");
        let target = Location::local(folder.path().to_owned());
        assert!(copy(vec![source], target, CopyOptions::default(), note).await.unwrap().is_complete());
    }
    let said = said.lock().unwrap();
    assert_eq!(said[..2], ["node: one", "node: \\u{1b}[2Ktwo"]);
    assert_eq!((said.len(), said[2].len()), (3, "node: ".len() + 512));
}

#[tokio::test]
async fn what_ends_in_the_middle_is_told_and_has_no_name() {
    for (script, code) in [
        ("C0644 10 file\nxyz", 0),
        ("C0644 3 file\nxyz", 0),
        ("D0755 0 tree\nC0644 0 x\n\0", 0),
        ("T1 0 1 0\n", 0),
        ("C0644 ", 0),
        ("C0644 0 file\n\0", 137),
    ] {
        let folder = folder();
        let asked = if script.starts_with('D') { "tree" } else { "file" };
        let summary = get(&node(script, b"", code), asked, folder.path(), recursive()).await.unwrap();
        let told: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains("scp ended before it was done"), "{script:?} {told:?}");
        let is_whole = code != 0 || asked == "tree";
        assert_eq!(names_in(folder.path()).len(), usize::from(is_whole), "{script:?}");
    }
}

#[tokio::test]
async fn lines_that_are_none_do_not_end_or_are_too_many_are_told() {
    let deep = "D0755 0 tree\n".to_owned() + &"D0755 0 d\n".repeat(100);
    for (script, message) in [
        (
            "Welcome to this node!\n".to_owned(),
            "`Welcome to this node!` came instead: a start-up file such as .bashrc prints it, the user's login shell, or a",
        ),
        ("x".repeat(100_000), "a line has more than 8192 bytes"),
        (deep, "nested deeper than 64 levels"),
        ("C0644 99999999999999999999 tree\n".to_owned(), "a line gives no size"),
        ("E\n".to_owned(), "the end of a directory that was not begun"),
        ("\0".to_owned(), "a reply came where a name should be"),
        ("\u{2}scp: lost\n".to_owned(), "scp gave up: lost"),
    ] {
        let folder = folder();
        let summary = get(&node(script, b"", 0), "tree", folder.path(), recursive()).await.unwrap();
        let told = with_causes(&summary);
        assert!(told.len() == 1 && told[0].contains(message), "{told:?}");
    }
}

fn with_causes(summary: &Summary) -> Vec<String> {
    let text = |failure: &crate::copy::Failure| {
        let mut text = failure.to_string();
        let mut cause = std::error::Error::source(failure);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    summary.failures.iter().map(text).collect()
}

#[tokio::test]
async fn a_program_that_does_not_start_ends_the_copy_with_its_words() {
    let folder = folder();
    let errors = b"sh: 1: scp: not found\n";
    let error = get(&node("", errors, 127), "file", folder.path(), CopyOptions::default()).await.unwrap_err();
    let CopyError::ScpEnded { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "scp does not start (exit code 127): sh: 1: scp: not found");
    assert_eq!(error.to_string(), "cannot copy over the SCP protocol with node");
}

#[tokio::test]
async fn a_link_in_the_target_is_not_written_through() {
    let folder = folder();
    let (into, outside) = (folder.path().join("into"), folder.path().join("outside"));
    fs::create_dir_all(into.join("tree")).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink("../../outside", into.join("tree/out")).unwrap();
    symlink(outside.join("file"), into.join("tree/link")).unwrap();
    // What is refused is left out by whoever sends.
    let script = "D0755 0 tree\nD0755 0 out\nC0644 1 link\nx\0E\n";
    let summary = get(&node(script, b"", 0), "tree", &into, recursive()).await.unwrap();
    assert_eq!(names_in(&outside), Vec::<String>::new());
    let told: Vec<_> = summary.failures.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("tree/out: a link"), "{told:?}");
    assert!(fs::symlink_metadata(into.join("tree/link")).unwrap().is_file(), "a link is replaced");
}

#[tokio::test]
async fn what_is_left_out_or_there_already_is_refused_and_the_rest_goes_on() {
    let folder = folder();
    // Refused are `skip`, `old` and `sub`; what is written is `new`.
    let script = "D0755 0 tree\nC0644 3 skip.o\nT1 0 1 0\nC0644 1 old\nD0755 0 sub\nC0644 1 new\nx\0E\n";
    fs::create_dir(folder.path().join("tree")).unwrap();
    fs::write(folder.path().join("tree/old"), b"newer").unwrap();
    let excludes = ["*.o", "tree/sub/"].map(|text| Exclude::new(text).unwrap());
    let options = excludes.into_iter().fold(recursive().skip(Skip::Newer), CopyOptions::exclude);
    let summary = get(&node(script, b"", 0), "tree", folder.path(), options).await.unwrap();
    assert!(summary.is_complete() && (summary.files, summary.skipped) == (1, 1), "{summary:?}");
    assert_eq!(names_in(&folder.path().join("tree")), ["new", "old"]);

    let dry = "D0755 0 other\nC0644 1 file\nE\n";
    let summary = get(&node(dry, b"", 0), "other", &folder.path().join("to"), recursive().dry_run(true)).await.unwrap();
    assert!(summary.is_complete() && summary.files == 0, "{summary:?}");
    assert_eq!(names_in(folder.path()), ["tree"]);
}

#[tokio::test]
async fn permissions_are_at_most_those_that_a_user_gives() {
    let folder = folder();
    let script = "T1 0 1 0\nD6777 0 tree\nT1000000000 0 1 0\nC6755 1 file\nx\0E\n";
    let options = recursive().preserve(true);
    assert!(get(&node(script, b"", 0), "tree", folder.path(), options).await.unwrap().is_complete());
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tree"), mode("tree/file")), (0o777, 0o755), "never setuid or setgid");
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_in_every_direction() {
    let folder = folder();
    fs::write(folder.path().join("file"), vec![b'x'; 400_000]).unwrap();
    let sends = || node([b"C0644 400000 file\n", &vec![b'x'; 400_000][..], b"\0"].concat(), b"", 0);
    // Its first word, then a yes to the name and to the end of the file.
    let takes = || node(*b"\0\0\0", b"", 0);
    let here = |name: &str| Location::local(folder.path().join(name));
    for (source, target) in [
        (Location::scp(&sends(), "file"), here("copy")),
        (here("file"), Location::scp(&takes(), "copy")),
        (Location::scp(&sends(), "file"), Location::scp(&takes(), "copy")),
    ] {
        let options = CopyOptions::default().rate_limit(NonZeroU64::new(1_000_000).unwrap());
        let started = Instant::now();
        let summary = copy(vec![source], target, options, |_| {}).await.unwrap();
        assert!(summary.is_complete() && summary.bytes == 400_000, "{summary:?}");
        // By the clock of the test, which moves only while all wait. The last piece is not waited for.
        let elapsed = started.elapsed().as_secs_f64();
        assert!((0.25..0.45).contains(&elapsed), "{elapsed}");
    }
}

#[tokio::test]
async fn times_without_end_are_refused_at_the_second_line() {
    let script = "T1 0 1 0\n".repeat(200_000);
    let told = complaints(script.as_bytes(), "file", CopyOptions::default()).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("times came twice before a name"), "{told:?}");
}

#[tokio::test]
async fn sizes_at_the_limit_of_a_number_are_added_up_without_a_panic() {
    let script = format!("D0755 0 tree\nC0644 {0} a\n", u64::MAX);
    let told = complaints(script.as_bytes(), "tree", recursive()).await;
    assert!(!told.is_empty());
}
