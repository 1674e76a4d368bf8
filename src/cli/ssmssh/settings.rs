//! What one run of `ssmssh` does: its arguments and the environment, resolved.

use std::ffi::{OsStr, OsString};

use super::args::SsmsshArgs;
use crate::cli::environment::{Environment, matches_pattern};
use crate::cli::options::{RequestTty, SshOptions};
use crate::cli::settings::{ConnectionSettings, SettingsError};
use crate::cli::target::Target;

/// What one run of `ssmssh` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SsmsshSettings {
    pub(crate) connection: ConnectionSettings,
    pub(crate) target: Target,
    /// The command line for the node's shell; none for a shell.
    pub(crate) command: Option<Vec<u8>>,
    pub(crate) request_tty: RequestTty,
    pub(crate) null_stdin: bool,
    /// Remove the host key on record, and do nothing else.
    pub(crate) forget_host: bool,
    /// The terminal's type, for the pseudo-terminal.
    pub(crate) term: String,
    /// Variables to set on the node, where its SSH server accepts them.
    pub(crate) remote_env: Vec<(String, String)>,
}

impl SsmsshSettings {
    pub(crate) fn resolve(args: &SsmsshArgs, env: &Environment) -> Result<Self, SettingsError> {
        let options = SshOptions::parse(&args.connection.options)?;
        let mut connection =
            ConnectionSettings::with_options(&args.connection, &options, args.user.as_deref(), args.port, env)?;
        // A data channel carries less than a processor compresses; what is random already costs next to nothing.
        connection.compression.get_or_insert(true);
        Ok(Self {
            connection,
            target: args.target.clone(),
            command: command_line(&args.command),
            request_tty: request_tty(args, &options),
            null_stdin: args.null_stdin,
            forget_host: args.forget_host,
            term: env.text("TERM")?.unwrap_or_else(|| "dumb".to_owned()),
            remote_env: sent(&options.send_env, env).chain(options.set_env.iter().cloned()).collect(),
        })
    }
}

fn request_tty(args: &SsmsshArgs, options: &SshOptions) -> RequestTty {
    match (args.no_tty, args.tty) {
        (true, _) => RequestTty::No,
        (false, 0) => options.request_tty.unwrap_or(RequestTty::Auto),
        (false, 1) => RequestTty::Yes,
        (false, 2..) => RequestTty::Force,
    }
}

/// What the `ssh_config` of Debian, Fedora and macOS sends: the language in which to answer.
const USUALLY_SENT: [&str; 2] = ["LANG", "LC_*"];

/// The variables that the patterns name. As with ssh, `-PATTERN` takes names back, the usual ones too.
fn sent<'a>(patterns: &'a [String], env: &'a Environment) -> impl Iterator<Item = (String, String)> + 'a {
    let (back, given): (Vec<_>, Vec<_>) = patterns.iter().map(String::as_str).partition(|one| one.starts_with('-'));
    let taken_back = move |name: &str| back.iter().any(|pattern| matches_pattern(&pattern[1..], name));
    let patterns = USUALLY_SENT.into_iter().chain(given);
    patterns.flat_map(|pattern| env.matching(pattern)).filter(move |(name, _)| !taken_back(name))
}

/// The words joined by single spaces, as ssh does: the node's shell splits them again.
fn command_line(words: &[OsString]) -> Option<Vec<u8>> {
    (!words.is_empty()).then(|| words.join(OsStr::new(" ")).into_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::options::LogLevel;

    const NODE: &str = "i-0123456789abcdef0";

    fn try_resolve(words: &[&str], variables: &[(&str, &str)]) -> Result<SsmsshSettings, SettingsError> {
        let args = SsmsshArgs::try_parse_from([&["ssmssh"], words].concat()).unwrap();
        SsmsshSettings::resolve(&args, &Environment::of(variables.iter().copied()))
    }

    fn resolve(words: &[&str], variables: &[(&str, &str)]) -> SsmsshSettings {
        try_resolve(words, &[&[("HOME", "/home/me")], variables].concat()).unwrap()
    }

    fn user(words: &[&str], variables: &[(&str, &str)]) -> String {
        let settings = resolve(words, variables);
        settings.connection.user_at(&settings.target).to_owned()
    }

    #[test]
    fn the_user_comes_from_the_target_then_l_then_o_then_the_environment_then_ec2_user() {
        let target = format!("a@{NODE}");
        let env = [("SSMSSH_USER", "d")];
        assert_eq!(user(&["-l", "b", "-o", "User=c", &target], &env), "a");
        assert_eq!(user(&["-l", "b", "-o", "User=c", NODE], &env), "b");
        assert_eq!(user(&["-o", "User=c", NODE], &env), "c");
        assert_eq!(user(&[NODE], &env), "d");
        assert_eq!(user(&[NODE], &[]), "ec2-user");
        assert_eq!(user(&[NODE], &[("SSMSSH_USER", "")]), "ec2-user");
    }

    #[test]
    fn command_words_are_joined_by_single_spaces() {
        assert_eq!(resolve(&[NODE, "echo", "a  b", ""], &[]).command.as_deref(), Some(&b"echo a  b "[..]));
        assert_eq!(resolve(&[NODE], &[]).command, None);
    }

    #[test]
    fn flags_stand_above_the_option_of_the_same_meaning() {
        let settings = resolve(&["-T", "-p", "1", "-q", "-o", "RequestTTY=force", "-o", "Port=2", NODE], &[]);
        assert_eq!((settings.request_tty, settings.connection.port.get()), (RequestTty::No, 1));
        assert!(settings.connection.is_quiet());
        let settings = resolve(&["-o", "RequestTTY=force", "-o", "Port=2", "-o", "LogLevel=DEBUG1", NODE], &[]);
        assert_eq!((settings.request_tty, settings.connection.port.get()), (RequestTty::Force, 2));
        assert_eq!(settings.connection.log_level, LogLevel::Debug);
    }

    #[test]
    fn variables_are_sent_by_pattern_and_set_by_name() {
        let env = [("LC_ALL", "C"), ("LC_TIME", "de"), ("LANG", "en"), ("SECRET", "x")];
        let sent = |words: &[&str]| {
            let settings = resolve(&[words, &[NODE]].concat(), &env);
            settings.remote_env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sent(&[]), "LANG=en LC_ALL=C LC_TIME=de");
        assert_eq!(sent(&["-o", "SendEnv=SEC*", "-o", "SetEnv=A=b"]), "LANG=en LC_ALL=C LC_TIME=de SECRET=x A=b");
        assert_eq!(sent(&["-o", "SendEnv=-LC_*"]), "LANG=en");
        assert_eq!(sent(&["-o", "SendEnv=-L* LC_TIM?"]), "");
    }
}
