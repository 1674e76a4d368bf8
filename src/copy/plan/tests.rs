use proptest::prelude::*;

use super::listed::{DIRECTORIES_AHEAD, LISTS_AT_ONCE, NAMES_AHEAD};
use super::*;
use crate::copy::Exclude;

fn metadata(kind: FileKind) -> Metadata {
    Metadata { kind: Some(kind), size: Some(3), mode: Some(0o644), times: None, owner: None }
}

fn entry(name: &[u8], kind: FileKind) -> Entry {
    Entry { name: name.to_vec(), metadata: metadata(kind) }
}

fn plan(recursive: bool) -> Plan {
    plan_with(CopyOptions::default().recursive(recursive))
}

fn plan_with(options: CopyOptions) -> Plan {
    Plan::new(vec![Place { origin: 0, source: "src".into(), target: "dst".into() }], options)
}

/// Carries out everything, the step that ends next chosen by `choose`. A directory whose path has a `d` at its
/// end lists what `list` gives. Returns what was done, in order.
fn run(
    mut plan: Plan,
    list: impl Fn(&str) -> Vec<Entry>,
    mut choose: impl FnMut(usize) -> usize,
) -> (Vec<String>, Vec<String>) {
    let (mut running, mut done, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        running.extend(std::iter::from_fn(|| plan.poll_step()));
        while let Some((place, error)) = plan.poll_failure() {
            failed.push(format!("{}: {error}", place.source));
        }
        if running.is_empty() {
            assert!(plan.found().is_all && plan.directories.is_empty() && plan.running.is_empty(), "{plan:?}");
            return (done, failed);
        }
        let (id, step) = running.swap_remove(choose(running.len()));
        let outcome = match step {
            Step::Stat { place, .. } if list(&place.source.to_string()).is_empty() => {
                Outcome::Found(metadata(FileKind::File))
            }
            Step::Stat { .. } => Outcome::Found(metadata(FileKind::Directory)),
            Step::List { place } => Outcome::Listed(list(&place.source.to_string())),
            Step::MakeDirectory { place, .. } => {
                done.push(format!("make {}", place.target));
                Outcome::Made { is_new: true }
            }
            Step::CopyFile { place, is_fresh, .. } => {
                assert!(is_fresh || !place.target.to_string().contains('/'));
                done.push(format!("copy {}", place.target));
                Outcome::Done
            }
            Step::CopyLink { place, .. } => {
                done.push(format!("link {}", place.target));
                Outcome::Done
            }
            Step::FinishDirectory { place, .. } => {
                done.push(format!("finish {}", place.target));
                Outcome::Done
            }
        };
        plan.handle_outcome(id, outcome);
    }
}

#[test]
fn a_directory_is_lent_its_owners_rights_until_it_is_filled() {
    let mut plan = plan(true);
    let (id, _) = plan.poll_step().unwrap();
    plan.handle_outcome(id, Outcome::Found(Metadata { mode: Some(0o550), ..metadata(FileKind::Directory) }));
    let (_, step) = plan.poll_step().unwrap();
    assert!(matches!(step, Step::MakeDirectory { mode: 0o750, .. }), "{step:?}");
}

#[test]
fn listing_waits_while_ten_thousand_files_are_known() {
    let mut plan = plan(true);
    let (mut listed, mut copies) = (0, 0);
    // Each directory holds a thousand files and another directory; no file's copy ever ends.
    while let Some((id, step)) = plan.poll_step() {
        let outcome = match step {
            Step::Stat { .. } => Outcome::Found(metadata(FileKind::Directory)),
            Step::MakeDirectory { .. } => Outcome::Made { is_new: true },
            Step::List { .. } => {
                listed += 1;
                let files = (0..1000).map(|number| entry(format!("f{number}").as_bytes(), FileKind::File));
                Outcome::Listed(files.chain([entry(b"d", FileKind::Directory)]).collect())
            }
            _ => {
                copies += 1;
                if copies == 100 {
                    break;
                }
                continue;
            }
        };
        plan.handle_outcome(id, outcome);
    }
    assert!((10..=11).contains(&listed), "{listed} directories were listed");
}

