//! From the body of a request to examples and a search.

use axum::body::Bytes;
use indexer::ImageId;
use indexer::filter::Filter;
use indexer::search::crop::Crop;
use indexer::search::{MAX_EXAMPLES, SearchRequest};
use serde::Deserialize;

use super::{CropBody, DEFAULT_K, ExampleBody, FilterBody, HideDuplicates, SearchBody};
use crate::examples::{Given, Source};
use crate::problem::{Answer, Code, Problem};

/// Examples of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// To be near to.
    pub positive: Vec<Given>,
    /// Not to be near to.
    pub negative: Vec<Given>,
}

impl TryFrom<CropBody> for Crop {
    type Error = Problem;

    fn try_from(crop: CropBody) -> Answer<Self> {
        let numbers = [crop.x, crop.y, crop.width, crop.height];
        let bad = |detail: &str| Err(Problem::new(Code::InvalidCrop, detail).field("crop", detail));
        if numbers.iter().any(|number| !(0.0..=1e9).contains(number)) {
            return bad("the numbers of a crop are from 0 on");
        }
        // One pixel is no crop, so that four numbers up to 1 can only be shares.
        if numbers.iter().all(|number| *number <= 1.0) {
            return Ok(Self::Shares(numbers));
        }
        if numbers.iter().any(|number| number.fract() != 0.0) {
            return bad("a crop has four shares from 0 to 1, or four whole numbers of pixels");
        }
        Ok(Self::Pixels(numbers.map(|number| number as u32)))
    }
}

impl TryFrom<FilterBody> for Filter {
    type Error = Problem;

    fn try_from(filter: FilterBody) -> Answer<Self> {
        match filter {
            FilterBody::Text(text) => Ok(Self::parse(&text)?),
            FilterBody::Tree(tree) => Self::deserialize(tree).map_err(|error| {
                let message = error.to_string();
                Problem::new(Code::InvalidFilter, message.clone()).field("filter", message)
            }),
        }
    }
}

impl ExampleBody {
    fn given(self, field: &str) -> Answer<Option<Given>> {
        let Self { id, url, vector, query, crop } = self;
        let crop = crop.map(Crop::try_from).transpose()?;
        let sources = [
            id.map(Source::Id),
            url.map(Source::Url),
            vector.map(Source::Vector),
            query.map(Source::Query),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(Some(Given { source, crop })),
            (None, _) => match crop {
                None => Ok(None),
                Some(_) => {
                    let detail = "a crop goes with the one picture that it is a part of";
                    Err(Problem::new(Code::InvalidCrop, detail).field("crop", detail))
                }
            },
            (Some(_), Some(_)) => {
                let detail = "give one of id, url, vector and query, and the others in `positive`";
                Err(Problem::new(Code::BadRequest, detail).field(field, detail))
            }
        }
    }
}

fn all(bodies: Vec<ExampleBody>, field: &str) -> Answer<Vec<Given>> {
    let given = |(at, body): (usize, ExampleBody)| {
        let field = format!("{field}[{at}]");
        body.given(&field)?.ok_or_else(|| {
            let detail = "an example is one of id, url, vector and query";
            Problem::new(Code::BadRequest, detail).field(field, detail)
        })
    };
    bodies.into_iter().enumerate().map(given).collect()
}

