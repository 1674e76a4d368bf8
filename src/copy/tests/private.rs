//! Temporary files: whose they are, and who may open them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use crate::copy::*;
use crate::ssh::sftp::scripted::serve;
use crate::ssh::sftp::{Attributes, Sftp};

/// SFTP's flag for a file that must not be there yet.
const EXCLUSIVE: u32 = 0x20;

fn file(size: u64, mode: u32) -> Attributes {
    Attributes { size: Some(size), ..Attributes::with_permissions(0o100_000 | mode) }
}

/// What an upload of a file of mode 0644 asks for, where a file with `mode` has the name.
async fn upload_over(mode: u32) -> Vec<String> {
    upload(0o644, Some(mode)).await
}

/// What an upload of a file of `mode` asks for: what is opened with which flags and permissions, which permissions are
/// set, and which handle is written to. A file with the mode `in_the_way` has the name.
async fn upload(mode: u32, in_the_way: Option<u32>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"abc").unwrap();
    fs::set_permissions(folder.path().join("file"), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut opened, mut held) = (Arc::clone(&asked), 0, 0);
    let stream = serve(&["posix-rename@openssh.com"], move |mut request| match request.verb {
        3 => {
            let (_path, flags, _given, permissions) = (request.string(), request.u32(), request.u32(), request.u32());
            assert_eq!(flags & EXCLUSIVE, EXCLUSIVE, "somebody else's file or link may have the name");
            opened += 1;
            held = permissions & 0o777;
            seen.lock().unwrap().push(format!("open {held:o}"));
            request.handle(&[opened])
        }
        8 => request.attributes(&file(3, held)),
        7 | 17 => match in_the_way {
            Some(mode) => request.attributes(&file(9, mode)),
            None => request.status(2),
        },
        verb @ (6 | 10 | 13) => {
            let text = match verb {
                6 => format!("write {}", request.string()[0]),
                10 => {
                    let (_handle, _given) = (request.string(), request.u32());
                    held = request.u32() & 0o777;
                    format!("change {held:o}")
                }
                _ => "remove".to_owned(),
            };
            seen.lock().unwrap().push(text);
            request.status(0)
        }
        _ => request.status(0),
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    let source = Location::local(folder.path().join("file"));
    let summary = copy(vec![source], Location::remote(&node, "up"), CopyOptions::default(), |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    asked.lock().unwrap().clone()
}

#[tokio::test]
async fn no_content_is_written_to_what_others_could_have_opened_and_may_not_read() {
    assert_eq!(upload_over(0o644).await, ["open 644", "change 600", "write 1", "change 644"]);
    for mode in [0o600, 0o640] {
        let last = format!("change {mode:o}");
        assert_eq!(upload_over(mode).await, ["open 644", "change 600", "remove", "open 600", "write 2", &last]);
    }
}

/// Other streams and later runs open it again.
#[tokio::test]
async fn a_temporary_file_can_be_written_by_its_owner_whatever_its_source_allows() {
    assert_eq!(upload(0o400, None).await, ["open 600", "write 1", "change 400"]);
    assert_eq!(upload(0o444, None).await, ["open 644", "change 600", "write 1", "change 444"]);
    assert_eq!(upload(0o600, None).await, ["open 600", "write 1", "change 600"]);

    let folder = tempfile::tempdir().unwrap();
    for mode in [0o400, 0o444, 0o555, 0o200, 0o000] {
        let path = BytePath::from(folder.path().join("temporary"));
        let created = LocalEndpoint::default().create(&path, mode).await.unwrap();
        let held = || std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path.as_path()).unwrap().permissions());
        assert_eq!(held() & 0o7777, 0o600, "{mode:o}");
        let granted = created.granted().unwrap();
        assert_eq!((granted & 0o700, granted & !mode), (mode & 0o700, 0), "{mode:o}");
        fs::remove_file(path.as_path()).unwrap();
    }
}

#[tokio::test]
async fn a_temporary_file_is_never_one_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outside"), b"before").unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside"), folder.path().join("planted")).unwrap();
    for name in ["outside", "planted"] {
        let path = BytePath::from(folder.path().join(name));
        let created = LocalEndpoint::default().create(&path, 0o644).await;
        assert!(matches!(&created, Err(CopyError::Local(error)) if error.raw_os_error() == Some(17)), "{name}");
    }
    assert_eq!(fs::read(folder.path().join("outside")).unwrap(), b"before");
}

#[tokio::test]
async fn a_new_file_is_closed_to_others_until_it_has_its_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = BytePath::from(folder.path().join("temporary"));
    let created = LocalEndpoint::default().create(&path, 0o666).await.unwrap();
    assert_eq!(fs::metadata(path.as_path()).unwrap().permissions().mode() & 0o777, 0o600);
    let to = BytePath::from(folder.path().join("name"));
    let granted = created.granted().unwrap();
    created.finish(Change::default(), &to).await.unwrap();
    assert_eq!(fs::metadata(to.as_path()).unwrap().permissions().mode() & 0o777, granted);
}

#[tokio::test]
async fn the_home_of_another_user_is_asked_of_the_server() {
    let asked = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = Arc::clone(&asked);
    let stream = serve(&["expand-path@openssh.com"], move |mut request| match request.verb {
        200 => {
            let (name, path) = (request.string(), request.string());
            seen.lock().unwrap().insert(path.to_vec(), name.to_vec());
            request.names(&[(b"/home/other/x", Attributes::default())])
        }
        _ => request.status(2),
    });
    let node = RemoteEndpoint::new(Sftp::new(stream).await.unwrap(), "node");
    assert_eq!(node.resolve(&"~other/x".into()).await.unwrap(), BytePath::from("/home/other/x"));
    assert_eq!(asked.lock().unwrap()[&b"~other/x"[..]], b"expand-path@openssh.com");
    for (typed, path) in [("~", "."), ("", "."), ("~/a", "a"), ("~//a", "a"), ("a/~", "a/~"), ("./~", "./~")] {
        assert_eq!(node.resolve(&typed.into()).await.unwrap(), BytePath::from(path), "{typed}");
    }
}
