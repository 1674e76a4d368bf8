//! What was typed about connections plus the environment, resolved into what both commands work with.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::agent::AgentSettings;
use super::args::ConnectionArgs;
use super::environment::{Environment, NotUtf8};
use super::options::{LogLevel, OptionError, RekeyLimit, SshOptions};
use super::target::Target;
use crate::ssh::StrictHostKeyChecking;
use crate::stream::{AddressFamily, Network, ProxyConfig, ProxyError, SSH_PORT, StreamOptions};

const DEFAULT_USER: &str = "ec2-user";

/// Who does not want a lost connection to be resumed still wants a node that is busy for a moment to be waited for.
const LEAST_NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// Names in `~/.ssh`, in the order of trial.
const DEFAULT_IDENTITIES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// What nothing can be resolved from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("HTTPS_PROXY cannot be used")]
    Proxy(#[from] ProxyError),
    #[error("`--region {0}` is no region: expected one such as eu-west-1")]
    Region(String),
    #[error("`--endpoint-url {0}` is not a valid endpoint URL: expected https:// and a host")]
    EndpointUrl(String),
    /// The URL is not repeated: it may hold a password.
    #[error("`--endpoint-url` takes no user and password: the AWS credentials sign each request")]
    EndpointLogin,
    #[error("`-F {0}`: no configuration file is read, so only `-F none` is taken")]
    ConfigFile(String),
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
}

/// How to reach any node and log in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionSettings {
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint_url: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) proxy: ProxyConfig,
    pub(crate) address_family: AddressFamily,
    /// Root certificates in place of the system's.
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) port: NonZeroU16,
    /// Who logs in where the target names no user.
    pub(crate) default_user: String,
    pub(crate) agent: AgentSettings,
    pub(crate) identities: IdentityFiles,
    /// All are read, new keys go into the first; none where there is no place for one.
    pub(crate) known_hosts: Vec<PathBuf>,
    pub(crate) strict_host_key_checking: StrictHostKeyChecking,
    /// Nobody is there to answer a question.
    pub(crate) batch_mode: bool,
    /// Whether connections compress; nothing where nobody said.
    pub(crate) compression: Option<bool>,
    /// From StartSession to the end of authentication.
    pub(crate) connect_timeout: Option<Duration>,
    /// How long the server may be silent before it is asked for a sign of life.
    pub(crate) server_alive_interval: Option<Duration>,
    /// How many questions may go unanswered; zero is any number.
    pub(crate) server_alive_count_max: usize,
    pub(crate) rekey: RekeyLimit,
    pub(crate) stream: StreamSettings,
    pub(crate) askpass: Option<Askpass>,
    pub(crate) log_level: LogLevel,
    /// Whether the terminal takes escapes.
    pub(crate) has_escapes: bool,
}

/// What was said about the stream below SSH; the library's defaults hold for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    pub(crate) resume_timeout: Option<Duration>,
    /// In bytes.
    pub(crate) max_payload: Option<usize>,
    /// Zero is no limit.
    pub(crate) max_frames_per_second: Option<u32>,
    pub(crate) host: Option<String>,
}

/// Which key files to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentityFiles {
    /// Asked for: each of them has to be usable.
    Named(Vec<PathBuf>),
    /// The usual places: those that exist and are usable.
    Usual(Vec<PathBuf>),
}

/// The program that asks for a passphrase in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Askpass {
    pub(crate) program: PathBuf,
    /// Use it although there is a terminal.
    pub(crate) prefer: bool,
}

impl From<NotUtf8> for SettingsError {
    fn from(NotUtf8(name): NotUtf8) -> Self {
        Self::NotUtf8(name)
    }
}

impl ConnectionSettings {
    /// Resolves what both commands share. `user` and `port` are the command's own flags, which stand above `-o`.
    pub(crate) fn resolve(
        args: &ConnectionArgs,
        user: Option<&str>,
        port: Option<u16>,
        env: &Environment,
    ) -> Result<Self, SettingsError> {
        Self::with_options(args, &SshOptions::parse(&args.options)?, user, port, env)
    }

