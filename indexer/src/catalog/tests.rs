use super::*;
use crate::record::{FileStamp, Payload};

fn record(path: &str, row: u64) -> Record {
    Record {
        path: Locator::from(Path::new(path)),
        sha256: ContentHash::of(path.as_bytes()),
        stamp: FileStamp { size: 1, mtime_ns: -5 },
        width: 2,
        height: 3,
        warning: None,
        row,
        payload: Payload::new(),
    }
}

fn commit(catalog: &Catalog, change: impl FnOnce(&mut Pending)) -> Result<Meta> {
    let mut pending = Pending::default();
    change(&mut pending);
    catalog.commit(&pending, &mut catalog.alive()?, &catalog.meta()?)
}

#[test]
fn a_commit_survives_reopening_and_a_success_clears_the_failure() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let catalog = Catalog::open(folder.path())?;
    let image = record("/a.jpg", 7);
    let failure = Failure {
        path: image.path.clone(),
        reason: "odd".to_owned(),
        not_a_picture: false,
        stamp: image.stamp,
    };
    assert_eq!(commit(&catalog, |pending| pending.fail(failure.clone()))?.failed, 1);
    assert_eq!(catalog.known(&image.path)?, Some(Known::Failed(failure)));

    let meta = commit(&catalog, |pending| pending.put(ImageId(4), image.clone()))?;
    assert_eq!((meta.failed, meta.sequence), (0, 2));
    drop(catalog);

    let catalog = Catalog::open(folder.path())?;
    assert_eq!(catalog.known(&image.path)?, Some(Known::Image(ImageId(4), image.clone())));
    assert_eq!(catalog.failures().count(), 0);
    assert_eq!(catalog.meta()?, meta);
    assert_eq!(catalog.alive()?.iter().collect::<Vec<_>>(), [7]);
    let with_content = |catalog: &Catalog| -> Result<Vec<ImageId>> {
        catalog.with_content(&image.sha256).collect()
    };
    assert_eq!(with_content(&catalog)?, [ImageId(4)]);

    commit(&catalog, |pending| pending.remove(ImageId(4), &image.path))?;
    assert_eq!(catalog.known(&image.path)?, None);
    assert!(catalog.alive()?.is_empty());
    assert!(with_content(&catalog)?.is_empty());
    Ok(())
}

#[test]
fn payload_values_follow_the_image_to_its_new_row() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let catalog = Catalog::open(folder.path())?;
    let labelled = |row: u64, label: &str, iso: u32| {
        let mut image = record("/a.jpg", row);
        image.payload.insert("label".to_owned(), label.into());
        image.payload.insert("exif".to_owned(), serde_json::json!({"iso": iso}));
        image
    };
    let rows = |field: &str, range: ValueRange| {
        catalog.rows_with(field, &range).map(|rows| rows.iter().collect::<Vec<_>>())
    };
    let is = |text: &str| ValueRange::Eq(Scalar::Text(text.to_owned()));
    // Rows of three pages.
    commit(&catalog, |pending| {
        pending.put(ImageId(0), labelled(3, "cat", 100));
        let mut other = labelled(70_000, "cattle", 200);
        other.path = Locator::from(Path::new("/b.jpg"));
        pending.put(ImageId(1), other);
    })?;
    assert_eq!(rows("label", is("cat"))?, [3]);
    assert_eq!(rows("label", ValueRange::Prefix("cat".to_owned()))?, [3, 70_000]);
    assert_eq!(rows("label", ValueRange::Any)?, [3, 70_000]);
    let above = |number| ValueRange::Between {
        low: Bound::Excluded(Scalar::Number(number)),
        high: Bound::Unbounded,
    };
    assert_eq!(rows("exif.iso", above(100.0))?, [70_000]);
    assert_eq!(rows("exif.iso", above(99.0))?, [3, 70_000]);
    assert_eq!(catalog.fields(9)?, ["exif.iso", "label"]);
    assert_eq!(catalog.fields(1)?, ["exif.iso"]);

    commit(&catalog, |pending| pending.put(ImageId(0), labelled(140_000, "dog", 100)))?;
    assert!(rows("label", is("cat"))?.is_empty());
    assert_eq!(rows("label", is("dog"))?, [140_000]);
    assert_eq!(rows("exif.iso", above(0.0))?, [70_000, 140_000]);
    Ok(())
}

#[test]
fn paths_come_in_the_order_of_bytes_and_only_under_the_prefix() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let catalog = Catalog::open(folder.path())?;
    commit(&catalog, |pending| {
        for (id, path) in ["/a/b", "/a", "/a.x", "/a/b/c", "/b"].into_iter().enumerate() {
            pending.put(ImageId(id as u64), record(path, id as u64));
        }
    })?;
    let under: Vec<String> = catalog
        .known_under(b"/a/")
        .map(|entry| entry.map(|(path, _)| path.to_string()))
        .collect::<Result<_>>()?;
    assert_eq!(under, ["/a/b", "/a/b/c"]);
    Ok(())
}

#[test]
fn an_unfinished_snapshot_does_not_stop_the_next_open() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let catalog = Catalog::open(folder.path())?;
    commit(&catalog, |pending| pending.put(ImageId(0), record("/a.jpg", 0)))?;
    drop(catalog);
    let leftover = folder.path().join("snap.FFFFFFFFFFFFFFFF.generating");
    std::fs::write(&leftover, b"").expect("write");

    assert_eq!(Catalog::open(folder.path())?.images_from(ImageId(0)).count(), 1);
    assert!(!leftover.exists());
    Ok(())
}

#[test]
fn a_catalog_that_is_still_closing_is_waited_for() -> Result<()> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = Catalog::open(folder.path())?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        Catalog::open(folder.path()).map(drop)
    })
}
