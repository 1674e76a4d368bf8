//! Servers that refuse operations: each request that OpenSSH's server can be told to refuse, and the sets that services do.
//! A copy that is reported as failed has not changed the target, and one that lacks something says what.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::time::{Duration, SystemTime};

use ssmssh::copy::{BytePath, CopyOptions, Location, Shortfall, Skip, Summary, copy};

use crate::copy_sftp::Server;
use Outcome::{Copied, Failed, Lacking};
use Shortfall::{Permissions, Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Copied,
    /// The file is there, and this is told.
    Lacking(&'static [Shortfall]),
    /// Nothing has changed.
    Failed,
}

/// What becomes of a file that replaces another: without `-p` and with it.
const UPLOADS: &[(&str, Outcome, Outcome)] = &[
    ("open", Failed, Failed),
    ("write", Failed, Failed),
    ("stat", Failed, Failed),
    ("lstat", Failed, Failed),
    ("rename,posix-rename", Failed, Failed),
    ("fsetstat", Lacking(&[Permissions]), Lacking(&[Permissions, Times])),
    ("setstat,fsetstat,lsetstat", Lacking(&[Permissions]), Lacking(&[Permissions, Times])),
    ("fstat", Copied, Copied),
    ("fstat,fsetstat", Lacking(&[Permissions]), Lacking(&[Permissions, Times])),
    ("close", Copied, Copied),
    ("read", Copied, Copied),
    ("setstat", Copied, Copied),
    ("lsetstat", Copied, Copied),
    ("opendir,readdir", Copied, Copied),
    ("remove", Copied, Copied),
    ("mkdir,rmdir", Copied, Copied),
    ("realpath", Copied, Copied),
    ("rename", Copied, Copied),
    ("posix-rename", Copied, Copied),
    ("readlink,symlink,hardlink", Copied, Copied),
    ("statvfs,fstatvfs", Copied, Copied),
    ("fsync", Copied, Copied),
    ("limits,expand-path,copy-data,home-directory,users-groups-by-id", Copied, Copied),
    // What storage behind an SFTP gateway cannot do.
    (
        "setstat,fsetstat,lsetstat,posix-rename,fsync,statvfs,readlink,symlink,limits",
        Lacking(&[Permissions]),
        Lacking(&[Permissions, Times]),
    ),
    // A place to drop files, which nobody may change again.
    ("remove,rename,posix-rename,setstat,fsetstat,mkdir,rmdir", Failed, Failed),
];

fn outcome(summary: &Summary) -> (bool, Vec<Shortfall>) {
    (summary.is_complete(), summary.warnings.iter().map(|warning| warning.lacks).collect())
}

#[tokio::test]
async fn whatever_a_server_refuses_a_failed_copy_changes_nothing_and_another_says_what_it_lacks() {
    let here = tempfile::tempdir().unwrap();
    let source = here.path().join("source");
    fs::write(&source, b"new content").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&source).unwrap().set_modified(old).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
    for (refused, plain, preserving) in UPLOADS {
        for (expected, preserve) in [(plain, false), (preserving, true)] {
            let server = Server::with(&["-P", refused]).await;
            fs::write(server.path("target"), b"before").unwrap();
            fs::set_permissions(server.path("target"), fs::Permissions::from_mode(0o644)).unwrap();
            let before = fs::metadata(server.path("target")).unwrap();
            let options = CopyOptions::default().preserve(preserve);
            let target = Location::remote(&server.endpoint, "target");
            let summary = copy(vec![Location::local(source.clone())], target, options, |_| {}).await.unwrap();
            let case = format!("{refused}, preserve {preserve}: {summary:?}");
            let (is_complete, mut lacks) = outcome(&summary);
            lacks.retain(|lack| matches!(lack, Permissions | Times));
            match expected {
                Failed => assert!(!is_complete, "{case}"),
                Copied => assert_eq!((is_complete, &lacks[..]), (true, &[][..]), "{case}"),
                Lacking(expected) => assert_eq!((is_complete, &lacks[..]), (true, *expected), "{case}"),
            }
            let content = fs::read(server.path("target")).unwrap();
            let after = fs::metadata(server.path("target")).unwrap();
            if *expected == Failed {
                assert_eq!(
                    (content, after.mode(), after.ino()),
                    (b"before".to_vec(), before.mode(), before.ino()),
                    "{case}"
                );
            } else {
                assert_eq!(content, b"new content", "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_directory_whose_attributes_are_refused_is_there_with_its_files() {
    let (server, here) = (Server::with(&["-P", "setstat,lsetstat"]).await, tempfile::tempdir().unwrap());
    fs::create_dir_all(here.path().join("tree/sub")).unwrap();
    fs::write(here.path().join("tree/sub/file"), b"x").unwrap();
    let options = CopyOptions::default().recursive(true).preserve(true);
    let source = Location::local(here.path().join("tree"));
    let summary = copy(vec![source], Location::remote(&server.endpoint, "copy"), options, |_| {}).await.unwrap();
    assert_eq!(outcome(&summary), (true, vec![Permissions, Times]));
    assert_eq!(summary.warnings[0].files, 2);
    assert_eq!(fs::read(server.path("copy/sub/file")).unwrap(), b"x");
}

#[tokio::test]
async fn a_link_that_the_server_does_not_resolve_keeps_its_place() {
    let (server, here) = (Server::with(&["-P", "realpath"]).await, tempfile::tempdir().unwrap());
    fs::write(here.path().join("source"), b"new").unwrap();
    fs::write(server.path("behind"), b"before").unwrap();
    symlink("behind", server.path("link")).unwrap();
    let source = Location::local(here.path().join("source"));
    let target = Location::remote(&server.endpoint, "link");
    let summary = copy(vec![source], target, CopyOptions::default(), |_| {}).await.unwrap();
    assert!(!summary.is_complete());
    assert!(server.path("link").is_symlink());
    assert_eq!(fs::read(server.path("behind")).unwrap(), b"before");
}

#[tokio::test]
async fn a_refused_name_is_told_as_one_and_so_is_the_temporary_file_that_stays() {
    let (server, here) = (Server::with(&["-P", "rename,posix-rename,remove"]).await, tempfile::tempdir().unwrap());
    fs::write(here.path().join("source"), b"new").unwrap();
    let source = Location::local(here.path().join("source"));
    let target = Location::remote(&server.endpoint, "target");
    let summary = copy(vec![source], target, CopyOptions::default(), |_| {}).await.unwrap();
    let told = summary.failures[0].to_string();
    assert!(
        told.ends_with("target: the server does not rename the whole copy to its name: permission denied"),
        "{told}"
    );
    assert_eq!(outcome(&summary).1, [Shortfall::Removal]);
    let told = summary.warnings[0].to_string();
    assert!(told.contains(".target.ssmcp-") && told.contains("this temporary file stays"), "{told}");
}

/// Only root may give files away.
#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_owner_and_group_on_either_side() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (server, here) = (Server::with(&[]).await, tempfile::tempdir().unwrap());
    for path in [here.path().join("down"), server.path("up")] {
        fs::write(&path, b"before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::write(here.path().join("source"), b"new").unwrap();
    let (local, remote) = (Location::local(here.path().join("source")), Location::remote(&server.endpoint, "up"));
    let up = copy(vec![local.clone()], remote.clone(), CopyOptions::default().preserve(true), |_| {}).await.unwrap();
    let down =
        copy(vec![remote], Location::local(here.path().join("down")), CopyOptions::default(), |_| {}).await.unwrap();
    for (summary, path, mode) in [(up, server.path("up"), 0o644), (down, here.path().join("down"), 0o600)] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!(outcome(&summary), (true, vec![]));
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (NOBODY, NOBODY, mode), "{}", path.display());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}

#[tokio::test]
async fn an_owner_that_cannot_be_kept_is_told() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (server, here) = (Server::with(&["-P", "fsetstat"]).await, tempfile::tempdir().unwrap());
    fs::write(server.path("up"), b"before").unwrap();
    chown(server.path("up"), Some(65534), Some(65534)).unwrap();
    fs::write(here.path().join("source"), b"new").unwrap();
    let source = Location::local(here.path().join("source"));
    let target = Location::remote(&server.endpoint, "up");
    let summary = copy(vec![source], target, CopyOptions::default(), |_| {}).await.unwrap();
    assert_eq!(outcome(&summary), (true, vec![Shortfall::Owner]));
    let told = summary.warnings[0].to_string();
    assert!(told.ends_with("up: copied, but owner and group could not be kept: permission denied"), "{told}");
}

#[tokio::test]
async fn times_that_sftp_does_not_carry_are_told_once_and_not_sent_for_ever() {
    let (server, here) = (Server::with(&[]).await, tempfile::tempdir().unwrap());
    let day = Duration::from_hours(24);
    let times = [
        ("moon", SystemTime::UNIX_EPOCH - 165 * day),
        ("far", SystemTime::UNIX_EPOCH + 70_000 * day),
        ("now", SystemTime::now()),
    ];
    for (name, time) in times {
        fs::create_dir_all(here.path().join("tree")).unwrap();
        fs::write(here.path().join("tree").join(name), name).unwrap();
        let file = fs::File::options().write(true).open(here.path().join("tree").join(name)).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(SystemTime::now())).unwrap();
    }
    let run = async || {
        let options = CopyOptions::default().recursive(true).preserve(true).skip(Skip::Same);
        let target = Location::remote(&server.endpoint, BytePath::from("."));
        copy(vec![Location::local(here.path().join("tree"))], target, options, |_| {}).await.unwrap()
    };
    let first = run().await;
    assert_eq!((first.files, outcome(&first)), (3, (true, vec![Shortfall::TimeRange])));
    assert_eq!(first.warnings[0].files, 2);
    let again = run().await;
    assert_eq!((again.files, again.skipped, outcome(&again)), (0, 3, (true, vec![])));
}

#[tokio::test]
async fn a_secret_from_memory_is_never_open_to_others() {
    let server = Server::with(&["-P", "fsetstat"]).await;
    let secret = Location::reader_of_mode("secret", 0o600, std::io::Cursor::new(b"secret"));
    let summary = copy(vec![secret], Location::remote(&server.endpoint, "up"), CopyOptions::default(), |_| {}).await;
    assert_eq!(outcome(&summary.unwrap()), (true, vec![]));
    assert_eq!(fs::metadata(server.path("up")).unwrap().mode() & 0o777, 0o600);
}
