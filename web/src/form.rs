//! Forms with files (`multipart/form-data`).

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::problem::{Answer, Code, Problem};
use crate::state::AppState;

/// A form that has arrived whole.
#[derive(Debug, Default)]
pub struct Form {
    /// Parts that are files: their names, and their contents in the order in which they came.
    pub files: Vec<(String, Bytes)>,
    /// Other parts as JSON, by name. What is no JSON is a text.
    pub fields: Map<String, Value>,
}

/// Which parts a form may have.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Parts that are files; each may come several times.
    pub files: &'a [&'a str],
    /// A part with a JSON object, whose fields are as if they had come as parts.
    pub object: Option<&'a str>,
    /// Parts that are texts, whatever they look like.
    pub texts: &'a [&'a str],
    /// Other parts.
    pub fields: &'a [&'a str],
}

impl Form {
    /// Reads the form in a request.
    ///
    /// # Errors
    /// It is malformed, has parts that are not expected, too many of them, or one that is too large.
    pub async fn read(request: Request, state: &AppState, expected: Expected<'_>) -> Answer<Self> {
        let parts = Multipart::from_request(request, state).await;
        let mut parts = parts.map_err(|rejection| {
            Problem::new(Code::BadRequest, format!("the form: {}", rejection.body_text()))
        })?;
        let limits = &state.options;
        let mut form = Self::default();
        let mut count = 0;
        while let Some(part) = parts.next_field().await.map_err(malformed)? {
            count += 1;
            if count > limits.max_parts {
                let detail = format!("the form has more than {} parts", limits.max_parts);
                return Err(
                    Problem::new(Code::TooManyParts, detail).remedy("send several requests")
                );
            }
            let name = part.name().unwrap_or_default().to_owned();
            let content = part.bytes().await.map_err(malformed)?;
            let size = content.len() as u64;
            if expected.files.contains(&name.as_str()) {
                let limit = limits.max_upload_bytes;
                if size > limit {
                    let detail = format!("`{name}` has {size} bytes, the limit is {limit}");
                    return Err(Problem::new(Code::ImageTooLarge, detail.clone())
                        .remedy("compress the picture or scale it down")
                        .field(name, detail));
                }
                form.files.push((name, content));
                continue;
            }
            if size > limits.max_json_bytes {
                let limit = limits.max_json_bytes;
                let detail = format!("`{name}` has {size} bytes, the limit is {limit}");
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            form.add(&name, &content, expected)?;
        }
        Ok(form)
    }

    fn add(&mut self, name: &str, content: &[u8], expected: Expected<'_>) -> Answer<()> {
        let bad = |detail: String| {
            Err(Problem::new(Code::BadRequest, detail.clone()).field(name, detail))
        };
        let Ok(text) = std::str::from_utf8(content) else {
            return bad(format!("`{name}` is no text in UTF-8"));
        };
        if expected.object == Some(name) {
            match serde_json::from_str::<Map<String, Value>>(text) {
                Ok(object) => {
                    for (field, value) in object {
                        self.insert(field, value)?;
                    }
                    return Ok(());
                }
                Err(error) => return bad(format!("`{name}` is no JSON object: {error}")),
            }
        }
        if expected.texts.contains(&name) {
            return self.insert(name.to_owned(), Value::String(text.to_owned()));
        }
        if expected.fields.contains(&name) {
            let value = serde_json::from_str(text);
            let value = value.unwrap_or_else(|_| Value::String(text.to_owned()));
            return self.insert(name.to_owned(), value);
        }
        let known: Vec<&str> =
            [expected.files, expected.object.as_slice(), expected.texts, expected.fields].concat();
        bad(format!("the form has a part `{name}`; it may have: {}", known.join(", ")))
    }

    fn insert(&mut self, name: String, value: Value) -> Answer<()> {
        if self.fields.contains_key(&name) {
            let detail = format!("`{name}` is given twice");
            return Err(Problem::new(Code::BadRequest, detail.clone()).field(name, detail));
        }
        self.fields.insert(name, value);
        Ok(())
    }

    /// Files of a name, in their order.
    pub fn take(&mut self, name: &str) -> Vec<Bytes> {
        let (taken, rest) = std::mem::take(&mut self.files).into_iter().partition(|f| f.0 == name);
        self.files = rest;
        let taken: Vec<(String, Bytes)> = taken;
        taken.into_iter().map(|(_, content)| content).collect()
    }
}

fn malformed(error: MultipartError) -> Problem {
    let code = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        _ => Code::BadRequest,
    };
    Problem::new(code, format!("the form: {}", error.body_text()))
}
