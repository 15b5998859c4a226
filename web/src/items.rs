//! Images as the API shows them.

use indexer::{ImageId, Payload, Record};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::rfc3339;
use crate::routes::API;
use crate::state::AppState;

/// An image of a collection.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Item {
    /// Its name for good.
    pub id: u64,
    /// Where it is on the server.
    pub path: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Size of its file.
    pub bytes: u64,
    /// When its file was last changed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Something odd about its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// What is attached to it.
    #[schema(value_type = Object)]
    pub payload: Payload,
    /// Address of its thumbnail, on this server.
    pub thumbnail: String,
    /// Address of its file, on this server.
    pub original: String,
}

impl AppState {
    /// An image as it is shown.
    pub fn item(&self, collection: &str, id: ImageId, record: Record) -> Item {
        let Record { path, sha256, stamp, width, height, warning, payload, .. } = record;
        // Names of collections need no escapes.
        let base = &self.options.base_path;
        let at = format!("{base}{API}/collections/{collection}/images/{id}");
        let seconds = stamp.mtime_ns.div_euclid(1_000_000_000);
        Item {
            id: id.0,
            path: path.to_string(),
            width,
            height,
            bytes: stamp.size,
            modified: (stamp.mtime_ns != 0).then(|| rfc3339(seconds)),
            sha256: sha256.as_str().to_owned(),
            warning,
            payload,
            thumbnail: format!("{at}/thumbnail"),
            original: format!("{at}/original"),
        }
    }
}
