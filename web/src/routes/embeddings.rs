//! Embeddings for their own sake.

use axum::Json as Answered;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{self, Query};
use crate::form::{Expected, Form};
use crate::models::Model;
use crate::problem::{Answer, Code, Problem, ProblemBody};
use crate::state::AppState;

/// NumPy's own format.
const NPY: &str = "application/x-npy";

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(embed))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Choice {
    /// Collection whose model is used; by default the server's own.
    collection: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UrlBody {
    /// A picture on the net.
    url: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a description only")]
struct ImagesForm {
    /// Pictures.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<u8>,
}

/// Embeddings of pictures.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingsAnswer {
    /// Name of the model.
    model: String,
    /// Length of an embedding.
    dim: usize,
    /// One for each picture, in their order; of length 1.
    embeddings: Vec<Vec<f32>>,
}

/// Embeddings of pictures
///
/// As JSON or, for `accept: application/x-npy`, as a NumPy array of 32-bit floats, pictures x dim.
#[utoipa::path(
    post, path = "/embeddings", tag = "search", operation_id = "embed",
    params(Choice),
    request_body(content((UrlBody = "application/json"), (ImagesForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Embeddings in the order of the pictures", content(
            (EmbeddingsAnswer = "application/json"), (Vec<u8> = "application/x-npy"),
        )),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn embed(
    State(state): State<AppState>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
    request: Request,
) -> Answer<Response> {
    let is_npy = wants_npy(&headers)?;
    let model = model(&state, choice.collection).await?;
    let files = files(&state, request).await?;
    let each = files.into_iter().map(|file| state.embed_alone(&model, file));
    let embeddings = try_join_all(each).await?;
    let dim = model.identity().dim;
    Ok(match is_npy {
        true => ([(CONTENT_TYPE, NPY)], npy(&embeddings, dim)).into_response(),
        false => {
            let model = model.identity().name.clone();
            Answered(EmbeddingsAnswer { model, dim, embeddings }).into_response()
        }
    })
}

async fn model(state: &AppState, collection: Option<String>) -> Answer<Model> {
    match collection {
        Some(name) => state.model_of(&state.collection(&name).await?).await,
        None => {
            let of = state.clone();
            state.searchers.run(move || Ok(of.models.named(None)?.model)).await
        }
    }
}

async fn files(state: &AppState, request: Request) -> Answer<Vec<Bytes>> {
    if extract::media_type(request.headers()) == "multipart/form-data" {
        let expected = Expected { files: &["image"], object: None, texts: &[], fields: &[] };
        let files = Form::read(request, state, expected).await?.take("image");
        if files.is_empty() {
            let detail = "the form has no part `image`";
            return Err(Problem::new(Code::BadRequest, detail).field("image", detail));
        }
        return Ok(files);
    }
    if !extract::is_json(request.headers()) {
        let detail = "send pictures as a form (multipart/form-data), or JSON with a url";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let UrlBody { url } = extract::from_json(&extract::body(request, state).await?)?;
    Ok(vec![state.remote.get(&url).await?])
}

/// Whether the client prefers an array; what it does not name it takes as JSON if it takes anything.
fn wants_npy(headers: &HeaderMap) -> Answer<bool> {
    let mut best: Option<(f32, bool)> = None;
    let mut named = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let kind = parts.next().unwrap_or_default();
            if kind.is_empty() {
                continue;
            }
            named = true;
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            let is_npy = kind == NPY;
            let is_json = matches!(kind.as_str(), "application/json" | "application/*" | "*/*");
            let better = best.is_none_or(|(before, _)| quality > before);
            if (is_npy || is_json) && quality > 0.0 && better {
                best = Some((quality, is_npy));
            }
        }
    }
    match (best, named) {
        (Some((_, is_npy)), _) => Ok(is_npy),
        (None, false) => Ok(false),
        (None, true) => {
            let detail = format!("embeddings come as application/json or as {NPY}");
            Err(Problem::new(Code::NotAcceptable, detail))
        }
    }
}

/// A NumPy file (NEP 1, version 1.0) of 32-bit floats, rows x dim.
fn npy(rows: &[Vec<f32>], dim: usize) -> Vec<u8> {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {dim}), }}", rows.len());
    // Magic and lengths have 10 bytes; all before the values is a multiple of 64 and ends a line.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((padded as u16).to_le_bytes());
    file.extend(format!("{header:<width$}\n", width = padded - 1).bytes());
    file.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::json;

    use super::*;
    use crate::testing::{Server, png};

    #[test]
    fn headers_of_arrays_are_aligned_whatever_their_numbers() {
        for (rows, dim) in [(1, 2), (9, 384), (10, 384), (64, 1536)] {
            let file = npy(&vec![vec![0.5; dim]; rows], dim);
            let length = u16::from_le_bytes([file[8], file[9]]) as usize;
            assert_eq!((10 + length) % 64, 0);
            assert_eq!(file[9 + length], b'\n');
            assert_eq!(file.len(), 10 + length + 4 * rows * dim);
        }
    }

    #[test]
    fn what_is_accepted() {
        let wants = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            wants_npy(&headers).map_err(|problem| problem.code)
        };
        for (accept, npy) in [
            ("*/*", false),
            ("application/x-npy", true),
            ("application/json;q=0.5, application/x-npy", true),
            ("application/x-npy;q=0.1, application/json", false),
            ("text/html, */*;q=0.1", false),
            ("", false),
        ] {
            assert_eq!(wants(accept), Ok(npy), "{accept}");
        }
        assert_eq!(wants("text/html"), Err(Code::NotAcceptable));
        assert_eq!(wants("application/json;q=0"), Err(Code::NotAcceptable));
    }

    #[tokio::test]
    async fn pictures_become_vectors_in_both_forms() {
        let server = Server::with_pictures(3);
        let (a, b) = (png(0), png(7));
        let files = [("image", Some("a.png"), &a[..]), ("image", Some("b.png"), &b[..])];
        let answer = server.form("/api/v1/embeddings", &files).await;
        let json = answer.json();
        assert_eq!((answer.status.as_u16(), &json["model"]), (200, &json!("thumbnail")));
        let list = json["embeddings"].as_array().expect("a list");
        assert_eq!((list.len(), json["dim"].as_u64()), (2, Some(192)));
        // The picture finds itself by its vector.
        let body = json!({"vector": list[0], "k": 1});
        let found = server.post("/api/v1/collections/photos/search", &body).await.json();
        assert_eq!(found["hits"][0]["id"], 0);
        assert!(found["hits"][0]["similarity"].as_f64().expect("a number") > 0.999);

        let answer = server
            .send(
                Request::post("/api/v1/embeddings?collection=photos")
                    .header(ACCEPT, NPY)
                    .header(CONTENT_TYPE, "multipart/form-data; boundary=x")
                    .body(Body::from(
                        [
                            b"--x\r\ncontent-disposition: form-data; name=image\r\n\r\n".to_vec(),
                            a,
                            b"\r\n--x--\r\n".to_vec(),
                        ]
                        .concat(),
                    ))
                    .expect("a request"),
            )
            .await;
        assert_eq!(answer.headers[CONTENT_TYPE], NPY);
        let values = answer.body[answer.body.len() - 4 * 192..].as_chunks::<4>().0;
        let first = f64::from(f32::from_le_bytes(values[0]));
        assert!((first - list[0][0].as_f64().expect("a number")).abs() < 1e-6);
    }

    #[tokio::test]
    async fn what_is_no_picture_is_said_so() {
        let server = Server::with_pictures(1);
        let path = "/api/v1/embeddings";
        let answer = server.form(path, &[("image", Some("a.png"), b"<svg/>")]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "not_an_image"));
        let answer = server.form(path, &[("picture", Some("a.png"), b"x")]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_request"));
        let answer = server.form(path, &[]).await;
        assert_eq!(answer.status.as_u16(), 400);
        let answer = server.post(path, &json!({"url": "http://127.0.0.1/a.png"})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "address_refused"));
        let answer = server.post("/api/v1/embeddings?collection=none", &json!({"url": "x"})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "collection_not_found"));
        let request =
            Request::post(path).header(CONTENT_TYPE, "image/png").body(Body::from(png(1)));
        let answer = server.send(request.expect("a request")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (415, "unsupported_media_type")
        );
    }
}
