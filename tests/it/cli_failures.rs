//! What `ssmssh` says when it cannot do what it was asked, and the exit status of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ssm_lab::{Event, Lab};

use crate::support::cli::{Cli, all_sessions_over, fast_lab};

const NODE: &str = "i-0123456789abcdef0";

/// A copy of the lab's key, with this mode.
fn key_with_mode(lab: &Lab, folder: &Path, mode: u32) -> PathBuf {
    let path = folder.join(format!("key-{mode:o}"));
    fs::copy(lab.identity(), &path).expect("copied");
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode set");
    path
}

fn started_sessions(lab: &Lab) -> usize {
    lab.events().iter().filter(|event| matches!(event, Event::SessionStarted { .. })).count()
}

#[tokio::test]
async fn help_and_version_are_no_failures() {
    let help = Cli::ssmssh().args(["--help"]).run().await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(help.out().contains("Usage: ssmssh [OPTIONS] <[USER@]NODE> [COMMAND]..."), "{}", help.out());
    let version = Cli::ssmssh().args(["-V"]).run().await;
    assert_eq!((version.code, version.out()), (Some(0), concat!("ssmssh ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[tokio::test]
async fn a_mistake_on_the_command_line_is_255() {
    let shown = async |args: &[&str]| Cli::ssmssh().args(args).run().await.shown(&[]);
    insta::assert_snapshot!(shown(&[]).await, @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: the following required arguments were not provided:
      <[USER@]NODE>

    Usage: ssmssh <[USER@]NODE> [COMMAND]...

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shown(&["example.com"]).await, @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: invalid value 'example.com' for '<[USER@]NODE>': `example.com` is not a node id: expected `i-` or `mi-` and 8 or 17 hexadecimal digits

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shown(&["--frobnicate", NODE]).await, @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: unexpected argument '--frobnicate' found

    Usage: ssmssh [OPTIONS] <[USER@]NODE> [COMMAND]...

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(shown(&["-o", "ProxyJump=x", NODE]).await, @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: `-o ProxyJump=x` is not offered here; none is needed: Session Manager leads to the node itself, and HTTPS_PROXY names a proxy to AWS
    ");
}

#[tokio::test]
async fn without_a_key_it_says_how_to_give_one() {
    let cli = Cli::ssmssh().args([NODE]);
    let home = cli.home().to_str().unwrap().to_owned();
    insta::assert_snapshot!(cli.run().await.shown(&[(&home, "[HOME]")]), @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: no private key to log in with: none of [HOME]/.ssh/id_ed25519, [HOME]/.ssh/id_ecdsa, [HOME]/.ssh/id_rsa can be used
    ssmssh: hint: name one with `-i FILE` or SSMSSH_IDENTITY; only you may read it, and nobody may write it: `chmod 0400 FILE`
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_too_open_is_refused_before_a_session_is_started() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o600, 0o644, 0o440] {
        let key = key_with_mode(&lab, folder.path(), mode);
        let ran = Cli::in_lab(&lab).args(["-i", key.to_str().unwrap(), lab.node(), "true"]).run().await;
        let chmod = format!("chmod 0400 {}", key.display());
        assert_eq!((ran.code, started_sessions(&lab)), (Some(255), 0));
        assert!(ran.stderr.contains(&format!("{mode:04o}")) && ran.stderr.contains(&chmod), "{}", ran.stderr);
    }
    let key = key_with_mode(&lab, folder.path(), 0o400);
    let ran = Cli::in_lab(&lab).args(["-i", key.to_str().unwrap(), lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usual_key_that_is_too_open_is_left_out_with_a_warning() {
    let lab = fast_lab().await;
    let cli = Cli::in_lab(&lab).env_remove("SSMSSH_IDENTITY").args([lab.node(), "true"]);
    let keys = cli.home().join(".ssh");
    fs::create_dir(&keys).unwrap();
    fs::rename(key_with_mode(&lab, cli.home(), 0o644), keys.join("id_ed25519")).unwrap();
    fs::rename(key_with_mode(&lab, cli.home(), 0o400), keys.join("id_rsa")).unwrap();
    let ran = cli.run().await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("ssmssh: warning: the permissions 0644"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_iam_denies_is_told_with_the_statement_to_add() {
    let lab = Lab::builder().deny("ssm:StartSession").start().await.unwrap();
    insta::assert_snapshot!(Cli::in_lab(&lab).args([lab.node(), "true"]).run().await.shown(&[]), @r#"
    code 255
    --- stdout
    --- stderr
    ssmssh: not allowed by IAM: ssm:StartSession on arn:aws:ec2:us-east-1:000000000000:instance/i-0123456789abcdef0 and arn:aws:ssm:*:*:document/AWS-StartSSHSession
    ssmssh: hint: the service says: User: arn:aws:sts::000000000000:assumed-role/lab/lab is not authorized to perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:000000000000:instance/i-0123456789abcdef0 because no identity-based policy allows the ssm:StartSession action
    ssmssh: hint: this statement in your IAM policy would allow it:
    {
      "Action": "ssm:StartSession",
      "Effect": "Allow",
      "Resource": [
        "arn:aws:ec2:us-east-1:000000000000:instance/i-0123456789abcdef0",
        "arn:aws:ssm:*:*:document/AWS-StartSSHSession"
      ]
    }
    "#);
    let lab = Lab::builder().deny("ssmmessages:OpenDataChannel").start().await.unwrap();
    let ran = Cli::in_lab(&lab).args([lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains(r#""Action": "ssmmessages:OpenDataChannel""#), "{}", ran.stderr);
    assert!(ran.stderr.contains("log in again, or renew the credentials"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_connected_is_told_with_the_region() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["i-00000000000000000", "true"]).run().await;
    insta::assert_snapshot!(ran.shown(&[]), @r"
    code 255
    --- stdout
    --- stderr
    ssmssh: node i-00000000000000000 is not connected to Session Manager in region us-east-1
    ssmssh: hint: is i-00000000000000000 in us-east-1? Another region is asked with `--region` or AWS_REGION
    ssmssh: hint: on the node the SSM agent has to run, and its role to allow it (AmazonSSMManagedInstanceCore)
    ssmssh: hint: the node has to reach the endpoints ssm, ssmmessages and ec2messages of its region
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_set_to_nothing_is_a_missing_one() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).env("AWS_REGION", "").args([lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.starts_with("ssmssh: no AWS region is configured"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_and_a_profile_that_are_set_to_nothing_are_not_set() {
    let lab = fast_lab().await;
    let nothing = |variable: &str| Cli::in_lab(&lab).env(variable, "").args([lab.node(), "true"]).run();
    for variable in ["AWS_PROFILE", "AWS_ENDPOINT_URL"] {
        let ran = nothing(variable).await;
        assert_eq!(ran.code, Some(0), "{variable}: {}", ran.stderr);
    }
    let url = lab.endpoint_url();
    let cli = Cli::in_lab(&lab).env("AWS_ENDPOINT_URL_SSM", "").env("AWS_ENDPOINT_URL", url);
    let ran = cli.args([lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

/// As with the AWS CLI: whoever names an account's profile must not be sent to the account of a forgotten variable.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_named_outweighs_credentials_in_the_environment() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let of_lab = |name: &str| lab.env().into_iter().find(|(found, _)| found == name).expect("set by the lab").1;
    let [id, secret, token] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(of_lab);
    let keys = [("aws_access_key_id", id), ("aws_secret_access_key", secret), ("aws_session_token", token)];
    let lines = keys.map(|(name, value)| format!("{name} = {value}\n"));
    fs::write(&file, format!("[of-the-lab]\n{}", lines.concat())).unwrap();
    let with_profile = |name: &str| {
        let cli = Cli::in_lab(&lab).env("AWS_SHARED_CREDENTIALS_FILE", &file).env("AWS_ACCESS_KEY_ID", "AKIAOTHER");
        cli.args(["--profile", name, lab.node(), "true"]).run()
    };
    let ran = with_profile("of-the-lab").await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = with_profile("missing").await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("`missing`"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_the_key_does_not_open_is_told() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["-q", "-l", "nobody-here", lab.node(), "true"]).run().await;
    assert_eq!((ran.code, ran.out()), (Some(255), ""));
    assert!(
        ran.stderr.starts_with("ssmssh: the SSH server lets none of these keys in as nobody-here: "),
        "{}",
        ran.stderr
    );
    all_sessions_over(&lab).await;
}

#[tokio::test]
async fn an_option_of_ssh_that_is_missing_comes_with_what_to_do_instead() {
    let ran = Cli::ssmssh().args(["-N", "-L", "8080:localhost:80", "i-0123456789abcdef0"]).run().await;
    assert_eq!(ran.code, Some(255));
    insta::assert_snapshot!(ran.stderr, @r"
    ssmssh: `-N` of ssh (run no command) is not offered here
    ssmssh: hint: it is of use with forwards only, and there are none
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_family_that_is_asked_for_is_the_only_one_tried() {
    let lab = fast_lab().await;
    let four = Cli::in_lab(&lab).args(["-4", lab.node(), "true"]).run().await;
    assert_eq!((four.code, four.stderr.as_str()), (Some(0), ""));
    let six = Cli::in_lab(&lab).args(["-6", lab.node(), "true"]).run().await;
    assert!(six.code == Some(255) && six.stderr.contains("it has no IPv6 address"), "{}", six.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_does_not_hide_the_endpoint_of_the_profile() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    fs::write(&config, format!("[default]\nendpoint_url = {}\n", lab.endpoint_url())).unwrap();
    for empty in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SSM"] {
        let cli = Cli::in_lab(&lab).env_remove("AWS_ENDPOINT_URL_SSM").env(empty, "").env("AWS_CONFIG_FILE", &config);
        let ran = cli.args([lab.node(), "true"]).run().await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{empty}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_port_without_it_is_told_as_that() {
    let lab = fast_lab().await;
    let url = lab.endpoint_url().replace("http:", "https:");
    let ran = Cli::in_lab(&lab).args(["--endpoint-url", &url, lab.node(), "true"]).run().await;
    assert!(ran.code == Some(255) && ran.stderr.contains("does not speak TLS"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_key_is_told_once_and_kept() {
    let lab = fast_lab().await;
    // The lab's own file has the key from the start.
    let folder = tempfile::tempdir().unwrap();
    let cli = || Cli::in_lab(&lab).env("SSMSSH_KNOWN_HOSTS", folder.path().join("known_hosts"));
    let strict = cli().args(["-o", "StrictHostKeyChecking=yes", lab.node(), "true"]).run().await;
    assert_eq!(strict.code, Some(255));
    assert!(strict.stderr.contains("is not known"), "{}", strict.stderr);
    let first = cli().args([lab.node(), "true"]).run().await;
    assert!(first.stderr.starts_with(&format!("ssmssh: new host key of {}: ssh-ed25519 SHA256:", lab.node())));
    let again = cli().args(["-o", "StrictHostKeyChecking=yes", lab.node(), "true"]).run().await;
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_key_stops_it() {
    let (lab, other) = (fast_lab().await, fast_lab().await);
    let known_hosts = other.known_hosts().to_str().unwrap();
    let ran = Cli::in_lab(&lab).args(["--known-hosts", known_hosts, lab.node(), "true"]).run().await;
    assert_eq!((ran.code, ran.out()), (Some(255), ""));
    assert!(ran.stderr.contains("has changed") && ran.stderr.matches("SHA256:").count() == 2, "{}", ran.stderr);
    let off = ["-o", "StrictHostKeyChecking=off", "--known-hosts", known_hosts, lab.node(), "echo in"];
    let off = Cli::in_lab(&lab).args(off).run().await;
    assert_eq!((off.code, off.out()), (Some(0), "in\n"));
    assert!(
        off.stderr.starts_with("ssmssh: warning: the host key of ") && off.stderr.contains("accepted all the same")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_comes_from_the_askpass_program_where_there_is_no_terminal() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let key = encrypted_key(&lab, folder.path());
    let askpass = folder.path().join("askpass");
    fs::write(&askpass, "#!/bin/sh\necho correct horse\n").unwrap();
    fs::set_permissions(&askpass, PermissionsExt::from_mode(0o700)).unwrap();
    // A session of its own has no terminal, whatever the tests run on.
    let asked = |batch: &str| {
        let args = ["-i", key.to_str().unwrap(), "-o", batch, lab.node(), "echo in"];
        let cli = Cli::in_lab(&lab).env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force").args(args);
        cli.run()
    };
    assert_eq!(asked("BatchMode=no").await.out(), "in\n");
    let batch = asked("BatchMode=yes").await;
    assert_eq!(batch.code, Some(255));
    assert!(batch.stderr.contains("BatchMode"), "{}", batch.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_takes_too_long_is_given_up() {
    let lab = Lab::builder().worker_start(std::time::Duration::from_hours(1)).start().await.unwrap();
    let ran = Cli::in_lab(&lab).args(["-o", "ConnectTimeout=1", lab.node(), "true"]).run().await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(255), "ssmssh: not logged in within 1 s (ConnectTimeout)\n"));
    all_sessions_over(&lab).await;
}

/// The agent has crashed, so nothing that was sent is confirmed: waiting for that would outlast the process.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_on_a_port_where_nothing_listens_leaves_no_session() {
    let lab = fast_lab().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ran = Cli::in_lab(&lab).args(["-o", "ConnectTimeout=1", "-p", &free, lab.node(), "true"]).run().await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(255), "ssmssh: not logged in within 1 s (ConnectTimeout)\n"));
    assert_eq!(lab.open_sessions(), 0);
}

/// The lab's key under the passphrase `correct horse`.
pub(crate) fn encrypted_key(lab: &Lab, folder: &Path) -> PathBuf {
    let key = key_with_mode(lab, folder, 0o600);
    let mut keygen = std::process::Command::new("ssh-keygen");
    let status = keygen.args(["-q", "-p", "-P", "", "-N", "correct horse", "-f"]).arg(&key).status();
    assert!(status.expect("ssh-keygen runs").success());
    fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).expect("mode set");
    key
}
