//! What one run of `ssmcp` does: its arguments and the environment, resolved.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind as Mistake;
use clap::{CommandFactory, Parser};

use super::args::SsmcpArgs;
use super::selection::Selection;
use crate::cli::absent::{self, Absent};
use crate::cli::environment::Environment;
use crate::cli::report::CliError;
use crate::cli::settings::ConnectionSettings;
use crate::cli::target::Operand;
use crate::copy::{Compression, CopyError, CopyOptions, Failure, Side, Streams};

/// What one run of `ssmcp` does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct SsmcpSettings {
    pub connection: ConnectionSettings,
    pub recursive: bool,
    pub preserve: bool,
    /// The SCP protocol, whatever the nodes offer.
    pub force_scp: bool,
    pub streams: Streams,
    pub compression: Compression,
    /// Bytes a second.
    pub rate_limit: Option<NonZeroU64>,
    /// Events as JSON lines on standard output.
    pub json: bool,
    /// Where interrupted copies are noted.
    pub journal: Option<PathBuf>,
    pub no_resume: bool,
    pub verify: bool,
    pub selection: Selection,
    /// Whether the terminal knows escapes.
    pub has_escapes: bool,
    pub sources: Vec<Operand>,
    pub target: Operand,
}

impl SsmcpSettings {
    pub(super) fn copy_options(&self) -> CopyOptions {
        let mut options = CopyOptions::default().recursive(self.recursive).preserve(self.preserve);
        options.rate_limit = self.rate_limit;
        options.journal.clone_from(&self.journal);
        self.selection.apply(options.start_over(self.no_resume).verify(self.verify))
    }

    /// Whether this is no more than the end of `ssmcp NODE:log - | head`.
    pub(super) fn is_reader_gone(&self, failure: &Failure) -> bool {
        let is_broken = matches!(&failure.error, CopyError::Local(error) if error.kind() == ErrorKind::BrokenPipe);
        is_broken && self.target == Operand::Pipe && failure.side == Side::Local
    }
}

/// Bytes a second that an agent lets through a stream at least.
const PACE: u64 = 500_000;
/// Streams that nobody asked for.
const MOST_UNASKED: usize = 8;

/// Largest payload of one message, in bytes. At the default pace 16 KiB leave an upload over one stream 12 MB/s; 32 KiB are the
/// largest that the service is known to take.
const PAYLOAD: usize = 32 * 1024;

/// scp's Kbit has 1024 bits.
const BYTES_A_KBIT: u64 = 1024 / 8;

pub(super) fn settings(args: impl IntoIterator<Item = OsString>, env: &Environment) -> Result<SsmcpSettings, CliError> {
    let args = SsmcpArgs::try_parse_from(args).map_err(|usage| match Absent::in_usage(&usage, absent::OF_SSMCP) {
        Some(absent) => CliError::Absent(absent),
        None => CliError::Usage(usage),
    })?;
    let mut connection = ConnectionSettings::resolve(&args.connection, None, args.port, env)?;
    connection.batch_mode |= args.batch_mode;
    connection.stream.max_payload.get_or_insert(PAYLOAD);
    let mut sources: Vec<_> = args.operands.iter().map(|text| Operand::parse(text)).collect::<Result<_, _>>()?;
    let Some(target) = sources.pop().filter(|_| !sources.is_empty()) else {
        let missing = "a target is missing: the last PATH is where the others are copied to";
        return Err(usage(Mistake::TooFewValues, missing));
    };
    sources.iter_mut().filter(|source| is_standard_input(source)).for_each(|source| *source = Operand::Pipe);
    if !target.is_remote()
        && let Some(source) = sources.iter().find(|source| !source.is_remote())
    {
        return Err(CliError::BothLocal(source.clone()));
    }
    if sources.len() > 1 && sources.iter().chain([&target]).any(|operand| *operand == Operand::Pipe) {
        return Err(usage(Mistake::TooManyValues, "`-` is one file: it takes one source and one target"));
    }
    if args.json && target == Operand::Pipe {
        return Err(usage(Mistake::ArgumentConflict, "`--json` and the target `-` both want standard output"));
    }
    if args.selection.is_dry_run() && target == Operand::Pipe {
        return Err(usage(Mistake::ArgumentConflict, "`--dry-run` and the target `-` both want standard output"));
    }
    let compression = args.compression.unwrap_or(compression_of(connection.compression));
    connection.compression = Some(compression == Compression::On);
    let rate_limit = args.limit.and_then(|kbit| NonZeroU64::new(kbit * BYTES_A_KBIT));
    let streams = rate_limit.filter(|_| args.streams == Streams::auto()).map_or(args.streams, streams_for);
    let journal = env.state("copies");
    let SsmcpArgs { recursive, preserve, force_scp, json, no_resume, verify, selection, .. } = args;
    Ok(SsmcpSettings {
        connection,
        recursive,
        preserve,
        force_scp,
        streams,
        compression,
        rate_limit,
        json,
        journal,
        no_resume,
        verify,
        selection,
        has_escapes: env.get("TERM").is_none_or(|term| term != "dumb"),
        sources,
        target,
    })
}

/// By its names too: at descriptor 0 there is `/dev/null`, for the sake of children.
fn is_standard_input(source: &Operand) -> bool {
    let names = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].map(Path::new);
    matches!(source, Operand::Local(path) if names.contains(&path.as_path()))
}

