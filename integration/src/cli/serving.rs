//! A lab without a command: says what to export, and serves until a signal.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::stdio::{dup2_stderr, dup2_stdout};
use ssm_lab::Lab;

use super::{End, Ending, args::Args, diagnose};

/// By this a file of a lab is known.
const FIRST_LINE: &str = "# Leads to a running ssm-lab.";

/// Where to say what to export.
#[derive(Debug)]
pub(super) enum Announce {
    /// On standard output.
    Printed,
    /// In a file, removed at the end.
    File(PathBuf),
    /// To the process that started this one, which waits until standard output is closed.
    Starter,
}

impl Announce {
    pub(super) fn of(args: &Args) -> Self {
        match &args.env_file {
            Some(path) => Self::File(path.clone()),
            None if args.detached => Self::Starter,
            None => Self::Printed,
        }
    }

    /// Returns what has to live as long as the lab.
    fn say(&self, lab: &Lab) -> io::Result<Option<EnvFile<'_>>> {
        let exports = exports(lab);
        if let Self::File(path) = self {
            let file = EnvFile::write(path, &exports)?;
            diagnose(&format!("serving; `. {}` in another shell leads there, Ctrl-C ends it", path.display()));
            return Ok(Some(file));
        }
        let mut stdout = io::stdout();
        stdout.write_all(exports.as_bytes())?;
        stdout.flush()?;
        if matches!(self, Self::Printed) {
            diagnose("serving; Ctrl-C ends it");
        } else {
            let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
            dup2_stdout(&nowhere)?;
            dup2_stderr(&nowhere)?;
        }
        Ok(None)
    }
}

pub(super) async fn serve(lab: &Lab, announce: Announce) -> io::Result<End> {
    let mut ending = Ending::new()?;
    let _file = announce.say(lab)?;
    Ok(End::Signal(ending.wait().await))
}

/// A file with what to export, which holds credentials. Dropping it removes the file.
struct EnvFile<'a>(&'a Path);

impl<'a> EnvFile<'a> {
    /// A file that is there already is replaced if it is one of a lab, which did not live to remove it.
    fn write(path: &'a Path, exports: &str) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(FIRST_LINE)) {
            std::fs::remove_file(path).map_err(named)?;
        }
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file: File = opened.map_err(named)?;
        let written = Self(path);
        file.write_all(exports.as_bytes()).map_err(named)?;
        Ok(written)
    }
}

impl Drop for EnvFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// Lines for a POSIX shell.
fn exports(lab: &Lab) -> String {
    let mut text = format!("{FIRST_LINE}\nunset {}\n", Lab::env_remove().join(" "));
    for (name, value) in lab.env() {
        let _ = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
    }
    let _ = writeln!(text, "export SSM_LAB_PID='{}'", std::process::id());
    text
}
