//! What operators and their machines ask: whether the server lives, whether it answers searches, and
//! how it fares.

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use indexer::search::{SearchRequest, search_newest};

use crate::metrics::{Levels, OPEN_METRICS};
use crate::problem::{Answer, Code, Problem};
use crate::state::AppState;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Embeds a picture and searches with it, at most every few seconds.
async fn ready(State(state): State<AppState>) -> Answer<&'static str> {
    if state.is_draining() {
        return Err(Problem::new(Code::Draining, "the server is shutting down"));
    }
    let attempt = async {
        attempt(&state).await.map_err(|problem| {
            // An overloaded server is a working one: it must not be restarted for that.
            match problem.code {
                Code::Overloaded => problem,
                _ => Problem::new(Code::NotReady, format!("a trial failed: {}", problem.detail)),
            }
        })
    };
    match state.trial.outcome(state.clock.now(), attempt).await {
        Err(problem) if problem.code != Code::Overloaded => Err(problem),
        _ => Ok("ok\n"),
    }
}

async fn attempt(state: &AppState) -> Answer<()> {
    let of = state.clone();
    // Of the collections that pictures can be compared with, any will do; one with images is better.
    let choose = move || {
        let mut open = of.shelf.all();
        open.sort_by_key(|served| served.view().is_empty());
        let mut first = None;
        for served in open {
            match of.models.for_collection(served.view().manifest()) {
                Ok(model) => return Ok(Some((served, model))),
                Err(problem) => first = first.or(Some(problem)),
            }
        }
        match first {
            Some(problem) => Err(problem),
            None => Ok(None),
        }
    };
    // A server without collections waits for the first one.
    let Some((served, model)) = state.searchers.run(choose).await? else { return Ok(()) };
    let announced = state.device.announce();
    let picture = engine::RgbImage::from_fn(64, 64, |x, y| [x as u8, y as u8, 128].into());
    let pixels = model.prepare(&picture)?;
    let embedding = state.device.embed(&model, pixels, announced).await?;
    let search = move || {
        if !served.view().is_empty() {
            let request = SearchRequest::near(embedding.as_slice().to_vec(), 1);
            search_newest(served.reader(), &request, None)?;
        }
        Ok(())
    };
    state.searchers.run(search).await
}

async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let identity = |model: &crate::Model| {
        let identity = model.identity();
        (identity.name.clone(), identity.fingerprint(), identity.dim)
    };
    let levels = Levels {
        waiting: vec![
            ("turn", state.guard.waiting()),
            ("decoder", state.decoders.waiting()),
            ("model", state.device.waiting()),
            ("search", state.searchers.waiting()),
        ],
        models: state.models.all().iter().map(identity).collect(),
        images: state
            .shelf
            .all()
            .iter()
            .map(|served| (served.name().to_owned(), served.view().len()))
            .collect(),
        recall: state.recall.last(),
    };
    ([(CONTENT_TYPE, OPEN_METRICS)], state.metrics.text(&levels))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::testing::{Server, png};

    #[tokio::test]
    async fn what_is_not_there_is_a_problem_with_its_request_id() {
        let server = Server::with_pictures(0);
        assert_eq!(server.get("/livez").await.body, b"ok\n");
        let answer = server.get("/api/v1/nothing").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
        let answer = server.post("/livez", &json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    }

    #[tokio::test]
    async fn a_server_is_ready_when_it_searches_and_not_when_it_ends() {
        let server = Server::with_pictures(3);
        assert_eq!(server.get("/readyz").await.body, b"ok\n");
        let metrics =
            |answer: crate::testing::Answered| String::from_utf8(answer.body).expect("text");
        let passes = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("akin_embed_batch_count"));
            line.expect("a count").to_owned()
        };
        let before = passes(&metrics(server.get("/metrics").await));
        // The outcome counts for a while.
        assert_eq!(server.get("/readyz").await.status.as_u16(), 200);
        assert_eq!(passes(&metrics(server.get("/metrics").await)), before);
        server.state.clock.advance(Duration::from_secs(6));
        assert_eq!(server.get("/readyz").await.status.as_u16(), 200);
        assert_ne!(passes(&metrics(server.get("/metrics").await)), before);
        server.state.drain();
        let answer = server.get("/readyz").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "draining"));
        assert_eq!(server.get("/livez").await.status.as_u16(), 200);
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_status() {
        let server = Server::with_pictures(3);
        let file = png(1);
        let path = "/api/v1/collections/photos/search";
        server.form(path, &[("image", Some("a.png"), &file)]).await;
        server.post(path, &json!({"id": 99})).await;
        server.get("/api/v1/whatever/there/is").await;
        let text = String::from_utf8(server.get("/metrics").await.body).expect("text");
        let route = "route=\"/api/v1/collections/{name}/search\"";
        for line in [
            format!("akin_http_request_seconds_count{{method=\"POST\",{route},status=\"200\"}} 1"),
            format!("akin_http_request_seconds_count{{method=\"POST\",{route},status=\"404\"}} 1"),
            "akin_http_request_seconds_count{method=\"GET\",route=\"other\",status=\"404\"} 1"
                .to_owned(),
            "akin_stage_seconds_count{stage=\"decode\"} 1".to_owned(),
            "akin_stage_seconds_count{stage=\"rescore\"} 1".to_owned(),
            "akin_images{collection=\"photos\"} 3.0".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("whatever"), "addresses of strangers become labels");
    }
}
