use std::os::unix::fs::PermissionsExt;

use StrictHostKeyChecking::{AcceptNew, Off, Yes};

use super::*;

fn key(body: u8) -> HostKeyBlob {
    let mut blob = b"\0\0\0\x0bssh-ed25519".to_vec();
    blob.push(body);
    HostKeyBlob::new(blob).expect("a type")
}

impl HostKeyCheck {
    /// What comes of showing a key.
    fn accept(&self, shown: &HostKeyBlob) -> Result<HostKey, HostKeyError> {
        let examined = self.decide(shown.clone())?;
        if examined.is_new { self.record_in_file(&examined) } else { Ok(examined.key) }
    }
}

fn check(policy: StrictHostKeyChecking, file: &Path) -> HostKeyCheck {
    HostKeyCheck::new(policy, file.to_owned(), "i-0abc", 2222)
}

#[test]
fn accept_new_records_a_key_once_in_a_private_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state/deep/known_hosts");
    assert!(check(AcceptNew, &file).accept(&key(1)).expect("accepted").newly_recorded);
    assert!(!check(AcceptNew, &file).accept(&key(1)).expect("accepted").newly_recorded);
    assert_eq!(std::fs::read_to_string(&file).expect("written"), key(1).line_for("[i-0abc]:2222") + "\n");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("deep"))), (0o600, 0o700));
}

#[test]
fn a_new_line_is_not_glued_to_one_that_lacks_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    std::fs::write(&file, key(9).line_for("other")).expect("written");
    check(AcceptNew, &file).accept(&key(1)).expect("accepted");
    assert!(check(Yes, &file).accept(&key(1)).is_ok());
    assert!(HostKeyCheck::new(Yes, file, "other", 22).accept(&key(9)).is_ok());
}

#[test]
fn a_changed_key_is_refused_with_both_fingerprints_and_the_line_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known hosts");
    check(AcceptNew, &file).accept(&key(1)).expect("accepted");
    let error = check(AcceptNew, &file).accept(&key(2)).expect_err("changed").to_string();
    let file = quote::path(&file);
    assert!(error.contains(&key(1).fingerprint()) && error.contains(&key(2).fingerprint()), "{error}");
    assert!(error.contains(&format!("{file}:1 has ssh-ed25519 SHA256:")), "{error}");
}

#[test]
fn yes_refuses_a_host_that_is_not_on_record_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let error = check(Yes, &file).accept(&key(1)).expect_err("unknown").to_string();
    assert!(error.contains(&key(1).fingerprint()) && error.contains("accept-new"), "{error}");
    assert!(!file.exists());
}

#[test]
fn off_accepts_everything_and_writes_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    std::fs::write(&file, format!("@revoked {}", key(1).line_for("*"))).expect("written");
    assert!(check(Off, &file).accept(&key(1)).is_ok());
    assert!(check(Off, &file).is_known(&key(1)).is_err() && check(Off, &file).is_known(&key(2)).is_ok());
    let error = check(AcceptNew, &file).accept(&key(1)).expect_err("revoked");
    assert!(error.to_string().contains("is revoked"), "{error}");
    assert!(check(Off, &dir.path().join("none")).accept(&key(1)).is_ok());
    assert!(!dir.path().join("none").exists());
}

#[test]
fn without_a_policy_every_key_is_refused() {
    assert!(matches!(HostKeyCheck::none().accept(&key(1)), Err(HostKeyError::NoPolicy)));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(check(AcceptNew, dir.path()).accept(&key(1)), Err(HostKeyError::Unreadable { .. })));
    let unreadable = HostKeyCheck::with_files(AcceptNew, vec!["none".into(), dir.path().to_owned()], "h", 22);
    assert!(matches!(unreadable.accept(&key(1)), Err(HostKeyError::Unreadable { .. })));
}

/// Each removal puts another file in the place of the one that the others wait for.
#[test]
fn a_host_is_forgotten_and_no_key_is_lost_that_is_recorded_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let host = |number: u8| HostKeyCheck::new(AcceptNew, file.clone(), &format!("h{number}"), 22);
    check(AcceptNew, &file).accept(&key(1)).expect("accepted");
    for number in 0..50 {
        host(number + 100).accept(&key(number)).expect("accepted");
    }
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (recorded, removed) = (host(number), host(number + 100));
            scope.spawn(move || recorded.accept(&key(number)).expect("accepted"));
            scope.spawn(move || assert_eq!(removed.forget_in_files().expect("forgotten"), 1));
        }
    });
    let text = std::fs::read_to_string(&file).expect("there");
    assert!(check(Yes, &file).accept(&key(1)).is_ok(), "{text}");
    for number in 0..50 {
        assert!(HostKeyCheck::new(Yes, file.clone(), &format!("h{number}"), 22).accept(&key(number)).is_ok(), "{text}");
    }
    assert_eq!(text.lines().count(), 51, "{text}");
}

