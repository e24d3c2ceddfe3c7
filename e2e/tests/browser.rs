//! A browser at the gateway: its documentation, and pages of other origins.

#![allow(clippy::unwrap_used, reason = "a test")]

use actix_codec::Framed;
use actix_http::ws::{Codec, Frame, Message, hash_key};
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use e2e::{Browser, Stack, key};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use shared::testing::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Calls `done` with what the script returns, or with the name of what it throws.
fn script(body: &str) -> String {
    format!(
        "const done = arguments[arguments.length - 1];
         (async () => {{ {body} }})().then(done, (why) => done(why.name));"
    )
}

/// Answers every path with an empty page. Returns its origin.
fn pages() -> String {
    let page =
        async || HttpResponse::Ok().content_type("text/html").body("<!doctype html><title>A page</title>");
    let server = HttpServer::new(move || App::new().default_service(web::to(page)));
    let server = server.workers(1).bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    origin
}

/// A service with events, two on each connection. They continue after `Last-Event-ID`. Returns its URL.
fn events() -> String {
    let events = async |request: HttpRequest| {
        let last =
            request.headers().get("last-event-id").map(|id| id.to_str().unwrap().parse::<u32>().unwrap());
        let event = move |number: u32| {
            let id = last.unwrap_or_default() + number;
            Ok::<_, std::io::Error>(Bytes::from(format!("retry: 50\nid: {id}\ndata: {id}\n\n")))
        };
        HttpResponse::Ok().content_type("text/event-stream").streaming(stream::iter((1..=2).map(event)))
    };
    let server = HttpServer::new(move || {
        App::new()
            .route("/health/ready", web::get().to(HttpResponse::Ok))
            .route("/api/events", web::get().to(events))
    });
    let server = server.workers(1).bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    url
}

/// A service whose WebSockets send back what they get. Returns its URL.
async fn sockets() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_web::rt::spawn(echo(stream));
        }
    });
    url
}

async fn echo(mut stream: TcpStream) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(char::from(byte));
    }
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let Some(key) = key else {
        let ready = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.write_all(ready.as_bytes()).await.unwrap_or_default();
    };
    let accept = String::from_utf8(hash_key(key.as_bytes()).to_vec()).unwrap();
    let switched = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(switched.as_bytes()).await.unwrap();
    let mut socket = Framed::new(stream, Codec::new());
    while let Some(Ok(frame)) = socket.next().await {
        let answer = match frame {
            Frame::Text(text) => Message::Text(std::str::from_utf8(&text).unwrap().into()),
            Frame::Close(reason) => {
                let _ = socket.send(Message::Close(reason)).await;
                return;
            }
            _ => continue,
        };
        socket.send(answer).await.unwrap();
    }
}

/// gateway.toml with routes for these services. Pages of `origin` may use them, and the route of orders.
fn configuration(origin: &str) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway.toml")).unwrap();
    let cors = format!("[routes.cors]\norigins = [\"{origin}\"]\n");
    let orders = "prefix = \"/api/orders\"\nservice = \"order-service\"\n";
    let (before, after) = text.split_once(orders).unwrap();
    // The section of a route comes after its keys.
    let (keys, routes) = after.split_once("\n[[routes]]").unwrap();
    format!(
        "{before}{orders}{keys}\n{cors}\n[[routes]]{routes}\n\
         [[routes]]\nid = \"events\"\nprefix = \"/api/events\"\nservice = \"events\"\n{cors}\n\
         [[routes]]\nid = \"sockets\"\nprefix = \"/api/sockets\"\nservice = \"sockets\"\n[routes.websocket]\n{cors}"
    )
}

