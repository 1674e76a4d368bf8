//! Options of ssh, scp and their like that a command does not have: what each is for, and what to do instead.

use std::fmt;

use clap::error::{ContextKind, ContextValue};

/// An option of another program was given that is not offered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` of {program} ({purpose}) is not offered here")]
pub(crate) struct Absent {
    given: Given,
    program: &'static str,
    purpose: &'static str,
    /// What does the same, or comes close.
    pub(crate) instead: &'static str,
}

/// How it is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Short(char),
    Long(&'static str),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(flag) => write!(f, "-{flag}"),
            Self::Long(name) => write!(f, "--{name}"),
        }
    }
}

/// Options that are alike: their letters, what they are for, and what to do instead.
type Row = (&'static str, &'static str, &'static str);

/// The options of other programs that one of the commands does not have.
pub(crate) type Table = &'static [(&'static str, &'static [Row])];

impl Absent {
    /// The option that clap does not know, if `table` does.
    pub(crate) fn in_usage(usage: &clap::Error, table: Table) -> Option<Self> {
        let Some(ContextValue::String(given)) = usage.get(ContextKind::InvalidArg) else { return None };
        if let Some(name) = given.strip_prefix("--") {
            let &(name, program, purpose, instead) = LONG.iter().find(|(known, ..)| *known == name)?;
            return Some(Self { given: Given::Long(name), program, purpose, instead });
        }
        let flag = given.strip_prefix('-')?.chars().next()?;
        table.iter().find_map(|(program, rows)| {
            let &(_, purpose, instead) = rows.iter().find(|(flags, ..)| flags.contains(flag))?;
            Some(Self { given: Given::Short(flag), program, purpose, instead })
        })
    }
}

/// What `ssmssh` lacks.
pub(crate) const OF_SSMSSH: Table = &[("ssh", SSH)];

/// What `ssmcp` lacks. Whoever copies has more than one program in the fingers.
pub(crate) const OF_SSMCP: Table = &[("scp", SCP), ("cp and rsync", CP), ("ssh", SSH_FOR_COPIES)];

const FORWARD: &str = "the AWS CLI forwards a port: `aws ssm start-session --target NODE --document-name \
    AWS-StartPortForwardingSession --parameters portNumber=80,localPortNumber=8080`";
const KEYS: &str = "keys are files: name one with `-i FILE`";
const ONE_SESSION: &str =
    "each run has a session of its own; one run can do several things: `ssmssh NODE 'first; second'`";
const STRONGEST: &str = "the strongest that both sides know is taken";
const ROUTE: &str = "connections to AWS leave as the system routes them, or through the proxy that HTTPS_PROXY names";
const NO_JUMP: &str = "none is needed: Session Manager leads to the node itself";
const THROUGH_HERE: &str = "keys stay on this machine; `ssmcp NODE:FILE NODE:FILE` copies from node to node";
const RUN_IT: &str = "`ssmssh` runs commands and shells";

const SSH: &[Row] = &[
    ("A", "forward the SSH agent", THROUGH_HERE),
    ("Bb", "bind to an interface or an address", ROUTE),
    ("D", "a SOCKS proxy", FORWARD),
    ("E", "write the log to a file", "redirect standard error: `2> FILE`"),
    ("e", "choose the escape character", "it is `~` on a new line; `-T` does without"),
    ("f", "go to the background", "with a key without a passphrase, `ssmssh -n NODE COMMAND &` does"),
    ("G", "print the configuration", "`-v` tells what is used"),
    ("I", "take keys from a token", KEYS),
    ("J", "jump over another host", NO_JUMP),
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

const SCP: &[Row] = &[
    ("A", "forward the SSH agent", THROUGH_HERE),
    ("D", "start an SFTP server without SSH", "the node's own is used; `ssmcp` connects by itself"),
    ("J", "jump over another host", NO_JUMP),
    ("R", "copy from node to node without this machine", THROUGH_HERE),
    ("S", "connect with another program", "none is needed: `ssmcp` connects by itself"),
    ("X", "set the size and number of SFTP requests", "both follow the path; `-j N` sets the number of streams"),
    ("c", "choose the cipher", STRONGEST),
];

const CP: &[Row] = &[
    ("HL", "follow links", "they are followed; `--links` keeps them"),
    ("ad", "keep everything as it is", "`-r -p --links` keeps times, permissions and links"),
    ("f", "replace what is there", "it is replaced; `--newer` and `--skip-same` leave some of it"),
    ("n", "only show what would be done", "`--dry-run` does"),
    ("u", "leave what is newer", "`--newer` does"),
    ("z", "compress", "`-C` does, and `--compression auto`, the default, where it pays"),
];

/// Long options that people know from elsewhere: name, program, purpose, what to do instead.
const LONG: &[(&str, &str, &str, &str)] = &[
    ("recursive", "cp and rsync", "copy directories", "`-r` does"),
    ("preserve", "cp", "keep times and permissions", "`-p` does"),
    ("archive", "cp and rsync", "keep everything as it is", "`-r -p --links` keeps times, permissions and links"),
    ("times", "rsync", "keep times", "`-p` keeps times and permissions"),
    ("perms", "rsync", "keep permissions", "`-p` keeps times and permissions"),
    ("delete", "rsync", "remove what the source does not have", "nothing is removed here: `ssmssh NODE rm …` does"),
    ("update", "cp and rsync", "leave what is newer", "`--newer` does"),
    ("compress", "rsync", "compress", "`-C` does, and `--compression auto`, the default of ssmcp, where it pays"),
    ("bwlimit", "rsync", "limit the rate", "`-l LIMIT` does, in Kbit a second"),
    ("dereference", "cp", "follow links", "they are followed; `--links` keeps them"),
    ("quiet", "many programs", "print less", "`-q` does"),
    ("verbose", "many programs", "print more", "`-v` does"),
    ("port", "many programs", "name the port", "`-p PORT` does for ssmssh, `-P PORT` for ssmcp"),
    ("user", "many programs", "name the user", "`USER@NODE` does"),
    ("identity", "many programs", "name a key", "`-i FILE` does"),
    ("identity-file", "many programs", "name a key", "`-i FILE` does"),
    ("target", "the AWS CLI", "name the node", "it stands alone: `ssmssh NODE`, `ssmcp FILE NODE:PATH`"),
];

const SSH_FOR_COPIES: &[Row] = &[
    ("EGMNWYegktwxy", "for shells and commands", RUN_IT),
    ("I", "take keys from a token", KEYS),
    ("K", "log in with GSSAPI", KEYS),
    ("b", "bind to an address", ROUTE),
    ("m", "choose the integrity algorithm", STRONGEST),
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::ssmcp::args::SsmcpArgs;
    use crate::cli::ssmssh::args::SsmsshArgs;

    fn absent<A: Parser>(table: Table, words: &str) -> Option<String> {
        let Err(error) = A::try_parse_from(words.split(' ')) else { panic!("accepted: {words}") };
        Absent::in_usage(&error, table).map(|absent| absent.to_string())
    }

    #[test]
    fn options_of_ssh_that_are_missing_are_answered_with_what_to_do_instead() {
        let absent = |words| absent::<SsmsshArgs>(OF_SSMSSH, words);
        let forward = absent("ssmssh -L 8080:localhost:80 i-0123456789abcdef0").unwrap();
        assert_eq!(forward, "`-L` of ssh (forward a port of this machine) is not offered here");
        assert!(absent("ssmssh -vJbastion i-0123456789abcdef0").unwrap().starts_with("`-J` of ssh"));
        assert!(absent("ssmssh -fN i-0123456789abcdef0").unwrap().starts_with("`-f` of ssh"));
        assert_eq!(absent("ssmssh --frobnicate i-0123456789abcdef0"), None);
    }

    #[test]
    fn options_of_scp_and_its_like_that_are_missing_are_answered_too() {
        for (flag, program) in [
            ("-J", "scp"),
            ("-S", "scp"),
            ("-c", "scp"),
            ("-A", "scp"),
            ("-R", "scp"),
            ("-X", "scp"),
            ("-D", "scp"),
            ("-a", "cp and rsync"),
            ("-u", "cp and rsync"),
            ("-N", "ssh"),
        ] {
            let said = absent::<SsmcpArgs>(OF_SSMCP, &format!("ssmcp {flag} x i-0123456789abcdef0:")).unwrap();
            assert!(said.starts_with(&format!("`{flag}` of {program} (")), "{said}");
        }
    }

    #[test]
    fn long_options_that_people_know_from_elsewhere_are_answered_with_ours() {
        for option in ["--recursive", "--preserve", "--delete", "--archive", "--bwlimit"] {
            let said = absent::<SsmcpArgs>(OF_SSMCP, &format!("ssmcp {option} x i-0123456789abcdef0:")).unwrap();
            assert!(said.starts_with(&format!("`{option}` of ")), "{said}");
        }
        for (command, argument) in [(SsmsshArgs::command(), "ssmssh"), (SsmcpArgs::command(), "ssmcp")] {
            let ours: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            assert!(LONG.iter().all(|(name, ..)| !ours.contains(name)), "{argument}");
        }
    }

    #[test]
    fn nothing_is_called_missing_that_is_there_and_nothing_twice() {
        for (command, table) in [(SsmsshArgs::command(), OF_SSMSSH), (SsmcpArgs::command(), OF_SSMCP)] {
            let mut missing: Vec<_> = table.iter().flat_map(|(_, rows)| *rows).flat_map(|row| row.0.chars()).collect();
            let all = missing.len();
            missing.sort_unstable();
            missing.dedup();
            assert_eq!(missing.len(), all, "{missing:?}");
            for argument in command.get_arguments() {
                let flags =
                    argument.get_short().into_iter().chain(argument.get_all_short_aliases().unwrap_or_default());
                for flag in flags {
                    assert!(!missing.contains(&flag), "-{flag}");
                }
            }
        }
    }
}
