//! Conventions that a machine can check.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of the project, build output left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if matches!(name, "target" | ".git" | "node_modules") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        (path.strip_prefix(root()).expect("below the root").to_path_buf(), text)
    };
    files(root()).into_iter().filter(is_rust).map(read).collect()
}

#[test]
fn files_stay_short() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines; split it", path.display());
    }
}

#[test]
fn each_engine_is_named_in_one_place() {
    for (name, places) in [
        ("usearch", &["indexer/src/ann/hnsw.rs"][..]),
        ("sled", &["indexer/src/catalog.rs", "indexer/src/catalog"]),
        ("reqwest", &["indexer/src/http.rs", "indexer/src/http"]),
        ("axum", &["web/src"]),
        ("candle_core", &["engine"]),
    ] {
        let use_of = [format!("use {name}"), format!("{name}::")];
        for (path, text) in rust_files() {
            let allowed = places.iter().any(|place| path.starts_with(place))
                || path.starts_with("tests/integration");
            let uses = use_of.iter().any(|pattern| text.contains(pattern.as_str()));
            assert!(allowed || !uses, "{} names {name}", path.display());
        }
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents =
        files(root()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "md"));
    for path in documents {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let target = target.0.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let linked = path.parent().expect("a folder").join(target);
            assert!(linked.exists(), "{} links to {target}", path.display());
        }
    }
}
