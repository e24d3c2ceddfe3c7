use shared::testing::Api;

use crate::harness::Console;

#[actix_web::test]
async fn every_page_is_the_shell_with_a_policy_that_allows_nothing_inline() {
    let console = Console::start().await;
    for page in
        ["/", "/login", "/orders", "/orders/x", "/traces", "/traces/x", "/logs", "/messages", "/numbers"]
    {
        let reply = console.api.get(page).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/html; charset=utf-8"), "{page}");
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
    console.api.get("/no-page").await.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn a_file_has_its_kind_and_is_not_sent_to_a_browser_that_has_it() {
    let console = Console::start().await;
    for (name, kind) in [("en.json", "application/json"), ("zh-Hans.json", "application/json")] {
        let path = format!("/assets/{name}");
        let reply = console.api.get(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, kind), "{name}");
        let again: Api = console.api.with("if-none-match", reply.header("etag"));
        assert_eq!(again.get(&path).await.status, 304);
    }
    for name in ["no-file.js", "..%2fCargo.toml", "%2e%2e%2fREADME.md", ".hidden"] {
        console.api.get(&format!("/assets/{name}")).await.expect_problem(404, "not_found");
    }
}
