//! The catalogue of failures: what is said about each, what would help, and the exit status. The only printer of
//! diagnostics.

mod hints;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use super::absent::Absent;
use super::identity::IdentityError;
use super::options::LogLevel;
use super::progress;
use super::settings::SettingsError;
use super::target::{Operand, TargetError};
use super::terminal;
use crate::client::ClientError;
use crate::copy::CopyError;
use crate::ssh::sftp::SftpError;
use crate::stream::{StreamError, TargetId};
use hints::Hint;

/// Exit status of every failure that is not the remote command's.
pub(crate) const FAILURE: u8 = 255;

/// The name that stands before every line: the command's.
static PROGRAM: OnceLock<&'static str> = OnceLock::new();

/// Whatever ends a command early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// Also how clap asks for the help and the version to be printed.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    Absent(#[from] Absent),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Neither this source nor the target is on a node.
    #[error("{}; a side on a node is written `[USER@]NODE:PATH`", both_local(.0))]
    BothLocal(Operand),
    #[error("cannot use SFTP on {node}")]
    Sftp { node: TargetId, source: SftpError },
    #[error("the SFTP server of {0} does not answer")]
    SftpTimeout(TargetId),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("not logged in within {} s (ConnectTimeout)", .0.as_secs())]
    ConnectTimeout(Duration),
    #[error("{0}")]
    NothingToForget(String),
    #[error("cannot write standard output")]
    Output(#[source] io::Error),
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    #[error("cannot start threads")]
    Runtime(#[source] io::Error),
    /// The user's terminal could not be used.
    #[error("cannot {action} the terminal")]
    Terminal { action: &'static str, source: io::Error },
}

fn both_local(source: &Operand) -> String {
    match source {
        Operand::Pipe => "standard input and the target are both on this machine".to_owned(),
        source => format!("{source} and the target are both on this machine, where `cp` copies"),
    }
}

/// What is said about a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    message: String,
    hints: Vec<Hint>,
    code: u8,
}

/// Names the command whose diagnostics are printed from now on.
pub(crate) fn init(program: &'static str) {
    PROGRAM.get_or_init(|| program);
}

/// Prints what is to be said about `error` and returns the exit status.
pub(crate) fn print(error: &CliError, level: LogLevel) -> u8 {
    if let CliError::Usage(usage) = error {
        return print_usage(usage);
    }
    let report = Report::of(error);
    write_stderr(&report.render(program(), level > LogLevel::Quiet));
    report.code
}

/// What is wrong, without what would help.
pub(crate) fn message(error: &CliError) -> String {
    with_causes(error)
}

/// Prints one line of information.
pub(crate) fn note(line: &str) {
    write_stderr(&format!("{}: {}\n", program(), escape(line)));
}

/// Prints what would help against something that was told before.
pub(crate) fn advise(line: &str) {
    note(&format!("hint: {line}"));
}

/// Prints one line of information in between what a remote terminal shows, whose cursor may be anywhere on its line.
pub(crate) fn aside(line: &str) {
    let gap = if terminal::is_raw() { "\n" } else { "" };
    write_stderr(&format!("{gap}{}: {}\n", program(), escape(line)));
}

/// Prints, in the same way, why a lost connection does not come back, and what would help.
pub(crate) fn obstacle(error: &StreamError) {
    let report = Report::of(&CliError::Client(error.clone().into()));
    let gap = if terminal::is_raw() { "\n" } else { "" };
    write_stderr(&format!(
        "{gap}{}",
        Report { message: format!("not connected yet: {}", report.message), ..report }.render(program(), true)
    ));
}

/// Prints the words of an SSH server before the login, line by line.
pub(crate) fn banner(text: &str) {
    let lines: String = text.lines().map(|line| escape(line) + "\n").collect();
    write_stderr(&lines);
}

/// Prints lines of our own as they are.
pub(crate) fn verbatim(text: &str) {
    write_stderr(text);
}

/// Help and version are what was asked for and go to standard output; anything else is a mistake in what was typed.
fn print_usage(usage: &clap::Error) -> u8 {
    if !usage.use_stderr() {
        let _ = io::stdout().write_all(usage.render().to_string().as_bytes());
        return 0;
    }
    let text = usage.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    write_stderr(&format!("{}: {}", program(), without_misleading_tip(text)));
    FAILURE
}

/// An option that is not known, put behind `--`, would be taken for the node.
fn without_misleading_tip(usage: &str) -> String {
    let parts = usage.split("\n\n").filter(|part| !part.trim_start().starts_with("tip: to pass '-"));
    parts.collect::<Vec<_>>().join("\n\n")
}

/// A terminal in raw mode wants its carriage returns; a stderr that is gone has no reader to miss anything.
fn write_stderr(text: &str) {
    let text = if terminal::is_raw() { text.replace('\n', "\r\n") } else { text.to_owned() };
    let _ = progress::above(|| io::stderr().write_all(text.as_bytes()));
}

fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or("ssmssh")
}