    /// The same with the `-o` options parsed already.
    pub(crate) fn with_options(
        args: &ConnectionArgs,
        options: &SshOptions,
        user: Option<&str>,
        port: Option<u16>,
        env: &Environment,
    ) -> Result<Self, SettingsError> {
        args.config_file.as_deref().map_or(Ok(()), check_config_file)?;
        let user = user.map(str::to_owned).or_else(|| options.user.clone());
        Ok(Self {
            profile: args.profile.clone(),
            region: checked(args.region.as_deref(), is_region, SettingsError::Region)?,
            endpoint_url: args.endpoint_url.as_deref().map(endpoint).transpose()?,
            reason: args.reason.clone(),
            proxy: proxy(env)?,
            address_family: address_family(args, options),
            ca_bundle: env.path("AWS_CA_BUNDLE"),
            port: port.or(options.port).and_then(NonZeroU16::new).unwrap_or(SSH_PORT),
            default_user: user.or(env.text("SSMSSH_USER")?).unwrap_or_else(|| DEFAULT_USER.to_owned()),
            agent: AgentSettings::resolve(options, env),
            identities: identities(args, options, env),
            known_hosts: known_hosts(args, options, env),
            strict_host_key_checking: options.strict_host_key_checking.unwrap_or(StrictHostKeyChecking::AcceptNew),
            batch_mode: options.batch_mode.unwrap_or(false),
            compression: if args.compress { Some(true) } else { options.compression },
            connect_timeout: options.connect_timeout.filter(|limit| !limit.is_zero()),
            server_alive_interval: args
                .keepalive
                .or(options.server_alive_interval)
                .filter(|interval| !interval.is_zero()),
            server_alive_count_max: options.server_alive_count_max.unwrap_or(alive_count(args)),
            rekey: options.rekey_limit.unwrap_or_default(),
            stream: StreamSettings {
                resume_timeout: args.resume_timeout,
                max_payload: args.max_payload,
                max_frames_per_second: args.max_frames_per_second,
                host: args.stream_host.clone(),
            },
            askpass: askpass(env),
            log_level: log_level(args, options),
            has_escapes: env.get("TERM").is_none_or(|term| term != "dumb"),
        })
    }

    /// Who logs in at `target`.
    pub(crate) fn user_at<'a>(&'a self, target: &'a Target) -> &'a str {
        target.user.as_deref().unwrap_or(&self.default_user)
    }

    /// How connections leave this machine.
    pub(crate) fn network(&self) -> Network {
        let network = Network::new().proxy(self.proxy.clone()).address_family(self.address_family);
        match &self.ca_bundle {
            Some(file) => network.ca_bundle(file),
            None => network,
        }
    }

    /// Options of the streams.
    pub(crate) fn stream_options(&self) -> StreamOptions {
        let (said, mut options) = (&self.stream, StreamOptions::default());
        if let Some(limit) = said.resume_timeout {
            options.resume_timeout = limit;
            options.node_timeout = limit.max(LEAST_NODE_TIMEOUT);
        }
        options.channel.max_payload = said.max_payload.unwrap_or(options.channel.max_payload);
        if let Some(rate) = said.max_frames_per_second {
            options.channel.max_frames_per_second = NonZeroU32::new(rate);
        }
        options.stream_host.clone_from(&said.host);
        options
    }

    /// Whether a line on the terminal says what is waited for.
    pub(crate) fn tells_waits(&self) -> bool {
        !self.is_quiet() && self.has_escapes
    }

    /// Whether warnings and notices are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.log_level == LogLevel::Quiet
    }
}

fn checked(
    given: Option<&str>,
    is_valid: impl Fn(&str) -> bool,
    error: impl Fn(String) -> SettingsError,
) -> Result<Option<String>, SettingsError> {
    let check = |text: &str| if is_valid(text) { Ok(text.to_owned()) } else { Err(error(text.to_owned())) };
    given.map(check).transpose()
}

/// Words of letters and a number, with dashes between.
fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && words.contains('-') && words.split('-').all(is_word)
}

/// Which hosts may be reached without encryption is for the library to say, which knows the endpoints of every source.
fn endpoint(text: &str) -> Result<String, SettingsError> {
    if text.contains('@') {
        return Err(SettingsError::EndpointLogin);
    }
    let is_endpoint = text.parse::<Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    if is_endpoint { Ok(text.to_owned()) } else { Err(SettingsError::EndpointUrl(text.to_owned())) }
}

