//! Files as people have them, and what is said about those that cannot work.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A home with these two files.
struct Home(tempfile::TempDir);

impl Home {
    fn new(config: &str, credentials: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join(".aws")).expect("made");
        fs::write(home.path().join(".aws/config"), config).expect("written");
        fs::write(home.path().join(".aws/credentials"), credentials).expect("written");
        Self(home)
    }

    fn read(&self) -> Result<Profiles, String> {
        Profiles::read(&Places { home: Some(self.0.path().to_owned()), ..Places::default() })
    }

    /// What is said of a profile, the home's name left out.
    fn fault(&self, profile: &str) -> String {
        let way = self.read().and_then(|profiles| profiles.way(profile));
        way.expect_err("it cannot work").replace(&self.0.path().display().to_string(), "~")
    }

    fn base(&self, profile: &str) -> Base {
        self.read().and_then(|profiles| profiles.way(profile)).expect("it works").base
    }
}

#[test]
fn a_misspelt_profile_is_told_with_the_files_and_the_names_that_there_are() {
    let home = Home::new("[default]\n[profile prod]\n", "[dev]\naws_access_key_id = a\n");
    let expected = "there is no profile `prdo` in ~/.aws/config or ~/.aws/credentials; there are: default, prod, dev";
    assert_eq!(home.fault("prdo"), expected);
    let missing = Profiles::read(&Places::default()).expect("no file").way("x").expect_err("none");
    assert_eq!(missing, "there is no profile `x`: no HOME, and so no file, is known");
    let many = (0..20).fold(String::new(), |text, number| format!("{text}[profile p{number}]\n"));
    assert!(Home::new(&many, "").fault("x").ends_with("p6, p7, …"));
}

#[test]
fn a_section_without_its_prefix_and_one_with_a_prefix_too_many_are_pointed_at() {
    let home = Home::new("\n[prod]\nregion = eu-west-1\n", "[profile dev]\n");
    assert!(home.fault("prod").contains("[prod] in ~/.aws/config, line 2 has to be [profile prod]"));
    assert!(home.fault("dev").contains("[profile dev] in ~/.aws/credentials, line 1 has to be [dev]"));
}

#[test]
fn what_is_missing_is_named_with_its_line() {
    let role = "role_arn = arn:aws:iam::123456789012:role/x\n";
    for (rest, said) in [
        (
            format!("{role}source_profile = base\n"),
            "`source_profile = base` of the profile `x` (~/.aws/config, line 3)",
        ),
        (role.to_owned(), "needs `source_profile` or `credential_source`"),
        (
            format!("{role}source_profile = empty\n"),
            "the profile `empty` (~/.aws/credentials, line 1) holds no credentials",
        ),
        (
            format!("{role}source_profile = y\n[profile y]\n{role}source_profile = x\n"),
            "the profiles x, y name each other",
        ),
        (format!("{role}credential_source = Nowhere\n"), "line 3) has to be one of Environment"),
        (
            "web_identity_token_file = /t\n".to_owned(),
            "has `web_identity_token_file` (~/.aws/config, line 2) and lacks `role_arn`",
        ),
        ("aws_access_key_id = a\n".to_owned(), "lacks `aws_secret_access_key`"),
        ("aws_secret_access_key = a\n".to_owned(), "lacks `aws_access_key_id`"),
        ("aws_access_key_id = \"a\"\naws_secret_access_key = b\n".to_owned(), "stands in quotes"),
        ("sso_session = s\n".to_owned(), "names a section that is not there: [sso-session s]"),
        ("sso_start_url = u\nsso_region = r\nsso_role_name = n\n".to_owned(), "lacks `sso_account_id`"),
        (
            "login_session = arn:aws:iam::123456789012:user/x\n".to_owned(),
            "is one of `aws login` (~/.aws/config, line 2), whose credentials the AWS CLI alone can read: name a profile with \
             `credential_process = aws configure export-credentials --profile x --format process`",
        ),
    ] {
        let fault = Home::new(&format!("[profile x]\n{rest}"), "[empty]\n").fault("x");
        assert!(fault.contains(said), "{rest}: {fault}");
    }
}

