//! `-o KEY=VALUE`: the keys of `ssh_config` that both commands understand.

mod idle;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::units;
use crate::ssh::StrictHostKeyChecking;
use crate::stream::AddressFamily;
use idle::Idle;

/// What the `-o` options said. As in ssh, the first value given for a key is the one that counts; identity files and
/// environment variables add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SshOptions {
    pub(crate) address_family: Option<AddressFamily>,
    pub(crate) batch_mode: Option<bool>,
    pub(crate) compression: Option<bool>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) identities_only: Option<bool>,
    pub(crate) identity_agent: Option<PathBuf>,
    pub(crate) identity_files: Vec<PathBuf>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) port: Option<u16>,
    pub(crate) request_tty: Option<RequestTty>,
    pub(crate) send_env: Vec<String>,
    pub(crate) rekey_limit: Option<RekeyLimit>,
    pub(crate) server_alive_count_max: Option<usize>,
    pub(crate) server_alive_interval: Option<Duration>,
    pub(crate) set_env: Vec<(String, String)>,
    pub(crate) strict_host_key_checking: Option<StrictHostKeyChecking>,
    pub(crate) user: Option<String>,
    /// Nothing but `none` is an empty list.
    pub(crate) user_known_hosts_files: Option<Vec<PathBuf>>,
}

/// When to ask for a pseudo-terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestTty {
    /// For a shell, if standard input is a terminal.
    Auto,
    No,
    /// For a command too, if standard input is a terminal.
    Yes,
    /// Whatever standard input is.
    Force,
}

/// When new keys are agreed; what is not said is as usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RekeyLimit {
    pub(crate) bytes: Option<usize>,
    pub(crate) time: Option<Duration>,
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    /// Errors only.
    Quiet,
    /// Errors, their hints, and warnings.
    Info,
    /// Each stage of the way with its duration.
    Stages,
    /// What the parts of ssmssh report to its developers.
    Debug,
}

/// An `-o` option cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OptionError {
    #[error("`-o {given}`: `{key}` is not among the options understood here: {}", known_keys())]
    Unknown { given: String, key: String },
    #[error("`-o {given}`: {key} takes {expected}")]
    Value { given: String, key: &'static str, expected: &'static str },
    #[error("`-o {given}` has no value: expected KEY=VALUE")]
    NoValue { given: String },
    #[error("`-o {given}` is not offered here; {reason}")]
    NotOffered { given: String, reason: &'static str },
}

/// Takes a value, or says what the key takes.
type Setter = fn(&mut SshOptions, &OsStr) -> Result<(), &'static str>;

const KEYS: &[(&str, Setter)] = &[
    ("AddressFamily", |o, v| first(&mut o.address_family, address_family(v)?)),
    ("BatchMode", |o, v| first(&mut o.batch_mode, yes_or_no(v)?)),
    ("Compression", |o, v| first(&mut o.compression, yes_or_no(v)?)),
    ("ConnectTimeout", |o, v| first(&mut o.connect_timeout, duration(v)?)),
    ("IdentitiesOnly", |o, v| first(&mut o.identities_only, yes_or_no(v)?)),
    ("IdentityAgent", |o, v| first(&mut o.identity_agent, PathBuf::from(v))),
    ("IdentityFile", |o, v| push(&mut o.identity_files, PathBuf::from(v))),
    ("LogLevel", |o, v| first(&mut o.log_level, log_level(v)?)),
    ("Port", |o, v| first(&mut o.port, port(v)?)),
    ("RekeyLimit", |o, v| first(&mut o.rekey_limit, rekey_limit(v)?)),
    ("RequestTTY", |o, v| first(&mut o.request_tty, request_tty(v)?)),
    ("SendEnv", |o, v| extend(&mut o.send_env, words(v)?)),
    ("ServerAliveCountMax", |o, v| first(&mut o.server_alive_count_max, count(v)?)),
    ("ServerAliveInterval", |o, v| first(&mut o.server_alive_interval, duration(v)?)),
    ("SetEnv", |o, v| extend(&mut o.set_env, assignments(v)?)),
    ("StrictHostKeyChecking", |o, v| first(&mut o.strict_host_key_checking, strictness(v)?)),
    ("User", |o, v| first(&mut o.user, text(v, "a user name in UTF-8")?.to_owned())),
    ("UserKnownHostsFile", |o, v| first(&mut o.user_known_hosts_files, files(v)?)),
];

