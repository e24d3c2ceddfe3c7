//! The map: replicas that die and return, and strategies whose effect can be seen.

use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use e2e::eventually;
use serde_json::json;

use crate::{at_the_console, start, start_in};

#[actix_web::test]
async fn the_map_shows_every_program_and_a_killed_replica_until_it_is_back() {
    let mut stack = start().await;
    let ann = stack.register().await;
    let order = ann.place(&ann.product().await, 1, "tok_visa").await;
    ann.order_reaches(&order, "confirmed").await;
    let Some(browser) = at_the_console(&stack, "/").await else { return };
    let services = ["user-service", "order-service", "payment-service", "storefront"];
    for node in services
        .map(|name| format!("service:{name}"))
        .iter()
        .map(String::as_str)
        .chain(["clients", "gateway"])
    {
        browser.find(&format!("svg [id='node-{node}']")).await;
    }
    browser.shows("#sentence", "all well").await;
    browser.picture("map").await;
    let port = stack.replicas("order-service")[0].port;
    let dot = |state: &str| format!("svg [data-replica$='-{port}']{state}");
    browser.find(&dot("[data-state=healthy]")).await;

    stack.kill("order-service", 0);
    for _ in 0..10 {
        // Another replica answers.
        stack.public.get("/api/products").await.expect(200);
    }
    browser.find(&dot(":not([data-state=healthy])")).await;
    browser.shows("#sentence", &format!("-{port}")).await;
    browser.click("#sentence-link").await;
    browser.shows("#panel-title", &format!("-{port}")).await;
    browser.picture("map-killed").await;
    stack.restart("order-service", 0);
    browser.find(&dot("[data-state=healthy]")).await;
    browser.shows("#sentence", "all well").await;
}

#[actix_web::test]
async fn an_ejected_replica_gets_no_request_until_it_is_restored() {
    let mut stack = start().await;
    let Some(browser) = at_the_console(&stack, "/").await else { return };
    let port = stack.replicas("order-service")[0].port;
    browser.click(&format!("#replicas a[id$='-{port}']")).await;
    browser.click("#do-eject").await;
    browser.shows("dialog", "for 60 seconds").await;
    browser.click("#ask-yes").await;
    browser.shows("#panel-state", "ejected by an admin").await;
    browser.picture("ejected").await;
    for _ in 0..20 {
        let served = stack.public.get("/api/products").await;
        assert!(!served.header("x-served-by").ends_with(&format!("-{port}")), "{served:?}");
    }
    browser.click("#do-restore").await;
    browser.click("#ask-yes").await;
    browser.find("#do-drain").await;
    eventually("the replica gets requests again", Duration::from_secs(30), async || {
        let served = stack.public.try_get("/api/products").await?;
        served.header("x-served-by").ends_with(&format!("-{port}")).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn a_switched_strategy_is_seen_in_the_distribution() {
    let stack = start().await;
    let Some(browser) = at_the_console(&stack, "/?route=products").await else { return };
    browser.find("#strategy").await;
    // The smallest and the greatest share of a replica, in percent.
    let shares = async |what: &str, is_so: fn(f64, f64) -> bool| {
        eventually(what, Duration::from_secs(40), async || {
            for _ in 0..40 {
                stack.public.try_get("/api/products").await?;
            }
            let script = "return [...document.querySelectorAll('#shares .much')].map((one) => parseFloat(one.textContent))";
            let seen = browser.run(script).await;
            let [one, other] = &seen.as_array()?[..] else { return None };
            let (one, other) = (one.as_f64()?, other.as_f64()?);
            is_so(one.min(other), one.max(other)).then_some(())
        })
        .await;
    };
    shares("round robin gives each replica half", |least, most| least > 40.0 && most < 60.0).await;
    browser.picture("strategy-before").await;
    browser
        .run("const choice = document.getElementById('strategy'); choice.value = 'consistent-hash'; choice.dispatchEvent(new Event('change'));")
        .await;
    browser.shows("#strategy-does", "The same client always gets the same replica").await;
    shares("all requests of one client go to one replica", |_, most| most > 99.0).await;
    browser.picture("strategy-after").await;
    let routes = stack.admin_port.get("/routes").await.expect(200);
    let products = routes["routes"].as_array().unwrap().iter().find(|route| route["id"] == "products");
    assert_eq!(products.unwrap()["strategy"], "consistent-hash");
}

#[actix_web::test]
async fn a_route_shows_the_shares_of_versions_and_a_replica_its_version_and_weight() {
    let version = env!("CARGO_PKG_VERSION");
    let routes = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    let versions = format!(
        "id = \"products\"\nversions.weights = {{ \"{version}\" = 1 }}\n\
         versions.canary = {{ version = \"next\", steps = [5] }}"
    );
    let file = std::env::temp_dir().join(format!("versions-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&file, routes.replace("id = \"products\"", &versions)).unwrap();
    let (stack, _) = start_in(&[("CONFIG_FILE", file.to_str().unwrap())]).await;
    std::fs::remove_file(file).unwrap();
    let Some(browser) = at_the_console(&stack, "/?route=products").await else { return };
    browser.shows(&format!("#versions [data-version='{version}']"), "95%").await;
    browser.shows("#versions [data-version=next]", "canary").await;
    browser.shows("#versions [data-version=next]", "5%").await;
    browser.shows("#canary", "The canary is version next: its share grows by steps").await;
    browser.shows("#routes", &format!("{version} 95% · canary next 5%")).await;
    browser.shows("svg [id='node-service:order-service']", "canary next 5%").await;
    browser.picture("versions").await;
    let admin = stack.admin_port.with_token(stack.admin().await.api.token.clone().unwrap());
    let share = json!({ "percent": 25 });
    admin.send(actix_web::http::Method::PUT, "/routes/products/canary", Some(&share)).await.expect(200);
    browser.shows("#versions [data-version=next]", "25%").await;
    browser.shows("#canary", "An admin has set its share").await;

    // A replica of the canary's version that only fails.
    let server = HttpServer::new(|| {
        App::new()
            .route("/health/ready", web::get().to(HttpResponse::Ok))
            .default_service(web::to(HttpResponse::InternalServerError))
    });
    let server = server.workers(1).bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    let stopping = server.run();
    let handle = stopping.handle();
    actix_web::rt::spawn(stopping);
    let registry = stack.admin_port.with_token(stack.service_token("order-service", "gateway", None));
    eventually("the canary is rolled back", Duration::from_secs(30), async || {
        let instance = json!({ "url": url, "metadata": { "version": "next" } });
        registry.put("/registry/services/order-service/instances/next", instance).await.expect(200);
        // Different ones, because the gateway keeps answers.
        for limit in 1..10 {
            stack.public.try_get(&format!("/api/products?limit={limit}")).await?;
        }
        let routes = admin.get("/routes").await.body;
        let mut routes = routes["routes"].as_array()?.iter();
        let route = routes.find(|route| route["id"] == "products")?;
        (route["versions"]["canary"]["state"] == "rolled_back").then_some(())
    })
    .await;
    browser.shows("#canary", "The canary, version next, was rolled back").await;
    browser.shows("svg [id='node-service:order-service']", "canary next rolled back").await;
    browser.shows("#routes", &format!("{version} 100% · canary next rolled back")).await;
    browser.picture("canary-rolled-back").await;
    handle.stop(false).await;

    browser.open("/?route=users").await;
    browser.shows("#versions", "does not distinguish versions").await;
    browser.click("#replicas tbody a").await;
    let panel = browser.shows("#panel-body", "Weight").await;
    assert!(panel.contains("Version") && panel.contains(version), "{panel}");
}
