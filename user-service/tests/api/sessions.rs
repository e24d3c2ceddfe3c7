use crate::harness::{Service, tokens};

#[actix_web::test]
async fn a_session_goes_on_with_refresh_tokens_and_ends_with_a_logout() {
    let service = Service::start().await;
    let (_, first) = service.user("ann@example.com").await;
    let (access, second) = tokens(&service.refresh(&first).await.expect(200));
    let ann = service.api.with_token(access);
    ann.get("/api/users/me").await.expect(200);
    ann.delete("/api/sessions/current").await.expect(204);
    service.refresh(&second).await.expect_problem(401, "invalid_token");
    service.refresh(&first).await.expect_problem(401, "token_reused");
    service.refresh("never").await.expect_problem(401, "invalid_token");
    // An access token is good until it expires.
    ann.get("/api/users/me").await.expect(200);
}

#[actix_web::test]
async fn a_refresh_token_that_is_used_again_ends_the_session() {
    let service = Service::start().await;
    let (_, first) = service.user("ann@example.com").await;
    let (_, second) = tokens(&service.refresh(&first).await.expect(200));
    let (_, third) = tokens(&service.refresh(&second).await.expect(200));
    service.refresh(&first).await.expect_problem(401, "token_reused");
    service.refresh(&third).await.expect_problem(401, "invalid_token");
}

#[actix_web::test]
async fn a_lost_answer_to_a_refresh_ends_no_session() {
    let service = Service::start().await;
    let (_, first) = service.user("ann@example.com").await;
    let (_, lost) = tokens(&service.refresh(&first).await.expect(200));
    let (access, second) = tokens(&service.refresh(&first).await.expect(200));
    assert_eq!(second, lost);
    service.api.with_token(access).get("/api/users/me").await.expect(200);
    service.refresh(&second).await.expect(200);
}

#[actix_web::test]
async fn all_signing_keys_are_published() {
    let service = Service::start().await;
    let keys = service.api.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(keys["keys"][0]["alg"], "EdDSA");
}