#[test]
fn a_file_is_copied_without_looking_around() {
    assert_eq!(run(plan(false), |_| Vec::new(), |_| 0).0, ["copy dst"]);
}

#[test]
fn a_directory_is_refused_unless_asked_for() {
    let (done, failed) = run(plan(false), |_| vec![entry(b"x", FileKind::File)], |_| 0);
    assert_eq!(
        (done.len(), &failed[..]),
        (0, &["src: is a directory; `-r` (recursive) copies directories".into()][..])
    );
}

#[test]
fn hostile_names_are_refused_and_the_others_go_on() {
    let names = [&b"../x"[..], b"/etc/passwd", b"..", b".", b"", b"a\0b", b"fine", b"fine"];
    let list = |path: &str| match path {
        "src" => names.iter().map(|name| entry(name, FileKind::File)).collect(),
        _ => Vec::new(),
    };
    let (done, failed) = run(plan(true), list, |_| 0);
    assert_eq!(done, ["make dst", "copy dst/fine", "finish dst"]);
    assert_eq!(failed.len(), 7, "{failed:?}");
}

#[test]
fn links_are_looked_behind_and_special_files_refused() {
    let list = |path: &str| match path {
        "src" => vec![
            entry(b"link", FileKind::Symlink),
            entry(b"dirlink", FileKind::Symlink),
            entry(b"pipe", FileKind::Special),
        ],
        "src/dirlink" => vec![entry(b"inner", FileKind::File)],
        _ => Vec::new(),
    };
    let (mut done, failed) = run(plan(true), list, |_| 0);
    done.sort();
    assert_eq!(
        done,
        ["copy dst/dirlink/inner", "copy dst/link", "finish dst", "finish dst/dirlink", "make dst", "make dst/dirlink"]
    );
    assert_eq!(failed, ["src/pipe: is neither a regular file nor a directory"]);
}

#[test]
fn links_are_kept_when_asked_for_and_never_looked_behind() {
    let list = |path: &str| match path {
        "src" => vec![entry(b"link", FileKind::Symlink), entry(b"file", FileKind::File)],
        "src/link" => panic!("a link was followed"),
        _ => Vec::new(),
    };
    let options = CopyOptions::default().recursive(true).links(Links::Keep);
    let (mut done, failed) = run(plan_with(options), list, |_| 0);
    done.sort();
    assert_eq!(
        (done, failed.len()),
        (["copy dst/file", "finish dst", "link dst/link", "make dst"].map(String::from).to_vec(), 0)
    );
}

