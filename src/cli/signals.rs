//! Signals that end the process, and signals that only change something.

use std::future::{pending, poll_fn};
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{self, SignalKind, signal};

/// A signal that ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndSignal {
    number: u8,
    name: &'static str,
}

/// Those that end a process which does not catch them, but for the ones that cannot be caught and those that tell of a
/// fault in the process itself.
const END_SIGNALS: [(Signal, &str); 8] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::ABORT, "ABRT"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
    (Signal::ALARM, "ALRM"),
    (Signal::TERM, "TERM"),
];

impl EndSignal {
    fn all() -> impl Iterator<Item = Self> {
        let known =
            END_SIGNALS.iter().map(|(signal, name)| Some(Self { number: signal.as_raw().try_into().ok()?, name }));
        known.flatten()
    }

    /// The name that SSH has for it.
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// What a shell makes of a process that the signal ended.
    pub(crate) fn exit_code(self) -> u8 {
        128 + self.number
    }

    /// Ends the process by this signal, as it would have ended one that does not catch it: a shell's loop ends with its
    /// command only then. To be called when all is cleaned up. Returns where the signal would leave a core dump, which may
    /// hold a key; the exit status has to do then.
    pub(crate) fn end_process(self) {
        if !matches!(self.name, "QUIT" | "ABRT") {
            let _ = emulate_default_handler(self.number.into());
        }
    }
}

/// Catches the signals that end the process, from its making on.
#[derive(Debug)]
pub(crate) struct EndSignals(Vec<(EndSignal, unix::Signal)>);

impl EndSignals {
    /// A signal that the process was started to ignore stays ignored: that is what `nohup` and the background of a
    /// script are.
    pub(crate) fn catch() -> io::Result<Self> {
        let ignored = ignored();
        let wanted = EndSignal::all().filter(|end| ignored & (1 << (end.number - 1)) == 0);
        let catch = |end: EndSignal| Ok((end, signal(SignalKind::from_raw(end.number.into()))?));
        wanted.map(catch).collect::<io::Result<_>>().map(Self)
    }

    /// The next of them. Cancel safe.
    pub(crate) async fn recv(&mut self) -> EndSignal {
        poll_fn(|cx| {
            let mut arrived =
                self.0.iter_mut().filter_map(|(end, signal)| signal.poll_recv(cx).is_ready().then_some(*end));
            arrived.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Catches the key that stops a process in the background of its shell, Ctrl-Z mostly.
#[derive(Debug)]
pub(crate) struct Stops(Option<unix::Signal>);

impl Stops {
    /// A process that was started to ignore it is never stopped by it.
    pub(crate) fn catch() -> Self {
        let number = Signal::TSTP.as_raw();
        let is_ignored = ignored() & (1 << (number - 1)) != 0;
        Self(if is_ignored { None } else { signal(SignalKind::from_raw(number)).ok() })
    }

    /// Somebody wants the process to stop, which [`Stops::stop`] does. Cancel safe.
    pub(crate) async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => pending().await,
        }
    }

    /// Stops the process, and returns when it continues.
    pub(crate) fn stop() {
        let _ = emulate_default_handler(Signal::TSTP.as_raw());
    }
}

/// Lets a write that would make a file longer than `ulimit -f` allows fail, as on a full disk: left alone, the signal that
/// comes with it ends the process without a word, and with its temporary files where they are.
pub(crate) fn outlive_file_size_limit() -> io::Result<()> {
    // Once caught, it stays caught.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// The set of signals that are ignored, one bit each. Where the system does not tell, none is.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Catches the signals after which the terminal has to be looked at again.
#[derive(Debug)]
pub(crate) struct TerminalChanges {
    size: unix::Signal,
    resumed: unix::Signal,
}

impl TerminalChanges {
    pub(crate) fn catch() -> io::Result<Self> {
        // tokio has no name for SIGCONT.
        let resumed = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        Ok(Self { size: signal(SignalKind::window_change())?, resumed })
    }

    /// The terminal has another size, or the process goes on after a stop. Cancel safe.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.size.recv() => {}
            _ = self.resumed.recv() => {}
        }
    }
}

/// The number of a signal by the name that SSH has for it (RFC 4254 section 6.10), on the systems this runs on. Those
/// that differ between the systems are given as Linux numbers them.
pub(crate) fn number(name: &str) -> Option<u8> {
    const NUMBERS: [(&str, u8); 16] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("XCPU", 24),
    ];
    NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};

    use super::*;

    #[test]
    fn signals_have_the_numbers_that_shells_add_to_128() {
        assert_eq!([number("HUP"), number("KILL"), number("TERM")], [Some(1), Some(9), Some(15)]);
        assert_eq!(number("WHATEVER@example.com"), None);
    }

    #[tokio::test]
    async fn a_signal_that_would_end_the_process_is_caught() {
        let mut signals = EndSignals::catch().unwrap();
        // Not HUP, which is left alone where the tests run under nohup.
        kill_process(getpid(), Signal::TERM).unwrap();
        let end = signals.recv().await;
        assert_eq!((end.name(), end.exit_code()), ("TERM", 143));
    }
}
