//! From the errors of other crates to problems.

use engine::decode::{DecodeError, Measure};
use indexer::IndexerError;
use indexer::filter::FilterError;

use super::{Code, Problem};

impl From<IndexerError> for Problem {
    fn from(error: IndexerError) -> Self {
        let message = error.to_string();
        match error {
            IndexerError::InvalidRequest(_) | IndexerError::BadCollectionName { .. } => {
                Self::new(Code::BadRequest, message)
            }
            IndexerError::Dimension { .. } => Self::new(Code::InvalidVector, message),
            // Its message names the folder of the home.
            IndexerError::NoSuchCollection { name, .. } => Self::no_collection(&name),
            IndexerError::ModelMismatch { .. } => Self::new(Code::ModelMismatch, message),
            IndexerError::Locked { name, .. } => {
                Self::new(Code::Busy, format!("collection `{name}` is in use by another process"))
                    .remedy("try again when that one is done")
            }
            IndexerError::Cancelled | IndexerError::Stopped { .. } => {
                Self::new(Code::Conflict, "this was cancelled")
            }
            other => Self::internal(other),
        }
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::new(Code::InvalidFilter, error.message.clone()).field("filter", error.message)
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        let code = match &error {
            DecodeError::TooLarge { what: Measure::Bytes | Measure::Pixels { .. }, .. } => {
                Code::ImageTooLarge
            }
            DecodeError::TooLarge { .. } | DecodeError::TooSlow { .. } => Code::ImageTooLarge,
            _ => Code::NotAnImage,
        };
        Self::new(code, error.to_string())
    }
}

impl From<engine::EngineError> for Problem {
    fn from(error: engine::EngineError) -> Self {
        Self::from(IndexerError::from(error))
    }
}

impl Problem {
    /// There is no collection of this name, or it is not served.
    pub fn no_collection(name: &str) -> Self {
        Self::new(Code::CollectionNotFound, format!("there is no collection `{name}` here"))
            .remedy("GET /api/v1/collections lists those there are")
    }

    /// There is no image of this id.
    pub fn no_image(collection: &str, id: u64) -> Self {
        let detail = format!("there is no image {id} in collection `{collection}`");
        Self::new(Code::ImageNotFound, detail).remedy("it may have been removed")
    }

    /// Something is waiting in line already, as much as is allowed to.
    pub fn overloaded(what: &str, limit: usize) -> Self {
        let detail = format!("{limit} {what} are waiting, no more are taken");
        Self::new(Code::Overloaded, detail)
            .remedy("try again in a moment")
            .retry_after(std::time::Duration::from_secs(1))
    }
}