#[test]
fn what_is_excluded_is_neither_listed_nor_copied() {
    let list = |path: &str| match path {
        "src" => vec![
            entry(b"cache", FileKind::Directory),
            entry(b"keep", FileKind::Directory),
            entry(b"to_cache", FileKind::Symlink),
            entry(b"a.o", FileKind::File),
            entry(b"a.c", FileKind::File),
        ],
        "src/keep" => vec![entry(b"cache", FileKind::File), entry(b"b.o", FileKind::File)],
        "src/to_cache" => vec![entry(b"c.o", FileKind::File)],
        _ => panic!("{path} was listed"),
    };
    let options = ["cache/", "*.o"].iter().fold(CopyOptions::default().recursive(true), |options, pattern| {
        options.exclude(Exclude::new(*pattern).unwrap())
    });
    let (mut done, failed) = run(plan_with(options), list, |_| 0);
    done.sort();
    let copied: Vec<_> = done.iter().filter(|step| step.starts_with("copy")).collect();
    assert_eq!(copied, ["copy dst/a.c", "copy dst/keep/cache"]);
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn an_excluded_source_leaves_nothing_to_do() {
    let options = CopyOptions::default().exclude(Exclude::new("s?c").unwrap());
    assert_eq!(run(plan_with(options), |_| Vec::new(), |_| 0), (Vec::new(), Vec::new()));
}

#[test]
fn a_tree_without_a_bottom_is_left_at_a_fixed_depth() {
    let (done, failed) = run(plan(true), |_| vec![entry(b"again", FileKind::Directory)], |_| 0);
    assert_eq!((done.len(), failed.len()), (2 * (MAX_DEPTH + 1), 1));
    assert!(failed[0].ends_with("nested deeper than 64 levels"));
}

#[test]
fn a_side_that_follows_links_to_links_is_not_asked_for_ever() {
    let mut plan = plan(true);
    let (id, _) = plan.poll_step().unwrap();
    plan.handle_outcome(id, Outcome::Found(metadata(FileKind::Symlink)));
    assert!(matches!(plan.poll_failure(), Some((_, CopyError::NotRegular))));
    assert_eq!(plan.poll_step(), None);
}

#[test]
fn what_lies_in_a_directory_that_cannot_be_made_is_left_alone() {
    let mut plan = plan(true);
    let (id, _) = plan.poll_step().unwrap();
    plan.handle_outcome(id, Outcome::Found(metadata(FileKind::Directory)));
    let (make, _) = plan.poll_step().unwrap();
    let (list, _) = plan.poll_step().unwrap();
    plan.handle_outcome(make, Outcome::Failed);
    plan.handle_outcome(list, Outcome::Listed(vec![entry(b"x", FileKind::File)]));
    assert_eq!((plan.poll_step(), plan.found().is_all), (None, true));
}

proptest! {
    #[test]
    fn directories_come_before_their_content_and_are_finished_after_it(
        choices in proptest::collection::vec(any::<usize>(), 1..40),
    ) {
        let list = |path: &str| match path.matches('/').count() {
            depth @ 0..=2 if path.ends_with(['c', 'd']) => (0..=depth)
                .flat_map(|n| [entry(format!("{n}f").as_bytes(), FileKind::File), entry(format!("{n}d").as_bytes(), FileKind::Directory)])
                .collect(),
            _ => Vec::new(),
        };
        let mut choices = choices.into_iter().cycle();
        let (done, failed) = run(plan(true), list, |running| choices.next().unwrap() % running);
        prop_assert!(failed.is_empty());
        prop_assert_eq!(done.len(), HashSet::<&String>::from_iter(&done).len());
        prop_assert_eq!(done.iter().filter(|step| step.starts_with("copy")).count(), 1 + 2 + 2 * 3);
        let position = |step: String| done.iter().position(|other| *other == step);
        for (at, step) in done.iter().enumerate() {
            let (_, path) = step.split_once(' ').unwrap();
            if let Some((parent, _)) = path.rsplit_once('/') {
                let (make, finish) = (format!("make {parent}"), format!("finish {parent}"));
                prop_assert!(position(make).unwrap() < at);
                prop_assert!(position(finish).unwrap() > at);
            }
        }
    }
}

#[test]
fn directories_of_one_name_are_copied_one_after_the_other() {
    let place = |source: &str| Place { origin: 0, source: source.into(), target: "x".into() };
    let list = |path: &str| match path {
        "a/x" | "b/x" => vec![entry(b"f", FileKind::File), entry(b"g", FileKind::File)],
        _ => Vec::new(),
    };
    for seed in 0..50 {
        let plan = Plan::new(vec![place("a/x"), place("b/x")], CopyOptions::default().recursive(true));
        let (done, failed) = run(plan, list, |running| seed % running);
        let finished: Vec<_> = done.iter().enumerate().filter(|(_, what)| *what == "finish x").collect();
        assert_eq!((done.len(), finished[0].0, failed.len()), (8, 3, 0), "{done:?}");
    }
}

/// Carries out a plan as the driver does, so many steps at once, the oldest first. Returns the most that it ever held:
/// directories, and names in any form; and how many files were copied.
fn held(mut plan: Plan, list: impl Fn(&BytePath) -> Vec<Entry>, steps: usize) -> (usize, usize, usize, Vec<CopyError>) {
    let (mut running, mut failed) = (VecDeque::new(), Vec::new());
    let (mut directories, mut names, mut copied) = (0, 0, 0);
    for _ in 0..steps {
        while running.len() < 64 {
            let Some(step) = plan.poll_step() else { break };
            running.push_back(step);
        }
        failed.extend(std::iter::from_fn(|| plan.poll_failure()).map(|(_, error)| error));
        let Some((id, step)) = running.pop_front() else { break };
        let outcome = match step {
            Step::Stat { .. } => Outcome::Found(metadata(FileKind::Directory)),
            Step::List { place } => Outcome::Listed(list(&place.source)),
            Step::MakeDirectory { .. } => Outcome::Made { is_new: true },
            Step::CopyFile { .. } => {
                copied += 1;
                Outcome::Done
            }
            _ => Outcome::Done,
        };
        plan.handle_outcome(id, outcome);
        let waiting: usize = plan.directories.values().map(|found| found.rest.len()).sum();
        let listed: usize = plan.directories.values().filter_map(|found| found.listed.as_ref()).map(Vec::len).sum();
        assert_eq!(plan.names, waiting + listed);
        directories = directories.max(plan.directories.len());
        names = names.max(plan.names + plan.files.len() + plan.urgent.len() + plan.lists.len());
    }
    (directories, names, copied, failed)
}

fn numbered(count: usize, kind: FileKind) -> Vec<Entry> {
    (0..count).map(|number| entry(number.to_string().as_bytes(), kind)).collect()
}

#[test]
fn directories_in_directories_without_end_take_bounded_memory() {
    let mut plan = plan(true);
    plan.most_names = 200_000;
    let (directories, names, _, failed) = held(plan, |_| numbered(30_000, FileKind::Directory), 400);
    assert!(directories <= DIRECTORIES_AHEAD + 2 * MAX_DEPTH, "{directories} directories are known");
    assert!(names <= 200_000 + DIRECTORIES_AHEAD + MAX_DEPTH, "{names} names wait");
    assert!(failed.iter().all(|error| matches!(error, CopyError::TooManyEntries(_))), "{failed:?}");
    assert!(!failed.is_empty(), "what does not fit is told");
}

#[test]
fn a_large_tree_is_copied_whole_in_bounded_memory() {
    let list = |path: &BytePath| match path.to_string().matches('/').count() {
        0 => numbered(100, FileKind::Directory),
        _ => numbered(2000, FileKind::File),
    };
    let (directories, names, copied, failed) = held(plan(true), list, usize::MAX);
    assert_eq!((copied, failed.len()), (200_000, 0));
    assert!(directories <= 101, "{directories} directories are known");
    assert!(names <= NAMES_AHEAD + LISTS_AT_ONCE * 2000 + FILES_AHEAD, "{names} names wait");
}

#[test]
fn a_list_that_is_too_much_for_now_is_made_again_later() {
    let list = |path: &BytePath| match path.to_string().matches('/').count() {
        0 => numbered(32, FileKind::Directory),
        _ => numbered(3000, FileKind::File),
    };
    let mut plan = plan(true);
    plan.most_names = 20_000;
    let (_, names, copied, failed) = held(plan, list, usize::MAX);
    assert_eq!((copied, failed.len()), (32 * 3000, 0));
    assert!(names <= 20_000 + FILES_AHEAD + 32, "{names} names wait");
}

#[test]
fn files_are_copied_while_directories_are_listed() {
    let mut plan = plan(true);
    let (mut listing, mut copying) = (0, 0);
    while let Some((id, step)) = plan.poll_step() {
        let outcome = match step {
            Step::Stat { .. } => Outcome::Found(metadata(FileKind::Directory)),
            Step::MakeDirectory { .. } => Outcome::Made { is_new: true },
            Step::List { place } if place.source.name() == Some(b"src") => {
                let directories = numbered(100, FileKind::Directory).into_iter();
                Outcome::Listed(directories.chain([entry(b"f", FileKind::File)]).collect())
            }
            Step::List { .. } => {
                listing += 1;
                continue;
            }
            Step::CopyFile { .. } => {
                copying += 1;
                continue;
            }
            _ => continue,
        };
        plan.handle_outcome(id, outcome);
    }
    assert_eq!((listing, copying), (LISTS_AT_ONCE, 1));
}