#[actix_web::test]
async fn the_documentation_shows_all_operations_and_tries_one_out() {
    let stack = Stack::start().await;
    let Some(browser) = Browser::start(&stack.public).await else { return };
    browser.open("/docs/").await;
    for path in ["/api/users", "/api/products", "/api/orders/{id}/events", "/api/payments/{id}"] {
        browser.find(&format!(".opblock-summary-path[data-path=\"{path}\"]")).await;
    }
    browser.picture("docs").await;
    browser.click(".opblock-get .opblock-summary-path[data-path=\"/api/products\"]").await;
    browser.click(".opblock-get.is-open .try-out__btn").await;
    browser.click(".opblock-get.is-open .execute").await;
    browser.shows(".opblock-get.is-open .live-responses-table .response .response-col_status", "200").await;
    browser
        .shows(
            ".opblock-get.is-open .live-responses-table .response .response-col_description",
            "\"products\"",
        )
        .await;
}

#[actix_web::test]
async fn a_page_of_another_origin_uses_the_api_only_if_the_cors_of_the_route_names_it() {
    let (named, other) = (pages(), pages());
    let file = std::env::temp_dir().join(format!("browser-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&file, configuration(&named)).unwrap();
    let stack = Stack::starting(&[("CONFIG_FILE", file.to_str().unwrap())]).await;
    stack.register_origin("events", &events()).await;
    stack.register_origin("sockets", &sockets().await).await;
    stack.healthy().await;
    let ann = stack.register().await;
    let base = &stack.public.base;
    let lines = json!([{ "product_id": ann.product().await["id"], "quantity": 1 }]);
    let order = json!({ "lines": lines, "payment_token": "tok_visa" }).to_string();
    let token = ann.api.token.clone().unwrap();

    // A preflight asks for the method and the headers before. Only then may the page read `ETag`.
    let fetches = script(&format!(
        "const headers = {{ authorization: 'Bearer {token}', 'content-type': 'application/json', 'idempotency-key': {key:?} }};
         const placed = await fetch('{base}/api/orders', {{ method: 'POST', headers, body: {order:?} }});
         const order = await placed.json();
         const read = await fetch(`{base}/api/orders/${{order.id}}`, {{ headers }});
         return [placed.status, placed.headers.get('etag'), placed.headers.get('location') === `/api/orders/${{order.id}}`, read.status];",
        key = key(),
    ));
    // This route has no `[routes.cors]`.
    let products = script(&format!("return (await fetch('{base}/api/products')).status;"));
    let listens = script(&format!(
        "const source = new EventSource('{base}/api/events');
         return await new Promise((resolve) => {{
           const got = [];
           source.onmessage = (event) => {{ got.push(event.data); if (got.length === 4) {{ source.close(); resolve(got); }} }};
           source.onerror = () => {{ if (source.readyState === EventSource.CLOSED) resolve('refused'); }};
         }});"
    ));
    let talks = script(&format!(
        "const socket = new WebSocket('{}/api/sockets');
         return await new Promise((resolve) => {{
           socket.onopen = () => socket.send('hello');
           socket.onmessage = (message) => {{ resolve(message.data); socket.close(1000); }};
           socket.onclose = ({{ code }}) => resolve(code);
         }});",
        base.replace("http:", "ws:")
    ));

    let Some(browser) = Browser::start(&Api::at(&*named)).await else { return };
    let at = async |origin: &str, script: &str| -> Value {
        browser.client.goto(origin).await.unwrap();
        browser.run_async(script).await
    };
    let answered = at(&named, &fetches).await;
    assert_eq!(
        (&answered[0], &answered[2], &answered[3]),
        (&json!(201), &json!(true), &json!(200)),
        "{answered}"
    );
    assert!(answered[1].as_str().is_some_and(|etag| etag.starts_with('"')), "{answered}");
    assert_eq!(at(&other, &fetches).await, "TypeError");
    assert_eq!(at(&named, &products).await, "TypeError");
    // The second connection continues where the first has ended.
    assert_eq!(at(&named, &listens).await, json!(["1", "2", "3", "4"]));
    assert_eq!(at(&other, &listens).await, "refused");
    assert_eq!(at(&named, &talks).await, "hello");
    assert_eq!(at(&other, &talks).await, 1006);
    std::fs::remove_file(file).unwrap();
}
