//! What the server is, for pages and programs.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::collections::CollectionBody;
use crate::guard::Granted;
use crate::jobs::Kind;
use crate::problem::{Answer, ProblemBody};
use crate::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(status))
}

/// What the server is.
#[derive(Debug, Serialize, ToSchema)]
struct StatusAnswer {
    /// Release.
    version: &'static str,
    /// Model for pictures of no collection, and for new collections; null when there is none.
    model: Option<ModelBody>,
    /// Where models compute.
    device: String,
    /// What is refused beyond.
    limits: LimitsBody,
    /// What the caller may do: `read`, `write` or `admin`.
    role: String,
    /// Collections that are served, by name.
    collections: Vec<CollectionBody>,
    /// Pictures that wait for the model.
    queue_depth: usize,
    /// Jobs that are indexing.
    indexing: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelBody {
    /// What it is called.
    name: String,
    /// Length of its embeddings.
    dim: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct LimitsBody {
    /// Bytes of one picture.
    max_upload_bytes: u64,
    /// Width x height of one picture.
    max_pixels: u64,
    /// Bytes of a JSON body.
    max_json_bytes: u64,
    /// Parts of a form.
    max_parts: usize,
    /// Results of one page.
    max_k: usize,
    /// Searches of one batch.
    max_batch: usize,
    /// Seconds for which an uploaded example can be searched with again.
    query_ttl_s: u64,
}

/// What the server is, what it takes, and what the caller may do
#[utoipa::path(
    get, path = "/status", tag = "server", operation_id = "status",
    responses(
        (status = 200, description = "The server", body = StatusAnswer),
        (status = "4XX", description = "Not answered", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
async fn status(
    State(state): State<AppState>,
    Extension(granted): Extension<Granted>,
) -> Answer<Json<StatusAnswer>> {
    let of = state.clone();
    let look = move || {
        let model = of.models.named(None).ok().map(|named| {
            let identity = named.model.identity();
            ModelBody { name: identity.name.clone(), dim: identity.dim }
        });
        Ok((model, CollectionBody::all(&of)?))
    };
    let (model, collections) = state.searchers.run(look).await?;
    let options = &state.options;
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        model,
        device: state.models.device(),
        limits: LimitsBody {
            max_upload_bytes: options.max_upload_bytes,
            max_pixels: options.max_pixels,
            max_json_bytes: options.max_json_bytes,
            max_parts: options.max_parts,
            max_k: options.max_k,
            max_batch: options.max_batch,
            query_ttl_s: options.query_ttl.as_secs(),
        },
        role: granted.role.to_string(),
        collections,
        queue_depth: state.device.waiting(),
        indexing: state.jobs.active(Kind::Index),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn the_server_says_what_it_is() {
        let server = Server::with_pictures(4);
        let status = server.get("/api/v1/status").await.json();
        assert_eq!(status["model"], json!({"name": "thumbnail", "dim": 192}));
        assert_eq!((&status["role"], &status["device"]), (&json!("admin"), &json!("cpu")));
        assert_eq!(status["collections"][0]["name"], "photos");
        assert_eq!(status["collections"][0]["images"], 4);
        assert_eq!(status["collections"][0]["servable"], true);
        assert_eq!(status["limits"]["max_k"], 1000);
    }
}
