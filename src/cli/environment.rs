//! The environment, read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The environment variables of the process at its start. A variable that is set to nothing counts as not set.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    home: Option<PathBuf>,
}

/// The variable of that name is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8(pub(super) &'static str);

impl Environment {
    /// The process's own. The only place where it is read.
    pub(super) fn of_process() -> Self {
        Self { home: std::env::home_dir(), ..Self::of(std::env::vars_os()) }
    }

    pub(super) fn of<K: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: BTreeMap<OsString, OsString> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let home = variables.get(OsStr::new("HOME")).map(PathBuf::from);
        Self { variables, home }
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, NotUtf8> {
        let text = |value: &OsStr| value.to_str().map(str::to_owned).ok_or(NotUtf8(name));
        self.get(name).map(text).transpose()
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| self.expand(Path::new(value)))
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref().filter(|home| home.is_absolute())
    }

    /// A file or directory of ours among the user's state, where the XDG base directory specification has it.
    pub(super) fn state(&self, name: &str) -> Option<PathBuf> {
        let said = self.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let state = said.or_else(|| Some(self.home()?.join(".local/state")))?;
        Some(state.join("ssmssh").join(name))
    }

    /// `~/` at the beginning is the home directory: in `-o IdentityFile=~/key` no shell has replaced it.
    pub(super) fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// The variables that one of ssh's patterns (`*`, `?`) names.
    pub(super) fn matching<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
        let pairs = self.variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        let named = pairs.filter(|(name, _)| matches_pattern(pattern, name));
        named.map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

/// Whether one of ssh's patterns (`*`, `?`) names the variable.
pub(super) fn matches_pattern(pattern: &str, name: &str) -> bool {
    matches(pattern.as_bytes(), name.as_bytes())
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        Some((b'?', rest)) => name.split_first().is_some_and(|(_, tail)| matches(rest, tail)),
        Some((byte, rest)) => name.split_first().is_some_and(|(head, tail)| head == byte && matches(rest, tail)),
    }
}
