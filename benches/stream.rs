//! What a stream carries through the lab, beside what the path or the pace allows: `cargo bench --bench stream`, or
//! `just bench`. Names of cases, or parts of them, as arguments choose some; `openssh` among them puts a real sshd behind
//! the node.
//!
//! The lab runs in this process and each case in one of its own, so that CPU time and memory are the product's alone.
#![expect(clippy::print_stdout, reason = "the results are what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]
#![expect(clippy::disallowed_methods, reason = "the lab tells its clients by the environment where it is")]
#![expect(clippy::cast_precision_loss, reason = "a rate of three digits")]

use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use ssm_lab::{Faults, Lab, LabBuilder, Pace};
use ssmssh::Client;
use ssmssh::ssh::{HostKeyCheck, KeyFile, SessionBuilder, StrictHostKeyChecking};
use ssmssh::stream::{SsmStream, StreamHandle, StreamOptions, TargetId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::sleep;

const MB: u64 = 1_000_000;
const GIB: u64 = 1 << 30;
/// Bytes handed to the stream at a time.
const BLOCK: usize = 64 << 10;
/// Before this the window is still finding out.
const WARM_UP: Duration = Duration::from_secs(2);
/// The lab's ports that read everything, and that write without end.
const DISCARD: u16 = 9;
const CHARGEN: u16 = 19;

struct Case {
    name: &'static str,
    path: Path,
    work: Work,
    /// Bytes a second that the path, or the pace, allows.
    allowed: Option<f64>,
}

#[derive(Clone, Copy, Default)]
struct Path {
    round_trip: Duration,
    rate: Option<NonZeroU64>,
    is_ideal: bool,
}

#[derive(Clone, Copy)]
enum Work {
    Push {
        bytes: u64,
        is_paced: bool,
    },
    Pull {
        bytes: u64,
        is_paced: bool,
    },
    /// Bytes to one command of an SSH session, and single ones through another and back.
    Echo {
        lasts: Duration,
    },
}

/// What the agent sends: 1024 bytes every 1.25 ms.
const AGENT_PACE: f64 = 1024.0 * 800.0;
const PACE: f64 = 900.0 * 16384.0;

fn cases() -> Vec<Case> {
    let near = Path::default();
    let path = |millis, rate| Path { round_trip: Duration::from_millis(millis), rate: NonZeroU64::new(rate), ..near };
    let ideal = Path { is_ideal: true, ..near };
    let (slow, long) = (path(40, MB), path(200, 20 * MB));
    let case = |name, path, work, allowed| Case { name, path, work, allowed };
    vec![
        case("up, default pace", near, Work::Push { bytes: 256 << 20, is_paced: true }, Some(PACE)),
        case("up, no pace, 1 GiB", near, Work::Push { bytes: GIB, is_paced: false }, None),
        case("up, 200 ms, 20 MB/s", long, Work::Push { bytes: 200 * MB, is_paced: false }, Some(20e6)),
        case("up, 40 ms, 1 MB/s", slow, Work::Push { bytes: 12 * MB, is_paced: false }, Some(1e6)),
        case("down, agent's pace", near, Work::Pull { bytes: 8 << 20, is_paced: true }, Some(AGENT_PACE)),
        case("down, ideal node, 1 GiB", ideal, Work::Pull { bytes: GIB, is_paced: false }, None),
        case("echo behind an upload", slow, Work::Echo { lasts: Duration::from_secs(15) }, Some(1e6)),
    ]
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [own, name] = arguments.as_slice()
        && own == "--case"
    {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        return run(&case).await;
    }
    let (openssh, wanted): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument == "openssh");
    println!("case                         MB/s  of what is allowed   CPU s   peak MiB");
    for case in cases() {
        if wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part.as_str())) {
            in_a_lab(&case, !openssh.is_empty()).await;
        }
    }
}

/// Runs the case in a process of its own, against a lab in this one.
async fn in_a_lab(case: &Case, is_openssh: bool) {
    let mut faults = Faults::default();
    (faults.delay, faults.rate) = (case.path.round_trip / 2, case.path.rate);
    let pace = if case.path.is_ideal { Pace::Ideal } else { Pace::Agent };
    let lab: LabBuilder = Lab::builder().faults(faults).pace(pace);
    let lab = if is_openssh { lab.openssh() } else { lab }.start().await.unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in Lab::env_remove() {
        command.env_remove(name);
    }
    command.args(["--case", case.name]).envs(lab.env()).kill_on_drop(true);
    assert!(command.status().await.unwrap().success(), "{} failed", case.name);
    lab.shutdown().await;
}

async fn run(case: &Case) {
    let rate = match case.work {
        Work::Push { bytes, is_paced } => push(bytes, is_paced).await,
        Work::Pull { bytes, is_paced } => pull(bytes, is_paced).await,
        Work::Echo { lasts } => echo(case.path.round_trip, lasts).await,
    };
    let share = case.allowed.map_or_else(|| "-".to_owned(), |allowed| format!("{:.1} %", 100.0 * rate / allowed));
    let Cost { cpu, memory } = Cost::of_this_process();
    println!("{:25} {:7.2} {share:>19} {cpu:>7} {memory:>10}", case.name, rate / 1e6);
}

