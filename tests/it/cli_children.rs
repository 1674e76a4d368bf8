//! What the programs that are started on the way may not touch.

use ssm_lab::{CredentialSource, Lab, Pace};

use crate::support::cli::Cli;

/// A command whose credentials come from a process that takes whatever is on its standard input, and keeps it in the file.
fn greedy(cli: Cli, lab: &Lab) -> (Cli, std::path::PathBuf) {
    let config = lab.env().into_iter().find(|(name, _)| name.as_str() == "AWS_CONFIG_FILE").expect("a configuration").1;
    let config = std::fs::read_to_string(config).expect("readable");
    let process = config.lines().find_map(|line| line.strip_prefix("credential_process = ")).expect("a process");
    let (taken, script, own) = (cli.home().join("taken"), cli.home().join("process"), cli.home().join("config"));
    std::fs::write(&script, format!("cat > {}\nexec {process}\n", taken.display())).expect("written");
    let profile = format!("[default]\ncredential_process = sh {}\n", script.display());
    std::fs::write(&own, profile).expect("written");
    (cli.env("AWS_CONFIG_FILE", own), taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_process_that_reads_its_input_gets_nothing_of_the_users_data() {
    let lab = Lab::builder().pace(Pace::Ideal).credential_source(CredentialSource::Process).start().await.unwrap();
    let (cli, _) = greedy(Cli::in_lab(&lab), &lab);
    let ran = cli.args([lab.node(), "cat"]).run_with(b"the user's data").await;
    assert_eq!((ran.code, ran.out()), (Some(0), "the user's data"), "{}", ran.stderr);

    let (cli, taken) = greedy(Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&lab), &lab);
    let target = format!("{}:copied", lab.node());
    let mut running = cli.args(["-", &target]).spawn();
    let mut stdin = running.child.stdin.take().expect("piped");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"the user's data").await.expect("taken");
    drop(stdin);
    running.child.wait().await.expect("it ends");
    assert_eq!(std::fs::read_to_string(&taken).expect("the process ran"), "");
    let ran = Cli::in_lab(&lab).args([lab.node(), "cat copied"]).run().await;
    assert_eq!((ran.code, ran.out()), (Some(0), "the user's data"), "{}", ran.stderr);
}
