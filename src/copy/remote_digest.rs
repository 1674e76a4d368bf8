//! The SHA-256 of a file, as the other machine's own programs find it out.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::BytePath;
use crate::ssh::{Output, SshError, quote};

/// A smaller file is read back in the time that a program takes to start.
const WORTH_A_PROGRAM: u64 = 256 * 1024;
/// Programs that run at once: OpenSSH's server allows ten channels a connection by default.
const AT_ONCE: usize = 4;

/// Whichever the machine has: GNU coreutils, Perl (on macOS), OpenSSL, BSD. The file is its standard input, so that no
/// name is taken for an option or spelled in a way of its own. Each file gets a line.
const SCRIPT: &str = "\
if command -v sha256sum >/dev/null 2>&1; then hash='sha256sum'; \
elif command -v shasum >/dev/null 2>&1; then hash='shasum -a 256'; \
elif command -v openssl >/dev/null 2>&1; then hash='openssl dgst -sha256'; \
else hash='sha256 -q'; fi; \
for file do (exec $hash <\"$file\") || echo -; done";
/// The part of it that hashes all of a file.
const WHOLE: &str = "exec $hash <\"$file\"";

type Run = dyn Fn(Vec<u8>) -> BoxFuture<'static, Result<Output, SshError>> + Send + Sync;

/// Runs a program that hashes, where there is one.
pub(super) struct Hasher {
    run: Box<Run>,
    turns: Semaphore,
    is_useless: AtomicBool,
}

impl Hasher {
    pub(super) fn new<F, O>(run: F) -> Self
    where
        F: Fn(Vec<u8>) -> O + Send + Sync + 'static,
        O: Future<Output = Result<Output, SshError>> + Send + 'static,
    {
        let run = Box::new(move |command| run(command).boxed());
        Self { run, turns: Semaphore::new(AT_ONCE), is_useless: AtomicBool::new(false) }
    }

    /// `None`: it has to be found out in another way.
    pub(super) async fn digest(&self, path: &BytePath, size: u64) -> Option<[u8; 32]> {
        self.run(command([quote::word(path.as_bytes())]), size).await
    }

    /// As `digest`, of so many bytes of a file that may have more.
    pub(super) async fn digest_of_beginning(&self, path: &BytePath, size: u64) -> Option<[u8; 32]> {
        let digest = self.run(command_of_beginning(quote::word(path.as_bytes()), size), size).await;
        // A system that cannot cut a file gives nothing to hash.
        digest.filter(|digest| *digest != <[u8; 32]>::from(Sha256::digest(b"")))
    }

    async fn run(&self, command: Vec<u8>, size: u64) -> Option<[u8; 32]> {
        if size < WORTH_A_PROGRAM || self.is_useless.load(Ordering::Relaxed) {
            return None;
        }
        let _turn = self.turns.acquire().await.ok()?;
        let output = (self.run)(command).await;
        let digest = match &output {
            Ok(output) if output.status.success() => parse(&output.stdout, 1).pop().flatten(),
            _ => None,
        };
        if digest.is_none() {
            tracing::info!(?output, "no program there hashes files: they are read back");
            self.is_useless.store(true, Ordering::Relaxed);
        }
        digest
    }
}

/// The command that hashes files, which are words for the user's shell.
pub(super) fn command(files: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    command_of(SCRIPT, files)
}

/// The command that hashes the first bytes of a file.
pub(super) fn command_of_beginning(file: Vec<u8>, size: u64) -> Vec<u8> {
    command_of(&SCRIPT.replace(WHOLE, &format!("exec <\"$file\" && head -c {size} | $hash")), [file])
}

fn command_of(script: &str, files: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let program = [b"exec sh -c".to_vec(), quote::word(script.as_bytes()), b"sh".to_vec()];
    program.into_iter().chain(files).collect::<Vec<_>>().join(&b' ')
}

/// The digests of `count` files in what the command printed. A login script may print something before.
pub(super) fn parse(printed: &[u8], count: usize) -> Vec<Option<[u8; 32]>> {
    let lines = printed.trim_ascii_end().rsplit(|byte| *byte == b'\n');
    let mut digests: Vec<_> = lines.map(digest_in).chain(std::iter::repeat(None)).take(count).collect();
    digests.reverse();
    digests
}

