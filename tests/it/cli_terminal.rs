//! `ssmssh` on a terminal.

use std::fs;

use rustix::process::Signal;
use ssm_lab::{Cut, Faults, Lab};

use crate::cli_failures::encrypted_key;
use crate::support::cli::{Cli, all_sessions_over, eventually, fast_lab};
use crate::support::gate::Gate;
use crate::support::pty::Terminal;

fn shell(lab: &Lab) -> Terminal {
    Terminal::start(Cli::in_lab(lab).args([lab.node()]))
}

/// A shell that has answered.
async fn logged_in(lab: &Lab) -> Terminal {
    let mut terminal = shell(lab);
    terminal.log_in().await;
    terminal
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_has_the_terminals_size_type_and_modes() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    terminal.type_keys("stty size; echo type=$TERM; stty -a | tr ';' '\\n' | grep erase\r").await;
    terminal.see("30 100").await;
    terminal.see("type=xterm-256color").await;
    terminal.see("erase = ^?").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_status_is_the_shells_and_the_terminal_is_given_back() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    assert!(!terminal.is_as_found(), "keys should reach the node as they are");
    terminal.type_keys("exit 5\r").await;
    assert_eq!(terminal.wait().await, 5);
    assert!(terminal.is_as_found());
    terminal.see(&format!("Connection to {} closed.", lab.node())).await;
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_size_of_the_window_is_told_to_the_remote_side() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    let script = "trap 'echo size $(stty size)' WINCH; echo armed-$((1 + 2)); while :; do sleep 0.01; done";
    terminal.type_keys(&format!("sh -c \"{}\"\r", script.replace('$', "\\$"))).await;
    terminal.see("armed-3").await;
    terminal.resize(77, 22);
    terminal.see("size 22 77").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_interrupts_the_remote_program_only() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    terminal.type_keys("sh -c 'echo up-$((1 + 1)); exec sleep 1000'\r").await;
    terminal.see("up-2").await;
    terminal.type_keys("\u{3}").await;
    terminal.type_keys("echo status=$?.\r").await;
    terminal.see("status=130.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_screen_program_can_be_used() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    terminal.type_keys("LANG=C.UTF-8 vim -u NONE -i NONE -N note\r").await;
    terminal.until("the other screen", vt100::Screen::alternate_screen).await;
    terminal.type_keys("iGrüße, 世界").await;
    terminal.see("Grüße, 世界").await;
    terminal.see("-- INSERT --").await;
    terminal.resize(60, 12);
    terminal
        .until("the last line at its new place", |screen| screen.rows(0, 60).nth(11) == Some("-- INSERT --".into()))
        .await;
    terminal.type_keys("\u{1b}:wq\r").await;
    terminal.until("the first screen", |screen| !screen.alternate_screen()).await;
    terminal.log_in().await;
    assert_eq!(std::fs::read_to_string(lab.home().join("note")).unwrap(), "Grüße, 世界\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_gives_the_terminal_back() {
    let lab = fast_lab().await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let mut terminal = logged_in(&lab).await;
        terminal.signal(signal);
        assert_eq!(terminal.wait().await, code);
        assert!(terminal.is_as_found(), "after {signal:?}");
        all_sessions_over(&lab).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_gives_the_terminal_back_and_says_why() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    let mut faults = Faults::default();
    faults.refuse_resume = true;
    lab.set_faults(faults);
    lab.cut_clients(Cut::Reset);
    assert_eq!(terminal.wait().await, 255);
    assert!(terminal.is_as_found());
    terminal.see("ssmssh: ").await;
}

/// A shell whose connection is lost, and whose way to the API is barred.
async fn cut_off(lab: &Lab) -> (Terminal, Gate) {
    let gate = Gate::to(lab.endpoint_url()).await;
    let cli = Cli::in_lab(lab).env("AWS_ENDPOINT_URL_SSM", gate.url()).args([lab.node()]);
    let mut terminal = Terminal::start(cli);
    terminal.log_in().await;
    gate.shut(true);
    lab.cut_clients(Cut::Reset);
    (terminal, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_lasts_is_told_and_so_is_its_end() {
    let lab = fast_lab().await;
    let (mut terminal, gate) = cut_off(&lab).await;
    terminal.type_keys("echo typed-$((5 * 5))\r").await;
    terminal.see("reconnecting… ~. to give up").await;
    gate.shut(false);
    terminal.see("ssmssh: connected again after ").await;
    terminal.see("typed-25").await;
    let screen = terminal.contents();
    let told = screen.lines().filter(|line| line.contains("ssmssh: connect")).count();
    assert_eq!(told, 2, "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_dot_gives_up_an_outage() {
    let lab = fast_lab().await;
    let (mut terminal, _gate) = cut_off(&lab).await;
    terminal.see("reconnecting… ~. to give up").await;
    terminal.type_keys("\r~.").await;
    assert_eq!(terminal.wait().await, 255);
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_is_not_told() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    lab.cut_clients(Cut::Bye);
    terminal.type_keys("echo typed-$((5 * 5))\r").await;
    terminal.see("typed-25").await;
    assert!(!terminal.contents().contains("ssmssh: connect"), "{}", terminal.contents());
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_dot_ends_a_session_that_is_stuck() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    let mut faults = Faults::default();
    faults.loss = 1.0;
    lab.set_faults(faults);
    terminal.type_keys("nobody hears this\r~.").await;
    assert_eq!(terminal.wait().await, 255);
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_question_mark_lists_the_escapes_and_the_session_goes_on() {
    let lab = fast_lab().await;
    let mut terminal = logged_in(&lab).await;
    terminal.type_keys("\r~?").await;
    terminal.see("~^Z  - suspend ssmssh").await;
    terminal.type_keys("echo home=~~ | tr a-z A-Z\r").await;
    terminal.see("HOME=~~").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_control_z_stops_it_until_the_shell_in_front_resumes_it() {
    let lab = fast_lab().await;
    let mut terminal = Terminal::start(Cli::program("bash").with_lab(&lab).args(["--norc", "-i"]));
    terminal.type_keys(&format!("{} -q {}\r", env!("CARGO_BIN_EXE_ssmssh"), lab.node())).await;
    terminal.log_in().await;
    terminal.type_keys("\r~\u{1a}").await;
    terminal.see("Stopped").await;
    terminal.type_keys("clear; echo here-$((2 + 3)); fg\r").await;
    terminal.see("here-5").await;
    terminal.see("ssmssh -q").await;
    terminal.type_keys("stty -a | grep -c 'icanon'; echo there-$((3 + 4))\r").await;
    terminal.see("there-7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_a_terminal_with_t() {
    let lab = fast_lab().await;
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args(["-t", lab.node(), "test -t 0 && echo yes-$((3 * 3))"]));
    terminal.see("yes-9").await;
    assert_eq!(terminal.wait().await, 0);
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_for_without_showing_it_and_again_when_it_is_wrong() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let key = encrypted_key(&lab, folder.path());
    let args = ["-i", key.to_str().unwrap(), lab.node(), "echo in-$((4 * 4))"];
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args(args));
    terminal.see("Passphrase for ").await;
    terminal.type_keys("wrong pony\r").await;
    terminal.see("Wrong passphrase, try again for ").await;
    terminal.type_keys("correct horse\r").await;
    terminal.see("in-16").await;
    assert_eq!(terminal.wait().await, 0);
    assert!(terminal.is_as_found());
    let screen = terminal.contents();
    assert!(!screen.contains("pony") && !screen.contains("horse"), "{screen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_at_the_question_for_a_passphrase_gives_the_terminal_back() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let key = encrypted_key(&lab, folder.path());
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args(["-i", key.to_str().unwrap(), lab.node()]));
    terminal.see("Passphrase for ").await;
    terminal.type_keys("\u{3}").await;
    assert_eq!(terminal.wait().await, 130);
    terminal.until("the line of the question ends", |screen| screen.cursor_position() == (1, 0)).await;
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn control_c_ends_a_shells_loop_around_either_command() {
    let lab = fast_lab().await;
    let ssmcp = env!("CARGO_BIN_EXE_ssmcp");
    fs::File::create(lab.home().join("big")).unwrap().set_len(1 << 30).unwrap();
    let commands = [
        format!("{} {} 'echo begun; sleep 100'", env!("CARGO_BIN_EXE_ssmssh"), lab.node()),
        format!("echo begun; {ssmcp} -l 800 {}:big .", lab.node()),
    ];
    for command in commands {
        let script = format!("cd $HOME; for i in 1 2 3; do {command}; echo again; done");
        let mut terminal = Terminal::start(Cli::program("/bin/bash").with_lab(&lab).args(["-c", &script]));
        terminal.print("begun").await;
        eventually("it is under way", || lab.open_sessions() > 0).await;
        terminal.type_keys("\x03").await;
        assert_eq!(terminal.wait().await, 130);
        assert!(!terminal.transcript().contains("again"), "{}", terminal.transcript());
        all_sessions_over(&lab).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_after_the_end_is_left_to_the_shell() {
    let lab = fast_lab().await;
    let ssmssh = env!("CARGO_BIN_EXE_ssmssh");
    let script = format!("{ssmssh} {}; read -r line; echo \"the shell got <$line>\"", lab.node());
    let mut terminal = Terminal::start(Cli::program("/bin/bash").with_lab(&lab).args(["-c", &script]));
    terminal.log_in().await;
    lab.vanish_node();
    terminal.type_keys("\r~.").await;
    terminal.print("closed.").await;
    terminal.type_keys("typed early\r").await;
    terminal.see("the shell got <typed early>").await;
    assert_eq!(terminal.wait().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_leaves_a_whole_line_and_continues() {
    let lab = fast_lab().await;
    fs::write(lab.home().join("file"), vec![7; 400_000]).unwrap();
    let source = format!("{}:file", lab.node());
    let copy = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&lab);
    let target = copy.home().join("copied");
    let target = target.to_str().unwrap().to_owned();
    let mut terminal = Terminal::start(copy.args(["-l", "800", &source, &target]));
    terminal.see("file").await;
    terminal.signal(Signal::TSTP);
    terminal.until("the lines are gone", |screen| !screen.contents().contains("file")).await;
    terminal.signal(Signal::CONT);
    terminal.see("1 file, 390.62 KiB in ").await;
    assert_eq!(terminal.wait().await, 0);
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dumb_terminal_gets_no_escapes() {
    let lab = fast_lab().await;
    fs::write(lab.home().join("file"), vec![7; 100_000]).unwrap();
    let source = format!("{}:file", lab.node());
    let copy = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(&lab).env("TERM", "dumb");
    let target = copy.home().join("copied");
    let target = target.to_str().unwrap().to_owned();
    let mut terminal = Terminal::start(copy.args(["-l", "800", &source, &target]));
    assert_eq!(terminal.wait().await, 0);
    terminal.print("1 file, 97.66 KiB in ").await;
    assert!(!terminal.transcript().contains('\x1b'), "{:?}", terminal.transcript());
}
