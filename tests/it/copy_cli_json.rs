//! `docs/ssmcp-json.md` and what `ssmcp --json` prints are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ssm_lab::Lab;

use crate::copy_cli::World;

const DOCUMENT: &str = include_str!("../../docs/ssmcp-json.md");

/// The fields that each kind of event has.
type Shapes = BTreeMap<String, BTreeSet<String>>;

fn note(shapes: &mut Shapes, event: &Value) {
    let fields = event.as_object().expect("an object").keys().filter(|field| *field != "event");
    // Those are for names that are no text.
    let fields: BTreeSet<_> = fields.filter(|field| !field.ends_with("_base64")).cloned().collect();
    let kind = event["event"].as_str().expect("an event").to_owned();
    assert_eq!(shapes.entry(kind).or_insert_with(|| fields.clone()), &fields, "{event}");
}

fn shown_in_the_document() -> Shapes {
    let (_, examples) = DOCUMENT.split_once("```json\n").expect("examples");
    let mut shapes = Shapes::new();
    for line in examples.lines().take_while(|line| *line != "```") {
        note(&mut shapes, &serde_json::from_str(line).expect("JSON"));
    }
    shapes
}

fn listed_in_the_document() -> Shapes {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| !row.starts_with("event`"));
    rows.map(|row| {
        let (kind, rest) = row.split_once("` |").expect("a row");
        let (_, fields) = rest.split_once('|').expect("fields");
        // What stands in brackets explains a field.
        let bare: String = fields.split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect();
        (kind.to_owned(), bare.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    })
    .collect()
}

async fn events(world: &World, arguments: &[&OsStr]) -> Vec<Value> {
    let output = world.command(&[&["--json".as_ref()], arguments].concat()).output().await.expect("ssmcp runs");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

fn the<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    events.iter().rfind(|event| event["event"] == kind).unwrap_or_else(|| panic!("no {kind}: {events:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_event_with_its_fields_and_no_other() {
    let world = World::new().await;
    fs::write(world.here("file"), b"content").unwrap();
    let old = SystemTime::now() - Duration::from_hours(1);
    fs::File::options().write(true).open(world.here("file")).unwrap().set_modified(old).unwrap();
    let there = world.node("");
    let incomplete = ["-p", "file", "missing"].map(OsStr::new);
    let first = events(&world, &[&incomplete[..], &[&there]].concat()).await;
    assert_eq!(the(&first, "failed")["message"], "no such file or directory");
    let again = events(&world, &[&incomplete[..], &[&there]].concat()).await;
    assert_eq!((&the(&again, "resumed")["bytes_kept"], &the(&again, "summary")["bytes_kept"]), (&7.into(), &7.into()));
    let skipped = events(&world, &["-p".as_ref(), "--skip-same".as_ref(), "file".as_ref(), &there]).await;
    assert_eq!(the(&skipped, "skipped")["rule"], "same");

    fs::write(world.here("ancient"), b"content").unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_hours(1);
    fs::File::options().write(true).open(world.here("ancient")).unwrap().set_modified(before_1970).unwrap();
    let warned = events(&world, &["-p".as_ref(), "ancient".as_ref(), &there]).await;
    assert_eq!(the(&warned, "warned")["lacks"], "time_range");

    let dry = events(&world, &["--dry-run".as_ref(), "file".as_ref(), &there]).await;
    let planned = the(&dry, "would_copy");
    let target = world.there("file").to_string_lossy().into_owned();
    assert_eq!((&planned["target"], &planned["size"]), (&target.into(), &7.into()));
    let (progress, summary) = (the(&dry, "progress"), the(&dry, "summary"));
    assert_eq!((&summary["files"], &summary["bytes"]), (&0.into(), &0.into()), "nothing was copied");
    assert_eq!((&progress["files_total"], &progress["bytes_total"]), (&1.into(), &7.into()));

    let talks = "ForceCommand sh -c 'echo careful >&2; eval \"$SSH_ORIGINAL_COMMAND\"'";
    let talkative = World::with(Lab::builder().openssh().openssh_option(talks)).await;
    fs::write(talkative.there("file"), b"content").unwrap();
    let (node, source) = (talkative.lab.node().to_owned(), talkative.node("file"));
    let said = events(&talkative, &["-O".as_ref(), &source, ".".as_ref()]).await;
    assert_eq!((&the(&said, "said")["side"], &the(&said, "said")["text"]), (&node.into(), &"careful".into()));

    let mut printed = Shapes::new();
    [first, again, skipped, warned, dry, said].iter().flatten().for_each(|event| note(&mut printed, event));
    assert_eq!(printed, shown_in_the_document());
    assert_eq!(printed, listed_in_the_document());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_no_text_has_its_bytes_beside_it() {
    let world = World::new().await;
    let name = OsStr::from_bytes(b"caf\xe9");
    fs::write(world.here("").join(name), b"content").unwrap();
    let dry = events(&world, &["--dry-run".as_ref(), name, &world.node("")]).await;
    let planned = the(&dry, "would_copy");
    assert_eq!(planned["path_base64"], "Y2Fm6Q==");
    assert!(
        planned["target_base64"].is_string() && planned["target"].as_str().unwrap().ends_with("caf\u{fffd}"),
        "{planned}"
    );
}
