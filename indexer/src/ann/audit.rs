//! Graphs on disk as they are, damaged or not: what a check looks at.

use std::path::Path;

use roaring::RoaringBitmap;

use super::frozen::Frozen;
use super::layers::{BASE, TAIL};
use super::snapshot;

/// What is to be said about the snapshots in a folder.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Whether there is a base that can be searched.
    pub(crate) has_base: bool,
    /// File and what is wrong with it.
    pub(crate) problems: Vec<(&'static str, String)>,
}

impl Audit {
    /// Compares the snapshots in a folder with the rows alive. Nothing is changed.
    pub(crate) fn of(folder: &Path, dim: usize, rows: u64, alive: &RoaringBitmap) -> Self {
        let mut audit = Self::default();
        let Some((header, graph, checksum)) = audit.open(folder, BASE, dim, rows) else {
            return audit;
        };
        audit.has_base = true;
        let unreachable: RoaringBitmap = header.unreachable.iter().copied().collect();
        let upto = u32::try_from(header.rows).unwrap_or(u32::MAX);
        let known = graph.rows() | unreachable;
        audit.missing(BASE, alive.range(..upto).filter(|&row| !known.contains(row)).count());
        let tail = audit.open(folder, TAIL, dim, rows);
        // The tail of an earlier base, as an interruption leaves it, is not used.
        if let Some((header, graph, _)) = tail.filter(|(header, ..)| header.base == Some(checksum))
        {
            let end = u32::try_from(header.rows).unwrap_or(u32::MAX);
            let of_tail = alive.range(upto.min(end)..end);
            let known = graph.rows();
            audit.missing(TAIL, of_tail.filter(|&row| !known.contains(row)).count());
        }
        audit
    }

    fn open(
        &mut self,
        folder: &Path,
        name: &'static str,
        dim: usize,
        rows: u64,
    ) -> Option<(snapshot::Header, Frozen, u32)> {
        let path = folder.join(name);
        if !path.exists() {
            return None;
        }
        let problem = match snapshot::open_frozen(&path, dim) {
            Ok(Some((header, ..))) if header.rows > rows => {
                format!("it covers {} rows, there are {rows}", header.rows)
            }
            Ok(Some(opened)) => return Some(opened),
            Ok(None) => "it fails its checksum, or is of other parameters".to_owned(),
            Err(error) => error.to_string(),
        };
        self.problems.push((name, problem));
        None
    }

    fn missing(&mut self, name: &'static str, rows: usize) {
        if rows > 0 {
            self.problems.push((name, format!("{rows} rows alive are not in it")));
        }
    }
}
