//! Whether the server lives.

use axum::Router;
use axum::routing::get;

use crate::state::AppState;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/livez", get(async || "ok\n"))
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    #[tokio::test]
    async fn what_is_not_there_is_a_problem_with_its_request_id() {
        let server = Server::with_pictures(0);
        assert_eq!(server.get("/livez").await.body, b"ok\n");
        let answer = server.get("/api/v1/nothing").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
        let answer = server.post("/livez", &serde_json::json!({})).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    }
}
