//! The lab over real connections: what it does to requests, and that nothing of it is there without `LAB=on`.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use shared::db::testing::{postgres_url, urls};
use shared::db::{Db, DbConfig, Migrations, query};
use shared::lab::{Fault, Lab, SLOW};
use shared::problem::Problem;
use shared::service::{HttpConfig, Service, resource};
use shared::testing::{Api, eventually, run};

const LONG: Duration = Duration::from_secs(60);
const FAULTS: &str = "/lab/faults";

async fn work(done: Data<AtomicU32>) -> HttpResponse {
    done.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok().json("done")
}

fn service(http: HttpConfig, done: &Arc<AtomicU32>) -> Service {
    let done = Data::from(done.clone());
    Service::bind("a-service", http).unwrap().configure(move |app: &mut web::ServiceConfig| {
        app.app_data(done.clone()).service(resource("/api/work").get(work));
    })
}

/// Starts a server with an open lab.
fn start() -> (Api, Lab, Arc<AtomicU32>) {
    let (lab, done) = (Lab::default(), Arc::default());
    let http = HttpConfig { lab: Some(lab.clone()), ..HttpConfig::for_tests() };
    let (api, _) = run(service(http, &done).open_lab().build().unwrap());
    (api, lab, done)
}

/// How often each fault has acted.
async fn injected(api: &Api) -> Value {
    api.get(FAULTS).await.expect(200)["injected"].take()
}

#[actix_web::test]
async fn a_slow_program_answers_late_and_its_health_check_in_time() {
    let (api, lab, _) = start();
    // The first request makes the connection.
    assert_eq!(api.get("/health/live").await.status, 200);
    lab.start(Fault::Slow, LONG);
    let begun = Instant::now();
    assert_eq!(api.get("/health/live").await.status, 200);
    assert!(begun.elapsed() < SLOW);
    assert_eq!(injected(&api).await, json!({ "slow": 0 }), "it runs, and has not acted yet");
    assert_eq!(api.get("/api/work").await.status, 200);
    assert!(begun.elapsed() >= SLOW);
    assert_eq!(injected(&api).await, json!({ "slow": 1 }));
}

#[actix_web::test]
async fn an_error_has_no_effect_and_a_lost_answer_has_one() {
    let (api, lab, done) = start();
    lab.start(Fault::Errors, LONG);
    let mut good = 0;
    eventually("there are errors", LONG, async || {
        let status = api.get("/api/work").await.status;
        good += u32::from(status == 200);
        (status == 503).then_some(())
    })
    .await;
    assert_eq!(done.load(Ordering::Relaxed), good, "an error has no effect");
    assert_eq!(injected(&api).await, json!({ "errors": 1 }), "requests that it spares are not counted");
    lab.end(Fault::Errors);
    lab.start(Fault::LostAnswers, LONG);
    let before = done.load(Ordering::Relaxed);
    let mut sent = 0;
    eventually("an answer is lost", LONG, async || {
        sent += 1;
        api.try_get("/api/work").await.is_none().then_some(())
    })
    .await;
    assert_eq!(done.load(Ordering::Relaxed) - before, sent, "a lost answer has its effect");
    assert_eq!(injected(&api).await, json!({ "errors": 1, "lost_answers": 1 }));
}

#[actix_web::test]
async fn a_program_that_refuses_or_pauses_answers_the_lab_alone_which_can_end_it() {
    let (api, lab, done) = start();
    lab.start(Fault::Refuse, LONG);
    assert!(api.try_get("/api/work").await.is_none() && api.try_get("/health/live").await.is_none());
    assert_eq!(api.delete("/lab/faults/refuse").await.status, 200);
    let started = api.post(FAULTS, json!({ "fault": "pause", "seconds": 60 })).await.expect(200);
    assert_eq!(started["running"][0]["fault"], "pause", "{started}");
    let waiting = api.try_get("/health/live");
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    assert_eq!(injected(&api).await, json!({ "pause": 1, "refuse": 2 }));
    let paused = actix_web::rt::spawn(async move { api.get("/api/work").await.status });
    assert_eq!(done.load(Ordering::Relaxed), 0);
    lab.end(Fault::Pause);
    assert_eq!(paused.await.unwrap(), 200);
}

/// A program that writes to its database, with an open lab.
async fn on_database(url: &str) -> (Api, Lab) {
    async fn write(db: Data<Db>) -> Result<HttpResponse, Problem> {
        db.transaction(async |tx| query("DELETE FROM idempotency_keys").execute(tx).await)
            .await
            .map_err(|error| error.problem())?;
        Ok(HttpResponse::Ok().json("written"))
    }
    let soon = Duration::from_millis(500);
    let db =
        Db::open(&DbConfig { acquire_timeout: soon, ..DbConfig::at(url) }, Migrations::none()).await.unwrap();
    let lab = Lab::default();
    let http = HttpConfig { lab: Some(lab.clone()), ..HttpConfig::for_tests() };
    let service = Service::bind("a-service", http).unwrap().open_lab().database(&db).configure(move |app| {
        app.app_data(Data::new(db.clone())).service(resource("/api/work").post(write));
    });
    (run(service.build().unwrap()).0, lab)
}

