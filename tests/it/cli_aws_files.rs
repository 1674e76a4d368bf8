//! What the commands say about the files in `~/.aws`, and what they take from them.

use std::fs;
use std::path::Path;

use ssm_lab::{CredentialSource, Lab, Pace};

use crate::support::cli::{Cli, Ran};

async fn lab(source: CredentialSource) -> Lab {
    Lab::builder().pace(Pace::Ideal).credential_source(source).start().await.expect("a lab")
}

/// Writes `config` and `credentials` into a home, runs the command there, and names the home `~`.
async fn ran(cli: Cli, config: &str, credentials: &str) -> Ran {
    fs::create_dir(cli.home().join(".aws")).expect("made");
    fs::write(cli.home().join(".aws/config"), config).expect("written");
    fs::write(cli.home().join(".aws/credentials"), credentials).expect("written");
    let home = cli.home().to_str().expect("a name").to_owned();
    let mut ran = cli.env_remove("AWS_CONFIG_FILE").env_remove("AWS_SHARED_CREDENTIALS_FILE").run().await;
    ran.stderr = ran.stderr.replace(&home, "~");
    ran
}

/// The lines of a credentials file that the lab accepts.
fn keys(lab: &Lab) -> String {
    let keys = lab.credentials();
    format!(
        "aws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
        keys.access_key_id, keys.secret_access_key, keys.session_token
    )
}

fn true_in(lab: &Lab, words: &[&str]) -> Cli {
    Cli::in_lab(lab).args(words.iter().copied().chain([lab.node(), "true"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_aws_cli_takes_is_taken() {
    let lab = lab(CredentialSource::File).await;
    let keys = keys(&lab);
    let indented = keys.replace("aws_", "   aws_");
    for credentials in [
        format!("[prod]\n{keys}"),
        format!("\u{feff}[prod]\r\n{}", keys.replace('\n', "\r\n")),
        format!("# caf\u{e9}\n [prod] junk\n{indented}"),
        format!("[prod]\n{}", keys.replace(" = ", ": ").trim_end()),
    ] {
        let ran = ran(true_in(&lab, &["--profile", "prod"]), "", &credentials).await;
        assert_eq!(ran.code, Some(0), "{credentials}: {}", ran.stderr);
    }
    let legacy = ran(true_in(&lab, &[]), "[default]\nretry_mode = legacy\n", &format!("[default]\n{keys}")).await;
    assert_eq!(legacy.code, Some(0), "{}", legacy.stderr);
    let config = format!("[profile \"my prod\"]\n{keys}");
    let ran = ran(true_in(&lab, &[]).env("AWS_PROFILE", "my prod"), &config, "").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_work_is_told_with_its_line_and_not_as_a_missing_region() {
    let lab = lab(CredentialSource::File).await;
    for (config, profile, said) in [
        (
            "[profile prod]\nregion = eu-west-1\n",
            "prdo",
            "no profile `prdo` in ~/.aws/config or ~/.aws/credentials; there are: prod",
        ),
        ("[default\nregion = eu-west-1\n", "default", "~/.aws/config, line 1 begins with `[` and lacks `]`"),
        ("[default]\nregion\n", "default", "~/.aws/config, line 2 is neither `[section]` nor `name = value`"),
        (
            "[default]\nrole_arn = r\nsource_profile = base\n",
            "default",
            "`source_profile = base` of the profile `default` (~/.aws/config, line 3)",
        ),
        (
            "[default]\nregion = \"us-east-1\"\n",
            "default",
            "`\"us-east-1\"` is not a valid region: take its quotes away (~/.aws/config, line 2)",
        ),
        ("[default]\nmax_attempts = many\n", "default", "attempts (~/.aws/config, line 2) has to be 1 or more"),
        ("[default]\nlogin_session = arn\n", "default", "one of `aws login` (~/.aws/config, line 2)"),
    ] {
        for named in [true, false] {
            let cli = if named {
                true_in(&lab, &["--profile", profile])
            } else {
                true_in(&lab, &[]).env("AWS_PROFILE", profile)
            };
            let ran = ran(cli.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION"), config, "").await;
            assert_eq!(ran.code, Some(255), "{config}");
            assert!(ran.stderr.contains(said), "{config}: {}", ran.stderr);
            assert!(ran.stderr.starts_with("ssmssh: the AWS configuration cannot be used: "), "{}", ran.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_ignored_because_keys_are_set_is_told_with_v() {
    let lab = lab(CredentialSource::Environment).await;
    let ran = ran(true_in(&lab, &["-v"]).env("AWS_PROFILE", "nope"), "", "").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("AWS_PROFILE is ignored: no file has a profile `nope`"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_warnings_show_with_two_v() {
    let lab = lab(CredentialSource::Environment).await;
    let config = "[default]\nuse_fips_endpoint = maybe\n";
    let ran = ran(true_in(&lab, &["-vv"]), config, "").await;
    assert!(ran.stderr.contains("warning: aws_"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sso_profile_that_never_logged_in_says_which_login_to_run() {
    let lab = lab(CredentialSource::File).await;
    let legacy = "[profile old]\nsso_start_url = https://x.example/start\nsso_region = eu-west-1\n\
        sso_account_id = 123456789012\nsso_role_name = r\n";
    let session = "[profile new]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\n\
        [sso-session s]\nsso_start_url = https://x.example/start\nsso_region = eu-west-1\n";
    for (profile, config) in [("old", legacy), ("new", session)] {
        let ran = ran(true_in(&lab, &["--profile", profile]), config, "").await;
        let said = format!("run `aws sso login --profile {profile}`");
        assert!(ran.stderr.contains(&said) && !ran.stderr.contains("aws configure"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expiration_of_a_credential_process_is_taken_as_the_aws_cli_takes_it() {
    let lab = lab(CredentialSource::File).await;
    let keys = lab.credentials();
    for (end, said) in [("2040-01-01T00:00:00+0000", None), ("2040-01-01T00:00:00", Some("without a time zone"))] {
        let cli = true_in(&lab, &[]);
        let script = cli.home().join("process");
        let json = format!(
            r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}","SessionToken":"{}","Expiration":"{end}"}}"#,
            keys.access_key_id, keys.secret_access_key, keys.session_token
        );
        fs::write(&script, format!("echo '{json}'\n")).expect("written");
        let ran = ran(cli, &process(&script), "").await;
        assert_eq!(ran.code == Some(0), said.is_none(), "{}", ran.stderr);
        assert!(
            said.is_none_or(|said| ran.stderr.contains(said) && ran.stderr.contains("~/.aws/config, line 2")),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains(&keys.secret_access_key), "{}", ran.stderr);
    }
}

fn process(script: &Path) -> String {
    format!("[default]\ncredential_process = sh {}\n", script.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_wants_a_code_says_so_when_it_is_refused() {
    let lab = lab(CredentialSource::File).await;
    let config = "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = base\n\
        mfa_serial = arn:aws:iam::123456789012:mfa/jo\n";
    let cli = true_in(&lab, &["--profile", "role"]).env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1");
    let ran = ran(cli, config, &format!("[base]\n{}", keys(&lab))).await;
    assert!(ran.stderr.contains("wants a code (`mfa_serial`: ~/.aws/config, line 4)"), "{}", ran.stderr);
    assert!(ran.stderr.contains("aws configure export-credentials --profile role"), "{}", ran.stderr);
}
