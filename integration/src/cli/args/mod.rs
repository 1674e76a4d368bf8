//! What was typed.

mod faults;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use ssm_lab::{CredentialSource, Lab, LabBuilder, Pace};

use super::units;
use faults::FaultArgs;

/// Which numbers an option takes.
const WHOLE: &str = "a whole number";
const POSITIVE: &str = "a whole number, 1 or more";

/// A local Session Manager on loopback, with one managed node.
///
/// With a COMMAND, runs it with an environment that points at the lab, and ends with its exit status. Without one, prints
/// what to export and serves until Ctrl-C, or in the background: `eval "$(ssm-lab --background)"`.
///
/// Times are written as for ssh (`30s`, `1h30m`) or in milliseconds (`50ms`), sizes in bytes or with K, M or G (of 1024).
///
/// Exit status: that of COMMAND, 128+n if signal n ended it; 126 if it cannot be run, 127 if there is none of its name; 125
/// for every failure of the lab itself.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Args {
    /// Puts the SSH server on this loopback port behind the node, instead of the embedded one
    #[arg(long, value_name = "PORT", value_parser = units::port_option)]
    sshd: Option<u16>,

    /// Starts a real OpenSSH sshd and puts it behind the node
    #[arg(long, conflicts_with = "sshd")]
    openssh: bool,

    /// Expects a real amazon-ssm-agent on this loopback port to be the node
    #[arg(long, value_name = "PORT", value_parser = units::port_option, requires_all = ["tls_cert", "tls_key"], conflicts_with_all = ["sshd", "openssh"])]
    agent_listen: Option<u16>,

    /// The PEM file of that port's certificate, which the agent's system must trust
    #[arg(long, value_name = "FILE", requires = "agent_listen")]
    tls_cert: Option<PathBuf>,

    /// The PEM file of its key
    #[arg(long, value_name = "FILE", requires = "agent_listen")]
    tls_key: Option<PathBuf>,

    /// Lets nothing listen on the node's port 22
    #[arg(long, conflicts_with_all = ["sshd", "openssh", "agent_listen"])]
    no_sshd: bool,

    /// What the node takes to connect to its port
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    connect_time: Option<Duration>,

    /// How long the node discards input after the handshake
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    completion_lag: Option<Duration>,

    /// Lets the node vanish this long after its first session was started
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    vanish_after: Option<Duration>,

    /// The node's id
    #[arg(long, value_name = "ID")]
    node: Option<String>,

    /// One more node with an embedded SSH server of its own; may be repeated
    #[arg(long, value_name = "ID", conflicts_with = "agent_listen")]
    another_node: Vec<String>,

    /// The agent version that the node reports and behaves as
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,

    /// How the node reads its port: 1 KiB a millisecond as the real agent, or as fast as it can
    #[arg(long, value_enum, default_value_t = PaceArg::Agent)]
    pace: PaceArg,

    #[command(flatten, next_help_heading = "What goes wrong")]
    faults: FaultArgs,

    /// Where the command finds its credentials
    #[arg(long, value_enum, default_value_t = CredentialsArg::Env)]
    credentials: CredentialsArg,

    /// How long credentials are good; then new ones take their place, but not in the environment
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    credentials_lifetime: Option<Duration>,

    /// Answers the first N calls of the API with throttling
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = units::numbers::<u32>(WHOLE))]
    throttle: u32,

    /// Lets IAM refuse this action; may be repeated
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS)]
    deny: Vec<String>,

    /// Takes clients that do not sign the WebSocket upgrade
    #[arg(long)]
    allow_unsigned: bool,

    /// Serve in the background, once ready: prints what to export, for `eval`. `kill $SSM_LAB_PID` ends it
    #[arg(long, conflicts_with_all = ["command", "env_file"])]
    pub(crate) background: bool,

    /// Write what to export to FILE instead of printing it, for `. FILE` in another shell; removed at the end
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) env_file: Option<PathBuf>,

    /// Be the process in the background.
    #[arg(long, hide = true, conflicts_with_all = ["command", "background"])]
    pub(crate) detached: bool,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What IAM can be asked about here.