impl SearchBody {
    /// The examples, with the files that came beside the JSON.
    ///
    /// # Errors
    /// They are ambiguous, or too many.
    pub fn examples(&mut self, images: Vec<Bytes>, negatives: Vec<Bytes>) -> Answer<Examples> {
        let mut uploads = images.into_iter().map(|file| (Source::Upload(file), None));
        let mut crop = self.crop.take();
        let mut first = ExampleBody {
            id: self.id.take(),
            url: self.url.take(),
            vector: self.vector.take(),
            query: self.query.take(),
            crop: None,
        };
        let mut positive = Vec::new();
        let alone = first == ExampleBody::default();
        if alone && let Some((source, _)) = uploads.next() {
            let crop = crop.take().map(Crop::try_from).transpose()?;
            positive.push(Given { source, crop });
        }
        first.crop = crop;
        positive.extend(first.given("id")?);
        positive.extend(uploads.map(|(source, crop)| Given { source, crop }));
        positive.extend(all(std::mem::take(&mut self.positive), "positive")?);
        let upload = |file| Given { source: Source::Upload(file), crop: None };
        let mut negative: Vec<Given> = negatives.into_iter().map(upload).collect();
        negative.extend(all(std::mem::take(&mut self.negative), "negative")?);
        // Before anything is fetched or computed for them.
        let count = positive.len() + negative.len();
        if count > MAX_EXAMPLES {
            let detail = format!("{count} examples are too many, the limit is {MAX_EXAMPLES}");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(Examples { positive, negative })
    }

    /// The search, without its examples.
    ///
    /// # Errors
    /// A value is out of range, or the filter is none.
    pub fn request(self, max_k: usize) -> Answer<SearchRequest> {
        let k = self.k.unwrap_or(DEFAULT_K);
        if k == 0 || k > max_k {
            let detail = format!("k is {k}; it must be from 1 to {max_k}");
            return Err(Problem::new(Code::BadRequest, detail.clone())
                .remedy("ask for more in pages, with the cursor of each")
                .field("k", detail));
        }
        Ok(SearchRequest {
            k,
            offset: self.offset.unwrap_or(0),
            cursor: self.cursor,
            filter: self.filter.map(Filter::try_from).transpose()?,
            min_similarity: self.min_similarity,
            hide_duplicates: self.hide_duplicates.and_then(HideDuplicates::threshold),
            diversity: self.diversity,
            exclude: self.exclude.into_iter().map(ImageId).collect(),
            scoring: self.scoring.into(),
            include_examples: self.include_examples,
            exact: self.exact,
            ..SearchRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(x: f64, y: f64, width: f64, height: f64) -> Result<Crop, Code> {
        Crop::try_from(CropBody { x, y, width, height }).map_err(|problem| problem.code)
    }

    #[test]
    fn shares_and_pixels_are_told_apart_by_their_size() {
        assert_eq!(crop(0.0, 0.0, 1.0, 1.0), Ok(Crop::Shares([0.0, 0.0, 1.0, 1.0])));
        assert_eq!(crop(0.5, 0.0, 0.5, 1.0), Ok(Crop::Shares([0.5, 0.0, 0.5, 1.0])));
        assert_eq!(crop(0.0, 0.0, 16.0, 16.0), Ok(Crop::Pixels([0, 0, 16, 16])));
        for (x, y, width, height) in [
            (0.5, 0.0, 20.0, 20.0),
            (-1.0, 0.0, 20.0, 20.0),
            (f64::NAN, 0.0, 1.0, 1.0),
            (0.0, 0.0, 1e10, 20.0),
        ] {
            assert_eq!(crop(x, y, width, height), Err(Code::InvalidCrop));
        }
    }

    #[test]
    fn examples_come_in_the_order_documented() {
        let mut body: SearchBody = serde_json::from_str(
            r#"{"id": 7, "crop": {"x": 0, "y": 0, "width": 0.5, "height": 1},
                "positive": [{"query": "t"}], "negative": [{"id": 9}]}"#,
        )
        .expect("a body");
        let file = |byte| Bytes::from(vec![byte]);
        let examples = body.examples(vec![file(1)], vec![file(2)]).expect("examples");
        let sources = |list: &[Given]| list.iter().map(|g| g.source.clone()).collect::<Vec<_>>();
        let query = Source::Query("t".to_owned());
        assert_eq!(sources(&examples.positive), [Source::Id(7), Source::Upload(file(1)), query]);
        assert_eq!(sources(&examples.negative), [Source::Upload(file(2)), Source::Id(9)]);
        assert!(examples.positive[0].crop.is_some() && examples.positive[1].crop.is_none());

        let crop = CropBody { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        let mut body = SearchBody { crop: Some(crop), ..SearchBody::default() };
        let examples = body.examples(vec![file(1), file(2)], Vec::new()).expect("examples");
        assert!(examples.positive[0].crop.is_some() && examples.positive[1].crop.is_none());
        let mut body = SearchBody { crop: Some(crop), ..SearchBody::default() };
        let problem = body.examples(Vec::new(), vec![file(1)]).expect_err("no picture");
        assert_eq!(problem.code, Code::InvalidCrop);
    }
}
