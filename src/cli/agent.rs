//! The agent that keys are looked for in, and when its keys have their turn.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::options::SshOptions;
use crate::ssh::{AgentKey, SshAgent};

/// Where an agent listens, and which of its keys are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AgentSettings {
    pub(crate) socket: Option<PathBuf>,
    /// Of the agent's keys only those that a file names too.
    pub(crate) identities_only: bool,
}

impl AgentSettings {
    pub(super) fn resolve(options: &SshOptions, env: &Environment) -> Self {
        let socket = match options.identity_agent.as_deref() {
            Some(none) if none == Path::new("none") => None,
            Some(path) if path != Path::new("SSH_AUTH_SOCK") => Some(env.expand(path)),
            _ => env.path("SSH_AUTH_SOCK"),
        };
        Self { socket, identities_only: options.identities_only.unwrap_or(false) }
    }
}

/// The keys of the agent, and why there is none where one was asked. Many a `SSH_AUTH_SOCK` outlives its agent, so one that
/// does not answer is no error.
pub(super) async fn keys(settings: &AgentSettings) -> (Vec<AgentKey>, Option<String>) {
    let Some(socket) = &settings.socket else { return (Vec::new(), None) };
    match SshAgent::new(socket).keys().await {
        Ok(keys) if keys.is_empty() => (keys, Some(format!("the agent at {} has no key", socket.display()))),
        Ok(keys) => (keys, None),
        Err(error) => {
            tracing::info!(target: "ssmssh::detail", "{error}; its keys are not used");
            (Vec::new(), Some(error.to_string()))
        }
    }
}

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source<H, F> {
    /// The agent.
    Held(H),
    File(F),
}

/// The keys in the order of trial. Those that the agent holds and a file names come first. Then come files that were asked
/// for, before whatever else the agent holds, since a server takes about six keys; files that nobody asked for come last.
pub(super) fn in_order<H, F>(
    mut held: Vec<H>,
    files: Vec<F>,
    are_named: bool,
    only_named: bool,
    same: impl Fn(&H, &F) -> bool,
) -> Vec<Source<H, F>> {
    let (mut sources, mut rest) = (Vec::new(), Vec::new());
    for file in files {
        match held.iter().position(|key| same(key, &file)) {
            Some(index) => sources.push(Source::Held(held.remove(index))),
            None => rest.push(Source::File(file)),
        }
    }
    if only_named {
        held.clear();
    }
    let others = held.into_iter().map(Source::Held);
    if are_named {
        sources.extend(rest);
        sources.extend(others);
    } else {
        sources.extend(others);
        sources.extend(rest);
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::Source::{File, Held};
    use super::*;

    fn order(are_named: bool, only_named: bool) -> Vec<Source<char, char>> {
        in_order(vec!['x', 'b', 'y'], vec!['a', 'b'], are_named, only_named, |key, file| key == file)
    }

    #[test]
    fn named_files_come_before_what_else_the_agent_holds_and_usual_ones_behind() {
        assert_eq!(order(true, false), [Held('b'), File('a'), Held('x'), Held('y')]);
        assert_eq!(order(false, false), [Held('b'), Held('x'), Held('y'), File('a')]);
    }

    #[test]
    fn with_identities_only_the_agent_gives_what_a_file_names() {
        assert_eq!(order(true, true), [Held('b'), File('a')]);
        assert_eq!(order(false, true), [Held('b'), File('a')]);
    }

    #[test]
    fn the_agent_is_that_of_the_environment_unless_another_or_none_is_named() {
        let env = Environment::of([("SSH_AUTH_SOCK", "/env"), ("HOME", "/home/me")]);
        let socket = |given: &[&str]| {
            let given: Vec<_> = given.iter().map(Into::into).collect();
            AgentSettings::resolve(&SshOptions::parse(&given).unwrap(), &env).socket
        };
        assert_eq!(socket(&[]).as_deref(), Some(Path::new("/env")));
        assert_eq!(socket(&["IdentityAgent=SSH_AUTH_SOCK"]).as_deref(), Some(Path::new("/env")));
        assert_eq!(socket(&["IdentityAgent=~/agent"]).as_deref(), Some(Path::new("/home/me/agent")));
        assert_eq!(socket(&["IdentityAgent=none"]), None);
    }
}
