//! What was typed.

mod faults;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use ssm_lab::{CredentialSource, Lab, LabBuilder, Pace};

use faults::FaultArgs;

/// A local Session Manager on loopback, with one managed node.
///
/// With a COMMAND, runs it with an environment that points at the lab, and ends with its exit status. Without one, prints
/// what to export and serves until Ctrl-C. Exit status: that of COMMAND, 128+n if signal n ended it; 126 if it cannot be run,
/// 127 if there is none of its name; 125 for every failure of the lab itself.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Puts the SSH server on this loopback port behind the node, instead of the embedded one
    #[arg(long, value_name = "PORT")]
    sshd: Option<u16>,

    /// Starts a real OpenSSH sshd and puts it behind the node
    #[arg(long, conflicts_with = "sshd")]
    openssh: bool,

    /// Expects a real amazon-ssm-agent on this loopback port to be the node
    #[arg(long, value_name = "PORT", requires_all = ["tls_cert", "tls_key"], conflicts_with_all = ["sshd", "openssh"])]
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
    #[arg(long, value_name = "TIME", value_parser = duration)]
    connect_time: Option<Duration>,

    /// How long the node discards input after the handshake
    #[arg(long, value_name = "TIME", value_parser = duration)]
    completion_lag: Option<Duration>,

    /// Lets the node vanish this long after its first session was started
    #[arg(long, value_name = "TIME", value_parser = duration)]
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
    #[arg(long, value_name = "TIME", value_parser = duration)]
    credentials_lifetime: Option<Duration>,

    /// Answers the first N calls of the API with throttling
    #[arg(long, value_name = "N", default_value_t = 0)]
    throttle: u32,

    /// Lets IAM refuse this action; may be repeated
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS)]
    deny: Vec<String>,

    /// Takes clients that do not sign the WebSocket upgrade
    #[arg(long)]
    allow_unsigned: bool,

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

/// A number and a unit: `30ms`, `1.5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?.parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    seconds.ok_or_else(|| "expected a number and a unit: ms, s or m".to_owned())
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
    fn durations_need_a_unit() {
        assert_eq!(duration("30ms"), Ok(Duration::from_millis(30)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(duration("30").is_err() && duration("-1s").is_err() && duration("ms").is_err());
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        let args = Args::try_parse_from(["ssm-lab", "--loss", "0.1", "--", "ssh", "--loss", "-x"]).unwrap();
        assert_eq!(args.command, ["ssh", "--loss", "-x"]);
        assert!(Args::try_parse_from(["ssm-lab", "ssh"]).is_err());
    }
}