/// None is read, and this is how to ask for that.
fn check_config_file(file: &Path) -> Result<(), SettingsError> {
    let is_none = file.as_os_str().eq_ignore_ascii_case("none") || file == Path::new("/dev/null");
    if is_none { Ok(()) } else { Err(SettingsError::ConfigFile(file.display().to_string())) }
}

/// The variables that curl and the AWS CLI read for encrypted connections, in either case.
fn proxy(env: &Environment) -> Result<ProxyConfig, SettingsError> {
    let either = |upper, lower| Ok::<_, SettingsError>(env.text(upper)?.or(env.text(lower)?));
    let no_proxy = either("NO_PROXY", "no_proxy")?.unwrap_or_default();
    match either("HTTPS_PROXY", "https_proxy")? {
        Some(url) => Ok(ProxyConfig::new(&url, &no_proxy)?),
        None => Ok(ProxyConfig::default()),
    }
}

fn identities(args: &ConnectionArgs, options: &SshOptions, env: &Environment) -> IdentityFiles {
    let (none, files): (Vec<&PathBuf>, Vec<_>) =
        options.identity_files.iter().partition(|path| path.as_os_str().eq_ignore_ascii_case("none"));
    let mut named: Vec<_> =
        args.identities.iter().cloned().chain(files.into_iter().map(|path| env.expand(path))).collect();
    if named.is_empty() && !none.is_empty() {
        return IdentityFiles::Named(named);
    }
    if named.is_empty() {
        named.extend(env.path("SSMSSH_IDENTITY"));
    }
    if named.is_empty() {
        let usual = |home: &Path| DEFAULT_IDENTITIES.map(|name| home.join(".ssh").join(name)).to_vec();
        return IdentityFiles::Usual(env.home().map(usual).unwrap_or_default());
    }
    IdentityFiles::Named(named)
}

fn known_hosts(args: &ConnectionArgs, options: &SshOptions, env: &Environment) -> Vec<PathBuf> {
    if let Some(path) = &args.known_hosts {
        return vec![path.clone()];
    }
    if let Some(paths) = &options.user_known_hosts_files {
        return paths.iter().map(|path| env.expand(path)).collect();
    }
    let path = env.path("SSMSSH_KNOWN_HOSTS").or_else(|| env.state("known_hosts"));
    path.into_iter().collect()
}