impl Report {
    pub(crate) fn of(error: &CliError) -> Self {
        Self { message: with_causes(error), hints: hints::of(error), code: FAILURE }
    }

    fn render(&self, program: &str, with_hints: bool) -> String {
        let mut text = format!("{program}: {}\n", escape(&self.message));
        for hint in self.hints.iter().filter(|_| with_hints) {
            let _ = match hint {
                Hint::Line(line) => writeln!(text, "{program}: hint: {}", escape(line)),
                Hint::Block(block) => writeln!(text, "{block}"),
            };
        }
        text
    }
}

/// The error and those behind it, without what an outer one has said already.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    followed(error.to_string(), error.source())
}

/// A message, and the causes behind it.
pub(crate) fn followed(mut message: String, mut cause: Option<&dyn std::error::Error>) -> String {
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            let _ = write!(message, ": {text}");
        }
        cause = error.source();
    }
    message
}

/// Makes control characters visible: what a service or a node says must not steer the terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        // Those that turn the direction of writing make text look like what it is not.
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || turns {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datachannel::ChannelError;
    use crate::ssh::{AuthenticationError, SshError};
    use crate::stream::{Denied, ServiceError, StreamError};

    fn render(error: &CliError) -> String {
        Report::of(error).render("ssmssh", true)
    }

    fn service(error: ServiceError) -> CliError {
        CliError::Client(ClientError::Service(error))
    }

    #[test]
    fn what_iam_denies_comes_with_the_statement_to_paste() {
        let denied = Denied {
            action: "ssm:StartSession",
            resources: vec!["arn:a".to_owned(), "arn:b".to_owned()],
            message: "User: x is not authorized".to_owned(),
        };
        insta::assert_snapshot!(render(&service(ServiceError::Denied(denied))), @r#"
        ssmssh: not allowed by IAM: ssm:StartSession on arn:a and arn:b
        ssmssh: hint: the service says: User: x is not authorized
        ssmssh: hint: this statement in your IAM policy would allow it:
        {
          "Action": "ssm:StartSession",
          "Effect": "Allow",
          "Resource": [
            "arn:a",
            "arn:b"
          ]
        }
        "#);
    }

    #[test]
    fn a_node_that_is_not_connected_comes_with_the_usual_causes() {
        let target = TargetId::new("mi-0123456789abcdef0").unwrap();
        let error = ServiceError::TargetNotConnected { target, region: "eu-west-1".to_owned() };
        insta::assert_snapshot!(render(&service(error)), @r"
        ssmssh: node mi-0123456789abcdef0 is not connected to Session Manager in region eu-west-1
        ssmssh: hint: is mi-0123456789abcdef0 in eu-west-1? Another region is asked with `--region` or AWS_REGION
        ssmssh: hint: on the node the SSM agent has to run, and its role to allow it (AmazonSSMManagedInstanceCore)
        ssmssh: hint: the node has to reach the endpoints ssm, ssmmessages and ec2messages of its region
        ");
    }

    #[test]
    fn a_refused_upgrade_names_both_causes() {
        let resources = vec!["arn:aws:ssm:*:*:session/${aws:userid}-*".to_owned()];
        let denied = Denied { action: "ssmmessages:OpenDataChannel", resources, message: String::new() };
        insta::assert_snapshot!(render(&CliError::Client(StreamError::UpgradeDenied(denied).into())), @r#"
        ssmssh: the service refused the WebSocket (403): either ssmmessages:OpenDataChannel is not allowed on arn:aws:ssm:*:*:session/${aws:userid}-*, or the credentials have expired
        ssmssh: hint: this statement in your IAM policy would allow it:
        {
          "Action": "ssmmessages:OpenDataChannel",
          "Effect": "Allow",
          "Resource": [
            "arn:aws:ssm:*:*:session/${aws:userid}-*"
          ]
        }
        ssmssh: hint: if it is allowed, log in again, or renew the credentials; `-v` shows where they come from
        "#);
    }

    #[test]
    fn a_crash_of_the_agents_worker_raises_the_question_of_the_port() {
        let text = "document process failed unexpectedly: document worker timed out".to_owned();
        let shown = render(&CliError::Client(StreamError::Ended(text).into()));
        assert!(shown.contains("listen on this port"), "{shown}");
        let longest =
            render(&CliError::Client(StreamError::Ended("it reached its longest duration".to_owned()).into()));
        assert!(!longest.contains("hint"), "{longest}");
    }

    #[test]
    fn a_session_that_was_idle_for_too_long_comes_with_the_option_that_keeps_it() {
        for text in ["Your session timed out due to inactivity.", "idle for 20 minutes"] {
            let idle = render(&CliError::Client(StreamError::Ended(text.to_owned()).into()));
            assert!(idle.contains("hint: `--keepalive 60`"), "{idle}");
        }
    }

    #[test]
    fn encryption_that_is_refused_is_not_put_down_to_an_old_agent() {
        let error = ChannelError::UnsupportedAction { action: "KMSEncryption".to_owned() };
        let shown = render(&CliError::Client(StreamError::Channel(error).into()));
        assert!(shown.contains("KMSEncryption") && !shown.contains("2.3.672.0"), "{shown}");
    }

    #[test]
    fn hints_about_the_user_hold_for_both_commands() {
        let (user, tried, methods) = ("me".to_owned(), Vec::new(), Vec::new());
        let refused = SshError::Authentication(AuthenticationError::Refused { user, tried, methods });
        let shown = render(&CliError::Client(refused.into()));
        assert!(shown.contains("`USER@NODE`") && !shown.contains("-l"), "{shown}");
    }

    #[test]
    fn a_missing_key_says_how_to_give_one() {
        let tried = vec!["/home/me/.ssh/id_ed25519".into(), "/home/me/.ssh/id_rsa".into()];
        insta::assert_snapshot!(render(&IdentityError::NoneUsable { tried, agent: None }.into()), @r"
        ssmssh: no private key to log in with: none of /home/me/.ssh/id_ed25519, /home/me/.ssh/id_rsa can be used
        ssmssh: hint: name one with `-i FILE` or SSMSSH_IDENTITY; only you may read it, and nobody may write it: `chmod 0400 FILE`
        ");
    }

    #[test]
    fn a_missing_region_says_what_to_run() {
        assert!(render(&service(ServiceError::NoRegion)).contains("`--region`"));
    }

    #[test]
    fn control_characters_of_others_are_made_visible() {
        let error = ServiceError::Credentials("\u{1b}[2J\nssmssh: all is well\u{202e}".to_owned());
        let text = render(&service(error));
        let line = text.lines().next().unwrap();
        assert_eq!(line, r"ssmssh: no usable AWS credentials: \u{1b}[2J\nssmssh: all is well\u{202e}");
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::other("no such device");
        let text = render(&CliError::Terminal { action: "read", source });
        assert_eq!(text, "ssmssh: cannot read the terminal: no such device\n");
    }
}