/// Bytes a second that the node acknowledges once the window has found its size; of the whole if that is over before.
async fn push(bytes: u64, is_paced: bool) -> f64 {
    let (client, mut stream) = open(DISCARD, is_paced).await;
    let (handle, block) = (stream.handle(), vec![0; BLOCK]);
    let start = Instant::now();
    let mut warm = None;
    for _ in 0..bytes / BLOCK as u64 {
        stream.write_all(&block).await.unwrap();
        if warm.is_none() && start.elapsed() >= WARM_UP {
            warm = Some(delivered(&handle));
        }
    }
    let rate = warm.map(|warm| warm.rate_until(&delivered(&handle)));
    stream.shutdown().await.unwrap();
    let rate = rate.unwrap_or_else(|| bytes as f64 / start.elapsed().as_secs_f64());
    client.wait_idle().await;
    rate
}

async fn pull(bytes: u64, is_paced: bool) -> f64 {
    let (client, mut stream) = open(CHARGEN, is_paced).await;
    let mut block = vec![0; BLOCK];
    // The node's worker takes its time to connect to the port.
    let _first = stream.read(&mut block).await.unwrap();
    let (start, mut read) = (Instant::now(), 0);
    while read < bytes {
        read += stream.read(&mut block).await.unwrap() as u64;
    }
    let rate = read as f64 / start.elapsed().as_secs_f64();
    stream.handle().terminate();
    client.wait_idle().await;
    rate
}

/// Prints how late the echoes were; gives the rate of the upload.
async fn echo(round_trip: Duration, lasts: Duration) -> f64 {
    let client = Client::builder().stream_options(options(false)).build().await.unwrap();
    let key = KeyFile::open(std::env::var("SSMSSH_IDENTITY").unwrap()).unwrap().decode(None).unwrap();
    let hosts = std::env::var("SSMSSH_KNOWN_HOSTS").unwrap();
    let hosts = HostKeyCheck::new(StrictHostKeyChecking::AcceptNew, hosts.into(), "node", 22);
    let login = SessionBuilder::new(std::env::var("SSMSSH_USER").unwrap()).identity(key).host_keys(hosts);
    let session = client.connect(&target(), ssmssh::SSH_PORT, login).await.unwrap();
    let (mut sink, mut echo) =
        (session.command("cat > /dev/null").spawn().await.unwrap(), session.command("cat").spawn().await.unwrap());
    let mut upload = sink.stdin.take().unwrap();
    let block = vec![0; BLOCK];
    let upload = tokio::spawn(async move { while upload.write_all(&block).await.is_ok() {} });
    let (mut to, mut from) = (echo.stdin.take().unwrap(), echo.stdout.take().unwrap());
    sleep(WARM_UP).await;
    let (start, warm) = (Instant::now(), delivered(session.stream()));
    let mut late = Vec::new();
    while start.elapsed() < lasts {
        let sent = Instant::now();
        to.write_all(b"x").await.unwrap();
        from.read_u8().await.unwrap();
        late.push(sent.elapsed().saturating_sub(round_trip));
        sleep(Duration::from_millis(173)).await;
    }
    let rate = warm.rate_until(&delivered(session.stream()));
    late.sort_unstable();
    println!("  echoes late by {:.0?} half the time, {:.0?} at most", late[late.len() / 2], late[late.len() - 1]);
    upload.abort();
    session.abort();
    client.wait_idle().await;
    rate
}

async fn open(port: u16, is_paced: bool) -> (Client, SsmStream) {
    let client = Client::builder().stream_options(options(is_paced)).build().await.unwrap();
    let stream = client.open(&target(), port.try_into().unwrap()).await.unwrap();
    (client, stream)
}

fn target() -> TargetId {
    TargetId::new(&std::env::var("SSM_LAB_NODE").unwrap()).unwrap()
}

fn options(is_paced: bool) -> StreamOptions {
    let mut options = StreamOptions::default();
    options.channel.max_frames_per_second = options.channel.max_frames_per_second.filter(|_: &NonZeroU32| is_paced);
    options
}

/// Bytes that the node has acknowledged, and when.
struct Delivered {
    at: Instant,
    bytes: u64,
}

fn delivered(handle: &StreamHandle) -> Delivered {
    let seen = handle.stats();
    Delivered { at: Instant::now(), bytes: seen.bytes_sent - seen.in_flight as u64 }
}

impl Delivered {
    fn rate_until(&self, later: &Self) -> f64 {
        (later.bytes - self.bytes) as f64 / (later.at - self.at).as_secs_f64()
    }
}

/// CPU seconds and the most memory that was resident, where the system is Linux.
struct Cost {
    cpu: String,
    memory: String,
}

impl Cost {
    fn of_this_process() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        // The fields behind the name, which may hold anything: user and system time are the 12th and 13th, in 1/100 s.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak = peak.and_then(|kib| kib.parse::<f64>().ok());
        Self {
            cpu: if ticks.is_empty() { "-".to_owned() } else { format!("{:.2}", ticks.iter().sum::<f64>() / 100.0) },
            memory: peak.map_or_else(|| "-".to_owned(), |kib| format!("{:.0}", kib / 1024.0)),
        }
    }
}