/// As ssh reads `SSH_ASKPASS_REQUIRE`; unlike ssh it does not ask for a `DISPLAY`, which not every such program needs.
fn askpass(env: &Environment) -> Option<Askpass> {
    let require = env.get("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    let program = env.path("SSH_ASKPASS").filter(|_| require != "never")?;
    Some(Askpass { program, prefer: require == "force" || require == "prefer" })
}

fn address_family(args: &ConnectionArgs, options: &SshOptions) -> AddressFamily {
    match (args.ipv4, args.ipv6) {
        (true, _) => AddressFamily::Inet,
        (_, true) => AddressFamily::Inet6,
        _ => options.address_family.unwrap_or_default(),
    }
}

fn log_level(args: &ConnectionArgs, options: &SshOptions) -> LogLevel {
    match (args.verbose, args.quiet) {
        (0, true) => LogLevel::Quiet,
        (0, false) => options.log_level.unwrap_or(LogLevel::Info),
        (1, _) => LogLevel::Stages,
        (2.., _) => LogLevel::Debug,
    }
}

/// As in ssh; but who asks for `--keepalive` wants to stay connected, and whether the connection is lost is for the
/// stream to say, which survives outages that three questions do not.
fn alive_count(args: &ConnectionArgs) -> usize {
    if args.keepalive.is_some() { 0 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::tests::parse;

    fn try_resolve(words: &[&str], variables: &[(&str, &str)]) -> Result<ConnectionSettings, SettingsError> {
        let env = Environment::of(variables.iter().copied());
        ConnectionSettings::resolve(&parse(words).unwrap(), None, None, &env)
    }

    fn resolve(words: &[&str], variables: &[(&str, &str)]) -> ConnectionSettings {
        try_resolve(words, &[&[("HOME", "/home/me")], variables].concat()).unwrap()
    }

    fn named(paths: &[&str]) -> IdentityFiles {
        IdentityFiles::Named(paths.iter().map(PathBuf::from).collect())
    }

    #[test]
    fn identities_named_on_the_command_line_add_up_and_silence_the_environment() {
        let env = [("SSMSSH_IDENTITY", "~/e")];
        let settings = resolve(&["-o", "IdentityFile=~/b", "-i", "a"], &env);
        assert_eq!(settings.identities, named(&["a", "/home/me/b"]));
        assert_eq!(resolve(&[], &env).identities, named(&["/home/me/e"]));
    }

    #[test]
    fn without_a_named_identity_the_usual_ones_are_tried() {
        let IdentityFiles::Usual(paths) = resolve(&[], &[]).identities else { panic!("named") };
        assert_eq!(paths, ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| Path::new("/home/me/.ssh").join(name)));
    }

    #[test]
    fn known_hosts_are_kept_in_the_first_place_that_is_named() {
        let paths = |words: &[&str], env: &[(&str, &str)]| resolve(words, env).known_hosts;
        let path = |words: &[&str], env: &[(&str, &str)]| {
            let [path] = paths(words, env).try_into().expect("one file");
            path
        };
        let env = [("SSMSSH_KNOWN_HOSTS", "/e"), ("XDG_STATE_HOME", "/state")];
        assert_eq!(path(&["--known-hosts", "a", "-o", "UserKnownHostsFile=/b"], &env), Path::new("a"));
        assert_eq!(path(&["-o", "UserKnownHostsFile=~/b"], &env), Path::new("/home/me/b"));
        assert_eq!(path(&[], &env), Path::new("/e"));
        assert_eq!(path(&[], &env[1..]), Path::new("/state/ssmssh/known_hosts"));
        assert_eq!(path(&[], &[("XDG_STATE_HOME", "rel")]), Path::new("/home/me/.local/state/ssmssh/known_hosts"));
    }

    #[test]
    fn the_proxy_and_the_root_certificates_come_from_the_environment() {
        let proxy = |env: &[(&str, &str)]| resolve(&[], env).proxy;
        let expected = ProxyConfig::new("http://a:1", "b").unwrap();
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://a:1"), ("no_proxy", "b")]), expected);
        assert_eq!(proxy(&[("https_proxy", "http://a:1"), ("NO_PROXY", "b")]), expected);
        assert_eq!(proxy(&[("NO_PROXY", "b"), ("HTTP_PROXY", "http://a:1")]), ProxyConfig::default());
        let wrong = try_resolve(&[], &[("HOME", "/home/me"), ("HTTPS_PROXY", "socks5://jo:secret@a")]).unwrap_err();
        assert!(!wrong.to_string().contains("secret"), "{wrong}");
        let bundle = resolve(&[], &[("AWS_CA_BUNDLE", "~/roots.pem")]).ca_bundle;
        assert_eq!(bundle.as_deref(), Some(Path::new("/home/me/roots.pem")));
    }

    #[test]
    fn several_known_hosts_files_none_and_no_home_are_understood_as_ssh_does() {
        let paths = |words: &[&str]| resolve(words, &[]).known_hosts;
        let both = ["/a", "/home/me/b"].map(PathBuf::from);
        assert_eq!(paths(&["-o", "UserKnownHostsFile=/a ~/b"]), both);
        assert_eq!(paths(&["-o", "UserKnownHostsFile /a ~/b"]), both);
        assert_eq!(paths(&["-o", "UserKnownHostsFile=\"/a b\" /c"]), ["/a b", "/c"].map(PathBuf::from));
        assert_eq!(paths(&["-o", "UserKnownHostsFile=\"/a b\""]), [PathBuf::from("/a b")]);
        for none in ["none", "NONE"] {
            assert_eq!(paths(&["-o", &format!("UserKnownHostsFile={none}")]), Vec::<PathBuf>::new());
        }
        assert_eq!(try_resolve(&[], &[]).unwrap().known_hosts, Vec::<PathBuf>::new());
    }

    #[test]
    fn no_identity_file_at_all_can_be_asked_for() {
        assert_eq!(resolve(&["-o", "IdentityFile=none"], &[("SSMSSH_IDENTITY", "/e")]).identities, named(&[]));
        assert_eq!(resolve(&["-o", "IdentityFile=none", "-i", "a"], &[]).identities, named(&["a"]));
    }

    #[test]
    fn options_of_the_stream_reach_it_in_their_units() {
        let words = "--resume-timeout 90 --max-payload 1024 --max-frames-per-second 0 --stream-host vpce.example.com";
        let options = resolve(&words.split(' ').collect::<Vec<_>>(), &[]);
        let options = options.stream_options();
        assert_eq!((options.resume_timeout.as_secs(), options.channel.max_payload), (90, 1024));
        assert_eq!(options.channel.max_frames_per_second, None);
        assert_eq!(options.stream_host.as_deref(), Some("vpce.example.com"));
        let (usual, default) = (resolve(&[], &[]).stream_options(), StreamOptions::default());
        assert_eq!(usual.resume_timeout, default.resume_timeout);
        assert_eq!(usual.channel.max_frames_per_second, default.channel.max_frames_per_second);
    }

    #[test]
    fn a_region_and_an_endpoint_that_cannot_be_are_refused_by_the_name_of_their_option() {
        let error = |words: &[&str]| try_resolve(words, &[("HOME", "/home/me")]).err();
        for region in ["us-east-1", "us-gov-west-1", "eusc-de-east-1"] {
            assert_eq!(error(&["--region", region]), None, "{region}");
        }
        for region in ["not a region", "us-east", "useast1", "US-EAST-1", ""] {
            assert_eq!(error(&["--region", region]), Some(SettingsError::Region(region.to_owned())));
        }
        assert_eq!(error(&["--endpoint-url", "http://127.0.0.1:8080"]), None);
        for url in ["foo", "htp:/x", "https://", ""] {
            assert_eq!(error(&["--endpoint-url", url]), Some(SettingsError::EndpointUrl(url.to_owned())));
        }
        for url in ["https://jo:secret@endpoint.example", "ftp://jo:secret@endpoint.example", "jo:secret@x"] {
            let refused = error(&["--endpoint-url", url]).unwrap();
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
    }

    #[test]
    fn to_read_no_configuration_file_can_be_asked_for_as_of_ssh() {
        for none in ["none", "/dev/null"] {
            assert!(try_resolve(&["-F", none], &[]).is_ok());
        }
        let error = try_resolve(&["-F", "config"], &[]).unwrap_err();
        assert_eq!(error, SettingsError::ConfigFile("config".to_owned()));
    }

    #[test]
    fn times_of_zero_are_no_limit_and_no_question() {
        let settings = resolve(&["-o", "ConnectTimeout=0", "-o", "ServerAliveInterval=0"], &[]);
        assert_eq!((settings.connect_timeout, settings.server_alive_interval), (None, None));
        let keepalive = |words: &[&str]| resolve(words, &[]).server_alive_interval.map(|it| it.as_secs());
        assert_eq!(keepalive(&["--keepalive", "15", "-o", "ServerAliveInterval=30"]), Some(15));
        let count = |words: &[&str]| resolve(words, &[]).server_alive_count_max;
        assert_eq!(count(&["--keepalive", "15"]), 0);
        assert_eq!(count(&["-o", "ServerAliveInterval=30"]), 3);
        assert_eq!(count(&["--keepalive", "15", "-o", "ServerAliveCountMax=2"]), 2);
        assert_eq!(keepalive(&["--keepalive", "0", "-o", "ServerAliveInterval=30"]), None);
    }

    #[test]
    fn the_program_that_asks_is_used_as_ssh_would() {
        let askpass = |env: &[(&str, &str)]| resolve(&[], env).askpass;
        let program = ("SSH_ASKPASS", "/bin/ask");
        let expected = |prefer| Some(Askpass { program: "/bin/ask".into(), prefer });
        assert_eq!(askpass(&[program]), expected(false));
        assert_eq!(askpass(&[program, ("SSH_ASKPASS_REQUIRE", "force")]), expected(true));
        assert_eq!(askpass(&[program, ("SSH_ASKPASS_REQUIRE", "never")]), None);
        assert_eq!(askpass(&[]), None);
    }
}
