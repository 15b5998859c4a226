//! Parquet files with a column of vectors.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection,
};

use super::Made;
use crate::error::{IndexerError, Result};
use crate::record::Payload;
use crate::source::rows::{Rows, failed, open_file, vectors};

/// Vectors decoded together.
const BATCH_ROWS: usize = 1024;

pub(super) struct ParquetFile {
    path: PathBuf,
    rows: Rows,
    metadata: ArrowReaderMetadata,
    /// Number of the column of vectors.
    column: usize,
    dim: usize,
}

impl ParquetFile {
    pub(super) fn open(path: &Path, column: &str) -> Result<(Self, usize, Made)> {
        let file = open_file(path)?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())
            .map_err(|error| failed(path, &error))?;
        let bad = |reason: String| IndexerError::Source { path: path.to_path_buf(), reason };
        let schema = metadata.schema();
        let (number, field) = schema.column_with_name(column).ok_or_else(|| {
            let names: Vec<&str> =
                schema.fields().iter().map(|field| field.name().as_str()).collect();
            bad(format!("no column `{column}`; there are: {}", names.join(", ")))
        })?;
        let values = |key: &str| {
            let pairs = metadata.metadata().file_metadata().key_value_metadata();
            pairs.into_iter().flatten().find(|pair| pair.key == key)?.value.clone()
        };
        let identity = values("akin.identity").and_then(|json| serde_json::from_str(&json).ok());
        let fingerprint = values("akin.fingerprint").filter(|_| column == "embedding");
        let made = Made { identity: identity.filter(|_| fingerprint.is_some()), fingerprint };
        let fixed = match field.data_type() {
            DataType::FixedSizeList(_, dim) => usize::try_from(*dim).ok(),
            _ => None,
        };
        let rows = Rows::open(path)?;
        let mut file = Self { path: path.to_path_buf(), rows, metadata, column: number, dim: 0 };
        let dim = match fixed {
            Some(dim) => Some(dim),
            // The first vector says how long all should be.
            None => file.vectors(vec![0]).next().transpose().map_err(&bad)?.map(|v| v.len()),
        };
        file.dim =
            dim.filter(|&dim| dim > 0).ok_or_else(|| bad("it holds no vector".to_owned()))?;
        let dim = file.dim;
        // Says what the column is when it is no list of numbers.
        file.vectors(vec![0]).next().transpose().or_else(|reason| match fixed {
            Some(_) => Ok(None),
            None => Err(bad(reason)),
        })?;
        Ok((file, dim, made))
    }

    pub(super) fn next_row(&mut self) -> Option<Result<Payload, String>> {
        self.rows.next().map(|(_, row)| row)
    }

    /// The vectors of rows with ascending numbers.
    pub(super) fn vectors(
        &self,
        places: Vec<u64>,
    ) -> impl Iterator<Item = Result<Vec<f32>, String>> + Send {
        let mut rows = places.len();
        let dim = self.dim;
        let mut batches = self.select(&places);
        let mut waiting: VecDeque<Option<Vec<f32>>> = VecDeque::new();
        let mut broken = String::new();
        std::iter::from_fn(move || {
            rows = rows.checked_sub(1)?;
            while waiting.is_empty() && broken.is_empty() {
                let next = match &mut batches {
                    Ok(batches) => batches.next(),
                    Err(reason) => Some(Err(arrow_schema::ArrowError::ExternalError(
                        std::mem::take(reason).into(),
                    ))),
                };
                match next {
                    Some(Ok(batch)) => match vectors(batch.column(0).as_ref()) {
                        Ok(vectors) => waiting.extend(vectors),
                        Err(kind) => {
                            broken = format!("the column holds {kind}, not lists of floats");
                        }
                    },
                    Some(Err(error)) => broken = format!("it cannot be read: {error}"),
                    None => broken = "the file has fewer rows".to_owned(),
                }
            }
            Some(match waiting.pop_front() {
                None => Err(broken.clone()),
                Some(None) => Err("it has no vector".to_owned()),
                Some(Some(vector)) if dim != 0 && vector.len() != dim => {
                    Err(format!("the vector has {} values, the others have {dim}", vector.len()))
                }
                Some(Some(vector)) => Ok(vector),
            })
        })
    }

    /// A reader of these rows only, which opens only the row groups they are in.
    fn select(&self, places: &[u64]) -> Result<ParquetRecordBatchReader, String> {
        let mut groups = Vec::new();
        // Numbers of the wanted rows among those of the chosen groups.
        let mut ranges = Vec::new();
        let (mut start, mut chosen) = (0, 0);
        let mut places = places.iter().copied().peekable();
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            let mut any = false;
            while let Some(place) = places.next_if(|&place| place < start + rows) {
                let row = usize::try_from(chosen + place - start).map_err(|e| e.to_string())?;
                ranges.push(row..row + 1);
                any = true;
            }
            if any {
                groups.push(number);
                chosen += rows;
            }
            start += rows;
        }
        let total = usize::try_from(chosen).map_err(|error| error.to_string())?;
        let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), total);
        let file = open_file(&self.path).map_err(|error| error.to_string())?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), [self.column]);
        builder
            .with_projection(mask)
            .with_row_groups(groups)
            .with_row_selection(selection)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| error.to_string())
    }
}