#[test]
fn where_nothing_can_be_recorded_the_key_is_accepted_for_this_run() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("file"), "").expect("written");
    let files = ["file/known_hosts", "/proc/none/known_hosts", "/dev/null"].map(|path| dir.path().join(path));
    for file in files {
        assert!(!check(AcceptNew, &file).accept(&key(1)).expect("accepted").newly_recorded, "{file:?}");
        assert!(matches!(check(Yes, &file).accept(&key(1)), Err(HostKeyError::Unknown { .. })));
    }
    let none = HostKeyCheck::with_files(AcceptNew, vec![], "h", 22);
    assert!(!none.accept(&key(1)).expect("accepted").newly_recorded);
}

#[test]
fn all_files_are_read_and_the_first_one_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    std::fs::write(&two, key(1).line_for("[i-0abc]:2222")).expect("written");
    let both = |policy| HostKeyCheck::with_files(policy, vec![one.clone(), two.clone()], "i-0abc", 2222);
    assert!(both(Yes).accept(&key(1)).is_ok() && !one.exists());
    assert!(
        matches!(both(AcceptNew).accept(&key(2)), Err(HostKeyError::Changed { known_hosts, .. }) if known_hosts == two)
    );
    std::fs::write(&two, format!("@revoked {}", key(3).line_for("*"))).expect("written");
    assert!(both(AcceptNew).accept(&key(1)).expect("new").newly_recorded && one.exists());
    std::fs::write(&one, key(3).line_for("[i-0abc]:2222")).expect("written");
    assert!(matches!(both(AcceptNew).accept(&key(3)), Err(HostKeyError::Revoked { .. })));
}

#[test]
fn a_line_that_is_not_utf8_or_cannot_be_understood_lets_no_other_key_in() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    std::fs::write(&file, [key(1).line_for("[i-0abc]:2222").as_bytes(), b" caf\xe9\n"].concat()).expect("written");
    assert!(matches!(check(AcceptNew, &file).accept(&key(2)), Err(HostKeyError::Changed { .. })));
    assert!(check(Yes, &file).accept(&key(1)).is_ok());
    std::fs::write(&file, "[i-0abc]:2222 ssh-ed25519 AAAA!\n").expect("written");
    let error = check(AcceptNew, &file).accept(&key(2)).expect_err("odd").to_string();
    assert!(error.ends_with(":1 is about [i-0abc]:2222, but its key is not valid base64"), "{error}");
}

#[tokio::test]
async fn a_name_that_a_line_cannot_carry_is_refused_before_anything_is_sent() {
    for host in ["", "a b", "a,b", "#x", "!x", "h\n@cert-authority *"] {
        let check = HostKeyCheck::new(Off, "unused".into(), host, 22);
        assert!(matches!(check.known_types().await, Err(HostKeyError::NotAHost { .. })), "{host:?}");
    }
}

#[test]
fn concurrent_first_connections_record_a_key_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let new = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| check(AcceptNew, &file).accept(&key(1)).expect("accepted"))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|key| key.newly_recorded).count()
    });
    assert_eq!(new, 1);
    assert_eq!(std::fs::read_to_string(&file).expect("written").lines().count(), 1);
}

#[test]
fn the_types_on_record_are_reported_without_revoked_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let name = "[i-0abc]:2222";
    std::fs::write(&file, format!("@revoked {}\n", key(2).line_for(name))).expect("written");
    assert!(check(Yes, &file).read_types().expect("read").is_empty());
    check(AcceptNew, &file).accept(&key(1)).expect("accepted");
    assert_eq!(check(Yes, &file).read_types().expect("read"), ["ssh-ed25519"]);
}

#[test]
fn a_pinned_key_is_the_only_one_whatever_the_policy_and_is_still_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("known_hosts");
    let first = check(AcceptNew, &file).accept(&key(1)).expect("accepted");
    for policy in [Yes, AcceptNew, Off] {
        let pinned = check(policy, &file).pinned(first.clone());
        assert!(pinned.accept(&key(1)).is_ok());
        assert!(matches!(pinned.accept(&key(2)), Err(HostKeyError::NotPinned { .. })), "{policy:?}");
    }
    std::fs::write(&file, key(2).line_for("[i-0abc]:2222")).expect("written");
    let changed = check(AcceptNew, &file).pinned(first).accept(&key(1));
    assert!(matches!(changed, Err(HostKeyError::Changed { .. })));
}