/// As many streams as the agents' pace needs for so many bytes a second: more would only share them.
fn streams_for(rate_limit: NonZeroU64) -> Streams {
    Streams::exactly(usize::try_from(1 + rate_limit.get() / PACE).unwrap_or(Streams::MOST).min(MOST_UNASKED))
}

fn usage(kind: Mistake, message: &str) -> CliError {
    SsmcpArgs::command().error(kind, message).into()
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
    use crate::copy::{Links, Skip};
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
    fn copies_send_larger_payloads_unless_told_otherwise() {
        let there = format!("{NODE}:dir");
        let payload = |words: &[&str]| parse(&[words, &["a", &there]].concat()).unwrap().connection.stream.max_payload;
        assert_eq!((payload(&[]), payload(&["--max-payload", "1024"])), (Some(32 * 1024), Some(1024)));
    }

    #[test]
    fn the_last_operand_is_the_target() {
        let there = format!("{NODE}:dir");
        let settings = parse(&["-r", "a", "-p", "b", &there, "-P", "2222"]).unwrap();
        assert_eq!(settings.sources, [Operand::Local("a".into()), Operand::Local("b".into())]);
        assert_eq!((settings.target, settings.connection.port.get()), (remote("dir"), 2222));
        assert!(settings.recursive && settings.preserve);
    }

    #[test]
    fn interrupted_copies_are_noted_where_the_user_keeps_state() {
        let env = Environment::of([("HOME", "/home/me")]);
        let there = format!("{NODE}:");
        let args = ["ssmcp", "a", &there, "--no-resume", "--verify"].map(OsString::from);
        let settings = settings(args, &env).unwrap();
        assert_eq!(settings.journal, Some("/home/me/.local/state/ssmssh/copies".into()));
        assert!(settings.no_resume && settings.verify);
    }

    #[test]
    fn of_the_two_protocols_the_last_that_is_asked_for_is_used() {
        let there = format!("{NODE}:");
        let force_scp = |flags: &str| parse(&[flags, "a", &there]).unwrap().force_scp;
        assert_eq!(["-r", "-O", "-sO", "-Os"].map(force_scp), [false, true, true, false]);
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
    fn a_dash_is_one_file() {
        let there = format!("{NODE}:x");
        for stdin in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
            assert_eq!(parse(&[stdin, &there]).unwrap().sources, [Operand::Pipe], "{stdin}");
        }
        assert_eq!(parse(&[&there, "-"]).unwrap().target, Operand::Pipe);
        assert_eq!(parse(&[&there, "./-"]).unwrap().target, Operand::Local("./-".into()));
        assert!(matches!(parse(&["-", "x"]), Err(CliError::BothLocal(Operand::Pipe))));
        for words in [["-", "a", &there], [&there, &there, "-"]] {
            assert!(parse(&words).unwrap_err().to_string().contains("`-` is one file"), "{words:?}");
        }
        assert!(parse(&["--json", &there, "-"]).unwrap_err().to_string().contains("both want standard output"));
    }

    #[test]
    fn the_limit_is_scps() {
        let there = format!("{NODE}:x");
        let limit = |given: &str| parse(&["-l", given, "a", &there]).map(|settings| settings.rate_limit);
        assert_eq!(limit("8").unwrap(), NonZeroU64::new(1024));
        let streams = |given: &[&str]| parse(&[given, &["a", &there]].concat()).unwrap().streams;
        assert_eq!(streams(&["-l", "8"]), Streams::exactly(1));
        assert_eq!(streams(&["-l", "1000000"]), Streams::exactly(8));
        assert_eq!(streams(&["-l", "8", "-j", "3"]), Streams::exactly(3));
        for wrong in ["0", "-1", "many", "104857601"] {
            assert!(matches!(limit(wrong), Err(CliError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn options_of_scp_that_change_nothing_are_accepted() {
        let there = format!("{NODE}:x");
        let settings = parse(&["-3sT46", "-B", "a", &there]).unwrap();
        assert!(settings.connection.batch_mode);
        assert_eq!(settings.sources, [Operand::Local("a".into())]);
    }

    #[test]
    fn what_was_asked_for_reaches_the_copy() {
        let there = format!("{NODE}:x");
        let options = |given: &[&str]| parse(&[given, &["a", &there]].concat()).unwrap().copy_options();
        let plain = options(&[]);
        assert!(!plain.recursive && !plain.preserve && !plain.start_over && !plain.verify && !plain.dry_run);
        assert_eq!((plain.rate_limit, plain.links, plain.skip), (None, Links::Follow, Skip::Nothing));
        assert!(options(&["-r"]).recursive && options(&["-p"]).preserve);
        assert!(options(&["--no-resume"]).start_over && options(&["--verify"]).verify);
        assert_eq!(options(&["-l", "8"]).rate_limit, NonZeroU64::new(1024));
        assert_eq!((options(&["--links"]).links, options(&["--newer"]).skip), (Links::Keep, Skip::Newer));
        assert_eq!(options(&["--skip-same"]).skip, Skip::Same);
        assert!(options(&["--dry-run"]).dry_run && options(&["--exclude", "*.o"]).exclude.len() == 1);
        let env = Environment::of([("HOME", "/home/me")]);
        let noted = settings(["ssmcp", "a", &there].map(OsString::from), &env).unwrap().copy_options().journal;
        assert_eq!(noted, Some("/home/me/.local/state/ssmssh/copies".into()));
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
