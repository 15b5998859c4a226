use std::path::Path;

use indexer::{ImageId, Locator, Which};

use crate::{Case, error, place, state};

fn under(folder: &str) -> Which {
    Which::Under(Locator::from(Path::new(folder)))
}

#[test]
fn images_go_by_id_path_and_folder() {
    let case = Case::new();
    let mut collection = case.open();
    let which = [Which::Id(ImageId(2)), Which::Path(place(2)), Which::Path(place(7))];
    let planned = collection.remove_all(&which, true).expect("dry run");
    assert_eq!(planned.images, [(ImageId(2), place(2)), (ImageId(7), place(7))]);
    assert_eq!(collection.len(), 25);
    assert_eq!(collection.remove_all(&which, false).expect("remove"), planned);
    assert_eq!((collection.len(), collection.uncommitted()), (23, 0));
    drop(collection);

    let mut collection = case.open();
    assert!(collection.record(ImageId(7)).expect("read").is_none());
    let report = collection.remove_all(&[under("/pictures")], false).expect("remove");
    assert_eq!((report.images.len(), report.failures.len()), (23, 1));
    assert!(collection.is_empty() && collection.failures().expect("failures").is_empty());
    drop(collection);
    case.assert_sound("c");
}

#[test]
fn something_unknown_among_them_stops_all() {
    let case = Case::new();
    let mut collection = case.open();
    let before = state(&collection);
    // A folder is not the start of a name.
    for (unknown, message) in [
        (Which::Id(ImageId(4)), "there is no image 4 in collection `c`; nothing was removed"),
        (Which::Path(place(4)), "nothing is known of /pictures/4.jpg"),
        (under("/pict"), "nothing is known below /pict"),
    ] {
        let result = collection.remove_all(&[Which::Id(ImageId(2)), unknown], false);
        assert!(error(result).contains(message));
        assert_eq!(state(&collection), before);
    }
}

#[test]
fn a_collection_is_deleted_whole() {
    let case = Case::new();
    let collections = case.collections();
    let open = case.open();
    assert!(error(collections.delete("c")).contains("in use"));
    drop(open);
    assert!(error(collections.delete("d")).contains("no collection"));
    assert!(error(collections.delete("../c")).contains("cannot be a collection name"));
    assert_eq!(case.open().len(), 25);

    collections.delete("c").expect("delete");
    assert!(!collections.exists("c").expect("exists"));
    assert_eq!(std::fs::read_dir(case.home.path().join("collections")).expect("list").count(), 0);
}

#[test]
fn one_that_was_interrupted_is_finished_by_the_next() {
    let case = Case::new();
    let collections = case.collections();
    let home = case.home.path().join("collections");
    // As a kill right after the first step leaves it.
    std::fs::rename(home.join("c"), home.join(".deleted-c")).expect("rename");
    assert!(collections.list().expect("list").is_empty());
    assert!(!collections.exists("c").expect("exists"));
    drop(case.create(indexer::Precision::F16));
    collections.delete("c").expect("delete");
    assert_eq!(std::fs::read_dir(&home).expect("list").count(), 0);
}

#[test]
fn a_damaged_collection_can_be_deleted() {
    let case = Case::new();
    std::fs::write(case.folder().join("manifest.json"), b"{").expect("write");
    assert!(case.collections().open("c").is_err());
    case.collections().delete("c").expect("delete");
    assert!(!case.folder().exists());
}
