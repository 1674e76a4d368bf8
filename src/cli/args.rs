//! What was typed about connections, checked for form only. What it means together with the environment is `settings`'
//! business.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use http::uri::Authority;

use super::units;

/// How to reach a node and log in: the options that both commands share.
#[expect(clippy::struct_excessive_bools, reason = "flags as they were typed")]
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Private key file; may be given several times
    #[arg(short = 'i', value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,

    /// An option as ssh spells it, such as `-o StrictHostKeyChecking=yes`; an unknown one lists the known
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub(crate) options: Vec<OsString>,

    /// Compress what is sent and received, as ssmssh does by default (as `-o Compression=yes`)
    #[arg(short = 'C')]
    pub(crate) compress: bool,

    /// Profile of the AWS configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// AWS region of the node
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,

    /// Where the SSM API is, if not at the region's usual place
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,

    /// Use IPv4 only, on this machine's side
    #[arg(short = '4', overrides_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// Use IPv6 only, on this machine's side
    #[arg(short = '6', overrides_with = "ipv4")]
    pub(crate) ipv6: bool,

    /// A configuration file of ssh's; none is read, so only `none` is taken
    #[arg(short = 'F', value_name = "FILE", hide = true)]
    pub(crate) config_file: Option<PathBuf>,

    /// File of known host keys
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,

    /// Why you connect; kept with the session's record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,

    /// How long to keep trying to resume a lost connection, or to wait for a silent node: `90s`, `5m`
    /// [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = units::times_up_to(LONGEST))]
    pub(crate) resume_timeout: Option<Duration>,

    /// Ask the SSH server for a sign of life after so much silence, so that the session does not count as idle; 0 for
    /// never, the default. As `-o ServerAliveInterval`, which gives up after three without an answer
    #[arg(long, value_name = "TIME", value_parser = units::times_up_to(LONGEST))]
    pub(crate) keepalive: Option<Duration>,

    /// Largest payload of one message, in bytes, 1K to 64K [default: 16K; `ssmcp`: 32K]
    #[arg(long, value_name = "SIZE", value_parser = units::sizes::<usize>(1024..=65536))]
    pub(crate) max_payload: Option<usize>,

    /// Most messages sent in a second, 0 for no limit [default: 900]
    #[arg(long, value_name = "N", value_parser = units::numbers::<u32>("a whole number"))]
    pub(crate) max_frames_per_second: Option<u32>,

    /// Host that takes the data, if not the one that the service names: that of a VPC endpoint without a DNS name of
    /// its own
    #[arg(long, value_name = "HOST[:PORT]", value_parser = host)]
    pub(crate) stream_host: Option<String>,

    /// Print errors only
    #[arg(short = 'q')]
    pub(crate) quiet: bool,

    /// Print each stage with its duration; twice: what the program reports for its developers
    #[arg(short = 'v', action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Whoever waits longer has mistaken the unit.
const LONGEST: Duration = Duration::from_hours(24);

/// A host, and a port where it is not the usual one.
fn host(text: &str) -> Result<String, &'static str> {
    let authority: Option<Authority> = text.parse().ok();
    let is_host = authority.is_some_and(|it| !it.host().is_empty() && !text.contains('@') && !text.ends_with(':'));
    if is_host { Ok(text.to_owned()) } else { Err("expected a host such as vpce-0a1b.example.com, without a scheme") }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    /// A command that has these options and no others.
    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Only {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    pub(crate) fn parse(words: &[&str]) -> Result<ConnectionArgs, clap::Error> {
        Only::try_parse_from([&["only"], words].concat()).map(|only| only.connection)
    }

    #[test]
    fn options_of_the_stream_outside_of_their_limits_are_refused_with_them() {
        let message = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert!(message(&["--max-payload", "512"]).contains("expected 1024 to 65536 bytes"));
        assert!(message(&["--resume-timeout", "86401"]).contains("expected 24h at most"));
        assert!(message(&["--keepalive", "abc"]).contains("expected a time such as 30s, 5m or 1h30m"));
        assert!(message(&["--max-frames-per-second", "10M"]).contains("expected a whole number"));
        for host in ["", "https://vpce.example.com", "me@vpce.example.com", "a b", "vpce:"] {
            assert!(message(&["--stream-host", host]).contains("expected a host"), "{host}");
        }
        assert!(parse(&["--stream-host", "vpce.example.com:8443"]).is_ok());
    }

    #[test]
    fn times_and_sizes_may_have_units() {
        let args = parse(&["--resume-timeout", "5m", "--keepalive", "90", "--max-payload", "32K"]).unwrap();
        let seconds = [args.resume_timeout, args.keepalive].map(|time| time.map(|time| time.as_secs()));
        assert_eq!((seconds, args.max_payload), ([Some(300), Some(90)], Some(32 << 10)));
    }

    #[test]
    fn of_two_address_families_the_last_counts() {
        let family = |words: &[&str]| parse(words).map(|args| (args.ipv4, args.ipv6)).unwrap();
        assert_eq!([family(&["-4"]), family(&["-46"])], [(true, false), (false, true)]);
    }
}
