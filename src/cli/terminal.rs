//! The user's terminal: its modes, its size, and that it is given back as it was found.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, Winsize, tcgetattr, tcgetwinsize,
    tcsetattr,
};

/// The terminal that is changed now, with the modes it had. One at a time: a passphrase is asked for before the
/// session begins.
static CHANGED: Mutex<Option<Changed>> = Mutex::new(None);

struct Changed {
    terminal: OwnedFd,
    found: Termios,
    set: Termios,
}

/// A terminal whose modes were changed.
///
/// Dropping it puts the modes back. A panic puts them back at once, so that its message can be read.
#[derive(Debug)]
#[must_use = "the modes are put back when this is dropped"]
pub(crate) struct ModeGuard(());

impl ModeGuard {
    /// Hands every key to the remote side as it is, signals and flow control included, and prints what comes back as
    /// it is.
    pub(crate) fn raw(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        Self::change(terminal, make_raw)
    }

    /// Shows nothing of what is typed.
    pub(crate) fn without_echo(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        Self::change(terminal, |modes| {
            modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK);
            modes.local_modes.insert(LocalModes::ECHONL);
        })
    }

    fn change(terminal: BorrowedFd<'_>, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let found = tcgetattr(terminal)?;
        let mut set = found.clone();
        change(&mut set);
        let terminal = terminal.try_clone_to_owned()?;
        let mut changed = changed();
        tcsetattr(&terminal, OptionalActions::Now, &set)?;
        *changed = Some(Changed { terminal, found, set });
        Ok(Self(()))
    }
}

impl Drop for ModeGuard {
    fn drop(&mut self) {
        restore();
    }
}

/// Stops the process as `^Z` would, with the modes that the terminal had. The stop comes a moment after this returns;
/// [`reapply`] is for when the process goes on.
pub(crate) fn stop() -> io::Result<()> {
    if let Some(changed) = &*changed() {
        apply(&changed.terminal, &changed.found);
    }
    Ok(kill_process(getpid(), Signal::TSTP)?)
}

/// Sets the changed modes again, after a stop in which somebody else may have set others.
pub(crate) fn reapply() {
    if let Some(changed) = &*changed() {
        apply(&changed.terminal, &changed.set);
    }
}

/// Puts the terminal's modes back, whoever changed them. Does nothing where nothing is changed.
fn restore() {
    if let Some(Changed { terminal, found, .. }) = changed().take() {
        apply(&terminal, &found);
    }
}

/// Sets modes at once rather than after pending output: a terminal that is stopped or gone would hold up the end of the
/// process. A failure has no remedy and nobody to be told.
fn apply(terminal: &OwnedFd, modes: &Termios) {
    let _ = tcsetattr(terminal, OptionalActions::Now, modes);
}

fn changed() -> MutexGuard<'static, Option<Changed>> {
    CHANGED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes every panic, of whatever thread, give the terminal back before it prints its message.
pub(crate) fn restore_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        print(info);
    }));
}

/// Whether what is printed needs a carriage return at the end of a line.
pub(crate) fn is_raw() -> bool {
    changed().as_ref().is_some_and(|changed| !changed.set.output_modes.contains(OutputModes::OPOST))
}

/// The size of the terminal; all zero where it is not known.
pub(crate) fn size(terminal: impl AsFd) -> Winsize {
    let unknown = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    tcgetwinsize(terminal).unwrap_or(unknown)
}

/// What OpenSSH sets in `sshtty.c: enter_raw_mode`.
fn make_raw(modes: &mut Termios) {
    modes.input_modes.insert(InputModes::IGNPAR);
    modes.input_modes.remove(
        InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON
            | InputModes::IXANY
            | InputModes::IXOFF,
    );
    modes.local_modes.remove(
        LocalModes::ISIG
            | LocalModes::ICANON
            | LocalModes::ECHO
            | LocalModes::ECHOE
            | LocalModes::ECHOK
            | LocalModes::ECHONL
            | LocalModes::IEXTEN,
    );
    modes.output_modes.remove(OutputModes::OPOST);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// The two ends of a pseudo-terminal.
    fn pty() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        (master, slave)
    }

    fn echoes(terminal: &OwnedFd) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// One test, because the terminal that is changed is the process's.
    #[test]
    fn a_terminal_is_raw_until_the_guard_goes_or_a_panic_comes() {
        let (_master, terminal) = pty();
        assert!(echoes(&terminal));

        let guard = ModeGuard::raw(terminal.as_fd()).unwrap();
        assert!(!echoes(&terminal) && is_raw());
        drop(guard);
        assert!(echoes(&terminal) && !is_raw());

        let guard = ModeGuard::without_echo(terminal.as_fd()).unwrap();
        assert!(!echoes(&terminal) && !is_raw());
        drop(guard);

        let before = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        restore_on_panic();
        let guard = ModeGuard::raw(terminal.as_fd()).unwrap();
        let panicked = std::thread::spawn(|| panic!("of another thread")).join();
        panic::set_hook(before);
        assert!(panicked.is_err() && echoes(&terminal));
        drop(guard);
    }

    #[test]
    fn the_size_of_what_is_no_terminal_is_zero() {
        let size = size(std::fs::File::open("/dev/null").unwrap());
        assert_eq!((size.ws_col, size.ws_row), (0, 0));
    }
}