/// A year: moments that far away can still be told.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Keys whose value is a list of words. Quotes hold a word of it together, also where they stand around all of it.
const LISTS: [&str; 3] = ["SendEnv", "SetEnv", "UserKnownHostsFile"];

impl SshOptions {
    /// Reads the arguments of all `-o`, in the order they were given.
    pub(crate) fn parse<'a>(given: impl IntoIterator<Item = &'a OsString>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for one in given {
            options.set(one)?;
        }
        Ok(options)
    }

    fn set(&mut self, given: &OsStr) -> Result<(), OptionError> {
        let lossy = || given.to_string_lossy().into_owned();
        let (typed, value) = split(given.as_bytes());
        let idle = Idle::find(typed);
        let known = KEYS.iter().find(|(key, _)| key.as_bytes().eq_ignore_ascii_case(typed));
        if unquoted(value).is_empty() && (idle.is_some() || known.is_some()) {
            return Err(OptionError::NoValue { given: lossy() });
        }
        if let Some(idle) = idle {
            let checked = idle.check(OsStr::from_bytes(unquoted(value)));
            return checked.map_err(|reason| OptionError::NotOffered { given: lossy(), reason });
        }
        let Some((key, setter)) = known else {
            let key = String::from_utf8_lossy(typed).into_owned();
            return Err(OptionError::Unknown { given: lossy(), key });
        };
        let value = if LISTS.contains(key) { value } else { unquoted(value) };
        setter(self, OsStr::from_bytes(value)).map_err(|expected| OptionError::Value { given: lossy(), key, expected })
    }
}

fn known_keys() -> String {
    KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

/// `Key=value`, `Key value` and `Key = value`; the value may stand in double quotes.
fn split(given: &[u8]) -> (&[u8], &[u8]) {
    let given = given.trim_ascii();
    let end = given.iter().position(|b| *b == b'=' || b.is_ascii_whitespace()).unwrap_or(given.len());
    let (key, rest) = given.split_at(end);
    let rest = rest.trim_ascii_start();
    let value = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii();
    (key, value)
}

fn unquoted(value: &[u8]) -> &[u8] {
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).filter(|v| !v.contains(&b'"'));
    quoted.unwrap_or(value)
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a setter")]
fn first<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    slot.get_or_insert(value);
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a setter")]
fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), &'static str> {
    list.push(value);
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a setter")]
fn extend<T>(list: &mut Vec<T>, values: Vec<T>) -> Result<(), &'static str> {
    list.extend(values);
    Ok(())
}

fn text<'a>(value: &'a OsStr, expected: &'static str) -> Result<&'a str, &'static str> {
    value.to_str().ok_or(expected)
}

/// The entry of `table` that `value` names, in whatever case.
fn choice<T: Copy>(value: &OsStr, table: &[(&str, T)], expected: &'static str) -> Result<T, &'static str> {
    let found = table.iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, meaning)| *meaning).ok_or(expected)
}

fn yes_or_no(value: &OsStr) -> Result<bool, &'static str> {
    choice(value, &[("yes", true), ("true", true), ("no", false), ("false", false)], "yes or no")
}

fn address_family(value: &OsStr) -> Result<AddressFamily, &'static str> {
    use AddressFamily::{Any, Inet, Inet6};
    choice(value, &[("any", Any), ("inet", Inet), ("inet6", Inet6)], "any, inet or inet6")
}

fn strictness(value: &OsStr) -> Result<StrictHostKeyChecking, &'static str> {
    use StrictHostKeyChecking::{AcceptNew, Off, Yes};
    choice(
        value,
        &[("yes", Yes), ("accept-new", AcceptNew), ("off", Off), ("no", Off)],
        "yes, accept-new, off or no (the same as off)",
    )
}

fn request_tty(value: &OsStr) -> Result<RequestTty, &'static str> {
    use RequestTty::{Auto, Force, No, Yes};
    choice(value, &[("auto", Auto), ("no", No), ("yes", Yes), ("force", Force)], "auto, no, yes or force")
}

fn log_level(value: &OsStr) -> Result<LogLevel, &'static str> {
    use LogLevel::{Debug, Info, Quiet, Stages};
    let table = [
        ("quiet", Quiet),
        ("fatal", Quiet),
        ("error", Quiet),
        ("info", Info),
        ("verbose", Stages),
        ("debug", Debug),
        ("debug1", Debug),
        ("debug2", Debug),
        ("debug3", Debug),
    ];
    choice(value, &table, "QUIET, FATAL, ERROR, INFO, VERBOSE, DEBUG, DEBUG1, DEBUG2 or DEBUG3")
}

