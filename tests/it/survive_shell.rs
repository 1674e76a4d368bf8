//! A person at a shell, and a connection that is cut again and again.

use std::time::Duration;

use ssm_lab::{Cut, Event, Lab, Pace};

use crate::support::cli::{Cli, all_sessions_over, eventually};
use crate::support::gate::Gate;
use crate::support::pty::Terminal;

const CUTS: usize = 20;
/// Typed after each cut.
const LINES: usize = 5;

/// Prints by itself, answers each line that is typed, and says when both are over.
const PROGRAM: &str = r#"
stty -echo
echo begin
(i=0; while [ ! -e "$0.stop" ]; do i=$((i + 1)); echo "printed $i"; sleep 0.01; done; echo "printed to $i") &
n=0
while read -r line && [ "$line" != end ]; do n=$((n + 1)); echo "answer $n <$line>"; done
touch "$0.stop"
wait
echo over
"#;

/// What is typed in the place `number`: no two lines are alike, and a shell leaves all of it as it is.
fn line(number: usize) -> String {
    format!("{number} {:x} äöü — \\ $x `y` '\"{}", number * 0x9e37_79b9, "-".repeat(number % 60))
}

fn resumed(lab: &Lab) -> usize {
    lab.events().iter().filter(|event| matches!(event, Event::SessionResumed { .. })).count()
}

/// What the node printed: everything but our own notices, which stand on lines of their own.
fn without_notices(transcript: &str) -> (String, Vec<String>) {
    let (mut text, mut notices) = (transcript.to_owned(), Vec::new());
    while let Some(start) = text.find("\r\nssmssh: ") {
        let end = start + 2 + text[start + 2..].find("\r\n").expect("a whole line") + 2;
        let notice = text[start + 2..end - 2].to_owned();
        notices.extend((!notice.contains("new host key")).then_some(notice));
        text.replace_range(start..end, "");
    }
    (text, notices)
}

/// The lines behind `begin`, those that answer apart from those that were printed without being asked for.
fn answers_and_prints(text: &str) -> (Vec<&str>, Vec<&str>) {
    let begun = text.split_once("begin\r\n").expect("it began").1;
    let told = begun.split_once("over\r\n").expect("it ended").0;
    told.lines().partition(|line| line.starts_with("answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_survives_twenty_cuts_and_no_character_is_lost_doubled_or_moved() {
    let lab = Lab::builder().openssh().pace(Pace::Ideal).silence(Duration::from_millis(200)).start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, PROGRAM).unwrap();
    let gate = Gate::to(lab.endpoint_url()).await;
    let mut terminal = Terminal::start(Cli::in_lab(&lab).env("AWS_ENDPOINT_URL_SSM", gate.url()).args([lab.node()]));
    terminal.log_in().await;
    terminal.type_keys(&format!("sh {}\r", program.display())).await;
    terminal.print("begin\r\n").await;

    for cut in 0..CUTS {
        // In the middle of it the way to the API is barred for longer than people are left in the dark.
        let is_outage = cut == CUTS / 2;
        gate.shut(is_outage);
        let kind = if is_outage { Cut::Reset } else { [Cut::Bye, Cut::Reset, Cut::Silence][cut % 3] };
        eventually("there is a connection to cut", || lab.cut_client(1, kind)).await;
        for number in cut * LINES..(cut + 1) * LINES {
            for key in line(number).chars() {
                terminal.type_keys(&key.to_string()).await;
            }
            terminal.type_keys("\r").await;
        }
        if is_outage {
            terminal.print("reconnecting… ~. to give up").await;
            gate.shut(false);
        }
        terminal.print(&format!("answer {} ", (cut + 1) * LINES)).await;
    }
    terminal.type_keys("end\r").await;
    terminal.print("over\r\n").await;
    terminal.type_keys("exit 3\r").await;
    assert_eq!(terminal.wait().await, 3);
    assert!(terminal.is_as_found());

    let transcript = terminal.transcript();
    let (text, notices) = without_notices(&transcript);
    let (answers, prints) = answers_and_prints(&text);
    let expected: Vec<_> = (0..CUTS * LINES).map(|at| format!("answer {} <{}>", at + 1, line(at))).collect();
    assert_eq!(answers, expected);
    let count = prints.len() - 1;
    let expected: Vec<_> = (1..=count).map(|number| format!("printed {number}")).collect();
    assert_eq!(prints[..count], expected);
    assert_eq!(prints[count], format!("printed to {count}"));
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[1].starts_with("ssmssh: connected again after "), "{notices:?}");
    assert!(resumed(&lab) >= CUTS / 2, "{} resumptions", resumed(&lab));
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_screen_program_looks_the_same_after_cuts() {
    let lab = Lab::builder().pace(Pace::Ideal).silence(Duration::from_millis(100)).start().await.unwrap();
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args([lab.node()]));
    terminal.log_in().await;
    terminal.type_keys("LANG=C.UTF-8 vim -u NONE -i NONE -N note\r").await;
    terminal.until("the other screen", vt100::Screen::alternate_screen).await;
    terminal.type_keys("i").await;
    let lines: Vec<_> = (0..12).map(line).collect();
    for (number, text) in lines.iter().enumerate() {
        eventually("there is a connection to cut", || {
            lab.cut_client(1, [Cut::Bye, Cut::Silence, Cut::Reset][number % 3])
        })
        .await;
        terminal.type_keys(&format!("{text}\r")).await;
    }
    terminal.see(lines.last().unwrap()).await;
    let screen = terminal.contents();
    let shown: Vec<_> = screen.lines().take(lines.len()).collect();
    assert_eq!(shown, lines.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.type_keys("\u{1b}:wq\r").await;
    terminal.until("the first screen", |screen| !screen.alternate_screen()).await;
    terminal.log_in().await;
    let note = std::fs::read_to_string(lab.home().join("note")).unwrap();
    assert_eq!(note.lines().take(lines.len()).collect::<Vec<_>>(), shown);
}