/// The last word of a line that can be a digest: programs name the file before it or behind it.
fn digest_in(line: &[u8]) -> Option<[u8; 32]> {
    let mut words = line.rsplit(u8::is_ascii_whitespace).filter(|word| word.len() == 64);
    words.find_map(|word| data_encoding::HEXLOWER_PERMISSIVE.decode(word).ok()?.try_into().ok())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;
    use std::path::Path;

    use super::*;

    /// Runs the command for a file in `folder` with these programs only.
    fn run(folder: &Path, path: &BytePath, programs: &[&str]) -> Option<[u8; 32]> {
        run_all(folder, &[path], programs).pop()?
    }

    #[test]
    fn the_beginning_of_a_file_is_hashed_alone_and_what_cannot_be_read_is_not_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("it's"), b"content and more").unwrap();
        for (name, expected) in [("it's", Some(Sha256::digest(b"content").into())), ("missing", None)] {
            let command = OsString::from_vec(command_of_beginning(quote::word(name.as_bytes()), 7));
            let mut shell = std::process::Command::new("/bin/sh");
            let output = shell.arg("-c").arg(command).current_dir(folder.path()).output().unwrap();
            assert_eq!(parse(&output.stdout, 1), [expected], "{output:?}");
        }
    }

    fn run_all(folder: &Path, paths: &[&BytePath], programs: &[&str]) -> Vec<Option<[u8; 32]>> {
        let bin = tempfile::tempdir().unwrap();
        for program in ["sh", "perl", "env"].iter().chain(programs) {
            let found = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(program));
            let Some(found) = found.into_iter().find(|path| path.exists()) else { return vec![None; paths.len()] };
            std::os::unix::fs::symlink(found, bin.path().join(program)).unwrap();
        }
        let mut shell = std::process::Command::new("/bin/sh");
        let words = paths.iter().map(|path| quote::word(path.as_bytes()));
        shell.arg("-c").arg(OsString::from_vec(command(words))).current_dir(folder).env("PATH", bin.path());
        let output = shell.output().unwrap();
        assert!(output.status.success());
        parse(&output.stdout, paths.len())
    }

    #[test]
    fn each_program_hashes_a_file_of_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let expected: [u8; 32] = Sha256::digest(b"content").into();
        for name in [&b"plain"[..], b"-r", b"it's $(x) `y`\n\\ \"q\"", b"\xff\xfe"] {
            let path = BytePath::new(name);
            std::fs::write(folder.path().join(path.as_path()), b"content").unwrap();
            assert_eq!(run(folder.path(), &path, &["sha256sum"]), Some(expected), "{path}");
            for program in ["shasum", "openssl", "sha256"] {
                let found = run(folder.path(), &path, &[program]);
                let is_here = ["/usr/bin", "/bin"].iter().any(|place| Path::new(place).join(program).exists());
                assert_eq!(found, is_here.then_some(expected), "{program} {path}");
            }
        }
        assert_eq!(run(folder.path(), &"missing".into(), &["sha256sum"]), None);
        assert_eq!(run(folder.path(), &"plain".into(), &[]), None);
    }

    #[test]
    fn a_digest_is_found_in_what_a_program_prints() {
        let hex = "0123456789abcdef".repeat(4);
        let digest: [u8; 32] = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
        for printed in [format!("{hex}  -\n"), format!("SHA2-256(stdin)= {hex}\n"), format!("Welcome!\n{hex}\n")] {
            assert_eq!(parse(printed.as_bytes(), 1), [Some(digest)], "{printed}");
        }
        for printed in ["", "nothing\n", &hex[..63], &format!("{hex}0\n")] {
            assert_eq!(parse(printed.as_bytes(), 1), [None], "{printed}");
        }
        let several = format!("Welcome!\n{hex}  -\n-\n{hex}  -\n");
        assert_eq!(parse(several.as_bytes(), 3), [Some(digest), None, Some(digest)]);
        assert_eq!(parse(b"-\n", 2), [None, None]);
    }

    #[test]
    fn a_file_that_cannot_be_read_takes_nothing_from_those_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"content").unwrap();
        std::fs::create_dir(folder.path().join("directory")).unwrap();
        let expected = Some(Sha256::digest(b"content").into());
        let paths = ["missing", "file", "directory", "file"].map(BytePath::from);
        let found = run_all(folder.path(), &paths.each_ref(), &["sha256sum"]);
        assert_eq!(found, [None, expected, None, expected]);
    }
}