fn port(value: &OsStr) -> Result<u16, &'static str> {
    value.to_str().and_then(units::port).ok_or("a number from 1 to 65535")
}

/// Zero is for never.
fn duration(value: &OsStr) -> Result<Duration, &'static str> {
    value.to_str().and_then(units::time).filter(|time| *time <= LONGEST).ok_or("a time such as 30, 30s, 5m or 1h30m")
}

fn count(value: &OsStr) -> Result<usize, &'static str> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or("a number")
}

/// An amount of data and, behind it, a time; `default` and `none` for the one, `none` for the other.
fn rekey_limit(value: &OsStr) -> Result<RekeyLimit, &'static str> {
    const EXPECTED: &str = "an amount of data such as 512M, and optionally a time such as 1h";
    let (amount, time) = match text(value, EXPECTED)?.split_once(char::is_whitespace) {
        Some((amount, time)) => (amount, Some(time.trim_start())),
        None => (text(value, EXPECTED)?, None),
    };
    let bytes = if is_usual(amount) { None } else { Some(bytes(amount).ok_or(EXPECTED)?) };
    let time = time.filter(|time| !is_usual(time)).map(|time| duration(OsStr::new(time)));
    Ok(RekeyLimit { bytes, time: time.transpose().map_err(|_| EXPECTED)? })
}

fn is_usual(text: &str) -> bool {
    text.eq_ignore_ascii_case("default") || text.eq_ignore_ascii_case("none")
}

/// A number of bytes with one of ssh's suffixes. Keys for less than 16 bytes are refused, as ssh does.
fn bytes(text: &str) -> Option<usize> {
    units::size(text).and_then(|bytes| bytes.try_into().ok()).filter(|bytes| *bytes >= 16)
}

/// Words between white space; double quotes hold one together.
fn words(value: &OsStr) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for letter in text(value, "text in UTF-8")?.chars() {
        match letter {
            '"' => (quoted, begun) = (!quoted, true),
            space if space.is_ascii_whitespace() && !quoted => {
                words.extend(begun.then(|| std::mem::take(&mut word)));
                begun = false;
            }
            other => {
                word.push(other);
                begun = true;
            }
        }
    }
    words.extend(begun.then_some(word));
    if quoted { Err("balanced quotes") } else { Ok(words) }
}

/// Paths between white space, or `none`.
fn files(value: &OsStr) -> Result<Vec<PathBuf>, &'static str> {
    if value.to_str().is_none() {
        return Ok(vec![PathBuf::from(value)]);
    }
    let words = words(value)?;
    let is_none = matches!(words.as_slice(), [word] if word.eq_ignore_ascii_case("none"));
    Ok(if is_none { Vec::new() } else { words.into_iter().map(PathBuf::from).collect() })
}

