//! What one run of `ssmcp` does: its arguments and the environment, resolved.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::args::SsmcpArgs;
use crate::cli::environment::Environment;
use crate::cli::report::CliError;
use crate::cli::settings::ConnectionSettings;
use crate::cli::target::Operand;
use crate::copy::{Compression, Streams};

/// What one run of `ssmcp` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SsmcpSettings {
    pub connection: ConnectionSettings,
    pub recursive: bool,
    pub preserve: bool,
    pub streams: Streams,
    pub compression: Compression,
    pub sources: Vec<Operand>,
    pub target: Operand,
}

pub(super) fn settings(args: impl IntoIterator<Item = OsString>, env: &Environment) -> Result<SsmcpSettings, CliError> {
    let args = SsmcpArgs::try_parse_from(args)?;
    let mut connection = ConnectionSettings::resolve(&args.connection, None, args.port, env)?;
    let mut sources: Vec<_> = args.operands.iter().map(|text| Operand::parse(text)).collect::<Result<_, _>>()?;
    let Some(target) = sources.pop().filter(|_| !sources.is_empty()) else {
        let missing = "a target is missing: the last PATH is where the others are copied to";
        return Err(SsmcpArgs::command().error(ErrorKind::TooFewValues, missing).into());
    };
    let is_local = |operand: &Operand| matches!(operand, Operand::Local(_));
    if is_local(&target)
        && let Some(Operand::Local(source)) = sources.iter().find(|source| is_local(source))
    {
        return Err(CliError::BothLocal(source.clone()));
    }
    let compression = args.compression.unwrap_or(compression_of(connection.compression));
    connection.compression = Some(compression == Compression::On);
    let SsmcpArgs { recursive, preserve, streams, .. } = args;
    Ok(SsmcpSettings { connection, recursive, preserve, streams, compression, sources, target })
}

/// What -C and `-o Compression` mean here.
fn compression_of(said: Option<bool>) -> Compression {
    match said {
        None => Compression::Auto,
        Some(true) => Compression::On,
        Some(false) => Compression::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::target::Target;
    use crate::stream::TargetId;

    const NODE: &str = "i-0123456789abcdef0";

    fn parse(words: &[&str]) -> Result<SsmcpSettings, CliError> {
        let known_hosts = ["ssmcp", "--known-hosts", "k"];
        settings(known_hosts.iter().chain(words).map(OsString::from), &Environment::default())
    }

    fn remote(path: &str) -> Operand {
        let target = Target { user: None, node: TargetId::new(NODE).unwrap() };
        Operand::Remote { target, path: path.into() }
    }

    #[test]
    fn the_last_operand_is_the_target() {
        let there = format!("{NODE}:dir");
        let settings = parse(&["-r", "a", "-p", "b", &there, "-P", "2222"]).unwrap();
        assert_eq!(settings.sources, [Operand::Local("a".into()), Operand::Local("b".into())]);
        assert_eq!((settings.target, settings.connection.port), (remote("dir"), 2222));
        assert!(settings.recursive && settings.preserve);
    }

    #[test]
    fn the_number_of_streams_is_checked() {
        let there = format!("{NODE}:");
        let streams = |number: &str| parse(&["-j", number, "a", &there]).map(|settings| settings.streams);
        assert_eq!(streams("4").unwrap(), Streams::exactly(4));
        assert_eq!(streams("auto").unwrap(), Streams::default());
        for wrong in ["0", "17", "many"] {
            assert!(streams(wrong).unwrap_err().to_string().contains("from 1 to 16"), "{wrong}");
        }
    }

    #[test]
    fn compression_is_chosen_by_the_data_unless_somebody_says() {
        let there = format!("{NODE}:");
        let compression = |words: &[&str]| {
            let settings = parse(&[words, &["a", &there]].concat()).unwrap();
            (settings.compression, settings.connection.compression)
        };
        assert_eq!(compression(&[]), (Compression::Auto, Some(false)));
        for words in [&["-C"][..], &["-o", "Compression=yes"], &["--compression", "on"]] {
            assert_eq!(compression(words), (Compression::On, Some(true)), "{words:?}");
        }
        for words in [&["-o", "Compression=no"][..], &["--compression=off"], &["-C", "--compression=off"]] {
            assert_eq!(compression(words), (Compression::Off, Some(false)), "{words:?}");
        }
        assert!(
            parse(&["--compression", "very", "a", &there]).unwrap_err().to_string().contains("`auto`, `on` or `off`")
        );
    }

    #[test]
    fn a_copy_from_node_to_node_is_one() {
        let there = format!("{NODE}:");
        assert_eq!(parse(&[&there, &there]).unwrap().sources, [remote("")]);
    }

    #[test]
    fn a_copy_on_this_machine_is_left_to_cp() {
        for words in [&["a", "b"][..], &["a", "i-0123456789abcdef0:x", "b"]] {
            let error = parse(words).unwrap_err();
            assert!(error.to_string().contains("`cp`"), "{error}");
        }
    }

    #[test]
    fn two_operands_are_needed() {
        assert!(matches!(parse(&["a"]), Err(CliError::Usage(_))));
        assert!(matches!(parse(&[]), Err(CliError::Usage(_))));
    }

    #[test]
    fn operands_behind_two_dashes_may_begin_with_one() {
        let there = format!("{NODE}:");
        assert_eq!(parse(&["--", "-r", &there]).unwrap().sources, [Operand::Local("-r".into())]);
    }
}