#[actix_web::test]
async fn nobody_writes_to_a_locked_database_until_the_fault_ends() {
    for url in urls().await {
        let (api, lab) = on_database(&url).await;
        let write = async || api.send(Method::POST, "/api/work", None).await.status;
        assert_eq!(write().await, 200);
        lab.start(Fault::DatabaseLocked, LONG);
        eventually("the database is locked", LONG, async || (write().await == 503).then_some(())).await;
        assert!(injected(&api).await["database_locked"].as_u64() > Some(0));
        lab.end(Fault::DatabaseLocked);
        eventually("the database is free", LONG, async || (write().await == 200).then_some(())).await;
    }
}

#[actix_web::test]
async fn a_replica_whose_clock_is_ahead_of_the_servers_is_not_ready() {
    let Some(url) = postgres_url().await else { return };
    let (api, lab) = on_database(&url).await;
    api.get("/health/ready").await.expect(200);
    lab.start(Fault::ClockAhead, LONG);
    let status = async || api.get("/health/ready").await.status;
    eventually("it is not ready", LONG, async || (status().await == 503).then_some(())).await;
    assert_eq!(injected(&api).await, json!({ "clock_ahead": 1 }));
    lab.end(Fault::ClockAhead);
    eventually("it is ready", LONG, async || (status().await == 200).then_some(())).await;
}

#[actix_web::test]
async fn an_open_lab_refuses_what_a_page_in_a_browser_sends() {
    let (api, lab, _) = start();
    for (name, value) in [
        ("origin", "http://localhost:3051"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
    ] {
        let page = api.with(name, value);
        page.get(FAULTS).await.expect_problem(403, "forbidden");
        page.delete("/lab/faults/slow").await.expect_problem(403, "forbidden");
        let body = json!({ "fault": "slow", "seconds": 5 });
        page.post(FAULTS, body).await.expect_problem(403, "forbidden");
    }
    assert!(lab.running().is_empty());
    api.get(FAULTS).await.expect(200);
}

#[actix_web::test]
async fn a_fault_that_the_program_cannot_have_or_that_lasts_too_long_is_refused() {
    let (api, ..) = start();
    for (fault, seconds, field) in [
        ("database_locked", json!(5), "fault"),
        ("tired", json!(5), "fault"),
        ("slow", json!(0), "seconds"),
        ("slow", json!(301), "seconds"),
        ("slow", json!("long"), "seconds"),
    ] {
        let refused = api.post(FAULTS, json!({ "fault": fault, "seconds": seconds })).await;
        assert_eq!(refused.expect_problem(422, "validation_failed"), [field], "{fault} {seconds}");
    }
    let seen = api.get(FAULTS).await.expect(200);
    assert_eq!(seen["running"], json!([]));
    let offers = ["kill", "pause", "refuse", "slow", "errors", "lost_answers"];
    assert_eq!(seen["offers"], json!(offers));
}

/// Even if there is one that the app could find, with a fault that runs.
#[actix_web::test]
async fn without_the_lab_its_calls_are_404_and_nothing_looks_at_it_in_the_path_of_a_request() {
    let (lab, done) = (Lab::default(), Arc::default());
    for fault in [Fault::Refuse, Fault::LostAnswers, Fault::Errors] {
        lab.start(fault, LONG);
    }
    let (api, _) = run(service(HttpConfig::for_tests(), &done).data(lab).open_lab().build().unwrap());
    for (method, path) in [
        (Method::GET, FAULTS),
        (Method::POST, FAULTS),
        (Method::DELETE, FAULTS),
        (Method::DELETE, "/lab/faults/slow"),
    ] {
        let body = json!({ "fault": "slow", "seconds": 5 });
        api.send(method, path, Some(&body)).await.expect_problem(404, "not_found");
    }
    for _ in 0..20 {
        assert_eq!(api.get("/api/work").await.status, 200);
    }
}

#[actix_web::test]
async fn a_program_without_an_open_lab_and_without_admins_has_no_calls_of_the_lab() {
    let http = HttpConfig { lab: Some(Lab::default()), ..HttpConfig::for_tests() };
    let (api, _) = run(service(http, &Arc::default()).build().unwrap());
    api.get(FAULTS).await.expect_problem(404, "not_found");
}
