//! Reading catalogs of format 1: JSON values, `i` + id to record, `f` + path to failure, `n` to the
//! next id.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::Catalog;
use crate::error::Result;
use crate::id::ImageId;
use crate::record::{Failure, Record};

/// Everything in a catalog of format 1.
pub(crate) struct Format1 {
    pub(crate) images: Vec<(ImageId, Record)>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) next_id: u64,
}

impl Format1 {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let catalog = Catalog::open(folder)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let mut images = Vec::new();
        for (key, record) in catalog.json_under::<Record>(b"i")? {
            let id = number(&key[1..]).ok_or_else(|| catalog.damaged(&key))?;
            images.push((ImageId(id), record));
        }
        let failures = catalog.json_under(b"f")?.into_iter().map(|(_, failure)| failure).collect();
        let next_id = catalog.value(b"n")?.and_then(|bytes| number(&bytes)).unwrap_or(0);
        Ok(Self { images, failures, next_id })
    }
}

impl Catalog {
    fn json_under<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>> {
        let decode = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry.map_err(|error| super::failed(&self.folder, &error))?;
            let value = serde_json::from_slice(&value).map_err(|_| self.damaged(&key))?;
            Ok((key.to_vec(), value))
        };
        self.db.scan_prefix(prefix).map(decode).collect()
    }
}