#[test]
fn a_profile_leads_to_where_its_credentials_come_from() {
    let config = "[profile role]\nrole_arn = r\nsource_profile = process\nmfa_serial = arn:m\n\
        [profile process]\ncredential_process = get them # all\n\
        [profile own]\nrole_arn = r\nsource_profile = own\naws_access_key_id = a\naws_secret_access_key = b\n\
        [profile legacy]\nsso_start_url = u\nsso_region = r\nsso_account_id = a\nsso_role_name = n\n\
        [profile sso]\nsso_session = s s\nsso_account_id = a\nsso_role_name = n\nsso_region = r\n\
        [sso-session s s]\nsso_start_url = u\nsso_region = r\n\
        [profile \"a b\"]\ncredential_source = ec2instancemetadata\nrole_arn = r\n";
    let home = Home::new(config, "[default]\n");
    assert_eq!(home.base("default"), Base::Nothing);
    assert_eq!(home.base("role"), Base::Process("process".to_owned()));
    for (profile, base) in [("own", Base::Keys), ("legacy", Base::Sso), ("sso", Base::Sso), ("a b", Base::Elsewhere)] {
        assert_eq!(home.base(profile), base, "{profile}");
    }
    let profiles = home.read().expect("read");
    assert!(profiles.way("role").expect("a way").code.is_some_and(|place| place.ends_with("config, line 4")));
    assert_eq!(profiles.command("process").expect("a command").line, "get them # all");
    let handed: String = profiles.files.iter().map(|file| profiles.spelt(file)).collect();
    for text in ["credential_source = process/process", "[profile a%20b]", "sso_session = s%20s", "[sso-session s%20s]"]
    {
        assert!(handed.contains(text), "{text}: {handed}");
    }
}

/// As for the AWS CLI, what cannot be opened is as good as missing; but it is said where something is missed.
#[test]
fn odd_files_hang_nothing_and_are_named_when_a_profile_is_missed() {
    let home = Home::new("", "");
    let path = |name: &str| home.0.path().join(name);
    let fifo = path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a FIFO");
    fs::File::create(path("huge")).expect("made").set_len(1 << 40).expect("a hole");
    fs::write(path("latin1"), b"# caf\xe9\r\n[profile x]\r\nregion = eu-west-1").expect("written");
    fs::write(path("bom"), "\u{feff}[profile x]\nregion = eu-west-1").expect("written");
    fs::write(path("shared"), "[profile x]\nregion = eu-west-1\n").expect("written");
    fs::set_permissions(path("shared"), fs::Permissions::from_mode(0o666)).expect("set");
    for (name, said) in [
        ("none", "does not exist"),
        ("none/below", "does not exist"),
        (".aws", "is a directory"),
        ("fifo", "is a FIFO"),
        ("/dev/zero", "is a device"),
        ("huge", "is larger than 1 MiB"),
        ("/dev/null", "there is no profile `x`"),
        (".aws/config", "there is no profile `x`"),
        ("latin1", ""),
        ("bom", ""),
        ("shared", ""),
    ] {
        let link = path("link");
        let _ = fs::remove_file(&link);
        symlink(path(name), &link).expect("a link");
        for file in [path(name), link] {
            let places = Places { config: Some(file.clone()), ..Places::default() };
            let fault = Profiles::read(&places).and_then(|profiles| profiles.way("x")).err().unwrap_or_default();
            assert!(fault.contains(said) && fault.is_empty() == said.is_empty(), "{}: {fault}", file.display());
            let places = Places { credentials: Some(file), ..Places::default() };
            assert!(Profiles::read(&places).is_ok() != (name == "huge"), "{name}");
        }
    }
}

#[test]
fn a_home_is_expanded_in_the_names_that_the_environment_gives() {
    let home = Home::new("", "[elsewhere]\naws_access_key_id = a\naws_secret_access_key = b\n");
    let credentials = Some("~/.aws/credentials".into());
    let places = Places { home: Some(home.0.path().to_owned()), credentials, ..Places::default() };
    assert!(Profiles::read(&places).expect("read").has("elsewhere"));
}
