//! What the programs that are started on the way may not touch.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ssm_lab::{CredentialSource, Lab, Pace};

use crate::cli_failures::encrypted_key;
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

/// The commands with what makes them start every child there is: a `credential_process`, and a program that asks for the
/// passphrase of a key, beside an agent. Each child writes what it finds open.
fn with_children(cli: Cli, lab: &Lab, folder: &Path) -> Cli {
    let config = lab.env().into_iter().find(|(name, _)| name.as_str() == "AWS_CONFIG_FILE").expect("a configuration").1;
    let config = fs::read_to_string(config).expect("readable");
    let process = config.lines().find_map(|line| line.strip_prefix("credential_process = ")).expect("a process");
    let script = |name: &str, then: &str| {
        let (path, list) = (folder.join(name), folder.join(format!("{name}.open")));
        fs::write(&path, format!("#!/bin/bash\nls -l /proc/$$/fd >> {}\n{then}\n", list.display())).expect("written");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("mode set");
        path
    };
    let credentials = script("credentials", &format!("exec {process}"));
    let askpass = script("askpass", "echo correct horse");
    let own = folder.join("config");
    fs::write(&own, format!("[default]\ncredential_process = {}\n", credentials.display())).expect("written");
    let cli = cli.env("AWS_CONFIG_FILE", own).env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
    cli.env("SSH_AUTH_SOCK", folder.join("agent")).env("SSMSSH_IDENTITY", encrypted_key(lab, folder))
}

/// The descriptors above standard error, and what is at standard input, as `ls -l` tells.
fn found_open(list: &str) -> (Vec<&str>, Vec<&str>) {
    let links = list.lines().filter_map(|line| line.split_once(" -> ").map(|(left, to)| (left.rsplit(' ').next(), to)));
    let (mut above, mut inputs) = (Vec::new(), Vec::new());
    for (number, to) in links {
        match number {
            Some("0") => inputs.push(to),
            // bash reads its script from a descriptor of its own, 255 mostly.
            Some("1" | "2" | "255") => {}
            _ => above.push(to),
        }
    }
    (above, inputs)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_child_holds_a_descriptor_of_ours_whatever_the_standard_ones_are() {
    let lab = Lab::builder().pace(Pace::Ideal).credential_source(CredentialSource::Process).start().await.unwrap();
    let there = format!("{}:copied", lab.node());
    let shell = [env!("CARGO_BIN_EXE_ssmssh"), lab.node(), "cat"];
    let copy = [env!("CARGO_BIN_EXE_ssmcp"), "-", &there];
    for command in [shell, copy] {
        for closed in ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = std::os::unix::net::UnixListener::bind(folder.path().join("agent")).expect("bound");
            let agent = std::thread::spawn(move || drop(socket.accept()));
            // What the tests themselves were started with is none of ours.
            let script = format!(
                "for fd in $(ls /proc/$$/fd); do [ $fd -lt 3 ] || eval \"exec $fd>&-\"; done; exec \"$@\" {closed}"
            );
            let cli = with_children(Cli::program("/bin/bash").with_lab(&lab), &lab, folder.path());
            let ran = cli.args(["-c", &script, "sh"]).args(command).run_with(b"the user's data").await;
            for child in ["credentials", "askpass"] {
                let list = fs::read_to_string(folder.path().join(format!("{child}.open")));
                let list = list.unwrap_or_else(|_| panic!("{child} did not run, {closed}: {}", ran.stderr));
                let (above, inputs) = found_open(&list);
                assert_eq!(above, Vec::<&str>::new(), "{child}, {command:?} {closed}: {list}");
                assert!(inputs.iter().all(|input| *input == "/dev/null"), "{child}, {command:?} {closed}: {list}");
            }
            agent.join().expect("asked");
        }
    }
}