fn assignments(value: &OsStr) -> Result<Vec<(String, String)>, &'static str> {
    let pair = |word: String| {
        let pair = word.split_once('=').filter(|(name, _)| !name.is_empty());
        pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or("NAME=VALUE")
    };
    words(value)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<SshOptions, OptionError> {
        SshOptions::parse(&given.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn message(given: &str) -> String {
        parse(&[given]).unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_understood_in_any_case_with_an_equals_sign_or_a_space() {
        let expected = SshOptions { port: Some(2222), ..SshOptions::default() };
        for spelling in ["Port=2222", "port 2222", "PORT = 2222", "  Port\t2222 ", "Port=\"2222\""] {
            assert_eq!(parse(&[spelling]).as_ref(), Ok(&expected), "{spelling}");
        }
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_known_ones() {
        insta::assert_snapshot!(message("Frob=x"), @"`-o Frob=x`: `Frob` is not among the options understood here: AddressFamily, BatchMode, Compression, ConnectTimeout, IdentitiesOnly, IdentityAgent, IdentityFile, LogLevel, Port, RekeyLimit, RequestTTY, SendEnv, ServerAliveCountMax, ServerAliveInterval, SetEnv, StrictHostKeyChecking, User, UserKnownHostsFile");
    }

    #[test]
    fn the_readme_lists_every_key_and_no_other() {
        let readme = include_str!("../../README.md");
        let table = readme.split_once("| `-o` | means |").and_then(|(_, rest)| rest.split_once("\n\n")).unwrap().0;
        let listed: Vec<_> =
            table.lines().filter_map(|row| row.strip_prefix("| `")?.split(['=', '`']).next()).collect();
        assert_eq!(listed, KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    }

    #[test]
    fn a_wrong_value_is_answered_with_what_the_key_takes() {
        insta::assert_snapshot!(message("StrictHostKeyChecking=ask"), @"`-o StrictHostKeyChecking=ask`: StrictHostKeyChecking takes yes, accept-new, off or no (the same as off)");
        insta::assert_snapshot!(message("port=0"), @"`-o port=0`: Port takes a number from 1 to 65535");
        insta::assert_snapshot!(message("ConnectTimeout=soon"), @"`-o ConnectTimeout=soon`: ConnectTimeout takes a time such as 30, 30s, 5m or 1h30m");
        insta::assert_snapshot!(message("SetEnv=lone"), @"`-o SetEnv=lone`: SetEnv takes NAME=VALUE");
        insta::assert_snapshot!(message("User"), @"`-o User` has no value: expected KEY=VALUE");
    }

    #[test]
    fn a_key_that_changes_nothing_needs_a_value_too() {
        for given in
            ["ControlMaster", "ControlMaster=", "TCPKeepAlive = ", "CheckHostIP=\"\"", "ForwardAgent", "Ciphers="]
        {
            assert_eq!(message(given), format!("`-o {given}` has no value: expected KEY=VALUE"));
        }
    }

    #[test]
    fn a_key_that_changes_nothing_is_taken_and_one_that_would_is_refused() {
        assert_eq!(parse(&["ControlMaster=auto", "forwardagent no"]), Ok(SshOptions::default()));
        insta::assert_snapshot!(message("ForwardAgent=yes"), @"`-o ForwardAgent=yes` is not offered here; keys and screens of this machine are not lent to a node");
    }

    #[test]
    fn the_first_value_counts_and_identity_files_add_up() {
        let options = parse(&["User=a", "User=b", "IdentityFile=x", "IdentityFile y z"]).unwrap();
        assert_eq!(options.user.as_deref(), Some("a"));
        assert_eq!(options.identity_files, [PathBuf::from("x"), PathBuf::from("y z")]);
    }

    #[test]
    fn environment_variables_come_as_words_with_quotes() {
        let options = parse(&["SetEnv=A=1 B=\"two words\" C=", "SendEnv LANG LC_*"]).unwrap();
        let pairs = [("A", "1"), ("B", "two words"), ("C", "")];
        assert_eq!(options.set_env, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(options.send_env, ["LANG", "LC_*"]);
    }

    #[test]
    fn new_keys_are_agreed_after_an_amount_a_time_or_both() {
        let limit = |given: &str| parse(&[given]).unwrap().rekey_limit.unwrap();
        let (bytes, time) = (Some(256 << 10), Some(Duration::from_secs(90)));
        assert_eq!(limit("RekeyLimit=256K"), RekeyLimit { bytes, time: None });
        assert_eq!(limit("RekeyLimit 256k 90"), RekeyLimit { bytes, time });
        assert_eq!(limit("RekeyLimit=\"default 90s\""), RekeyLimit { bytes: None, time });
        assert_eq!(limit("RekeyLimit=1G none").bytes, Some(1 << 30));
        for wrong in ["RekeyLimit=15", "RekeyLimit=much", "RekeyLimit=1M soon", "RekeyLimit=99999999999G"] {
            assert!(message(wrong).contains("such as 512M"), "{wrong}");
        }
    }

    #[test]
    fn times_take_units() {
        let seconds = |given| parse(&[given]).unwrap().connect_timeout.unwrap().as_secs();
        assert_eq!(
            [seconds("ConnectTimeout=5"), seconds("ConnectTimeout=5s"), seconds("ConnectTimeout=2m")],
            [5, 5, 120]
        );
    }

    #[test]
    fn ssh_spellings_of_no_checking_mean_the_same() {
        for value in ["no", "off", "NO"] {
            let options = parse(&[&format!("StrictHostKeyChecking={value}")]).unwrap();
            assert_eq!(options.strict_host_key_checking, Some(StrictHostKeyChecking::Off));
        }
    }
}
