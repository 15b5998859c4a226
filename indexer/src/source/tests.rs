use super::*;

#[test]
fn extensions_are_sorted_for_binary_search() {
    assert!(PICTURE_EXTENSIONS.is_sorted());
    assert!(has_picture_extension(Path::new("a/B.JPG")));
    assert!(!has_picture_extension(Path::new("a/jpg")));
}

#[test]
fn files_come_sorted_once_and_without_hidden_ones() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root = folder.path().canonicalize().expect("canonical");
    for name in ["b.jpg", "a.png", ".hidden.jpg", "sub/c.jpg", ".git/d.jpg", "sub.jpg"] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(path, name).expect("write");
    }
    let listing = list(&[root.clone(), root.join("a.png"), root.join("sub")]).expect("list");
    let names: Vec<_> = listing
        .files
        .iter()
        .map(|file| file.path.strip_prefix(&root).expect("under root").to_path_buf())
        .collect();
    // By bytes: `.` comes before `/`.
    assert_eq!(names, ["a.png", "b.jpg", "sub.jpg", "sub/c.jpg"].map(PathBuf::from));
    assert_eq!(listing.files[0].stamp.size, 5);
}

#[cfg(unix)]
#[test]
fn a_link_loop_is_reported_and_ends() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).expect("link");
    std::fs::write(folder.path().join("a.jpg"), "x").expect("write");
    let listing = list(&[folder.path().to_path_buf()]).expect("list");
    assert_eq!(listing.files.len(), 1);
    assert_eq!(listing.unreadable.len(), 1);
}

#[test]
fn a_missing_source_is_an_error_that_names_it() {
    let error = list(&[PathBuf::from("/no/such/folder")]).err().map(|e| e.to_string());
    assert_eq!(error.as_deref(), Some("/no/such/folder: no such file or folder"));
}

#[test]
fn excluded_folders_are_not_entered_and_patterns_match_names_and_paths() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let root = folder.path().canonicalize().expect("canonical");
    for name in ["a.jpg", "a.png", "cache/b.jpg", "deep/cache/c.jpg", "deep/d.jpg", "deep/e.jpg"] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(path, name).expect("write");
    }
    let listed = |patterns: &[&str]| -> Vec<String> {
        let exclude = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let options = SourceOptions { exclude, ..SourceOptions::default() };
        let mut sources = open(std::slice::from_ref(&root), &options).expect("open");
        let block = sources[0].next_block(&AtomicBool::new(false)).expect("list").expect("block");
        let name = |entry: &Entry| {
            let path = entry.locator.to_path();
            path.strip_prefix(&root).expect("under root").to_string_lossy().into_owned()
        };
        block.entries.iter().map(name).collect()
    };
    assert_eq!(listed(&["cache"]), ["a.jpg", "a.png", "deep/d.jpg", "deep/e.jpg"]);
    assert_eq!(listed(&["deep/cache/", "*.png"]).len(), 4);
    assert_eq!(listed(&["deep/*.jpg"]), ["a.jpg", "a.png", "cache/b.jpg", "deep/cache/c.jpg"]);
    assert_eq!(listed(&["deep/**"]), ["a.jpg", "a.png", "cache/b.jpg"]);
    let wrong = SourceOptions { exclude: vec!["[".to_owned()], ..SourceOptions::default() };
    let error = open(std::slice::from_ref(&root), &wrong).err().expect("an error").to_string();
    assert!(error.contains("`[`"), "{error}");
}
