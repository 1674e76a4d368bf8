//! Options of ssh that `ssmssh` does not have: what each is for, and what to do instead.

use clap::error::{ContextKind, ContextValue};

/// An option of ssh was given that is not offered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`-{flag}` of ssh ({purpose}) is not offered here")]
pub(crate) struct Absent {
    flag: char,
    purpose: &'static str,
    /// What does the same, or comes close.
    pub(crate) instead: &'static str,
}

impl Absent {
    /// The option that clap does not know, if it is one of ssh's.
    pub(crate) fn in_usage(usage: &clap::Error) -> Option<Self> {
        let Some(ContextValue::String(given)) = usage.get(ContextKind::InvalidArg) else { return None };
        let flag = given.strip_prefix('-')?.chars().next()?;
        let found = ABSENT.iter().find(|(flags, ..)| flags.contains(flag));
        found.map(|&(_, purpose, instead)| Self { flag, purpose, instead })
    }
}

const FORWARD: &str = "the AWS CLI forwards a port: `aws ssm start-session --target NODE --document-name \
    AWS-StartPortForwardingSession --parameters portNumber=80,localPortNumber=8080`";
const KEYS: &str = "keys are files: name one with `-i FILE`";
const ONE_SESSION: &str =
    "each run has a session of its own; one run can do several things: `ssmssh NODE 'first; second'`";
const STRONGEST: &str = "the strongest that both sides know is taken";
const ROUTE: &str = "connections to AWS leave as the system routes them, or through the proxy that HTTPS_PROXY names";

/// The options, what they are for, and what to do instead.
const ABSENT: &[(&str, &str, &str)] = &[
    ("A", "forward the SSH agent", "keys stay on this machine; `ssmcp NODE:FILE NODE:FILE` copies from node to node"),
    ("Bb", "bind to an interface or an address", ROUTE),
    ("D", "a SOCKS proxy", FORWARD),
    ("E", "write the log to a file", "redirect standard error: `2> FILE`"),
    ("e", "choose the escape character", "it is `~` on a new line; `-T` does without"),
    (
        "F",
        "read another configuration file",
        "ssmssh reads none: options are given with `-o`, which lists those it knows",
    ),
    ("f", "go to the background", "with a key without a passphrase, `ssmssh -n NODE COMMAND &` does"),
    ("G", "print the configuration", "`-v` tells what is used"),
    ("I", "take keys from a token", KEYS),
    ("J", "jump over another host", "none is needed: Session Manager leads to the node itself"),
    ("K", "log in with GSSAPI", KEYS),
    ("Lg", "forward a port of this machine", FORWARD),
    ("MOS", "share one connection between runs", ONE_SESSION),
    ("N", "run no command", "it is of use with forwards only, and there are none"),
    ("R", "forward a port of the node", "a command's input and output can be piped: `COMMAND | ssmssh NODE COMMAND`"),
    ("W", "connect standard input and output to a port", "`ssmssh NODE nc HOST PORT` does, where the node has nc"),
    ("XY", "forward X11", "programs for a terminal work: `ssmssh -t NODE COMMAND`"),
    ("c", "choose the cipher", STRONGEST),
    ("m", "choose the integrity algorithm", STRONGEST),
    ("s", "start a subsystem", "`ssmcp` copies files with SFTP"),
    ("w", "forward a network device", FORWARD),
    ("y", "log to syslog", "redirect standard error: `2> FILE`"),
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::ssmssh::args::SsmsshArgs;

    #[test]
    fn options_of_ssh_that_are_missing_are_answered_with_what_to_do_instead() {
        let absent = |words: &str| {
            let error = SsmsshArgs::try_parse_from(words.split(' ')).unwrap_err();
            Absent::in_usage(&error).map(|absent| absent.to_string())
        };
        let forward = absent("ssmssh -L 8080:localhost:80 i-0123456789abcdef0").unwrap();
        assert_eq!(forward, "`-L` of ssh (forward a port of this machine) is not offered here");
        assert!(absent("ssmssh -vJbastion i-0123456789abcdef0").unwrap().starts_with("`-J` of ssh"));
        assert!(absent("ssmssh -fN i-0123456789abcdef0").unwrap().starts_with("`-f` of ssh"));
        assert_eq!(absent("ssmssh --frobnicate i-0123456789abcdef0"), None);
    }

    #[test]
    fn nothing_is_called_missing_that_is_there() {
        let command = SsmsshArgs::command();
        for flag in command.get_arguments().filter_map(clap::Arg::get_short) {
            assert!(!ABSENT.iter().any(|(flags, ..)| flags.contains(flag)), "-{flag}");
        }
    }
}
