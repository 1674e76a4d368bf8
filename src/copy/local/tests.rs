use std::collections::BTreeSet;

use super::*;

#[test]
fn a_name_that_vanishes_while_its_directory_is_listed_costs_no_other_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["stays", "vanishes", "too"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    fs::remove_file(folder.path().join("vanishes")).unwrap();
    let entries = entries_of(names.into_iter()).unwrap();
    let found: BTreeSet<_> = entries.into_iter().map(|entry| (entry.name, entry.metadata.size)).collect();
    assert_eq!(found, BTreeSet::from([(b"stays".to_vec(), Some(5)), (b"too".to_vec(), Some(3))]));
}
