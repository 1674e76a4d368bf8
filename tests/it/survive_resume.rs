//! Credentials that expire under a session, and resumptions that are refused.

use ssm_lab::{CredentialSource, Cut, Event, Faults, Lab, Pace};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::ChildStderr;

use crate::support::cli::{Cli, LIMIT, Ran, Running, all_sessions_over, eventually};
use crate::support::gate::Gate;

/// `cat` on the node, after it has answered once.
struct Echo(Running);

impl Echo {
    async fn start(cli: Cli, lab: &Lab) -> Self {
        let mut echo = Self(cli.args([lab.node(), "cat"]).spawn());
        echo.answers("first").await;
        echo
    }

    async fn write(&mut self, text: &str) {
        self.0.child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).await.expect("written");
    }

    async fn answers(&mut self, text: &str) {
        self.write(text).await;
        let mut answer = vec![0; text.len()];
        let read = self.0.child.stdout.as_mut().expect("piped").read_exact(&mut answer);
        let read = tokio::time::timeout(crate::support::cli::LIMIT, read).await.expect("an answer");
        read.expect("the session goes on");
        assert_eq!(answer, text.as_bytes());
    }

    async fn ends_well(mut self) {
        drop(self.0.child.stdin.take());
        let ran = self.0.finish().await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }

    /// How it ends when its connection is cut, and with it the way back.
    async fn ends(mut self, lab: &Lab) -> Ran {
        lab.cut_clients(Cut::Reset);
        self.write("nobody hears this").await;
        self.0.finish().await
    }
}

fn refusals(lab: &Lab) -> usize {
    let of_resume = |event: &&Event| matches!(event, Event::Refused { operation, .. } if operation == "ResumeSession");
    lab.events().iter().filter(of_resume).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_rotated_in_their_file_are_read_anew_at_a_resumption() {
    let lab = Lab::builder().pace(Pace::Ideal).credential_source(CredentialSource::File).start().await.unwrap();
    let mut echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    for text in ["second", "third"] {
        lab.rotate_credentials().unwrap();
        lab.cut_clients(Cut::Bye);
        echo.answers(text).await;
    }
    echo.ends_well().await;
    assert!(refusals(&lab) >= 1, "the old credentials were refused at least once");
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_process_is_asked_again_at_a_resumption() {
    let lab = Lab::builder().pace(Pace::Ideal).credential_source(CredentialSource::Process).start().await.unwrap();
    let mut echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    for text in ["second", "third"] {
        lab.rotate_credentials().unwrap();
        lab.cut_clients(Cut::Bye);
        echo.answers(text).await;
    }
    echo.ends_well().await;
    all_sessions_over(&lab).await;
}

/// A login elsewhere may renew them, so they are waited for as long as any outage.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_have_expired_and_stay_so_are_the_reason_that_is_told() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let echo = Echo::start(Cli::in_lab(&lab).args(["--resume-timeout", "2"]), &lab).await;
    lab.expire_credentials();
    let ran = echo.ends(&lab).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("did not come back within 2"), "{}", ran.stderr);
    assert!(ran.stderr.contains("AWS credentials have expired"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumption_without_a_token_ends_with_its_reason() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    let mut faults = Faults::default();
    faults.refuse_resume = true;
    lab.set_faults(faults);
    let ran = echo.ends(&lab).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("is over: it has timed out or was terminated"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_when_it_is_to_be_resumed_ends_with_that_answer() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    lab.forget_sessions();
    let ran = echo.ends(&lab).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("is over: Session ") && ran.stderr.contains("does not exist"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumption_that_iam_denies_ends_with_the_statement_that_is_missing() {
    let lab = Lab::builder().pace(Pace::Ideal).deny("ssm:ResumeSession").start().await.unwrap();
    let echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    let ran = echo.ends(&lab).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("not allowed by IAM: ssm:ResumeSession"), "{}", ran.stderr);
    assert!(ran.stderr.contains(r#""Action": "ssm:ResumeSession""#), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_outlasts_its_limit_ends_with_its_length() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let gate = Gate::to(lab.endpoint_url()).await;
    let cli = Cli::in_lab(&lab).env("AWS_ENDPOINT_URL_SSM", gate.url()).args(["--resume-timeout", "1"]);
    let echo = Echo::start(cli, &lab).await;
    gate.shut(true);
    let ran = echo.ends(&lab).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("the connection was lost and did not come back within 1"), "{}", ran.stderr);
}

/// The session may be cut while another cut of it is being made good.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_as_soon_as_it_is_back_is_resumed_again() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let mut echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    for _ in 0..5 {
        eventually("there is a connection to cut", || lab.cut_client(1, Cut::Reset)).await;
    }
    echo.answers("second").await;
    echo.ends_well().await;
}

/// The next line on stderr that has `text` in it.
async fn told(lines: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let found = async {
        loop {
            let line = lines.next_line().await.expect("UTF-8").expect("it says more");
            if line.contains(text) {
                break line;
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("never told: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_have_expired_are_told_at_once_with_the_remedy_and_their_renewal_is_enough() {
    let lab = Lab::builder().pace(Pace::Ideal).credential_source(CredentialSource::File).start().await.unwrap();
    let mut echo = Echo::start(Cli::in_lab(&lab), &lab).await;
    let mut stderr = BufReader::new(echo.0.child.stderr.take().expect("piped")).lines();
    lab.expire_credentials();
    lab.cut_clients(Cut::Reset);
    told(&mut stderr, "connection lost, reconnecting…").await;
    let reason = told(&mut stderr, "not connected yet: ").await;
    assert!(reason.contains("AWS credentials have expired") && reason.contains("renew the credentials"), "{reason}");
    lab.rotate_credentials().unwrap();
    told(&mut stderr, "connected again after ").await;
    echo.answers("second").await;
    echo.ends_well().await;
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_a_terminal_both_commands_tell_the_beginning_and_the_end_of_an_outage_in_a_line_each() {
    let lab = Lab::builder().pace(Pace::Ideal).start().await.unwrap();
    let copied = lab.home().join("copied");
    let target = format!("{}:{}", lab.node(), copied.display());
    let command = Cli::in_lab(&lab).args([lab.node(), "cat"]);
    let copy = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&lab).args(["-", &target]);
    for cli in [command, copy] {
        let gate = Gate::to(lab.endpoint_url()).await;
        let mut running = cli.env("AWS_ENDPOINT_URL_SSM", gate.url()).spawn();
        let mut stderr = BufReader::new(running.child.stderr.take().expect("piped")).lines();
        let mut stdin = running.child.stdin.take().expect("piped");
        let is_cut = || {
            lab.cut_client(
                lab.events().iter().filter(|event| matches!(event, Event::SessionStarted { .. })).count(),
                Cut::Reset,
            )
        };
        eventually("there is a connection to cut", || {
            let open = lab.open_sessions() > 0;
            gate.shut(open);
            open && is_cut()
        })
        .await;
        told(&mut stderr, "connection lost, reconnecting… ").await;
        gate.shut(false);
        told(&mut stderr, "connected again after ").await;
        stdin.write_all(b"after it").await.expect("written");
        drop(stdin);
        let mut rest = Vec::new();
        while let Some(line) = stderr.next_line().await.expect("UTF-8") {
            rest.push(line);
        }
        assert!(!rest.iter().any(|line| line.contains("connect")), "{rest:?}");
        assert_eq!(running.finish().await.code, Some(0));
    }
    assert_eq!(std::fs::read(copied).unwrap(), b"after it");
    all_sessions_over(&lab).await;
}
