use serde_json::json;

use crate::harness::{PASSWORD, Service};

#[actix_web::test]
async fn no_answer_shows_whether_an_address_exists() {
    let service = Service::start().await;
    service.register("ann@example.com").await.expect(201);
    let wrong = service.log_in("ann@example.com", "the wrong one").await;
    let unknown = service.log_in("bob@example.com", "the wrong one").await;
    for reply in [&wrong, &unknown] {
        reply.expect_problem(401, "invalid_credentials");
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
    }
    assert_eq!(wrong.body["detail"], unknown.body["detail"]);
    for odd in ["", "no address", &"x".repeat(1000)] {
        service.log_in(odd, odd).await.expect_problem(401, "invalid_credentials");
    }
}

#[actix_web::test]
async fn after_ten_wrong_passwords_a_client_has_to_wait_even_with_the_right_one() {
    let service = Service::start().await;
    service.register("ann@example.com").await.expect(201);
    for _ in 0..10 {
        service.log_in("ann@example.com", "the wrong one").await.expect_problem(401, "invalid_credentials");
    }
    let reply = service.log_in("ann@example.com", PASSWORD).await;
    reply.expect_problem(429, "rate_limited");
    assert!(reply.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 600));
    let elsewhere = service.api.with("x-real-ip", "203.0.113.9");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    elsewhere.post("/api/sessions", body).await.expect(201);
}

#[actix_web::test]
async fn the_addresses_of_an_ipv6_network_are_one_client() {
    let service = Service::start().await;
    service.register("ann@example.com").await.expect(201);
    let from = async |address: &str, password: &str| {
        let api = service.api.with("x-real-ip", address);
        api.post("/api/sessions", json!({ "email": "ann@example.com", "password": password })).await
    };
    for host in 1..=10 {
        let wrong = from(&format!("2001:db8::{host:x}"), "the wrong one").await;
        wrong.expect_problem(401, "invalid_credentials");
    }
    from("2001:db8::ffff", PASSWORD).await.expect_problem(429, "rate_limited");
    from("2001:db8:0:1::1", PASSWORD).await.expect(201);
}