const ACTIONS: [&str; 4] =
    ["ssm:StartSession", "ssm:ResumeSession", "ssm:TerminateSession", "ssmmessages:OpenDataChannel"];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PaceArg {
    Agent,
    Ideal,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CredentialsArg {
    /// In the environment
    Env,
    /// In the shared credentials file
    File,
    /// From a process that the configuration names
    Process,
}

impl Args {
    pub(crate) fn into_builder(self) -> LabBuilder {
        let mut builder = self.faults.apply(Lab::builder());
        builder = builder.pace(self.pace.into()).credential_source(self.credentials.into()).throttle(self.throttle);
        if let Some(port) = self.sshd {
            builder = builder.sshd(port);
        }
        if self.openssh {
            builder = builder.openssh();
        }
        if self.no_sshd {
            builder = builder.no_sshd();
        }
        if let (Some(port), Some(certificate), Some(key)) = (self.agent_listen, &self.tls_cert, &self.tls_key) {
            builder = builder.agent_listener(port, certificate, key);
        }
        if let Some(id) = &self.node {
            builder = builder.node(id);
        }
        for id in &self.another_node {
            builder = builder.another_node(id);
        }
        if self.allow_unsigned {
            builder = builder.allow_unsigned_upgrades();
        }
        builder = self.apply_times(builder);
        self.deny.into_iter().fold(builder, LabBuilder::deny)
    }

    fn apply_times(&self, mut builder: LabBuilder) -> LabBuilder {
        if let Some(version) = &self.agent_version {
            builder = builder.agent_version(version);
        }
        if let Some(lifetime) = self.credentials_lifetime {
            builder = builder.credentials_lifetime(lifetime);
        }
        if let Some(after) = self.vanish_after {
            builder = builder.vanish_after(after);
        }
        builder
            .connect_time(self.connect_time.unwrap_or_default())
            .completion_lag(self.completion_lag.unwrap_or_default())
    }
}

impl From<PaceArg> for Pace {
    fn from(pace: PaceArg) -> Self {
        match pace {
            PaceArg::Agent => Self::Agent,
            PaceArg::Ideal => Self::Ideal,
        }
    }
}

impl From<CredentialsArg> for CredentialSource {
    fn from(source: CredentialsArg) -> Self {
        match source {
            CredentialsArg::Env => Self::Environment,
            CredentialsArg::File => Self::File,
            CredentialsArg::Process => Self::Process,
        }
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_as_for_the_other_commands() {
        let usage = |words: &[&str]| Args::try_parse_from([&["ssm-lab"], words].concat()).map(drop);
        assert!(usage(&["--delay", "30ms", "--rate", "250K", "--idle-timeout", "1h30m", "--silence", "5"]).is_ok());
        for (words, expected) in [
            (["--delay", "soon"], "expected a time such as 30s"),
            (["--rate", "fast"], "expected a size in bytes such as 65536"),
            (["--rate", "0"], "expected at least 1 bytes"),
            (["--seed", "x"], "expected a whole number"),
            (["--cut-session", "0"], "expected a whole number, 1 or more"),
            (["--throttle", "x"], "expected a whole number"),
            (["--sshd", "70000"], "expected a port, 1 to 65535"),
            (["--loss", "x"], "expected a number from 0 to 1"),
        ] {
            let said = usage(&words).unwrap_err().to_string();
            assert!(said.contains(expected), "{words:?}: {said}");
        }
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        let args = Args::try_parse_from(["ssm-lab", "--loss", "0.1", "--", "ssh", "--loss", "-x"]).unwrap();
        assert_eq!(args.command, ["ssh", "--loss", "-x"]);
        assert!(Args::try_parse_from(["ssm-lab", "ssh"]).is_err());
    }
}
